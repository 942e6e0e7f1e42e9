//! Where sessions are made on this machine, and by which means.

use super::failure::LaunchError;
use super::registry::{self, Registry};
use crate::host::{Base, Host};
use crate::kernel::{Group, KernelError, Tree, disks, process};
use crate::limits::{KnobId, Settings};
use crate::path::{GroupPath, SessionName};
use crate::plan::receipt::Backend;
use crate::store::{Directory, Store};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A sweep is due after this many launches at the earliest.
const SWEEP_AT_LEAST: usize = 16;

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
    /// Where records are put; none where nothing says where a user's home is.
    pub store: Option<Arc<Store>>,
    /// Launches until it is time to sweep again.
    sweep_in: AtomicUsize,
    /// Control files that groups of sessions are known to have.
    files: Mutex<BTreeSet<&'static str>>,
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
            (Ok(base), Backend::Cgroupfs | Backend::Scope, Some(mount)) => {
                let tree = Tree::open(&mount.point)?;
                let scope = registry::base_scope(base, || tree.id(&base.group))?;
                (Some(tree), scope)
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
            store: Directory::of_caller().map(|directory| Arc::new(Store::new(directory))),
            sweep_in: AtomicUsize::new(0),
            files: Mutex::default(),
        })
    }

    /// Whether this launch is to sweep: the first one here, and then one in as many as there were groups to look at, so
    /// that however many sessions live a launch costs the same.
    pub(super) fn is_time_to_sweep(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.sweep_in.fetch_update(Relaxed, Relaxed, one_less).is_err()
    }

    /// Whether this kernel gives groups of sessions, whose parent is `parent`, the control file. What it has it keeps.
    pub(super) fn has_file(&self, parent: &Group, file: &'static str) -> Result<bool, KernelError> {
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.contains(file) || (parent.try_has(file)? && known.insert(file)))
    }

    /// Remembers how many groups a sweep has looked at.
    pub(super) fn swept(&self, groups: usize) {
        self.sweep_in.store(groups.max(SWEEP_AT_LEAST), Relaxed);
    }

    /// The base, with the cgroupfs backend.
    pub fn base(&self) -> Option<(&Tree, &Base)> {
        match (&self.tree, &self.host.base) {
            (Some(tree), Ok(base)) => Some((tree, base)),
            _ => None,
        }
    }

    /// The host, with its disks where these settings make them matter.
    pub(super) fn host_for(&self, settings: &Settings) -> Cow<'_, Host> {
        let asks = settings.get(KnobId::IoWeight).value.is_some();
        if !asks || self.host.disks.is_some() {
            return Cow::Borrowed(&self.host);
        }
        let mut host = self.host.clone();
        host.disks = Some(disks::disks(&host.hierarchy));
        Cow::Owned(host)
    }

    /// Whether the hierarchy is seen from inside a cgroup namespace: then its root has limits and counters too.
    pub fn is_namespaced(&self) -> bool {
        self.host.hierarchy.mount().is_some_and(|m| !m.true_root)
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

    /// The group that the caller itself is in.
    pub fn own_group(&self) -> Option<GroupPath> {
        self.base()?;
        GroupPath::new(&process::own_group()?)
    }

    /// The session that the caller itself is in.
    pub fn own_session(&self) -> Option<SessionName> {
        self.session_of(&self.own_group()?)
    }

    /// The session whose group, or a group below it, this is.
    pub fn session_of(&self, own: &GroupPath) -> Option<SessionName> {
        let (_, base) = self.base()?;
        base.session_of(own)
    }
}
