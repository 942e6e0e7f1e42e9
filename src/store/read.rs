//! Reads records, from the oldest on, and waits for new ones.

use super::{Directory, SEGMENTS, file_name};
use crate::record::Record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// All records that there are, from the oldest on.
#[derive(Debug)]
pub struct Reader {
    /// The files, the oldest one last.
    files: Vec<File>,
    lines: Lines,
    /// Lines that are no records: cut by a kill or a full disk, or another version's.
    pub unreadable: u64,
}

impl Reader {
    pub(super) fn open(directory: &Directory) -> io::Result<Self> {
        let mut files = Vec::new();
        let mut seen = BTreeSet::new();
        // From the current one on: a file that is renamed meanwhile is met again, and not missed.
        for age in 0..SEGMENTS {
            let file = match File::open(directory.join(&file_name(age))) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| directory.at(&file_name(age), e))?,
            };
            let meta = file.metadata().map_err(|e| directory.at(&file_name(age), e))?;
            if seen.insert(identity_of(&meta)) {
                files.push(file);
            }
        }
        Ok(Self {
            files,
            lines: Lines::default(),
            unreadable: 0,
        })
    }

    /// The next line, as it is written.
    pub fn next_line(&mut self) -> Option<String> {
        loop {
            let file = self.files.last_mut()?;
            if let Some(line) = self.lines.next(file) {
                return Some(line);
            }
            // What has no end of line was cut, and nothing was written to this file after it.
            self.unreadable += u64::from(self.lines.forget_rest());
            self.files.pop();
        }
    }
}

impl Iterator for Reader {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let line = self.next_line()?;
            match Record::from_text(&line) {
                Some(record) => return Some(record),
                None => self.unreadable += 1,
            }
        }
    }
}

/// What every record begins with. No text in one can hold it: its quotes would be escaped.
const BEGIN: &str = "{\"time_usec\":";

/// Whole lines of what was read so far.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    at: usize,
}

impl Lines {
    /// The next line that has an end; reads on in `file` where there is none yet.
    fn next(&mut self, file: &mut File) -> Option<String> {
        let mut searched = self.at;
        loop {
            if let Some(end) = self.bytes[searched..].iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&self.bytes[self.at..searched + end]);
                self.at = searched + end + 1;
                // Before it in the same line is what was written of one that was cut.
                let begin = line.rfind(BEGIN).unwrap_or(0);
                return Some(line[begin..].to_owned());
            }
            self.bytes.drain(..self.at);
            self.at = 0;
            searched = self.bytes.len();
            let mut chunk = [0; 64 << 10];
            match file.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.bytes.extend_from_slice(&chunk[..read]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// How much was read of a line that has no end yet, in bytes.
    fn rest(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// Forgets what has no end; whether there was something.
    fn forget_rest(&mut self) -> bool {
        let some = self.at < self.bytes.len();
        self.bytes.clear();
        self.at = 0;
        some
    }
}

/// How often it is looked where nothing tells of new records.
const POLL: Duration = Duration::from_millis(500);

/// How often it is looked where something does.
const LOOK: Duration = Duration::from_secs(10);

/// Up to where a [`Tail`] has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    inode: u64,
    offset: u64,
}

impl Mark {
    /// As text; each is as long as every other.
    pub fn to_text(self) -> String {
        format!("{:020} {:020}\n", self.inode, self.offset)
    }

