//! Changes the limits of a session that runs, from outside.
//!
//! What the kernel holds and what is recorded on the session's group go together: every value is read back, and what is
//! in force then is what is recorded. There is nothing on the way that could stay behind: memory is taken back with
//! `memory.reclaim`, which changes no limit, before a lower one is written, so that the kernel need not kill for what it
//! could have taken back, and so that no single write takes long.

use crate::backend::failure::StepError;
use crate::backend::limit;
use crate::host::Host;
use crate::kernel::deadline::Within;
use crate::kernel::{Group, KernelError, Tree, survey};
use crate::limits::{KnobId, Setting};
use crate::path::GroupPath;
use crate::plan::equal::{number, same};
use crate::plan::identity::Identity;
use crate::plan::live::{MemoryNow, lowered_below_use};
use crate::plan::receipt::{Backend, Outcome, Receipt, of_read_back, predict};
use crate::plan::state::GroupState;
use crate::plan::{Plan, Step, unit};
use crate::session::view::Ceiling;
use rustix::io::Errno;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// Memory is taken back in pieces of this: each is one call that blocks.
const PIECE: u64 = 32 << 20;
/// Pieces that the kernel did not get before it counts as all that can be taken back.
const TRIES: u32 = 3;

/// A setting, and its text as the knob's grammar has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The setting, with a value.
    pub setting: Setting,
    /// The value as it was typed: it is recorded, so that a percentage stays one.
    pub typed: String,
}

/// What was not done, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Taking memory back, before anything was changed.
    Reclaim,
    /// The write of this knob.
    Write(KnobId),
    /// Everything: the session took more meanwhile than the new memory_max, and nobody said that it may be killed.
    Grown,
}

/// What became of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// What is in force, read from the kernel.
    pub receipt: Receipt,
    /// The knobs that were changed, and what their files held before.
    pub before: Vec<(KnobId, String)>,
    /// What was not done, or cut off by the deadline.
    pub cut: Option<Cut>,
    /// A process of cgmgr that the kernel does not let go yet: it is killed.
    pub stuck: Option<i32>,
    /// OOM kills in the session meanwhile.
    pub kills: Option<u64>,
    /// `memory.current` afterwards.
    pub current: Option<u64>,
    /// The session ended meanwhile, and its group is gone: what it held is not known.
    pub ended: bool,
    /// Why the change could not be recorded on the session's group, although it is in force.
    pub unrecorded: Option<String>,
}

/// What planning must know of a session's memory.
pub fn memory_now(tree: &Tree, group: &Group, path: &GroupPath, swap: bool) -> MemoryNow {
    let stat = group.counters("memory.stat").unwrap_or_default();
    let parts = ["active_file", "inactive_file", "slab_reclaimable"].map(|key| stat.get(key));
    MemoryNow {
        current: current(group),
        reclaimable: parts.into_iter().sum(),
        swap,
        // Of the scope around a leaf the limits are the session's own.
        ceiling: path
            .scope()
            .unwrap_or_else(|| path.clone())
            .parent()
            .and_then(|above| Ceiling::of(tree, &above).smallest()),
    }
}

/// The control files of a session's group, with what planning a change needs beside them.
///
/// # Errors
///
/// A file cannot be read.
pub fn state(group: &Group) -> Result<GroupState, KernelError> {
    let mut state = survey::state(group)?;
    if let Some(tasks) = group.get("pids.current")? {
        state.files.insert("pids.current", tasks);
    }
    Ok(state)
}

fn current(group: &Group) -> Option<u64> {
    group.get("memory.current").ok()??.parse().ok()
}

fn kills(group: &Group) -> Option<u64> {
    group.counters("memory.events").ok()?.get("oom_kill")
}

/// How far a change may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    /// Lower memory_max below what is in use.
    pub force: bool,
    /// When to cut off what takes long.
    pub timeout: Duration,
}

/// Carries out a plan of [`crate::plan::live`] on a session's group, and records what is in force.
///
/// # Errors
///
/// The kernel refused a value; those written before it were taken back.
pub fn change(
    (group, path): (&Group, &GroupPath),
    asked: &[Asked],
    plan: &Plan,
    host: &Host,
    How { force, timeout }: How,
) -> Result<Changed, StepError> {
    let started = Instant::now();
    let left = || timeout.saturating_sub(started.elapsed());
    let mut changed = Changed::default();
    let kills_before = kills(group);
    let eased = match lowered_below_use(plan, current(group)) {
        // What was found when it was planned is not true any more.
        Some(_) if !force => {
            changed.cut = Some(Cut::Grown);
            Within::Done
        }
        Some((max, _)) => ease(group, max, &left)?,
        None => Within::Done,
    };
    if eased != Within::Done {
        changed.cut = Some(Cut::Reclaim);
        changed.stuck = stuck(eased);
    }
    let refused = match changed.cut {
        None => write_all((group, path), &plan.steps, &left, &mut changed).err(),
        Some(_) => None,
    };
    changed.kills = kills(group)
        .zip(kills_before)
        .map(|(now, then)| now.saturating_sub(then));
    changed.current = current(group);
    let settled = settle((group, path), asked, host, &mut changed);
    match refused {
        Some(error) => Err(error),
        // What the kernel killed for the new limit may have been all there was.
        None if settled.as_ref().is_err_and(KernelError::is_gone) => Ok(Changed {
            ended: true,
            ..changed
        }),
        None => Ok(settled.map(|()| changed)?),
    }
}

