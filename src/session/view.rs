//! What the parts and the sessions of this machine use now, against which limit. Reads only: nothing is swept, made or
//! marked, and what vanishes meanwhile is simply not in the result.

use super::registry::{Entry, Registry};
use crate::host::Base;
use crate::kernel::counters::{Pressure, parse_limit, parse_pressure};
use crate::kernel::{Group, KernelError, Tree, process, survey};
use crate::path::{GroupPath, SessionName};
use crate::plan::receipt::Backend;
use serde::Serialize;
use std::collections::BTreeMap;

/// Memory of a group, in bytes. `None` is "no such limit", or a file that is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// In use.
    pub current: Option<u64>,
    /// Most in use at once (kernel 5.19 and later).
    pub peak: Option<u64>,
    /// Protected absolutely.
    pub min: Option<u64>,
    /// Protected as long as there is anything else to take.
    pub low: Option<u64>,
    /// Reclaimed above this.
    pub high: Option<u64>,
    /// OOM-killed above this.
    pub max: Option<u64>,
    /// The smallest max of the group and of all above it: the one that really holds.
    pub effective_max: Option<u64>,
    /// The group whose max that is, where it is one above.
    pub effective_from: Option<String>,
    /// Swap in use.
    pub swap_current: Option<u64>,
}

/// CPU time of a group, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Used so far.
    pub usage_usec: Option<u64>,
    /// Held back by the quota so far.
    pub throttled_usec: Option<u64>,
    /// Quota per period; `None` is no quota.
    pub quota_usec: Option<u64>,
    /// The period.
    pub period_usec: Option<u64>,
}

/// Tasks of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// Now.
    pub current: Option<u64>,
    /// At most; `None` is no limit.
    pub max: Option<u64>,
}

/// Shares of time in which some task of a group waited for a resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stalls {
    /// For the CPU.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For I/O.
    pub io: Option<Pressure>,
}

/// What a group uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Use {
    /// Memory.
    pub memory: Memory,
    /// CPU time.
    pub cpu: Cpu,
    /// Tasks.
    pub pids: Pids,
    /// OOM kills in and below it so far.
    pub oom_kills: Option<u64>,
    /// Who waits for what.
    pub pressure: Stalls,
}

/// `agent.slice` or `workloads.slice`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PartView {
    /// Its group.
    pub group: String,
    /// Groups below it that were removed and that the kernel has not let go of yet, since memory is still charged to them.
    pub dying_descendants: Option<u64>,
    /// What it uses.
    #[serde(flatten)]
    pub usage: Use,
}

/// What is protected: a group in `agent.slice`, or a process in the slice itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentView {
    /// Its group.
    pub group: String,
    /// Its process that started first.
    pub pid: i32,
    /// The name of that, escaped.
    pub comm: String,
    /// The oom_score_adj of that, -1000 to 1000; `None` where it has just ended.
    pub oom_score_adj: Option<i32>,
    /// How many processes there are in the group and below it.
    pub processes: usize,
}

/// How a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Processes run in it, and a cgmgr is in charge.
    Running,
    /// Its processes are frozen.
    Frozen,
    /// It is to be frozen, and some process is not yet: it is in an uninterruptible sleep.
    Freezing,
    /// Processes run in it; the cgmgr that was in charge is gone, or became the command (`run --exec`).
    Unattended,
    /// No process is in it: it begins or ends just now, or was left behind.
    Empty,
    /// It has ended; its exit status waits for `cgmgr wait`.
    Ended,
}

impl State {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Freezing => "freezing",
            Self::Unattended => "unattended",
            Self::Empty => "empty",
            Self::Ended => "ended",
        }
    }
}

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionView {
    /// Its name.
    pub name: String,
    /// Its role; `None` where only flags gave limits.
    pub role: Option<String>,
    /// Its group; `None` with the process backend, and when it has ended.
    pub group: Option<String>,
    /// Who carries its limits out.
    pub backend: String,
    /// How it is.
    pub state: State,
    /// Its exit status, when it has ended.
    pub status: Option<u8>,
    /// Its command and arguments, cut.
    pub command: Vec<String>,
    /// The user its command runs as; `None` where that is not known.
    pub uid: Option<u32>,
    /// The cgmgr process in charge, or that was.
    pub supervisor: Option<i32>,
    /// When it began, in seconds since 1970.
    pub started: Option<u64>,
    /// Knobs that were declared and do not hold.
    pub unconfined: Vec<String>,
    /// Knobs that were set while it ran (`cgmgr set`).
    pub set_live: Vec<String>,
    /// What it uses.
    #[serde(flatten)]
    pub usage: Use,
}

/// The smallest memory.max from a group upwards, and whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ceiling {
    max: Option<u64>,
    group: Option<GroupPath>,
}

