//! The directory that records are in: private to its user.

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A directory for records. It is another user's to read only if that user is root: command lines are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// The caller's: `$CGMGR_STATE_DIR`, `/var/lib/cgmgr` for root, `$XDG_STATE_HOME/cgmgr` or `~/.local/state/cgmgr` for
    /// others. `None` where nothing says where a user's home is.
    pub fn of_caller() -> Option<Self> {
        let named = |variable: &str| {
            let value = std::env::var_os(variable).map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        if let Some(path) = named("CGMGR_STATE_DIR") {
            return Some(Self(path));
        }
        if rustix::process::geteuid().is_root() {
            return Some(Self("/var/lib/cgmgr".into()));
        }
        let state = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")));
        Some(Self(state?.join("cgmgr")))
    }

    /// This one.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Something in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes it, and what it is in, if it is missing.
    pub(super) fn make(&self) -> io::Result<()> {
        self.make_below("")
    }

    /// Makes a directory in it, and it.
    pub(super) fn make_below(&self, name: &str) -> io::Result<()> {
        let path = self.join(name);
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&path);
        made.map_err(|e| self.at(name, e))
    }

    /// Opens it. It must be the caller's and nobody else's to write: another could put a link to any file there.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let meta = std::fs::symlink_metadata(&self.0).map_err(|e| self.at("", e))?;
        let euid = rustix::process::geteuid().as_raw();
        if !meta.is_dir() || meta.uid() != euid || meta.mode() & 0o022 != 0 {
            let why = format!("it is not a directory that only user {euid} can write");
            return Err(self.at("", io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.0, flags, Mode::empty()).map_err(|e| self.at("", e.into()))
    }

    /// The error, with the place.
    pub(super) fn at(&self, name: &str, error: io::Error) -> io::Error {
        let path = if name.is_empty() {
            self.0.clone()
        } else {
            self.join(name)
        };
        let path = crate::text::escape(&path.to_string_lossy());
        io::Error::new(error.kind(), format!("{path}: {error}"))
    }
}
