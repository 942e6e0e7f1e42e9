//! What the caller's own group may use and how close it is, as `cgmgr limits` tells it from inside a session. Needs no
//! rights: what cannot be read is said.
//!
//! A limit holds for everything below it, so the one that counts is the smallest from the caller's group up to the root,
//! and what is left is the least that any of these leaves: others use up what is above the session.

use crate::host::Hierarchy;
use crate::kernel::counters::{Keyed, parse_limit, parse_pressure};
use crate::kernel::{Group, Tree, probe, process, survey};
use crate::path::{GroupPath, SessionName};
use serde::Serialize;

/// What gives a limit that is no group's.
const MACHINE: &str = "the machine";

/// How much memory a compile job is taken to need: a compiler of C++ or Rust mostly stays below it, a linker may not.
pub const MEMORY_PER_JOB: u64 = 1 << 30;

/// A limit, or what is left below one, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// How much.
    pub value: u64,
    /// The group that sets it, or `the machine`.
    pub from: String,
}

/// CPU time per time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cpus {
    /// As many CPUs.
    pub value: f64,
    /// The group whose quota that is, or `the machine`: as many as the caller may run on.
    pub from: String,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// `memory.current` of the caller's group.
    pub current: Option<u64>,
    /// The same without file cache that has not been used lately (`inactive_file`): what would have to be given up.
    pub working_set: Option<u64>,
    /// The smallest memory.max.
    pub max: Option<Bound>,
    /// The smallest memory.high.
    pub high: Option<Bound>,
    /// What is left below the limit that leaves least, of max and high of any level, counted from the working set there.
    pub headroom: Option<Bound>,
    /// Swap in use.
    pub swap_current: Option<u64>,
    /// The smallest memory.swap.max.
    pub swap_max: Option<Bound>,
    /// OOM kills in the caller's group and below.
    pub oom_kills: Option<u64>,
}

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// The smallest quota, or what the machine has.
    pub cpus: Option<Cpus>,
    /// Used by the caller's group so far, in microseconds.
    pub usage_usec: Option<u64>,
    /// The share of its periods, from 0 to 1, in which the group with the smallest quota was held back.
    pub throttled_share: Option<f64>,
}

/// Tasks: processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// In the caller's group and below.
    pub current: Option<u64>,
    /// The smallest pids.max.
    pub max: Option<Bound>,
    /// How many more there may be.
    pub headroom: Option<Bound>,
}

/// Percent of the last ten seconds in which some, or all, tasks of the group waited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Waits {
    /// Some task.
    pub some_avg10: f64,
    /// All that could have run; `None` where the kernel does not tell.
    pub full_avg10: Option<f64>,
}

/// Who waits for what.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// For memory.
    pub memory: Option<Waits>,
    /// For the CPU.
    pub cpu: Option<Waits>,
    /// For I/O.
    pub io: Option<Waits>,
}

/// How many parallel jobs fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Jobs {
    /// By everything below, and at least one.
    pub fit: u64,
    /// By CPU time.
    pub by_cpu: u64,
    /// By memory; `None` where what is left is not known.
    pub by_memory: Option<u64>,
    /// The memory of one, in bytes, as it was assumed.
    pub memory_per_job: u64,
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Allowance {
    /// Whether the caller is in a session of cgmgr's.
    pub in_session: bool,
    /// Its name; `None` also where that cannot be seen from here (in a cgroup namespace).
    pub session: Option<String>,
    /// Its role.
    pub role: Option<String>,
    /// The caller's group, as it is seen from here.
    pub group: Option<String>,
    /// Memory.
    pub memory: Memory,
    /// CPU time.
    pub cpu: Cpu,
    /// Tasks.
    pub pids: Pids,
    /// Who waits.
    pub pressure: Pressure,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
}

/// One group on the way up, as far as it can be read. `None`: no limit, or not known.
#[derive(Debug, Clone, Default, PartialEq)]
struct Level {
    name: String,
    memory_current: Option<u64>,
    inactive_file: Option<u64>,
    memory_max: Option<u64>,
    memory_high: Option<u64>,
    swap_max: Option<u64>,
    quota: Option<f64>,
    throttled_share: Option<f64>,
    pids_current: Option<u64>,
    pids_max: Option<u64>,
}

impl Level {
    fn working_set(&self) -> Option<u64> {
        Some(
            self.memory_current?
                .saturating_sub(self.inactive_file.unwrap_or(0)),
        )
    }

