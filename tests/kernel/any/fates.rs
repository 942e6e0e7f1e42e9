//! A stream of sessions, fifty at a time, each with a fate that is known beforehand: every verdict must be the true one, and
//! so must be what is on record of it when all is over, although the daemon was killed again and again meanwhile.
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

use super::records::Records;
use crate::cgmgr::{Done, Live, payload, report};
use crate::lab::{full, path_of, session_groups};

/// How many sessions live at a time.
const AT_A_TIME: usize = 50;
/// A guard only: fifty sessions share two emulated CPUs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Over all sessions together, in MiB: fifty small ones and the ballast are far below it.
const CEILING: u64 = 448;
/// How often the daemon is killed meanwhile.
const KILLED: usize = 10;
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

    /// How many are killed.
    fn kills(self) -> std::ops::RangeInclusive<u64> {
        match self {
            Group => 3..=3,
            // It may be taken before it has its child.
            CeilingAsGroup => 1..=2,
            _ => 1..=1,
        }
    }

    /// The group whose limit is hit, where it is one above.
    fn group_above(self) -> Option<&'static str> {
        (self.level() == Some("ceiling")).then_some("/workloads.slice")
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
fn live_through(fate: Fate, name: &str, records: &Records) -> Result<Told, String> {
    let (file, witness) = (
        records.lab.path(&format!("report-{name}")),
        records.lab.path(&format!("witness-{name}")),
    );
    let mut command = records.command(&["run", "--name", name, "--report", &file]);
    command.args(fate.options()).arg("--").arg(payload());
    let mut live = Live::of(name, command.args(fate.words(&witness)));
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
            let told = live_through(Ceiling, &other, records)?;
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
    must(oom["group"].as_str() == fate.group_above(), "the group");
    must(oom["whole_group"] == fate.is_group(), "the whole group");
    must(
        oom["took_command"] == fate.takes_command(),
        "whether it took the command",
    );
    must(
        oom["kills"].as_u64().is_some_and(|n| fate.kills().contains(&n)),
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

/// `cgmgr events --follow --json`, from before the first session on.
struct Follower {
    child: std::process::Child,
    file: String,
}

impl Follower {
    fn of(records: &Records) -> Follower {
        let file = records.lab.path("followed");
        let out = std::fs::File::create(&file).expect("a file");
        let mut command = records.command(&["events", "--follow", "--json", "--since", "1970-01-01"]);
        let child = command.stdout(out).spawn().expect("a follower");
        Follower { child, file }
    }

    /// It has each record once.
    fn has_seen_all(mut self, records: &Records) {
        let all = records.cgmgr(&["events", "--json"]).expect(0).out;
        let seen = || std::fs::read_to_string(&self.file).expect("a file");
        crate::cgmgr::until("the follower has seen all", || seen().len() >= all.len());
        let _ = self.child.kill();
        let _ = self.child.wait();
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(
            sorted(&seen()),
            sorted(&all),
            "what was followed, and what is on record"
        );
    }
}

/// What is on record of each session when all are over, beside its fate: all that is wrong.
fn on_record(records: &Records, fates: &[Fate]) -> Vec<String> {
    let json = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    let mut of: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for record in records
        .cgmgr(&["events", "--json"])
        .expect(0)
        .out
        .lines()
        .map(json)
    {
        *kinds.entry(record["event"].to_string()).or_default() += 1;
        if let Some(session) = record["session"].as_str() {
            of.entry(session.to_owned()).or_default().push(record);
        }
    }
    say(&format!("records: {kinds:?}"));
    let by_name = |text: &str, list: &str, name: &dyn Fn(&Value) -> Value| {
        let all = json(text)[list].as_array().cloned().unwrap_or_default();
        let mut by_name: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for one in all {
            by_name
                .entry(name(&one).as_str().unwrap_or_default().to_owned())
                .or_default()
                .push(one);
        }
        by_name
    };
    let history = records.cgmgr(&["history", "--json"]).expect(0).out;
    let mut history = by_name(&history, "sessions", &|one| one["session"].clone());
    let cases = records.cgmgr(&["oom", "--json"]).expect(0).out;
    let mut cases = by_name(&cases, "cases", &|one| one["case"]["session"].clone());
    let mut expected = vec![("ballast".to_owned(), Exit0)];
    for (number, fate) in fates.iter().enumerate() {
        expected.push((format!("f{number}"), *fate));
        if *fate == OwnLimitPastCeiling {
            expected.push((format!("f{number}-other"), Ceiling));
        }
    }
    let mut wrong = Vec::new();
    let mut named = 0;
    for (name, fate) in &expected {
        let of_session = of.remove(name).unwrap_or_default();
        let kind = |event: &str| -> Vec<&Value> {
            of_session
                .iter()
                .filter(|record| record["event"] == event)
                .collect()
        };
        let witness = read_witness(&records.lab.path(&format!("witness-{name}")));
        let mut all = untrue_record(*fate, &kind, witness);
        let ended = history.remove(name).unwrap_or_default();
        if ended.iter().collect::<Vec<_>>() != kind("exited") {
            all.push("history");
        }
        let case = cases.remove(name).unwrap_or_default();
        let kept = case.first().is_some_and(|case| case["kept"] == true);
        if case.len() != usize::from(fate.level().is_some()) || kept != fate.takes_command() {
            all.push("oom's list");
        }
        let told = kind("oom_kill");
        named += usize::from(told.iter().any(|kill| kill["victims"][0]["pid"].is_i64()));
        if !all.is_empty() {
            let text = format!("{name} {fate:?} on record: {all:?}\n{of_session:#?}");
            say(&text);
            wrong.push(text);
        }
    }
    let invented = of.into_keys().chain(history.into_keys()).chain(cases.into_keys());
    wrong.extend(invented.map(|name| format!("{name} is on record, and never was")));
    say(&format!(
        "on record: {} sessions, {} wrong; {named} of those with OOM kills name who was killed",
        expected.len(),
        wrong.len()
    ));
    wrong
}

/// Everything in a session's records that is not true of this fate.
fn untrue_record<'r>(
    fate: Fate,
    kind: &dyn Fn(&str) -> Vec<&'r Value>,
    witness: Option<(i64, String)>,
) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let mut must = |so: bool, what| {
        if !so {
            wrong.push(what);
        }
    };
    let (started, exited, kills) = (kind("started"), kind("exited"), kind("oom_kill"));
    must(started.len() == 1, "not one start");
    must(exited.len() == 1, "not one end");
    let (Some(started), Some(exited)) = (started.first(), exited.first()) else {
        return wrong;
    };
    let ids = kills
        .iter()
        .chain([exited])
        .all(|record| record["id"] == started["id"]);
    must(ids && started["id"].is_string(), "its id");
    must(exited["status"] == fate.status(), "the status");
    must(exited["oom_unknown"].is_null(), "counters that were gone");
    for other in ["stalled", "pids_hit", "drifted", "frozen"] {
        must(kind(other).is_empty(), "what never was");
    }
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let told: u64 = kills.iter().map(|kill| number(&kill["kills"])).sum();
    let Some(level) = fate.level() else {
        must(
            kills.is_empty() && exited["oom"].is_null(),
            "an OOM kill that never was",
        );
        return wrong;
    };
    must(fate.kills().contains(&told), "how many were killed");
    must(exited["oom"]["kills"] == told, "how many were killed, at the end");
    must(
        exited["oom"]["took_command"] == fate.takes_command(),
        "whether it took the command",
    );
    must(exited["oom"]["whole_group"] == fate.is_group(), "the whole group");
    for oom in kills.iter().copied().chain([&exited["oom"]]) {
        must(oom["level"] == level, "the level");
        must(oom["limit"] == fate.limit(), "the limit");
        must(oom["limited_group"].as_str() == fate.group_above(), "the group");
    }
    // Unknown is allowed, wrong is not; of a group the others are not known here.
    let victims: Vec<&Value> = kills
        .iter()
        .filter_map(|kill| kill["victims"].as_array())
        .flatten()
        .collect();
    let of_end = exited["oom"]["victims"].as_array();
    if let (Some((pid, comm)), Some(chosen)) = (&witness, of_end.and_then(|all| all.first())) {
        must(
            chosen["pid"] == *pid && chosen["comm"] == comm.as_str(),
            "who was killed",
        );
    }
    must(victims.len() as u64 <= told, "more victims than kills");
    if let (Some((pid, _)), false) = (&witness, fate.is_group()) {
        must(
            victims.iter().all(|victim| victim["pid"] == *pid),
            "who was killed, at once",
        );
    }
    wrong
}

