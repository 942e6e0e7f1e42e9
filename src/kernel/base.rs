//! Finds the place for cgmgr's hierarchy: where this process may make groups without writing behind anybody's back.

use super::error::KernelError;
use super::group::{Group, Tree};
use super::{manager, survey};
use crate::host::{
    Base, BaseKind, Hierarchy, Manager, Mount, NoBase, SESSIONS_SCOPE, WORKLOADS_SLICE, sessions_scope,
};
use crate::limits::Controller;
use crate::path::{GroupPath, SessionName};
use rustix::io::Errno;
use std::path::Path;

fn none<T>(id: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Result<T, NoBase> {
    Err(NoBase {
        id,
        why: why.into(),
        fix: fix.into(),
        unclear: false,
    })
}

impl From<KernelError> for NoBase {
    fn from(error: KernelError) -> Self {
        Self {
            id: "base_unreadable",
            why: error.to_string(),
            fix: error.help().into(),
            unclear: !error.says_no(),
        }
    }
}

/// The base for cgmgr's hierarchy, in this order: the group the user named; systemd's scope of sessions, also where the
/// next launch is yet to make it; the delegated group the caller is in (`own`); scopes of systemd, for root of the machine's
/// and for others of their own; the root, where PID 1 is not systemd.
pub fn find(
    hierarchy: &Hierarchy,
    systemd: bool,
    explicit: Option<&GroupPath>,
    own: Option<&GroupPath>,
) -> Result<Base, NoBase> {
    let (mount, tree) = usable(hierarchy)?;
    if let Some(group) = explicit {
        return named(&tree, group, mount.true_root);
    }
    let unit = sessions_scope();
    let scope = look(tree.find(&unit))?;
    let root = rustix::process::geteuid().is_root();
    let mut is_going = false;
    if let Some(group) = &scope
        && delegated(group)?
    {
        if group.writable()? {
            return Ok(Base::sessions_unit(unit, controllers(group)?));
        }
        // Root may write to whatever is there.
        is_going = root;
    }
    let awaited = systemd && (scope.is_none() || is_going) && is_installed();
    if awaited && root {
        // Gone with its anchor while no session lived. systemd delegates every controller that the root has.
        let root = tree.group(&GroupPath::root())?;
        return Ok(Base::sessions_unit(unit, controllers(&root)?));
    }
    let delegated = match own {
        Some(own) => own_delegated(&tree, own, systemd)?,
        None => None,
    };
    if let Some(base) = delegated {
        return Ok(base);
    }
    if systemd && rustix::process::geteuid().is_root() {
        return with_scopes(hierarchy, systemd, own);
    }
    if systemd {
        if let Some((path, group)) = users_manager(&tree, own)? {
            return users(&tree, path, &group);
        }
        return none(
            "not_delegated",
            "systemd owns the cgroup tree and has delegated no part of it to this process",
            match scope.is_some() || awaited {
                false => "sudo cgmgr install; or have a systemd of your own: loginctl enable-linger YOU",
                true => {
                    "sudo cgmgr run --user YOU; or have a systemd of your own (loginctl enable-linger YOU), or a group \
                     delegated to you (a unit with User=YOU and Delegate=yes)"
                }
            },
        );
    }
    let root = GroupPath::root();
    // systemd may run outside of this mount namespace (a chroot, a container with the host's cgroups).
    if let Ok(Some(_)) = tree.find(&root.join("init.scope")) {
        return none(
            "systemds_tree",
            format!("the tree at {} is systemd's: it holds init.scope", mount.point),
            "run where systemd can be seen, or name a group that was delegated with --cgroup-root",
        );
    }
    let kind = if mount.true_root {
        BaseKind::Root
    } else {
        BaseKind::Namespace
    };
    match tree.group(&root) {
        Ok(group) if group.writable()? => Ok(Base::below(kind, root, controllers(&group)?)),
        Ok(_) => none(
            "not_writable",
            format!(
                "{} is not writable by user {}",
                mount.point,
                rustix::process::geteuid().as_raw()
            ),
            "run as root, or have a group delegated to this user and name it with --cgroup-root",
        ),
        Err(e) => Err(e.into()),
    }
}

/// The hierarchy, opened, where cgroup v2 holds every controller and may be written to.
fn usable(hierarchy: &Hierarchy) -> Result<(&Mount, Tree), NoBase> {
    let mount = match hierarchy {
        Hierarchy::Unified(mount) => mount,
        Hierarchy::Hybrid { v1, .. } => {
            return none(
                "hybrid",
                format!(
                    "hybrid cgroup set-up: cgroup v1 holds the controllers {}",
                    v1.join(" ")
                ),
                "boot with `systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all` on the kernel command line",
            );
        }
        Hierarchy::Legacy { v1 } => {
            return none(
                "v1_only",
                format!("cgroup v1 only: it holds the controllers {}", v1.join(" ")),
                "boot with `systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all` on the kernel command line",
            );
        }
        Hierarchy::Absent => {
            return none(
                "no_cgroup_fs",
                "no cgroup file system is mounted",
                "mount -t cgroup2 none /sys/fs/cgroup",
            );
        }
    };
    let tree = Tree::open(&mount.point)?;
    if mount.read_only {
        return none(
            "read_only",
            format!("the cgroup file system at {} is mounted read-only", mount.point),
            format!("mount it read-write: mount -o remount,rw {}", mount.point),
        );
    }
    Ok((mount, tree))
}

/// Where each session is a scope of systemd's, below its workloads.slice: of the machine's for root, and of his own for
/// another user.
pub fn with_scopes(hierarchy: &Hierarchy, systemd: bool, own: Option<&GroupPath>) -> Result<Base, NoBase> {
    let (_, tree) = usable(hierarchy)?;
    if !systemd {
        return none(
            "no_systemd",
            "PID 1 is not systemd",
            "leave --backend out: cgmgr makes the groups itself where it may",
        );
    }
    if !rustix::process::geteuid().is_root() {
        return match users_manager(&tree, own)? {
            Some((path, group)) => Ok(Base::scopes(Manager::User, path, controllers(&group)?)),
            None => none(
                "no_user_manager",
                "only root may ask the machine's systemd for scopes, and no systemd of this user's own runs",
                "log in, or let the user linger: loginctl enable-linger YOU; or run as root",
            ),
        };
    }
    let root = GroupPath::root();
    let controllers = controllers(&tree.group(&root)?)?;
    Ok(Base::scopes(Manager::System, root, controllers))
}

/// Below the user's own systemd, whose root slice is at `path`: its scope of sessions, also where the next launch is yet to
/// make it, else a scope for each session.
fn users(tree: &Tree, path: GroupPath, group: &Group) -> Result<Base, NoBase> {
    let unit = path.join(WORKLOADS_SLICE).join(SESSIONS_SCOPE);
    match look(tree.find(&unit))? {
        Some(scope) if scope.writable()? => Ok(Base::sessions_unit(unit, controllers(&scope)?)),
        None if manager::unit_of_user().is_some_and(|unit| is_file(&unit)) => {
            Ok(Base::sessions_unit(unit, controllers(group)?))
        }
        _ => Ok(Base::scopes(Manager::User, path, controllers(group)?)),
    }
}

/// What the user's own systemd manages, if it runs.
fn users_manager(tree: &Tree, own: Option<&GroupPath>) -> Result<Option<(GroupPath, Group)>, NoBase> {
    let managed = manager::of_user().map_err(|errno: Errno| NoBase {
        id: "user_manager_busy",
        why: format!(
            "the user's systemd cannot be reached: {}",
            std::io::Error::from(errno)
        ),
        fix: "try again; `systemctl --user status` shows whether it answers".into(),
        unclear: true,
    })?;
    // Told by their path whose a session is, by everybody who finds one there.
    let Some(path) = managed.filter(|path| Manager::of(path) == Manager::User) else {
        return Ok(None);
    };
    let Some(group) = look(tree.find(&path))? else {
        return Ok(None);
    };
    if !group.writable()? {
        return Ok(None);
    }
    if let Some(session) = own.and_then(|own| session_around(tree, own, &path)) {
        return none(
            "inside_other_session",
            format!(
                "this is inside session {session}, which is not one of the user's systemd: what that starts is outside of it"
            ),
            "run cgmgr outside of the session for sessions of their own",
        );
    }
    Ok(Some((path, group)))
}

/// The session above `own` that is not below `managed`.
fn session_around(tree: &Tree, own: &GroupPath, managed: &GroupPath) -> Option<SessionName> {
    let around = own.ancestors().filter(|path| !managed.contains(path));
    let is_marked = |path: &GroupPath| {
        let group = tree.find(path).ok().flatten();
        group.is_some_and(|group| survey::identity(&group).is_some())
    };
    around
        .filter_map(|path| Some((SessionName::of_group(&path)?, path)))
        .find_map(|(name, path)| is_marked(&path).then_some(name))
}

/// Whether the unit is there that makes the scope.
fn is_installed() -> bool {
    is_file(Path::new("/etc/systemd/system/cgmgr-sessions.service"))
}

/// A link to nowhere masks a unit.
fn is_file(unit: &Path) -> bool {
    rustix::fs::lstat(unit).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_file())
}