impl Ceiling {
    /// That of `group` and all above it.
    pub fn of(tree: &Tree, group: &GroupPath) -> Self {
        group.ancestors().fold(Self::default(), |least, path| {
            let max = tree.group(&path).ok().and_then(|g| limit(&g, "memory.max"));
            least.or_smaller(max, &path)
        })
    }

    /// The limit and the group whose it is; `None` where there is none.
    pub fn smallest(self) -> Option<(u64, GroupPath)> {
        self.max.zip(self.group)
    }

    fn or_smaller(self, max: Option<u64>, group: &GroupPath) -> Self {
        match (self.max, max) {
            (Some(mine), Some(theirs)) if mine <= theirs => self,
            (_, None) => self,
            (_, Some(theirs)) => Self {
                max: Some(theirs),
                group: Some(group.clone()),
            },
        }
    }
}

fn limit(group: &Group, file: &str) -> Option<u64> {
    parse_limit(&group.get(file).ok()??)?
}

fn number(group: &Group, file: &str) -> Option<u64> {
    group.get(file).ok()??.trim().parse().ok()
}

/// What a group uses; `above` is the ceiling that the groups above it set.
pub fn usage(group: &Group, above: &Ceiling) -> Use {
    let max = limit(group, "memory.max");
    let from_above = match (max, above.max) {
        (None, Some(_)) => true,
        (Some(own), Some(theirs)) => theirs < own,
        (_, None) => false,
    };
    let quota = group.get("cpu.max").ok().flatten().unwrap_or_default();
    let mut quota = quota.split(' ');
    let stat = group.counters("cpu.stat").unwrap_or_default();
    let events = group.counters("memory.events").unwrap_or_default();
    let stall = |file: &str| parse_pressure(&group.get(file).ok()??, "some");
    Use {
        memory: Memory {
            current: number(group, "memory.current"),
            peak: number(group, "memory.peak"),
            min: limit(group, "memory.min").filter(|n| *n > 0),
            low: limit(group, "memory.low").filter(|n| *n > 0),
            high: limit(group, "memory.high"),
            max,
            effective_max: if from_above { above.max } else { max },
            effective_from: above
                .group
                .as_ref()
                .filter(|_| from_above)
                .map(ToString::to_string),
            swap_current: number(group, "memory.swap.current"),
        },
        cpu: Cpu {
            usage_usec: stat.get("usage_usec"),
            throttled_usec: stat.get("throttled_usec"),
            quota_usec: quota.next().and_then(|t| t.parse().ok()),
            period_usec: quota.next().and_then(|t| t.trim().parse().ok()),
        },
        pids: Pids {
            current: number(group, "pids.current"),
            max: limit(group, "pids.max"),
        },
        oom_kills: events.get("oom_kill"),
        pressure: Stalls {
            cpu: stall("cpu.pressure"),
            memory: stall("memory.pressure"),
            io: stall("io.pressure"),
        },
    }
}

/// How many groups below this one are removed, and not gone (cgroup-v2.rst, "cgroup.stat").
pub fn dying_descendants(group: &Group) -> Option<u64> {
    group.counters("cgroup.stat").ok()?.get("nr_dying_descendants")
}

/// One of the two parts, if it is there.
pub fn part(tree: &Tree, path: &GroupPath) -> Result<Option<PartView>, KernelError> {
    let Some(group) = tree.find(path)? else {
        return Ok(None);
    };
    let above = path
        .parent()
        .map_or_else(Ceiling::default, |p| Ceiling::of(tree, &p));
    Ok(Some(PartView {
        group: path.to_string(),
        dying_descendants: dying_descendants(&group),
        usage: usage(&group, &above),
    }))
}

/// What is protected in `agent.slice`, whose path this is.
///
/// # Errors
///
/// The kernel refuses to list it.
pub fn agents(tree: &Tree, path: &GroupPath) -> Result<Vec<AgentView>, KernelError> {
    let Some(slice) = tree.find(path)? else {
        return Ok(Vec::new());
    };
    let mut found: Vec<AgentView> = slice
        .procs()?
        .into_iter()
        .filter_map(|pid| agent(path, &[pid]))
        .collect();
    for name in slice.children()? {
        let path = path.join(&name);
        if let Some(group) = tree.find(&path)? {
            found.extend(agent(&path, &group.processes_below()?));
        }
    }
    Ok(found)
}

fn agent(path: &GroupPath, pids: &[i32]) -> Option<AgentView> {
    let started = pids
        .iter()
        .filter_map(|pid| Some((process::start_time(*pid)?, *pid)));
    let (_, pid) = started.min()?;
    Some(AgentView {
        group: path.to_string(),
        pid,
        comm: process::comm(pid)?,
        oom_score_adj: process::oom_score_adj(pid),
        processes: pids.len(),
    })
}

