//! Tries for real whether this machine can place a process in a group and hold it there: makes a group as for a
//! session, starts a process in it, asks that process where its first instruction ran, kills it, and removes the group.
//!
//! Leaves nothing behind: what of the hierarchy was missing is made for the test and taken away again.

use super::command;
use super::launch::Place;
use super::placing;
use super::supervise;
use crate::backend::cgroupfs::Cgroupfs;
use crate::backend::scope;
use crate::host::{Base, Manager, WORKLOADS_SLICE};
use crate::kernel::survey::ENABLED;
use crate::kernel::{Group, Tree, mounts, process, survey};
use crate::limits::{Controller, KNOBS, Part};
use crate::path::{GroupPath, SessionName};
use crate::plan::hierarchy;
use crate::plan::identity::Identity;
use crate::plan::step::{Plan, Step};
use crate::systemd::{Property, Systemd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs::File;
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The limits that are written and read back.
const LIMITS: [(&str, &str); 2] = [("memory.max", "67108864"), ("pids.max", "16")];
/// How long anything in the test may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Says first of all in which groups it is, then waits until it is killed, or until nobody holds its input any more.
const SCRIPT: &str = "while read -r l; do echo \"$l\"; done </proc/self/cgroup; echo; read -r l";

/// What the test found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tested {
    /// Whether the process was moved in after it had been made, for want of `CLONE_INTO_CGROUP`.
    pub moved: bool,
    /// Why limits were not written and read back, where they were not.
    pub limits_skipped: Option<String>,
    /// Optional control files that this kernel has in a group.
    pub features: Vec<&'static str>,
    /// Control files of sessions' knobs that this kernel lacks although their controller is there.
    pub lacking: Vec<&'static str>,
}

/// Control files that came with some kernel version.
pub const FEATURES: [&str; 4] = ["cgroup.kill", "memory.oom.group", "memory.peak", "pids.peak"];

/// Runs the test below the base of `place`.
pub fn run(place: &Place, tree: &Tree, base: &Base) -> Result<Tested, String> {
    if let Some(manager) = base.scope_manager() {
        return in_scope(place, tree, base, &Systemd::of(manager));
    }
    let found = survey::survey(tree, base, &|name| place.registry.is_attended(name)).map_err(text)?;
    let plan = hierarchy::plan(base, &found);
    if let Some(refusal) = plan.refusals.first() {
        return Err(refusal.message.clone());
    }
    let moves = plan.steps.iter().any(|s| matches!(s, Step::MoveAll { .. }));
    if plan.is_empty() || moves {
        // Moving other processes about is more than a look is worth: then the test goes without limits.
        let parent = if moves { &base.group } else { &base.sessions };
        let skipped = "processes of the base would have to be moved first; the first `cgmgr run` does that";
        return in_parent(
            place,
            tree,
            parent,
            (!moves).then_some(()).ok_or_else(|| skipped.to_owned()),
        );
    }
    let guard = |_: &SessionName| -> Option<Box<dyn Send>> { None };
    let mut fs = Cgroupfs::new(tree, place.host.machine.page_size, &guard);
    fs.carry_out(&plan.steps).map_err(|e| e.to_string())?;
    let tested = in_parent(place, tree, &base.sessions, Ok(()));
    match (tested, take_back(tree, base, &plan)) {
        (Ok(_), Err(left)) => Err(left),
        (tested, _) => tested,
    }
}

/// Takes away what was made for the test. The groups go first: one that is in use by now stays, and with it everything
/// that its user needs.
fn take_back(tree: &Tree, base: &Base, plan: &Plan) -> Result<(), String> {
    let made = plan.steps.iter().rev().filter_map(|s| match s {
        Step::MakeGroup { group } => Some(group),
        _ => None,
    });
    for group in made {
        let (Some(parent), Some(name)) = (group.parent(), group.name()) else {
            continue;
        };
        if tree.group(&parent).and_then(|p| p.remove_child(name)).is_err() {
            return Ok(());
        }
    }
    for step in plan.steps.iter().rev() {
        let Step::Enable {
            group,
            controllers,
            remembered,
        } = step
        else {
            continue;
        };
        let Some(target) = tree.find(group).map_err(text)? else {
            continue;
        };
        // Only in the base: of the groups made above none is left.
        if *group == base.group {
            let signs = crate::plan::step::signed('-', controllers);
            match target.write(crate::plan::step::SUBTREE_CONTROL, &signs) {
                // In use by now: a session was launched meanwhile, and they are its.
                Err(e) if e.errno == rustix::io::Errno::BUSY => return Ok(()),
                other => other.map_err(text)?,
            }
            match remembered {
                Some(before) => target.mark(ENABLED, before).map_err(text)?,
                None => target.unmark(ENABLED).map_err(text)?,
            }
        }
    }
    Ok(())
}

fn text(error: crate::kernel::KernelError) -> String {
    error.to_string()
}

fn in_parent(
    place: &Place,
    tree: &Tree,
    parent: &GroupPath,
    limits: Result<(), String>,
) -> Result<Tested, String> {
    let name = SessionName::from_text(&format!("doctor-{}", std::process::id()));
    // With the lock held no other cgmgr takes the group for one that was left behind.
    let lock = place.registry.lock(&name).map_err(|e| e.to_string())?;
    let _lock = lock.ok_or_else(|| format!("the name {name} is in use"))?;
    let above = tree.group(parent).map_err(text)?;
    let group = above.make_child(&name.directory()).map_err(text)?;
    let path = parent.join(&name.directory());
    let tested = in_group(&group, &path, limits);
    // Whatever happened: nothing is left behind.
    let _ = group.kill();
    let _ = group.wait_empty(DEADLINE);
    let removed = supervise::remove(tree, &path);
    let tested = tested?;
    removed?;
    match tree.find(&path) {
        Ok(None) => Ok(tested),
        _ => Err(format!("{} is still there after it was removed", group.path())),
    }
}

