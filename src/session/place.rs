//! Where sessions are made on this machine, and by which means.

use super::registry::Registry;
use crate::host::{Base, Host};
use crate::kernel::{Tree, process};
use crate::plan::path::{GroupPath, SessionName};
use crate::plan::receipt::Backend;

/// Where sessions are made on this machine, and by which means.
pub struct Place {
    /// The host.
    pub host: Host,
    /// The means.
    pub backend: Backend,
    /// The hierarchy, with the cgroupfs backend.
    pub tree: Option<Tree>,
    /// Who is in charge of which session.
    pub registry: Registry,
}

impl Place {
    /// The base, with the cgroupfs backend.
    pub fn base(&self) -> Option<(&Tree, &Base)> {
        match (&self.tree, &self.host.base) {
            (Some(tree), Ok(base)) => Some((tree, base)),
            _ => None,
        }
    }

    /// The session that the caller itself is in.
    pub fn own_session(&self) -> Option<SessionName> {
        let (_, base) = self.base()?;
        let own = GroupPath::new(&process::own_group()?)?;
        if !base.sessions.contains(&own) {
            return None;
        }
        let below = own.as_str()[base.sessions.as_str().len()..]
            .trim_start_matches('/')
            .to_owned();
        SessionName::of_directory(below.split('/').next()?)
    }
}
