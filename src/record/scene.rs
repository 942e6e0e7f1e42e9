//! What was to be seen in a session at the moment of an OOM kill. Pure.

use crate::kernel::counters::Pressure;
use crate::order;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

pub use crate::kernel::sample::Split;

/// How many processes are kept, those with the most memory first.
pub const PROCESSES_KEPT: usize = 10;

/// How many sessions are kept, those with the most memory first.
pub const SESSIONS_KEPT: usize = 10;

/// What was to be seen in a session, right after the OOM killer had chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Memory that the session held, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// The most that it ever held, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// What the memory is, from memory.stat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Split>,
    /// Processes that were alive in it, those with the most memory first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
    /// Processes beside those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_processes: u64,
    /// Percent of the last minute during which some task of it waited for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub some_avg60: Option<f64>,
    /// Percent of it during which all did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_avg60: Option<f64>,
    /// Where the limit was one above the session: the sessions, those with the most memory first, this one among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<Holder>,
    /// Sessions beside those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_sessions: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its name, escaped for printing.
    pub comm: String,
    /// Memory that it holds, in bytes (its resident set).
    pub rss: u64,
}

/// A session, and the memory that it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its name.
    pub session: String,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Memory that it held, in bytes (memory.current).
    pub memory: u64,
}

impl Scene {
    /// Keeps those processes that hold the most.
    pub fn with_processes(mut self, mut all: Vec<Process>) -> Self {
        order::sort_by_key(&mut all, |process| (Reverse(process.rss), process.pid));
        self.more_processes = all.len().saturating_sub(PROCESSES_KEPT) as u64;
        all.truncate(PROCESSES_KEPT);
        self.processes = all;
        self
    }

    /// Keeps those sessions that hold the most. `role` is asked for the roles of those only.
    pub fn with_sessions<P>(
        mut self,
        mut all: Vec<(String, u64, P)>,
        role: &dyn Fn(&P) -> Option<String>,
    ) -> Self {
        order::sort_by(&mut all, |a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        self.more_sessions = all.len().saturating_sub(SESSIONS_KEPT) as u64;
        all.truncate(SESSIONS_KEPT);
        let holders = all.into_iter().map(|(session, memory, at)| Holder {
            role: role(&at),
            session,
            memory,
        });
        self.sessions = holders.collect();
        self
    }

    /// Keeps what memory.pressure says.
    pub fn with_pressure(mut self, some: Option<Pressure>, full: Option<Pressure>) -> Self {
        self.some_avg60 = some.map(|p| p.avg60);
        self.full_avg60 = full.map(|p| p.avg60);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_the_most_memory_are_kept() {
        let all = (0..15).map(|n| Process {
            pid: n,
            comm: "p".into(),
            rss: n as u64 / 2,
        });
        let scene = Scene::default().with_processes(all.collect());
        assert_eq!(scene.more_processes, 5);
        assert_eq!((scene.processes[0].pid, scene.processes[1].pid), (14, 12));
    }

    #[test]
    fn of_the_sessions_with_the_most_memory_the_role_is_asked_for() {
        let all = (0..12).map(|n: u64| (format!("s{n:02}"), n / 2 * 2, n));
        let asked = std::cell::Cell::new(0);
        let scene = Scene::default().with_sessions(all.collect(), &|n| {
            asked.set(asked.get() + 1);
            (*n == 11).then(|| "big".to_owned())
        });
        assert_eq!(
            (scene.sessions.len(), scene.more_sessions, asked.get()),
            (10, 2, 10)
        );
        let first: Vec<_> = scene.sessions[..3].iter().map(|s| s.session.as_str()).collect();
        assert_eq!(first, ["s10", "s11", "s08"]);
        assert_eq!(scene.sessions[1].role.as_deref(), Some("big"));
    }

    #[test]
    fn a_scene_of_an_older_version_is_read_and_nothing_is_written_of_what_is_not_there() {
        let old = r#"{"current":5}"#;
        let scene: Scene = serde_json::from_str(old).unwrap();
        assert_eq!((scene.sessions.len(), scene.more_sessions), (0, 0));
        assert_eq!(serde_json::to_string(&scene).unwrap(), old);
    }
}
