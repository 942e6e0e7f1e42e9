//! Reads records, from the oldest on, and waits for new ones.

use super::{Directory, SEGMENTS, file_name};
use crate::record::Record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
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
            if seen.insert((meta.dev(), meta.ino())) {
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

    /// Forgets what has no end; whether there was something.
    fn forget_rest(&mut self) -> bool {
        let some = self.at < self.bytes.len();
        self.bytes.clear();
        self.at = 0;
        some
    }
}

/// Records as they come in.
#[derive(Debug)]
pub struct Tail {
    directory: Directory,
    inotify: OwnedFd,
    file: Option<File>,
    lines: Lines,
}

impl Tail {
    /// Begins behind what is there now. The directory is made if it is missing, for there is nothing to watch otherwise.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or watched.
    pub fn begin(directory: &Directory) -> io::Result<Self> {
        directory.make()?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_FROM;
        inotify::add_watch(&inotify, directory.path(), what).map_err(|e| directory.at("", e.into()))?;
        let mut tail = Self {
            directory: directory.clone(),
            inotify,
            file: None,
            lines: Lines::default(),
        };
        tail.file = tail.open();
        if let Some(file) = &mut tail.file {
            use std::io::Seek;
            file.seek(io::SeekFrom::End(0))?;
        }
        Ok(tail)
    }

    fn open(&self) -> Option<File> {
        File::open(self.directory.join(&file_name(0))).ok()
    }

    /// What came in, as it is written; empty where nothing did.
    pub fn lines(&mut self) -> Vec<String> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        while events.next().is_ok() {}
        let mut lines = Vec::new();
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
                    self.lines.forget_rest();
                    self.file = Some(now);
                }
                _ => {
                    self.file = Some(file);
                    return lines;
                }
            }
        }
    }

    /// Waits for more, at most so long.
    pub fn wait(&self, at_most: Option<Duration>) {
        let limit = at_most.map(|limit| Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        loop {
            match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], limit.as_ref()) {
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

/// Readable when something may have come in.
impl AsFd for Tail {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn is_same(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => true,
    }
}
