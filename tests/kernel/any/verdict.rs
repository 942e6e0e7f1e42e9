//! What is said about an OOM kill: true in level, victim and number, and never said of anything else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::cgmgr::{Done, Live, report, run_payload, run_shell};
use crate::lab::{Lab, full, session_groups};

/// Runs `count` sessions, four at a time; each gets its number and the path of its report.
fn campaign(lab: &Lab, count: usize, run: impl Fn(&str, &str) -> Done + Sync) -> Vec<(Done, Value)> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    let file = lab.path(&format!("report-{number}"));
                    let done = run(&format!("s{number}"), &file);
                    let told = report(&file);
                    results.lock().expect("no panic").push((done, told));
                }
            });
        }
    });
    let results = results.into_inner().expect("no panic");
    assert_eq!(results.len(), count);
    results
}

/// The hog's own pid, as it said it.
fn hog(done: &Done) -> i64 {
    let line = done.out.lines().find_map(|line| line.strip_prefix("hog "));
    line.and_then(|pid| pid.parse().ok())
        .unwrap_or_else(|| panic!("no hog: {done:#?}"))
}

#[test]
fn every_oom_kill_gets_a_true_verdict() {
    let lab = Lab::new();
    let count = if full() { 1000 } else { 100 };
    let results = campaign(&lab, count, |name, file| {
        run_payload(
            &["--name", name, "--memory-max", "16MiB", "--report", file],
            &["hog", "40"],
        )
    });
    let mut named = 0;
    for (done, told) in &results {
        assert_eq!(done.status, 137, "{done:#?}");
        let oom = &told["oom"];
        assert_eq!(oom["level"], "session", "{told:#}\n{done:#?}");
        assert_eq!(oom["limit"], 16 << 20, "{oom}");
        assert_eq!(
            (&oom["kills"], &oom["whole_group"]),
            (&1.into(), &false.into()),
            "{oom}"
        );
        done.says("was OOM-killed: memory_max 16.0 MiB reached");
        // Unknown is allowed, wrong is not.
        if !oom["victim"].is_null() {
            named += 1;
            assert_eq!(oom["victim"]["pid"], hog(done), "{told:#}");
            assert_eq!(oom["victim"]["comm"], "payload");
            done.says(&format!("payload pid {} held", hog(done)));
        }
    }
    assert!(named > count / 2, "only {named} of {count} victims were named");
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn a_plain_kill_gets_no_verdict() {
    let lab = Lab::new();
    let results = campaign(&lab, if full() { 1000 } else { 100 }, |name, file| {
        run_shell(
            &["--name", name, "--memory-max", "64MiB", "--report", file],
            "kill -9 $$",
        )
    });
    for (done, told) in &results {
        assert_eq!((done.status, &told["exit"]["signal"]), (137, &9.into()));
        assert!(told["oom"].is_null(), "{told:#}");
        done.says_nothing_of("OOM");
    }
}

#[test]
fn an_exit_with_137_gets_no_verdict() {
    let lab = Lab::new();
    let results = campaign(&lab, 20, |name, file| {
        run_shell(
            &["--name", name, "--memory-max", "64MiB", "--report", file],
            "exit 137",
        )
    });
    for (done, told) in &results {
        assert_eq!((done.status, &told["exit"]["code"]), (137, &137.into()));
        assert!(told["oom"].is_null(), "{told:#}");
        done.says_nothing_of("OOM");
    }
}

#[test]
fn a_kill_9_beside_sessions_that_are_oom_killed_gets_no_verdict() {
    let lab = Lab::new();
    let results = campaign(&lab, 24, |name, file| {
        let options = ["--name", name, "--memory-max", "16MiB", "--report", file];
        let odd = name.ends_with(['1', '3', '5', '7', '9']);
        match odd {
            true => run_payload(&options, &["hog", "40"]),
            false => run_shell(&options, "kill -9 $$"),
        }
    });
    let killed = results
        .iter()
        .filter(|(_, told)| told["oom"]["level"] == "session");
    assert_eq!(killed.count(), 12);
    for (done, told) in &results {
        let hog = told["command"][1] == "hog";
        assert_eq!(done.status, 137);
        assert_eq!(!told["oom"].is_null(), hog, "{told:#}");
    }
}

#[test]
fn a_crowd_is_killed_whole_and_the_verdict_names_it() {
    let lab = Lab::new();
    let file = lab.path("report");
    let options = [
        "--name",
        "crowd",
        "--memory-max",
        "256MiB",
        "--oom-group",
        "--report",
        &file,
    ];
    let done = run_payload(&options, &["crowd", "64", "2"]).expect(137);
    assert!(done.out.starts_with("crowd 64\n"), "{done:#?}");
    let told = report(&file);
    let oom = &told["oom"];
    assert_eq!(
        (&oom["level"], &oom["whole_group"]),
        (&"session".into(), &true.into()),
        "{told:#}"
    );
    assert_eq!(oom["kills"], 64, "{told:#}");
    done.says("The kernel killed the whole group, 64 processes.");
    assert_eq!(told["left"].as_array().map(Vec::len), Some(0));
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn without_oom_group_one_process_dies_and_the_others_live() {
    let lab = Lab::new();
    let file = lab.path("report");
    let options = ["--name", "some", "--memory-max", "64MiB", "--report", &file];
    // The hog is not the command itself: the command outlives it and tells its end.
    let script = format!("{} hog 300; echo hog ended $?; exit 6", crate::cgmgr::payload());
    let done = run_shell(&options, &script).expect(6);
    assert!(done.out.contains("hog ended 137"), "{done:#?}");
    let oom = &report(&file)["oom"];
    assert_eq!(
        (&oom["kills"], &oom["whole_group"]),
        (&1.into(), &false.into()),
        "{oom}"
    );
    done.says_nothing_of("some was OOM-killed").says("OOM-killed");
}

#[test]
fn an_oom_kill_of_a_grandchild_is_told_while_the_session_lives() {
    let lab = Lab::new();
    // In five seconds the kernel says of ten kills only in whose group they were (mm/oom_kill.c, oom_kill_process), and
    // this victim is waited for before it can be looked up: after other tests its name would not be known.
    std::thread::sleep(std::time::Duration::from_secs(6));
    let mut live = Live::start("family", &["--memory-max", "48MiB"], &["grandchild", "200"]);
    let errors = live.cgmgr.stderr.take().expect("a pipe");
    // The session goes on until we end its input: what is read here was said during its life. The shell in it speaks
    // too.
    let told = first_line(errors, "cgmgr: ");
    let hog = live.hear("hog ");
    assert!(
        live.cgmgr.try_wait().expect("a look").is_none(),
        "it has ended: {told}"
    );
    assert!(told.starts_with("cgmgr: family: payload pid "), "{told}");
    assert!(told.contains(&format!("pid {hog} held")), "{told} and not {hog}");
    assert!(
        told.contains("memory_max 48.0 MiB reached; the session goes on"),
        "{told}"
    );
    assert_eq!(live.hear("grandchild "), format!("{hog} ended 137"));
    live.cgmgr.stderr = Some(empty());
    let done = live.end().expect(5);
    assert_eq!(done.out, "parent goes on\n");
    drop(lab);
}

/// The first line that begins so.
fn first_line(stream: std::process::ChildStderr, begin: &'static str) -> String {
    use std::io::{BufRead, BufReader};
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let _ = send.send(lines.find(|line| line.starts_with(begin)));
        // Read on: whoever writes must not fail.
        lines.for_each(drop);
    });
    let line = receive.recv_timeout(crate::cgmgr::PATIENCE);
    line.ok()
        .flatten()
        .unwrap_or_else(|| panic!("no line began with `{begin}`"))
}

