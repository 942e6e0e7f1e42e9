//! A stream of sessions, fifty at a time, each with a fate that is known beforehand: every verdict must be the true one.
//!
//! The limits are such that each bites only where it is meant to: small sessions stay far below the ceiling together,
//! and what is to be killed at the ceiling is the largest there and has the highest score.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cgmgr::{Done, Live, cgmgr, report, run_command};
use crate::lab::{Lab, full, path_of, session_groups};

/// How many sessions live at a time.
const AT_A_TIME: usize = 50;
/// A guard only: fifty sessions share two emulated CPUs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Over all sessions together, in MiB: fifty small ones and the ballast are far below it.
const CEILING: u64 = 448;
/// What one session holds all the time, so that another meets the ceiling before a limit of its own.
const BALLAST: u64 = 32;
/// The limit of its own that a session has which is to meet the ceiling first.
const ABOVE_REACH: &str = "430MiB";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    OwnLimit,
    /// The ceiling is hit by another one while this one lives.
    OwnLimitPastCeiling,
    Ceiling,
    CeilingAsGroup,
    Group,
    GrandchildThenEnd,
    GrandchildThenOn,
    GrandchildThenKilled,
    KilledBySomebody,
    Exit137,
    Exit0,
}

use Fate::*;

/// How many of each there are among a hundred.
const OF_A_HUNDRED: [(Fate, usize); 11] = [
    (OwnLimit, 16),
    (OwnLimitPastCeiling, 4),
    (Ceiling, 10),
    (CeilingAsGroup, 4),
    (Group, 10),
    (GrandchildThenEnd, 10),
    (GrandchildThenOn, 8),
    (GrandchildThenKilled, 8),
    (KilledBySomebody, 10),
    (Exit137, 10),
    (Exit0, 10),
];

impl Fate {
    /// What the session may use, and whom the kernel is to take first at the ceiling.
    fn options(self) -> &'static [&'static str] {
        match self {
            Ceiling => &["--memory-max", ABOVE_REACH, "--oom-score-adj", "1000"],
            CeilingAsGroup => &[
                "--memory-max",
                ABOVE_REACH,
                "--oom-score-adj",
                "1000",
                "--oom-group",
            ],
            Group => &["--memory-max", "16MiB", "--oom-score-adj", "0", "--oom-group"],
            _ => &["--memory-max", "8MiB", "--oom-score-adj", "0"],
        }
    }

    /// What the session does. The process that is to be the victim leaves its pid in the file; the command that has
    /// it as a child does so in a file beside it.
    fn words(self, witness: &str) -> Vec<String> {
        let parent = format!("{witness}-parent");
        let words: &[&str] = match self {
            OwnLimit => &["hog", "32"],
            OwnLimitPastCeiling => &["later", "hog", "32"],
            Ceiling => &["hog", "1000"],
            CeilingAsGroup => &["crowd", "2", "2"],
            Group => &["crowd", "3", "2"],
            GrandchildThenEnd | GrandchildThenOn | GrandchildThenKilled => {
                &["parent", "5", "witness", witness, "hog", "32"]
            }
            KilledBySomebody => &["hold", "1"],
            Exit137 => &["exit", "137"],
            Exit0 => &["exit", "0"],
        };
        let first = if words[0] == "parent" { &parent } else { witness };
        let all = ["witness", first].into_iter().chain(words.iter().copied());
        all.map(str::to_owned).collect()
    }

    fn status(self) -> i32 {
        match self {
            Exit0 => 0,
            GrandchildThenEnd | GrandchildThenOn => 5,
            _ => 137,
        }
    }

    /// The level whose limit is hit; `None` where nothing is OOM-killed.
    fn level(self) -> Option<&'static str> {
        match self {
            OwnLimit | OwnLimitPastCeiling | Group => Some("session"),
            GrandchildThenEnd | GrandchildThenOn | GrandchildThenKilled => Some("session"),
            Ceiling | CeilingAsGroup => Some("ceiling"),
            KilledBySomebody | Exit137 | Exit0 => None,
        }
    }

    fn limit(self) -> u64 {
        match self {
            Ceiling | CeilingAsGroup => CEILING << 20,
            Group => 16 << 20,
            _ => 8 << 20,
        }
    }

    fn is_group(self) -> bool {
        matches!(self, Group | CeilingAsGroup)
    }

    fn takes_command(self) -> bool {
        matches!(
            self,
            OwnLimit | OwnLimitPastCeiling | Ceiling | Group | CeilingAsGroup
        )
    }
}

/// The fates in an order that is the same in every run.
fn stream(count: usize) -> Vec<Fate> {
    let mut fates: Vec<Fate> = OF_A_HUNDRED
        .iter()
        .flat_map(|(fate, n)| std::iter::repeat_n(*fate, n * count / 100))
        .collect();
    assert_eq!(fates.len(), count);
    // Fisher and Yates, with the numbers of a linear congruential generator (Knuth's MMIX).
    let mut state = 20_260_101_u64;
    for last in (1..fates.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        fates.swap(last, (state >> 33) as usize % (last + 1));
    }
    fates
}

