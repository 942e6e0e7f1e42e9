//! `cargo xtask bench survive`: what an agent survives, five ways side by side. docs/survival.md says what is measured.

mod arena;
mod cell;
mod monitor;
mod record;
mod table;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;

use crate::distro::Distro;
use crate::{cargo, say};
use arena::{Arena, End, Programs};
use record::Record;
use table::Report;

/// What `cargo xtask bench survive` is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these ways
    #[arg(long, value_enum, value_name = "WAY", value_delimiter = ',')]
    way: Vec<Way>,
    /// Only these attacks
    #[arg(long, value_enum, value_name = "ATTACK", value_delimiter = ',')]
    attack: Vec<Attack>,
    /// Only without swap, or with swap in compressed memory
    #[arg(long, value_enum, value_name = "SWAP")]
    swap: Option<Swap>,
    /// Runs of each cell; default: 100 of cgmgr over all its cells, 3 of each cell of the others
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// Seconds that an attack lasts, of the guest's
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    seconds: u32,
    /// How many guests at once; each keeps one processor busy
    #[arg(long, default_value_t = 1, value_name = "N")]
    guests: usize,
    /// Adds every run to this file, a JSON object a line, as soon as it is over; what is in it already is not run again
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Puts the tables into README.md and docs/survival.md
    #[arg(long)]
    docs: bool,
    /// Debian 12 (Linux 6.1, systemd 252) or 13 (Linux 6.12, systemd 257)
    #[arg(long, value_enum, default_value = "13")]
    distro: Distro,
}

/// How agent and sessions are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Sessions are children of the agent, in its service
    Unprotected,
    /// The same, with nice 5 and oom_score_adj 998 for the sessions
    Coder,
    /// Each session is made by systemd-run --scope with the same limits
    SystemdRun,
    /// cgmgr run, with limits for each session and none for all together
    CgmgrNoCeiling,
    /// cgmgr run, with a ceiling over all sessions
    Cgmgr,
}

impl Way {
    const ALL: [Way; 5] = [
        Way::Unprotected,
        Way::Coder,
        Way::SystemdRun,
        Way::CgmgrNoCeiling,
        Way::Cgmgr,
    ];

    /// What the guest knows it by.
    fn name(self) -> &'static str {
        match self {
            Way::Unprotected => "unprotected",
            Way::Coder => "coder",
            Way::SystemdRun => "systemd-run",
            Way::CgmgrNoCeiling => "cgmgr-no-ceiling",
            Way::Cgmgr => "cgmgr",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Way::Unprotected => "unprotected",
            Way::Coder => "Coder's way",
            Way::SystemdRun => "`systemd-run --scope`",
            Way::CgmgrNoCeiling => "cgmgr without ceiling",
            Way::Cgmgr => "cgmgr",
        }
    }
}

/// What is done to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// Each session takes memory without end
    Hog,
    /// Each session has ever more processes of 8 MiB
    Crowd,
    /// A fork bomb in each session
    Forks,
    /// Threads without end in each session
    Threads,
    /// 16 processes that compute
    Cpu,
    /// Writers that have each MiB put on the disk at once
    Fsync,
    /// Readers of more than the memory holds
    Cache,
    /// Pipes without end, each with something in it
    Files,
}

impl Attack {
    const ALL: [Attack; 8] = [
        Attack::Hog,
        Attack::Crowd,
        Attack::Forks,
        Attack::Threads,
        Attack::Cpu,
        Attack::Fsync,
        Attack::Cache,
        Attack::Files,
    ];

    /// What the guest knows it by.
    fn name(self) -> &'static str {
        match self {
            Attack::Hog => "hog",
            Attack::Crowd => "crowd",
            Attack::Forks => "forks",
            Attack::Threads => "threads",
            Attack::Cpu => "cpu",
            Attack::Fsync => "fsync",
            Attack::Cache => "cache",
            Attack::Files => "files",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Attack::Hog => "memory hogs",
            Attack::Crowd => "many small hogs",
            Attack::Forks => "fork bombs",
            Attack::Threads => "thread bombs",
            Attack::Cpu => "16 CPU hogs",
            Attack::Fsync => "writers with fsync",
            Attack::Cache => "page cache thrash",
            Attack::Files => "descriptors",
        }
    }
}

