//! Finds sessions: directories that come and go where sessions are made.

use crate::host::Base;
use crate::kernel::{KernelError, Tree};
use crate::path::GroupPath;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// A group that has no mark yet is looked at again after so long, and then after twice the time: it may never have one.
const UNMARKED: Duration = Duration::from_millis(50);
/// The longest pause between two looks.
const AT_MOST: Duration = Duration::from_secs(10);

/// Tells when to look for sessions.
#[derive(Debug)]
pub(super) struct Finding {
    /// None: no more of these are to be had, and it is looked every second.
    inotify: Option<OwnedFd>,
    again: Option<Instant>,
    pause: Duration,
    warned: bool,
    /// A place where sessions are made is not watched.
    blind: bool,
    /// Directories in which a file was written: the watches of [`Finding::watch_writes`].
    written: Vec<i32>,
    /// There was more than the kernel keeps.
    lost: bool,
}

impl Finding {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        if let Err(errno) = &inotify {
            tracing::warn!(
                "nothing tells of new sessions ({errno}): they are looked for once a second; raise \
                 fs.inotify.max_user_instances"
            );
        }
        Self {
            inotify: inotify.ok(),
            again: None,
            pause: UNMARKED,
            warned: false,
            blind: false,
            written: Vec::new(),
            lost: false,
        }
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Whether sessions may come and go without being told of.
    pub(super) fn is_blind(&self) -> bool {
        self.blind || self.inotify.is_none()
    }

    /// Watches where sessions are made. A directory that is watched already stays so; one that was made anew is another.
    pub(super) fn watch(&mut self, tree: &Tree, base: &Base) {
        let Some(inotify) = &self.inotify else {
            self.again = Some(Instant::now() + super::POLL);
            return;
        };
        self.blind = false;
        let what = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        // The slice itself may be made with the first session.
        let above = base.workloads.parent();
        let places = [&base.sessions, &base.workloads, &base.delegated_unit()];
        for path in places.into_iter().chain(&above) {
            match inotify::add_watch(inotify, tree.display(path), what) {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    self.blind = true;
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(
                            "{path} cannot be watched ({errno}): it is looked at every ten seconds; raise \
                             fs.inotify.max_user_watches"
                        );
                    }
                }
            }
        }
    }

    /// Takes what has come in; whether something came or went, or may have.
    pub(super) fn happened(&mut self) -> bool {
        let happened = self.take();
        if happened {
            self.pause = UNMARKED;
            self.again = None;
        }
        happened
    }

    /// A look that was to be is about to be: takes what has come in.
    pub(super) fn begins(&mut self) {
        self.again = None;
        self.take();
    }

    fn take(&mut self) -> bool {
        let Some(inotify) = &self.inotify else { return true };
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(inotify, &mut space);
        let mut happened = false;
        while let Ok(event) = events.next() {
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.lost = true;
            }
            if what.contains(ReadFlags::CLOSE_WRITE) {
                self.written.push(event.wd());
            }
            happened |= what.intersects(ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::QUEUE_OVERFLOW);
        }
        happened
    }

    /// Has the kernel tell of control files of this group that somebody writes; not of those that it changes itself. `None`
    /// where it does not.
    pub(super) fn watch_writes(&self, tree: &Tree, group: &GroupPath) -> Option<i32> {
        let what = WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        inotify::add_watch(self.inotify.as_ref()?, tree.display(group), what).ok()
    }

    /// These watches are not needed any more. The kernel keeps one of a group that was removed for as long as this process
    /// lives (kernfs never says that a directory is gone for good), and each counts against fs.inotify.max_user_watches.
    pub(super) fn forget_writes(&self, watches: &[i32]) {
        let Some(inotify) = &self.inotify else { return };
        for watch in watches {
            let _ = inotify::remove_watch(inotify, *watch);
        }
    }

    /// The watches of those in which somebody wrote since the last time; `None` where it may be any.
    pub(super) fn take_written(&mut self) -> Option<Vec<i32>> {
        let written = std::mem::take(&mut self.written);
        (!std::mem::take(&mut self.lost)).then_some(written)
    }

    /// There is one that cannot be told yet.
    pub(super) fn look_again(&mut self) {
        let soon = Instant::now() + self.pause;
        self.pause = (2 * self.pause).min(AT_MOST);
        self.again = Some(self.again.map_or(soon, |again| again.min(soon)));
    }

    /// A session cannot be watched; said once.
    pub(super) fn warn(&mut self, error: &KernelError) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!("not every session is watched: {error}");
        }
    }

    /// When to look whatever happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }
}
