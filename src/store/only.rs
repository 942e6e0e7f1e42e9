//! The right to be the daemon of a store; and up to where it has told people of what is recorded, which outlives it.

use super::Directory;
use super::read::{Mark, identity, identity_of};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// The file that the daemon locks.
const DAEMON: &str = "daemon.lock";

/// The right to be the daemon, for as long as this is kept.
#[derive(Debug)]
pub struct Only {
    file: File,
}

impl Only {
    pub(super) fn take(directory: &Directory) -> io::Result<Option<Self>> {
        directory.make()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = open(directory.join(DAEMON), flags, Mode::from_raw_mode(0o600));
        let file = file.map_err(|e| directory.at(DAEMON, e.into()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file: file.into() })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(directory.at(DAEMON, e.into())),
        }
    }

    /// Whether the file is there still: whoever takes it away lets another daemon begin.
    pub fn is_there(&self, directory: &Directory) -> bool {
        let held = self.file.metadata().ok();
        held.is_some_and(|held| identity(&directory.join(DAEMON)) == Some(identity_of(&held)))
    }

    /// Up to where the one before has told people; `None` where there was none.
    pub fn mark(&mut self) -> Option<Mark> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).ok()?;
        self.file.read_to_string(&mut text).ok()?;
        Mark::from_text(&text)
    }

    /// Up to here people were told: the next one goes on from there.
    ///
    /// # Errors
    ///
    /// It cannot be written: the next one tells again what came after the last mark.
    pub fn set_mark(&mut self, mark: &Mark) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        // As long as every other, so that nothing of it is left behind.
        self.file.write_all(mark.to_text().as_bytes())
    }
}
