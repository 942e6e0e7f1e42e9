//! What the kernel holds for a process, whoever put it where it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use cgmgr::limits::{KNOBS, KnobId, Part};

use crate::cgmgr::until;
use crate::lab::{MOUNT, read};

/// Files that no knob of a session is about, and that a lost one may turn up in.
const MORE: [&str; 2] = ["memory.low", "cpuset.cpus.effective"];

/// The limits of one process, by knob, or by the name of a file of [`MORE`].
#[derive(Clone, Debug, PartialEq)]
pub struct Held(BTreeMap<&'static str, String>);

impl Held {
    /// Those of a process that lives.
    pub fn of(pid: i32) -> Held {
        let groups = groups(pid);
        let mut found: BTreeMap<&'static str, String> = MORE
            .map(|file| (file, in_groups(file, &groups).unwrap_or_default()))
            .into();
        for knob in KNOBS.iter().filter(|knob| knob.part == Part::Session) {
            let value = match (knob.id, knob.file, knob.kernel_default) {
                // Where nobody has turned the controller on, nobody is limited.
                (_, Some(file), default) => in_groups(file, &groups).or(default.map(str::to_owned)),
                (KnobId::Nofile, ..) => Some(nofile(pid)),
                (KnobId::Nice, ..) => Some(nice(pid)),
                (KnobId::OomScoreAdj, ..) => Some(read(&format!("/proc/{pid}/oom_score_adj"))),
                _ => None,
            };
            found.extend(value.map(|value| (knob.key, value)));
        }
        Held(found)
    }

    /// What is held for a knob that the kernel knows of.
    #[track_caller]
    pub fn knob(&self, id: KnobId) -> &str {
        self.file(id.knob().key)
    }

    /// The same but for this knob.
    pub fn with(mut self, id: KnobId, value: &str) -> Held {
        self.0.insert(id.knob().key, value.to_owned());
        self
    }

    /// What a file of [`MORE`] says.
    #[track_caller]
    pub fn file(&self, name: &str) -> &str {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

/// The groups that limit a process and none that is not its own, from the one that it is in upwards.
fn groups(pid: i32) -> Vec<String> {
    let line = read(&format!("/proc/{pid}/cgroup"));
    let inside = line
        .strip_prefix("0::/")
        .unwrap_or_else(|| panic!("{pid}: {line}"));
    let mut groups = Vec::new();
    let mut path = Path::new(inside);
    while let (Some(name), Some(above)) = (path.file_name(), path.parent()) {
        let name = name.to_string_lossy();
        // These have others in them too.
        if name.ends_with(".slice") || name == "cgmgr-sessions.scope" || name.ends_with("slurmstepd.scope") {
            break;
        }
        groups.push(format!("{MOUNT}/{}", path.display()));
        path = above;
    }
    assert!(!groups.is_empty(), "{pid} is in {inside}, where everybody may be");
    groups
}

/// What is in force of all that these groups say, the innermost first. None where no group has such a file.
fn in_groups(file: &str, groups: &[String]) -> Option<String> {
    let said = groups.iter().filter_map(|group| {
        let text = fs::read_to_string(format!("{group}/{file}")).ok()?;
        // Lines of single devices follow the default's.
        Some(text.lines().next().unwrap_or_default().to_owned())
    });
    let said: Vec<String> = said.collect();
    match file {
        // What counts is the share among those that are not its own.
        "cpu.weight" | "io.weight" | "memory.low" => said.last().cloned(),
        "cpuset.cpus.effective" => said.first().cloned(),
        // The kernel takes the uppermost group that has it, below the limit that was hit.
        "memory.oom.group" => said.into_iter().max(),
        _ => said.into_iter().min_by_key(|text| amount(text)),
    }
}

/// A limit as a number: bytes, tasks, or millionths of a CPU.
fn amount(text: &str) -> u64 {
    let mut words = text.split(' ').map(str::parse::<u64>);
    match (words.next(), words.next()) {
        (Some(Ok(quota)), Some(Ok(period))) => quota * 1_000_000 / period,
        (Some(Ok(number)), None) => number,
        _ => u64::MAX,
    }
}

/// The soft limit of open files, and after a colon the hard one where it is another.
fn nofile(pid: i32) -> String {
    let limits = read(&format!("/proc/{pid}/limits"));
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let words: Vec<&str> = line.expect("a line").split_whitespace().take(2).collect();
    match words[..] {
        [soft, hard] if soft == hard => soft.to_owned(),
        _ => words.join(":"),
    }
}

fn nice(pid: i32) -> String {
    let stat = read(&format!("/proc/{pid}/stat"));
    // The second field may hold anything but ends with the last parenthesis.
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest);
    let nice = rest.and_then(|rest| rest.split(' ').nth(16));
    nice.expect("a nice value").to_owned()
}

/// A process that can be told from all others, whoever starts it and wherever it then is.
pub struct Sleeper {
    seconds: String,
}

static SLEEPERS: AtomicU32 = AtomicU32::new(100_000);

impl Sleeper {
    /// One that nobody has started yet.
    pub fn new() -> Sleeper {
        let number = SLEEPERS.fetch_add(1, Ordering::SeqCst);
        Sleeper {
            seconds: number.to_string(),
        }
    }

    /// The command that it is.
    pub fn words(&self) -> [&str; 2] {
        ["sleep", &self.seconds]
    }

    /// What limits it, once it is there.
    #[track_caller]
    pub fn held(&self) -> Held {
        until(&format!("{:?} runs", self.words()), || self.pid().is_some());
        Held::of(self.pid().expect("it was there"))
    }

    /// Waits until it is no more.
    #[track_caller]
    pub fn is_over(&self) {
        until(&format!("{:?} has ended", self.words()), || self.pid().is_none());
    }

    fn pid(&self) -> Option<i32> {
        let pids = fs::read_dir("/proc").expect("/proc").flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let words: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
            matches!(words[..], [name, seconds] if name.rsplit('/').next() == Some("sleep") && seconds == self.seconds)
        })
    }
}