/// In a scope that systemd makes for the test.
fn in_scope(place: &Place, tree: &Tree, base: &Base, systemd: &Systemd) -> Result<Tested, String> {
    let name = SessionName::from_text(&format!("doctor-{}", std::process::id()));
    let lock = place.registry.lock(&name).map_err(|e| e.to_string())?;
    let _lock = lock.ok_or_else(|| format!("the name {name} is in use"))?;
    // Where the slice is missing, making it is the first launch's.
    let there = tree.find(&base.workloads).map_err(text)?.is_some();
    let slice = match (there, systemd.manager()) {
        (true, _) => WORKLOADS_SLICE,
        (false, Manager::System) => "system.slice",
        (false, Manager::User) => "app.slice",
    };
    let properties = [
        Property::text("Description", "cgmgr doctor: placement self-test"),
        Property::text("Slice", slice),
        Property::switch("Delegate", true),
        Property::text("CollectMode", "inactive-or-failed"),
        Property::number("MemoryMax", 67_108_864),
        Property::number("TasksMax", 17),
    ];
    let unit = name.scope(std::process::id());
    let controllers = [Controller::Memory, Controller::Pids];
    let scope = scope::make(systemd, tree, &unit, &properties, &controllers).map_err(|e| e.to_string())?;
    let tested = in_group(&scope.main, &scope.path, Ok(()));
    let _ = scope.main.kill();
    let _ = scope.main.wait_empty(DEADLINE);
    let removed = supervise::remove(tree, &scope.path);
    let tested = tested?;
    removed.map(|()| tested)
}

fn in_group(group: &Group, path: &GroupPath, limits: Result<(), String>) -> Result<Tested, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let identity = Identity {
        command: vec!["(placement self-test)".into()],
        supervisor: std::process::id() as i32,
        started: now.map_or(0, |d| d.as_secs()),
        ..Identity::default()
    };
    group.mark(Identity::KEY, &identity.to_text()).map_err(text)?;
    if limits.is_ok() {
        for (file, value) in LIMITS.into_iter().filter(|(file, _)| group.has(file)) {
            // Of a scope it is systemd's to write, and was asked for when it was made.
            let found = if group.is_on_scope(file) {
                group.get(file).map_err(text)?.unwrap_or_default()
            } else {
                group.write_and_read_back(file, value).map_err(text)?
            };
            if found != value {
                return Err(format!(
                    "set {} to {value} and read back {found}",
                    group.file(file)
                ));
            }
        }
    }
    let moved = place_and_kill(group, path)?;
    let available = group.get("cgroup.controllers").map_err(text)?.unwrap_or_default();
    let lacking = KNOBS
        .iter()
        .filter(|k| k.part == Part::Session && limits.is_ok())
        .filter(|k| {
            k.controller
                .is_some_and(|c| available.split(' ').any(|name| name == c.name()))
        })
        .filter_map(|k| k.file)
        .filter(|file| !group.has(file));
    Ok(Tested {
        moved,
        lacking: lacking.collect(),
        features: FEATURES.into_iter().filter(|f| group.has(f)).collect(),
        limits_skipped: limits.err(),
    })
}

/// `true`: the process had to be moved in.
fn place_and_kill(group: &Group, path: &GroupPath) -> Result<bool, String> {
    let refused = |e: std::io::Error| format!("cannot prepare the test's process: {e}");
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| refused(e.into()));
    let ((input, _keep_open), (output, writer)) = (pipe()?, pipe()?);
    let argv = ["sh", "-c", SCRIPT].map(Into::into);
    let mut child = command::lay_out(&argv, std::env::vars_os(), "doctor", None)?;
    let null: OwnedFd = File::options()
        .write(true)
        .open("/dev/null")
        .map_err(refused)?
        .into();
    child.stdio = Some([input, writer, null]);
    let spawned = placing::start(&child, Some((group, path)), None)
        .map_err(|e| format!("cannot start a process in {}: {}", group.path(), e.message))?;
    // The writing end goes: the output ends with the process.
    drop(child);
    let result = judge(group, path, spawned.pid, output);
    let _ = group.kill();
    let reaped = group.wait_empty(DEADLINE).map_err(text);
    let _ = waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED);
    if let Some(fatal) = spawned.refusals.iter().find(|r| r.fatal) {
        return Err(format!("cannot run sh: {}", std::io::Error::from(fatal.errno)));
    }
    result?;
    reaped?;
    Ok(spawned.moved)
}

fn judge(group: &Group, path: &GroupPath, pid: i32, output: OwnedFd) -> Result<(), String> {
    let said = read_until_blank(output);
    let own = mounts::own_group(&said);
    if own.as_deref() != Some(path.as_str()) {
        let at = own.unwrap_or_else(|| "an unknown group".into());
        return Err(format!("a process started in {path} found itself in {at}"));
    }
    if process::group_of(pid).as_deref() != Some(path.as_str()) {
        return Err(format!("a process started in {path} did not stay there"));
    }
    group.kill().map_err(text)
}

fn read_until_blank(output: OwnedFd) -> String {
    let mut file = File::from(output);
    let mut said = Vec::new();
    let timeout = Timespec::try_from(DEADLINE).unwrap_or_default();
    while !said.ends_with(b"\n\n") {
        let mut chunk = [0u8; 4096];
        let ready = poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&timeout));
        match ready.map(|n| {
            if n > 0 {
                file.read(&mut chunk).unwrap_or(0)
            } else {
                0
            }
        }) {
            Ok(n) if n > 0 => said.extend_from_slice(&chunk[..n]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}
