//! Freezes a session, whole tree, and thaws it: only ever because a user said so.
//!
//! The kernel freezes asynchronously: a process stops when it next leaves the kernel, and one in an uninterruptible
//! sleep does not. It is done when `cgroup.events` says so.

use crate::kernel::{Group, KernelError, Tree, process};
use crate::path::GroupPath;
use std::time::Duration;

/// The control file.
const FREEZE: &str = "cgroup.freeze";

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frozen {
    /// It was so before.
    pub already: bool,
    /// Whether it is so now: frozen, or not frozen.
    pub done: bool,
    /// Processes in and below the group.
    pub processes: usize,
    /// Processes that keep it from being so when the time was over: pid, name (escaped) and state letter.
    pub left: Vec<(i32, String, char)>,
    /// A group above that is frozen itself: what is below it stays frozen.
    pub above: Option<GroupPath>,
    /// A process of the session that has its terminal's foreground: what is typed there is not read.
    pub at_terminal: Option<i32>,
}

/// Freezes the group and all below it (`frozen`), or thaws it, and waits for that.
///
/// # Errors
///
/// The kernel does not take it.
pub fn set(
    tree: &Tree,
    (group, path): (&Group, &GroupPath),
    frozen: bool,
    deadline: Duration,
) -> Result<Frozen, KernelError> {
    let wanted = if frozen { "1" } else { "0" };
    let number = u64::from(frozen);
    let so = |events: &crate::kernel::counters::Keyed| events.get("frozen") == Some(number);
    let already = group.read(FREEZE)?.trim() == wanted && group.events_within(Duration::ZERO, so)?;
    let mut result = Frozen {
        already,
        done: already,
        ..Frozen::default()
    };
    if !already {
        group.write(FREEZE, wanted)?;
        if !frozen {
            result.above = path.ancestors().skip(1).find(|above| is_frozen(tree, above));
        }
        // Nothing changes here as long as that one is frozen.
        let deadline = if result.above.is_some() {
            Duration::ZERO
        } else {
            deadline
        };
        result.done = group.events_within(deadline, so)?;
    }
    let pids = group.processes_below()?;
    result.processes = pids.len();
    if frozen {
        let at_terminal = |pid: &i32| process::stat(*pid).is_some_and(|stat| stat.foreground);
        result.at_terminal = pids.iter().copied().find(at_terminal);
    }
    if frozen && !result.done {
        result.left = in_the_way(&pids);
        // Looked at last: who was in the way a moment ago may not be any more.
        result.done = group.events_within(Duration::ZERO, so)?;
    }
    if result.done {
        result.left.clear();
    }
    Ok(result)
}

fn is_frozen(tree: &Tree, path: &GroupPath) -> bool {
    let frozen = tree.group(path).and_then(|group| group.get(FREEZE));
    frozen.ok().flatten().as_deref() == Some("1")
}

/// The processes that are not asleep as frozen ones are (state S), each by one of its threads.
fn in_the_way(pids: &[i32]) -> Vec<(i32, String, char)> {
    let state = |pid: i32| {
        let threads = process::threads(pid).into_iter();
        let mut states = threads.filter_map(|thread| Some(process::stat(thread)?.state));
        states.find(|state| !matches!(state, 'S' | 'Z' | 'X'))
    };
    pids.iter()
        .filter_map(|pid| Some((*pid, process::comm(*pid).unwrap_or_default(), state(*pid)?)))
        .take(8)
        .collect()
}
