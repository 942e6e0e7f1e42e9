//! Limits by flag: each takes what the role file takes for that knob.
//!
//! Not by clap's derive: fourteen that are alike are a table, what derive makes of them holds all of them on the stack at
//! once, which a launch pays for with a page fault each four KiB, and to define those too that nobody has typed is a tenth of
//! what a launch computes ([`Typed`]).

use crate::limits::KnobId;
use crate::role::Overrides;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use std::cell::Cell;
use std::ffi::OsString;

const HEADING: &str = "Limits (over the role's)";

/// What follows the flag.
enum Takes {
    Value,
    /// A value that may begin with a minus.
    Number,
    /// `=true` or `=false`; true where nothing follows.
    Switch,
}

/// One flag: its knob, as it is typed, what its value is called, what it is for.
type Flag = (KnobId, &'static str, &'static str, Takes, &'static str);

const FLAGS: [Flag; 14] = {
    use KnobId::*;
    use Takes::*;
    [
        (
            MemoryHigh,
            "--memory-high",
            "SIZE",
            Value,
            "Above this the kernel reclaims and slows down (e.g. 12GiB, 50%)",
        ),
        (
            MemoryMax,
            "--memory-max",
            "SIZE",
            Value,
            "Above this the kernel kills (e.g. 16GiB, 60%, max)",
        ),
        (
            MemorySwapMax,
            "--memory-swap-max",
            "SIZE",
            Value,
            "Swap; 0 unless given where memory_max is set",
        ),
        (
            Cpus,
            "--cpus",
            "CPUS",
            Value,
            "CPU time per time (e.g. 3, 1.5, 300%)",
        ),
        (
            CpuWeight,
            "--cpu-weight",
            "WEIGHT",
            Value,
            "Share of CPU time under contention, 1 to 10000",
        ),
        (
            IoWeight,
            "--io-weight",
            "WEIGHT",
            Value,
            "Share of I/O under contention, 1 to 10000",
        ),
        (Pids, "--pids", "N", Value, "Most processes and threads at once"),
        (Nofile, "--nofile", "N", Value, "Most open files per process"),
        (
            Nice,
            "--nice",
            "NICE",
            Number,
            "Nice value: absolute, or with a sign relative to the caller's",
        ),
        (
            OomScoreAdj,
            "--oom-score-adj",
            "SCORE",
            Number,
            "oom_score_adj, -1000 to 1000",
        ),
        (
            OomGroup,
            "--oom-group",
            "BOOL",
            Switch,
            "Kill the whole session where the kernel would kill one process of it",
        ),
        (
            OomPreserveState,
            "--oom-preserve-state",
            "BOOL",
            Switch,
            "After an OOM kill keep the whole record, and the name until it is forgotten",
        ),
        (
            OomNotify,
            "--oom-notify",
            "BOOL",
            Switch,
            "Bring an OOM kill to the user's attention",
        ),
        (
            Stall,
            "--stall",
            "ACTION",
            Value,
            "What is done where it is over memory_high and makes no progress: record, lift or kill",
        ),
    ]
};

thread_local! {
    /// The flags that are to be defined, a bit each by their place in the table.
    static DEFINED: Cell<u16> = const { Cell::new(u16::MAX) };
}

/// As long as it is kept, only those flags are defined that are among the words that were typed. What is typed is
/// understood as with all of them, but for what is no word of the command's at all: then, and where help is asked for, it
/// is to be read again with all.
pub struct Typed(());

impl Typed {
    /// Looks for flags among these words.
    pub fn of(words: &[OsString]) -> Self {
        let is_typed = |flag: &str| {
            let mut words = words
                .iter()
                .filter_map(|word| word.as_encoded_bytes().strip_prefix(flag.as_bytes()));
            words.any(|rest| matches!(rest.first(), None | Some(b'=')))
        };
        let bits = FLAGS
            .iter()
            .enumerate()
            .map(|(n, (_, flag, ..))| u16::from(is_typed(flag)) << n);
        DEFINED.set(bits.sum());
        Self(())
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        DEFINED.set(u16::MAX);
    }
}

/// The limits that were given by flags.
#[derive(Debug, Default)]
pub struct LimitArgs {
    given: Vec<(KnobId, String, &'static str)>,
}

impl LimitArgs {
    /// Knob, text and flag of each limit that was given.
    pub fn given(&self) -> Vec<(KnobId, &str, &'static str)> {
        let given = self.given.iter();
        given.map(|(knob, text, flag)| (*knob, &**text, *flag)).collect()
    }

    /// The same for resolving a role.
    pub fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::default();
        for (knob, text, flag) in self.given() {
            overrides.push(knob, text, flag);
        }
        overrides
    }
}

fn arg((_, flag, value, takes, help): &Flag) -> Arg {
    let name = name(flag);
    let arg = Arg::new(name)
        .long(name)
        .value_name(*value)
        .help(*help)
        .help_heading(HEADING)
        .action(ArgAction::Set);
    match takes {
        Takes::Value => arg,
        Takes::Number => arg.allow_hyphen_values(true),
        Takes::Switch => arg
            .num_args(0..=1)
            .default_missing_value("true")
            .require_equals(true),
    }
}

fn name(flag: &'static str) -> &'static str {
    flag.trim_start_matches('-')
}

impl Args for LimitArgs {
    fn augment_args(mut command: Command) -> Command {
        let defined = DEFINED.get();
        for (n, flag) in FLAGS.iter().enumerate() {
            if defined >> n & 1 == 1 {
                command = command.arg(arg(flag));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LimitArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut limits = Self::default();
        limits.update_from_arg_matches(matches)?;
        Ok(limits)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for (knob, flag, ..) in &FLAGS {
            // One that is not defined was not typed.
            if let Ok(Some(text)) = matches.try_get_one::<String>(name(flag)) {
                self.given.push((*knob, text.clone(), flag));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defined(words: &[&str]) -> Vec<String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let _typed = Typed::of(&words);
        let command = LimitArgs::augment_args(Command::new("run"));
        command
            .get_arguments()
            .map(|arg| arg.get_id().to_string())
            .collect()
    }

    #[test]
    fn what_is_typed_is_defined() {
        assert_eq!(defined(&["run", "true"]), [""; 0]);
        assert_eq!(
            defined(&[
                "run",
                "--pids",
                "7",
                "--oom-group=false",
                "--memory-maximum",
                "--memory"
            ]),
            ["pids", "oom-group"]
        );
        assert_eq!(
            LimitArgs::augment_args(Command::new("run"))
                .get_arguments()
                .count(),
            14
        );
    }
}
