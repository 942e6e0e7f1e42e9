//! What was observed: facts with a time, one line of JSON each. Pure.
//!
//! A record says what counters, the kernel log or a wait status proved, and nothing that was guessed. Counters are given with
//! their value, so that a record that is missed costs no count: the next one has it. [`crate::store`] keeps records.
#![deny(clippy::disallowed_methods)]

pub mod case;
pub mod fold;
pub mod line;
pub mod scene;
pub mod summary;
pub mod watchdog;
pub mod words;

pub use crate::limits::StallAction;
pub use scene::Scene;
pub use summary::{Declared, Exited, OomKill, Usage};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One observed fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was observed, in microseconds since 1970.
    pub time_usec: u64,
    /// The session's name; none where it is about the machine or a slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Which session of that name: two that have the same name one after the other differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The session's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What was observed.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What was observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Fact {
    /// A session's command was started, or processes were adopted into one.
    Started(Started),
    /// The OOM killer ended processes of a session.
    OomKill(Box<OomKill>),
    /// The session reached memory.max, and reclaim made room: nothing was killed for it.
    MaxHit(Count),
    /// The session was slowed down for being over memory.high.
    Throttled(Count),
    /// The session is over memory.high and makes no progress.
    Stalled(Stall),
    /// A fork was refused by pids.max.
    PidsHit(Count),
    /// Tasks of a slice waited for a resource for a large share of the time.
    Pressure(Pressure),
    /// A limit is not what cgmgr set.
    Drifted(Drift),
    /// A role was applied.
    Applied(Applied),
    /// A session was frozen, or thawed.
    Frozen(Frozen),
    /// A session is over.
    Exited(Box<Exited>),
}

impl Fact {
    /// Its name, as in `event`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::OomKill(_) => "oom_kill",
            Self::MaxHit(_) => "max_hit",
            Self::Throttled(_) => "throttled",
            Self::Stalled(_) => "stalled",
            Self::PidsHit(_) => "pids_hit",
            Self::Pressure(_) => "pressure",
            Self::Drifted(_) => "drifted",
            Self::Applied(_) => "applied",
            Self::Frozen(_) => "frozen",
            Self::Exited(_) => "exited",
        }
    }
}

/// Who and how a session is, from its start on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The command and its arguments, cut.
    #[serde(default)]
    pub command: Vec<String>,
    /// The user that it runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The user who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<u32>,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// A counter of the kernel's that rose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// What it is now, since the session began.
    pub total: u64,
    /// How much of that no earlier record has told of.
    pub rise: u64,
    /// The limit, in its own unit: bytes, tasks; none where there is no limit any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What is used of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
}

/// A session that is over memory.high and makes no progress.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// memory.high in bytes.
    pub limit: u64,
    /// What it holds, in bytes.
    pub current: u64,
    /// For how long, in microseconds.
    pub for_usec: u64,
    /// Percent of that time during which every task of it waited for memory (memory.pressure, `full`).
    pub full_percent: f64,
    /// What was done about it.
    #[serde(default)]
    pub action: StallAction,
    /// Why the action failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Stall {
    /// Whether memory.high was lifted for it.
    pub fn was_lifted(&self) -> bool {
        self.action == StallAction::Lift && self.error.is_none()
    }
}

/// Tasks that waited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// The slice, or `/` for the machine.
    pub group: String,
    /// `memory`, `cpu` or `io`.
    pub resource: String,
    /// Percent of the last ten seconds during which some task waited.
    pub some_avg10: f64,
    /// Percent during which all did.
    pub full_avg10: f64,
}

/// A limit that is not what cgmgr set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The group.
    pub group: String,
    /// The knob.
    pub knob: String,
    /// What cgmgr set, as the kernel has it.
    pub declared: String,
    /// What is there.
    pub found: String,
    /// Whether it was set back.
    #[serde(default)]
    pub repaired: bool,
}

/// A role that was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The role's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How many things were changed; 0 where all was as declared already, and records had it otherwise.
    pub changes: u64,
    /// Limits of the slices as the kernel had them afterwards, by knob. Empty: they are as they are then (after `down`,
    /// `install` or `uninstall`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
    /// The workloads.memory_max that was declared, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<u64>,
    /// Where to change that: `workloads.memory_max in workspace.role.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling_from: Option<String>,
}

impl Applied {
    /// So many changes that were not those of a role: `down`, `install`, `uninstall`.
    pub fn of(changes: usize) -> Self {
        Self {
            changes: changes as u64,
            ..Self::default()
        }
    }
}

/// A session that was frozen or thawed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// `true`: frozen.
    pub frozen: bool,
}

impl Record {
    /// The record as one line of JSON, without an end of line.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The record in a line, if it is one that this version knows.
    pub fn from_text(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// Whether this is of the session `name`.
    pub fn is_of(&self, name: &str) -> bool {
        self.session.as_deref() == Some(name)
    }
}

/// What tells a session from another one of the same name: when it began, in seconds since 1970, and its group's id, or its
/// supervisor's pid where it has no group.
pub fn session_id(started: u64, group_or_pid: u64) -> String {
    format!("{started:x}-{group_or_pid:x}")
}