fn stuck(within: Within) -> Option<i32> {
    match within {
        Within::Stuck(pid) => Some(pid),
        Within::Done | Within::Late => None,
    }
}

/// Takes memory back until the session holds no more than `max`, or the kernel finds nothing more.
fn ease(group: &Group, max: u64, left: &dyn Fn() -> Duration) -> Result<Within, KernelError> {
    let mut misses = 0;
    // One that takes memory as fast as it is taken back is not waited for: the limit itself ends that.
    let mut rounds = current(group).unwrap_or(0).saturating_sub(max) / PIECE * 2 + 8;
    while misses < TRIES && rounds > 0 {
        let excess = current(group).unwrap_or(0).saturating_sub(max);
        if excess == 0 {
            return Ok(Within::Done);
        }
        rounds -= 1;
        match group.write_within("memory.reclaim", &excess.min(PIECE).to_string(), left()) {
            Ok(Within::Done) => {}
            Ok(late) => return Ok(late),
            Err(e) if e.errno == Errno::AGAIN => misses += 1,
            // Before Linux 5.19 there is no such file: the write of the limit takes back what can be, in one go.
            Err(e) if e.errno == Errno::NOENT => break,
            Err(e) => return Err(e),
        }
    }
    Ok(Within::Done)
}

fn write_all(
    (group, path): (&Group, &GroupPath),
    steps: &[Step],
    left: &dyn Fn() -> Duration,
    changed: &mut Changed,
) -> Result<(), StepError> {
    for step in steps {
        let Step::Write {
            knob, value, before, ..
        } = step
        else {
            continue;
        };
        let before = before.as_deref().unwrap_or_default();
        let written = if is_limit_of_memory(*knob) && number(value) < number(before) {
            limit::write_within(group, path, *knob, value, left())
        } else {
            limit::write(group, path, *knob, value).map(|()| Within::Done)
        };
        match written {
            Ok(Within::Done) => {}
            Ok(late) => {
                changed.cut = Some(Cut::Write(*knob));
                changed.stuck = stuck(late);
            }
            Err(error) => {
                take_back((group, path), &changed.before);
                return Err(error);
            }
        }
        changed
            .before
            .push((*knob, before.lines().next().unwrap_or("").to_owned()));
    }
    Ok(())
}

/// Whether a lower value makes the writer itself take memory back.
fn is_limit_of_memory(knob: KnobId) -> bool {
    matches!(knob, KnobId::MemoryHigh | KnobId::MemoryMax)
}

/// Undoes writes. A memory limit is only raised again: to lower one could kill, and what is in force is what is told.
fn take_back((group, path): (&Group, &GroupPath), written: &[(KnobId, String)]) {
    for (knob, before) in written.iter().rev() {
        let file = knob.knob().file.unwrap_or_default();
        let now = group.get(file).ok().flatten().unwrap_or_default();
        if !is_limit_of_memory(*knob) || number(before) >= number(&now) {
            let _ = limit::write(group, path, *knob, before);
        }
    }
}

/// By which means the session is limited; with systemd's version where a CPU quota makes it matter.
fn of_scope<'a>(
    (group, path): (&Group, &GroupPath),
    asked: &[Asked],
    host: &'a Host,
) -> (Cow<'a, Host>, Backend) {
    if !group.is_in_scope() {
        return (Cow::Borrowed(host), Backend::Cgroupfs);
    }
    let mut host = Cow::Borrowed(host);
    let rounds = |asked: &Asked| {
        let text = asked
            .setting
            .text()
            .filter(|_| asked.setting.knob.id == KnobId::Cpus);
        text.is_some_and(|text| unit::rounded(&text, unit::ROUNDS).is_some())
    };
    if host.systemd_version.is_none() && asked.iter().any(rounds) {
        host.to_mut().systemd_version = limit::scope_of(path).and_then(|(systemd, _)| systemd.version().ok());
    }
    (host, Backend::Scope)
}

/// Reads what is in force, and records it.
fn settle(
    (group, path): (&Group, &GroupPath),
    asked: &[Asked],
    host: &Host,
    changed: &mut Changed,
) -> Result<(), KernelError> {
    let (host, backend) = of_scope((group, path), asked, host);
    let before = survey::identity(group);
    let mut identity = before.clone();
    for Asked { setting, typed } in asked {
        let (Some(file), Some(wanted)) = (setting.knob.file, setting.text()) else {
            continue;
        };
        let found = group.read(file)?;
        let found = found.lines().next().unwrap_or("");
        let page_size = host.machine.page_size;
        let foretold = predict(setting, &host, backend, &[]);
        let outcome = of_read_back(setting, &foretold, &wanted, found, page_size);
        let falls_short = outcome.falls_short();
        let holds =
            same(setting.knob, &wanted, found, page_size) || matches!(outcome, Outcome::Rounded { .. });
        changed.receipt.note(setting, outcome);
        if holds && let Some(identity) = &mut identity {
            identity.set(setting.knob.key, typed, &wanted, falls_short);
        }
    }
    if let Some(identity) = identity.filter(|now| before.as_ref() != Some(now)) {
        changed.unrecorded = group
            .mark(Identity::KEY, &identity.to_text())
            .err()
            .map(|e| e.to_string());
    }
    Ok(())
}
