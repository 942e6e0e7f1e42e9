//! Moves processes that run already into a session of their own.
//!
//! The group is made with its limits first, then each process is moved, held by a descriptor. What a moved process forks
//! from then on is in the session; what it forked before is not, so that the descendants of a process are looked for
//! again and again until nothing new is found outside. Whoever got away meanwhile is told, never guessed into the session.
//!
//! What cannot be had this way: memory that the processes hold already stays charged to the groups they came from, what
//! is set before exec (nofile, nice, oom_score_adj) is not set, and nobody but their own parents learns how they end. A
//! process of cgmgr's stays with the session all the same, as it does with what a command left behind: it notices OOM
//! kills, and removes the group when the last process has ended.

use super::failure::LaunchError;
use super::launch::Request;
use super::linger::Left;
use super::movable::{Refusal, Rules, unit_of};
use super::moving::{self, Fate};
use super::place::Place;
use super::prepare::{self, Prepared, Tenant};
use super::promise;
use super::records::Records;
use super::registry::Entry;
use super::sweep::sweep;
use crate::kernel::held::{self, Held};
use crate::kernel::kmsg::KernelLog;
use crate::kernel::sys::Identity;
use crate::kernel::{Group, Tree, process};
use crate::limits::{KnobId, Max, Settings, Value};
use crate::order;
use crate::path::{GroupPath, SessionName};
use crate::plan::receipt::{Promise, Receipt};
use crate::text::{bytes, count};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How often, and for how long, descendants are looked for as long as new ones are found.
const ROUNDS: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks in a row that must find nothing new: a list of processes that fork is not true for long.
const QUIET: u32 = 2;

/// What to adopt.
pub struct Adoption<'a> {
    /// The session's name; `None` takes the first free `<stem>-<n>`, where the stem is the role's name or the first
    /// process's.
    pub name: Option<SessionName>,
    /// The role's name.
    pub role: Option<String>,
    /// The role's file, as it was named.
    pub role_file: Option<String>,
    /// The limits.
    pub settings: &'a Settings,
    /// Limits given by flags: knob and text.
    pub overrides: Vec<(String, String)>,
    /// Processes by pid.
    pub pids: Vec<i32>,
    /// Everything that descends from this one.
    pub children_of: Option<i32>,
    /// Also what is part of the agent, or the main process of a systemd service.
    pub force: bool,
}

/// A process that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its pid.
    pub pid: i32,
    /// Its name, escaped for printing.
    pub comm: String,
    /// Where it came from.
    pub from: GroupPath,
    start: u64,
}

/// A process that is not in the session, although it was meant or may have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escaped {
    /// Its pid.
    pub pid: i32,
    /// Its name, escaped for printing.
    pub comm: String,
    /// Why.
    pub why: String,
    start: u64,
}

/// Processes that are in a session of their own now.
pub struct Adopted {
    /// The session's group.
    pub group: GroupPath,
    /// What is in force.
    pub receipt: Receipt,
    /// What that promises.
    pub promise: Promise,
    /// Who was moved.
    pub moved: Vec<Moved>,
    /// Who lives outside of it.
    pub escaped: Vec<Escaped>,
    /// How many ended before they could be moved.
    pub ended: usize,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The session, to be stayed with.
    pub left: Left,
}

