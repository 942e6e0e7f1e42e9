//! Weights, counts and priorities: plain numbers with a range.

use std::fmt;

use super::error::{ErrorKind, GrammarError};
use super::size::Percent;

/// A share under contention, relative to the siblings: 1 to 10000, the kernel's default is 100 (cgroup v2, Weights).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

impl Weight {
    /// A weight; an error outside 1 to 10000, as in the kernel.
    pub fn new(weight: i128) -> Result<Weight, GrammarError> {
        match u16::try_from(weight) {
            Ok(weight @ 1..=10_000) => Ok(Weight(weight)),
            _ => Err(out_of_range("a weight", 1, 10_000, "100 is the kernel's default")),
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many, as somebody wrote it, before the machine is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many.
    At(u64),
    /// A share of what the machine can hold.
    Percent(Percent),
    /// No limit, explicitly.
    Max,
}

/// A nice value (sched(7)): -20 is the most favourable, 19 the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nice {
    /// This value, -20 to 19.
    Absolute(i32),
    /// So much more than that of the process which launches, -39 to 39; the sum is clamped to -20 to 19.
    Relative(i32),
}

impl Nice {
    /// An absolute value; an error outside -20 to 19.
    pub fn absolute(nice: i128) -> Result<Nice, GrammarError> {
        match i32::try_from(nice) {
            Ok(nice @ -20..=19) => Ok(Nice::Absolute(nice)),
            _ => Err(out_of_range(
                "a nice value",
                -20,
                19,
                "\"+5\" is five more than the agent's own",
            )),
        }
    }

    /// A distance; an error outside -39 to 39, which is all there is between -20 and 19.
    pub fn relative(by: i128) -> Result<Nice, GrammarError> {
        match i32::try_from(by) {
            Ok(by @ -39..=39) => Ok(Nice::Relative(by)),
            _ => Err(out_of_range(
                "a relative nice value",
                -39,
                39,
                "\"+5\" is five more than the agent's own",
            )),
        }
    }

    /// What it is for a process that is launched by one with the nice value `own`.
    pub fn from_own(self, own: i32) -> i32 {
        match self {
            Nice::Absolute(nice) => nice,
            Nice::Relative(by) => own.saturating_add(by).clamp(-20, 19),
        }
    }
}

impl fmt::Display for Nice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nice::Absolute(nice) => write!(f, "{nice}"),
            Nice::Relative(by) => write!(f, "{by:+}"),
        }
    }
}

/// What is added to a process's score when the kernel looks for a victim (proc_pid_oom_score_adj(5)): -1000 is never,
/// 1000 is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OomScoreAdj(i16);

impl OomScoreAdj {
    /// An adjustment; an error outside -1000 to 1000.
    pub fn new(score: i128) -> Result<OomScoreAdj, GrammarError> {
        match i16::try_from(score) {
            Ok(score @ -1000..=1000) => Ok(OomScoreAdj(score)),
            _ => Err(out_of_range(
                "oom_score_adj",
                -1000,
                1000,
                "1000 is killed first, -1000 never",
            )),
        }
    }

    /// The number.
    pub fn get(self) -> i32 {
        i32::from(self.0)
    }
}

impl fmt::Display for OomScoreAdj {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happens to a launch that the machine has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Nothing: launch.
    Off,
    /// Say so and launch.
    Warn,
    /// Wait for room.
    Queue,
    /// Do not launch, and say who holds what.
    Refuse,
}

impl Admission {
    /// All of them, in the order of how strict they are.
    pub const ALL: [Admission; 4] = [
        Admission::Off,
        Admission::Warn,
        Admission::Queue,
        Admission::Refuse,
    ];

    /// The word in a role file.
    pub fn word(self) -> &'static str {
        match self {
            Admission::Off => "off",
            Admission::Warn => "warn",
            Admission::Queue => "queue",
            Admission::Refuse => "refuse",
        }
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

pub(super) fn out_of_range(what: &str, least: i64, most: i64, help: &str) -> GrammarError {
    GrammarError::new(
        ErrorKind::OutOfRange,
        format!("{what} is from {least} to {most}"),
        help,
    )
}
