//! What this machine offers, as a plain value. Only `kernel::probe` makes one from a real machine; tests build
//! theirs by hand. May not do I/O.
#![deny(clippy::disallowed_methods)]

use crate::path::{GroupPath, SessionName};
use std::fmt;

/// Numbers of this machine that limits are relative to.
///
/// Sources: proc_meminfo(5), sysconf(3), proc_sys_kernel(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// `MemTotal` of /proc/meminfo, in bytes. `N%` of a size is of this.
    pub mem_total: u64,
    /// `SwapTotal` of /proc/meminfo, in bytes; 0 where there is no swap.
    pub swap_total: u64,
    /// Size of a page, in bytes: the kernel rounds every memory limit down to it.
    pub page_size: u64,
    /// CPUs that are online.
    pub cpus: u32,
    /// How many tasks it can hold: `pids = "N%"` of `[workloads]` is of this.
    pub tasks: Tasks,
}

impl Machine {
    /// How many tasks the machine can hold.
    pub fn max_tasks(&self) -> u64 {
        match self.tasks {
            Tasks::Known(tasks) => tasks,
            Tasks::Asked(ask) => ask(),
        }
    }
}

/// How many tasks a machine can hold: the smaller one of `kernel.pid_max` and `kernel.threads-max`.
#[derive(Debug, Clone, Copy)]
pub enum Tasks {
    /// So many.
    Known(u64),
    /// Whoever needs it asks: nearly no role does, and the two files take a hundredth of a launch.
    Asked(fn() -> u64),
}

impl PartialEq for Tasks {
    /// Two that are yet to be asked are of the same machine.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => one == other,
            (Self::Asked(_), Self::Asked(_)) => true,
            _ => false,
        }
    }
}

impl Eq for Tasks {}

#[cfg(test)]
impl Machine {
    /// A small machine without swap, for tests to which only its memory matters.
    pub(crate) fn plain(mem_total: u64) -> Machine {
        Machine {
            mem_total,
            swap_total: 0,
            page_size: 4096,
            cpus: 4,
            tasks: Tasks::Known(32_768),
        }
    }
}

/// A controller of cgroup v2. `Display` is the kernel's name of it, as in `cgroup.controllers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Which CPUs and memory nodes.
    Cpuset,
    /// Block devices.
    Io,
    /// Memory and swap.
    Memory,
    /// Number of tasks.
    Pids,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 5] = [
        Controller::Cpu,
        Controller::Cpuset,
        Controller::Io,
        Controller::Memory,
        Controller::Pids,
    ];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuset => "cpuset",
            Controller::Io => "io",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the machine's cgroup hierarchies are set up (systemd's "Three Different Tree Setups").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// cgroup v2 holds every controller.
    Unified(Mount),
    /// cgroup v1 holds controllers, and a v2 hierarchy is mounted beside it.
    Hybrid {
        /// The v2 mount.
        mount: Mount,
        /// Controllers that v1 hierarchies hold.
        v1: Vec<String>,
    },
    /// Only cgroup v1.
    Legacy {
        /// Controllers that v1 hierarchies hold.
        v1: Vec<String>,
    },
    /// No cgroup file system is mounted.
    Absent,
}

impl Hierarchy {
    /// Its one-word name.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unified(_) => "unified",
            Self::Hybrid { .. } => "hybrid",
            Self::Legacy { .. } => "legacy",
            Self::Absent => "absent",
        }
    }

    /// The v2 mount, where there is one.
    pub fn mount(&self) -> Option<&Mount> {
        match self {
            Self::Unified(mount) | Self::Hybrid { mount, .. } => Some(mount),
            Self::Legacy { .. } | Self::Absent => None,
        }
    }
}

/// Where and how cgroup v2 is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount point.
    pub point: String,
    /// Whether it is mounted read-only (as in many containers).
    pub read_only: bool,
    /// Whether the mount shows the hierarchy's true root (and not a namespace's).
    pub true_root: bool,
}

/// Options of the v2 hierarchy, the same for each of its mounts (cgroup-v2.rst, "Mounting").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountOptions {
    /// `nsdelegate`: cgroup namespaces are delegation boundaries.
    pub nsdelegate: bool,
    /// `memory_recursiveprot`: memory.min and memory.low of a group protect its whole subtree.
    pub recursiveprot: bool,
}

