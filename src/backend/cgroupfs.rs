//! Carries a plan out by writing control files of cgroup v2.
//!
//! Every value is read back. When a step fails, the steps before it are undone in reverse order and the error says
//! what, where and why; nothing is left half-done.
//!
//! The crate cgroups-rs is not used for any of this: its `Cgroup::new` enables every controller in the hierarchy's
//! root and ignores the errors, it opens control files with O_CREAT (a missing file then reads as "permission
//! denied"), and it knows neither `CLONE_INTO_CGROUP` nor memory.oom.group nor event files.

use super::slices;
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::survey::{ENABLED, MADE};
use crate::kernel::{Group, Tree, process};
use crate::limits::KnobId;
use crate::plan::equal::same;
use crate::plan::identity::Identity;
use crate::plan::path::{GroupPath, SessionName};
use crate::plan::step::{SUBTREE_CONTROL, Step, signed};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// How long a killed group may take to become empty: core dumps and uninterruptible sleeps end late.
const KILL_DEADLINE: Duration = Duration::from_secs(60);

/// A step that failed, and what became of the ones before it.
#[derive(Debug)]
pub struct Failure {
    /// Why the step failed.
    pub error: StepError,
    /// Undo steps that failed too: what is left behind.
    pub left: Vec<String>,
}

/// Why a step failed.
#[derive(Debug)]
pub enum StepError {
    /// The kernel refused.
    Kernel(KernelError),
    /// systemd refused.
    Systemd(slices::SystemdError),
}

impl From<KernelError> for StepError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Systemd(error) => error.fmt(f),
        }
    }
}

