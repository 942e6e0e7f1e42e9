//! Limits of the two slices that are not what cgmgr has made them.

use crate::host::Base;
use crate::kernel::Tree;
use crate::record::{Applied, Drift, Fact};
use crate::session::applied::{knobs, limits};
use std::collections::BTreeMap;
use std::mem;

/// The limits of the slices, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct SliceDrift {
    /// What they were made, by knob. One that is not in it is taken as it is found.
    made: BTreeMap<String, String>,
    /// Which group each slice was: one that was made anew has other limits.
    groups: BTreeMap<String, u64>,
    /// What was told, by knob: the value that was found.
    told: BTreeMap<String, String>,
    /// What the last look found: cgmgr may have been about to record it.
    suspects: BTreeMap<String, String>,
}

impl SliceDrift {
    /// cgmgr itself has changed them, as a record says.
    pub(super) fn hear(&mut self, applied: &Applied) {
        self.made.clone_from(&applied.limits);
        self.told.clear();
        self.suspects.clear();
    }

    /// Compares them. What differs at two looks is told, and set back where `repair` says so and it is not systemd's to write.
    pub(super) fn look(&mut self, tree: &Tree, base: &Base, repair: bool) -> Vec<Fact> {
        let found = limits(tree, base);
        let suspects = mem::take(&mut self.suspects);
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
                self.told.remove(key);
                continue;
            }
            if self.told.get(key) == Some(found) {
                continue;
            }
            if suspects.get(key) != Some(found) {
                self.suspects.insert(key.to_owned(), found.clone());
                continue;
            }
            let write = || {
                tree.group(slice)
                    .is_ok_and(|group| group.write(file, made).is_ok())
            };
            let repaired = repair && !base.slices_are_systemds() && write();
            if !repaired {
                self.told.insert(key.to_owned(), found.clone());
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
                    self.told.remove(knob.key);
                }
            }
        }
    }
}
