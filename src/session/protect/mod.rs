//! Puts a process into agent.slice, where its memory is protected from what sessions do, and makes it the last that the
//! kernel picks: this very process, which may become the agent then, or one that runs already.
//!
//! Where the slice is cgmgr's, the process goes into the slice itself and not into a leaf of its own: of a process that is
//! killed nothing is left there then, and the slice's protection is its own in full. Where it is systemd's, systemd makes a
//! scope for it there. Children that the process has already stay where they are.

mod priorities;
mod scope;
mod shield;
mod slice;
mod way;

use self::way::Way;
use super::failure::{FailureKind, LaunchError, not_started};
use super::place::Place;
use super::{adopt, command};
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::held::{self, Held};
use crate::kernel::sys::{self, Child, Refusal, Stage};
use crate::kernel::{Group, process};
use crate::limits::Settings;
use crate::path::{GroupPath, SessionName};
use crate::plan::receipt::Receipt;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::ffi::OsString;

pub use scope::take_back_slice_of_user;

/// Whom to protect.
#[derive(Debug)]
pub enum Whom {
    /// This process, with all its threads.
    This,
    /// One that runs.
    Other(Held),
}

impl Whom {
    /// A process that runs.
    ///
    /// # Errors
    ///
    /// There is none of that pid, or it is a thread.
    pub fn other(pid: i32) -> Result<Self, LaunchError> {
        adopt::hold(pid).map(Self::Other)
    }