/// What a session said, with what its victim said of itself.
struct Told {
    done: Done,
    report: Value,
    /// Pid and comm of the process that was to be killed, or that ended by itself.
    witness: Option<(i64, String)>,
}

pub fn read_witness(file: &str) -> Option<(i64, String)> {
    let text = std::fs::read_to_string(file).ok()?;
    let (pid, comm) = text.trim_end().split_once(' ')?;
    Some((pid.parse().ok()?, comm.to_owned()))
}

/// Runs one session to its fate.
fn live_through(fate: Fate, name: &str, lab: &Lab) -> Result<Told, String> {
    let (file, witness) = (
        lab.path(&format!("report-{name}")),
        lab.path(&format!("witness-{name}")),
    );
    let mut options = vec!["--name", name, "--report", &file];
    options.extend(fate.options());
    let words = fate.words(&witness);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut live = Live::of(name, &mut run_command(&options, &words));
    let supervisor = live.cgmgr.id();
    let (goes_on, said) = listen(&mut live);
    let told_to_go_on = || {
        let heard = goes_on.recv_timeout(PATIENCE);
        heard.map_err(|why| {
            let so_far = said.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
            let state = what_is(name, supervisor);
            format!("{name} never said that it goes on ({why}): {so_far:?}\n{state}")
        })
    };
    let kill = |pid: i64| {
        let pid = rustix::process::Pid::from_raw(pid as i32).ok_or("no pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(|e| format!("SIGKILL: {e}"))
    };
    match fate {
        KilledBySomebody => kill(seen(&witness)?.0)?,
        GrandchildThenOn => told_to_go_on()?,
        OwnLimitPastCeiling => {
            seen(&witness)?;
            let other = format!("{name}-other");
            let told = live_through(Ceiling, &other, lab)?;
            let wrong = untrue(Ceiling, &other, &told);
            if !wrong.is_empty() {
                return Err(format!("{other}: {wrong:?}\n{:#}", told.report["oom"]));
            }
        }
        GrandchildThenKilled => {
            told_to_go_on()?;
            kill(seen(&format!("{witness}-parent"))?.0)?;
        }
        _ => {}
    }
    let mut done = live.end();
    done.err = said
        .recv_timeout(PATIENCE)
        .map_err(|_| "its stderr never ended".to_owned())?;
    Ok(Told {
        done,
        report: report(&file),
        witness: read_witness(&witness),
    })
}

/// The state of a session that does not do what it should: its counters, and what its processes and its cgmgr wait for.
fn what_is(name: &str, supervisor: u32) -> String {
    let group = path_of(name);
    let read = |file: String| std::fs::read_to_string(&file).unwrap_or_else(|e| format!("{e}\n"));
    let mut text = String::new();
    for file in ["memory.events", "memory.current", "cgroup.events", "cgroup.procs"] {
        text += &format!("{file}:\n{}", read(format!("{group}/{file}")));
    }
    let inside = read(format!("{group}/cgroup.procs"));
    let pids = inside.lines().map(str::to_owned).chain([supervisor.to_string()]);
    for pid in pids {
        for file in ["stat", "wchan", "syscall", "stack"] {
            text += &format!(
                "/proc/{pid}/{file}: {}\n",
                read(format!("/proc/{pid}/{file}")).trim_end()
            );
        }
    }
    text
}

/// Reads the session's standard error: a sign when it says that the session goes on, and at its end all of it.
fn listen(live: &mut Live) -> (Receiver<()>, Receiver<String>) {
    let errors = live.cgmgr.stderr.take().expect("a pipe");
    live.cgmgr.stderr = Some(crate::any::verdict::empty());
    let ((sign, signs), (send, receive)) = (channel(), channel());
    std::thread::spawn(move || {
        let mut said = String::new();
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            if line.contains("; the session goes on") {
                let _ = sign.send(());
            }
            said.push_str(&line);
            said.push('\n');
        }
        let _ = send.send(said);
    });
    (signs, receive)
}

