//! What commands about live sessions look at.

use super::args::Global;
use super::context::{self, CommandError};

pub use crate::workspace::look::{Found, Look};

/// Looks at the machine.
pub fn look(global: &Global) -> Result<Look, CommandError> {
    let (host, backend) = context::host(global)?;
    Ok(Look::at(host, backend, global.cgroup_root.is_none())?)
}
