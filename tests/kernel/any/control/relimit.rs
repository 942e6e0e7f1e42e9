//! `cgmgr set`: the limits of a session change while it runs.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::cgmgr::{Live, cgmgr, command, finish, payload, report, until};
use crate::lab::{Lab, counter, path_of, procs, read, write};
use crate::readback::entry;
use crate::strangers::Stranger;

const MIB: u64 = 1 << 20;

/// Where page cache is made: /tmp may be memory itself.
const FILE: &str = "/var/tmp/cgmgr-relimit-cache";

fn status(session: &str) -> Value {
    let done = cgmgr(&["status", session, "--json"]).expect(0);
    done.json()["sessions"][0].clone()
}

fn file(session: &str, name: &str) -> String {
    read(&format!("{}/{name}", path_of(session)))
}

/// What cgmgr recorded on a session's group.
fn recorded(session: &str) -> Value {
    let mut text = vec![0; 64 * 1024];
    let size = rustix::fs::getxattr(path_of(session), "user.cgmgr.session", &mut text).expect("the mark");
    serde_json::from_slice(&text[..size]).expect("JSON")
}

/// A session that holds page cache and next to nothing else.
fn cached(name: &str, mib: &str, options: &[&str]) -> Live {
    let mut live = Live::start(name, options, &["cache", mib, FILE]);
    live.hear("cached ");
    live
}

/// What is recorded of a knob is what the kernel holds.
#[track_caller]
fn record_is_true(session: &str, knob: &str, control: &str) {
    if let Some(limit) = recorded(session)["limits"][knob].as_str() {
        assert_eq!(limit, file(session, control), "{knob}");
    }
}

/// K-28, and predecessors' list 4.8.
#[test]
fn limits_go_down_and_up_while_a_session_runs() {
    let lab = Lab::new();
    let role = lab.file(
        "up.role.toml",
        "[runtime.limits]\nmemory_max = \"200 MiB\"\nmemory_high = \"150 MiB\"\npids = 64\ncpus = 1.5\n",
    );
    let live = Live::hold("up", &["--role", &role], 20);
    let words = [
        "set",
        "up",
        "memory-max=100MiB",
        "memory_high=90MiB",
        "cpus=1",
        "pids=32",
        "cpu_weight=50",
        "oom_group=true",
        "--json",
    ];
    let told = cgmgr(&words).expect(0).json();
    assert_eq!((&told["session"], &told["changed"]), (&"up".into(), &6.into()));
    assert_eq!(
        (&told["timed_out"], &told["oom_kills"]),
        (&false.into(), &0.into())
    );
    for (knob, control, text, before) in [
        ("memory_max", "memory.max", "104857600", "209715200"),
        ("memory_high", "memory.high", "94371840", "157286400"),
        ("cpus", "cpu.max", "100000 100000", "150000 100000"),
        ("pids", "pids.max", "32", "64"),
        ("cpu_weight", "cpu.weight", "50", "100"),
        ("oom_group", "memory.oom.group", "1", "0"),
    ] {
        assert_eq!(file("up", control), text);
        let entry = entry(&told["receipt"], knob).expect("an entry");
        assert_eq!(
            (&entry["state"], &entry["before"]),
            (&"enforced".into(), &before.into()),
            "{told:#}"
        );
        record_is_true("up", knob, control);
    }
    assert_eq!(status("up")["memory"]["max"], 100 * MIB);
    assert_eq!(status("up")["set_live"].as_array().map(Vec::len), Some(6));
    let shown = cgmgr(&["status"]).expect(0);
    assert!(
        shown.out.contains("set while it runs: memory_max, memory_high, "),
        "{}",
        shown.out
    );

    // The kernel rounds to pages, and that is said; what holds already is no change.
    let odd = cgmgr(&["set", "up", "memory_max=104857601", "pids=32"]).expect(0);
    assert!(
        odd.out.contains("up: nothing changed\n") && odd.out.contains("rounded to 104857600"),
        "{odd:#?}"
    );
    let up = cgmgr(&["set", "up", "memory_high=max", "memory_max=max", "cpus=default"]).expect(0);
    assert!(
        up.out.contains("up: 3 limits changed\n") && up.out.contains("(was 104857600)"),
        "{up:#?}"
    );
    assert_eq!(
        (file("up", "memory.max"), file("up", "cpu.max")),
        ("max".into(), "max 100000".into())
    );

    // As with a flag of the launch, the role that is applied again does not take it back.
    cgmgr(&["apply", &role]).expect(0);
    assert_eq!(
        (file("up", "memory.max"), file("up", "pids.max")),
        ("max".into(), "32".into())
    );
    live.end().expect(0);
}

