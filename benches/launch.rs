//! How long a launch takes, from the request until the command has ended and its group is gone.

use crate::figures::Sample;
use crate::live::{Library, memory_of_a_waiting_parent};
use crate::machine::{self, ROLE_FILE, run_bare};
use crate::observe::Daemon;
use crate::{floor, peers};
use rustix::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

/// How many sessions live beside those that are measured, when it is shown that they cost nothing.
const CROWDS: [usize; 4] = [0, 10, 100, 1000];

/// A way to launch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    FloorLoop,
    Library,
    ForkExec,
    FloorProcess,
    Cgmgr,
    Scope,
    Crun,
    Cgexec,
    SystemdRun,
}

impl Way {
    fn all() -> Vec<Way> {
        let mut all = vec![
            Way::FloorLoop,
            Way::Library,
            Way::ForkExec,
            Way::FloorProcess,
            Way::Cgmgr,
            Way::Crun,
            Way::Cgexec,
        ];
        if machine::is_systemd() {
            all.extend([Way::Scope, Way::SystemdRun]);
        }
        all
    }

    fn name(self) -> &'static str {
        match self {
            Way::FloorLoop => "bare floor, in a loop",
            Way::Library => "cgmgr library, in a loop",
            Way::ForkExec => "fork + exec, no group",
            Way::FloorProcess => "bare floor, as a process",
            // Without D-Bus: the unit that it makes groups below was delegated before.
            Way::Cgmgr if machine::is_systemd() => "cgmgr run, delegated unit",
            Way::Cgmgr => "cgmgr run",
            Way::Scope => "cgmgr run --backend scope",
            Way::Crun => "crun run",
            Way::Cgexec => "cgcreate cgset cgexec cgdelete",
            Way::SystemdRun => "systemd-run --scope",
        }
    }
}

/// How far launches are apart.
const PAUSES: [(Duration, &str); 2] = [
    (Duration::from_millis(20), "20 ms apart"),
    (Duration::ZERO, "back to back"),
];

/// Launches in a row where there is no pause between them.
const IN_A_ROW: usize = 5;

struct Bench {
    parent: OwnedFd,
    embedder: Library,
}

impl Bench {
    /// Launches in each way in turn, until there are `rounds` figures of each. Without a pause each way has a few turns in
    /// a row, the first of which does not count: the kernel is still taking away what the way before it has left.
    fn measure(&self, ways: &[Way], rounds: usize, pause: Duration) -> Result<Vec<Sample>, String> {
        let mut samples: Vec<Sample> = ways.iter().map(|_| Sample::default()).collect();
        let (in_a_row, uncounted) = if pause.is_zero() { (IN_A_ROW, 1) } else { (1, 0) };
        // The first round only fills caches.
        for round in 0..=rounds.div_ceil(in_a_row - uncounted) {
            for (way, sample) in ways.iter().zip(&mut samples) {
                for turn in 0..in_a_row {
                    let took = self.launch(*way, round)?;
                    if round > 0 && turn >= uncounted {
                        sample.add(took);
                    }
                    if !pause.is_zero() {
                        std::thread::sleep(pause);
                    }
                }
            }
        }
        Ok(samples)
    }

    fn launch(&self, way: Way, number: usize) -> Result<Duration, String> {
        let name = format!("bench-{number}");
        let since = Instant::now();
        match way {
            Way::FloorLoop => floor::once(&self.parent, &name).map_err(|e| format!("floor: {e}"))?,
            Way::Library => self.embedder.once()?,
            Way::ForkExec => run_bare(&mut Command::new("/bin/true"))?,
            Way::FloorProcess => {
                run_bare(Command::new("/lab/floor").args([&machine::parent(), &name, "/bin/true"]))?;
            }
            Way::Cgmgr => run_bare(&mut cgmgr_run(&[]))?,
            Way::Scope => run_bare(&mut cgmgr_run(&["--backend", "scope"]))?,
            Way::Crun => peers::crun("bench-crun")?,
            Way::Cgexec => peers::cgexec(&name)?,
            Way::SystemdRun => peers::systemd_run()?,
        }
        Ok(since.elapsed())
    }
}

fn cgmgr_run(options: &[&str]) -> Command {
    let mut command = Command::new("/usr/local/bin/cgmgr");
    command.arg("run").args(options);
    command.args(["--role", ROLE_FILE, "--", "/bin/true"]);
    command
}

/// Measures every way in turn, `rounds` times, and prints what came of it.
pub fn bench(rounds: usize) -> Result<(), String> {
    machine::make_ready()?;
    peers::make_bundle("bench-crun")?;
    let bench = Bench {
        parent: floor::open(&machine::parent()).map_err(|e| format!("{}: {e}", machine::parent()))?,
        embedder: Library::new()?,
    };
    let ways = Way::all();
    for (pause, title) in PAUSES {
        let samples = bench.measure(&ways, rounds, pause)?;
        print_table(title, &ways, &samples);
    }
    watched(&bench, rounds)?;
    crowd(&bench, rounds)?;
    version(rounds)?;
    memory_of_a_waiting_parent()?;
    let size = std::fs::metadata("/usr/local/bin/cgmgr").map_or(0, |m| m.len());
    println!("size of the binary: {:.2} MB (goal: below 3)", size as f64 / 1e6);
    Ok(())
}

