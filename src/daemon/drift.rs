//! Limits of the two slices that are not what cgmgr has made them.

use super::differences::Differences;
use crate::host::Base;
use crate::kernel::Tree;
use crate::record::{Applied, Drift, Fact};
use crate::session::applied::{knobs, limits};
use std::collections::BTreeMap;

/// The limits of the slices, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct SliceDrift {
    /// What they were made, by knob. One that is not in it is taken as it is found.
    made: BTreeMap<String, String>,
    /// Which group each slice was: one that was made anew has other limits.
    groups: BTreeMap<String, u64>,
    differences: Differences,
}

impl SliceDrift {
    /// cgmgr itself has changed them, as a record says.
    pub(super) fn hear(&mut self, applied: &Applied) {
        self.made.clone_from(&applied.limits);
        self.differences.forget();
    }

    /// Compares them. What differs at two looks is told, and set back where `repair` says so and it is not systemd's to write.
    pub(super) fn look(&mut self, tree: &Tree, base: &Base, repair: bool) -> Vec<Fact> {
        let found = limits(tree, base);
        self.differences.look();
        let mut facts = Vec::new();
        self.forget_groups_of_before(tree, base);
        for (knob, file, slice) in knobs(base) {
            let key = knob.key;
            let Some(found) = found.get(key) else { continue };
            let Some(made) = self.made.get(key) else {
                self.made.insert(key.to_owned(), found.clone());
                continue;
            };
            if made == found {
                self.differences.is_right(key);
                continue;
            }
            if !self.differences.is_news(key, found) {
                continue;
            }
            let write = || {
                tree.group(slice)
                    .is_ok_and(|group| group.write(file, made).is_ok())
            };
            let repaired = repair && !base.slices_are_systemds() && write();
            if !repaired {
                self.differences.was_told(key, found.clone());
            }
            facts.push(Fact::Drifted(Drift {
                group: slice.to_string(),
                knob: key.to_owned(),
                declared: made.clone(),
                found: found.clone(),
                repaired,
            }));
        }
        facts
    }

    fn forget_groups_of_before(&mut self, tree: &Tree, base: &Base) {
        for slice in [&base.agent, &base.workloads] {
            let Ok(id) = tree.id(slice) else { continue };
            let name = slice.to_string();
            if self.groups.insert(name, id).is_some_and(|before| before != id) {
                for (knob, ..) in knobs(base).filter(|(_, _, of)| *of == slice) {
                    self.made.remove(knob.key);
                    self.differences.is_right(knob.key);
                }
            }
        }
    }
}
