//! Prepares a session and starts its command: name, group, limits, and only then the first process.
//!
//! A failure on the way leaves nothing behind and the command not started.

use super::command::{self, User};
use super::measure::{self, Level};
use super::registry::{Lock, Record, Registry};
use crate::backend::cgroupfs::{Cgroupfs, Failure};
use crate::host::{Base, Host};
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::kmsg::KernelLog;
use crate::kernel::sys::{self, Child, Mask, Refusal, Spawned, Stage};
use crate::kernel::{Group, Tree, probe, process, survey};
use crate::limits::{CoderEnv, KnobId, Part, Priorities, Settings, Value};
use crate::plan::apply;
use crate::plan::equal::same;
use crate::plan::hierarchy;
use crate::plan::identity::Identity;
use crate::plan::path::{GroupPath, SessionName};
use crate::plan::receipt::{Backend, Outcome, Promise, Receipt, of_read_back};
use crate::plan::session as session_plan;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::ffi::OsString;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What to launch.
pub struct Request<'a> {
    /// The session's name; `None` takes the first free `<stem>-<n>`.
    pub name: Option<SessionName>,
    /// What a name is made of where none is given.
    pub stem: SessionName,
    /// The role's name.
    pub role: Option<String>,
    /// The role's file, as it was named.
    pub role_file: Option<String>,
    /// The limits.
    pub settings: &'a Settings,
    /// Limits given by flags: knob and text.
    pub overrides: Vec<(String, String)>,
    /// The command and its arguments.
    pub argv: Vec<OsString>,
    /// The user it runs as; `None` is the caller.
    pub user: Option<User>,
    /// Close every inherited descriptor above 2, and reset CPU affinity and scheduling policy. Always done for a
    /// caller that is in agent.slice.
    pub close_fds: bool,
    /// Standard streams, where they are not the caller's.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Nobody waits for it: it leads a terminal session of its own, and its record stays for `cgmgr wait`.
    pub detached: bool,
    /// The signal mask that the command gets.
    pub mask: Option<Mask>,
    /// Start nothing where something declared cannot be enforced.
    pub require_limits: bool,
}

/// Where sessions are made on this machine, and by which means.
pub struct Place {
    /// The host.
    pub host: Host,
    /// The means.
    pub backend: Backend,
    /// The hierarchy, with the cgroupfs backend.
    pub tree: Option<Tree>,
    /// Who is in charge of which session.
    pub registry: Registry,
}

impl Place {
    /// The base, with the cgroupfs backend.
    pub fn base(&self) -> Option<(&Tree, &Base)> {
        match (&self.tree, &self.host.base) {
            (Some(tree), Ok(base)) => Some((tree, base)),
            _ => None,
        }
    }

    /// The session that the caller itself is in.
    pub fn own_session(&self) -> Option<SessionName> {
        let (_, base) = self.base()?;
        let own = GroupPath::new(&process::own_group()?)?;
        if !base.sessions.contains(&own) {
            return None;
        }
        let below = own.as_str()[base.sessions.as_str().len()..]
            .trim_start_matches('/')
            .to_owned();
        SessionName::of_directory(below.split('/').next()?)
    }
}

/// Which exit status a launch that failed has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// cgmgr itself failed: 125.
    Cgmgr,
    /// The command was found and could not be executed: 126.
    NotExecutable,
    /// The command was not found: 127.
    NotFound,
    /// A declared limit cannot be enforced and that was asked for: 3.
    Unenforceable,
}

impl FailureKind {
    /// The exit status of `cgmgr run` (as env(1), timeout(1) and docker have them).
    pub fn status(self) -> u8 {
        match self {
            Self::Cgmgr => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Unenforceable => 3,
        }
    }
}

/// Why nothing was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchError {
    /// Which kind of failure.
    pub kind: FailureKind,
    /// What, where and why.
    pub message: String,
    /// One line of remedy.
    pub help: Option<String>,
}

impl LaunchError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Cgmgr,
            message: message.into(),
            help: Some(help.into()),
        }
    }
}

impl From<Failure> for LaunchError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.to_string(), failure.error.help())
    }
}

impl From<KernelError> for LaunchError {
    fn from(error: KernelError) -> Self {
        Self::new(error.to_string(), error.help())
    }
}

