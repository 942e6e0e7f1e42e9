//! The scope that sessions live in on a systemd machine, and the process that holds it: a scope is there as long as a
//! process is in it.
//!
//! `cgmgr-sessions.service` makes the scope at boot, and whenever a launch finds it without its anchor. Nobody depends on
//! the anchor's life: where it is killed the sessions stay, for the scope is theirs as much as its own.
//!
//! Controllers can be enabled for a group's children only while the group itself holds no process, so the anchor is in a
//! leaf of its own.

use super::cgroupfs;
use crate::host::{Base, Hierarchy, SESSIONS_SCOPE, SESSIONS_UNIT, SUPERVISOR, WORKLOADS_SLICE};
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::survey::MADE;
use crate::kernel::{Group, Tree, base, probe, process, sys};
use crate::path::GroupPath;
use crate::plan::hierarchy;
use crate::plan::state::MADE_BY_ANCHOR;
use crate::plan::step::{SUBTREE_CONTROL, signed};
use crate::systemd::{BusError, Manager, Property, Reason, Systemd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::fmt;
use std::time::{Duration, Instant};

/// How long a scope may take that is on its way out, until its name is free.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// How long stopping the scope may take before systemd kills what is in it: a session may end by itself.
const TIME_TO_STOP: Duration = Duration::from_secs(20);

/// Why there is no scope for sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorError {
    /// What, where and why.
    pub message: String,
    /// One line of remedy.
    pub help: String,
    /// The scope was on its way out: what failed may work in a moment.
    passing: bool,
}

impl AnchorError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
            passing: false,
        }
    }
}

impl fmt::Display for AnchorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AnchorError {}

impl From<KernelError> for AnchorError {
    fn from(error: KernelError) -> Self {
        Self {
            passing: error.is_gone(),
            ..Self::new(error.to_string(), error.help())
        }
    }
}

impl From<BusError> for AnchorError {
    fn from(error: BusError) -> Self {
        Self {
            message: error.message,
            help: error.help,
            passing: error.reason == Reason::UnitExists,
        }
    }
}

/// Whether the scope, if it is there, has an anchor that lives. Costs a launch one small file.
///
/// # Errors
///
/// The kernel does not let that be seen.
pub fn holds(scope: Option<&Group>) -> Result<bool, KernelError> {
    scope.map_or(Ok(false), is_anchored)
}

fn is_anchored(scope: &Group) -> Result<bool, KernelError> {
    let events = scope.counters(&format!("{SUPERVISOR}/cgroup.events"))?;
    Ok(events.get("populated") == Some(1))
}

/// Has systemd make the scope, which belongs at this path, or give it a new anchor, by a start of the unit that is there
/// for that. The caller sees to it that nobody else does so at the same time.
///
/// # Errors
///
/// The caller is not root, or systemd could not do it.
pub fn renew(tree: &Tree, scope: &GroupPath) -> Result<(), AnchorError> {
    let manager = Manager::of(scope);
    let (journal, install) = match manager {
        Manager::System => ("journalctl -b -u", "cgmgr install"),
        Manager::User => ("journalctl --user -b -u", "cgmgr install --user"),
    };
    if manager == Manager::System && !rustix::process::geteuid().is_root() {
        return Err(AnchorError::new(
            format!("{SESSIONS_SCOPE} has no anchor, and only root can have it made anew"),
            format!("sudo systemctl restart {SESSIONS_UNIT}"),
        ));
    }
    match Systemd::of(manager).restart(SESSIONS_UNIT) {
        _ if holds(tree.find(scope)?.as_ref())? => Ok(()),
        Ok(()) => Err(AnchorError::new(
            format!(
                "{SESSIONS_UNIT} was started, but {} has no anchor",
                tree.display(scope)
            ),
            format!("`{journal} {SESSIONS_UNIT}` shows what it said; `{install}` puts it in place anew"),
        )),
        Err(error) => Err(AnchorError::new(
            format!("{SESSIONS_SCOPE} is to be made anew: {error}"),
            match error.reason {
                Reason::JobFailed => format!("`{journal} {SESSIONS_UNIT}` shows what it said"),
                _ => error.help,
            },
        )),
    }
}

