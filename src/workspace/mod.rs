//! The face of cgmgr for programs that embed it: a workspace agent, a runner of AI agents, a build service.
//!
//! ```
//! use cgmgr::workspace::{Command, Limits, Stdio, Workspace};
//! use std::io::Read;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // Doc tests run beside each other and on machines of all kinds: nothing of theirs is to be changed.
//! # let workspace = Workspace::without_groups()?;
//! # /*
//! let workspace = Workspace::open()?;
//! # */
//! let role = workspace.role(&Limits::new().memory_max("8 GiB").nofile("256"))?;
//! let command = Command::new("sh").args(["-c", "ulimit -n"]).stdout(Stdio::piped());
//! let mut session = workspace.session(&role).name("demo").spawn(command)?;
//!
//! let mut said = String::new();
//! session.stdout.take().ok_or("it is piped")?.read_to_string(&mut said)?;
//! let ended = session.wait();
//! assert!(ended.success(), "{ended}");
//! assert_eq!(said, "256\n");
//! for note in session.notes() {
//!     eprintln!("{note}"); // e.g. that memory_max is not enforced, and why
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It is made for programs with threads and children of their own: it waits for the commands that it started and for no
//! other child, takes no signal, and changes nothing that is the whole process's. Any number of sessions may be started
//! and waited for in any number of threads at once.
//!
//! Limits are the kernel's where this process may make groups (root, a delegated group, the scope of `cgmgr install`);
//! elsewhere the process backend stands in, and [`Session::receipt`] and [`Session::notes`] say what does not
//! hold. The operator's policy, `/etc/cgmgr/host.toml`, caps what is started here as it caps the command line; it is read
//! anew for each session. What is started here is a session like any other: `cgmgr status` shows it, `cgmgr kill` ends it.
//!
//! # While it runs
//!
//! ```no_run
//! # use cgmgr::workspace::Workspace;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let workspace = Workspace::open()?;
//! workspace.set("demo", &[("memory_max", "2 GiB")])?;
//! workspace.freeze("demo")?;
//! workspace.thaw("demo")?;
//! for session in workspace.list()? {
//!     println!("{} is {}: {:?} bytes", session.name, session.state.name(), session.usage.memory.current);
//! }
//! workspace.stop("demo")?; // SIGTERM, ten seconds, SIGKILL
//! # Ok(())
//! # }
//! ```
//!
//! Errors have a kind, what and why in one line, and a remedy:
//!
//! ```
//! use cgmgr::workspace::{ErrorKind, Limits, Workspace};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let workspace = Workspace::without_groups()?;
//! let error = workspace.role(&Limits::new().memory_max("12 parsecs").pids("0")).unwrap_err();
//! assert_eq!(error.kind, ErrorKind::Invalid);
//! assert_eq!(error.mistakes.len(), 2); // both at once
//! let error = workspace.kill("nobody").unwrap_err();
//! assert_eq!(error.message, "there is no session nobody");
//! # Ok(())
//! # }
//! ```

pub mod change;
mod command;
pub mod control;
mod error;
mod find;
pub mod look;
mod protect;
mod role;
mod session;

pub use crate::host::Host;
pub use crate::plan::receipt::{Backend, Outcome, Promise, Receipt};
pub use crate::session::end::End;
pub use crate::session::freeze::Frozen;
pub use crate::session::verdict::{Cause, Exit, Oom};
pub use crate::session::view::{SessionView, State};
pub use command::{Command, Stdio};
pub use error::{Error, ErrorKind};
pub use find::{backend, group_named, host};
pub use protect::Protection;
pub use role::{Limits, Role};
pub use session::{Ended, Launch, Session};

use crate::backend::cgroupfs::Progress;
use crate::files;
use crate::kernel::{disks, probe, survey};
use crate::limits::KnobId;
use crate::role::HostPolicy;
use crate::session::end::{How, PUT_AWAY};
use crate::session::place::Place;
use crate::session::{relimit, view};
use change::Change;
use look::{Found, Look};
use session::Tended;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a session may take to freeze, to thaw, or to give memory back: what takes longer is an error, or a note.
const PATIENCE: Duration = Duration::from_secs(10);

/// This machine, as a place for sessions. Clones are the same place; when the last one, and the last [`Session`] of it, is
/// dropped, sessions that live on are left to whoever uses cgmgr next.
#[derive(Clone)]
pub struct Workspace {
    inner: Arc<Inner>,
    policy: Option<PathBuf>,
}

struct Inner {
    place: Place,
    /// Whether the group was named: then only what is below it is looked at.
    named: bool,
    /// Sessions that nobody waits for any more.
    tended: Mutex<Vec<Tended>>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

/// What a [`Workspace::set`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What is in force, read back from the kernel.
    pub receipt: Receipt,
    /// The knobs that were changed, and what their files held before.
    pub before: Vec<(KnobId, String)>,
    /// What its user should know.
    pub notes: Vec<String>,
}