/// A session whose command runs.
pub struct Running {
    /// Its name.
    pub name: SessionName,
    /// The right to be in charge of it; `None` inside another session.
    pub lock: Option<Lock>,
    /// Its group.
    pub group: Option<(Group, GroupPath)>,
    /// The command's process.
    pub spawned: Spawned,
    /// When it started.
    pub since: Instant,
    /// The counters of the groups above it before it started.
    pub above: Vec<Level>,
    /// The kernel log from before it started; `None` where it cannot be read.
    pub log: Option<KernelLog>,
    /// What is in force.
    pub receipt: Receipt,
    /// What that promises.
    pub promise: Promise,
    /// Its record.
    pub record: Record,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A session that is ready for its first process.
struct Prepared<'a> {
    name: SessionName,
    lock: Option<Lock>,
    group: Option<(Group, GroupPath)>,
    fs: Option<Cgroupfs<'a>>,
    receipt: Receipt,
    promise: Promise,
    warnings: Vec<String>,
}

/// Starts the command of `request` in a session of its own.
pub fn launch(request: Request<'_>, place: &Place) -> Result<Running, LaunchError> {
    let (mut prepared, mut child) = prepare(&request, place)?;
    child.stdio = request.stdio;
    let log = prepared
        .group
        .is_some()
        .then(|| KernelLog::open_at_end().ok())
        .flatten();
    let above = match (&prepared.group, &place.tree) {
        (Some((_, path)), Some(tree)) => measure::above(tree, path),
        _ => Vec::new(),
    };
    let since = Instant::now();
    let spawned = match sys::spawn(&child, prepared.group.as_ref().map(|(group, _)| group.as_fd())) {
        Ok(spawned) => spawned,
        Err(errno) => {
            let path = prepared
                .group
                .as_ref()
                .map_or("a new process".into(), |(g, _)| g.path().to_owned());
            prepared.undo();
            return Err(KernelError::new(Doing::Place, path, errno).into());
        }
    };
    if let Some(fatal) = spawned.refusals.iter().find(|r| r.is_fatal()) {
        let error = not_started(fatal, &request.argv[0], request.user.as_ref());
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(spawned.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        prepared.undo();
        return Err(error);
    }
    if spawned.moved
        && let Some(path) = prepared.group.as_ref().map(|(_, path)| path.clone())
        && process::group_of(spawned.pid).as_deref() != Some(path.as_str())
    {
        kill_and_reap(&spawned);
        prepared.undo();
        return Err(LaunchError::new(
            format!("the command did not enter {path} although the kernel said so"),
            "`cgmgr doctor` tests the placement of a process",
        ));
    }
    for refusal in &spawned.refusals {
        soft(refusal, &request.argv, request.settings, &mut prepared);
    }
    let mut record = Record {
        name: prepared.name.to_string(),
        backend: place.backend.name().into(),
        role: request.role.clone(),
        command: shown_command(&request.argv),
        supervisor: std::process::id() as i32,
        pid: Some(spawned.pid),
        pid_start: None,
        started: now(),
        detached: request.detached,
        unconfined: prepared
            .receipt
            .unconfined()
            .map(|e| e.knob.knob().key.to_owned())
            .collect(),
        ..Record::default()
    };
    // Where there is a group, it carries the session's identity; a record is for those that have none, and for
    // sessions whose status is fetched later.
    if prepared.lock.is_some() && (prepared.group.is_none() || request.detached) {
        record.pid_start = process::start_time(spawned.pid);
        if let Err(error) = place.registry.write(&prepared.name, &record) {
            prepared
                .warnings
                .push(format!("cannot keep a record of this session: {error}"));
        }
    }
    sweep(place, &prepared.name);
    Ok(Running {
        name: prepared.name,
        lock: prepared.lock,
        group: prepared.group,
        spawned,
        since,
        above,
        log,
        receipt: prepared.receipt,
        promise: prepared.promise,
        record,
        warnings: prepared.warnings,
    })
}

/// Removes groups of sessions that nobody is in and nobody attends: their cgmgr was killed, or became the command.
/// Done while the new session's command runs already, so that it costs a launch nothing.
fn sweep(place: &Place, own: &SessionName) {
    let Some((tree, base)) = place.base() else { return };
    let Ok(Some(parent)) = tree.find(&base.sessions) else {
        return;
    };
    for directory in parent.children().unwrap_or_default() {
        let Some(name) = SessionName::of_directory(&directory).filter(|n| n != own) else {
            continue;
        };
        let empty = || {
            parent
                .child(&directory)
                .is_ok_and(|g| !g.populated().unwrap_or(true))
        };
        // Looked at again under the lock: a launch that is under way holds it.
        if !place.registry.is_attended(&name)
            && empty()
            && let Ok(Some(_held)) = place.registry.lock(&name)
            && empty()
            && let Err(error) = parent.remove_child(&directory)
        {
            tracing::warn!("{error}");
        }
    }
}

/// Enters a session's group with this very process and becomes the command. Returns only when that failed.
///
/// The one exception to "a launch never migrates": this process is moved. Nobody stays to read the counters, so there
/// is no verdict, and the group is removed by the next command that sweeps.
pub fn launch_exec(request: Request<'_>, place: &Place) -> LaunchError {
    let (mut prepared, child) = match prepare(&request, place) {
        Ok(ready) => ready,
        Err(error) => return error,
    };
    for warning in &prepared.warnings {
        tracing::warn!("{warning}");
    }
    if let Some((group, _)) = &prepared.group
        && let Err(error) = group.write("cgroup.procs", "0")
    {
        prepared.undo();
        return KernelError {
            doing: Doing::Move,
            ..error
        }
        .into();
    }
    // The lock ends with this program, but the group is populated from here on.
    let refusals = sys::replace(&child);
    match refusals.iter().find(|r| r.is_fatal()) {
        Some(fatal) => not_started(fatal, &request.argv[0], request.user.as_ref()),
        None => LaunchError::new(
            "the command could not be executed",
            "`cgmgr doctor` shows what this host can do",
        ),
    }
}

fn prepare<'a>(request: &Request<'_>, place: &'a Place) -> Result<(Prepared<'a>, Child), LaunchError> {
    let nested = place.own_session();
    let mut prepared = match &nested {
        Some(outer) => inside(request, place, outer),
        None => match place.base() {
            Some((tree, base)) => in_group(request, place, tree, base)?,
            None => without_group(request, place)?,
        },
    };
    if request.require_limits && prepared.receipt.unconfined().next().is_some() {
        let what: Vec<String> = prepared
            .receipt
            .unconfined()
            .map(|e| format!("{} ({})", e.knob.knob().key, e.outcome))
            .collect();
        prepared.undo();
        return Err(LaunchError {
            kind: FailureKind::Unenforceable,
            message: format!(
                "not everything declared can be enforced here: {}",
                what.join(", ")
            ),
            help: Some(
                "`cgmgr doctor` says what is missing; without --require-limits the command would run".into(),
            ),
        });
    }
    match lay_out(request, place, &mut prepared) {
        Ok(child) => Ok((prepared, child)),
        Err(message) => {
            prepared.undo();
            Err(LaunchError::new(message, "give a command that can be executed"))
        }
    }
}