/// A stream with nothing in it.
pub fn empty() -> std::process::ChildStderr {
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    std::os::fd::OwnedFd::from(null).into()
}

#[test]
fn two_sessions_below_their_own_limits_can_hit_the_ceiling() {
    let lab = Lab::new();
    let role = lab.file(
        "tight.role.toml",
        "[runtime.limits]\nmemory_max = \"150 MiB\"\n[workloads]\nmemory_max = \"200 MiB\"\n",
    );
    crate::cgmgr::cgmgr(&["apply", &role]).expect(0);
    let live = Live::hold("first", &["--role", &role, "--oom-score-adj", "0"], 100);
    let file = lab.path("report");
    let options = [
        "--role",
        &role,
        "--name",
        "second",
        "--oom-score-adj",
        "1000",
        "--report",
        &file,
    ];
    let done = run_payload(&options, &["hog", "140"]).expect(137);
    let told = report(&file);
    let oom = &told["oom"];
    assert_eq!(oom["level"], "ceiling", "{told:#}");
    assert_eq!(oom["group"], "/workloads.slice", "{oom}");
    assert_eq!(oom["limit"], 200 << 20, "{oom}");
    if !oom["victim"].is_null() {
        assert_eq!(oom["victim"]["pid"], hog(&done), "{oom}");
    }
    done.says("workloads.memory_max 200.0 MiB").says("ceiling");
    live.end().expect(0);
}

#[test]
fn a_limit_inside_the_session_is_told_as_its_own() {
    let lab = Lab::new();
    let file = lab.path("report");
    // A payload that is root may make groups below its own; it needs a leaf for itself first.
    let script = format!(
        "g=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && mkdir $g/leaf $g/inner && echo $$ >$g/leaf/cgroup.procs && \
         echo +memory >$g/cgroup.subtree_control && echo 20M >$g/inner/memory.max && \
         (echo $BASHPID >$g/inner/cgroup.procs && exec {} hog 100); echo ended $?; exit 8",
        crate::cgmgr::payload()
    );
    let words = [
        "run",
        "--name",
        "nest",
        "--memory-max",
        "200MiB",
        "--report",
        &file,
        "--",
        "bash",
        "-c",
        &script,
    ];
    let done = crate::cgmgr::cgmgr(&words).expect(8);
    assert!(done.out.contains("ended 137"), "{done:#?}");
    let told = report(&file);
    assert_eq!(told["oom"]["level"], "inner", "{told:#}");
    assert_eq!(session_groups(), [""; 0], "its inner groups go with it");
}
