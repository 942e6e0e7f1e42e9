//! Waiting in workloads.slice, told by the kernel (Documentation/accounting/psi.rst, "Monitoring for pressure thresholds").

use crate::kernel::counters::parse_pressure;
use crate::kernel::pressure;
use crate::kernel::{Group, Tree};
use crate::path::GroupPath;
use crate::record::{Fact, Pressure};
use rustix::fd::OwnedFd;
use std::time::{Duration, Instant};

/// While it goes on, one record in this time.
const AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// The slice of all sessions.
#[derive(Debug, Default)]
pub(super) struct Slices {
    watched: Option<(u64, Group, GroupPath, OwnedFd)>,
    told: Option<Instant>,
}

impl Slices {
    /// Has the kernel tell of it; what is to be waited for, where it is new.
    pub(super) fn arm(&mut self, tree: &Tree, workloads: &GroupPath) -> Option<&OwnedFd> {
        let group = tree.find(workloads).ok()??;
        let id = group.id().ok()?;
        if self.watched.as_ref().is_some_and(|(known, ..)| *known == id) {
            return None;
        }
        match pressure::trigger(&group) {
            Ok(trigger) => {
                self.watched = Some((id, group, workloads.clone(), trigger));
                self.watched.as_ref().map(|(.., trigger)| trigger)
            }
            Err(error) => {
                // Kernels without PSI, and those where it is switched off.
                tracing::debug!("{error}");
                None
            }
        }
    }

    /// It was told.
    pub(super) fn pressed(&mut self) -> Option<Fact> {
        let (_, group, path, _) = self.watched.as_ref()?;
        let Ok(Some(text)) = group.get("memory.pressure") else {
            self.watched = None;
            return None;
        };
        if self.told.is_some_and(|told| told.elapsed() < AT_MOST_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        let avg10 = |kind| parse_pressure(&text, kind).map_or(0.0, |pressure| pressure.avg10);
        Some(Fact::Pressure(Pressure {
            group: path.to_string(),
            resource: "memory".into(),
            some_avg10: avg10("some"),
            full_avg10: avg10("full"),
        }))
    }
}
