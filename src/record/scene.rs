//! What was to be seen in a session at the moment of an OOM kill. Pure.

use crate::kernel::counters::Pressure;
use crate::order;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

pub use crate::kernel::sample::Split;

/// How many processes are kept, those with the most memory first.
pub const PROCESSES_KEPT: usize = 10;

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

impl Scene {
    /// Keeps those processes that hold the most.
    pub fn with_processes(mut self, mut all: Vec<Process>) -> Self {
        order::sort_by_key(&mut all, |process| (Reverse(process.rss), process.pid));
        self.more_processes = all.len().saturating_sub(PROCESSES_KEPT) as u64;
        all.truncate(PROCESSES_KEPT);
        self.processes = all;
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
}
