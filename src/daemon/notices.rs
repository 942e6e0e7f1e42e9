//! Has people told of what was recorded, whoever recorded it, in a process of its own: nothing that hangs holds up the
//! daemon.

use super::watched::Who;
use crate::kernel::sys;
use crate::notify::{self, How};
use crate::record::line::sentence;
use crate::record::{Fact, Record};
use crate::role::Events;
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

/// So many records are brought to people in [`PERIOD`]; the rest of them is in the store only.
const MOST: u32 = 30;
const PERIOD: Duration = Duration::from_secs(60);
/// So long a process may take that tells of one record: longer than each of its ways has.
const TAKES: Duration = Duration::from_secs(30);
/// So many of these at once: a program on a file server that is gone does not even begin.
const AT_ONCE: usize = 32;

/// Who is told of what.
pub(super) struct Notices<'a> {
    events: &'a Events,
    begun: Instant,
    told: u32,
    /// Processes that tell of one record each, and since when.
    telling: Vec<(i32, Instant)>,
}

impl<'a> Notices<'a> {
    pub(super) fn new(events: &'a Events) -> Self {
        Self {
            events,
            begun: Instant::now(),
            told: 0,
            telling: Vec::new(),
        }
    }

    /// A child of this process's has ended, and was waited for.
    pub(super) fn ended(&mut self, pid: i32) {
        self.telling.retain(|(one, _)| *one != pid);
    }

    /// Ends those that have taken too long. They are waited for as any other.
    pub(super) fn end_overdue(&self) {
        for (pid, since) in &self.telling {
            if since.elapsed() > TAKES
                && let Some(pid) = Pid::from_raw(*pid)
            {
                // Nobody has waited for it: no other process can have its pid.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Has people told of a record, where the session's role wants that.
    pub(super) fn tell(&mut self, record: &Record, who: Option<Who>) {
        if who.as_ref().is_some_and(|who| !who.notify) || is_quiet(&record.fact) {
            return;
        }
        if self.begun.elapsed() > PERIOD {
            self.begun = Instant::now();
            self.told = 0;
        }
        self.told += 1;
        if self.told > MOST {
            if self.told == MOST + 1 {
                tracing::warn!("more than {MOST} notices in a minute: `cgmgr events` has the rest");
            }
            return;
        }
        if self.telling.len() >= AT_ONCE {
            tracing::warn!(
                "{AT_ONCE} notices are on their way still: nobody is told of {}",
                record.fact.name()
            );
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
            Ok(Some(pid)) => self.telling.push((pid, Instant::now())),
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
