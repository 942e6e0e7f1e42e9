//! Sessions that nobody is in charge of: their OOM kills are recorded here, and what is left of them is put away.

use super::watched::Watched;
use crate::kernel::counters::Keyed;
use crate::kernel::kmsg::{KernelLog, OomLog};
use crate::kernel::process;
use crate::path::GroupPath;
use crate::session::measure::{self, Moment};
use crate::session::place::Place;
use crate::session::records::unwatched;
use crate::session::sweep;
use crate::session::verdict::{self, Evidence};

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
    let seen = oom.victims.len();
    let has_log = log.is_some();
    if let Some(log) = log {
        log.read_on(oom);
    }
    // Where a victim's group can still be read, it is known to have been in this session.
    let inside = |pid: i32| {
        let group = process::group_of(pid).and_then(|group| GroupPath::new(&group));
        group.is_some_and(|group| one.path().contains(&group))
    };
    let pids = oom.victims[seen.min(oom.victims.len())..]
        .iter()
        .map(|v| v.pid)
        .filter(|pid| inside(*pid))
        .collect();
    let Ok(after) = measure::moment(tree, one.group(), one.path(), place.is_namespaced()) else {
        return;
    };
    let before = Moment {
        // What records have told of is not told again.
        events: Keyed::parse(&format!("oom_kill {}\n", one.records.kills())),
        levels: one.before.levels.clone(),
    };
    let evidence = Evidence {
        log: has_log.then(|| oom.clone()),
        pids,
        namespaced: place.is_namespaced(),
        ..Evidence::default()
    };
    let Some(verdict) = verdict::oom(&before, &after, &evidence) else {
        return;
    };
    one.before.levels = after.levels.iter().skip(1).cloned().collect();
    one.record(place, &verdict, kills);
}

/// Puts away what nobody attends and nobody is in.
pub(super) fn sweep(place: &Place) {
    sweep::sweep_others(place);
}
