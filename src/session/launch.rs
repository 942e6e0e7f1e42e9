//! Starts a session's command: everything is prepared, and only then comes the first process.
//!
//! A failure on the way leaves nothing of the session behind and the command not started. The slices that the first launch
//! makes stay once they are complete: another session may be in them by then.

use super::child::soft;
use super::command;
use super::failure::not_started;
use super::measure::{self, Moment};
use super::placing;
use super::prepare::prepare;
use super::records::Records;
use super::registry::{Entry, Lock};
use super::sweep::sweep;
use super::tell;
use super::terminal::Terminal;
use super::user::User;
use crate::backend::scope::Pin;
use crate::kernel::kmsg::KernelLog;
use crate::kernel::sys::{self, CallersSignals, Child, Spawned, Watch};
use crate::kernel::{Group, process};
use crate::limits::Settings;
use crate::path::{GroupPath, SessionName};
use crate::plan::receipt::{Promise, Receipt};
use rustix::fd::{AsFd, OwnedFd};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Instant;

pub use super::failure::{FailureKind, LaunchError};
pub use super::place::Place;

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
    /// Nobody waits for it: it leads a terminal session of its own, and its entry stays for `cgmgr wait`.
    pub detached: bool,
    /// The terminal that the command is in the foreground of: told when the command is stopped before it is executed.
    pub terminal: Option<&'a Terminal>,
    /// How the caller had its signals set: the command gets them so.
    pub signals: Option<CallersSignals>,
    /// Told the command's pid as soon as it runs, before anything else is done. Where there is a terminal, which sends its
    /// signals to the command as well, that is before the command is executed.
    pub on_start: Option<&'a dyn Fn(i32)>,
    /// Start nothing where something declared cannot be enforced.
    pub require_limits: bool,
    /// The command's environment; `None` is the caller's.
    pub env: Option<Vec<(OsString, OsString)>>,
    /// The directory that the command starts in; `None` is the caller's.
    pub directory: Option<PathBuf>,
    /// The caller is a program with children of its own beside this session.
    pub embedded: bool,
}

impl<'a> Request<'a> {
    /// Runs `argv` as the caller, under `settings`, in a session named after `stem`, with the caller's streams.
    pub fn new(stem: SessionName, settings: &'a Settings, argv: Vec<OsString>) -> Self {
        Self {
            name: None,
            stem,
            role: None,
            role_file: None,
            settings,
            overrides: Vec::new(),
            argv,
            user: None,
            close_fds: false,
            stdio: None,
            detached: false,
            terminal: None,
            signals: None,
            on_start: None,
            require_limits: false,
            env: None,
            directory: None,
            embedded: true,
        }
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
    /// What holds its scope open until its counters have been read, where it is one.
    pub pin: Option<Pin>,
    /// The command's process.
    pub spawned: Spawned,
    /// When it started.
    pub since: Instant,
    /// The counters of its group and of those above before it started.
    pub before: Moment,
    /// The command entered a session that somebody else is in charge of: who else is in it, and its end, are not this
    /// one's.
    pub entered: bool,
    /// The kernel log from before it started; `None` where it cannot be read.
    pub log: Option<KernelLog>,
    /// What is in force.
    pub receipt: Receipt,
    /// What that promises.
    pub promise: Promise,
    /// Its entry in the registry.
    pub entry: Entry,
    /// What it leaves in the store.
    pub records: Records,
    /// What the user should know.
    pub warnings: Vec<String>,
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
    // Nothing had happened in the session before it began; above it things may have.
    let before = match (&prepared.group, &place.tree) {
        (Some((_, path)), Some(tree)) => Moment {
            levels: measure::events_above(tree, path, place.is_namespaced()),
            ..Moment::default()
        },
        _ => Moment::default(),
    };
    let since = Instant::now();
    let start = Start {
        child: &child,
        group: prepared.group.as_ref(),
        program: &request.argv[0],
        user: request.user.as_ref(),
        terminal: request.terminal,
        on_start: request.on_start,
    };
    let spawned = match start.now() {
        Ok(spawned) => spawned,
        Err(error) => {
            prepared.undo();
            return Err(error);
        }
    };
    for refusal in &spawned.refusals {
        soft(refusal, &request.argv, request.settings, &mut prepared);
    }
    let mut entry = Entry {
        name: prepared.name.to_string(),
        backend: place.backend.name().into(),
        role: request.role.clone(),
        command: command::shown(&request.argv),
        supervisor: std::process::id() as i32,
        pid: Some(spawned.pid),
        pid_start: None,
        started: prepared.started,
        uid: Some(
            request
                .user
                .as_ref()
                .map_or(place.host.euid, |user| user.identity.uid),
        ),
        creator: Some(super::prepare::creator()),
        role_file: request.role_file.clone(),
        flags: request.overrides.iter().map(|(knob, _)| knob.clone()).collect(),
        detached: request.detached,
        embedded: request.embedded,
        unconfined: prepared
            .receipt
            .unconfined()
            .map(|e| e.knob.knob().key.to_owned())
            .collect(),
        ..Entry::default()
    };
    // Where there is a group, it carries the session's identity; an entry in the registry is for those that have none, and for
    // sessions whose status is fetched later.
    if prepared.lock.is_some() && (prepared.group.is_none() || request.detached) {
        entry.pid_start = process::start_time(spawned.pid);
        if let Err(error) = place.registry.write(&prepared.name, &entry) {
            prepared
                .warnings
                .push(format!("cannot keep a record of this session: {error}"));
        }
    }
    // A command that stays in another session is no session of its own.
    let records = match prepared.lock {
        Some(_) => {
            let group = prepared.group.as_ref().map(|(group, _)| group);
            Records::begin(
                place.store.clone(),
                &prepared.name,
                group,
                &entry,
                request.settings,
            )
        }
        None => Records::default(),
    };
    if place.is_time_to_sweep() {
        place.swept(sweep(place, &prepared.name));
    }
    Ok(Running {
        name: prepared.name,
        lock: prepared.lock,
        group: prepared.group,
        pin: prepared.pin,
        spawned,
        since,
        before,
        entered: false,
        log,
        receipt: prepared.receipt,
        promise: prepared.promise,
        entry,
        records,
        warnings: prepared.warnings,
    })
}

/// The start of a command in a group that is ready for it.
pub(super) struct Start<'a> {
    pub(super) child: &'a Child,
    pub(super) group: Option<&'a (Group, GroupPath)>,
    pub(super) program: &'a OsStr,
    pub(super) user: Option<&'a User>,
    pub(super) terminal: Option<&'a Terminal>,
    pub(super) on_start: Option<&'a dyn Fn(i32)>,
}