/// What there is beside the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Swap {
    /// Nothing
    None,
    /// 512 MiB of swap in compressed memory
    Zram,
}

impl Swap {
    const ALL: [Swap; 2] = [Swap::None, Swap::Zram];

    fn name(self) -> &'static str {
        match self {
            Swap::None => "none",
            Swap::Zram => "zram",
        }
    }
}

/// One attack to be run.
struct Task {
    attack: Attack,
    number: u32,
}

/// All of one way with one kind of swap: they start from the same state.
struct Group {
    way: Way,
    swap: Swap,
    tasks: Vec<Task>,
}

/// What the guests share.
struct Shared<'a> {
    arguments: &'a Arguments,
    groups: Mutex<VecDeque<Group>>,
    records: Mutex<Vec<Record>>,
    out: Mutex<Option<File>>,
    total: usize,
    begun: Instant,
}

/// Measures what has not been measured yet, prints the tables.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let known = match &arguments.out {
        Some(file) => read(file)?,
        None => Vec::new(),
    };
    let conditions = arguments.conditions();
    if let Some(other) = known.iter().find(|record| record.conditions() != conditions) {
        bail!(
            "{} has runs of another kind: {}; these would be: {conditions}\nhelp: name another file",
            arguments.out.as_deref().unwrap_or(Path::new("")).display(),
            other.conditions()
        );
    }
    let groups = arguments.groups(&known);
    let total = groups.iter().map(|group| group.tasks.len()).sum();
    let out = arguments.out.as_ref().map(|file| {
        let opened = File::options().create(true).append(true).open(file);
        opened.with_context(|| format!("cannot write {}", file.display()))
    });
    let shared = Shared {
        arguments,
        groups: Mutex::new(groups.into()),
        records: Mutex::new(known),
        out: Mutex::new(out.transpose()?),
        total,
        begun: Instant::now(),
    };
    if total > 0 {
        let programs = Programs::build()?;
        say::say(format!("{total} attacks to run"));
        std::thread::scope(|scope| {
            let guests: Vec<_> = (0..arguments.guests.max(1))
                .map(|_| scope.spawn(|| shared.work(&programs)))
                .collect();
            guests
                .into_iter()
                .try_for_each(|guest| guest.join().map_err(|_| anyhow!("a guest's thread panicked"))?)
        })?;
    }
    let records = shared
        .records
        .into_inner()
        .map_err(|_| anyhow!("a guest's thread panicked"))?;
    let report = Report(&records);
    println!("{}\n{}\n{}", report.short(), report.full(), report.goal());
    if arguments.docs {
        put("README.md", "survival", &report.short())?;
        put("docs/survival.md", "survival", &report.full())?;
        put("docs/survival.md", "goal", &report.goal())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    /// What has to be the same for two runs to be of one table.
    fn conditions(&self) -> String {
        format!("Debian {}, attacks of {} s", self.distro.number(), self.seconds)
    }

    /// What is to be run, without what is known.
    fn groups(&self, known: &[Record]) -> Vec<Group> {
        let chosen = |way: &Way| self.way.is_empty() || self.way.contains(way);
        let mut groups = Vec::new();
        for way in Way::ALL.into_iter().filter(chosen) {
            for swap in Swap::ALL
                .into_iter()
                .filter(|swap| self.swap.is_none_or(|only| only == *swap))
            {
                let mut tasks = Vec::new();
                for (place, attack) in Attack::ALL.into_iter().enumerate() {
                    if !self.attack.is_empty() && !self.attack.contains(&attack) {
                        continue;
                    }
                    let runs = self.runs.unwrap_or_else(|| usual_runs(way, place, swap));
                    let is_known = |number: &u32| {
                        known
                            .iter()
                            .any(|r| r.is(way.name(), attack.name(), swap.name(), *number))
                    };
                    tasks.extend(
                        (0..runs)
                            .filter(|number| !is_known(number))
                            .map(|number| Task { attack, number }),
                    );
                }
                // All attacks once, then all a second time: who stops early has something of each.
                tasks.sort_by_key(|task| task.number);
                groups.push(Group { way, swap, tasks });
            }
        }
        groups.retain(|group| !group.tasks.is_empty());
        groups
    }
}