/// Moves what `adoption` names into a new session.
///
/// # Errors
///
/// Everything that keeps it from being done, all at once, and then nothing was moved; or the one thing that made it fail on
/// the way, and what was moved has been moved back, or is named.
pub fn adopt(adoption: &Adoption<'_>, place: &Place) -> Result<Adopted, Vec<LaunchError>> {
    let one = |error: LaunchError| vec![error];
    let Some((tree, base)) = place.base() else {
        return Err(vec![no_group(place)]);
    };
    if let Some(outer) = place.own_session() {
        return Err(vec![LaunchError::new(
            format!("this is said from inside session {outer}: a session beside it would escape its limits"),
            "say it outside of any session",
        )]);
    }
    let rules = Rules::new(tree, base, adoption.force).map_err(|error| one(error.into()))?;
    let (named, root) = check(adoption, &rules)?;
    let (first, owner) = first(&named, root.as_ref(), &rules).map_err(one)?;
    let stem = match &adoption.role {
        Some(role) => SessionName::from_text(role),
        None => SessionName::from_text(&process::comm(first).unwrap_or_default()),
    };
    let request = Request {
        name: adoption.name.clone(),
        role: adoption.role.clone(),
        role_file: adoption.role_file.clone(),
        overrides: adoption.overrides.clone(),
        ..Request::new(stem, adoption.settings, held::command_line(first))
    };
    let mut prepared =
        prepare::in_group(&request, place, tree, base, &Tenant::Running(owner)).map_err(one)?;
    let Some((group, path)) = prepared.group.take() else {
        return Err(vec![no_group(place)]);
    };
    let mut movement = Movement {
        tree,
        rules,
        target: &group,
        path: &path,
        moved: Vec::new(),
        escaped: Vec::new(),
        elsewhere: 0,
        ended: 0,
        known: BTreeSet::new(),
        warnings: std::mem::take(&mut prepared.warnings),
    };
    if let Err(error) = movement.all(&named, root.as_ref()) {
        let stay = movement.move_back();
        let error = given_up(error, &movement, &stay);
        if stay.is_empty() {
            drop(group);
            prepared.undo();
        }
        return Err(vec![error]);
    }
    movement.say_of_memory(adoption.settings, place.host.machine.page_size);
    movement.say_of_units();
    if let Some(root) = &root {
        movement.look_for_those_who_left(root);
        movement.say_of_sessions();
    } else {
        movement.say_of_children();
    }
    let Movement {
        moved,
        escaped,
        ended,
        warnings,
        ..
    } = movement;
    let entry = entry(&request, &prepared, place);
    if place.is_time_to_sweep() {
        place.swept(sweep(place, &prepared.name));
    }
    Ok(Adopted {
        promise: promise(&moved, prepared.promise, place, tree, &path),
        receipt: std::mem::take(&mut prepared.receipt),
        moved,
        escaped,
        ended,
        warnings,
        left: Left {
            name: prepared.name.clone(),
            pin: prepared.pin.take(),
            lock: prepared.lock.take(),
            records: Records::begin(
                place.store.clone(),
                &prepared.name,
                Some(&group),
                &entry,
                adoption.settings,
            ),
            ended: None,
            log: KernelLog::open_at_end().ok(),
            group: Some((group, path.clone())),
            entry,
            status: None,
        },
        group: path,
    })
}

fn no_group(place: &Place) -> LaunchError {
    match &place.host.base {
        Err(none) => LaunchError::new(
            format!(
                "there is no group that anything could be moved into: {}",
                none.why
            ),
            &none.fix,
        ),
        Ok(_) => LaunchError::new(
            "the process backend has no groups that anything could be moved into",
            "leave out --backend process",
        ),
    }
}

type Named = Vec<(Held, GroupPath)>;

/// Holds what was named, and finds every mistake in it.
fn check(adoption: &Adoption<'_>, rules: &Rules<'_>) -> Result<(Named, Option<Held>), Vec<LaunchError>> {
    let (mut named, mut mistakes): (Named, _) = (Vec::new(), Vec::new());
    for pid in &adoption.pids {
        if named.iter().any(|(held, _)| held.pid == *pid) {
            continue;
        }
        let checked = hold(*pid).and_then(|held| {
            let group = rules.may_move(&held).map_err(|refusal| mistake(&held, refusal))?;
            Ok((held, group))
        });
        match checked {
            Ok(process) => named.push(process),
            Err(error) => mistakes.push(error),
        }
    }
    let mut root = None;
    if let Some(pid) = adoption.children_of {
        match hold(pid) {
            Ok(held) if pid == 1 || held::is_kernel_thread(pid) => mistakes.push(LaunchError::new(
                format!(
                    "--children-of {}: that would be the whole machine",
                    process::describe(held.pid)
                ),
                "name the process that the tree grew from",
            )),
            Ok(held) => root = Some(held),
            Err(error) => mistakes.push(error),
        }
    }
    if mistakes.is_empty() {
        Ok((named, root))
    } else {
        Err(mistakes)
    }
}