#[test]
fn every_mistake_is_told_and_nothing_is_changed() {
    let lab = Lab::new();
    let live = Live::hold("wrong", &["--memory-max", "200MiB", "--pids", "64"], 0);
    let words = [
        "set",
        "wrong",
        "pids=32",
        "memroy_max=1G",
        "cpus=zero",
        "nofile=5",
        "nice=3",
        "oom_score_adj=5",
        "pids",
    ];
    let done = cgmgr(&words).expect(2);
    done.says("did you mean `memory_max`?")
        .says("cpus=zero")
        .says("KNOB=VALUE");
    done.says("nofile cannot be changed")
        .says("cpu_weight")
        .says("choom");
    assert_eq!(file("wrong", "pids.max"), "64");
    // A pair that makes no sense, here with what is in force (K-27).
    let high = cgmgr(&["set", "wrong", "memory_high=300MiB", "pids=32"]).expect(1);
    high.says("above memory_max 200.0 MiB, which is in force")
        .says("help: ");
    assert_eq!(
        (file("wrong", "memory.high"), file("wrong", "pids.max")),
        ("max".into(), "64".into())
    );
    cgmgr(&["set", "nobody", "pids=5"])
        .expect(1)
        .says("nobody")
        .says("help: ");
    cgmgr(&["set", "wrong"]).expect(2);
    let dry = cgmgr(&["set", "wrong", "pids=32", "--dry-run"]).expect(0);
    assert!(dry.out.contains("cgmgr-wrong/pids.max  32  (now 64)"), "{dry:#?}");
    assert_eq!(file("wrong", "pids.max"), "64");
    assert!(status("wrong")["set_live"].as_array().is_some_and(Vec::is_empty));
    live.end().expect(0);
    drop(lab);
}

/// K-29: the kernel would kill at once.
#[test]
fn a_max_below_use_is_refused() {
    let _lab = Lab::new();
    let live = Live::hold("full", &["--memory-max", "200MiB"], 60);
    for more in [[].as_slice(), &["--json"], &["--dry-run"]] {
        let done = cgmgr(&[&["set", "full", "memory_max=30MiB"], more].concat()).expect(1);
        match more {
            ["--dry-run"] => assert!(done.out.contains("memory.max"), "{done:#?}"),
            _ => {
                done.says("memory_max 30.0 MiB is below what the session uses now (6")
                    .says("the kernel would kill processes of it")
                    .says("--force");
            }
        }
        assert_eq!(file("full", "memory.max"), (200 * MIB).to_string());
    }
    cgmgr(&["set", "full", "memory_max=100MiB"]).expect(0);
    let events = format!("{}/memory.events", live.group());
    assert_eq!(counter(&events, "oom_kill"), 0);
    live.end().expect(0);
}

/// Lesson 26: what can be taken back is, before the limit is written, and nobody is killed.
#[test]
fn with_force_page_cache_is_taken_back_and_nobody_is_killed() {
    let _lab = Lab::new();
    let live = cached("cache", "100", &["--memory-max", "200MiB"]);
    let refused = cgmgr(&["set", "cache", "memory_max=20MiB"]).expect(1);
    refused.says("of file cache back for it");
    let told = cgmgr(&["set", "cache", "memory_max=20MiB", "--force", "--json"])
        .expect(0)
        .json();
    assert_eq!(
        (&told["oom_kills"], &told["timed_out"]),
        (&0.into(), &false.into()),
        "{told:#}"
    );
    assert_eq!(file("cache", "memory.max"), (20 * MIB).to_string());
    assert!(counter(&format!("{}/memory.current", live.group()), "") <= 20 * MIB);
    // It was taken back before the limit was written: the limit was never hit.
    assert_eq!(counter(&format!("{}/memory.events", live.group()), "max"), 0);
    record_is_true("cache", "memory_max", "memory.max");
    live.end().expect(0).says_nothing_of("OOM");
}