impl Prepared<'_> {
    /// Takes back everything that was made for this session.
    fn undo(&mut self) {
        self.group = None;
        if let Some(fs) = &mut self.fs {
            for left in fs.roll_back() {
                tracing::error!("could not undo: {left}");
            }
        }
    }
}

fn reserve(
    request: &Request<'_>,
    place: &Place,
    parent: Option<&Group>,
) -> Result<(SessionName, Lock), LaunchError> {
    let registry = |error: std::io::Error| {
        LaunchError::new(
            format!("cannot reserve a session name: {error}"),
            "make the runtime directory writable, or name another with CGMGR_RUNTIME_DIR",
        )
    };
    let taken = |name: &SessionName| parent.is_some_and(|p| p.child(&name.directory()).is_ok());
    let Some(name) = &request.name else {
        return place
            .registry
            .lock_numbered(&request.stem, &taken)
            .map_err(registry);
    };
    let in_use =
        |what: String| LaunchError::new(what, "choose another name; `cgmgr status` lists the sessions");
    let lock = place.registry.lock(name).map_err(registry)?;
    let lock = lock.ok_or_else(|| in_use(format!("session name {name} is in use")))?;
    let Some(parent) = parent else {
        return Ok((name.clone(), lock));
    };
    // A group of that name without anybody in charge: its cgmgr was killed. Live processes keep it; debris goes.
    if let Ok(group) = parent.child(&name.directory()) {
        if group.populated()? {
            return Err(in_use(format!(
                "session name {name} is in use by processes whose cgmgr is gone"
            )));
        }
        parent.remove_child(&name.directory())?;
    }
    Ok((name.clone(), lock))
}

