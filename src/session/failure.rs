//! Why a session was not started, and which exit status that is.

use super::user::User;
use crate::backend::failure::Failure;
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::sys::{Child, Refusal, Stage};
use rustix::io::Errno;

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
    /// cgmgr itself failed.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
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

/// What a fatal step of the new process means.
pub(super) fn not_started(
    fatal: &Refusal,
    program: &std::ffi::OsStr,
    user: Option<&User>,
    child: &Child,
) -> LaunchError {
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
        (Stage::Directory, _) => {
            let directory = child.directory.as_deref().unwrap_or_default();
            LaunchError::new(
                format!(
                    "cannot run `{shown}` in {}: {reason}",
                    crate::text::escape(&directory.to_string_lossy())
                ),
                "name a directory that its user may enter",
            )
        }
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
        (Stage::Nofile | Stage::OomScore | Stage::Nice, _) => LaunchError {
            kind: FailureKind::Unenforceable,
            message: format!(
                "not everything declared can be enforced here: {} ({reason})",
                match fatal.stage {
                    Stage::Nofile => "nofile",
                    Stage::OomScore => "oom_score_adj",
                    _ => "nice",
                }
            ),
            help: Some("run as root, or without --require-limits".into()),
        },
        _ => LaunchError::new(
            format!("cannot set up the command's standard streams: {reason}"),
            "check --log",
        ),
    }
}
