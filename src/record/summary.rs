//! What is kept of a session when it is over, and of an OOM kill in it. Pure.

use super::scene::Scene;
use super::words::Hit;
use crate::kernel::kmsg::Victim;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The OOM killer ended processes of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OomKill {
    /// Whose limit was hit: `session`, `inner`, `ceiling`, `global`, `outside`, `systemd-oomd`, or
    /// `unknown` where it was one above and nobody looked on.
    pub level: String,
    /// The group whose limit was hit, where it is above the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_group: Option<String>,
    /// That limit, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Processes that were killed.
    pub kills: u64,
    /// What the kernel has counted in the session since it began (`oom_kill` of memory.events).
    #[serde(default)]
    pub total: u64,
    /// Whether the kernel killed the whole group at once.
    #[serde(default)]
    pub whole_group: bool,
    /// Whether the command itself was killed; none where it is too early to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_command: Option<bool>,
    /// Victims known by name, the one that the kernel chose first. Empty: unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<Victim>,
    /// What was to be seen in the session then.
    #[serde(default)]
    pub scene: Scene,
    /// Nobody is to be told of it beyond whoever runs the session (`oom.notify = false`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
}

/// A session's limits as they were declared, by knob, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// By knob: the kernel's text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
    /// Knobs that are not enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfined: Vec<String>,
    /// The role's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_file: Option<String>,
    /// Knobs that were given by flags, or by `cgmgr set`, and not by the role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// A session is over: what it was, how it ended, and what it used. Advice is built on this.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exited {
    /// The exit status as `run` returns it; none where nobody saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// The signal that ended the command, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it began, in microseconds since 1970.
    pub started_usec: u64,
    /// The command and its arguments, cut.
    #[serde(default)]
    pub command: Vec<String>,
    /// The user that it ran as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The user who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<u32>,
    /// `cgroupfs`, `scope` or `process`.
    #[serde(default)]
    pub backend: String,
    /// Its OOM kills, all of them together; none where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<OomKill>,
    /// Whether there was an OOM kill is not known: the group was gone before its counters could be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom_unknown: bool,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// What was declared for it.
    #[serde(default)]
    pub declared: Declared,
    /// What was said about its end, a sentence or two each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub story: Vec<String>,
}

impl OomKill {
    /// The limit that was hit.
    pub fn hit(&self) -> Hit<'_> {
        Hit {
            level: &self.level,
            group: self.limited_group.as_deref(),
            limit: self.limit,
        }
    }
}

impl Exited {
    /// Whether the OOM killer ended the command or the whole session.
    pub fn was_oom_killed(&self) -> bool {
        self.oom
            .as_ref()
            .is_some_and(|oom| oom.took_command == Some(true) || oom.whole_group)
    }
}

/// What a session used. Each is none where it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Most memory held at once, in bytes (`memory.peak`, kernel 5.19 and later).
    pub memory_peak: Option<u64>,
    /// CPU time, in microseconds.
    pub cpu_usec: Option<u64>,
    /// Time during which it was held back by cpu.max, in microseconds.
    pub cpu_throttled_usec: Option<u64>,
    /// Most tasks at once (`pids.peak`, kernel 6.1 and later).
    pub pids_peak: Option<u64>,
    /// Times a fork was refused by pids.max.
    pub pids_refused: Option<u64>,
    /// Times it was slowed down for being over memory.high.
    pub memory_high_events: Option<u64>,
    /// Times it reached memory.max.
    #[serde(default)]
    pub memory_max_events: Option<u64>,
    /// From start to end, in microseconds.
    pub wall_usec: u64,
}