fn mistake(process: &Held, refusal: Refusal) -> LaunchError {
    LaunchError::new(
        format!(
            "pid {} ({}) cannot be adopted: {}",
            process.pid, process.comm, refusal.why
        ),
        refusal.help,
    )
}

/// Holds a process that was named by its pid.
pub(super) fn hold(pid: i32) -> Result<Held, LaunchError> {
    let look = "`ps -e` lists the processes";
    match Held::open(pid) {
        Ok(Some(held)) => Ok(held),
        Ok(None) => Err(LaunchError::new(format!("there is no process {pid}"), look)),
        Err(errno) => Err(match process::thread_group(pid).filter(|leader| *leader != pid) {
            Some(leader) => LaunchError::new(
                format!("pid {pid} is a thread of {}", process::describe(leader)),
                format!("name the process: {leader}"),
            ),
            None => LaunchError::new(
                format!("cannot hold process {pid}: {}", std::io::Error::from(errno)),
                look,
            ),
        }),
    }
}

/// The process that the session is named after, and whose it is.
fn first(named: &Named, root: Option<&Held>, rules: &Rules<'_>) -> Result<(i32, Identity), LaunchError> {
    let mut why = "nothing descends from it".to_owned();
    let mut may = |pid: i32| match Held::open(pid).ok().flatten().map(|held| rules.may_move(&held)) {
        Some(Ok(_)) => true,
        Some(Err(refusal)) => {
            why = format!("{}: {}", process::describe(pid), refusal.why);
            false
        }
        None => false,
    };
    let mut pids: Vec<i32> = named.iter().map(|(held, _)| held.pid).collect();
    pids.extend(
        root.iter()
            .flat_map(|root| others(root.pid))
            .filter(|pid| may(*pid)),
    );
    let found = pids.into_iter().find_map(|pid| Some((pid, held::owner(pid)?)));
    found.ok_or_else(|| match root {
        Some(root) => LaunchError::new(
            format!(
                "there is nothing to adopt below pid {} ({}): {why}",
                root.pid, root.comm
            ),
            "name processes by their pid",
        ),
        None => LaunchError::new("what was to be adopted has ended", "name processes that run"),
    })
}

/// What descends from a process, but this process itself.
fn others(root: i32) -> Vec<i32> {
    let own = std::process::id() as i32;
    let mut pids = process::descendants(root);
    pids.retain(|pid| *pid != own);
    pids
}

/// What was moved so far, and where to.
struct Movement<'a> {
    tree: &'a Tree,
    rules: Rules<'a>,
    target: &'a Group,
    path: &'a GroupPath,
    moved: Vec<Moved>,
    escaped: Vec<Escaped>,
    /// Descendants that are in other sessions, or in charge of them.
    elsewhere: u64,
    ended: usize,
    /// Processes that were looked at, each with its start.
    known: BTreeSet<(i32, u64)>,
    warnings: Vec<String>,
}