    /// The mark in a text, if it is one.
    pub fn from_text(text: &str) -> Option<Self> {
        let (inode, offset) = text.trim_end().split_once(' ')?;
        Some(Self {
            inode: inode.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

/// Records as they come in.
#[derive(Debug)]
pub struct Tail {
    directory: Directory,
    /// None: no more of these are to be had, and it is looked every [`POLL`].
    inotify: Option<OwnedFd>,
    /// The directory that is watched.
    watched: Option<(u64, u64)>,
    file: Option<File>,
    lines: Lines,
    /// The file before it, and what was read of that: who had it open may have been about to write to it.
    before: Option<(File, Lines)>,
}

impl Tail {
    /// Begins behind what is there now. The directory is made if it is missing, for there is nothing to watch otherwise.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn begin(directory: &Directory) -> io::Result<Self> {
        Self::resume(directory, None)
    }

    /// Begins behind `mark`, where what it is in is still there, and else behind what is there now.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn resume(directory: &Directory, mark: Option<Mark>) -> io::Result<Self> {
        directory.make()?;
        let watch = || {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_FROM;
            inotify::add_watch(&inotify, directory.path(), what)?;
            Ok(inotify)
        };
        let watched: Result<OwnedFd, Errno> = watch();
        if let Err(errno) = &watched {
            tracing::warn!(
                "{} cannot be watched ({errno}): it is looked at twice a second; raise fs.inotify.max_user_instances",
                directory.path().display()
            );
        }
        let mut tail = Self {
            directory: directory.clone(),
            inotify: watched.ok(),
            watched: identity(directory.path()),
            file: None,
            lines: Lines::default(),
            before: None,
        };
        let marked = mark.and_then(|mark| {
            let mut files = (0..SEGMENTS).filter_map(|age| File::open(directory.join(&file_name(age))).ok());
            let file = files.find(|file| file.metadata().is_ok_and(|meta| meta.ino() == mark.inode))?;
            // A file of another day may have the same number.
            (file.metadata().ok()?.len() >= mark.offset).then_some((file, SeekFrom::Start(mark.offset)))
        });
        let at = marked.or_else(|| Some((tail.open()?, SeekFrom::End(0))));
        if let Some((mut file, place)) = at {
            file.seek(place)?;
            tail.file = Some(file);
        }
        Ok(tail)
    }

    /// Up to where it has read; `None` where there is no file yet.
    pub fn mark(&self) -> Option<Mark> {
        let mut file = self.file.as_ref()?;
        let read = file.stream_position().ok()?;
        Some(Mark {
            inode: file.metadata().ok()?.ino(),
            offset: read.saturating_sub(self.lines.rest()),
        })
    }

    fn open(&self) -> Option<File> {
        File::open(self.directory.join(&file_name(0))).ok()
    }

    /// What came in, as it is written; empty where nothing did.
    pub fn lines(&mut self) -> Vec<String> {
        if let Some(inotify) = &self.inotify {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(inotify, &mut buffer);
            while events.next().is_ok() {}
            // Somebody removed the directory, of which the kernel does not tell as long as a file of it is open. One that is
            // made anew is not watched, and is looked at again and again.
            if self.watched != identity(self.directory.path()) {
                self.inotify = None;
            }
        }
        let mut lines = Vec::new();
        if let Some((file, read)) = &mut self.before {
            lines.extend(std::iter::from_fn(|| read.next(file)));
        }
        loop {
            let Some(mut file) = self.file.take().or_else(|| self.open()) else {
                return lines;
            };
            while let Some(line) = self.lines.next(&mut file) {
                lines.push(line);
            }
            match self.open() {
                Some(now) if !is_same(&now, &file) => {
                    // What was written to the old one until it was renamed is there by now.
                    while let Some(line) = self.lines.next(&mut file) {
                        lines.push(line);
                    }
                    self.before = Some((file, std::mem::take(&mut self.lines)));
                    self.file = Some(now);
                }
                _ => {
                    self.file = Some(file);
                    return lines;
                }
            }
        }
    }

    /// Readable when something may have come in; `None` where it is to be looked again and again.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Waits for more, at most so long and at most ten seconds.
    pub fn wait(&self, at_most: Option<Duration>) {
        let Some(inotify) = &self.inotify else {
            return std::thread::sleep(at_most.map_or(POLL, |limit| limit.min(POLL)));
        };
        // Then whether the directory is there still is looked at.
        let limit = at_most.map_or(LOOK, |limit| limit.min(LOOK));
        let limit = Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        loop {
            match poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&limit)) {
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

/// Which directory, or file, a path leads to.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| identity_of(&found))
}

/// Which one this is.
pub(super) fn identity_of(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn is_same(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => identity_of(&one) == identity_of(&other),
        _ => true,
    }
}
