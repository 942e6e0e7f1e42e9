//! What commands share: the place where sessions are made, and how things are said.

use super::args::{BackendChoice, Global};
use crate::host::Host;
use crate::path::GroupPath;
use crate::plan::receipt::Backend;
use crate::plan::step::Notice;
use crate::session::launch::Place;
use crate::workspace::{self, Error, ErrorKind, group_named};
use clap::ColorChoice;
use serde_json::{Value as Json, json};
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// The reader of standard output went away (`cgmgr status | head`): no failure of ours, and nobody to tell.
const READER_GONE: &str = "nobody reads standard output any more";

/// A failure of a command, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// The exit status.
    pub status: u8,
    /// What, where and why.
    pub message: String,
    /// One line of remedy.
    pub help: Option<String>,
}

impl CommandError {
    /// Whether there is only nobody left who reads.
    pub fn is_reader_gone(&self) -> bool {
        self.message == READER_GONE
    }

    /// Exit status 1: it failed.
    pub fn failed(message: impl fmt::Display, help: impl Into<String>) -> Self {
        Self {
            status: 1,
            message: message.to_string(),
            help: Some(help.into()),
        }
    }

    /// Exit status 2: what was typed cannot be meant.
    pub fn usage(message: impl fmt::Display, help: impl Into<String>) -> Self {
        Self {
            status: 2,
            ..Self::failed(message, help)
        }
    }
}

impl From<crate::kernel::KernelError> for CommandError {
    fn from(error: crate::kernel::KernelError) -> Self {
        Self::failed(&error, error.help())
    }
}

impl From<crate::backend::failure::Failure> for CommandError {
    fn from(failure: crate::backend::failure::Failure) -> Self {
        Self::failed(&failure, failure.error.help())
    }
}

impl From<crate::backend::failure::StepError> for CommandError {
    fn from(error: crate::backend::failure::StepError) -> Self {
        Self::failed(&error, error.help())
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        Self {
            status: if error.kind == ErrorKind::Invalid { 2 } else { 1 },
            message: error.message,
            help: error.help,
        }
    }
}

impl From<crate::session::launch::LaunchError> for CommandError {
    fn from(error: crate::session::launch::LaunchError) -> Self {
        Self {
            status: 1,
            message: error.message,
            help: error.help,
        }
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                status: 0,
                message: READER_GONE.into(),
                help: None,
            };
        }
        Self::failed(error, "is the output closed, or the disk full?")
    }
}

/// The result of a command: its exit status.
pub type Outcome = Result<u8, CommandError>;

/// The base the user named, if he did.
pub fn named_base(global: &Global) -> Result<Option<GroupPath>, CommandError> {
    let Some(text) = &global.cgroup_root else {
        return Ok(None);
    };
    group_named(text).map(Some).ok_or_else(|| {
        CommandError::usage(
            format!(
                "--cgroup-root `{}` is not a group's path",
                crate::text::escape(text)
            ),
            "give an absolute path in the hierarchy without `..`, e.g. /delegated",
        )
    })
}

/// The backend the user asked for, if he did.
pub fn chosen(global: &Global) -> Option<Backend> {
    match global.backend {
        BackendChoice::Auto => None,
        BackendChoice::Cgroupfs => Some(Backend::Cgroupfs),
        BackendChoice::Scope => Some(Backend::Scope),
        BackendChoice::Process => Some(Backend::Process),
    }
}

/// The host and the backend in force.
pub fn host(global: &Global) -> Result<(Host, Backend), CommandError> {
    let chosen = chosen(global);
    let host = workspace::host(named_base(global)?.as_ref(), chosen);
    let backend = workspace::backend(&host, chosen, global.cgroup_root.is_some())?;
    Ok((host, backend))
}

/// The place where sessions are made.
pub fn place(global: &Global) -> Result<Place, CommandError> {
    let (host, backend) = host(global)?;
    Ok(Place::open(host, backend)?)
}

/// Whether what goes to standard error may be coloured.
pub fn colour(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    }
}

/// One line of cgmgr's on standard error. A closed one is nobody's business.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "cgmgr: {line}");
}

/// An error, with its remedy below.
pub fn say_error(error: &CommandError) {
    say(format_args!("error: {}", error.message));
    help(error.help.as_deref());
}

/// A warning.
pub fn warn(line: impl fmt::Display) {
    say(format_args!("warning: {line}"));
}

/// The remedy for what was said before.
pub fn help(remedy: Option<&str>) {
    if let Some(remedy) = remedy {
        let _ = writeln!(io::stderr(), "  help: {remedy}");
    }
}

/// A notice as a warning, with its remedy.
pub fn warn_notice(notice: &Notice) {
    warn(&notice.message);
    help(notice.help.as_deref());
}

/// A JSON value on standard output.
pub fn print_json(value: &Json) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value:#}")?;
    Ok(())
}

/// An error for a program.
pub fn error_json(error: &CommandError) -> Json {
    json!({ "error": error.message, "help": error.help })
}
