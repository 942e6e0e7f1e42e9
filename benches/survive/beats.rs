//! What the agent did and when, in a page that outlives it: a file in memory, made, filled and locked by who looks on. So no
//! beat is lost with the process that counted it, and to note one asks the kernel for nothing.

use super::clock::At;
use super::{RUN, at};
use rustix::fd::AsRawFd;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

const FILE: &str = "beats";
/// Two minutes of beats every 10 ms, and then some: a snapshot of the machine is taken before, and no run is longer.
const MOST: usize = 1 << 15;
const HEAD: usize = 16;

/// Single numbers beside the beats.
#[derive(Clone, Copy)]
pub enum Word {
    /// How many beats there are.
    Count = 0,
    /// The agent's pid.
    Agent = 1,
    /// The bystander's pid.
    Bystander = 2,
    /// How often the agent had to start its probe.
    Probes = 3,
    /// How many sessions were started.
    Sessions = 4,
    /// How many could not be started, or ended as if they had not been.
    Refused = 5,
}

/// The page, mapped.
pub struct Beats(&'static [AtomicU64]);

impl Beats {
    /// Makes it anew, with every page of it in memory.
    pub fn make() -> Result<Beats, String> {
        let path = format!("{RUN}/{FILE}");
        std::fs::write(&path, vec![0; (HEAD + MOST) * 8]).map_err(at(&path))?;
        Beats::open()
    }

    /// Maps what is there.
    pub fn open() -> Result<Beats, String> {
        let path = format!("{RUN}/{FILE}");
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(at(&path))?;
        // SAFETY: a new mapping of a file that nobody shortens, at a place of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                (HEAD + MOST) * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(format!("{path}: {}", std::io::Error::last_os_error()));
        }
        // SAFETY: the mapping is that long, aligned to a page, is never unmapped, and all processes use atomics on it.
        Ok(Beats(unsafe {
            std::slice::from_raw_parts(start.cast(), HEAD + MOST)
        }))
    }

    /// One of the numbers.
    pub fn get(&self, word: Word) -> u64 {
        self.0[word as usize].load(Ordering::Acquire)
    }

    /// Sets one.
    pub fn set(&self, word: Word, value: u64) {
        self.0[word as usize].store(value, Ordering::Release);
    }

    /// Counts one up.
    pub fn count(&self, word: Word) {
        self.0[word as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// Notes a beat.
    pub fn beat(&self) {
        let count = self.get(Word::Count) as usize;
        if count < MOST {
            self.0[HEAD + count].store(At::now().0, Ordering::Relaxed);
            self.set(Word::Count, count as u64 + 1);
        }
    }

    /// The beats from this one on.
    pub fn from(&self, first: usize) -> Vec<At> {
        let count = self.get(Word::Count) as usize;
        let times = &self.0[HEAD + first.min(count)..HEAD + count];
        times
            .iter()
            .map(|time| At(time.load(Ordering::Relaxed)))
            .collect()
    }
}