/// Makes the scope with its anchor, or gives it a new one; does nothing where both are there. Returns where it is.
///
/// # Errors
///
/// There is no unified hierarchy, systemd refuses the scope, or the kernel what is done in it.
pub fn ensure(manager: Manager) -> Result<GroupPath, AnchorError> {
    let tree = unified()?;
    let systemd = Systemd::of(manager);
    let begun = Instant::now();
    loop {
        match attempt(&tree, &systemd) {
            Err(error) if error.passing && begun.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

fn unified() -> Result<Tree, AnchorError> {
    match probe::hierarchy() {
        Hierarchy::Unified(mount) => Ok(Tree::open(&mount.point)?),
        other => Err(AnchorError::new(
            format!(
                "a unified cgroup v2 hierarchy is needed, this one is {}",
                other.label()
            ),
            "boot with `systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all` on the kernel command line",
        )),
    }
}

fn attempt(tree: &Tree, systemd: &Systemd) -> Result<GroupPath, AnchorError> {
    let found = systemd.unit(SESSIONS_SCOPE)?;
    let path = GroupPath::new(&found.group).filter(|path| found.is_active() && !path.is_root());
    if let Some(path) = path
        && let Some(scope) = tree.find(&path)?
    {
        if is_anchored(&scope)? {
            make_ready(systemd.manager(), &scope, &path, None)?;
            return Ok(path);
        }
        let anchor = Anchor::start()?;
        make_ready(systemd.manager(), &scope, &path, Some(anchor.pid))?;
        anchor.stay();
        return Ok(path);
    }
    let anchor = Anchor::start()?;
    systemd.start_transient(
        SESSIONS_SCOPE,
        &properties(),
        &[(anchor.pid, anchor.pidfd.as_fd())],
    )?;
    // Where it is, is what the kernel says of the process, and not what its name would lead to.
    let path = process::group_of(anchor.pid).and_then(|group| GroupPath::new(&group));
    let Some(path) = path.filter(|path| path.name() == Some(SESSIONS_SCOPE)) else {
        return Err(AnchorError::new(
            format!(
                "systemd started {SESSIONS_SCOPE}, but its process is in {}",
                process::group_of(anchor.pid).unwrap_or_else(|| "no group".into())
            ),
            format!("`systemctl status {SESSIONS_SCOPE}` shows what systemd did"),
        ));
    };
    make_ready(systemd.manager(), &tree.group(&path)?, &path, Some(anchor.pid))?;
    anchor.stay();
    Ok(path)
}

/// What the scope is. What systemd has a default for that differs by version is said.
fn properties() -> [Property; 8] {
    [
        Property::text("Description", "All sessions of cgmgr"),
        Property::text("Slice", WORKLOADS_SLICE),
        Property::switch("Delegate", true),
        // A session that runs out of memory is that session's business and not the end of all others.
        Property::text("OOMPolicy", "continue"),
        Property::number("TasksMax", u64::MAX),
        Property::text("CollectMode", "inactive-or-failed"),
        // Interactive shells ignore SIGTERM.
        Property::switch("SendSIGHUP", true),
        Property::number("TimeoutStopUSec", TIME_TO_STOP.as_micros() as u64),
    ]
}

/// Puts the anchor into its leaf and enables controllers for the sessions beside it. Done again it changes nothing.
fn make_ready(
    manager: Manager,
    scope: &Group,
    path: &GroupPath,
    anchor: Option<i32>,
) -> Result<(), AnchorError> {
    // A user's own manager marks nothing (measured with 257); what is of this name there is his and cgmgr's.
    if manager == Manager::System && !base::delegated(scope)? {
        return Err(AnchorError::new(
            format!("{} was not delegated: it is not cgmgr's", scope.path()),
            format!("systemctl stop {SESSIONS_SCOPE}, then systemctl restart {SESSIONS_UNIT}"),
        ));
    }
    let leaf = match scope.make_child(SUPERVISOR) {
        Err(e) if e.errno == Errno::EXIST => scope.child(SUPERVISOR)?,
        other => other?,
    };
    // Not `made=1`: `cgmgr down` would take the leaf away, and with it the scope's only process.
    leaf.mark(MADE, MADE_BY_ANCHOR)?;
    for pid in anchor.into_iter().chain(scope.procs()?) {
        match leaf.write("cgroup.procs", &pid.to_string()) {
            // Not the anchor, and it has ended.
            Err(e) if e.errno == Errno::SRCH && Some(pid) != anchor => {}
            other => other?,
        }
    }
    let enabled = scope.read(SUBTREE_CONTROL)?;
    let enabled: Vec<&str> = enabled.split_ascii_whitespace().collect();
    let mut wanted = hierarchy::wanted(&Base::sessions_unit(path.clone(), base::controllers(scope)?));
    wanted.retain(|controller| !enabled.contains(&controller.name()));
    if !wanted.is_empty() {
        cgroupfs::enable(scope, &signed('+', &wanted))?;
    }
    let at = anchor.map(process::group_of);
    if at.is_some_and(|at| at.as_deref() != Some(path.join(SUPERVISOR).as_str())) {
        return Err(
            KernelError::new(Doing::Move, leaf.file("cgroup.procs"), Errno::NODEV)
                .with_detail("the anchor is not there afterwards")
                .into(),
        );
    }
    Ok(())
}

/// A new anchor, which ends when this is dropped.
struct Anchor {
    pid: i32,
    pidfd: OwnedFd,
    stays: bool,
}

impl Anchor {
    fn start() -> Result<Self, AnchorError> {
        let (pid, pidfd) =
            sys::anchor(c"cgmgr-anchor").map_err(|errno| KernelError::new(Doing::Other, "fork", errno))?;
        Ok(Self {
            pid,
            pidfd,
            stays: false,
        })
    }

    fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
        if !self.stays {
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}