fn in_group<'a>(
    request: &Request<'_>,
    place: &'a Place,
    tree: &'a Tree,
    base: &Base,
) -> Result<Prepared<'a>, LaunchError> {
    // This launch holds the session's lock itself: undoing needs no further one.
    let mut fs = Cgroupfs::new(tree, place.host.machine.page_size, &|_| Some(Box::new(())));
    let mut warnings = Vec::new();
    let parent = ready_parent(request, place, tree, base, &mut warnings)?;
    let (name, lock) = reserve(request, place, Some(&parent))?;
    let lacking: Vec<&str> = session_plan::limits(request.settings)
        .filter(|s| s.value.is_some() && s.knob.controller.is_none_or(|c| base.controllers.contains(&c)))
        .filter_map(|s| s.knob.file)
        .filter(|file| !parent.has(file))
        .collect();
    let uid = request.user.as_ref().map_or(place.host.euid, |u| u.identity.uid);
    let forecast = session_plan::forecast(request.settings, &place.host, Backend::Cgroupfs, &lacking);
    let identity = Identity {
        role: request.role.clone(),
        role_file: request.role_file.clone(),
        overrides: request.overrides.clone(),
        limits: forecast
            .entries
            .iter()
            .map(|e| (e.knob.knob().key.to_owned(), e.requested.clone()))
            .collect(),
        unconfined: forecast
            .unconfined()
            .map(|e| e.knob.knob().key.to_owned())
            .collect(),
        command: shown_command(&request.argv),
        uid,
        supervisor: std::process::id() as i32,
        started: now(),
    };
    let path = base.sessions.join(&name.directory());
    let (plan, mut receipt) = session_plan::plan(request.settings, &identity, &path, &place.host, &lacking);
    fs.carry_out(&plan.steps)?;
    for written in &fs.written {
        let setting = request.settings.get(written.knob);
        receipt.note(
            setting,
            of_read_back(
                setting,
                &written.wanted,
                &written.found,
                place.host.machine.page_size,
            ),
        );
    }
    let group = fs.take(&path)?;
    let promise = if uid != 0 && place.host.euid == 0 {
        Promise::Boundary
    } else {
        Promise::Bookkeeping
    };
    Ok(Prepared {
        name,
        lock: Some(lock),
        group: Some((group, path)),
        fs: Some(fs),
        receipt,
        promise,
        warnings,
    })
}

/// The parent of session groups, made if it is missing: from the role, whose `[agent]` and `[workloads]` then hold.
fn ready_parent(
    request: &Request<'_>,
    place: &Place,
    tree: &Tree,
    base: &Base,
    warnings: &mut Vec<String>,
) -> Result<Group, LaunchError> {
    if let Some(parent) = tree.find(&base.sessions)? {
        let enabled = parent.get("cgroup.subtree_control")?.unwrap_or_default();
        let missing = |c: &crate::limits::Controller| !enabled.split(' ').any(|e| e == c.name());
        if !hierarchy::wanted(base).iter().any(missing) {
            differing_ceiling(request, place, tree, base, warnings);
            return Ok(parent);
        }
    }
    let found = survey::survey(tree, base, &|name| place.registry.is_attended(name))?;
    let wanted = apply::Wanted {
        role: "",
        settings: request.settings,
        session_settings: &|_| request.settings.clone(),
        force: false,
    };
    let plan = if base.slices_are_systemds() {
        hierarchy::plan(base, &found)
    } else {
        apply::plan(&wanted, &place.host, base, &found)
    };
    if let Some(refusal) = plan.refusals.first() {
        return Err(LaunchError {
            kind: FailureKind::Cgmgr,
            message: refusal.message.clone(),
            help: refusal.help.clone(),
        });
    }
    warnings.extend(plan.warnings.iter().map(|w| w.message.clone()));
    let guard = |name: &SessionName| -> Option<Box<dyn Send>> {
        place
            .registry
            .lock(name)
            .ok()
            .flatten()
            .map(|lock| Box::new(lock) as Box<dyn Send>)
    };
    let mut fs = Cgroupfs::new(tree, place.host.machine.page_size, &guard);
    fs.carry_out(&plan.steps)?;
    Ok(tree.group(&base.sessions)?)
}

