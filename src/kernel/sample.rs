//! What a group's files say at one moment, as plain values: each is none where it was not asked for or the kernel has no
//! such file, and absent is not zero. Pure; [`super::sampler`] reads the files.
//!
//! The parsers allocate nothing: a daemon, or a live view, reads thousands of these files.
#![deny(clippy::disallowed_methods)]

use super::counters::{Keyed, Pressure, parse_limit, parse_pressure};
use crate::limits::Max;
use serde::{Deserialize, Serialize};

/// One group at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The group's id: samples of two ids are of two groups, and nothing may be told from their difference.
    pub id: u64,
    /// Memory held, in bytes.
    pub memory_current: Option<u64>,
    /// The most that was ever held, in bytes (Linux 5.19 and later).
    pub memory_peak: Option<u64>,
    /// Swap held, in bytes.
    pub memory_swap_current: Option<u64>,
    /// Above this its tasks are slowed down, in bytes.
    pub memory_high: Option<Max<u64>>,
    /// Above this it is OOM-killed, in bytes.
    pub memory_max: Option<Max<u64>>,
    /// What happened in it and in the groups below (memory.events).
    pub memory_events: Option<MemoryEvents>,
    /// What happened in the very group (memory.events.local).
    pub memory_events_local: Option<MemoryEvents>,
    /// For how long some of its tasks waited for memory.
    pub memory_some: Option<Pressure>,
    /// For how long all of them did.
    pub memory_full: Option<Pressure>,
    /// Tasks in it.
    pub pids: Option<u64>,
    /// Most tasks that may be in it.
    pub pids_max: Option<Max<u64>>,
    /// Forks that were refused. Before Linux 6.11: to its own tasks, whoever's limit it was; since then by its limit or
    /// by one below.
    pub pids_events_max: Option<u64>,
    /// Forks that were refused by its own limit (Linux 6.11 and later).
    pub pids_events_local_max: Option<u64>,
    /// Whether a process is in it or below.
    pub populated: Option<bool>,
    /// Whether all of it stands still.
    pub frozen: Option<bool>,
    /// CPU time used, in microseconds.
    pub cpu_usage_usec: Option<u64>,
    /// Time during which cpu.max held it back, in microseconds. None where the cpu controller is not on.
    pub cpu_throttled_usec: Option<u64>,
    /// What its memory is (memory.stat).
    pub memory_stat: Option<Split>,
}

impl Sample {
    /// Takes what one of the files says ([`Fields::files`]); whether it is one.
    pub fn take(&mut self, file: &str, text: &str) -> bool {
        let known = FILES.iter().find(|known| known.name == file);
        known.inspect(|file| (file.put)(self, text)).is_some()
    }

    /// How often a fork was refused by the limit of this very group, as far as the kernel tells.
    pub fn forks_refused(&self) -> Option<u64> {
        self.pids_events_local_max.or(self.pids_events_max)
    }
}

/// The counters of memory.events (cgroup-v2.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Times memory was taken although its use was under its memory.low.
    pub low: Option<u64>,
    /// Times tasks were slowed down for memory.high.
    pub high: Option<u64>,
    /// Times memory.max was about to be passed.
    pub max: Option<u64>,
    /// Times an allocation was about to fail. No count of incidents: one that waits for its victim tries again and again.
    pub oom: Option<u64>,
    /// Processes that the OOM killer ended.
    pub oom_kill: Option<u64>,
    /// Times it ended the whole group (Linux 5.17 and later).
    pub oom_group_kill: Option<u64>,
}

impl MemoryEvents {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> Self {
        let mut events = Self::default();
        for (key, value) in pairs(text) {
            let counter = match key {
                "low" => &mut events.low,
                "high" => &mut events.high,
                "max" => &mut events.max,
                "oom" => &mut events.oom,
                "oom_kill" => &mut events.oom_kill,
                "oom_group_kill" => &mut events.oom_group_kill,
                _ => continue,
            };
            *counter = Some(value);
        }
        events
    }