    fn memory_left(&self) -> Option<u64> {
        let limit = [self.memory_max, self.memory_high].into_iter().flatten().min()?;
        Some(limit.saturating_sub(self.working_set()?))
    }

    fn pids_left(&self) -> Option<u64> {
        Some(self.pids_max?.saturating_sub(self.pids_current?))
    }
}

/// The smallest of what the levels have; of equal ones the nearest.
fn smallest(levels: &[Level], of: impl Fn(&Level) -> Option<u64>) -> Option<Bound> {
    let bounds = levels.iter().filter_map(|level| {
        Some(Bound {
            value: of(level)?,
            from: level.name.clone(),
        })
    });
    bounds.min_by_key(|bound| bound.value)
}

/// The smallest quota, with the share of time that it held its group back.
fn smallest_quota(levels: &[Level]) -> Option<(Cpus, Option<f64>)> {
    let quotas = levels.iter().filter_map(|level| {
        let cpus = Cpus {
            value: level.quota?,
            from: level.name.clone(),
        };
        Some((cpus, level.throttled_share))
    });
    quotas.min_by(|(a, _), (b, _)| a.value.total_cmp(&b.value))
}

/// `300000 100000`: three CPUs. `max 100000`: no quota.
fn parse_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

fn share(stat: &Keyed) -> Option<f64> {
    let (periods, throttled) = (stat.get("nr_periods")?, stat.get("nr_throttled")?);
    (periods > 0).then(|| throttled as f64 / periods as f64)
}

impl Allowance {
    /// How many jobs of `memory_per_job` bytes fit in parallel: no more than there are CPUs, begun ones counted whole,
    /// no more than there is memory and there are tasks left for, and at least one.
    pub fn jobs(&self, memory_per_job: u64) -> Jobs {
        let cpus = self.cpu.cpus.as_ref().map_or(1.0, |cpus| cpus.value);
        // A quota is at least a hundredth, and the kernel has no more than some thousand CPUs.
        let by_cpu = (cpus.ceil() as u64).max(1);
        let left = self.memory.headroom.as_ref();
        let by_memory = left.map(|left| left.value / memory_per_job.max(1));
        let by_pids = self.pids.headroom.as_ref().map(|left| left.value);
        let fit = [Some(by_cpu), by_memory, by_pids].into_iter().flatten().min();
        Jobs {
            fit: fit.unwrap_or(by_cpu).max(1),
            by_cpu,
            by_memory,
            memory_per_job,
        }
    }
}

/// Reads files of groups, and keeps what could not be read.
#[derive(Default)]
struct Reader {
    unreadable: Vec<String>,
}

impl Reader {
    fn text(&mut self, group: &Group, file: &str) -> Option<String> {
        match group.get(file) {
            Ok(text) => text,
            Err(error) => {
                self.unreadable.push(error.to_string());
                None
            }
        }
    }

    fn number(&mut self, group: &Group, file: &str) -> Option<u64> {
        self.text(group, file)?.trim().parse().ok()
    }

    fn limit(&mut self, group: &Group, file: &str) -> Option<u64> {
        parse_limit(&self.text(group, file)?)?
    }

    fn keyed(&mut self, group: &Group, file: &str) -> Keyed {
        self.text(group, file)
            .map(|text| Keyed::parse(&text))
            .unwrap_or_default()
    }

    fn level(&mut self, group: &Group, path: &GroupPath) -> Level {
        let stat = self.keyed(group, "cpu.stat");
        Level {
            name: path.to_string(),
            memory_current: self.number(group, "memory.current"),
            inactive_file: self.keyed(group, "memory.stat").get("inactive_file"),
            memory_max: self.limit(group, "memory.max"),
            memory_high: self.limit(group, "memory.high"),
            swap_max: self.limit(group, "memory.swap.max"),
            quota: self.text(group, "cpu.max").as_deref().and_then(parse_quota),
            throttled_share: share(&stat),
            pids_current: self.number(group, "pids.current"),
            pids_max: self.limit(group, "pids.max"),
        }
    }

    fn waits(&mut self, group: &Group, path: &GroupPath, what: &str) -> Option<Waits> {
        let text = match self.text(group, &format!("{what}.pressure")) {
            Some(text) => text,
            // The true root has none: that is the machine's.
            None if path.is_root() => process::read(&format!("/proc/pressure/{what}")).ok()?,
            None => return None,
        };
        Some(Waits {
            some_avg10: parse_pressure(&text, "some")?.avg10,
            full_avg10: parse_pressure(&text, "full").map(|full| full.avg10),
        })
    }
}

