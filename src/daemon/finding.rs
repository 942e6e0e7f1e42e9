//! Finds sessions: directories that come and go where sessions are made.

use crate::host::Base;
use crate::kernel::{Group, Tree, survey};
use crate::path::{GroupPath, SessionName};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// A group that has no mark yet is looked at again after so long.
const UNMARKED: Duration = Duration::from_millis(50);

/// Tells when to look for sessions.
#[derive(Debug)]
pub(super) struct Finding {
    inotify: OwnedFd,
    again: Option<Instant>,
    warned: bool,
}

impl Finding {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            again: None,
            warned: false,
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Watches where sessions are made. A directory that is watched already stays so; one that was made anew is another.
    pub(super) fn watch(&mut self, tree: &Tree, base: &Base) {
        let what = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        for path in [&base.sessions, &base.workloads, &base.delegated_unit()] {
            match inotify::add_watch(&self.inotify, tree.display(path), what) {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(
                            "{path} cannot be watched ({errno}): it is looked at every ten seconds"
                        );
                    }
                }
            }
        }
    }

    /// Takes what has come in.
    pub(super) fn take(&mut self) {
        self.again = None;
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        while events.next().is_ok() {}
    }

    /// There is one that cannot be told yet.
    pub(super) fn look_again(&mut self) {
        self.again.get_or_insert(Instant::now() + UNMARKED);
    }

    /// When to look whatever happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }
}

/// Sessions that have a group.
pub(super) fn sessions(tree: &Tree, base: &Base) -> Vec<(SessionName, GroupPath, Group)> {
    match survey::session_groups(tree, base) {
        Ok(groups) => groups.filter_map(Result::ok).collect(),
        Err(error) => {
            tracing::warn!("{error}");
            Vec::new()
        }
    }
}