/// Only `apply` changes slices; a role that declares another ceiling than the one in force is told so.
fn differing_ceiling(
    request: &Request<'_>,
    place: &Place,
    tree: &Tree,
    base: &Base,
    warnings: &mut Vec<String>,
) {
    let declared: Vec<_> = request
        .settings
        .part(Part::Workloads)
        .filter(|s| s.value.is_some() && s.knob.file.is_some())
        .collect();
    if declared.is_empty() {
        return;
    }
    let Ok(workloads) = tree.group(&base.workloads) else {
        return;
    };
    let mut differing = Vec::new();
    for setting in declared {
        let file = setting.knob.file.unwrap_or_default();
        let Ok(Some(found)) = workloads.get(file) else {
            continue;
        };
        let wanted = setting.text().unwrap_or_default();
        if !same(setting.knob, &wanted, &found, place.host.machine.page_size) {
            let found = found.lines().next().unwrap_or_default().to_owned();
            differing.push(format!("{file} is {found} and not {wanted}"));
        }
    }
    if !differing.is_empty() {
        warnings.push(format!(
            "the ceiling in force is not the role's [workloads] ({}); `cgmgr apply` makes it so",
            differing.join(", ")
        ));
    }
}

fn without_group<'a>(request: &Request<'_>, place: &Place) -> Result<Prepared<'a>, LaunchError> {
    let (name, lock) = reserve(request, place, None)?;
    let receipt = session_plan::forecast(request.settings, &place.host, Backend::Process, &[]);
    let promise = Promise::None;
    Ok(Prepared {
        name,
        lock: Some(lock),
        group: None,
        fs: None,
        receipt,
        promise,
        warnings: Vec::new(),
    })
}

/// Inside a session the command stays in it: a session beside it would escape its limits.
fn inside<'a>(request: &Request<'_>, place: &Place, outer: &SessionName) -> Prepared<'a> {
    let mut receipt = session_plan::forecast(request.settings, &place.host, Backend::Process, &[]);
    for entry in &mut receipt.entries {
        if entry.knob.knob().file.is_some() {
            entry.outcome = Outcome::NotEnforced {
                why: format!("already inside session {outer}, whose limits hold"),
            };
        }
    }
    let warnings = vec![format!("already inside session {outer}: the command stays in it")];
    Prepared {
        name: outer.clone(),
        lock: None,
        group: None,
        fs: None,
        receipt,
        promise: Promise::None,
        warnings,
    }
}

fn lay_out(request: &Request<'_>, place: &Place, prepared: &mut Prepared<'_>) -> Result<Child, String> {
    let mut child = command::lay_out(
        &request.argv,
        std::env::vars_os(),
        prepared.name.as_str(),
        request.user.as_ref(),
    )?;
    let in_agent = match (
        place.base(),
        process::own_group().as_deref().and_then(GroupPath::new),
    ) {
        (Some((_, base)), Some(own)) => base.agent.contains(&own),
        _ => false,
    };
    let value = |id: KnobId| request.settings.value(id);
    if let Some(Value::Count(crate::limits::Max::At(n))) = value(KnobId::Nofile) {
        child.nofile = Some(*n);
    }
    child.mask = request.mask;
    child.new_session = request.detached;
    child.close_fds = request.close_fds || in_agent || request.detached;
    child.reset_policy = request.close_fds || in_agent;
    if child.reset_policy {
        child.affinity = Some((0..place.host.machine.cpus as usize).collect());
    }
    if prepared.group.is_none() && prepared.lock.is_some() {
        child.affinity = stand_in_affinity(request.settings).or(child.affinity);
    }
    priorities(request.settings, &mut child, &mut prepared.warnings);
    Ok(child)
}

/// nice and oom_score_adj: declared, or Coder's variables, or derived from the caller's own.
fn priorities(settings: &Settings, child: &mut Child, warnings: &mut Vec<String>) {
    let coder = CoderEnv::from_env(&|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()));
    let (score, nice) = match (process::own_oom_score_adj(), process::own_nice()) {
        (Ok(score), Ok(nice)) => (score, nice),
        (Err(e), _) | (_, Err(e)) => {
            warnings.push(format!(
                "cannot read this process's own priorities, so the command keeps them: {e}"
            ));
            return;
        }
    };
    let declared_score = match settings.value(KnobId::OomScoreAdj) {
        Some(Value::OomScoreAdj(score)) => Some(*score),
        _ => None,
    };
    let declared_nice = match settings.value(KnobId::Nice) {
        Some(Value::Nice(nice)) => Some(*nice),
        _ => None,
    };
    let (derived, problems) = Priorities::derive(score, nice, declared_score, declared_nice, &coder);
    warnings.extend(problems);
    tracing::info!(
        value = coder.prio_mgmt.as_deref().unwrap_or(""),
        os = std::env::consts::OS,
        oom_score_adj = derived.oom_score_adj,
        nice = derived.nice,
        "{}",
        if coder.enabled() {
            "process priority management enabled"
        } else {
            "process priority management not enabled (linux-only)"
        }
    );
    child.oom_score_adj = Some(derived.oom_score_adj);
    child.nice = Some(derived.nice);
}