/// What the caller may use.
pub fn own() -> Allowance {
    let mut allowance = Allowance::default();
    let mut reader = Reader::default();
    let mut levels = Vec::new();
    if let Some((tree, path)) = place(&mut reader) {
        for path in path.ancestors() {
            match tree.group(&path) {
                Ok(group) => {
                    levels.push(reader.level(&group, &path));
                    if !allowance.in_session
                        && let Some(identity) = survey::identity(&group)
                    {
                        let name = SessionName::of_group(&path);
                        allowance.in_session = true;
                        allowance.session = name.map(|name| name.to_string());
                        allowance.role = identity.role;
                    }
                }
                Err(error) => reader.unreadable.push(error.to_string()),
            }
        }
        if let Ok(group) = tree.group(&path) {
            allowance.memory.swap_current = reader.number(&group, "memory.swap.current");
            allowance.memory.oom_kills = reader.keyed(&group, "memory.events").get("oom_kill");
            allowance.cpu.usage_usec = reader.keyed(&group, "cpu.stat").get("usage_usec");
            allowance.pressure = Pressure {
                memory: reader.waits(&group, &path, "memory"),
                cpu: reader.waits(&group, &path, "cpu"),
                io: reader.waits(&group, &path, "io"),
            };
            let own = levels.first().filter(|level| level.name == path.as_str());
            allowance.memory.current = own.and_then(|level| level.memory_current);
            allowance.memory.working_set = own.and_then(Level::working_set);
            allowance.pids.current = own.and_then(|level| level.pids_current);
        }
        allowance.group = Some(path.to_string());
    }
    levels.push(machine());
    allowance.memory.max = smallest(&levels, |level| level.memory_max);
    allowance.memory.high = smallest(&levels, |level| level.memory_high);
    allowance.memory.headroom = smallest(&levels, Level::memory_left);
    allowance.memory.swap_max = smallest(&levels, |level| level.swap_max);
    allowance.pids.max = smallest(&levels, |level| level.pids_max);
    allowance.pids.headroom = smallest(&levels, Level::pids_left);
    if let Some((cpus, share)) = smallest_quota(&levels) {
        allowance.cpu.cpus = Some(cpus);
        allowance.cpu.throttled_share = share;
    }
    allowance.unreadable = reader.unreadable;
    allowance
}

/// The hierarchy and the caller's group in it, where both can be seen.
fn place(reader: &mut Reader) -> Option<(Tree, GroupPath)> {
    let hierarchy = probe::hierarchy();
    if let Hierarchy::Hybrid { v1, .. } | Hierarchy::Legacy { v1 } = &hierarchy {
        let held = v1.join(" ");
        let what = format!("limits of cgroup v1, which holds {held} here: cgmgr does not look at them");
        reader.unreadable.push(what);
    }
    let Some(mount) = hierarchy.mount() else {
        reader.unreadable.push("cgroup v2 is not mounted here".into());
        return None;
    };
    let tree = match Tree::open(&mount.point) {
        Ok(tree) => tree,
        Err(error) => {
            reader.unreadable.push(error.to_string());
            return None;
        }
    };
    let path = process::own_group().as_deref().and_then(GroupPath::new);
    if path.is_none() {
        let what = "the group of this process lies outside of what can be seen here (/proc/self/cgroup)";
        reader.unreadable.push(what.into());
    }
    Some((tree, path?))
}