/// What was found, or nothing where the kernel says that nothing is there or may be looked at.
fn look(found: Result<Option<Group>, KernelError>) -> Result<Option<Group>, KernelError> {
    match found {
        Err(e) if e.says_no() => Ok(None),
        other => other,
    }
}

/// The hierarchy that somebody else keeps and that this process may only look at.
pub fn readable(tree: &Tree) -> Option<Base> {
    let root = GroupPath::root();
    let workloads = root.join(WORKLOADS_SLICE);
    let unit = sessions_scope();
    if let Ok(Some(group)) = tree.find(&unit) {
        return Some(Base::sessions_unit(unit, controllers(&group).ok()?));
    }
    let group = tree.find(&workloads).ok()??;
    group.marked(super::survey::MADE)?;
    Some(Base::below(BaseKind::Root, root, controllers(&group).ok()?))
}

fn named(tree: &Tree, path: &GroupPath, true_root: bool) -> Result<Base, NoBase> {
    let group = match tree.find(path) {
        Ok(Some(group)) => group,
        Ok(None) => {
            return none(
                "no_such_group",
                format!("{} does not exist", tree.display(path)),
                "make it first, or name another",
            );
        }
        Err(e) => return Err(e.into()),
    };
    if !group.writable()? {
        return none(
            "not_writable",
            format!(
                "{} is not writable by user {}",
                group.path(),
                rustix::process::geteuid().as_raw()
            ),
            "run as root, or have it delegated to this user",
        );
    }
    let kind = match (path.is_root(), true_root) {
        (true, true) => BaseKind::Root,
        (true, false) => BaseKind::Namespace,
        (false, _) => BaseKind::Delegated,
    };
    if path.name() == Some(SESSIONS_SCOPE) {
        return Ok(Base::sessions_unit(path.clone(), controllers(&group)?));
    }
    Ok(Base::below(kind, path.clone(), controllers(&group)?))
}

