//! Records on disk: one file that is appended to and a few older ones, bounded in size.
//!
//! `/var/lib/cgmgr` for root, `$XDG_STATE_HOME/cgmgr` (`~/.local/state/cgmgr`) for others; `CGMGR_STATE_DIR` names another.
//!
//! - **Many writers, and none is ever waited for.** A record is one `write(2)` to a file that is open for appending: it goes
//!   behind whatever another has written meanwhile, and comes whole.
//! - **A killed writer harms its own record only.** What is left of one that was cut (a kill, a full disk) is in one line with
//!   the next record; all begin with the same letters, and readers find where that one begins.
//! - **A full disk takes nothing that is there**, and the room of the current file is the disk's from the day that the file
//!   is made: records are kept while others cannot write any more.
//! - **Not more than [`SEGMENTS`] times [`SEGMENT`] bytes.** Whoever finds the current file full renames it, and the oldest
//!   one goes. That is done under a lock; who does not get it goes on in the old file.
//!
//! Nothing is synced: what a machine that loses its power had not written yet is lost. What the OOM killer, a full disk or
//! SIGKILL do is survived. No database: it would be larger than what it holds, and could be locked, or broken, as a whole.

mod directory;
mod kept;
mod only;
mod read;

pub use directory::Directory;
pub use kept::Kept;
pub use only::Only;
pub use read::{Mark, Reader, Tail};

use crate::record::Record;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom, fallocate, flock, open, renameat, seek, stat,
};
use rustix::io::Errno;
use std::cell::Cell;
use std::io;
use std::sync::{Mutex, PoisonError};

/// How large a file gets, in bytes.
pub const SEGMENT: u64 = 4 << 20;
/// How many files there are at most, the current one among them.
pub const SEGMENTS: u32 = 4;
/// The current file.
const CURRENT: &str = "records.jsonl";

/// Where records are put.
#[derive(Debug)]
pub struct Store {
    directory: Directory,
    current: Mutex<Option<Current>>,
}

/// The file that was opened as the current one.
#[derive(Debug)]
struct Current {
    file: OwnedFd,
    /// Its inode and device, once they were asked for.
    id: Cell<Option<(u64, u64)>>,
}

impl Current {
    fn id(&self) -> Option<(u64, u64)> {
        if self.id.get().is_none() {
            let found = rustix::fs::fstat(self.file.as_fd()).ok()?;
            self.id.set(Some((found.st_ino, found.st_dev)));
        }
        self.id.get()
    }
}

/// The name of a file: 0 is the current one.
fn file_name(age: u32) -> String {
    match age {
        0 => CURRENT.to_owned(),
        age => format!("{CURRENT}.{age}"),
    }
}

impl Store {
    /// The store in `directory`. Nothing is made before the first record.
    pub fn new(directory: Directory) -> Self {
        Self {
            directory,
            current: Mutex::default(),
        }
    }

    /// Where it is.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or written, or the disk is full: the record is lost, and no other.
    pub fn append(&self, record: &Record) -> io::Result<()> {
        let line = format!("{}\n", record.to_text());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match current.take() {
            Some(kept) if self.is_current(&kept) => kept,
            _ => Current {
                file: self.open()?,
                id: Cell::default(),
            },
        };
        // In one write: others write too.
        let written = loop {
            match rustix::io::write(&now.file, line.as_bytes()) {
                Err(Errno::INTR) => {}
                other => break other.map_err(|e| self.directory.at(CURRENT, e.into()))?,
            }
        };
        // Where a file that is appended to ends is known after a write only, and without asking again.
        let end = seek(&now.file, SeekFrom::Current(0)).unwrap_or(0);
        if end == line.len() as u64 {
            // The first in a new file. Where there is no room for all of it there may be for a record at a time.
            let _ = fallocate(&now.file, FallocateFlags::KEEP_SIZE, 0, SEGMENT);
        }
        if end > SEGMENT {
            // Full, by this one or by another just now.
            self.rotate(&now)?;
        } else {
            *current = Some(now);
        }
        if written < line.len() {
            return Err(self.directory.at(CURRENT, Errno::NOSPC.into()));
        }
        Ok(())
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let path = self.directory.join(CURRENT);
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let try_open = || open(&path, flags, Mode::from_raw_mode(0o600));
        let opened = match try_open() {
            Err(Errno::NOENT) => {
                self.directory.make()?;
                try_open()
            }
            other => other,
        };
        opened.map_err(|e| self.directory.at(CURRENT, e.into()))
    }

    /// Whether a file that was opened as the current one still is: another may have renamed it since.
    fn is_current(&self, current: &Current) -> bool {
        let Ok(named) = stat(self.directory.join(CURRENT)) else {
            return false;
        };
        current.id() == Some((named.st_ino, named.st_dev))
    }

    /// Makes room for a new current file, where `full` still is the current one.
    fn rotate(&self, full: &Current) -> io::Result<()> {
        let directory = self.directory.open()?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            // Another one is at it.
            Err(_) => return Ok(()),
        }
        if !self.is_current(full) {
            return Ok(());
        }
        // From the oldest on: killed in between, there is a number less, and nothing is lost but what was to go.
        for age in (0..SEGMENTS - 1).rev() {
            match renameat(&directory, file_name(age), &directory, file_name(age + 1)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(self.directory.at(&file_name(age), e.into())),
            }
        }
        Ok(())
    }

    /// The right to be the daemon of this store, for as long as it is kept; `None` where another one is.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn only_daemon(&self) -> io::Result<Option<Only>> {
        Only::take(&self.directory)
    }

    /// Reads all records from the oldest on.
    ///
    /// # Errors
    ///
    /// The directory is there and cannot be read. One that is not there has no records.
    pub fn read(&self) -> io::Result<Reader> {
        Reader::open(&self.directory)
    }

    /// Sessions of which the full record is kept until it is forgotten.
    pub fn kept(&self) -> Kept<'_> {
        Kept::new(&self.directory)
    }
}

#[cfg(test)]
mod tests;
