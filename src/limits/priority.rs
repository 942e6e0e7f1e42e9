//! Which nice value and which oom_score_adj a launched process gets, from those of the process that launches it.

use super::number::{Nice, OomScoreAdj};

/// A child of a process that is not protected against the OOM killer gets this: nearly the first to go, yet with room
/// for a worse one.
const CHILD_SCORE: i32 = 998;

/// What protects an agent against the OOM killer where nobody says another score: only what must never die is lower.
pub const PROTECTED_SCORE: i32 = -900;

/// How much nicer than the process that launches it a child is.
const CHILD_NICER_BY: i32 = 5;

/// The three variables of the Coder agent, as they are in the environment of the process that launches. Their presence
/// is what counts for the first. They never reach a session's environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CoderEnv {
    /// `CODER_PROC_PRIO_MGMT`: any value, even an empty one, lets the other two count.
    pub prio_mgmt: Option<String>,
    /// `CODER_PROC_OOM_SCORE`: an oom_score_adj, -1000 to 1000.
    pub oom_score: Option<String>,
    /// `CODER_PROC_NICE_SCORE`: a nice value, -20 to 19.
    pub nice_score: Option<String>,
}

impl CoderEnv {
    /// The names, exactly: what a session's environment must not have.
    pub const NAMES: [&str; 3] = [
        "CODER_PROC_PRIO_MGMT",
        "CODER_PROC_OOM_SCORE",
        "CODER_PROC_NICE_SCORE",
    ];

    /// Reads the three from an environment.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> CoderEnv {
        let [prio_mgmt, oom_score, nice_score] = CoderEnv::NAMES.map(env);
        CoderEnv {
            prio_mgmt,
            oom_score,
            nice_score,
        }
    }

    /// Whether process priority management is enabled.
    pub fn enabled(&self) -> bool {
        self.prio_mgmt.is_some()
    }
}

/// What a launched process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priorities {
    /// oom_score_adj, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// Whether the oom_score_adj was declared or overridden, and not derived.
    pub oom_given: bool,
    /// Whether the nice value was declared or overridden, and not derived.
    pub nice_given: bool,
}

impl Priorities {
    /// Derives both, and returns what has to be said about variables that could not be used. What is declared (by a
    /// flag or the role) goes before the variables, and these before the derivation.
    ///
    /// `own_oom` and `own_nice` are those of the process that launches.
    pub fn derive(
        own_oom: i32,
        own_nice: i32,
        declared_oom: Option<OomScoreAdj>,
        declared_nice: Option<Nice>,
        coder: &CoderEnv,
    ) -> (Priorities, Vec<String>) {
        let mut warnings = Vec::new();
        let mut number = |name: &str, text: &Option<String>, least: i32, most: i32| {
            let text = text.as_ref().filter(|_| coder.enabled())?;
            match text.parse::<i32>() {
                Ok(number) if (least..=most).contains(&number) => Some(number),
                Ok(_) => {
                    warnings.push(format!(
                        "{name}={text}: out of range {least} to {most}, the default is used"
                    ));
                    None
                }
                Err(_) => {
                    warnings.push(format!(
                        "{name}={text:?}: not a whole number from {least} to {most}, the default is used"
                    ));
                    None
                }
            }
        };
        let coder_oom = number(CoderEnv::NAMES[1], &coder.oom_score, -1000, 1000);
        let coder_nice = number(CoderEnv::NAMES[2], &coder.nice_score, -20, 19);
        let oom = declared_oom.map(OomScoreAdj::get).or(coder_oom);
        let nice = declared_nice.map(|nice| nice.from_own(own_nice)).or(coder_nice);
        let priorities = Priorities {
            oom_score_adj: oom.unwrap_or_else(|| child_score(own_oom)),
            nice: nice.unwrap_or_else(|| Nice::Relative(CHILD_NICER_BY).from_own(own_nice)),
            oom_given: oom.is_some(),
            nice_given: nice.is_some(),
        };
        (priorities, warnings)
    }

    /// The same within what the host allows: no process is more favoured than this. `own_nice` is that of the process
    /// that launches.
    pub fn at_least(mut self, oom: Option<OomScoreAdj>, nice: Option<Nice>, own_nice: i32) -> Priorities {
        let oom = oom.map_or(self.oom_score_adj, OomScoreAdj::get);
        let nice = nice.map_or(self.nice, |nice| nice.from_own(own_nice));
        self.oom_score_adj = self.oom_score_adj.max(oom);
        self.nice = self.nice.max(nice);
        self
    }
}

