//! Reads a session's counters, and those of the groups above it that could have killed in its place.

use crate::kernel::counters::{Keyed, parse_limit};
use crate::kernel::{Group, KernelError, Tree};
use crate::path::GroupPath;

pub use crate::record::Usage;

/// What one group's limit did, by its own (non-hierarchical) events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// The group.
    pub group: GroupPath,
    /// `memory.events.local`.
    pub local: Keyed,
    /// `memory.max`; `None` where there is no limit.
    pub max: Option<u64>,
}

/// The OOM counters of a session and of everything above it at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moment {
    /// `memory.events` of the session: its own and those of groups it made itself.
    pub events: Keyed,
    /// The session, then the groups above it, the nearest first. The root has no events.
    pub levels: Vec<Level>,
}

/// Reads the counters of the groups above a session, without their limits. What a session has itself starts at zero
/// with its group.
///
/// The hierarchy's true root has no such counters and is left out; the root of a cgroup namespace (`namespaced`) has them.
pub fn events_above(tree: &Tree, session: &GroupPath, namespaced: bool) -> Vec<Level> {
    let level = |group: GroupPath| {
        Some(Level {
            local: tree.local_events(&group).ok()??,
            group,
            max: None,
        })
    };
    paths_above(session, namespaced).filter_map(level).collect()
}

fn above(tree: &Tree, session: &GroupPath, namespaced: bool) -> impl Iterator<Item = Level> {
    paths_above(session, namespaced).filter_map(|path| level(&tree.group(&path).ok()?, path).ok()?)
}

fn paths_above(session: &GroupPath, namespaced: bool) -> impl Iterator<Item = GroupPath> {
    // The scope around a leaf is the session itself.
    let outermost = session.scope().unwrap_or_else(|| session.clone());
    outermost
        .ancestors()
        .skip(1)
        .collect::<Vec<_>>()
        .into_iter()
        .filter(move |path| namespaced || !path.is_root())
}

/// `None` where the group does not count.
fn level(group: &Group, path: GroupPath) -> Result<Option<Level>, KernelError> {
    let Some(local) = group.local_events()? else {
        return Ok(None);
    };
    Ok(Some(Level {
        group: path,
        local,
        max: group.get("memory.max")?.and_then(|t| parse_limit(&t)).flatten(),
    }))
}

/// Reads the session's counters and those above it (as [`events_above`] does).
pub fn moment(tree: &Tree, group: &Group, path: &GroupPath, namespaced: bool) -> Result<Moment, KernelError> {
    let mut levels = vec![level(group, path.clone())?.unwrap_or_else(|| Level {
        group: path.clone(),
        local: Keyed::default(),
        max: None,
    })];
    levels.extend(above(tree, path, namespaced));
    Ok(Moment {
        events: group.counters("memory.events")?,
        levels,
    })
}

/// Reads what a session used so far; `memory` is its memory.events, where that has been read already.
pub fn usage(group: &Group, memory: Option<Keyed>, wall_usec: u64) -> Usage {
    let number = |file: &str| group.get(file).ok().flatten().and_then(|t| t.trim().parse().ok());
    let counters = |file: &str| group.counters(file).unwrap_or_default();
    let cpu = counters("cpu.stat");
    let memory = memory.unwrap_or_else(|| counters("memory.events"));
    Usage {
        memory_peak: number("memory.peak"),
        cpu_usec: cpu.get("usage_usec"),
        cpu_throttled_usec: cpu.get("throttled_usec"),
        pids_peak: number("pids.peak"),
        pids_refused: counters("pids.events").get("max"),
        memory_high_events: memory.get("high"),
        memory_max_events: memory.get("max"),
        wall_usec,
    }
}