    /// The sums of both: of a leaf's, and of those of the scope around it, which has its limits.
    pub fn plus(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        Self {
            low: sum(self.low, other.low),
            high: sum(self.high, other.high),
            max: sum(self.max, other.max),
            oom: sum(self.oom, other.oom),
            oom_kill: sum(self.oom_kill, other.oom_kill),
            oom_group_kill: sum(self.oom_group_kill, other.oom_group_kill),
        }
    }
}

/// What a group's memory is (cgroup-v2.rst, "memory.stat"), in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Of programs: heap and stack. It cannot be dropped, only swapped.
    pub anon: u64,
    /// Of files, the page cache. It can be dropped, but for what is in `shmem`.
    pub file: u64,
    /// The part of `file` that is shared memory and tmpfs: files in /dev/shm and, often, /tmp. It cannot be dropped.
    pub shmem: u64,
    /// Of the kernel's own: page tables, stacks, names of files.
    pub kernel: u64,
    /// Of sockets.
    pub sock: u64,
}

impl Split {
    /// From memory.stat. Before Linux 5.18 there is no `kernel`: then it is the sum of its parts.
    pub fn of(stat: &Keyed) -> Self {
        Self::from_pairs(stat.iter())
    }

    /// From the text of memory.stat.
    pub fn parse(text: &str) -> Self {
        Self::from_pairs(pairs(text))
    }

    /// All of it. Shared memory is a part of `file`.
    pub fn sum(&self) -> u64 {
        let parts = [self.anon, self.file, self.kernel, self.sock];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, u64)>) -> Self {
        let mut split = Self::default();
        let (mut kernel, mut parts) = (None, 0u64);
        for (key, value) in pairs {
            match key {
                "anon" => split.anon = value,
                "file" => split.file = value,
                "shmem" => split.shmem = value,
                "sock" => split.sock = value,
                "kernel" => kernel = Some(value),
                "kernel_stack" | "pagetables" | "percpu" | "slab" => parts = parts.saturating_add(value),
                _ => {}
            }
        }
        split.kernel = kernel.unwrap_or(parts);
        split
    }
}

/// Which files are read for a sample. Nearly all of what one costs is the kernel's to open, read and close a file, whatever is
/// in it. memory.stat takes it four times as long as any other (docs/speed.md): for that, and for cpu.stat, it first adds up
/// what every CPU counted on its own, for the group and all below it. So memory.stat is in none of the sets here but
/// [`Fields::ALL`], and is for the moment when somebody asks what the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(u16);

impl Fields {
    /// memory.current.
    pub const CURRENT: Self = Self(1);
    /// memory.peak.
    pub const PEAK: Self = Self(1 << 1);
    /// memory.swap.current.
    pub const SWAP: Self = Self(1 << 2);
    /// memory.high, memory.max and pids.max.
    pub const LIMITS: Self = Self(1 << 3);
    /// memory.events.
    pub const EVENTS: Self = Self(1 << 4);
    /// memory.events.local.
    pub const LOCAL: Self = Self(1 << 5);
    /// memory.pressure.
    pub const PRESSURE: Self = Self(1 << 6);
    /// pids.current.
    pub const PIDS: Self = Self(1 << 7);
    /// pids.events and pids.events.local.
    pub const REFUSED: Self = Self(1 << 8);
    /// cgroup.events.
    pub const STATE: Self = Self(1 << 9);
    /// cpu.stat.
    pub const CPU: Self = Self(1 << 10);
    /// memory.stat.
    pub const STAT: Self = Self(1 << 11);

    /// What a list of groups shows: memory, tasks and CPU time.
    pub const SHOWN: Self = Self(Self::CURRENT.0 | Self::PIDS.0 | Self::CPU.0);
    /// What [`crate::record::fold`] folds.
    pub const FOLDED: Self = Self(
        Self::CURRENT.0
            | Self::LIMITS.0
            | Self::EVENTS.0
            | Self::LOCAL.0
            | Self::PIDS.0
            | Self::REFUSED.0
            | Self::STATE.0,
    );
    /// What [`crate::record::watchdog`] looks at.
    pub const STALL: Self = Self(Self::CURRENT.0 | Self::LIMITS.0 | Self::LOCAL.0 | Self::PRESSURE.0);
    /// Everything but memory.stat.
    pub const CHEAP: Self = Self(Self::FOLDED.0 | Self::STALL.0 | Self::PEAK.0 | Self::SWAP.0 | Self::CPU.0);
    /// Everything.
    pub const ALL: Self = Self(Self::CHEAP.0 | Self::STAT.0);

