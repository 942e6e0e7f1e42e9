//! One session of an embedding program: started, waited for, and put away or left to go on.

use super::Workspace;
use super::command::{Command, Ends};
use super::error::Error;
use super::role::Role;
use crate::kernel::{Group, survey};
use crate::limits::KnobId;
use crate::path::{GroupPath, SessionName};
use crate::plan::identity::Identity;
use crate::plan::receipt::{Promise, Receipt};
use crate::record::Exited;
use crate::session::account::{self, Account, Known};
use crate::session::end;
use crate::session::launch::{Request, Running, launch};
use crate::session::measure::Usage;
use crate::session::place::Place;
use crate::session::records::{self, Records};
use crate::session::registry::Lock;
use crate::session::tell::{self, About};
use crate::session::user::User;
use crate::session::verdict::{Exit, Oom};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::time::Duration;

/// A session that is to be started (see [`Workspace::session`]).
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    workspace: &'a Workspace,
    role: &'a Role,
    name: Option<String>,
    user: Option<String>,
    require_limits: bool,
    close_fds: bool,
    kill_leftover: bool,
}

impl<'a> Launch<'a> {
    pub(super) fn new(workspace: &'a Workspace, role: &'a Role) -> Self {
        Self {
            workspace,
            role,
            name: None,
            user: None,
            require_limits: false,
            close_fds: false,
            kill_leftover: false,
        }
    }

    /// The session's name, which must be free: at most 64 of `A-Z a-z 0-9 : _ . -`. Without one it is the role's, or the
    /// program's, with a number.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The user that the command runs as, by name or number; only root can do this. A user who owns nothing above his
    /// session is bound by its limits ([`Promise::Boundary`]).
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Start nothing where something that the role declares cannot be enforced here. Otherwise the session runs, and
    /// [`Session::receipt`] says what does not hold.
    pub fn require_limits(mut self, require: bool) -> Self {
        self.require_limits = require;
        self
    }

    /// Close every descriptor above 2 in the command that is not close-on-exec, and give it all CPUs and the usual
    /// scheduling policy whatever this process has. Always done where this process is in `agent.slice`.
    pub fn close_fds(mut self, close: bool) -> Self {
        self.close_fds = close;
        self
    }

    /// End what is left in the session's group when its command has ended: SIGTERM, ten seconds, SIGKILL.
    pub fn kill_leftover(mut self, kill: bool) -> Self {
        self.kill_leftover = kill;
        self
    }

    /// Starts `command` in the session. Its limits are in force before its first instruction.
    ///
    /// # Errors
    ///
    /// Nothing was started, and nothing of the session is left: the command cannot be executed, the name is taken, the
    /// host's policy cannot be read, the kernel refused a value.
    pub fn spawn(self, command: Command) -> Result<Session, Error> {
        self.workspace.tend();
        let place = self.workspace.place();
        let mut role = self.role.clone();
        let mut notes = Vec::new();
        if let Some(policy) = self.workspace.policy()? {
            let lowered = policy.cap(&mut role.role.settings);
            notes.extend(lowered.into_iter().map(|warning| warning.message));
        }
        let name = self.name.as_deref().map(SessionName::new).transpose();
        let name = name.map_err(|why| Error::invalid(why, "e.g. rust-3"))?;
        let user = self.user.as_deref().map(User::find).transpose();
        let user =
            user.map_err(|why| Error::invalid(why, "give a login name or a number that this machine knows"))?;
        if user.is_some() && place.host.euid != 0 {
            return Err(Error::failed(
                "only root can start a session as another user",
                "run this program as root, or leave the user out",
            ));
        }
        let from_file = role.role.file.is_some();
        let stem = match from_file {
            true => SessionName::from_text(&role.role.name),
            false => {
                let program = Path::new(command.program()).file_name().unwrap_or_default();
                SessionName::from_text(&program.to_string_lossy())
            }
        };
        let (argv, env) = (command.argv(), command.environment(std::env::vars_os()));
        let directory = command.directory.clone();
        let (stdio, ends) = command.streams().map_err(|error| {
            Error::failed(
                format!("cannot lay out the command's streams: {error}"),
                "raise the open-file limit (RLIMIT_NOFILE) of this program",
            )
        })?;
        let request = Request {
            name,
            role: from_file.then(|| role.role.name.clone()),
            role_file: role.role.file.as_ref().map(|p| p.to_string_lossy().into_owned()),
            overrides: role.overrides.clone(),
            user,
            close_fds: self.close_fds,
            stdio,
            require_limits: self.require_limits,
            env,
            directory,
            ..Request::new(stem, &role.role.settings, argv)
        };
        let running = launch(request, place)?;
        notes.extend(running.warnings.iter().cloned());
        // Inside another session every knob is the outer one's, which the launch has said.
        if running.lock.is_some() {
            notes.extend(tell::unconfined(&running.receipt));
        }
        Ok(Session::new(
            self.workspace.clone(),
            running,
            ends,
            &role,
            notes,
            self.kill_leftover,
        ))
    }
}