#[test]
fn with_force_what_cannot_be_taken_back_is_killed_for_and_told() {
    let lab = Lab::new();
    let file = lab.path("report");
    let live = Live::hold("dies", &["--memory-max", "200MiB", "--report", &file], 60);
    let done = cgmgr(&["set", "dies", "memory_max=20MiB", "--force"]).expect(0);
    done.says("memory_max 20.0 MiB is below")
        .says("the kernel killed");
    let ended = live.wait().expect(137);
    ended.says("was OOM-killed: memory_max 20.0 MiB reached");
    ended.says("raise it with `cgmgr set dies memory_max=");
    assert_eq!(report(&file)["oom"]["kills"], 1);
}

/// A process that the OOM killer must not take, and nothing to take back: the limit holds, and the use is above it.
#[test]
fn what_cannot_be_killed_either_is_told() {
    let _lab = Lab::new();
    let live = Live::hold(
        "stays",
        &["--memory-max", "200MiB", "--oom-score-adj", "-1000"],
        60,
    );
    let done = cgmgr(&["set", "stays", "memory_max=20MiB", "--force"]).expect(0);
    done.says("found nothing that it may kill")
        .says_nothing_of("the kernel killed");
    assert_eq!(file("stays", "memory.max"), (20 * MIB).to_string());
    record_is_true("stays", "memory_max", "memory.max");
    cgmgr(&["set", "stays", "memory_max=200MiB"]).expect(0);
    live.end().expect(0);
}

/// Lesson 26: a write that blocks does not hang the command, and nothing of it goes on behind its back.
#[test]
fn a_timeout_is_survived() {
    let _lab = Lab::new();
    let live = cached("slow", "300", &["--memory-max", "400MiB"]);
    let mine = |command: &str| {
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        all.filter(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(command)
        })
        .count()
    };
    for _ in 0..5 {
        let words = [
            "set",
            "slow",
            "memory_max=10MiB",
            "pids=40",
            "--force",
            "--timeout",
            "0",
        ];
        let done = cgmgr(&words).expect(1);
        done.says("gave up after 0")
            .says("no limit was changed")
            .says("--timeout");
        assert_eq!(mine("\0set\0slow\0"), 0, "something of it is left");
        assert_eq!(file("slow", "memory.max"), (400 * MIB).to_string());
        assert_eq!(file("slow", "pids.max"), "max");
        assert!(status("slow")["set_live"].as_array().is_some_and(Vec::is_empty));
        record_is_true("slow", "memory_max", "memory.max");
    }
    // memory_high is in force before the kernel takes anything back: that it takes long is no failure.
    let high = cgmgr(&["set", "slow", "memory_high=200MiB", "--timeout", "20"]).expect(0);
    high.says_nothing_of("gave up");
    assert_eq!(file("slow", "memory.high"), (200 * MIB).to_string());
    let told = cgmgr(&[
        "set",
        "slow",
        "memory_max=10MiB",
        "memory_high=max",
        "--force",
        "--json",
        "--timeout",
        "60",
    ]);
    let told = told.expect(0).json();
    assert_eq!(
        (&told["oom_kills"], &told["timed_out"]),
        (&0.into(), &false.into()),
        "{told:#}"
    );
    record_is_true("slow", "memory_max", "memory.max");
    live.end().expect(0);
}

/// Cut off in the middle of a write the value is in force or it is not, and what is said and recorded is what is.
#[test]
fn a_write_that_is_cut_off_is_told_as_it_is() {
    let _lab = Lab::new();
    let live = cached("cutoff", "300", &["--memory-max", "400MiB"]);
    for (step, timeout) in ["0", "0.01", "0.03", "0.06", "0.1", "0.2"].iter().enumerate() {
        let high = (260 - 40 * step as u64) * MIB;
        let before = file("cutoff", "memory.high");
        let knob = format!("memory_high={high}");
        let done = cgmgr(&["set", "cutoff", &knob, "--timeout", timeout, "--json"]);
        let told = done.json();
        let (held, state) = (file("cutoff", "memory.high"), &told["receipt"][0]["state"]);
        let recorded = recorded("cutoff")["limits"]["memory_high"].clone();
        match done.status {
            0 => assert_eq!(
                (&held, state),
                (&high.to_string(), &"enforced".into()),
                "{done:#?}"
            ),
            _ => {
                assert_eq!((&held, state), (&before, &"not_enforced".into()), "{done:#?}");
                done.says("not everything took effect").says("--timeout");
            }
        }
        assert_eq!(recorded.as_str().unwrap_or("max"), held, "{done:#?}");
    }
    cgmgr(&["set", "cutoff", "memory_high=max"]).expect(0);
    live.end().expect(0);
}

