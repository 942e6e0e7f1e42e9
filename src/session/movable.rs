//! Who may be moved into a session, and who must not be.

use crate::host::Base;
use crate::kernel::held::{self, Held};
use crate::kernel::{KernelError, Tree, process, survey};
use crate::path::{GroupPath, SessionName};
use std::collections::BTreeMap;

/// Why a process is not moved, and what can be done about that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Why.
    pub(super) why: String,
    /// One line of remedy.
    pub(super) help: String,
    /// Whether it is in a session already, or in charge of one, where it is to stay.
    pub(super) of_a_session: bool,
}

fn refusal(why: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal {
        why: why.into(),
        help: help.into(),
        of_a_session: false,
    }
}

/// The rules, and what they are decided by.
pub(super) struct Rules<'a> {
    tree: &'a Tree,
    base: &'a Base,
    force: bool,
    /// The processes in charge of live sessions, by pid.
    in_charge: BTreeMap<i32, SessionName>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(tree: &'a Tree, base: &'a Base, force: bool) -> Result<Self, KernelError> {
        let mut in_charge = BTreeMap::new();
        for entry in survey::session_groups(tree, base)? {
            let (name, _, group) = entry?;
            let identity = survey::identity(&group).filter(survey::maker_lives);
            in_charge.extend(identity.map(|identity| (identity.supervisor, name)));
        }
        Ok(Self {
            tree,
            base,
            force,
            in_charge,
        })
    }

    /// The group that a process is in, or why it must not be moved out of it.
    pub(super) fn may_move(&self, process: &Held) -> Result<GroupPath, Refusal> {
        let pid = process.pid;
        let look = "`cgmgr status` lists the sessions";
        if pid == std::process::id() as i32 {
            return Err(refusal("it is this cgmgr itself", "name other processes"));
        }
        if pid == 1 {
            return Err(refusal(
                "it is the machine's first process, whose end is the end of all",
                "name what it started",
            ));
        }
        if held::is_kernel_thread(pid) {
            return Err(refusal(
                "it is a kernel thread, which the kernel does not let be moved",
                "name processes of programs",
            ));
        }
        if process::stat(pid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X')) {
            return Err(refusal(
                "it has ended, or its main thread has: where it is could not be verified",
                "name processes that run",
            ));
        }
        let Some(group) = process::group_of(pid).and_then(|group| GroupPath::new(&group)) else {
            return Err(refusal(
                "its group cannot be seen from here",
                "run cgmgr outside of this container",
            ));
        };
        if let Some(session) = self.base.session_of(&group) {
            let of_a_session = true;
            let refusal = refusal(format!("it is in session {session} already"), look);
            return Err(Refusal {
                of_a_session,
                ..refusal
            });
        }
        if let Some(session) = self.in_charge.get(&pid) {
            let of_a_session = true;
            let why = format!("it is the cgmgr in charge of session {session}, and must stay outside of any");
            return Err(Refusal {
                of_a_session,
                ..refusal(why, look)
            });
        }
        if self.base.agent.contains(&group) && !self.force {
            return Err(refusal(
                format!(
                    "it is in {}, and so a part of the agent, which is protected",
                    self.base.agent
                ),
                "--force takes it out of there",
            ));
        }
        if let Some(unit) = unit_of(&group)
            && !self.force
            && self.is_main(process, &group, unit)
        {
            return Err(refusal(
                format!("it is the main process of {unit}, and systemd would lose sight of it"),
                format!(
                    "limit the unit itself: `systemctl edit {unit}` and there, below [Service], Slice=workloads.slice and \
                     e.g. MemoryMax=8G; or --force"
                ),
            ));
        }
        match self.allowed(process, &group) {
            Ok(()) => Ok(group),
            Err(error) => Err(refusal(error.to_string(), error.help())),
        }
    }

    /// Whether systemd started the process as what the unit is there for: its parent is a systemd, the machine's or the
    /// user's, and it is the first such in the unit. Whoever else is a child of systemd there has lost its parent.
    fn is_main(&self, process: &Held, group: &GroupPath, unit: &str) -> bool {
        if unit == "init.scope" {
            return true;
        }
        if !unit.ends_with(".service") || !is_started_by_systemd(process.pid) {
            return false;
        }
        let beside = self.tree.group(group).and_then(|group| group.procs());
        let older = |pid: i32| {
            let start = process::start_time(pid).filter(|_| is_started_by_systemd(pid));
            start.is_some_and(|start| (start, pid) < (process.start, process.pid))
        };
        !beside.unwrap_or_default().into_iter().any(older)
    }

    /// Whether this process may move others from there to a session: that takes the right to write to the cgroup.procs of
    /// the nearest group that is above both (cgroup-v2.rst, "Delegation Containment"). A user's own systemd has any process
    /// that is all his moved to a scope of its (org.freedesktop.systemd1, `AttachProcessesToUnit`).
    fn allowed(&self, process: &Held, from: &GroupPath) -> Result<(), KernelError> {
        let own = rustix::process::geteuid().as_raw();
        if self.base.is_users() && held::owner(process.pid).is_some_and(|owner| owner.uid == own) {
            return Ok(());
        }
        let common = from.ancestors().find(|path| path.contains(&self.base.sessions));
        let common = common.unwrap_or_else(GroupPath::root);
        held::may_move_through(&self.tree.group(&common)?).map_err(|error| {
            error.with_detail(format!(
                "a move from {from} to a session is a matter of {common}, which is above both"
            ))
        })
    }
}

/// Whether a process's parent is a systemd, the machine's or a user's.
pub(super) fn is_started_by_systemd(pid: i32) -> bool {
    let parent = held::parent(pid);
    parent.is_some_and(|p| p == 1 || process::comm(p).as_deref() == Some("systemd"))
}

/// The systemd unit that a group belongs to: the nearest name at or above it that is a service's or a scope's.
pub(super) fn unit_of(group: &GroupPath) -> Option<&str> {
    let mut names = group.as_str().rsplit('/');
    names.find(|name| name.ends_with(".service") || name.ends_with(".scope"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_unit_is_the_one() {
        let unit = |path: &str| unit_of(&GroupPath::new(path).unwrap()).map(str::to_owned);
        assert_eq!(unit("/system.slice/ssh.service").as_deref(), Some("ssh.service"));
        assert_eq!(
            unit("/user.slice/user-7.slice/user@7.service/app.slice/a.scope/x").as_deref(),
            Some("a.scope")
        );
        assert_eq!(unit("/"), None);
        assert_eq!(unit("/workloads.slice/x"), None);
    }
}