/// A session whose command was started.
///
/// Wait for it: only then is it known how its command ended, and only then is its group removed. One that is dropped
/// before lives on, with its limits; its [`Workspace`] stays in charge of it, and waits for its command and removes its
/// group when it is next used ([`Workspace::tend`]).
pub struct Session {
    /// This process's end of the command's standard input, where that is [piped](super::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// Of its standard output.
    pub stdout: Option<ChildStdout>,
    /// Of its standard error.
    pub stderr: Option<ChildStderr>,
    workspace: Workspace,
    running: Running,
    group: Option<String>,
    known: Known,
    ended: Option<Ended>,
    notes: Vec<String>,
    memory_max_from: String,
    memory_max: Option<u64>,
    kill_leftover: bool,
}

/// How a session ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How the command ended.
    pub exit: Exit,
    /// OOM kills in the session, and whose limit it was. From counters of its group, never from the exit status.
    pub oom: Option<Oom>,
    /// Somebody removed the group before its counters could be read: whether there was an OOM kill is not known.
    pub oom_unknown: bool,
    /// What the session used.
    pub usage: Usage,
    /// Processes that live on in the session's group, with their names. They keep their limits, and the workspace stays
    /// in charge. Without a group they are not seen.
    pub left: Vec<(i32, String)>,
    /// What its user must know, a sentence or two each, as `cgmgr run` says it; nothing where all went well.
    pub story: Vec<String>,
}

impl Ended {
    /// Whether the command ended with status 0.
    pub fn success(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// The command's exit status; `None` where a signal ended it, or that is not known.
    pub fn code(&self) -> Option<i32> {
        match self.exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) | Exit::Unknown => None,
        }
    }

    /// Whether the command itself, or the whole session, was OOM-killed.
    pub fn was_oom_killed(&self) -> bool {
        self.oom
            .as_ref()
            .is_some_and(|oom| oom.took_command || oom.whole_group)
    }
}

impl std::fmt::Display for Ended {
    /// Its story, or how it ended where there is none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.story.as_slice(), self.exit) {
            ([], Exit::Code(code)) => write!(f, "ended with exit status {code}"),
            ([], Exit::Signal(signal)) => write!(f, "was ended by signal {signal}"),
            ([], Exit::Unknown) => f.write_str("ended, how is not known"),
            (story, _) => f.write_str(&story.join("\n")),
        }
    }
}