/// Below zero the parent is protected and the child is an ordinary process; a parent that is nearly the first to go
/// has children that are; all others are put below their parent.
fn child_score(own: i32) -> i32 {
    match own {
        ..0 => 0,
        CHILD_SCORE.. => 1000,
        _ => CHILD_SCORE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derive(oom: i32, nice: i32) -> (i32, i32) {
        let (found, warnings) = Priorities::derive(oom, nice, None, None, &CoderEnv::default());
        assert!(warnings.is_empty() && !found.oom_given && !found.nice_given);
        (found.oom_score_adj, found.nice)
    }

    fn coder(oom: &str, nice: &str) -> CoderEnv {
        let some = |text: &str| Some(text.to_string());
        CoderEnv {
            prio_mgmt: some(""),
            oom_score: some(oom),
            nice_score: some(nice),
        }
    }

    #[test]
    fn derived_from_the_launching_process() {
        for (own, child) in [
            (-1000, 0),
            (-900, 0),
            (-1, 0),
            (0, 998),
            (500, 998),
            (997, 998),
            (998, 1000),
            (1000, 1000),
        ] {
            assert_eq!(derive(own, 0).0, child, "{own}");
        }
        for (own, child) in [(-20, -15), (0, 5), (13, 18), (14, 19), (15, 19), (19, 19)] {
            assert_eq!(derive(0, own).1, child, "{own}");
        }
    }

    #[test]
    fn declared_goes_before_the_variables() {
        let declared = (OomScoreAdj::new(7).ok(), Some(Nice::Absolute(3)));
        let (found, _) = Priorities::derive(0, 0, declared.0, declared.1, &coder("100", "10"));
        assert_eq!((found.oom_score_adj, found.nice), (7, 3));
        let (found, _) = Priorities::derive(0, 0, None, None, &coder("100", "10"));
        assert_eq!((found.oom_score_adj, found.nice), (100, 10));
        assert!(found.oom_given && found.nice_given);
    }

    #[test]
    fn variables_count_only_when_management_is_on() {
        let off = CoderEnv {
            prio_mgmt: None,
            ..coder("100", "junk")
        };
        let (found, warnings) = Priorities::derive(0, 0, None, None, &off);
        assert_eq!((found.oom_score_adj, found.nice, warnings.len()), (998, 5, 0));
    }

    #[test]
    fn bad_variables_are_named_and_the_default_is_used() {
        for (oom, nice) in [
            ("1001", "20"),
            ("-1001", "-21"),
            ("", "5.5"),
            ("1e2", " 5"),
            ("x\n\x1b[31m", "\u{7}"),
        ] {
            let (found, warnings) = Priorities::derive(0, 0, None, None, &coder(oom, nice));
            assert_eq!((found.oom_score_adj, found.nice), (998, 5), "{oom:?} {nice:?}");
            assert_eq!(warnings.len(), 2);
            assert!(warnings[0].starts_with("CODER_PROC_OOM_SCORE="), "{warnings:?}");
            assert!(warnings[1].starts_with("CODER_PROC_NICE_SCORE="), "{warnings:?}");
            assert!(!warnings.concat().contains(char::is_control), "{warnings:?}");
        }
    }

    #[test]
    fn the_host_says_how_favoured_at_most() {
        let (found, _) = Priorities::derive(0, 0, OomScoreAdj::new(-500).ok(), None, &CoderEnv::default());
        for (oom, nice, expected) in [
            (None, None, (-500, 5)),
            (Some(0), Some(Nice::Absolute(10)), (0, 10)),
            (Some(-900), Some(Nice::Absolute(3)), (-500, 5)),
            (None, Some(Nice::Relative(7)), (-500, 9)),
        ] {
            let capped = found.at_least(oom.and_then(|oom| OomScoreAdj::new(oom).ok()), nice, 2);
            assert_eq!((capped.oom_score_adj, capped.nice), expected);
        }
    }

    #[test]
    fn a_relative_nice_value_is_clamped() {
        for (own, by, nice) in [(0, 5, 5), (10, 15, 19), (-15, -10, -20), (5, -5, 0)] {
            let declared = Some(Nice::Relative(by));
            let (found, _) = Priorities::derive(0, own, None, declared, &CoderEnv::default());
            assert_eq!(found.nice, nice);
        }
    }
}
