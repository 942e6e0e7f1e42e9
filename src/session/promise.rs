//! What the limits of a session's group promise, from who could undo them.

use crate::kernel::Tree;
use crate::kernel::sys::Identity;
use crate::path::GroupPath;
use crate::plan::receipt::Promise;

/// The promise for a command in the group `path`, made by the user `euid`; `user` is who the command runs as where that
/// is another.
///
/// What a user may write above his session counts as well: a move is allowed where the group that both ends have in common
/// is his (cgroup-v2.rst, "Delegation Containment").
pub(super) fn of(tree: &Tree, path: &GroupPath, user: Option<&Identity>, euid: u32) -> Promise {
    let Some(user) = user.filter(|user| euid == 0 && user.uid != 0) else {
        return Promise::Bookkeeping;
    };
    let his = |group: &GroupPath| tree.group(group).is_ok_and(|group| group.writable_for(user));
    if path.ancestors().any(|group| his(&group)) || has_own_systemd(tree, user.uid) {
        return Promise::Bookkeeping;
    }
    Promise::Boundary
}

/// Whether the user's own systemd runs: it starts what he asks for outside of the session, and has PID 1 move any process
/// of his there (org.freedesktop.systemd1, `AttachProcessesToUnit`).
fn has_own_systemd(tree: &Tree, uid: u32) -> bool {
    let below = [
        "user.slice".into(),
        format!("user-{uid}.slice"),
        format!("user@{uid}.service"),
    ];
    let unit = below.iter().fold(GroupPath::root(), |path, name| path.join(name));
    tree.find(&unit).is_ok_and(|unit| unit.is_some())
}