/// 3, but for cgmgr 100 over its 16 cells: 6 of each, and one more of the first four without swap.
fn usual_runs(way: Way, place: usize, swap: Swap) -> u32 {
    match way {
        Way::Cgmgr => 6 + u32::from(swap == Swap::None && place < 4),
        _ => 3,
    }
}

impl Shared<'_> {
    /// What one guest does, until nothing is left.
    fn work(&self, programs: &Programs) -> Result<()> {
        let distro = self.arguments.distro;
        let next = || self.groups.lock().ok()?.pop_front();
        let Some(mut group) = next() else { return Ok(()) };
        let mut arena = say::step("booting a guest", || Arena::boot(distro, programs))?;
        loop {
            let name = format!("{}, swap {}", group.way.name(), group.swap.name());
            say::step(&format!("preparing {name}"), || {
                arena.prepare(group.way.name(), group.swap.name())
            })?;
            for task in &group.tasks {
                self.attack(&mut arena, &group, task)?;
            }
            match next() {
                Some(another) => group = another,
                None => return Ok(()),
            }
        }
    }

    fn attack(&self, arena: &mut Arena, group: &Group, task: &Task) -> Result<()> {
        let (way, swap, attack) = (group.way.name(), group.swap.name(), task.attack.name());
        let begun = Instant::now();
        // Different each time, and the same each time that this run is repeated.
        let seed = u64::from(task.number) * 2_654_435_761 % 1_000_003;
        let id = task.number as usize * Attack::ALL.len() + task.attack as usize;
        let name = format!("{way}, swap {swap}, {attack} {}", task.number);
        let end = say::during(&name, || arena.attack(id, attack, self.arguments.seconds, seed))?;
        let took = begun.elapsed();
        let (result, last) = match end {
            End::Result(result) => (Some(result), None),
            End::Hang(last) => (None, Some(last)),
        };
        let record = Record::new(way, attack, swap, task.number, result)
            .with("conditions", self.arguments.conditions())
            .with("seed", seed)
            .with("took_s", took.as_secs())
            .with("hung_after", last);
        let mut records = self
            .records
            .lock()
            .map_err(|_| anyhow!("a guest's thread panicked"))?;
        if let Some(file) = self
            .out
            .lock()
            .ok()
            .and_then(|out| out.as_ref().map(File::try_clone))
        {
            writeln!(file?, "{}", record.line())?;
        }
        let done = records.len() + 1;
        let outcome = cell::Cell::of(&[&record]);
        say::say(format!(
            "{name}: p99 {} ({:.0} s; {done} known, {} to run in all, {} min so far)",
            outcome.short(),
            took.as_secs_f32(),
            self.total,
            minutes(self.begun.elapsed()),
        ));
        records.push(record);
        Ok(())
    }
}

fn minutes(time: Duration) -> u64 {
    time.as_secs() / 60
}

fn read(file: &Path) -> Result<Vec<Record>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let parse = |(number, line): (usize, &str)| {
        Record::parse(line).with_context(|| format!("{}:{}: no record of a run", file.display(), number + 1))
    };
    text.lines().enumerate().map(parse).collect()
}

/// Puts text between the two marks of that name in a file of the repository.
fn put(path: &str, mark: &str, text: &str) -> Result<()> {
    let file = cargo::root().join(path);
    let old = fs::read_to_string(&file).with_context(|| format!("cannot read {path}"))?;
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let between = |text: &str| Some((text.find(&begin)? + begin.len(), text.find(&end)?));
    let (from, to) = between(&old).with_context(|| format!("{path} has no place for it: {begin}{end}"))?;
    fs::write(
        &file,
        format!("{}\n{}\n{}", &old[..from], text.trim_end(), &old[to..]),
    )?;
    say::say(format!("{path}: {mark} is new"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgmgr_has_a_hundred_runs_and_the_others_three_of_each_cell() {
        let runs = |way| {
            let of = |swap| (0..Attack::ALL.len()).map(move |place| usual_runs(way, place, swap));
            Swap::ALL.into_iter().flat_map(of).sum::<u32>()
        };
        assert_eq!(runs(Way::Cgmgr), 100);
        assert_eq!(runs(Way::Coder), 3 * 16);
    }
}
