//! Carries a plan out by writing control files of cgroup v2.
//!
//! Every value is read back. When a step fails, what it did so far and the steps before it are undone in reverse order
//! and the error says what, where and why; nothing is left half-done. What was there already is not undone: the journal
//! says what was really done, and is written before each change.
//!
//! The crate cgroups-rs is not used for any of this: its `Cgroup::new` enables every controller in the hierarchy's
//! root and ignores the errors, it opens control files with O_CREAT (a missing file then reads as "permission
//! denied"), and it knows neither `CLONE_INTO_CGROUP` nor memory.oom.group nor event files.

use super::failure::{Failure, StepError};
use super::journal::Undo;
use super::{limit, slices};
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::survey::{self, ENABLED, MADE};
use crate::kernel::{Group, Tree, process};
use crate::limits::{Controller, KnobId};
use crate::path::{GroupPath, SessionName};
use crate::plan::equal::same;
use crate::plan::identity::Identity;
use crate::plan::step::{SUBTREE_CONTROL, Step, signed};
use crate::plan::unit;
use crate::systemd::Reason;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a killed group may take to become empty: core dumps and uninterruptible sleeps end late.
const KILL_DEADLINE: Duration = Duration::from_secs(60);
/// How long `cgroup.kill` has before the processes that it does not reach are killed one by one.
const KILL_ROUND: Duration = Duration::from_millis(100);
/// How long the cgmgr in charge of a killed session has to account for it and to remove its group.
const PUT_AWAY: Duration = Duration::from_secs(5);
/// How long a group may take to be gone whose files are gone already.
const GOING: Duration = Duration::from_secs(5);
/// How often a long wait is told.
pub const PROGRESS: Duration = Duration::from_secs(2);

/// Told of a wait that takes long.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

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

/// What is done with a session's group before it goes.
type Last<'a> = &'a dyn Fn(&SessionName, &Group);

