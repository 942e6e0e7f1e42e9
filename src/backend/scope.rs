//! A session's scope: a unit that systemd makes for it, with its limits as properties, and two leaves below.
//!
//! `main` takes the session's processes. `pin` holds one process that does nothing: systemd removes a scope with its last
//! process, and its counters with it, so that without a pin a verdict would be a race. The pin ends with whoever is in
//! charge of the session, however that ends, and systemd collects the scope once its leaves are empty.
//!
//! Nothing is ever written to the scope's own group but the controllers for its leaves, which are delegated
//! (systemd's CGROUP_DELEGATION.md).

use super::limit::scope_of;
use crate::backend::cgroupfs::enable;
use crate::host::{Manager, SESSIONS_SCOPE};
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::{Group, Tree, process, sys};
use crate::limits::Controller;
use crate::path::{GroupPath, MAIN, PIN};
use crate::plan::step::signed;
use crate::plan::unit::Property;
use crate::systemd::{BusError, Reason, Systemd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::fmt;

/// What holds a scope open. It lets go when it is dropped, and when this process ends.
#[derive(Debug)]
pub struct Pin {
    process: OwnedFd,
    _hold: OwnedFd,
}

impl Pin {
    /// Lets go of it without ending it: another process that was split off from this one holds it.
    pub fn leave_to_other(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // Frozen by somebody, it would not see that nobody holds it any more.
        let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
    }
}

/// Why there is no scope. Nothing is left of it.
#[derive(Debug)]
pub enum ScopeError {
    /// systemd did not make it.
    Systemd(BusError),
    /// The kernel refused what comes below it.
    Kernel(KernelError),
}

impl ScopeError {
    /// One line of remedy.
    pub fn help(&self) -> String {
        match self {
            Self::Systemd(error) => error.help.clone(),
            Self::Kernel(error) => error.help().into(),
        }
    }
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Systemd(error) => error.fmt(f),
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ScopeError {}

impl From<BusError> for ScopeError {
    fn from(error: BusError) -> Self {
        Self::Systemd(error)
    }
}

impl From<KernelError> for ScopeError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

/// A scope with nothing in it but its pin.
#[derive(Debug)]
pub struct Scope {
    /// What holds it open.
    pub pin: Pin,
    /// The leaf for the session's processes.
    pub main: Group,
    /// Its path.
    pub path: GroupPath,
}

/// Has systemd make the scope `unit`, and prepares its leaves: `controllers` are enabled for them.
///
/// # Errors
///
/// systemd refuses, does not answer in time, or puts the pin elsewhere; the kernel refuses what comes below.
pub fn make(
    systemd: &Systemd,
    tree: &Tree,
    unit: &str,
    properties: &[Property],
    controllers: &[Controller],
) -> Result<Scope, ScopeError> {
    let (pid, process, hold) =
        sys::pin().map_err(|errno| KernelError::new(Doing::Place, "a new process", errno))?;
    let pin = Pin { process, _hold: hold };
    systemd.start_transient(unit, properties, &[(pid, pin.process.as_fd())])?;
    let top = placed(systemd, unit, pid)?;
    let scope = tree.group(&top)?;
    let leaf = scope.make_child(PIN)?;
    move_pin(systemd, &leaf, unit, pid)?;
    let main = scope.make_child(MAIN)?;
    if !controllers.is_empty() {
        enable(&scope, &signed('+', controllers))?;
    }
    Ok(Scope {
        pin,
        main,
        path: top.join(MAIN),
    })
}

/// Where systemd put the pin: what it said is not what counts.
fn placed(systemd: &Systemd, unit: &str, pid: i32) -> Result<GroupPath, BusError> {
    let found = process::group_of(pid).and_then(|group| GroupPath::new(&group));
    match found {
        Some(group) if group.name() == Some(unit) => Ok(group),
        other => Err(BusError {
            reason: Reason::Refused,
            message: format!(
                "{} said that {unit} was started, but its process is in {}",
                systemd.manager().describe(),
                other.map_or("no group that can be seen".into(), |group| group.to_string())
            ),
            help: format!("`systemctl status {unit}` and `journalctl -b` show what systemd did"),
        }),
    }
}

/// Whether the kernel's answer is that this process may not move another one there: what is outside of the group that was
/// delegated to the user stays so for him, whoever's it is (cgroup-v2.rst, "Delegation Containment").
pub fn is_containment(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM)
}

/// The systemd that has processes moved to a session, whose group this is; the unit, and the group's name within that.
fn keeper(path: &GroupPath) -> Option<(Systemd, String, String)> {
    if let Some((systemd, unit)) = scope_of(path) {
        return Some((systemd, unit, MAIN.to_owned()));
    }
    // Below the machine's own unit only root makes groups, who moves what he likes.
    let unit = path.parent()?;
    let is_users = unit.name() == Some(SESSIONS_SCOPE) && Manager::of(&unit) == Manager::User;
    is_users.then(|| {
        let within = path.name().unwrap_or_default().to_owned();
        (Systemd::of(Manager::User), SESSIONS_SCOPE.to_owned(), within)
    })
}

/// Whether there is a systemd that [`attach`] asks for that session.
pub fn is_kept(path: &GroupPath) -> bool {
    keeper(path).is_some()
}

/// Has the systemd that keeps the unit which a session is in, or is, move processes into the session's group, whose path
/// this is. `None` where there is no such systemd.
pub fn attach(path: &GroupPath, pids: &[i32]) -> Option<Result<(), BusError>> {
    let (systemd, unit, within) = keeper(path)?;
    Some(systemd.attach(&unit, &format!("/{within}"), pids))
}

/// Into its leaf, by this process where it may, else by systemd: a caller outside of the user manager's tree may not.
fn move_pin(systemd: &Systemd, leaf: &Group, unit: &str, pid: i32) -> Result<(), ScopeError> {
    match leaf.write("cgroup.procs", &pid.to_string()) {
        Err(e) if is_containment(e.errno) => Ok(systemd.attach(unit, &format!("/{PIN}"), &[pid])?),
        Err(e) => Err(KernelError {
            doing: Doing::Move,
            ..e
        }
        .into()),
        Ok(()) => Ok(()),
    }
}
