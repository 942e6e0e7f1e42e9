//! Why something was not done, for a program: which kind, what, and what to do.

use crate::backend::failure::Failure;
use crate::backend::failure::StepError;
use crate::kernel::KernelError;
use crate::role::Diagnostic;
use crate::session::failure::{FailureKind, LaunchError};
use std::fmt;

/// Which kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for cannot be meant: a role, a limit, a name that is not valid.
    Invalid,
    /// Something declared cannot be enforced here, and that was asked for.
    Unenforceable,
    /// The command was not found.
    NotFound,
    /// The command was found, and could not be executed.
    NotExecutable,
    /// Anything else: the host, the kernel, or the state of a session is in the way.
    Failed,
}

/// Why something was not done. `Display` is all of it, in lines: the message, then either the mistakes, each with its
/// place, or the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Which kind.
    pub kind: ErrorKind,
    /// What, where and why, in one line.
    pub message: String,
    /// One line of remedy.
    pub help: Option<String>,
    /// All that is wrong with a role file, or with the host's policy.
    pub mistakes: Vec<Diagnostic>,
    /// What else is wrong beside this: the other knobs of a `set`.
    pub others: Vec<Error>,
}

impl Error {
    /// Something is in the way.
    pub(crate) fn failed(message: impl fmt::Display, help: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Failed,
            message: message.to_string(),
            help: Some(help.into()),
            mistakes: Vec::new(),
            others: Vec::new(),
        }
    }

    /// What was asked for cannot be meant.
    pub(crate) fn invalid(message: impl fmt::Display, help: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Invalid,
            ..Self::failed(message, help)
        }
    }

    /// A file, or limits, with these mistakes.
    pub(super) fn mistaken(message: impl fmt::Display, mistakes: Vec<Diagnostic>) -> Self {
        Self {
            help: None,
            mistakes,
            ..Self::invalid(message, "")
        }
    }

    /// Several errors as one; `None` where there are none.
    pub(super) fn all(mut errors: Vec<Self>) -> Option<Self> {
        if errors.is_empty() {
            return None;
        }
        let mut first = errors.remove(0);
        first.others.extend(errors);
        Some(first)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for mistake in &self.mistakes {
            write!(f, "\n{mistake}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        for other in &self.others {
            write!(f, "\n{other}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<StepError> for Error {
    fn from(error: StepError) -> Self {
        Self::failed(&error, error.help())
    }
}

impl From<KernelError> for Error {
    fn from(error: KernelError) -> Self {
        Self::failed(&error, error.help())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::failed(&failure, failure.error.help())
    }
}

impl From<LaunchError> for Error {
    fn from(error: LaunchError) -> Self {
        let kind = match error.kind {
            FailureKind::Cgmgr => ErrorKind::Failed,
            FailureKind::NotExecutable => ErrorKind::NotExecutable,
            FailureKind::NotFound => ErrorKind::NotFound,
            FailureKind::Unenforceable => ErrorKind::Unenforceable,
        };
        Self {
            kind,
            help: error.help,
            ..Self::failed(error.message, "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_shown_at_once() {
        let both = Error::all(vec![
            Error::invalid("one", "do this"),
            Error::invalid("two", "do that"),
        ]);
        let text = both.unwrap().to_string();
        assert_eq!(text, "one\n  help: do this\ntwo\n  help: do that");
        assert_eq!(Error::all(Vec::new()), None);
    }
}