impl Start<'_> {
    /// Starts the command, and returns once it has been executed. After an error it has not been, and nothing of its
    /// process is left.
    pub(super) fn now(&self) -> Result<Spawned, LaunchError> {
        let mut watch = self.terminal.map(|terminal| AtTerminal {
            terminal,
            on_start: self.on_start,
        });
        let watch = watch.as_mut().map(|watch| watch as &mut dyn Watch);
        let is_watched = watch.is_some();
        let spawned = placing::start(self.child, self.group.map(|(group, path)| (group, path)), watch)?;
        if let Some(fatal) = spawned.refusals.iter().find(|r| r.fatal) {
            let error = not_started(fatal, self.program, self.user, self.child);
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(spawned.pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            return Err(error);
        }
        if let Some(tell) = self.on_start
            && !is_watched
        {
            tell(spawned.pid);
        }
        if spawned.moved
            && let Some((_, path)) = self.group
            && process::group_of(spawned.pid).as_deref() != Some(path.as_str())
        {
            kill_and_reap(&spawned);
            return Err(placing::not_there(path));
        }
        Ok(spawned)
    }
}

/// Sees to a command that has a terminal while it is being started.
struct AtTerminal<'a> {
    terminal: &'a Terminal,
    on_start: Option<&'a dyn Fn(i32)>,
}

impl Watch for AtTerminal<'_> {
    fn begun(&mut self, pid: i32) {
        if let Some(tell) = self.on_start {
            tell(pid);
        }
    }

    fn stopped(&mut self, pid: i32, signal: i32) {
        self.terminal.stop_with(pid, signal);
    }
}

/// Enters a session's group with this very process and becomes the command. Returns only when that failed. `tell` is
/// given what the user should know, since nobody is there to say it later.
///
/// The one exception to "a launch never migrates": this process is moved. Nobody stays to read the counters, so there
/// is no verdict, and the group is removed by the next command that sweeps.
pub fn launch_exec(request: Request<'_>, place: &Place, tell: &dyn Fn(&str)) -> LaunchError {
    let (mut prepared, child) = match prepare(&request, place) {
        Ok(ready) => ready,
        Err(error) => return error,
    };
    prepared.warnings.iter().for_each(|note| tell(note));
    tell::unconfined(&prepared.receipt)
        .iter()
        .for_each(|note| tell(note));
    let from = process::own_group();
    if let Some((group, path)) = &prepared.group
        && let Err(error) = placing::enter((group, path))
    {
        prepared.undo();
        return error;
    }
    if prepared.group.is_none() {
        // Nothing shows that this session lives but its lock, which ends with this program: it would only be left.
        prepared.lock = None;
    }
    // The lock ends with this program, but the group is populated from here on.
    let refusals = sys::replace(&child);
    let error = match refusals.iter().find(|r| r.fatal) {
        Some(fatal) => not_started(fatal, &request.argv[0], request.user.as_ref(), &child),
        None => LaunchError::new(
            "the command could not be executed",
            "`cgmgr doctor` shows what this host can do",
        ),
    };
    // Back to where this process was, so that the group can go.
    if let (Some(tree), Some(from)) = (&place.tree, from.as_deref().and_then(GroupPath::new))
        && prepared.group.is_some()
        && let Err(error) = tree
            .group(&from)
            .and_then(|group| group.write("cgroup.procs", "0"))
    {
        tracing::warn!("{error}");
    }
    prepared.undo();
    error
}

fn kill_and_reap(spawned: &Spawned) {
    let _ = rustix::process::pidfd_send_signal(&spawned.pidfd, rustix::process::Signal::KILL);
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(spawned.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
}
