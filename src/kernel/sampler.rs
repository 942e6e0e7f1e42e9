//! Reads samples of a group: each file is opened, read in one call and closed, and parsed where it lies. No file is held
//! open: thousands of groups have ten times as many files.

use super::error::KernelError;
use super::group::Group;
use super::sample::{FILES, Fields, LOCAL_EVENTS, Sample};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Larger than any file that is read: memory.stat of Linux 6.12 has 1.7 KiB.
const BUFFER: usize = 8192;

/// A group, held by its directory, to be sampled again and again.
#[derive(Debug)]
pub struct Sampler {
    group: Group,
    id: u64,
    /// Which of [`FILES`] this kernel does not have: they were missing beside their neighbours, and are not looked for
    /// again. A bit each.
    missing: u32,
}

impl Sampler {
    /// Holds `group`.
    ///
    /// # Errors
    ///
    /// The group's id cannot be read.
    pub fn new(group: Group) -> Result<Self, KernelError> {
        Ok(Self {
            id: group.id()?,
            group,
            missing: 0,
        })
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The group's id, which no later group of its name has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Reads what is asked for; `None` where the group is gone. A value that cannot be had is none in the sample.
    ///
    /// Where the group is the leaf of a session's scope, what is on the scope is read from there, as [`Group::read`] does.
    pub fn sample(&mut self, what: Fields) -> Option<Sample> {
        let mut space = [0u8; BUFFER];
        let mut sample = Sample {
            id: self.id,
            ..Sample::default()
        };
        let mut lacks = false;
        let mut last_found = "";
        for (at, file) in FILES.iter().enumerate() {
            if !what.has(file.field) || self.missing & (1 << at) != 0 {
                continue;
            }
            match read(self.group.open(file.name, OFlags::RDONLY), &mut space) {
                Ok(text) => {
                    (file.put)(&mut sample, text);
                    last_found = file.name;
                }
                // Only a group that was removed answers so once a file of its is open.
                Err(Errno::NODEV) => return None,
                Err(errno) => {
                    lacks = true;
                    let beside = controller(last_found) == controller(file.name);
                    if file.optional && beside && errno == Errno::NOENT {
                        self.missing |= 1 << at;
                    }
                }
            }
            if file.name == LOCAL_EVENTS
                && let Some(of_scope) = self.group.open_on_scope(LOCAL_EVENTS)
            {
                match read(of_scope, &mut space) {
                    Ok(text) => (file.put)(&mut sample, text),
                    Err(Errno::NODEV) => return None,
                    // Half of it would be a fall, and then a rise that never was.
                    Err(_) => sample.memory_events_local = None,
                }
            }
        }
        // A directory that was removed has no files any more; every group but the root has this one.
        if lacks && !self.group.has("cgroup.events") {
            return None;
        }
        Some(sample)
    }
}

fn controller(file: &str) -> &str {
    file.split('.').next().unwrap_or_default()
}

/// What a file holds. The kernel gives a file of one record in one piece where the buffer is large enough.
fn read(file: Result<OwnedFd, Errno>, space: &mut [u8; BUFFER]) -> Result<&str, Errno> {
    let file = file?;
    let size = rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut space[..], 0))?;
    std::str::from_utf8(&space[..size]).map_err(|_| Errno::ILSEQ)
}
