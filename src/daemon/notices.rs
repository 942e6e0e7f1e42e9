//! Has people told of what was recorded, whoever recorded it, in a process of its own: nothing that hangs holds up the
//! daemon.

use super::watched::Who;
use crate::kernel::sys;
use crate::notify::{self, How};
use crate::record::line::sentence;
use crate::record::{Fact, Record};
use crate::role::Events;

/// So many records are brought to people in [`PERIOD`]; the rest of them is in the store only.
const MOST: u32 = 30;
const PERIOD: std::time::Duration = std::time::Duration::from_secs(60);

/// Who is told of what.
pub(super) struct Notices<'a> {
    events: &'a Events,
    begun: std::time::Instant,
    told: u32,
}

impl<'a> Notices<'a> {
    pub(super) fn new(events: &'a Events) -> Self {
        Self {
            events,
            begun: std::time::Instant::now(),
            told: 0,
        }
    }

    /// Has people told of a record, where the session's role wants that.
    pub(super) fn tell(&mut self, record: &Record, who: Option<Who>) {
        if who.as_ref().is_some_and(|who| !who.notify) || is_quiet(&record.fact) {
            return;
        }
        if self.begun.elapsed() > PERIOD {
            self.begun = std::time::Instant::now();
            self.told = 0;
        }
        self.told += 1;
        if self.told > MOST {
            if self.told == MOST + 1 {
                tracing::warn!("more than {MOST} notices in a minute: `cgmgr events` has the rest");
            }
            return;
        }
        let how = How {
            journal: true,
            hook: self.events.on_event.clone(),
            desktop: who.as_ref().map(|who| who.uid).filter(|uid| *uid != 0),
            // Where somebody is in charge, that one says it there.
            terminals: who.map(|who| who.processes).unwrap_or_default(),
        };
        // Without the right to be the daemon: the next one is not to wait for a program that hangs.
        match sys::fork_apart() {
            Err(errno) => tracing::warn!("nobody can be told of {}: {errno}", record.fact.name()),
            Ok(Some(_)) => {}
            Ok(None) => {
                for failure in notify::tell(record, &sentence(record), &how) {
                    tracing::warn!("{failure}");
                }
                sys::leave(0);
            }
        }
    }
}

/// Whether its record says that nobody is to be told: the session may be gone that said so.
fn is_quiet(fact: &Fact) -> bool {
    matches!(fact, Fact::OomKill(kill) if kill.quiet)
}