/// The group delegated to the caller that it is in: the nearest one above it with systemd's mark of delegation, else,
/// for a user, the highest of the groups above it that are his. What a user's own systemd manages is not taken.
fn own_delegated(tree: &Tree, own: &GroupPath, systemd: bool) -> Result<Option<Base>, KernelError> {
    let mut highest = None;
    for path in own.ancestors().filter(|p| !p.is_root()) {
        if path.name().is_some_and(|n| n.starts_with("user@")) {
            return Ok(None);
        }
        let Some(group) = look(tree.find(&path))? else {
            continue;
        };
        if !group.writable()? {
            break;
        }
        if delegated(&group)? {
            let controllers = controllers(&group)?;
            return Ok(Some(Base::below(BaseKind::Delegated, path, controllers)));
        }
        if !rustix::process::geteuid().is_root() {
            highest = Some((path, group));
        }
    }
    // Without systemd's mark, root's write access says nothing about delegation; a user's does, where no user
    // manager could be the one who owns it.
    let highest = highest.filter(|_| !systemd || !own.as_str().contains("/user@"));
    let Some((path, group)) = highest else {
        return Ok(None);
    };
    // The part of cgmgr's own hierarchy that the caller sits in is not a base.
    let path = match path.name() {
        Some(WORKLOADS_SLICE | crate::host::AGENT_SLICE | crate::host::SUPERVISOR) => return Ok(None),
        _ => path,
    };
    let controllers = controllers(&group)?;
    Ok(Some(Base::below(BaseKind::Delegated, path, controllers)))
}

/// systemd marks the groups of units with `Delegate=` (251 and later; CGROUP_DELEGATION.md).
pub fn delegated(group: &Group) -> Result<bool, KernelError> {
    for name in ["user.delegate", "trusted.delegate"] {
        if group.try_attribute(name)?.as_deref() == Some("1") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The controllers that could be enabled for the group's children.
pub fn controllers(group: &Group) -> Result<Vec<Controller>, KernelError> {
    let text = group.get("cgroup.controllers")?.unwrap_or_default();
    let named = |c: &Controller| text.split(' ').any(|name| name == c.name());
    Ok(Controller::ALL.iter().copied().filter(named).collect())
}
