//! `cgmgr daemon`: watches the sessions until it is told to end.

use super::args::{DaemonArgs, Global};
use super::context::{self, CommandError, Outcome};
use super::roles;
use crate::daemon;

/// Runs the command.
pub fn daemon(_args: &DaemonArgs, global: &Global) -> Outcome {
    let place = context::place(global)?;
    let policy = roles::policy(&place.host.machine, global)?;
    let events = policy.map(|policy| policy.events().clone()).unwrap_or_default();
    daemon::run(&place, &events).map_err(|error| CommandError::failed(error.message, error.help))?;
    Ok(0)
}