fn print_table(title: &str, ways: &[Way], samples: &[Sample]) {
    let median = |way: Way| {
        let at = ways.iter().position(|w| *w == way);
        at.map_or(f64::NAN, |at| samples[at].median())
    };
    println!("\nlaunches {title}: milliseconds, median (quartiles)");
    for (way, sample) in ways.iter().zip(samples) {
        let base = match way {
            Way::FloorLoop | Way::Library => median(Way::FloorLoop),
            _ => median(Way::FloorProcess),
        };
        println!(
            "  {:32} {:32} {:6.2} of its floor",
            way.name(),
            sample.shown(),
            sample.median() / base
        );
    }
    let ours = median(Way::Cgmgr);
    goal(
        "cgmgr run / floor as a process",
        ours / median(Way::FloorProcess),
        "at most",
        1.3,
    );
    goal(
        "library / floor in a loop",
        median(Way::Library) / median(Way::FloorLoop),
        "at most",
        1.2,
    );
    if ways.contains(&Way::Scope) {
        goal(
            "cgmgr run --backend scope / systemd-run --scope",
            median(Way::Scope) / median(Way::SystemdRun),
            "at most",
            1.0,
        );
    }
    for (way, least) in [(Way::Crun, 1.5), (Way::Cgexec, 3.0), (Way::SystemdRun, 5.0)] {
        if ways.contains(&way) {
            goal(
                &format!("{} / cgmgr run", way.name()),
                median(way) / ours,
                "at least",
                least,
            );
        }
    }
}

/// One line that sets a ratio beside its goal.
pub fn goal(what: &str, ratio: f64, relation: &str, goal: f64) {
    let met = if relation == "at most" {
        ratio <= goal
    } else {
        ratio >= goal
    };
    println!(
        "  {what}: {ratio:.2} (goal: {relation} {goal}{})",
        if met { "" } else { "; NOT MET" }
    );
}

/// The same launches while `cgmgr daemon` looks on.
fn watched(bench: &Bench, rounds: usize) -> Result<(), String> {
    if !machine::has_command("daemon") {
        return Ok(());
    }
    println!("\nlaunches that cgmgr daemon looks on at: milliseconds, median (quartiles)");
    let daemon = Daemon::start()?;
    let ways = [Way::FloorProcess, Way::Cgmgr];
    for (pause, title) in PAUSES {
        let samples = bench.measure(&ways, rounds, pause)?;
        for (way, sample) in ways.iter().zip(&samples) {
            println!("  {title}: {:25} {}", way.name(), sample.shown());
        }
        println!(
            "  {title}: cgmgr run / floor as a process {:.2}",
            samples[1].median() / samples[0].median()
        );
    }
    daemon.end()
}

/// The same launches with ever more sessions alive beside them.
fn crowd(bench: &Bench, rounds: usize) -> Result<(), String> {
    println!("\nlaunches beside live sessions: milliseconds, median (quartiles)");
    let ways = [Way::FloorLoop, Way::Library, Way::FloorProcess, Way::Cgmgr];
    let mut alone: Vec<f64> = Vec::new();
    let mut live = Vec::new();
    for crowd in CROWDS {
        while live.len() < crowd {
            live.push(bench.embedder.hold()?);
        }
        // Settled: what making them has left to do is not to be measured.
        std::thread::sleep(Duration::from_millis(500));
        let samples = bench.measure(&ways, rounds, Duration::ZERO)?;
        let medians: Vec<f64> = samples.iter().map(Sample::median).collect();
        if alone.is_empty() {
            alone.clone_from(&medians);
        }
        for ((way, sample), (now, first)) in ways.iter().zip(&samples).zip(medians.iter().zip(&alone)) {
            println!(
                "  {crowd:4} live: {:25} {:32} {:6.2} of alone",
                way.name(),
                sample.shown(),
                now / first
            );
        }
        println!(
            "  {crowd:4} live: library / floor in a loop {:.2}, cgmgr run / floor as a process {:.2}",
            medians[1] / medians[0],
            medians[3] / medians[2]
        );
    }
    for session in live {
        session.end()?;
    }
    Ok(())
}

/// `cgmgr --version` beside `/bin/true`.
fn version(rounds: usize) -> Result<(), String> {
    let (mut ours, mut least) = (Sample::default(), Sample::default());
    for _ in 0..rounds * 3 {
        let since = Instant::now();
        run_bare(&mut Command::new("/bin/true"))?;
        least.add(since.elapsed());
        let since = Instant::now();
        run_bare(Command::new("/usr/local/bin/cgmgr").arg("--version"))?;
        ours.add(since.elapsed());
    }
    println!("\ncgmgr --version {}, /bin/true {}", ours.shown(), least.shown());
    goal(
        "cgmgr --version / true",
        ours.median() / least.median(),
        "at most",
        2.0,
    );
    Ok(())
}
