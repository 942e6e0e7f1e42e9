//! Whose limit was hit, and what to do about it, in words. Pure.

use crate::host::WORKLOADS_SLICE;
use crate::kernel::kmsg::Victim;
use crate::text::bytes;

/// A limit that was hit.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    /// Whose it is, as in [`OomKill::level`](super::OomKill::level).
    pub level: &'a str,
    /// Its group, where that is above the session.
    pub group: Option<&'a str>,
    /// What it is, in bytes.
    pub limit: Option<u64>,
}

impl Hit<'_> {
    /// The last part of its group's name; empty for the root.
    fn name(&self) -> Option<&str> {
        Some(self.group?.rsplit('/').next().unwrap_or_default())
    }

    fn is_ceiling(&self) -> bool {
        self.name() == Some(WORKLOADS_SLICE)
    }

    fn is_containers(&self) -> bool {
        self.name() == Some("")
    }
}

/// What was reached.
pub fn limit_reached(hit: &Hit<'_>) -> String {
    let limit = hit.limit.map(|l| format!(" {}", bytes(l))).unwrap_or_default();
    match (hit.level, hit.group) {
        ("session", _) => format!("memory_max{limit} reached"),
        ("inner", _) => "a memory limit that the session itself had set was reached".into(),
        ("ceiling", _) if hit.is_ceiling() => {
            format!("all sessions together reached the ceiling workloads.memory_max{limit}")
        }
        ("ceiling", _) if hit.is_containers() => {
            format!("this container's own memory.max{limit} was reached")
        }
        ("ceiling", Some(group)) => format!("memory.max{limit} of {group} reached"),
        ("global", _) => "the machine ran out of memory".into(),
        ("systemd-oomd", _) => "systemd-oomd ended it for memory pressure or swap use".into(),
        ("unknown", _) => {
            "a limit above the session's own was reached, or the machine ran out of memory: nobody looked on who could \
             say which"
                .into()
        }
        _ => "a limit outside this container was reached, or the machine ran out of memory".into(),
    }
}

/// What to do about it. `memory_max_from` is where the session's memory_max was declared.
pub fn advice(hit: &Hit<'_>, memory_max_from: &str) -> String {
    match (hit.level, hit.group) {
        ("session", _) => format!("Raise {memory_max_from} or build with fewer jobs."),
        ("inner", _) => "Raise that limit, or take it away.".into(),
        ("ceiling", _) if hit.is_ceiling() => {
            "Run fewer sessions at once, give each a lower memory_max, or raise workloads.memory_max.".into()
        }
        ("ceiling", _) if hit.is_containers() => {
            "Give the container more memory, or workloads a memory_max below the container's.".into()
        }
        ("ceiling", Some(group)) => format!("Raise memory.max of {group}, or run less below it."),
        ("global", _) => {
            "Give workloads a memory_max below the machine's memory: `cgmgr doctor` says if it has one."
                .into()
        }
        ("systemd-oomd", _) => {
            "`oomctl` shows what it watches; ManagedOOMPreference= of the unit exempts it.".into()
        }
        ("unknown", _) => {
            "`cgmgr status` shows the limits above it, and `cgmgr events` what else was killed at that time."
                .into()
        }
        _ => "Give workloads a memory_max below what the container may have.".into(),
    }
}

/// The advice where the limit that was hit was set while the session ran.
pub fn advice_of_set_limit(session: &str) -> String {
    format!(
        "That limit was set while it ran: raise it with `cgmgr set {session} memory_max=…`, or build with fewer jobs."
    )
}

/// A victim, and what it held.
pub fn held(victim: &Victim) -> String {
    format!("{} pid {} held {}", victim.comm, victim.pid, bytes(victim.anon))
}