impl StepError {
    /// One line of remedy.
    pub fn help(&self) -> String {
        match self {
            Self::Kernel(error) => error.help().to_owned(),
            Self::Systemd(error) => error.help.clone(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        for left in &self.left {
            write!(f, "; could not undo: {left}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        Self {
            error: error.into(),
            left: Vec::new(),
        }
    }
}

/// What a written control file held afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The group.
    pub group: GroupPath,
    /// The knob.
    pub knob: KnobId,
    /// What was written.
    pub wanted: String,
    /// What the file then held.
    pub found: String,
}

/// Keeps a session from being swept while it is held; `None` where somebody else is in charge of it.
pub type Guard<'a> = &'a dyn Fn(&SessionName) -> Option<Box<dyn Send>>;

/// The backend.
pub struct Cgroupfs<'a> {
    tree: &'a Tree,
    page_size: u64,
    guard: Guard<'a>,
    open: HashMap<GroupPath, Group>,
    done: Vec<Step>,
    /// What was written so far.
    pub written: Vec<Written>,
}

impl<'a> Cgroupfs<'a> {
    /// A backend on `tree`.
    pub fn new(tree: &'a Tree, page_size: u64, guard: Guard<'a>) -> Self {
        Self {
            tree,
            page_size,
            guard,
            open: HashMap::new(),
            done: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Carries out `steps`; on failure everything done since this backend was made is undone.
    pub fn carry_out(&mut self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            match self.step(step) {
                Ok(true) => self.done.push(step.clone()),
                Ok(false) => {}
                Err(error) => {
                    return Err(Failure {
                        error,
                        left: self.roll_back(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Undoes everything done so far, the last first. Returns what could not be undone.
    pub fn roll_back(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        for step in std::mem::take(&mut self.done).iter().rev() {
            if let Some(undo) = step.undo()
                && let Err(error) = self.step(&undo)
            {
                left.push(format!("{} ({error})", undo.line(self.tree.mount())));
            }
        }
        left
    }

    /// The opened group, which a step may have made.
    pub fn take(&mut self, group: &GroupPath) -> Result<Group, KernelError> {
        match self.open.remove(group) {
            Some(found) => Ok(found),
            None => self.tree.group(group),
        }
    }

    fn group(&mut self, path: &GroupPath) -> Result<&Group, KernelError> {
        if !self.open.contains_key(path) {
            let group = self.tree.group(path)?;
            self.open.insert(path.clone(), group);
        }
        Ok(&self.open[path])
    }

    /// One step. `false`: there was nothing to do, so there is nothing to undo.
    fn step(&mut self, step: &Step) -> Result<bool, StepError> {
        match step {
            Step::MakeGroup { group } => Ok(self.make(group)?),
            Step::Identify { group, identity } => {
                self.group(group)?.mark(Identity::KEY, identity)?;
                Ok(true)
            }
            Step::MoveAll { from, to } => {
                let target = self.tree.group(to)?;
                Ok(move_all(self.group(from)?, &target)?)
            }
            Step::Enable {
                group,
                controllers,
                remembered,
            } => {
                let target = self.group(group)?;
                enable(target, &signed('+', controllers))?;
                let mut names: Vec<&str> = remembered
                    .as_deref()
                    .unwrap_or("")
                    .split_ascii_whitespace()
                    .collect();
                names.extend(
                    controllers
                        .iter()
                        .map(|c| c.name())
                        .filter(|c| !remembered.as_deref().unwrap_or("").contains(c)),
                );
                target.mark(ENABLED, &names.join(" "))?;
                Ok(true)
            }
            Step::Disable { group, controllers } => Ok(disable(self.group(group)?, controllers)?),
            Step::Unmark { group } => {
                self.group(group)?.unmark(ENABLED)?;
                Ok(true)
            }
            Step::Write {
                group, knob, value, ..
            } => {
                self.write(group, *knob, value)?;
                Ok(true)
            }
            Step::Kill { group } => {
                if let Some(target) = self.tree.find(group)? {
                    kill_and_wait(&target, KILL_DEADLINE)?;
                }
                Ok(true)
            }
            Step::RemoveGroup { group } => {
                self.open.remove(group);
                Ok(self.remove(group)?)
            }
            Step::DropIn { path, text, .. } => {
                slices::write_drop_in(path, text.as_deref()).map_err(StepError::Systemd)?;
                Ok(true)
            }
            Step::Reload { units } => {
                slices::reload(units).map_err(StepError::Systemd)?;
                Ok(true)
            }
        }
    }

    fn make(&mut self, path: &GroupPath) -> Result<bool, KernelError> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(false);
        };
        let is_session = SessionName::of_directory(name).is_some();
        let name = name.to_owned();
        let made = match self.group(&parent)?.make_child(&name) {
            // Somebody else made the slice between our look and now, or left it unmarked: two that converge at once.
            Err(e) if e.errno == Errno::EXIST && !is_session => None,
            other => Some(other?),
        };
        let fresh = made.is_some();
        let group = match made {
            Some(group) => group,
            None => self.tree.group(path)?,
        };
        // A session's own mark is its identity, set by the next step.
        if !is_session && group.marked(MADE).is_none() {
            let marked = group.mark(MADE, "1");
            if let (Err(error), true) = (&marked, fresh) {
                let _ = self.group(&parent)?.remove_child(&name);
                return Err(error.clone());
            }
            marked?;
        }
        self.open.insert(path.clone(), group);
        Ok(fresh)
    }

    fn write(&mut self, path: &GroupPath, knob: KnobId, value: &str) -> Result<(), KernelError> {
        let page_size = self.page_size;
        let file = knob.knob().file.unwrap_or_default();
        let group = self.group(path)?;
        let found = group.write_and_read_back(file, value)?;
        if !same(knob.knob(), value, &found, page_size) {
            return Err(KernelError::new(Doing::ReadBack, group.file(file), Errno::INVAL)
                .with_value(value)
                .with_detail(format!("it holds {}", found.lines().next().unwrap_or(""))));
        }
        let found = found.lines().next().unwrap_or("").to_owned();
        self.written.push(Written {
            group: path.clone(),
            knob,
            wanted: value.to_owned(),
            found,
        });
        Ok(())
    }

    fn remove(&mut self, path: &GroupPath) -> Result<bool, KernelError> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(false);
        };
        let _held = match SessionName::of_directory(name) {
            // A session may be attended by the cgmgr that made it; it removes the group itself when it ends.
            Some(session) => match self.wait_for(&session, path)? {
                Some(held) => Some(held),
                None => return Ok(false),
            },
            None => None,
        };
        let name = name.to_owned();
        match self.tree.find(&parent)? {
            Some(group) => group.remove_child(&name)?,
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Waits for the right to remove a session's group. `None`: it is gone meanwhile.
    fn wait_for(
        &self,
        session: &SessionName,
        path: &GroupPath,
    ) -> Result<Option<Box<dyn Send>>, KernelError> {
        for _ in 0..500 {
            if self.tree.find(path)?.is_none() {
                return Ok(None);
            }
            if let Some(held) = (self.guard)(session) {
                return Ok(Some(held));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(
            KernelError::new(Doing::RemoveGroup, self.tree.display(path), Errno::BUSY)
                .with_detail("a cgmgr process is in charge of it"),
        )
    }
}

/// Enables controllers. The kernel may say EBUSY for a moment after the last process left (cgroup migration ends
/// asynchronously), so that is tried again while the group is seen to be empty.
pub(super) fn enable(group: &Group, text: &str) -> Result<(), KernelError> {
    for attempt in 0.. {
        match group.write(SUBTREE_CONTROL, text) {
            Err(e) if e.errno == Errno::BUSY => {
                let procs = group.procs()?;
                if !procs.is_empty() || attempt >= 50 {
                    let who: Vec<String> = procs.iter().take(8).map(|pid| process::describe(*pid)).collect();
                    return Err(e.with_detail(who.join(", ")));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e),
            Ok(()) => break,
        }
    }
    // Enabling cpu, pids or cpuset in a group that holds a process succeeds and makes it threaded: every later launch
    // below it would fail. It was empty when planned; make sure it stayed so.
    let kind = group.get("cgroup.type")?.unwrap_or_default();
    if matches!(kind.as_str(), "" | "domain") {
        return Ok(());
    }
    Err(
        KernelError::new(Doing::ReadBack, group.file("cgroup.type"), Errno::OPNOTSUPP)
            .with_value(text)
            .with_detail(format!(
                "a process entered meanwhile and the group became `{kind}`"
            )),
    )
}

/// Disables controllers; one that another child still uses stays (EBUSY), which is then not ours to take away.
fn disable(group: &Group, controllers: &[crate::limits::Controller]) -> Result<bool, KernelError> {
    match group.write(SUBTREE_CONTROL, &signed('-', controllers)) {
        Ok(()) => Ok(true),
        Err(e) if e.errno == Errno::BUSY => {
            for controller in controllers {
                match group.write(SUBTREE_CONTROL, &signed('-', &[*controller])) {
                    Err(e) if e.errno != Errno::BUSY => return Err(e),
                    _ => {}
                }
            }
            Ok(true)
        }
        Err(e) => Err(e),
    }
}

fn move_all(from: &Group, to: &Group) -> Result<bool, KernelError> {
    let mut moved = false;
    // Processes may fork while they are moved; each round takes those of the round before along.
    for _ in 0..100 {
        let procs = from.procs()?;
        if procs.is_empty() {
            return Ok(moved);
        }
        for pid in procs {
            if pid == 0 {
                return Err(
                    KernelError::new(Doing::Move, to.file("cgroup.procs"), Errno::SRCH)
                        .with_value("0")
                        .with_detail("a process of another pid namespace sits in the group"),
                );
            }
            match to.write("cgroup.procs", &pid.to_string()) {
                Ok(()) => moved = true,
                Err(e) if e.errno == Errno::SRCH => {}
                Err(e) => {
                    return Err(KernelError {
                        doing: Doing::Move,
                        ..e
                    }
                    .with_detail(process::describe(pid)));
                }
            }
        }
    }
    let who: Vec<String> = from
        .procs()?
        .iter()
        .take(8)
        .map(|pid| process::describe(*pid))
        .collect();
    Err(KernelError::new(Doing::Move, to.file("cgroup.procs"), Errno::BUSY).with_detail(who.join(", ")))
}

/// Kills everything in and below a group and waits until it is empty. A group that is gone is empty.
pub fn kill_and_wait(group: &Group, deadline: Duration) -> Result<(), KernelError> {
    match group.kill() {
        Err(e) if e.is_gone() => return Ok(()),
        other => other?,
    }
    group.wait_empty(deadline)
}
