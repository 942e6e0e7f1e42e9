//! The command line. Only this module prints.

pub mod check;
pub mod explain;
pub mod role_file;
