//! Where sessions are made on this machine, and by which means.

use super::failure::LaunchError;
use super::registry::{self, Registry};
use crate::host::{Base, Host};
use crate::kernel::{Tree, process};
use crate::path::{GroupPath, SessionName};
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
    /// A place on `host` (see [`probe::host`](crate::kernel::probe::host)) that uses `backend`. The process backend,
    /// the default of its type, needs no set-up and no rights.
    ///
    /// # Errors
    ///
    /// The hierarchy cannot be opened, or there is no private runtime directory for locks and records.
    pub fn open(host: Host, backend: Backend) -> Result<Self, LaunchError> {
        let (tree, scope) = match (&host.base, backend, host.hierarchy.mount()) {
            (Ok(base), Backend::Cgroupfs, Some(mount)) => {
                let tree = Tree::open(&mount.point)?;
                let id = tree.group(&base.group)?.id()?;
                (Some(tree), registry::base_scope(base, id))
            }
            _ => (None, registry::PROCESS_SCOPE.to_owned()),
        };
        let registry = Registry::open(&scope).map_err(|error| {
            LaunchError::new(
                format!("cannot use the runtime directory: {error}"),
                "name a private one with CGMGR_RUNTIME_DIR",
            )
        })?;
        Ok(Self {
            host,
            backend,
            tree,
            registry,
        })
    }

    /// The base, with the cgroupfs backend.
    pub fn base(&self) -> Option<(&Tree, &Base)> {
        match (&self.tree, &self.host.base) {
            (Some(tree), Ok(base)) => Some((tree, base)),
            _ => None,
        }
    }

    /// Waits for the right to change what all sessions share, for as long as what is returned is kept.
    ///
    /// # Errors
    ///
    /// The runtime directory cannot be used.
    pub fn alone(&self) -> Result<impl Drop + use<>, LaunchError> {
        self.registry.alone().map_err(|error| {
            LaunchError::new(
                format!("cannot use the runtime directory: {error}"),
                "make it writable, or name another with CGMGR_RUNTIME_DIR",
            )
        })
    }

    /// Takes charge of a session for as long as what is returned is kept; `None` where somebody else is in charge.
    pub fn take_charge(&self, name: &SessionName) -> Option<Box<dyn Send>> {
        let lock = self.registry.lock(name).ok().flatten()?;
        Some(Box::new(lock))
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
