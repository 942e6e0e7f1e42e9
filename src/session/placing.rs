//! Brings a process into the group of a session: by the kernel, or, where that does not let this process, by the systemd
//! whose scope the session is, or is in.
//!
//! A user's shell is outside of the tree of his own systemd (an ssh login is in a scope of the machine's), and what is
//! outside may neither start a process there nor move one in (cgroup-v2.rst, "Delegation Containment"). So the process is
//! started where this one is, and held until the user's systemd has had it moved: it executes nothing of the command's
//! outside of the session's limits.

use super::failure::LaunchError;
use crate::backend::scope;
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::sys::{self, Child, HeldError, Spawned, Watch};
use crate::kernel::{Group, process};
use crate::path::GroupPath;
use rustix::fd::AsFd;

/// Starts `child` in `group`; `None` starts it where this process is. For a process that was moved in the caller verifies
/// where it is ([`Spawned::moved`]).
pub(super) fn start(
    child: &Child,
    group: Option<(&Group, &GroupPath)>,
    mut watch: Option<&mut (dyn Watch + '_)>,
) -> Result<Spawned, LaunchError> {
    let refused = |errno| {
        let path = group.map_or("a new process", |(group, _)| group.path());
        KernelError::new(Doing::Place, path, errno)
    };
    let errno = match sys::spawn(child, group.map(|(group, _)| group.as_fd()), watch.as_deref_mut()) {
        Ok(spawned) => return Ok(spawned),
        Err(errno) => errno,
    };
    let scope = group.filter(|(_, path)| scope::is_containment(errno) && scope::is_kept(path));
    let Some((_, path)) = scope else {
        return Err(refused(errno).into());
    };
    let moved = sys::spawn_held(child, watch, |pid, _| {
        scope::attach(path, &[pid]).unwrap_or(Ok(()))
    });
    moved.map_err(|error| match error {
        HeldError::Kernel(errno) => refused(errno).into(),
        HeldError::Place(error) => error.into(),
    })
}

/// Moves this very process into `group`.
pub(super) fn enter((group, path): (&Group, &GroupPath)) -> Result<(), LaunchError> {
    let error = match group.write("cgroup.procs", "0") {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let attached = scope::is_containment(error.errno)
        .then(|| scope::attach(path, &[std::process::id() as i32]))
        .flatten();
    let Some(attached) = attached else {
        let doing = Doing::Move;
        return Err(KernelError { doing, ..error }.into());
    };
    attached?;
    if process::own_group().as_deref() != Some(path.as_str()) {
        return Err(not_there(path));
    }
    Ok(())
}

/// It was said that a process was moved, and it is elsewhere.
pub(super) fn not_there(path: &GroupPath) -> LaunchError {
    LaunchError::new(
        format!("the command did not enter {path} although it was said that it had"),
        "`cgmgr doctor` tests the placement of a process",
    )
}