impl Workspace {
    /// Looks at this host and opens the best place for sessions that it has for this process: groups where it may make
    /// them, else the process backend.
    ///
    /// # Errors
    ///
    /// The host's policy cannot be read, there is no private runtime directory for locks (`CGMGR_RUNTIME_DIR` names one),
    /// or a look at the host fails in a way that says nothing about it.
    pub fn open() -> Result<Self, Error> {
        Self::of(probe::host(None), None, false)
    }

    /// The same, below a group that this process may write: a path in the hierarchy (`/delegated`), or of its directory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); the group cannot be used.
    pub fn open_at(group: &str) -> Result<Self, Error> {
        let group = group_named(group).ok_or_else(|| {
            Error::invalid(
                format!("`{}` is not a group's path", crate::text::escape(group)),
                "give an absolute path in the hierarchy without `..`, e.g. /delegated",
            )
        })?;
        Self::of(probe::host(Some(&group)), Some(Backend::Cgroupfs), true)
    }

    /// The process backend, whatever the host has: priorities, open files and CPU affinity, and no group.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn without_groups() -> Result<Self, Error> {
        Self::of(probe::host(None), Some(Backend::Process), false)
    }

    fn of(host: Host, chosen: Option<Backend>, named: bool) -> Result<Self, Error> {
        let backend = backend(&host, chosen, named)?;
        let workspace = Self {
            inner: Arc::new(Inner {
                place: Place::open(host, backend)?,
                named,
                tended: Mutex::default(),
            }),
            policy: None,
        };
        workspace.policy()?;
        Ok(workspace)
    }

    /// Takes another file than `/etc/cgmgr/host.toml` for the host's policy.
    ///
    /// # Errors
    ///
    /// It is not there, or not valid.
    pub fn with_host_policy(mut self, file: impl AsRef<Path>) -> Result<Self, Error> {
        self.policy = Some(file.as_ref().to_owned());
        self.policy()?;
        Ok(self)
    }

    /// By what means limits are kept here.
    pub fn backend(&self) -> Backend {
        self.inner.place.backend
    }

    /// This host, and why there is no place for groups on it where there is none.
    pub fn host(&self) -> &Host {
        &self.inner.place.host
    }

    /// A role from its file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, each with its place.
    pub fn role_file(&self, path: impl AsRef<Path>) -> Result<Role, Error> {
        self.role_file_with(path, &Limits::new())
    }

    /// A role from its file, with limits on top.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, each with its place.
    pub fn role_file_with(&self, path: impl AsRef<Path>, limits: &Limits) -> Result<Role, Error> {
        Role::of_file(path.as_ref(), limits, &self.host().machine)
    }

    /// A role from the text of a role file; `name` stands for the file's in messages.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, each with its place.
    pub fn role_text(&self, name: &str, text: &str) -> Result<Role, Error> {
        Role::of_text(name, text, &self.host().machine)
    }

    /// A role of limits alone.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn role(&self, limits: &Limits) -> Result<Role, Error> {
        Role::of_limits(limits, &self.host().machine)
    }

    /// A session of a role, to be started with [`Launch::spawn`].
    pub fn session<'a>(&'a self, role: &'a Role) -> Launch<'a> {
        Launch::new(self, role)
    }

    /// The sessions of this machine that this user may see, not only those that were started here.
    ///
    /// # Errors
    ///
    /// The hierarchy cannot be read.
    pub fn list(&self) -> Result<Vec<SessionView>, Error> {
        self.tend();
        let look = self.look()?;
        let mut sessions = Vec::new();
        if let (Some(tree), Some(base)) = (&look.tree, &look.base) {
            sessions = view::sessions(tree, base, look.registry.as_ref())?;
        }
        if let Some(registry) = &look.process {
            sessions.extend(view::process_sessions(registry));
        }
        Ok(sessions)
    }

    /// Changes limits of a live session: knobs and values as in a role file; `default` is what a knob is where nobody
    /// declares it. All are checked before one is written. A memory_max below what the session uses is an error.
    ///
    /// # Errors
    ///
    /// All that speaks against it, or what did not take effect.
    pub fn set(&self, session: impl AsRef<OsStr>, knobs: &[(&str, &str)]) -> Result<Changed, Error> {
        self.change(session.as_ref(), knobs, false)
    }

    /// The same; a memory_max below what the session uses is set, and what the kernel cannot take back it kills for.
    ///
    /// # Errors
    ///
    /// All that speaks against it, or what did not take effect.
    pub fn set_forced(&self, session: impl AsRef<OsStr>, knobs: &[(&str, &str)]) -> Result<Changed, Error> {
        self.change(session.as_ref(), knobs, true)
    }

    fn change(&self, session: &OsStr, knobs: &[(&str, &str)], force: bool) -> Result<Changed, Error> {
        let mut look = self.look()?;
        look.host.disks = Some(disks::disks(&look.host.hierarchy));
        let machine = &look.host.machine;
        let asked = change::all(knobs.iter().map(|(key, value)| change::one(key, value, machine)))?;
        let change = Change::of(&look, session, asked, self.policy()?.as_ref(), force)?;
        let refusals = change.plan.refusals.iter();
        let refusals = refusals.map(|refusal| Error {
            help: refusal.help.clone(),
            ..Error::failed(&refusal.message, "")
        });
        if let Some(error) = Error::all(refusals.collect()) {
            return Err(error);
        }
        let how = relimit::How {
            force,
            timeout: PATIENCE,
        };
        let changed = change.carry_out(&look, how)?;
        let warnings = change.plan.warnings.iter();
        let mut notes: Vec<String> = warnings.map(|notice| notice.message.clone()).collect();
        change::conclude(&change.target.name, &changed, how, &mut notes)?;
        Ok(Changed {
            receipt: changed.receipt,
            before: changed.before,
            notes,
        })
    }

    /// Freezes a session's whole tree, and returns when it stands still.
    ///
    /// # Errors
    ///
    /// There is no such session, it has no group, or something in it does not freeze within ten seconds (the rest is
    /// frozen then).
    pub fn freeze(&self, session: impl AsRef<OsStr>) -> Result<Frozen, Error> {
        self.frozen(session.as_ref(), true)
    }

    /// Lets a frozen session go on.
    ///
    /// # Errors
    ///
    /// There is no such session, it has no group, or a group above it is frozen.
    pub fn thaw(&self, session: impl AsRef<OsStr>) -> Result<Frozen, Error> {
        self.frozen(session.as_ref(), false)
    }

    fn frozen(&self, session: &OsStr, frozen: bool) -> Result<Frozen, Error> {
        let result = control::freeze(&self.look()?, session, frozen, PATIENCE)?;
        let name = crate::text::escape(&session.to_string_lossy());
        match control::in_the_way(&name, &result, frozen, PATIENCE) {
            Some(error) => Err(error),
            None => Ok(result),
        }
    }

    /// Kills a session's whole tree at once, and returns when nothing of it lives. Its [`Session`], where it was started
    /// here, is still to be waited for.
    ///
    /// # Errors
    ///
    /// There is no such session, or the kernel does not let it end.
    pub fn kill(&self, session: impl AsRef<OsStr>) -> Result<End, Error> {
        self.end(session.as_ref(), How::Kill)
    }

    /// Ends a session: SIGTERM to all of it, ten seconds, SIGKILL.
    ///
    /// # Errors
    ///
    /// There is no such session, or the kernel does not let it end.
    pub fn stop(&self, session: impl AsRef<OsStr>) -> Result<End, Error> {
        self.end(session.as_ref(), How::Stop)
    }

    fn end(&self, session: &OsStr, how: How) -> Result<End, Error> {
        let look = self.look()?;
        let own = std::process::id() as i32;
        let (_, found) = look.find(session)?;
        let supervisor = match &found {
            Found::Group { group, .. } => survey::identity(group).map(|identity| identity.supervisor),
            Found::Process { entry, .. } | Found::Recorded { entry, .. } => Some(entry.supervisor),
        };
        // Whoever is to put it away may be the one that asks.
        let patience = if supervisor == Some(own) {
            Duration::ZERO
        } else {
            PUT_AWAY
        };
        let silent: Progress<'_> = &mut |_| {};
        let end = control::end(&look, session, how, patience, silent)?;
        self.tend();
        Ok(end)
    }

    /// Puts away the sessions of this workspace that nobody waits for any more ([`Session`]s that were dropped, and what
    /// lived on after a command) and that are over. Starting and listing sessions does this too.
    pub fn tend(&self) {
        self.inner
            .tended()
            .retain_mut(|one| !one.is_put_away(&self.inner.place));
    }

    fn take_on(&self, mut one: Tended) {
        if !one.is_put_away(&self.inner.place) {
            self.inner.tended().push(one);
        }
    }

    fn place(&self) -> &Place {
        &self.inner.place
    }

    fn look(&self) -> Result<Look, Error> {
        Look::at(self.host().clone(), self.backend(), !self.inner.named)
    }

    /// What the host allows, as it is now.
    fn policy(&self) -> Result<Option<HostPolicy>, Error> {
        files::policy(self.policy.as_deref(), &self.host().machine).map_err(|mistakes| {
            let path = self.policy.as_deref().unwrap_or(Path::new(files::POLICY_PLACE));
            let shown = crate::text::escape(&path.to_string_lossy());
            Error {
                help: Some("nothing is done under a policy that cannot be read: `cgmgr check`".into()),
                ..Error::mistaken(format!("the host's policy {shown} is not valid"), mistakes)
            }
        })
    }
}

impl Inner {
    fn tended(&self) -> std::sync::MutexGuard<'_, Vec<Tended>> {
        self.tended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let left = std::mem::take(&mut *self.tended());
        for mut one in left {
            if !one.is_put_away(&self.place) {
                one.leave();
            }
        }
    }
}
