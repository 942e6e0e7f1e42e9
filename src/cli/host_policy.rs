//! The host's policy: which file it is, and reading it for the commands that use limits.

use super::args::Global;
use super::role_file;
use crate::host::Machine;
use crate::role::{Diagnostic, HostPolicy};
use std::path::Path;

/// Where an operator puts it. Without the file everything is allowed.
pub const PLACE: &str = "/etc/cgmgr/host.toml";

/// The policy in force; None: there is none. A file that was named has to be there.
///
/// # Errors
///
/// All that is wrong with it. What an operator meant to forbid is then not known, so that nothing may go on.
pub fn read(global: &Global, machine: &Machine) -> Result<Option<HostPolicy>, Vec<Diagnostic>> {
    let path = global.host_policy.as_deref().unwrap_or(Path::new(PLACE));
    match role_file::read_policy(path) {
        Err(unreadable) => Err(vec![*unreadable]),
        Ok(Some(source)) => HostPolicy::parse(source, machine).map(Some),
        Ok(None) if global.host_policy.is_none() => Ok(None),
        Ok(None) => Err(vec![Diagnostic::about_file(
            path,
            "there is no such file",
            Some(format!("check the path; the usual place is {PLACE}")),
        )]),
    }
}