/// Where there is no cpu.max: as many CPUs as the quota is worth, out of those the caller may use. Which ones differs
/// from session to session, so that several do not share the same few.
fn stand_in_affinity(settings: &Settings) -> Option<Vec<usize>> {
    let quota = settings.value(KnobId::Cpus)?.quota()?;
    let wanted = quota.quota_us().div_ceil(crate::limits::PERIOD_US) as usize;
    let status = process::read("/proc/self/status").ok()?;
    let allowed = status
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
    let allowed = probe::parse_cpu_list(allowed.trim());
    if wanted >= allowed.len() {
        return None;
    }
    let first = std::process::id() as usize % allowed.len();
    Some(
        (0..wanted.max(1))
            .map(|i| allowed[(first + i) % allowed.len()])
            .collect(),
    )
}

fn not_started(fatal: &Refusal, program: &std::ffi::OsStr, user: Option<&User>) -> LaunchError {
    let shown = crate::text::escape(&program.to_string_lossy());
    let reason = std::io::Error::from(fatal.errno);
    match (fatal.stage, fatal.errno) {
        (Stage::Exec, Errno::NOENT) => LaunchError {
            kind: FailureKind::NotFound,
            message: format!("cannot run `{shown}`: no such command"),
            help: Some(if shown.contains('/') {
                "check the path, and the interpreter on its first line if it is a script".into()
            } else {
                "check the spelling, and PATH".into()
            }),
        },
        (Stage::Exec, _) => LaunchError {
            kind: FailureKind::NotExecutable,
            message: format!("cannot run `{shown}`: {reason}"),
            help: Some("it must be an executable file: chmod +x, and no directory".into()),
        },
        (Stage::Identity, _) => LaunchError::new(
            format!(
                "cannot become user {}: {reason}",
                user.map_or(0, |u| u.identity.uid)
            ),
            "--user needs root",
        ),
        (Stage::Enter, _) => KernelError::new(Doing::Move, "cgroup.procs of the session", fatal.errno)
            .with_value("0")
            .into(),
        _ => LaunchError::new(
            format!("cannot set up the command's standard streams: {reason}"),
            "check --log",
        ),
    }
}

/// A step that the command went on without: told in the words that Coder's agent uses for the same.
fn soft(refusal: &Refusal, argv: &[OsString], settings: &Settings, prepared: &mut Prepared<'_>) {
    let reason = std::io::Error::from(refusal.errno);
    let command = shown_command(argv).join(" ");
    let (text, knob) = match refusal.stage {
        Stage::OomScore => (
            format!(
                "failed to adjust oom score to {} for cmd [{command}]: {reason}",
                refusal.value
            ),
            Some(KnobId::OomScoreAdj),
        ),
        Stage::Nice => (
            format!(
                "failed to adjust niceness to {} for cmd [{command}]: {reason}",
                refusal.value
            ),
            Some(KnobId::Nice),
        ),
        Stage::Dumpable => (format!("failed to set dumpable: {reason}"), None),
        Stage::Nofile if refusal.value > 0 => {
            let setting = settings.get(KnobId::Nofile);
            prepared.receipt.note(
                setting,
                Outcome::Rounded {
                    to: refusal.value.to_string(),
                },
            );
            prepared.warnings.push(format!(
                "nofile is {} and not {}: the hard limit cannot be raised without privilege",
                refusal.value,
                setting.text().unwrap_or_default()
            ));
            return;
        }
        Stage::Nofile => (format!("failed to set nofile: {reason}"), Some(KnobId::Nofile)),
        Stage::Affinity => (format!("failed to set the CPU affinity: {reason}"), None),
        _ => (format!("failed to reset the scheduling policy: {reason}"), None),
    };
    if let Some(knob) = knob {
        prepared.receipt.note(
            settings.get(knob),
            Outcome::NotEnforced {
                why: reason.to_string(),
            },
        );
    }
    prepared.warnings.push(text);
}

fn shown_command(argv: &[OsString]) -> Vec<String> {
    let words: Vec<String> = argv
        .iter()
        .map(|a| crate::text::escape(&a.to_string_lossy()))
        .collect();
    Identity::cut_command(&words)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

fn kill_and_reap(spawned: &Spawned) {
    let _ = rustix::process::pidfd_send_signal(&spawned.pidfd, rustix::process::Signal::KILL);
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(spawned.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
}