impl Movement<'_> {
    /// The named ones, then the descendants of `root`. An error where one of the former could not be moved, or nobody was.
    fn all(&mut self, named: &Named, root: Option<&Held>) -> Result<(), LaunchError> {
        for (process, from) in named {
            self.known.insert((process.pid, process.start));
            if let Fate::Refused(why) = self.take(process, from.clone()) {
                return Err(LaunchError::new(
                    format!("pid {} ({}) was not adopted: {why}", process.pid, process.comm),
                    "`cgmgr doctor` shows what this host can do",
                ));
            }
        }
        if let Some(root) = root {
            self.tree_of(root);
        }
        if self.moved.is_empty() {
            let why: Vec<String> = self.escaped.iter().take(5).map(one_line).collect();
            let why = if why.is_empty() {
                "all of them have ended".to_owned()
            } else {
                why.join("; ")
            };
            return Err(LaunchError::new(
                format!("nothing could be adopted: {why}"),
                "name processes that run, and that this user may move",
            ));
        }
        Ok(())
    }

    fn take(&mut self, process: &Held, from: GroupPath) -> Fate {
        let fate = moving::to(self.tree, process, self.target, self.path);
        match &fate {
            Fate::There => self.moved.push(Moved {
                pid: process.pid,
                comm: process.comm.clone(),
                from,
                start: process.start,
            }),
            Fate::Ended => self.ended += 1,
            Fate::Refused(_) => {}
        }
        fate
    }

    /// Moves what descends from `root` until there is nothing new outside the session.
    fn tree_of(&mut self, root: &Held) {
        let began = Instant::now();
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            let found = self.round(root);
            quiet = if found == 0 { quiet + 1 } else { 0 };
            if quiet == QUIET || began.elapsed() > PATIENCE {
                break;
            }
        }
        if quiet < QUIET {
            self.warnings.push(format!(
                "new descendants of {} still came up outside the session after {} s: there may be more of them",
                process::describe(root.pid),
                began.elapsed().as_secs()
            ));
        }
        if !root.lives() {
            self.warnings.push(format!(
                "pid {} ({}) has ended meanwhile: what it had started and was not moved by then is nobody's descendant now",
                root.pid, root.comm
            ));
        }
    }

    fn escape(&mut self, process: Held, why: String) {
        self.escaped.push(Escaped {
            pid: process.pid,
            start: process.start,
            comm: process.comm,
            why,
        });
    }

    /// One look at the tree. How many were new and outside.
    fn round(&mut self, root: &Held) -> usize {
        let mut found = 0;
        for pid in self.outside(root) {
            let process = match Held::open(pid) {
                Ok(Some(process)) => process,
                Ok(None) => continue,
                Err(errno) => {
                    // Not known by its start: it is tried again in the next round.
                    tracing::warn!("cannot hold process {pid}: {}", std::io::Error::from(errno));
                    continue;
                }
            };
            if !self.known.insert((pid, process.start)) {
                continue;
            }
            found += 1;
            let why = match self.rules.may_move(&process) {
                Ok(from) => match self.take(&process, from) {
                    Fate::Refused(why) => why,
                    Fate::There | Fate::Ended => continue,
                },
                // The rules find nothing to move in one that has ended.
                Err(_) if !process.lives() => {
                    self.ended += 1;
                    continue;
                }
                Err(refusal) if process::stat(pid).is_some_and(|stat| stat.state == 'Z') => {
                    tracing::debug!("pid {pid}: {}", refusal.why);
                    self.ended += 1;
                    continue;
                }
                Err(refusal) if refusal.of_a_session => {
                    self.elsewhere += 1;
                    continue;
                }
                Err(refusal) => refusal.why,
            };
            self.escape(process, why);
        }
        found
    }

    /// The descendants of `root` that are not in the session. The kernel's lists of children may miss one while others
    /// end (proc_pid_children(5)), so those who are left in the groups that some came from are asked for their parents.
    fn outside(&self, root: &Held) -> Vec<i32> {
        let mut pids = others(root.pid);
        for pid in self.left_behind() {
            if !pids.contains(&pid) && held::ancestors(pid).contains(&root.pid) {
                pids.push(pid);
            }
        }
        if !root.lives() {
            return Vec::new();
        }
        let inside = |pid: &i32| {
            let group = process::group_of(*pid).and_then(|group| GroupPath::new(&group));
            group.is_some_and(|group| self.path.contains(&group))
        };
        pids.retain(|pid| !inside(pid));
        pids
    }

    /// Who is in the groups that the moved ones came from.
    fn left_behind(&self) -> Vec<i32> {
        let own = std::process::id() as i32;
        let from = order::set(self.moved.iter().map(|moved| &moved.from));
        let groups = from.into_iter().filter_map(|path| self.tree.group(path).ok());
        let mut pids: Vec<i32> = groups
            .flat_map(|group| group.procs().unwrap_or_default())
            .collect();
        pids.retain(|pid| *pid > 0 && *pid != own && !held::is_kernel_thread(*pid));
        order::sort(&mut pids);
        pids.dedup();
        pids
    }

    /// A descendant whose parent ends is given to the machine's first process, or to one above that adopts orphans, and
    /// cannot be told from others for certain. Those who look like it are named.
    fn look_for_those_who_left(&mut self, root: &Held) {
        let above = held::ancestors(root.pid);
        let began = process::own_start_time().unwrap_or(u64::MAX);
        let jobs: Vec<(i32, i32)> = self
            .moved
            .iter()
            .filter_map(|moved| held::job(moved.pid))
            .collect();
        for pid in self.left_behind() {
            let Ok(Some(process)) = Held::open(pid) else {
                continue;
            };
            let adopted = held::parent(pid).is_some_and(|parent| parent == 1 || above.contains(&parent));
            let of_a_job = || {
                held::job(pid)
                    .is_some_and(|(group, session)| jobs.iter().any(|(g, s)| *g == group || *s == session))
            };
            if pid == root.pid
                || above.contains(&pid)
                || !adopted
                || process.start < root.start
                || self.known.contains(&(pid, process.start))
                || !(process.start >= began || of_a_job())
            {
                continue;
            }
            let why = format!(
                "it looks as if it had descended from pid {} and left the tree when its parent ended; `cgmgr adopt {pid}` \
                 moves it",
                root.pid
            );
            self.escape(process, why);
        }
        self.escaped
            .retain(|escaped| process::start_time(escaped.pid) == Some(escaped.start));
    }

    fn say_of_sessions(&mut self) {
        if self.elsewhere > 0 {
            let what = count(self.elsewhere, "descendant is", "descendants are");
            self.warnings.push(format!(
                "{what} in other sessions, or in charge of one, and stay as they are"
            ));
        }
    }

    /// Memory is charged where it was first touched, and stays there (cgroup-v2.rst, "Memory Ownership").
    fn say_of_memory(&mut self, settings: &Settings, page_size: u64) {
        let held: u64 = self
            .moved
            .iter()
            .filter_map(|m| process::rss(m.pid, page_size))
            .sum();
        let from = order::set(self.moved.iter().map(|moved| moved.from.as_str()));
        let from: Vec<&str> = from.into_iter().collect();
        self.warnings.push(format!(
            "the memory that they hold already (about {}) stays charged to {}",
            bytes(held),
            from.join(", ")
        ));
        if let Some(Value::Memory(Max::At(max))) = settings.value(KnobId::MemoryMax)
            && held > max.0
        {
            self.warnings.push(format!(
                "that is more than memory_max {}: only what they take from now on counts against it",
                bytes(max.0)
            ));
        }
    }

    fn say_of_units(&mut self) {
        let units = order::set(self.moved.iter().filter_map(|moved| unit_of(&moved.from)));
        if units.is_empty() {
            return;
        }
        let units: Vec<&str> = units.into_iter().collect();
        self.warnings.push(format!(
            "systemd does not count them to {} any more: stopping that does not end them",
            units.join(", ")
        ));
    }

    fn say_of_children(&mut self) {
        let mut outside: BTreeMap<i32, u64> = BTreeMap::new();
        for moved in &self.moved {
            for child in process::descendants(moved.pid) {
                let group = process::group_of(child).and_then(|group| GroupPath::new(&group));
                if group.is_some_and(|group| !self.path.contains(&group)) {
                    *outside.entry(moved.pid).or_default() += 1;
                }
            }
        }
        for (pid, n) in outside {
            let what = count(n, "process that descends", "processes that descend");
            let stay = if n == 1 { "stays" } else { "stay" };
            self.warnings.push(format!(
                "{what} from pid {pid} {stay} outside the session: --children-of {pid} moves those too"
            ));
        }
    }

    /// Moves everything that is in the session back to where it came from: what was forked meanwhile to where its parent
    /// came from. Returns who stays.
    fn move_back(&self) -> Vec<Escaped> {
        let mut stay: BTreeMap<i32, Escaped> = BTreeMap::new();
        for _ in 0..ROUNDS {
            let inside = self.target.processes_below().unwrap_or_default();
            let inside: Vec<i32> = inside.into_iter().filter(|pid| !stay.contains_key(pid)).collect();
            if inside.is_empty() {
                break;
            }
            for pid in inside {
                let (Ok(Some(process)), Some(from)) = (Held::open(pid), self.origin(pid)) else {
                    continue;
                };
                let fate = match self.tree.group(&from) {
                    Ok(group) => moving::to(self.tree, &process, &group, &from),
                    Err(error) => Fate::Refused(error.to_string()),
                };
                if let Fate::Refused(why) = fate {
                    let Held { start, comm, .. } = process;
                    let stays = Escaped {
                        pid,
                        comm,
                        why,
                        start,
                    };
                    stay.insert(pid, stays);
                }
            }
        }
        stay.into_values().collect()
    }

    fn origin(&self, pid: i32) -> Option<GroupPath> {
        let start = process::start_time(pid)?;
        let itself = self.moved.iter().find(|m| (m.pid, m.start) == (pid, start));
        let of_its_line = || {
            let above = held::ancestors(pid);
            self.moved.iter().find(|moved| above.contains(&moved.pid))
        };
        let origin = itself.or_else(of_its_line).or(self.moved.first())?;
        Some(origin.from.clone())
    }
}

