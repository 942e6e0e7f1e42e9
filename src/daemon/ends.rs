//! Sessions that nobody is in charge of: their OOM kills are recorded here, and what is left of them is put away.

use super::watched::Watched;
use crate::kernel::kmsg::{KernelLog, OomLog};
use crate::session::onlooker::Scenery;
use crate::session::place::Place;
use crate::session::records::unwatched;
use crate::session::sweep;

/// Records OOM kills of a session that nobody is in charge of.
pub(super) fn account(place: &Place, one: &mut Watched, log: Option<&mut KernelLog>, oom: &mut OomLog) {
    let Some(tree) = &place.tree else { return };
    let kills = one.kills;
    // Whose limit it was, the counters above could only say if they had been looked at before.
    if !one.was_seen {
        let news = kills.saturating_sub(one.records.kills());
        if let Some(oom) = unwatched(one.group(), news) {
            one.record(place, &oom, kills);
        }
        return;
    }
    let mut above = std::mem::take(&mut one.before.levels);
    let scenery = Scenery {
        tree,
        namespaced: place.is_namespaced(),
        group: one.group(),
        path: one.path(),
    };
    // What records have told of is not told again.
    let found = scenery.kills_since(one.records.kills(), &mut above, log, oom);
    one.before.levels = above;
    if let Some(found) = found {
        one.record(place, &found, kills);
    }
}

/// Puts away what nobody attends and nobody is in.
pub(super) fn sweep(place: &Place) {
    sweep::sweep_others(place);
}