#[test]
fn every_fate_of_a_stream_of_sessions_is_told_truly() {
    let records = Records::new();
    let role = records.lab.file(
        "ceiling.role.toml",
        &format!("[workloads]\nmemory_high = \"max\"\nmemory_max = \"{CEILING} MiB\"\n"),
    );
    records.cgmgr(&["apply", &role]).expect(0);
    let follower = Follower::of(&records);
    let mut daemon = Some(records.daemon());
    let hold = [payload(), "hold".into(), BALLAST.to_string()];
    let mut ballast = records.command(&["run", "--name", "ballast", "--oom-score-adj", "-1000", "--"]);
    let mut ballast = Live::of("ballast", ballast.args(hold));
    ballast.hear("ready ");
    let fates = stream(if full() { 1000 } else { 100 });
    let (next, scores, wrongs) = (
        AtomicUsize::new(0),
        Mutex::new(BTreeMap::<Fate, Score>::new()),
        Mutex::new(Vec::new()),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for time in 1..=KILLED {
                while next.load(Ordering::SeqCst) < time * fates.len() / (KILLED + 1) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                daemon.take().expect("a daemon").kill();
                // Now and then there is none for a while.
                std::thread::sleep(Duration::from_millis(500 * (time as u64 % 4)));
                daemon = Some(records.daemon());
            }
            say(&format!("the daemon was killed {KILLED} times"));
        });
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
                    let told = live_through(fate, &name, &records);
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
    let on_record = on_record(&records, &fates);
    follower.has_seen_all(&records);
    drop(daemon);
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
    assert!(
        on_record.is_empty(),
        "what is on record of {} sessions is wrong:\n{}",
        on_record.len(),
        on_record.join("\n")
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