/// Waits for a witness.
fn seen(file: &str) -> Result<(i64, String), String> {
    let begun = Instant::now();
    loop {
        match read_witness(file) {
            Some(witness) => return Ok(witness),
            None if begun.elapsed() > PATIENCE => return Err(format!("{file} never came")),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Everything in a verdict that is not true of this fate.
fn untrue(fate: Fate, name: &str, told: &Told) -> Vec<String> {
    let (oom, done) = (&told.report["oom"], &told.done);
    let mut wrong = Vec::new();
    let mut must = |so: bool, what: &str| {
        if !so {
            wrong.push(what.to_owned());
        }
    };
    must(done.status == fate.status(), "exit status");
    must(told.report["status"] == fate.status(), "status in the report");
    let own_death = format!("{name} was OOM-killed");
    must(
        done.err.contains(&own_death) == fate.takes_command(),
        "what is said of the session's death",
    );
    let Some(level) = fate.level() else {
        must(oom.is_null(), "a verdict where nothing was OOM-killed");
        must(!done.err.contains("OOM"), "a word of OOM");
        return wrong;
    };
    must(oom["level"] == level, "the level");
    must(oom["limit"] == fate.limit(), "the limit");
    let group = (level == "ceiling").then_some("/workloads.slice");
    must(oom["group"].as_str() == group, "the group");
    must(oom["whole_group"] == fate.is_group(), "the whole group");
    must(
        oom["took_command"] == fate.takes_command(),
        "whether it took the command",
    );
    let kills = match fate {
        Group => 3..=3,
        // It may be taken before it has its child.
        CeilingAsGroup => 1..=2,
        _ => 1..=1,
    };
    must(
        oom["kills"].as_u64().is_some_and(|n| kills.contains(&n)),
        "how many were killed",
    );
    let victim = &oom["victim"];
    // Unknown is allowed, wrong is not.
    if !victim.is_null() {
        match &told.witness {
            Some((pid, comm)) => {
                must(victim["pid"] == *pid, "the victim's pid");
                must(victim["comm"] == comm.as_str(), "the victim's name");
            }
            // Taken at the ceiling before it could leave its pid: then it was the command itself.
            None => must(
                level == "ceiling" && victim["pid"] == told.report["pid"],
                "the victim's pid, with no witness",
            ),
        }
    }
    wrong
}

/// Per fate: sessions, wrong ones, victims named and unknown.
#[derive(Default)]
struct Score {
    sessions: usize,
    wrong: usize,
    named: usize,
    unknown: usize,
}

/// Says something past the test harness, which keeps what a test prints: a guest that is silent for long is ended.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "\n    {text}");
}

#[test]
fn every_fate_of_a_stream_of_sessions_is_told_truly() {
    let lab = Lab::new();
    let role = lab.file(
        "ceiling.role.toml",
        &format!("[workloads]\nmemory_high = \"max\"\nmemory_max = \"{CEILING} MiB\"\n"),
    );
    cgmgr(&["apply", &role]).expect(0);
    let ballast = Live::hold("ballast", &["--oom-score-adj", "-1000"], BALLAST as usize);
    let fates = stream(if full() { 1000 } else { 100 });
    let (next, scores, wrongs) = (
        AtomicUsize::new(0),
        Mutex::new(BTreeMap::<Fate, Score>::new()),
        Mutex::new(Vec::new()),
    );
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(fate) = fates.get(number).copied() else {
                        return;
                    };
                    if number % 50 == 49 {
                        say(&format!("{} of {} sessions begun", number + 1, fates.len()));
                    }
                    let name = format!("f{number}");
                    let told = live_through(fate, &name, &lab);
                    let wrong = match &told {
                        Ok(told) => untrue(fate, &name, told),
                        Err(why) => vec![why.clone()],
                    };
                    let mut scores = scores.lock().expect("no panic");
                    let score = scores.entry(fate).or_default();
                    score.sessions += 1;
                    score.wrong += usize::from(!wrong.is_empty());
                    if let (Ok(told), Some(_)) = (&told, fate.level()) {
                        let unknown = told.report["oom"]["victim"].is_null();
                        score.unknown += usize::from(unknown);
                        score.named += usize::from(!unknown);
                    }
                    if !wrong.is_empty() {
                        let told =
                            told.map(|t| format!("{:#}\n{:?}\n{:#?}", t.report["oom"], t.witness, t.done));
                        let all = format!("{name} {fate:?}: {wrong:?}\n{}", told.unwrap_or_default());
                        say(&all);
                        wrongs.lock().expect("no panic").push(all);
                    }
                }
            });
        }
    });
    ballast.end().expect(0);
    let scores = scores.into_inner().expect("no panic");
    for (fate, s) in &scores {
        say(&format!(
            "{fate:?}: {} sessions, {} wrong; victims: {} named, {} unknown",
            s.sessions, s.wrong, s.named, s.unknown
        ));
    }
    let wrongs = wrongs.into_inner().expect("no panic");
    assert!(
        wrongs.is_empty(),
        "{} verdicts are wrong:\n{}",
        wrongs.len(),
        wrongs.join("\n")
    );
    assert_eq!(scores.values().map(|s| s.sessions).sum::<usize>(), fates.len());
    let (named, unknown) = scores
        .values()
        .fold((0, 0), |(n, u), s| (n + s.named, u + s.unknown));
    assert!(
        named > unknown,
        "only {named} of {} victims were named",
        named + unknown
    );
    assert_eq!(session_groups(), [""; 0]);
}