    /// The names of the files that are read for it, where they are all there.
    pub fn files(self) -> impl Iterator<Item = &'static str> {
        let asked = FILES.iter().filter(move |file| self.has(file.field));
        asked.map(|file| file.name)
    }

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A file that is read for a sample.
pub(super) struct File {
    /// What it is read for.
    pub(super) field: Fields,
    /// Its name.
    pub(super) name: &'static str,
    /// Whether this kernel, or this machine, may lack it though it has its neighbours.
    pub(super) optional: bool,
    /// Takes what it says.
    pub(super) put: fn(&mut Sample, &str),
}

const fn file(field: Fields, name: &'static str, put: fn(&mut Sample, &str)) -> File {
    File {
        field,
        name,
        optional: false,
        put,
    }
}

const fn optional(field: Fields, name: &'static str, put: fn(&mut Sample, &str)) -> File {
    File {
        optional: true,
        ..file(field, name, put)
    }
}

/// Every file that is read, in the order in which they are. What counts kills is read before what says how much is held:
/// a kill that falls in between is then told by the next sample, with what was held after it.
pub(super) const FILES: [File; 15] = [
    file(Fields::STATE, "cgroup.events", |sample, text| {
        sample.populated = value_of(text, "populated").map(|v| v != 0);
        sample.frozen = value_of(text, "frozen").map(|v| v != 0);
    }),
    file(Fields::EVENTS, "memory.events", |sample, text| {
        sample.memory_events = Some(MemoryEvents::parse(text));
    }),
    file(Fields::LOCAL, LOCAL_EVENTS, |sample, text| {
        // Of the leaf and of the scope around it, one after the other.
        let earlier = sample.memory_events_local.unwrap_or_default();
        sample.memory_events_local = Some(earlier.plus(MemoryEvents::parse(text)));
    }),
    file(Fields::CURRENT, "memory.current", |sample, text| {
        sample.memory_current = number(text);
    }),
    optional(Fields::PEAK, "memory.peak", |sample, text| {
        sample.memory_peak = number(text);
    }),
    optional(Fields::SWAP, "memory.swap.current", |sample, text| {
        sample.memory_swap_current = number(text);
    }),
    file(Fields::LIMITS, "memory.high", |sample, text| {
        sample.memory_high = limit(text);
    }),
    file(Fields::LIMITS, "memory.max", |sample, text| {
        sample.memory_max = limit(text);
    }),
    file(Fields::PRESSURE, "memory.pressure", |sample, text| {
        sample.memory_some = parse_pressure(text, "some");
        sample.memory_full = parse_pressure(text, "full");
    }),
    file(Fields::PIDS, "pids.current", |sample, text| {
        sample.pids = number(text)
    }),
    file(Fields::LIMITS, "pids.max", |sample, text| {
        sample.pids_max = limit(text)
    }),
    file(Fields::REFUSED, "pids.events", |sample, text| {
        sample.pids_events_max = value_of(text, "max");
    }),
    optional(Fields::REFUSED, "pids.events.local", |sample, text| {
        sample.pids_events_local_max = value_of(text, "max");
    }),
    file(Fields::CPU, "cpu.stat", |sample, text| {
        sample.cpu_usage_usec = value_of(text, "usage_usec");
        sample.cpu_throttled_usec = value_of(text, "throttled_usec");
    }),
    file(Fields::STAT, "memory.stat", |sample, text| {
        sample.memory_stat = Some(Split::parse(text));
    }),
];

/// The one that a leaf has beside that of the scope around it, which has the limits.
pub(super) const LOCAL_EVENTS: &str = "memory.events.local";

/// The lines of a flat keyed file.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.parse().ok()?))
    })
}

/// The value of one key of a flat keyed file.
fn value_of(text: &str, key: &str) -> Option<u64> {
    pairs(text).find_map(|(found, value)| (found == key).then_some(value))
}