/// Lesson 27: killed at any point it leaves a session that the next command gets right.
#[test]
fn killed_in_the_middle_it_is_got_over_by_the_next() {
    let _lab = Lab::new();
    let live = cached("cut", "200", &["--memory-max", "400MiB"]);
    for pause in [0, 3, 10, 20, 40, 80] {
        let mut child = command(["set", "cut", "memory_max=20MiB", "cpus=1", "--force"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("cgmgr");
        std::thread::sleep(Duration::from_millis(pause));
        let _ = (child.kill(), child.wait());
        assert_eq!(counter(&format!("{}/cgroup.events", live.group()), "frozen"), 0);
        assert_eq!(file("cut", "memory.high"), "max", "something temporary stayed");
        let max = file("cut", "memory.max");
        assert!(
            [20 * MIB, 400 * MIB].map(|n| n.to_string()).contains(&max),
            "{max}"
        );
        cgmgr(&["set", "cut", "memory_max=400MiB", "cpus=max"]).expect(0);
        for (knob, control) in [("memory_max", "memory.max"), ("cpus", "cpu.max")] {
            record_is_true("cut", knob, control);
        }
    }
    live.end().expect(0);
}

/// Of two at once neither records what the other did not write.
#[test]
fn two_at_once_leave_one_truth() {
    let _lab = Lab::new();
    let live = Live::hold("both", &["--memory-max", "200MiB"], 0);
    let children: Vec<_> = (0..8)
        .map(|n| {
            let mib = format!("memory_max={}MiB", 100 + n);
            let weight = format!("cpu_weight={}", 10 + n);
            command(["set", "both", &mib, &weight])
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("cgmgr")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("a child").success());
    }
    record_is_true("both", "memory_max", "memory.max");
    record_is_true("both", "cpu_weight", "cpu.weight");
    let weight: u64 = file("both", "cpu.weight").parse().expect("a number");
    assert_eq!(file("both", "memory.max"), ((90 + weight) * MIB).to_string());
    live.end().expect(0);
}

#[test]
fn what_is_no_session_of_ours_with_a_group_is_refused() {
    let lab = Lab::new();
    let mut apart = command([
        "--backend",
        "process",
        "run",
        "--name",
        "apart",
        "--",
        &payload(),
        "hold",
    ]);
    let mut live = Live::of("apart", &mut apart);
    live.hear("ready ");
    for words in [
        ["set", "apart", "pids=5"].as_slice(),
        &["freeze", "apart"],
        &["thaw", "apart"],
    ] {
        let done = finish(&mut command([&["--backend", "process"], words].concat()));
        done.expect(1).says("process backend").says("help: ");
    }
    live.end().expect(0);

    // Somebody else's under a session's name.
    cgmgr(&["run", "--", "true"]).expect(0);
    let theirs = path_of("theirs");
    fs::create_dir(&theirs).expect("a group");
    let stranger = Stranger::in_group(&theirs);
    for words in [
        ["set", "theirs", "pids=5"].as_slice(),
        &["freeze", "theirs"],
        &["thaw", "theirs"],
    ] {
        cgmgr(words)
            .expect(1)
            .says("was not made by cgmgr")
            .says("help: ");
    }
    assert_eq!(read(&format!("{theirs}/pids.max")), "max");
    assert_eq!(read(&format!("{theirs}/cgroup.freeze")), "0");
    drop(stranger);
    until("the group goes", || fs::remove_dir(&theirs).is_ok());
    drop(lab);
}

/// Fewer than there are is legal: nobody is killed, and the next fork fails.
#[test]
fn fewer_pids_than_there_are_stop_the_next_fork() {
    let _lab = Lab::new();
    let mut live = Live::of(
        "few",
        &mut command([
            "run",
            "--name",
            "few",
            "--",
            "sh",
            "-c",
            "sleep 1000 & sleep 1000 & echo begun; read x; sleep 0 & wait $!; exit 3",
        ]),
    );
    live.hear("begun");
    let done = cgmgr(&["set", "few", "pids=1"]).expect(0);
    done.says("below the 3 tasks that the session has");
    assert_eq!(procs(&live.group()).len(), 3);
    write(&format!("{}/pids.max", live.group()), "max");
    // What somebody else wrote is in force, and `set` puts its own back.
    cgmgr(&["set", "few", "pids=2"]).expect(0);
    assert_eq!(file("few", "pids.max"), "2");
    cgmgr(&["kill", "few"]).expect(0);
    live.wait().expect(137);
}