    /// What it was started as.
    pub fn command_line(&self) -> Vec<OsString> {
        match held::command_line(self.pid()) {
            // It has emptied its command line, or is about to end.
            none if none.is_empty() => process::comm(self.pid())
                .map(OsString::from)
                .into_iter()
                .collect(),
            words => words,
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        match self {
            Self::This => std::process::id() as i32,
            Self::Other(held) => held.pid,
        }
    }

    /// The process, for messages.
    fn describe(&self) -> String {
        match self {
            Self::This => "this process".to_owned(),
            Self::Other(held) => format!("pid {} ({})", held.pid, held.comm),
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// What `[agent]` declares. The slices, where they are missing, are made from these too.
    pub settings: &'a Settings,
    /// Whom.
    pub whom: Whom,
    /// The name of its scope, where it gets one; `None` takes `stem` with a number that was never used.
    pub name: Option<SessionName>,
    /// What the agent is called where it has no name.
    pub stem: SessionName,
    /// The agent's command line, for people.
    pub argv: Vec<OsString>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// The process.
    pub pid: i32,
    /// The group that it is in now; `None` where it has none that cgmgr could choose (process backend).
    pub group: Option<GroupPath>,
    /// It was there before.
    pub already: bool,
    /// Memory that the process held before, in bytes. It stays charged to the group that it was in.
    pub left_behind: Option<u64>,
    /// What is in force of what `[agent]` declares.
    pub receipt: Receipt,
    /// What its user should know beside that.
    pub notes: Vec<String>,
}

/// Protects a process: see the module.
///
/// # Errors
///
/// It is in a session, or a process that systemd alone may place, or the kernel or systemd refuses to. Nothing was done
/// then, apart from slices that were missing. What cannot be had of `[agent]` is no error: the receipt says so.
pub fn protect(request: &Request<'_>, place: &Place) -> Result<Protection, LaunchError> {
    let from = group_of(request.whom.pid());
    let mut done = protect_from(request, place, from.as_ref())?;
    if done.left_behind.is_some() {
        left_behind(from.as_ref(), &mut done);
    }
    Ok(done)
}

fn group_of(pid: i32) -> Option<GroupPath> {
    GroupPath::new(&process::group_of(pid)?)
}

/// The same for a process that is in the group `from` now, without a word of what it had before.
fn protect_from(
    request: &Request<'_>,
    place: &Place,
    from: Option<&GroupPath>,
) -> Result<Protection, LaunchError> {
    let pid = request.whom.pid();
    let way = way::find(request, place, from)?;
    let mut done = Protection {
        pid,
        group: None,
        already: way == Way::There,
        left_behind: None,
        receipt: Receipt::default(),
        notes: Vec::new(),
    };
    let held_before = process::rss(pid, place.host.machine.page_size);
    if let (Way::Write | Way::Scope(_), Some((tree, base))) = (&way, place.base()) {
        slice::ready(request.settings, place, tree, base, &mut done.notes)?;
        match &way {
            Way::Scope(manager) => scope::enter(request, *manager, tree, base, &mut done.notes)?,
            _ => enter(&tree.group(&base.agent)?, &request.whom)?,
        }
        done.left_behind = held_before;
    }
    if way != Way::Nowhere {
        done.group = group_of(pid);
    }
    shield::look(request, place, &way, &mut done);
    priorities::set(request, &mut done);
    Ok(done)
}

/// Into the slice itself.
fn enter(agent: &Group, whom: &Whom) -> Result<(), LaunchError> {
    let pid = match whom {
        // The kernel takes 0 for whoever writes it.
        Whom::This => "0".to_owned(),
        Whom::Other(held) => held.pid.to_string(),
    };
    agent.write("cgroup.procs", &pid).map_err(|error| KernelError {
        doing: Doing::Move,
        ..error
    })?;
    if let Whom::Other(held) = whom
        && !held.lives()
    {
        return Err(gone(held));
    }
    Ok(())
}

/// A process that ended while it was being protected.
fn gone(held: &Held) -> LaunchError {
    LaunchError::new(
        format!("pid {} ({}) has ended meanwhile", held.pid, held.comm),
        "name a process that runs",
    )
}

/// What of a process that ran before is not protected.
fn left_behind(from: Option<&GroupPath>, done: &mut Protection) {
    if let (Some(from), Some(bytes)) = (from, done.left_behind) {
        done.notes.push(format!(
            "the {} that it held before stay charged to {from}, which is not protected: only what it takes from now on is",
            crate::text::bytes(bytes)
        ));
    }
    let children = process::descendants(done.pid);
    if !children.is_empty() {
        let some: Vec<String> = children
            .iter()
            .take(5)
            .map(|pid| process::describe(*pid))
            .collect();
        done.notes.push(format!(
            "what it had started before stays where it is: {}{}",
            some.join(", "),
            if children.len() > 5 { " and more" } else { "" }
        ));
    }
}

/// Protects this very process and becomes the agent. Returns only when that failed. `tell` is given what came of the
/// protection before that, and may say why the agent must not be started after all.
///
/// The agent has everything of this process's: its pid, terminal, environment, descriptors and parent, which so learns its
/// exit status.
pub fn protect_and_exec(
    request: &Request<'_>,
    place: &Place,
    tell: &dyn Fn(&Protection) -> Result<(), LaunchError>,
) -> LaunchError {
    let child = match command::as_it_is(&request.argv, std::env::vars_os()) {
        Ok(child) => child,
        Err(message) => return LaunchError::new(message, "give a command that can be executed"),
    };
    let refused = |errno| {
        let refusal = Refusal {
            stage: Stage::Exec,
            errno,
            value: 0,
            fatal: true,
        };
        not_started(&refusal, &request.argv[0], None, &child)
    };
    // Seen to first, so that for a slip of the pen nothing is made.
    if let Err(errno) = can_run(&child) {
        return refused(errno);
    }
    let from = group_of(request.whom.pid());
    let told = protect_from(request, place, from.as_ref()).and_then(|done| tell(&done));
    if let Err(error) = told {
        return error;
    }
    match sys::replace(&child).iter().find(|r| r.fatal) {
        Some(fatal) => refused(fatal.errno),
        None => LaunchError::new(
            "the command could not be executed",
            "`cgmgr doctor` shows what this host can do",
        ),
    }
}

/// Whether there is a file that execve(2) could run.
fn can_run(child: &Child) -> Result<(), Errno> {
    let mut why = Errno::NOENT;
    for file in &child.candidates {
        match access(file, Access::EXEC_OK) {
            Ok(()) => return Ok(()),
            Err(Errno::ACCESS) => why = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(why)
}

/// Why nothing is started where `[agent]` must hold as it is declared, and does not.
pub fn not_all(done: &Protection) -> Option<LaunchError> {
    let short: Vec<String> = done
        .receipt
        .unconfined()
        .map(|e| format!("{} ({})", e.knob.knob().key, e.outcome))
        .collect();
    (!short.is_empty()).then(|| LaunchError {
        kind: FailureKind::Unenforceable,
        message: format!(
            "not everything declared can be enforced here: {}",
            short.join(", ")
        ),
        help: Some(
            "`cgmgr doctor` says what is missing; without --require-limits the command would run".into(),
        ),
    })
}