/// A file of one number.
fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

/// A file of one number, or `max`.
fn limit(text: &str) -> Option<Max<u64>> {
    parse_limit(text).map(|limit| limit.map_or(Max::Max, Max::At))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_of_memory() {
        let text = "anon 5\nfile 4\nshmem 3\nkernel_stack 1\nslab 1\nsock 9\n";
        let split = Split::of(&Keyed::parse(text));
        assert_eq!((split.anon, split.shmem, split.kernel, split.sock), (5, 3, 2, 9));
        assert_eq!(Split::parse(text), split);
        let newer = format!("{text}kernel 7\n");
        assert_eq!(Split::parse(&newer).kernel, 7, "it has more in it than the parts");
    }

    #[test]
    fn events_of_an_older_kernel_lack_some_and_have_none_of_zero() {
        let old = MemoryEvents::parse("low 0\nhigh 26\nmax 3\noom 2\noom_kill 1\n");
        assert_eq!(
            (old.low, old.high, old.oom_kill, old.oom_group_kill),
            (Some(0), Some(26), Some(1), None)
        );
        assert_eq!(old.plus(MemoryEvents::default()), old);
        assert_eq!(old.plus(old).high, Some(52));
    }

    #[test]
    fn sets_of_fields() {
        assert!(Fields::CHEAP.has(Fields::FOLDED) && Fields::CHEAP.has(Fields::STALL));
        assert!(!Fields::CHEAP.has(Fields::STAT) && Fields::ALL.has(Fields::STAT));
        assert!(!Fields::LOCAL.has(Fields::STALL));
        assert_eq!(Fields::CHEAP.and(Fields::STAT), Fields::ALL);
        let stall: Vec<_> = Fields::STALL.files().collect();
        assert_eq!(
            stall,
            [
                LOCAL_EVENTS,
                "memory.current",
                "memory.high",
                "memory.max",
                "memory.pressure",
                "pids.max"
            ]
        );
        assert_eq!(Fields::ALL.files().count(), FILES.len());
    }

    #[test]
    fn each_file_is_parsed() {
        let texts = [
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            (
                "memory.events",
                "low 0\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
            ),
            (
                LOCAL_EVENTS,
                "low 0\nhigh 1\nmax 1\noom 1\noom_kill 1\noom_group_kill 1\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.swap.current", "0\n"),
            ("memory.high", "max\n"),
            ("memory.max", "16384\n"),
            (
                "memory.pressure",
                "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
            ),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("pids.events", "max 9\n"),
            ("pids.events.local", "max 8\n"),
            (
                "cpu.stat",
                "usage_usec 100\nuser_usec 60\nsystem_usec 40\nnr_throttled 1\nthrottled_usec 30\n",
            ),
            ("memory.stat", "anon 7\nfile 5\nkernel 3\nshmem 2\n"),
        ];
        let mut sample = Sample::default();
        for (file, (name, text)) in FILES.iter().zip(texts) {
            assert_eq!(file.name, name);
            (file.put)(&mut sample, text);
        }
        assert_eq!((sample.populated, sample.frozen), (Some(true), Some(false)));
        assert_eq!(sample.memory_events.unwrap().oom_group_kill, Some(6));
        assert_eq!(sample.memory_events_local.unwrap().oom, Some(1));
        assert_eq!(
            (sample.memory_current, sample.memory_peak),
            (Some(4096), Some(8192))
        );
        assert_eq!(sample.memory_swap_current, Some(0));
        assert_eq!(sample.memory_high, Some(Max::Max));
        assert_eq!(sample.memory_max, Some(Max::At(16384)));
        assert_eq!(sample.memory_some.unwrap().avg10, 1.5);
        assert_eq!(sample.memory_full.unwrap().total_usec, 5);
        assert_eq!((sample.pids, sample.pids_max), (Some(3), Some(Max::Max)));
        assert_eq!(sample.forks_refused(), Some(8));
        assert_eq!(
            (sample.cpu_usage_usec, sample.cpu_throttled_usec),
            (Some(100), Some(30))
        );
        assert_eq!(sample.memory_stat.unwrap().anon, 7);
    }
}