/// Every session below `base`: those with a group, and detached ones that have ended and whose status waits.
pub fn sessions(
    tree: &Tree,
    base: &Base,
    registry: Option<&Registry>,
) -> Result<Vec<SessionView>, KernelError> {
    let mut found = BTreeMap::new();
    let mut above: BTreeMap<GroupPath, Ceiling> = BTreeMap::new();
    for entry in survey::session_groups(tree, base)? {
        let (name, path, group) = entry?;
        // Of the scope around a leaf the limits are the session's own.
        let parent = path.scope().unwrap_or_else(|| path.clone()).parent();
        let parent = parent.unwrap_or_else(GroupPath::root);
        let above = above
            .entry(parent)
            .or_insert_with_key(|parent| Ceiling::of(tree, parent));
        if let Some(view) = in_group(&group, &path, &name, above, registry) {
            found.insert(name, view);
        }
    }
    for name in registry.map(names).unwrap_or_default() {
        let entry = registry.and_then(|r| r.read(&name)).filter(|r| r.detached);
        if let Some(entry) = entry
            && !found.contains_key(&name)
            && entry.status.is_some()
        {
            found.insert(name, ended(entry));
        }
    }
    Ok(found.into_values().collect())
}

/// Sessions of the process backend: a lock that is held is one that runs.
pub fn process_sessions(registry: &Registry) -> Vec<SessionView> {
    let mut found = Vec::new();
    for name in names(registry) {
        let Some(entry) = registry.read(&name) else {
            continue;
        };
        if !registry.is_attended(&name) {
            if entry.detached && entry.status.is_some() {
                found.push(ended(entry));
            }
            continue;
        }
        let tasks = match entry.pid.filter(|_| entry.embedded) {
            Some(pid) if process::start_time(pid) == entry.pid_start => 1 + process::descendants(pid).len(),
            Some(_) => 0,
            None => process::descendants(entry.supervisor).len(),
        };
        found.push(SessionView {
            state: State::Running,
            status: None,
            usage: Use {
                pids: Pids {
                    current: Some(tasks as u64),
                    max: None,
                },
                ..Use::default()
            },
            ..ended(entry)
        });
    }
    found
}

fn names(registry: &Registry) -> Vec<SessionName> {
    registry.names().unwrap_or_default()
}

fn ended(entry: Entry) -> SessionView {
    SessionView {
        name: entry.name,
        role: entry.role,
        group: None,
        backend: entry.backend,
        state: State::Ended,
        status: entry.status,
        command: entry.command,
        uid: None,
        supervisor: Some(entry.supervisor),
        started: Some(entry.started),
        unconfined: entry.unconfined,
        set_live: Vec::new(),
        usage: Use::default(),
    }
}

/// `None` where the group vanished while it was read.
fn in_group(
    group: &Group,
    path: &GroupPath,
    name: &SessionName,
    above: &Ceiling,
    registry: Option<&Registry>,
) -> Option<SessionView> {
    let identity = survey::identity(group);
    let usage = usage(group, above);
    let events = group.counters("cgroup.events").ok()?;
    // Every group but the true root has this file, so without it the group is gone.
    let populated = events.get("populated")? != 0;
    let attended = match registry {
        Some(registry) => registry.is_attended(name),
        // Somebody else's registry is closed to this user; whether the supervisor lives can be seen all the same.
        None => identity
            .as_ref()
            .is_some_and(|i| process::start_time(i.supervisor).is_some()),
    };
    let state = match (populated, attended) {
        (false, _) => State::Empty,
        (true, _) if events.get("frozen") == Some(1) => State::Frozen,
        (true, _) if group.get("cgroup.freeze").ok().flatten().as_deref() == Some("1") => State::Freezing,
        (true, true) => State::Running,
        (true, false) => State::Unattended,
    };
    let known = identity.unwrap_or_default();
    let marked = known.started > 0;
    Some(SessionView {
        name: name.to_string(),
        role: known.role,
        group: Some(path.to_string()),
        backend: if group.is_in_scope() {
            Backend::Scope
        } else {
            Backend::Cgroupfs
        }
        .name()
        .into(),
        state,
        status: None,
        command: known.command,
        uid: marked.then_some(known.uid),
        supervisor: marked.then_some(known.supervisor),
        started: marked.then_some(known.started),
        unconfined: known.unconfined,
        set_live: known.set_live,
        usage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_from_here_up_holds() {
        let at = |p: &str| GroupPath::new(p).unwrap();
        let least = Ceiling::default()
            .or_smaller(None, &at("/a/b"))
            .or_smaller(Some(10), &at("/a"))
            .or_smaller(Some(20), &at("/"));
        assert_eq!(
            least,
            Ceiling {
                max: Some(10),
                group: Some(at("/a"))
            }
        );
    }
}
