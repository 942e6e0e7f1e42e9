//! Whose limit was hit, and what to do about it, in words. Pure.

use crate::host::WORKLOADS_SLICE;
use crate::kernel::kmsg::Victim;
use crate::text::{bytes, time};

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

    /// Whether it is the one over all sessions.
    pub(super) fn is_ceiling(&self) -> bool {
        self.name() == Some(WORKLOADS_SLICE)
    }

    fn is_containers(&self) -> bool {
        self.name() == Some("")
    }
}

/// So many processes are worth the advice to run fewer of them.
const MANY: u64 = 4;

/// Who had filled a session up to its own limit, as far as the advice depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// One process held nearly all of it.
    ByOne,
    /// One of a few, or it is not known.
    ByFew,
    /// Several processes.
    ByMany,
}

impl Filled {
    /// By what each process that is known held, and how many there were.
    pub fn of(limit: Option<u64>, held: impl Iterator<Item = u64>, processes: u64) -> Self {
        let nearly_all = |held: &u64| limit.is_some_and(|limit| *held >= limit - limit / 8);
        // Memory that is shared counts for each who has it.
        match held.filter(nearly_all).count() {
            1 => Self::ByOne,
            _ if processes >= MANY => Self::ByMany,
            _ => Self::ByFew,
        }
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
pub fn advice(hit: &Hit<'_>, memory_max_from: &str, filled: Filled) -> String {
    match (hit.level, hit.group) {
        ("session", _) => match filled {
            Filled::ByOne => format!("Raise {memory_max_from}: one program alone needs more than that."),
            Filled::ByFew => format!("Raise {memory_max_from}."),
            Filled::ByMany => format!("Raise {memory_max_from} or build with fewer jobs."),
        },
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
pub fn advice_of_set_limit(session: &str, filled: Filled) -> String {
    let or = match filled {
        Filled::ByMany => ", or build with fewer jobs",
        _ => "",
    };
    format!("That limit was set while it ran: raise it with `cgmgr set {session} memory_max=…`{or}.")
}

/// A value to try where a session's own limit was reached, which had held at most `held`.
pub fn value_to_try(hit: &Hit<'_>, held: u64) -> Option<String> {
    let limit = hit.limit.filter(|_| hit.level == "session")?;
    let twice = limit.saturating_mul(2);
    // Else the limit was lowered below what it held already.
    (held < twice).then(|| {
        let twice = bytes(twice);
        format!("How much is enough is not known: try {twice}, twice as much.")
    })
}

/// Where workloads.memory_max is to be changed. `known` is when it was applied, and where it was declared.
pub fn where_the_ceiling_is(hit: &Hit<'_>, known: Option<(u64, &str)>) -> Option<String> {
    if hit.level != "ceiling" || !hit.is_ceiling() {
        return None;
    }
    Some(match known {
        Some((at, from)) => format!(
            "The ceiling is {from}, applied on {}: change it there and `cgmgr apply` that role again.",
            time(at)
        ),
        None => "The ceiling is in the role that was last applied or installed, or in /etc/cgmgr/host.toml; on a systemd \
                 machine `systemctl cat workloads.slice` shows which file has it."
            .into(),
    })
}

/// A victim, and what it held.
pub fn held(victim: &Victim) -> String {
    format!("{} pid {} held {}", victim.comm, victim.pid, bytes(victim.anon))
}
