//! OOM kills of a session without its command: found by somebody who looks on, the daemon or who stays with what a command
//! has left.

use super::measure::{self, Level, Moment};
use super::verdict::{self, Evidence, Oom};
use crate::kernel::counters::Keyed;
use crate::kernel::kmsg::{KernelLog, OomLog};
use crate::kernel::{Group, Tree, process};
use crate::path::GroupPath;

/// Where to look.
pub struct Scenery<'a> {
    /// The hierarchy.
    pub tree: &'a Tree,
    /// Whether it is seen from inside a cgroup namespace.
    pub namespaced: bool,
    /// The session's group.
    pub group: &'a Group,
    /// Where that is.
    pub path: &'a GroupPath,
}

impl Scenery<'_> {
    /// The groups above as they are now.
    pub fn above(&self) -> Vec<Level> {
        measure::events_above(self.tree, self.path, self.namespaced)
    }

    /// What there was since `known` OOM kills had been counted in it and the groups above were as in `above`, which are those
    /// of now afterwards. `log` holds what the kernel's log said meanwhile, as far as it can be read, and is read on.
    pub fn kills_since(
        &self,
        known: u64,
        above: &mut Vec<Level>,
        mut log: Option<&mut KernelLog>,
        said: &mut OomLog,
    ) -> Option<Oom> {
        let seen = said.victims.len();
        if let Some(log) = &mut log {
            log.read_on(said);
        }
        // Where a victim's group can still be read, it is known to have been in this session.
        let inside = |pid: i32| {
            let group = process::group_of(pid).and_then(|group| GroupPath::new(&group));
            group.is_some_and(|group| self.path.contains(&group))
        };
        let new = said.victims[seen.min(said.victims.len())..].iter();
        let pids = new.map(|victim| victim.pid).filter(|pid| inside(*pid)).collect();
        let after = measure::moment(self.tree, self.group, self.path, self.namespaced).ok()?;
        let before = Moment {
            events: Keyed::parse(&format!("oom_kill {known}\n")),
            levels: above.clone(),
        };
        let evidence = Evidence {
            log: log.is_some().then(|| said.clone()),
            pids,
            namespaced: self.namespaced,
            ..Evidence::default()
        };
        let oom = verdict::oom(&before, &after, &evidence)?;
        *above = after.levels.into_iter().skip(1).collect();
        Some(oom)
    }
}
