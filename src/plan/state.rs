//! What is on the machine now, as far as planning must know it. Values only; `kernel::survey` makes them.

use super::identity::Identity;
use crate::path::{GroupPath, SessionName};
use std::collections::{BTreeMap, BTreeSet};

/// The mark `user.cgmgr.made` of a group that the anchor of the delegated unit made for itself.
pub const MADE_BY_ANCHOR: &str = "anchor";

/// One group as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupState {
    /// `cgroup.type`; empty for the true root, which has none.
    pub kind: String,
    /// `cgroup.controllers`: what could be enabled for children.
    pub controllers: Vec<String>,
    /// `cgroup.subtree_control`: what is enabled for children.
    pub enabled: Vec<String>,
    /// Processes in this very group: pid and comm (escaped).
    pub procs: Vec<(i32, String)>,
    /// Whether a process is in it or below.
    pub populated: bool,
    /// Names of its child groups.
    pub children: Vec<String>,
    /// Control files of the knob table that are there, and what they hold.
    pub files: BTreeMap<&'static str, String>,
    /// The value of `user.cgmgr.made`: cgmgr made this group.
    pub made: Option<String>,
    /// The value of `user.cgmgr.enabled`: controllers that cgmgr enabled here, separated by spaces.
    pub enabled_by_us: Option<String>,
}

impl GroupState {
    /// Whether `apply` or `run` made it: then `down` takes it away. The leaf of the anchor of a delegated unit goes with
    /// that unit instead.
    pub fn is_ours(&self) -> bool {
        self.made.as_deref().is_some_and(|by| by != MADE_BY_ANCHOR)
    }
}

/// One session's group as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// Its name.
    pub name: SessionName,
    /// Its group.
    pub group: GroupPath,
    /// Who made it and for what; `None` where the mark is missing (cgmgr was killed before it could set it).
    pub identity: Option<Identity>,
    /// The group itself.
    pub state: GroupState,
    /// `memory.current`, in bytes.
    pub memory_current: Option<u64>,
    /// Whether a cgmgr process is in charge of it (its lock is held).
    pub attended: bool,
}

impl SessionState {
    /// Whether it is somebody else's: without the mark of a session, and not just the empty debris of a cgmgr that was
    /// killed before it could set it.
    pub fn is_foreign(&self) -> bool {
        let inhabited = self.state.populated || !self.state.children.is_empty();
        self.identity.is_none() && !self.attended && inhabited
    }
}

/// One of the two slices as systemd has it, where it is systemd's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceUnit {
    /// Whether it runs.
    pub active: bool,
    /// Its unit file; empty where there is none.
    pub fragment: String,
    /// `Description`.
    pub description: String,
    /// Drop-in files in force.
    pub drop_ins: Vec<String>,
}

/// The hierarchy as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The base, the two slices and the sessions' parent, as far as they exist.
    pub groups: BTreeMap<GroupPath, GroupState>,
    /// Every directory named like a session under the sessions' parent.
    pub sessions: Vec<SessionState>,
    /// systemd's drop-ins of ours for the slices: path and text, as far as they exist.
    pub drop_ins: BTreeMap<String, String>,
    /// Those of them, by path, of which systemd has not carried out the last change: who made it was killed.
    pub unread: BTreeSet<String>,
    /// The slices as systemd has them, where they are systemd's and somebody asked.
    pub units: BTreeMap<GroupPath, SliceUnit>,
    /// systemd's version, where a slice is in no file and somebody asked.
    pub systemd: Option<u32>,
}

impl Survey {
    /// The state of `group`, if it exists.
    pub fn group(&self, group: &GroupPath) -> Option<&GroupState> {
        self.groups.get(group)
    }
}
