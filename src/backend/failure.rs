//! Why a plan was not carried out, and what is left of it.

use super::slices;
use crate::kernel::KernelError;
use crate::systemd::{BusError, Reason};
use std::fmt;

/// A step that failed, and what became of the ones before it.
#[derive(Debug)]
pub struct Failure {
    /// Why the step failed.
    pub error: StepError,
    /// Undo steps that failed too: what is left behind.
    pub left: Vec<String>,
}

/// Why a step failed.
#[derive(Debug)]
pub enum StepError {
    /// The kernel refused.
    Kernel(KernelError),
    /// systemd refused.
    Systemd(slices::SystemdError),
    /// systemd refused a request over D-Bus.
    Bus(BusError),
}

impl From<BusError> for StepError {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl StepError {
    /// Whether what was to be changed is gone.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Kernel(error) => error.is_gone(),
            Self::Systemd(_) => false,
            Self::Bus(error) => error.reason == Reason::NoSuchUnit,
        }
    }
}

impl From<KernelError> for StepError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Systemd(error) => error.fmt(f),
            Self::Bus(error) => error.fmt(f),
        }
    }
}

impl StepError {
    /// One line of remedy.
    pub fn help(&self) -> String {
        match self {
            Self::Kernel(error) => error.help().to_owned(),
            Self::Systemd(error) => error.help.clone(),
            Self::Bus(error) => error.help.clone(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        for left in &self.left {
            write!(f, "; could not undo: {left}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        Self {
            error: error.into(),
            left: Vec::new(),
        }
    }
}
