//! What `payload escape` says that it has tried.

use std::collections::BTreeSet;

use crate::cgmgr::Done;

/// Every class of attempts that there is.
pub const CLASSES: [&str; 16] = [
    "agent",
    "below",
    "clone",
    "descriptor",
    "identity",
    "limit",
    "manager",
    "meddle",
    "move",
    "namespace",
    "proc",
    "raise",
    "regain",
    "registry",
    "signal",
    "trace",
];

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    /// Of which kind.
    pub class: String,
    /// On what.
    pub what: String,
    /// Whether it succeeded.
    pub done: bool,
}

/// All of them; fails unless the payload came to its end.
#[track_caller]
pub fn attempts(done: &Done) -> Vec<Attempt> {
    assert!(
        done.out.lines().any(|line| line.starts_with("end ")),
        "{}",
        told_once(done)
    );
    let line = |line: &str| {
        let (attempt, outcome) = line.rsplit_once(": ")?;
        let (class, what) = attempt.split_once(' ')?;
        (class != "step").then(|| Attempt {
            class: class.to_owned(),
            what: what.to_owned(),
            done: match outcome.split(' ').next() {
                Some("done") => true,
                Some("refused") => false,
                _ => panic!("{line}"),
            },
        })
    };
    done.out.lines().filter_map(line).collect()
}

/// The end of what was said, and each line of a kind once: all of it is thousands of lines.
pub fn told_once(done: &Done) -> String {
    let mut kinds = BTreeSet::new();
    let mut told: Vec<&str> = done
        .out
        .lines()
        .filter(|line| kinds.insert((line.split(' ').next(), line.rsplit(": ").next())))
        .collect();
    told.extend(done.out.lines().last());
    format!("{}\n{}", told.join("\n"), done.err)
}
