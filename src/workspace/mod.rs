//! The face of cgmgr for programs that embed it.

pub mod change;
pub mod control;
mod error;
pub mod look;

pub use error::{Error, ErrorKind};