/// The machine as the outermost level.
fn machine() -> Level {
    let machine = probe::machine();
    let meminfo = process::read("/proc/meminfo").unwrap_or_default();
    let available = process::line_of(&meminfo, "MemAvailable").and_then(probe::parse_kib);
    let total = (machine.mem_total != u64::MAX).then_some(machine.mem_total);
    let may_run_on = rustix::thread::sched_getaffinity(None).map(|set| set.count());
    Level {
        name: MACHINE.into(),
        memory_current: total
            .zip(available)
            .map(|(total, free)| total.saturating_sub(free)),
        memory_max: total,
        quota: Some(f64::from(may_run_on.unwrap_or(machine.cpus).max(1))),
        ..Level::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn level(name: &str) -> Level {
        Level {
            name: name.into(),
            ..Level::default()
        }
    }

    /// M8: not the first number on the way up, but the smallest; M7: file cache that is not used counts as left.
    #[test]
    fn the_smallest_limit_counts_and_the_least_that_is_left() {
        let session = Level {
            memory_current: Some(60 * MIB),
            inactive_file: Some(20 * MIB),
            memory_max: Some(500 * MIB),
            ..level("/w/s")
        };
        let above = Level {
            memory_current: Some(250 * MIB),
            memory_max: Some(300 * MIB),
            ..level("/w")
        };
        let top = Level {
            memory_max: Some(400 * MIB),
            ..level("/")
        };
        let levels = [session.clone(), above, top];
        let bound = |value, from: &str| {
            Some(Bound {
                value,
                from: from.into(),
            })
        };
        assert_eq!(session.working_set(), Some(40 * MIB));
        assert_eq!(smallest(&levels, |l| l.memory_max), bound(300 * MIB, "/w"));
        assert_eq!(smallest(&levels, Level::memory_left), bound(50 * MIB, "/w"));
        // Where nothing is known of the use nothing is known of what is left: absent is not zero.
        assert_eq!(smallest(&levels[2..], Level::memory_left), None);
        let high = Level {
            memory_high: Some(100 * MIB),
            ..session
        };
        assert_eq!(high.memory_left(), Some(60 * MIB));
    }

    /// M9.
    #[test]
    fn the_smallest_quota_counts_and_no_quota_is_none() {
        assert_eq!(parse_quota("150000 100000\n"), Some(1.5));
        assert_eq!(parse_quota("max 100000"), None);
        assert_eq!(parse_quota("5 0"), None);
        assert_eq!(parse_quota(""), None);
        let with = |name: &str, quota| Level {
            quota,
            throttled_share: Some(0.5),
            ..level(name)
        };
        let levels = [with("/a/b", None), with("/a", Some(1.5)), with("/", Some(8.0))];
        let (cpus, share) = smallest_quota(&levels).unwrap();
        assert_eq!((cpus.value, cpus.from.as_str(), share), (1.5, "/a", Some(0.5)));
        assert_eq!(share_of("nr_periods 4\nnr_throttled 1\n"), Some(0.25));
        assert_eq!(share_of("nr_periods 0\nnr_throttled 0\n"), None);
    }

    fn share_of(text: &str) -> Option<f64> {
        share(&Keyed::parse(text))
    }

    #[test]
    fn jobs_fit_into_cpus_memory_and_tasks() {
        let with = |cpus: f64, left: Option<u64>, tasks: Option<u64>| {
            let bound = |value| Bound {
                value,
                from: "/w".into(),
            };
            Allowance {
                cpu: Cpu {
                    cpus: Some(Cpus {
                        value: cpus,
                        from: "/w".into(),
                    }),
                    ..Cpu::default()
                },
                memory: Memory {
                    headroom: left.map(bound),
                    ..Memory::default()
                },
                pids: Pids {
                    headroom: tasks.map(bound),
                    ..Pids::default()
                },
                ..Allowance::default()
            }
        };
        for (cpus, left, tasks, fit) in [
            (8.0, Some(16 << 30), None, 8),
            (8.0, Some(5 << 30), None, 5),
            (8.0, Some(100 * MIB), None, 1),
            (1.5, Some(16 << 30), None, 2),
            (0.01, None, None, 1),
            (4.0, None, None, 4),
            (4.0, Some(16 << 30), Some(3), 3),
            (4.0, Some(0), Some(0), 1),
        ] {
            let jobs = with(cpus, left, tasks).jobs(MEMORY_PER_JOB);
            assert_eq!(jobs.fit, fit, "{cpus} {left:?} {tasks:?}");
            assert!(jobs.fit <= jobs.by_cpu);
        }
        let many = with(8.0, Some(1 << 30), None);
        assert_eq!(many.jobs(256 * MIB).fit, 4);
        assert_eq!(many.jobs(0).fit, 8, "a job of nothing is no division by zero");
    }

    #[test]
    fn this_process_can_be_told_about() {
        let own = own();
        assert!(
            own.cpu.cpus.as_ref().is_some_and(|cpus| cpus.value > 0.0),
            "{own:?}"
        );
        assert!(own.jobs(MEMORY_PER_JOB).fit >= 1);
    }
}