/// Which systemd: the machine's, or the caller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Manager {
    /// The machine's: PID 1.
    System,
    /// The caller's own (`user@UID.service`).
    User,
}

impl Manager {
    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::System => "systemd",
            Self::User => "the user's systemd",
        }
    }

    /// Whose a group is, by its path: all of a user's are below his `user@UID.service`.
    pub fn of(group: &GroupPath) -> Self {
        let is_users = |above: GroupPath| above.name().is_some_and(|name| name.starts_with("user@"));
        match group.ancestors().any(is_users) {
            true => Self::User,
            false => Self::System,
        }
    }
}

/// What kind of place cgmgr's hierarchy stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseKind {
    /// The hierarchy's root, on a machine whose PID 1 is not systemd.
    Root,
    /// The root of a cgroup namespace (a container).
    Namespace,
    /// A group that was delegated to the caller.
    Delegated,
    /// The delegated scope `cgmgr-sessions.scope` below systemd's workloads.slice: the slices are systemd's.
    SessionsUnit(Manager),
    /// systemd's workloads.slice: each session is a scope of its own, which systemd makes.
    Scopes(Manager),
}

impl BaseKind {
    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Root => "the root of the hierarchy",
            Self::Namespace => "the root of a cgroup namespace",
            Self::Delegated => "a delegated group",
            Self::SessionsUnit(Manager::System) => "the delegated scope cgmgr-sessions.scope",
            Self::SessionsUnit(Manager::User) => "the user's delegated scope cgmgr-sessions.scope",
            Self::Scopes(Manager::System) => "scopes of systemd",
            Self::Scopes(Manager::User) => "scopes of the user's systemd",
        }
    }
}

/// Where cgmgr's hierarchy stands on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// What kind of place it is.
    pub kind: BaseKind,
    /// The group under which cgmgr may make groups and enable controllers.
    pub group: GroupPath,
    /// The protected part.
    pub agent: GroupPath,
    /// The limited part.
    pub workloads: GroupPath,
    /// The parent of session groups.
    pub sessions: GroupPath,
    /// Controllers that sessions can have.
    pub controllers: Vec<Controller>,
}

/// Name of the protected part's group.
pub const AGENT_SLICE: &str = "agent.slice";
/// Name of the limited part's group.
pub const WORKLOADS_SLICE: &str = "workloads.slice";
/// Name of the leaf that takes the processes found in a base which must hold none.
pub const SUPERVISOR: &str = "supervisor";
/// The unit that makes [`SESSIONS_SCOPE`] on a systemd machine.
pub const SESSIONS_UNIT: &str = "cgmgr-sessions.service";
/// The unit of cgmgr's daemon on a systemd machine.
pub const DAEMON_UNIT: &str = "cgmgr.service";
/// The delegated unit on a systemd machine that the sessions are in.
pub const SESSIONS_SCOPE: &str = "cgmgr-sessions.scope";

/// Where [`SESSIONS_SCOPE`] is.
pub fn sessions_scope() -> GroupPath {
    GroupPath::root().join(WORKLOADS_SLICE).join(SESSIONS_SCOPE)
}

impl Base {
    /// The hierarchy below `group`.
    pub fn below(kind: BaseKind, group: GroupPath, controllers: Vec<Controller>) -> Self {
        let workloads = group.join(WORKLOADS_SLICE);
        Self {
            kind,
            agent: group.join(AGENT_SLICE),
            sessions: workloads.clone(),
            workloads,
            group,
            controllers,
        }
    }

    /// The hierarchy of a systemd machine with the delegated scope at `unit`.
    pub fn sessions_unit(unit: GroupPath, controllers: Vec<Controller>) -> Self {
        let workloads = unit.parent().unwrap_or_else(GroupPath::root);
        let agent = workloads
            .parent()
            .unwrap_or_else(GroupPath::root)
            .join(AGENT_SLICE);
        Self {
            kind: BaseKind::SessionsUnit(Manager::of(&unit)),
            agent,
            workloads,
            sessions: unit.clone(),
            group: unit,
            controllers,
        }
    }