/// The backend.
pub struct Cgroupfs<'a> {
    tree: &'a Tree,
    page_size: u64,
    guard: Guard<'a>,
    tell: Option<&'a dyn Fn(&str)>,
    last: Option<Last<'a>>,
    open: BTreeMap<GroupPath, Group>,
    /// Sessions that a step killed: the group by its id.
    killed: BTreeMap<GroupPath, u64>,
    journal: Vec<Undo>,
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
            tell: None,
            last: None,
            open: BTreeMap::new(),
            killed: BTreeMap::new(),
            journal: Vec::new(),
            written: Vec::new(),
        }
    }

    /// The same, with somebody who is told of long waits and of what a user should know.
    pub fn telling(mut self, tell: &'a dyn Fn(&str)) -> Self {
        self.tell = Some(tell);
        self
    }

    /// The same, with somebody who is shown the group of a session that nobody is in charge of, the moment before it goes.
    pub fn burying(mut self, last: Last<'a>) -> Self {
        self.last = Some(last);
        self
    }

    fn tell(&self, text: &str) {
        if let Some(tell) = self.tell {
            tell(text);
        }
    }

    /// Carries out `steps`; on failure everything done since this backend was made is undone.
    pub fn carry_out(&mut self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            if let Err(error) = self.step(step) {
                return Err(Failure {
                    error,
                    left: self.roll_back(),
                });
            }
        }
        Ok(())
    }

    /// Undoes everything done so far, the last first. Returns what could not be undone.
    pub fn roll_back(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        let mut reload = Vec::new();
        for undo in std::mem::take(&mut self.journal).into_iter().rev() {
            // systemd reads whatever the files hold then: it is asked once they hold what they held before.
            if let Undo::Reloaded(units) = undo {
                reload.extend(units);
                continue;
            }
            match self.take_back(&undo, !reload.is_empty()) {
                Err(StepError::Kernel(e)) if e.is_gone() => {}
                Err(error) => left.push(format!("{} ({error})", undo.line(self.tree))),
                Ok(()) => {}
            }
        }
        if !reload.is_empty()
            && let Err(error) = slices::reload(&reload)
        {
            left.push(format!("{} ({error})", Undo::Reloaded(reload).line(self.tree)));
        }
        // What took something back is not itself to be taken back.
        self.journal.clear();
        left
    }

    fn take_back(&mut self, undo: &Undo, reloaded: bool) -> Result<(), StepError> {
        match undo {
            Undo::Made(group) => {
                self.open.remove(group);
                self.remove(group)?;
            }
            Undo::MarkedMade(group) => self.group(group)?.unmark(MADE)?,
            Undo::Moved { from, to, stay } => {
                let target = self.tree.group(from)?;
                move_all(self.group(to)?, &target, stay)?;
            }
            Undo::Enabled {
                group,
                controllers,
                remembered,
            } => {
                let target = self.group(group)?;
                disable(target, controllers)?;
                // One that somebody uses meanwhile stays on, and stays remembered: `down` takes it away later.
                let on = enabled(target)?;
                let still = controllers.iter().filter(|c| on.contains(c)).copied();
                match remember(remembered.as_deref(), still) {
                    None => target.unmark(ENABLED)?,
                    Some(names) => target.mark(ENABLED, &names)?,
                }
            }
            Undo::Disabled { group, controllers } => self.enable(group, controllers)?,
            Undo::Unmarked { group, names } => self.group(group)?.mark(ENABLED, names)?,
            Undo::Wrote { group, knob, before } => {
                let page_size = self.page_size;
                let file = knob.knob().file.unwrap_or_default();
                // A write that the kernel refused changed nothing, and the same refusal would meet its undo.
                let found = self.group(group)?.read(file)?;
                if !same(knob.knob(), before, found.trim_end(), page_size) {
                    self.write(group, *knob, before)?;
                }
            }
            Undo::DropIn { path, before, unread } => {
                let before = before.as_deref();
                let done = if reloaded {
                    slices::change_drop_in(path, before)
                } else {
                    slices::unchange_drop_in(path, before, *unread)
                };
                done.map_err(StepError::Systemd)?;
            }
            Undo::Reloaded(_) => {}
            Undo::Started { unit } => slices::stop(unit)?,
            Undo::Set { unit, before } => slices::set_properties(unit, before)?,
            Undo::Stopped { unit, properties } => slices::start_transient(unit, properties)?,
        }
        Ok(())
    }

    /// Takes a group that is open already.
    pub fn keep(&mut self, path: GroupPath, group: Group) {
        self.open.insert(path, group);
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

    /// One step. Each change is in the journal before it is made.
    fn step(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::MakeGroup { group } => self.make(group)?,
            Step::Identify { group, identity } => self.group(group)?.mark(Identity::KEY, identity)?,
            Step::MoveAll { from, to } => {
                let target = self.tree.group(to)?;
                self.journal.push(Undo::Moved {
                    from: from.clone(),
                    to: to.clone(),
                    stay: target.procs()?,
                });
                move_all(self.group(from)?, &target, &[])?;
            }
            Step::Enable {
                group, controllers, ..
            } => self.enable(group, controllers)?,
            Step::Disable { group, controllers } => {
                let target = self.tree.group(group)?;
                let on = enabled(&target)?;
                let controllers: Vec<_> = controllers.iter().filter(|c| on.contains(c)).copied().collect();
                self.journal.push(Undo::Disabled {
                    group: group.clone(),
                    controllers: controllers.clone(),
                });
                disable(&target, &controllers)?;
            }
            Step::Unmark { group } => {
                let target = self.tree.group(group)?;
                if let Some(names) = target.try_marked(ENABLED)? {
                    self.journal.push(Undo::Unmarked {
                        group: group.clone(),
                        names,
                    });
                    target.unmark(ENABLED)?;
                }
            }
            Step::Write {
                group,
                knob,
                value,
                before,
            } => self.converge(group, *knob, value, before.as_deref())?,
            Step::Kill { group } => {
                if let Some(target) = self.tree.find(group)? {
                    self.killed.insert(group.clone(), target.id()?);
                    let name = group.name().unwrap_or_default();
                    let name = SessionName::of_group(group).map_or(name.to_owned(), |n| n.to_string());
                    kill_and_tell(&target, KILL_DEADLINE, &mut |text| {
                        self.tell(&format!("{name}: {text}"));
                    })?;
                }
            }
            Step::RemoveGroup { group } => {
                self.open.remove(group);
                match SessionName::of_group(group) {
                    Some(session) => self.remove_session(&session, group)?,
                    None => self.remove(group)?,
                }
            }
            Step::DropIn { path, text, before } => {
                self.journal.push(Undo::DropIn {
                    path: path.clone(),
                    before: before.clone(),
                    unread: slices::is_unread(path),
                });
                slices::change_drop_in(path, text.as_deref()).map_err(StepError::Systemd)?;
            }
            Step::Reload { units } => {
                self.journal.push(Undo::Reloaded(units.clone()));
                slices::reload(units).map_err(StepError::Systemd)?;
            }
            Step::StartTransient {
                unit,
                properties,
                before,
            } => {
                self.journal.push(match before {
                    None => Undo::Started { unit: unit.clone() },
                    Some(before) => Undo::Set {
                        unit: unit.clone(),
                        before: before.clone(),
                    },
                });
                let started = slices::start_transient(unit, properties);
                // One that is there already is somebody else's.
                if started.as_ref().is_err_and(|e| e.reason == Reason::UnitExists) {
                    self.journal.pop();
                }
                started?;
            }
            Step::SetProperties {
                unit,
                properties,
                before,
            } => {
                self.journal.push(Undo::Set {
                    unit: unit.clone(),
                    before: before.clone(),
                });
                slices::set_properties(unit, properties)?;
            }
            Step::StopUnit { unit, properties } => {
                self.journal.push(Undo::Stopped {
                    unit: unit.clone(),
                    properties: properties.clone(),
                });
                slices::stop(unit)?;
            }
        }
        Ok(())
    }

    fn make(&mut self, path: &GroupPath) -> Result<(), KernelError> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(());
        };
        let is_session = SessionName::of_group(path).is_some();
        let group = match self.group(&parent)?.make_child(name) {
            // Somebody else made the slice between our look and now, or left it unmarked: two that converge at once.
            Err(e) if e.errno == Errno::EXIST && !is_session => self.tree.group(path)?,
            Err(e) if e.errno == Errno::AGAIN => {
                return Err(match survey::full(self.tree, &parent) {
                    Some(limit) => e.with_detail(limit),
                    None => e,
                });
            }
            other => {
                let made = other?;
                self.journal.push(Undo::Made(path.clone()));
                made
            }
        };
        // A session's own mark is its identity, set by the next step.
        if !is_session && group.marked(MADE).is_none() {
            self.journal.push(Undo::MarkedMade(path.clone()));
            group.mark(MADE, "1")?;
        }
        self.open.insert(path.clone(), group);
        Ok(())
    }

    /// The mark comes first: a controller that is on without it would stay on for ever.
    fn enable(&mut self, path: &GroupPath, controllers: &[Controller]) -> Result<(), KernelError> {
        let group = self.tree.group(path)?;
        let on = enabled(&group)?;
        // What somebody switched on since the plan was made is his.
        let off: Vec<Controller> = controllers.iter().filter(|c| !on.contains(c)).copied().collect();
        if off.is_empty() {
            return Ok(());
        }
        let remembered = group.try_marked(ENABLED)?;
        let names = remember(remembered.as_deref(), off.iter().copied()).unwrap_or_default();
        self.journal.push(Undo::Enabled {
            group: path.clone(),
            controllers: off.clone(),
            remembered,
        });
        group.mark(ENABLED, &names)?;
        enable(&group, &signed('+', &off))
    }

    /// A write of a plan. A live session that ended since the plan was made needs none; where its group is new, this
    /// launch made it and it must be there.
    fn converge(
        &mut self,
        path: &GroupPath,
        knob: KnobId,
        value: &str,
        before: Option<&str>,
    ) -> Result<(), StepError> {
        let Some(before) = before else {
            return self.write(path, knob, value);
        };
        self.journal.push(Undo::Wrote {
            group: path.clone(),
            knob,
            before: before.lines().next().unwrap_or("").to_owned(),
        });
        match self.write(path, knob, value) {
            Err(e) if e.is_gone() && is_session(path) && self.goes_away(path) => Ok(()),
            other => other,
        }
    }

    /// Whether the group is there and is still the one that this backend opened.
    fn is_there(&self, path: &GroupPath) -> bool {
        let Ok(Some(now)) = self.tree.find(path) else {
            return false;
        };
        self.open.get(path).is_none_or(|open| open.id() == now.id())
    }

    /// Whether the group is gone, or goes just now: the kernel takes a group's files away before its name.
    fn goes_away(&self, path: &GroupPath) -> bool {
        let begun = Instant::now();
        while self.is_there(path) {
            if begun.elapsed() > GOING {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn write(&mut self, path: &GroupPath, knob: KnobId, value: &str) -> Result<(), StepError> {
        let page_size = self.page_size;
        let file = knob.knob().file.unwrap_or_default();
        let group = self.group(path)?;
        let found = if limit::is_systemds(group, knob) {
            limit::write(group, path, knob, value)?;
            group.get(file)?.unwrap_or_default()
        } else {
            group.write_and_read_back(file, value)?
        };
        // What a version of systemd rounds is foretold, and told; it is no failure.
        let rounded = unit::rounded(value, unit::ROUNDS).filter(|_| group.is_on_scope(file));
        if !same(knob.knob(), value, &found, page_size) && rounded.as_deref() != Some(found.trim_end()) {
            return Err(KernelError::new(Doing::ReadBack, group.file(file), Errno::INVAL)
                .with_value(value)
                .with_detail(format!("it holds {}", found.lines().next().unwrap_or("")))
                .into());
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

    fn remove(&self, path: &GroupPath) -> Result<(), KernelError> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(());
        };
        match self.tree.find(&parent)? {
            Some(parent) if is_session(path) => parent.remove_session(name),
            Some(parent) => parent.remove_child(name),
            None => Ok(()),
        }
    }

    /// Removes a session's group: one that a step killed, or debris. What looked like debris and is in use now is a
    /// session that was launched under the same name meanwhile.
    fn remove_session(&self, session: &SessionName, path: &GroupPath) -> Result<(), KernelError> {
        let held = match self.killed.get(path) {
            Some(id) => {
                let Some(held) = self.wait_until_removable(session, path, *id)? else {
                    return Ok(());
                };
                held
            }
            None => {
                let Some(held) = (self.guard)(session) else {
                    return Ok(());
                };
                match self.tree.find(path)? {
                    Some(group) if !group.populated()? && !survey::is_foreign(&group)? => Some(held),
                    _ => return Ok(()),
                }
            }
        };
        if held.is_some()
            && let Some(last) = self.last
            && let Some(group) = self.tree.find(path)?
        {
            last(session, &group);
        }
        self.remove(path)
    }

    /// The cgmgr in charge of a killed session accounts for it and removes its group, if it gets to it. `None`: it
    /// did. `Some` has the session's lock, where that could be had. A group that is still there after some time goes
    /// without it, and at once where it is stopped: the group is empty, so nothing is lost but the account.
    fn wait_until_removable(
        &self,
        session: &SessionName,
        path: &GroupPath,
        id: u64,
    ) -> Result<Option<Option<Box<dyn Send>>>, KernelError> {
        let started = Instant::now();
        loop {
            // Another group under this name is another session.
            let group = match self.tree.find(path)? {
                Some(group) if group.id()? == id => group,
                _ => return Ok(None),
            };
            if let Some(held) = (self.guard)(session) {
                return Ok(Some(Some(held)));
            }
            let supervisor = survey::identity(&group).map(|i| i.supervisor);
            if let Some(pid) = supervisor.filter(|pid| process::is_stopped(*pid)) {
                self.tell(&format!(
                    "{session}: the cgmgr in charge of it is stopped ({}): its group is removed without it",
                    process::describe(pid)
                ));
                return Ok(Some(None));
            }
            if started.elapsed() > PUT_AWAY {
                return Ok(Some(None));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn is_session(path: &GroupPath) -> bool {
    SessionName::of_group(path).is_some()
}

/// The controllers that are on for a group's children, as far as cgmgr knows them. Every group has this file: that it is
/// not there does not say that nothing is on.
fn enabled(group: &Group) -> Result<Vec<Controller>, KernelError> {
    let text = group.read(SUBTREE_CONTROL)?;
    let on: Vec<&str> = text.split_ascii_whitespace().collect();
    Ok(Controller::ALL
        .into_iter()
        .filter(|c| on.contains(&c.name()))
        .collect())
}

/// What the mark remembers of the controllers that cgmgr enabled, with some more. `None`: nothing.
fn remember(before: Option<&str>, more: impl Iterator<Item = Controller>) -> Option<String> {
    let mut names: Vec<&str> = before.unwrap_or("").split_ascii_whitespace().collect();
    for controller in more {
        if !names.contains(&controller.name()) {
            names.push(controller.name());
        }
    }
    (!names.is_empty()).then(|| names.join(" "))
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
fn disable(group: &Group, controllers: &[Controller]) -> Result<(), KernelError> {
    if controllers.is_empty() {
        return Ok(());
    }
    match group.write(SUBTREE_CONTROL, &signed('-', controllers)) {
        Err(e) if e.errno == Errno::BUSY => {
            for controller in controllers {
                match group.write(SUBTREE_CONTROL, &signed('-', &[*controller])) {
                    Err(e) if e.errno != Errno::BUSY => return Err(e),
                    _ => {}
                }
            }
            Ok(())
        }
        other => other,
    }
}

/// Moves every process but those in `stay`.
fn move_all(from: &Group, to: &Group, stay: &[i32]) -> Result<(), KernelError> {
    let movable = || -> Result<Vec<i32>, KernelError> {
        let mut procs = from.procs()?;
        procs.retain(|pid| !stay.contains(pid));
        Ok(procs)
    };
    // Processes may fork while they are moved; each round takes those of the round before along.
    for _ in 0..100 {
        let procs = movable()?;
        if procs.is_empty() {
            return Ok(());
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
                Ok(()) => {}
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
    let who: Vec<String> = movable()?
        .iter()
        .take(8)
        .map(|pid| process::describe(*pid))
        .collect();
    Err(KernelError::new(Doing::Move, to.file("cgroup.procs"), Errno::BUSY).with_detail(who.join(", ")))
}

/// Kills everything in and below a group and waits until it is empty. A group that is gone is empty.
pub fn kill_and_wait(group: &Group, deadline: Duration) -> Result<(), KernelError> {
    kill_and_tell(group, deadline, &mut |_| {})
}

/// The same, with somebody who is told when it takes long.
pub fn kill_and_tell(group: &Group, deadline: Duration, progress: Progress<'_>) -> Result<(), KernelError> {
    match group.kill() {
        // The group is gone, or has no such file (before Linux 5.14): which of the two is seen below.
        Err(e) if e.is_gone() => group.kill_each()?,
        other => other?,
    }
    let started = Instant::now();
    let mut tell_at = PROGRESS;
    let mut before = None;
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        if group.is_empty_within(left.min(KILL_ROUND))? {
            return Ok(());
        }
        if left.is_zero() {
            return group.wait_empty(left);
        }
        if started.elapsed() >= tell_at {
            tell_at += PROGRESS;
            progress(&format!(
                "waiting for processes to die: {}",
                group.describe_some()?
            ));
        }
        // As long as they get fewer, going through all of them would only keep the processor from those that die.
        let now = group.tasks();
        if now.is_none() || now >= before && before.is_some() {
            group.kill_each()?;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_grows_by_what_is_new() {
        let more = || [Controller::Cpu, Controller::Memory].into_iter();
        assert_eq!(remember(None, more()).as_deref(), Some("cpu memory"));
        // `cpu` is part of another name, and not in the list.
        assert_eq!(
            remember(Some("cpuset memory"), more()).as_deref(),
            Some("cpuset memory cpu")
        );
        assert_eq!(remember(Some(" "), [].into_iter()), None);
    }
}
