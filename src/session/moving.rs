//! Moves one process between groups. There is no way to do that by a descriptor: a pid is written, and what is looked at
//! afterwards says whether it was the process that was meant, and whether it went.

use crate::backend::scope;
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::held::{self, Held};
use crate::kernel::{Group, Tree, process};
use crate::path::GroupPath;
use rustix::io::Errno;

/// What became of a move.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there.
    There,
    /// It had ended, or ended meanwhile.
    Ended,
    /// It is where it was, or elsewhere: why.
    Refused(String),
}

/// Moves `process` into `target`, whose path is `path`: by a write, or by the systemd whose scope that is.
pub(super) fn to(tree: &Tree, process: &Held, target: &Group, path: &GroupPath) -> Fate {
    if !process.lives() {
        return Fate::Ended;
    }
    match target.write("cgroup.procs", &process.pid.to_string()) {
        Ok(()) => {}
        Err(error) if error.errno == Errno::SRCH => return Fate::Ended,
        Err(error) => {
            // Its systemd may, where the kernel does not let this process.
            let attached = scope::is_containment(error.errno)
                .then(|| scope::attach(path, &[process.pid]))
                .flatten();
            match attached {
                Some(Ok(())) => {}
                Some(Err(_)) if !process.lives() => return Fate::Ended,
                Some(Err(refused)) => return Fate::Refused(refused.to_string()),
                None => {
                    let doing = Doing::Move;
                    return Fate::Refused(KernelError { doing, ..error }.to_string());
                }
            }
        }
    }
    if !process.lives() {
        put_back_a_stranger(tree, process, path);
        return Fate::Ended;
    }
    match process::group_of(process.pid).and_then(|group| GroupPath::new(&group)) {
        Some(group) if path.contains(&group) => Fate::There,
        // It ended between the two looks.
        None if !process.lives() => Fate::Ended,
        Some(group) => Fate::Refused(format!("the move was taken, but it is in {group}")),
        None => Fate::Refused("the move was taken, but where it is cannot be read".into()),
    }
}

/// The process ended between the look and the write, and another may have got its pid and been moved in its place: one
/// that was just started, and so came from the group of its parent.
fn put_back_a_stranger(tree: &Tree, process: &Held, path: &GroupPath) {
    let group_of = |pid: i32| process::group_of(pid).and_then(|group| GroupPath::new(&group));
    let Ok(Some(stranger)) = Held::open(process.pid) else {
        return;
    };
    if stranger.start == process.start || !group_of(stranger.pid).is_some_and(|g| path.contains(&g)) {
        return;
    }
    let from = held::parent(stranger.pid).and_then(group_of);
    if let Some(from) = from.filter(|from| !path.contains(from))
        && let Ok(group) = tree.group(&from)
        && let Err(error) = group.write("cgroup.procs", &stranger.pid.to_string())
    {
        tracing::error!(
            "{} got the pid of one that ended, was moved in its place, and could not be moved back: {error}",
            process::describe(stranger.pid)
        );
    }
}