    /// The hierarchy of a systemd whose root slice is at `group`, with a scope for each session.
    pub fn scopes(manager: Manager, group: GroupPath, controllers: Vec<Controller>) -> Self {
        Self::below(BaseKind::Scopes(manager), group, controllers)
    }

    /// Whether the slices are systemd's: then cgmgr must not write their control files.
    pub fn slices_are_systemds(&self) -> bool {
        matches!(self.kind, BaseKind::SessionsUnit(_) | BaseKind::Scopes(_))
    }

    /// The systemd that makes a scope for each session, where one does.
    pub fn scope_manager(&self) -> Option<Manager> {
        match self.kind {
            BaseKind::Scopes(manager) => Some(manager),
            _ => None,
        }
    }

    /// Whether everything here is below the user's own systemd.
    pub fn is_users(&self) -> bool {
        matches!(
            self.kind,
            BaseKind::SessionsUnit(Manager::User) | BaseKind::Scopes(Manager::User)
        )
    }

    /// The session whose group, or a group below it, this is.
    pub fn session_of(&self, group: &GroupPath) -> Option<SessionName> {
        let groups = group.ancestors().filter(|path| self.workloads.contains(path));
        let mut names = groups.filter(|path| self.is_sessions(path)).collect::<Vec<_>>();
        SessionName::of_group(&names.pop()?)
    }

    /// Whether this is where the processes of a session are: a directory below the parent of sessions, or, on a systemd
    /// machine, the leaf of a scope or a directory below the delegated unit, whichever of the two is used for new ones.
    fn is_sessions(&self, group: &GroupPath) -> bool {
        let Some(parent) = group.parent().filter(|_| SessionName::of_group(group).is_some()) else {
            return false;
        };
        if !self.slices_are_systemds() {
            return parent == self.sessions;
        }
        match group.scope() {
            Some(scope) => scope.parent().as_ref() == Some(&self.workloads),
            None => parent == self.delegated_unit(),
        }
    }

    /// Where the delegated unit for sessions is on a systemd machine, if it is there.
    pub fn delegated_unit(&self) -> GroupPath {
        self.workloads.join(SESSIONS_SCOPE)
    }
}

/// Why there is no place for cgmgr's hierarchy, and what would make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoBase {
    /// The reason's name for programs, e.g. `read_only`.
    pub id: &'static str,
    /// The reason.
    pub why: String,
    /// One line of remedy.
    pub fix: String,
    /// The kernel refused a look in a way that says nothing about the host (an I/O error, for instance): there may well
    /// be a place.
    pub unclear: bool,
}

/// A disk, as far as `io.weight` is concerned.
///
/// Sources: cgroup-v2.rst, "IO"; the kernel's Documentation/block/bfq-iosched.rst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name below /sys/block.
    pub name: String,
    /// Its number, as control files have it: `254:0`.
    pub number: String,
    /// Whether anything on it acts on `io.weight`: the iocost controller, or the BFQ scheduler. `None` where that cannot
    /// be seen from here (inside a cgroup namespace).
    pub weighs: Option<bool>,
}

/// This machine, as far as planning must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its numbers.
    pub machine: Machine,
    /// Kernel release, as uname(2) gives it.
    pub kernel: String,
    /// Whether PID 1 is systemd (sd_booted(3)).
    pub systemd: bool,
    /// systemd's version, e.g. 257; `None` where nobody asked: only what it rounds makes it matter.
    pub systemd_version: Option<u32>,
    /// Effective user id of the caller.
    pub euid: u32,
    /// How cgroups are set up.
    pub hierarchy: Hierarchy,
    /// Where cgmgr's hierarchy stands.
    pub base: Result<Base, NoBase>,
    /// Its disks; `None` where nobody looked, for only a declared `io_weight` makes them matter.
    pub disks: Option<Vec<Disk>>,
}

impl Host {
    /// Why `io.weight` acts on no disk of this machine; `None` where it acts on one, or that is not known.
    pub fn io_weight_idle(&self) -> Option<String> {
        let disks = self.disks.as_ref()?;
        if disks.iter().any(|disk| disk.weighs != Some(false)) {
            return None;
        }
        let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
        Some(match names.as_slice() {
            [] => "there is no disk to act on".to_owned(),
            names => format!("no disk runs iocost or BFQ ({})", names.join(", ")),
        })
    }
}
