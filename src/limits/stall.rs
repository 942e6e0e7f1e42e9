//! What is done about a session that is over memory.high and makes no progress.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is done about a session that stalls (`runtime.limits.stall`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StallAction {
    /// It is recorded.
    #[default]
    Record,
    /// memory.high is taken away.
    Lift,
    /// The session is killed.
    Kill,
}

impl StallAction {
    /// All of them.
    pub const ALL: [StallAction; 3] = [StallAction::Record, StallAction::Lift, StallAction::Kill];

    /// The word in a role file.
    pub fn word(self) -> &'static str {
        match self {
            StallAction::Record => "record",
            StallAction::Lift => "lift",
            StallAction::Kill => "kill",
        }
    }
}

impl fmt::Display for StallAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