fn one_line(escaped: &Escaped) -> String {
    format!("pid {} ({}): {}", escaped.pid, escaped.comm, escaped.why)
}

/// The error of an adoption that failed on the way, with what became of those who had been moved.
fn given_up(error: LaunchError, movement: &Movement<'_>, stay: &[Escaped]) -> LaunchError {
    let n = movement.moved.len() as u64;
    if n == 0 {
        return error;
    }
    let message = if stay.is_empty() {
        let what = count(
            n,
            "process that had been moved was",
            "processes that had been moved were",
        );
        format!("{}; {what} moved back", error.message)
    } else {
        let who: Vec<String> = stay.iter().map(one_line).collect();
        format!(
            "{}; these could not be moved back and are in {}: {}",
            error.message,
            movement.path,
            who.join("; ")
        )
    };
    LaunchError { message, ..error }
}

/// The least that the limits promise for any of the moved.
fn promise(moved: &[Moved], of_first: Promise, place: &Place, tree: &Tree, path: &GroupPath) -> Promise {
    let mut owners = Vec::new();
    for owner in moved.iter().filter_map(|moved| held::owner(moved.pid)) {
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    let all = owners
        .iter()
        .all(|owner| promise::of(tree, path, Some(owner), place.host.euid) == Promise::Boundary);
    if all { of_first } else { Promise::Bookkeeping }
}

fn entry(request: &Request<'_>, prepared: &Prepared<'_>, place: &Place) -> Entry {
    Entry {
        name: prepared.name.to_string(),
        backend: place.backend.name().into(),
        role: request.role.clone(),
        command: super::command::shown(&request.argv),
        supervisor: std::process::id() as i32,
        started: prepared.started,
        uid: None,
        creator: Some(super::prepare::creator()),
        role_file: request.role_file.clone(),
        flags: request.overrides.iter().map(|(knob, _)| knob.clone()).collect(),
        unconfined: prepared
            .receipt
            .unconfined()
            .map(|e| e.knob.knob().key.to_owned())
            .collect(),
        ..Entry::default()
    }
}
