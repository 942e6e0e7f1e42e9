//! Removes what a killed cgmgr left behind.

use super::place::Place;
use super::records;
use crate::host::{BaseKind, SUPERVISOR};
use crate::kernel::survey;
use crate::path::SessionName;

/// Removes what killed processes left: locks, unfinished entries, and groups of sessions that nobody is in and nobody
/// attends (of a cgmgr that became the command, too). Done while the new session's command runs already. Returns how many
/// groups there are.
pub fn sweep(place: &Place, own: &SessionName) -> usize {
    sweep_but(place, Some(own))
}

/// The same for one who has no session.
pub fn sweep_others(place: &Place) {
    sweep_but(place, None);
}

fn sweep_but(place: &Place, own: Option<&SessionName>) -> usize {
    let attended = place.registry.sweep_debris(own);
    let Some((tree, base)) = place.base() else {
        return 0;
    };
    // A scope is systemd's to collect, once nobody is in it and nobody holds it open.
    if base.scope_manager().is_some() {
        return 0;
    }
    let Ok(Some(parent)) = tree.find(&base.sessions) else {
        return 0;
    };
    // The one that was just made, and in the unit's group the leaf of the anchor: to list a directory takes far longer.
    match parent.count_children() {
        Some(1) if own.is_some() => return 1,
        Some(2)
            if own.is_some() && matches!(base.kind, BaseKind::SessionsUnit(_)) && parent.has(SUPERVISOR) =>
        {
            return 1;
        }
        _ => {}
    }
    let directories = parent.children().unwrap_or_default();
    for directory in &directories {
        let Some(name) = SessionName::of_directory(directory).filter(|n| Some(n) != own) else {
            continue;
        };
        let empty = || {
            parent
                .child(directory)
                .is_ok_and(|g| !g.populated().unwrap_or(true) && !survey::is_foreign(&g).unwrap_or(true))
        };
        // Looked at again under the lock: a launch that is under way holds it.
        let made_by_another = || {
            parent
                .child(directory)
                .ok()
                .and_then(|g| survey::identity(&g))
                .is_some_and(|i| survey::maker_lives(&i))
        };
        if !attended.contains(&name)
            && !place.registry.is_attended(&name)
            && empty()
            && !made_by_another()
            && let Ok(Some(_held)) = place.registry.lock(&name)
            && empty()
        {
            if let Ok(group) = parent.child(directory) {
                records::bury(place.store.as_ref(), &name, &group);
            }
            if let Err(error) = parent.remove_session(directory) {
                tracing::warn!("{error}");
            }
        }
    }
    directories.len()
}
