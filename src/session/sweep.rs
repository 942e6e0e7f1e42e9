//! Removes what a killed cgmgr left behind.

use super::place::Place;
use crate::kernel::survey;
use crate::path::SessionName;

/// Removes locks and unfinished records of killed processes, and groups of sessions that nobody is in and nobody attends: their cgmgr was killed, or became the command.
/// Done while the new session's command runs already, so that it costs a launch nothing.
pub fn sweep(place: &Place, own: &SessionName) {
    place.registry.sweep_debris();
    let Some((tree, base)) = place.base() else { return };
    let Ok(Some(parent)) = tree.find(&base.sessions) else {
        return;
    };
    for directory in parent.children().unwrap_or_default() {
        let Some(name) = SessionName::of_directory(&directory).filter(|n| n != own) else {
            continue;
        };
        let empty = || {
            parent
                .child(&directory)
                .is_ok_and(|g| !g.populated().unwrap_or(true))
        };
        // Looked at again under the lock: a launch that is under way holds it.
        let made_by_another = || {
            parent
                .child(&directory)
                .ok()
                .and_then(|g| survey::identity(&g))
                .is_some_and(|i| survey::maker_lives(&i))
        };
        if !place.registry.is_attended(&name)
            && empty()
            && !made_by_another()
            && let Ok(Some(_held)) = place.registry.lock(&name)
            && empty()
            && let Err(error) = parent.remove_session(&directory)
        {
            tracing::warn!("{error}");
        }
    }
}