impl Session {
    fn new(
        workspace: Workspace,
        running: Running,
        ends: Ends,
        role: &Role,
        notes: Vec<String>,
        kill_leftover: bool,
    ) -> Self {
        let memory_max = role
            .settings()
            .value(KnobId::MemoryMax)
            .and_then(|max| max.bytes());
        Self {
            stdin: ends.stdin,
            stdout: ends.stdout,
            stderr: ends.stderr,
            workspace,
            group: running.group.as_ref().map(|(group, _)| group.path().to_owned()),
            known: Known::of(&running),
            running,
            ended: None,
            notes,
            memory_max_from: role.memory_max_from(),
            memory_max: memory_max.map(|max| max.0),
            kill_leftover,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.running.name.as_str()
    }

    /// The command's pid. After [`wait`](Self::wait) it may be another process's.
    pub fn pid(&self) -> u32 {
        self.running.spawned.pid.unsigned_abs()
    }

    /// The directory of its group; `None` where there is none (process backend, or inside another session).
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// What of the role is in force, each value read back from the kernel.
    pub fn receipt(&self) -> &Receipt {
        &self.running.receipt
    }

    /// What that promises: whether the command could raise or leave its limits.
    pub fn promise(&self) -> Promise {
        self.running.promise
    }

    /// What its user should know of its start: what is not enforced and why, what the host's policy has lowered.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Waits until the command has ended, and says what happened. Then the session's group is removed, unless processes
    /// live on in it. Closes its standard input first, as [`std::process::Child::wait`] does. Once it has ended, the same
    /// is said again.
    ///
    /// No child of this process but the command is waited for. Where something else in it waits for every child (`waitpid`
    /// of -1) or SIGCHLD is ignored, how the command ended is [`Exit::Unknown`]; the verdict stands all the same.
    pub fn wait(&mut self) -> Ended {
        self.wait_telling(&mut |_| {})
    }

    /// The same; a sentence about an OOM kill that the command lives on after goes to `tell` at once.
    pub fn wait_telling(&mut self, tell: &mut dyn FnMut(&str)) -> Ended {
        drop(self.stdin.take());
        loop {
            if let Some(ended) = self.look(tell) {
                return ended;
            }
            self.known
                .sleep(&self.running, self.running.spawned.pidfd.as_fd());
        }
    }

    /// How the session ended, if its command has ended. To look costs nothing; once it has ended, accounting for it takes
    /// a moment, and up to a few hundred milliseconds where processes are left.
    pub fn try_wait(&mut self) -> Option<Ended> {
        self.look(&mut |_| {})
    }

    fn look(&mut self, tell: &mut dyn FnMut(&str)) -> Option<Ended> {
        if let Some(ended) = &self.ended {
            return Some(ended.clone());
        }
        let running = &mut self.running;
        let exit = ended(&running.spawned.pidfd);
        let workspace = self.workspace.clone();
        let place = workspace.place();
        let account = Account {
            tree: place.tree.as_ref(),
            base: place.host.base.as_ref().ok(),
            namespaced: place.is_namespaced(),
            kill_left: self.kill_leftover,
            // What else has ended of the session is not this process's to wait for.
            reap: &|_| {},
        };
        let session = running.name.to_string();
        let about = About {
            session: &session,
            who: None,
            memory_max_from: &self.memory_max_from,
            memory_max: self.memory_max,
        };
        let Some(exit) = exit else {
            account.look_on(running, &mut self.known, &mut |oom| {
                tell(&tell::oom_goes_on(&about, oom));
            });
            return None;
        };
        self.known.exit = Some(exit);
        if exit == Exit::Signal(libc::SIGKILL) {
            self.known.killed.push(running.spawned.pid);
        }
        let mut ended = account::Ended::new(running, exit);
        if running.group.is_some() {
            account.end(running, &mut self.known, &mut ended);
        }
        let mut story = tell::story(&about, &ended);
        if !ended.left.is_empty() {
            story.push(tell::left_over(&about, &ended.left, true));
        }
        if ended.left.is_empty() {
            records::over(running, &ended, &story);
        }
        // Nothing of it is needed any more but what it was called.
        self.known = Known::default();
        let end = match &running.group {
            Some((group, _)) if !ended.left.is_empty() => {
                running.records.catch_up(&ended, group, place.base());
                End::Known(Box::new(CommandsEnd {
                    exited: records::of_running(running, &ended, &story),
                    oom: ended.oom.clone(),
                    counted_kills: ended.counted_kills,
                    records: std::mem::take(&mut running.records),
                }))
            }
            _ => End::Recorded,
        };
        let (lock, group) = (running.lock.take(), running.group.take());
        let tended = Tended {
            name: running.name.clone(),
            lock,
            group,
            command: None,
            end,
        };
        workspace.take_on(tended);
        let ended = Ended {
            exit: ended.exit,
            oom: ended.oom,
            oom_unknown: ended.oom_unknown,
            usage: ended.usage,
            left: ended.left,
            story,
        };
        self.ended = Some(ended.clone());
        Some(ended)
    }
}

/// The command's process: readable (in poll and epoll) once it has ended.
impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.spawned.pidfd.as_fd()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.workspace.take_on(Tended {
                name: self.running.name.clone(),
                lock: self.running.lock.take(),
                group: self.running.group.take(),
                command: self.running.spawned.pidfd.try_clone().ok(),
                end: End::Unknown,
            });
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// How the process ended, which is waited for then; `None` where it has not.
fn ended(pidfd: &OwnedFd) -> Option<Exit> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    loop {
        return match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Ok(None) => None,
            Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            }),
            Err(Errno::INTR) => continue,
            // Somebody else waited for it.
            Err(_) => Some(Exit::Unknown),
        };
    }
}

/// A session that nobody waits for any more: dropped, or left with processes in it.
#[derive(Debug)]
pub(super) struct Tended {
    name: SessionName,
    lock: Option<Lock>,
    group: Option<(Group, GroupPath)>,
    /// Its command, where nobody has waited for that.
    command: Option<OwnedFd>,
    end: End,
}

/// What there is to be recorded of a session's end.
#[derive(Debug)]
enum End {
    /// Nothing any more.
    Recorded,
    /// How its command ended.
    Known(Box<CommandsEnd>),
    /// What the group says.
    Unknown,
}

/// How the command ended of a session in which it left processes.
#[derive(Debug)]
struct CommandsEnd {
    records: Records,
    exited: Exited,
    oom: Option<Oom>,
    counted_kills: u64,
}

impl Tended {
    /// Puts it away where it is over; whether it was.
    pub(super) fn is_put_away(&mut self, place: &Place) -> bool {
        if self
            .command
            .as_ref()
            .is_some_and(|command| ended(command).is_none())
        {
            return false;
        }
        self.command = None;
        // Inside another session: there is nothing of its own to put away.
        if self.lock.is_none() {
            return true;
        }
        if let (Some((group, path)), Some(tree)) = (&self.group, &place.tree) {
            if !group.is_empty_within(Duration::ZERO).unwrap_or(true) {
                return false;
            }
            match std::mem::replace(&mut self.end, End::Recorded) {
                End::Recorded => {}
                End::Known(end) => {
                    let mut records = end.records;
                    records::over_at_last(&mut records, end.exited, end.oom, end.counted_kills, group);
                }
                End::Unknown => records::bury(place.store.as_ref(), &self.name, group),
            }
            if let Err(error) = end::remove(tree, path) {
                tracing::warn!("{error}");
                return false;
            }
        } else {
            place.registry.forget(&self.name);
        }
        true
    }

    /// Leaves it to whoever sweeps next, now and not only when this process has ended.
    pub(super) fn leave(self) {
        let Some((group, _)) = &self.group else { return };
        if let Some(identity) = survey::identity(group) {
            let nobodys = Identity {
                supervisor_start: None,
                ..identity
            };
            if let Err(error) = group.mark(Identity::KEY, &nobodys.to_text()) {
                tracing::warn!("{error}");
            }
        }
    }
}
