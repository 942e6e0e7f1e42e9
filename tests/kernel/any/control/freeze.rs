//! `cgmgr freeze` and `cgmgr thaw`.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::cgmgr::{Live, cgmgr, command, run_shell, until};
use crate::lab::{Lab, counter, must, path_of, read, sessions, write};
use crate::pty::Pty;

fn state(session: &str) -> String {
    let done = cgmgr(&["status", session, "--json"]).expect(0);
    let state = done.json()["sessions"][0]["state"].clone();
    state.as_str().expect("a state").to_owned()
}

/// A session whose processes never rest.
fn busy(name: &str, threads: &str) -> Live {
    let live = Live::start(name, &[], &["burn", threads, "1000"]);
    let stat = format!("{}/pids.current", path_of(name));
    let wanted: u64 = threads.parse().expect("a number");
    until("all its threads are there", || {
        fs::exists(&stat).unwrap_or(false) && counter(&stat, "") > wanted
    });
    live
}

fn json(words: &[&str], status: i32) -> Value {
    cgmgr(&[words, &["--json"]].concat()).expect(status).json()[0].clone()
}

/// K-50: it returns when the whole tree is frozen, and nothing runs from then on.
#[test]
fn a_frozen_session_stands_still_until_it_is_thawed() {
    let _lab = Lab::new();
    let live = busy("ice", "3");
    let usage = || counter(&format!("{}/cpu.stat", live.group()), "usage_usec");
    let done = cgmgr(&["freeze", "ice"]).expect(0);
    assert_eq!(done.out, "ice frozen (1 process)\n");
    assert_eq!(counter(&format!("{}/cgroup.events", live.group()), "frozen"), 1);
    let before = usage();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(usage(), before, "it went on");
    assert_eq!(state("ice"), "frozen");
    assert!(cgmgr(&["status"]).expect(0).out.contains("ice  frozen"));
    let again = json(&["freeze", "ice"], 0);
    assert_eq!(
        (&again["done"], &again["already"]),
        (&true.into(), &true.into()),
        "{again:#}"
    );
    // Limits change all the same.
    cgmgr(&["set", "ice", "pids=50"]).expect(0);
    assert_eq!(state("ice"), "frozen");
    assert_eq!(cgmgr(&["thaw", "ice"]).expect(0).out, "ice thawed (1 process)\n");
    until("it goes on", || usage() > before);
    assert_eq!(state("ice"), "running");
    assert_eq!(
        cgmgr(&["thaw", "ice"]).expect(0).out,
        "ice was not frozen (1 process)\n"
    );
    cgmgr(&["kill", "ice"]).expect(0);
    live.wait().expect(137);
}

#[test]
fn several_at_once_and_one_that_is_not_there() {
    let _lab = Lab::new();
    let lives = ["one", "two"].map(|name| Live::hold(name, &[], 0));
    let done = cgmgr(&["freeze", "one", "nobody", "two"]).expect(1);
    done.says("no session nobody").says("help: ");
    assert_eq!((state("one"), state("two")), ("frozen".into(), "frozen".into()));
    cgmgr(&["thaw", "one", "two"]).expect(0);
    for live in lives {
        live.end().expect(0);
    }
}

/// K-47: `kill` ends a frozen session as it is; `stop` thaws it, so that it can end in order.
#[test]
fn frozen_sessions_can_be_ended() {
    let lab = Lab::new();
    let live = busy("killed", "2");
    cgmgr(&["freeze", "killed"]).expect(0);
    cgmgr(&["kill", "killed"]).expect(0);
    live.wait().expect(137).says_nothing_of("OOM");

    let told = lab.path("told");
    let script =
        format!("trap 'echo in order >{told}; exit 3' TERM; echo begun; while :; do sleep 0.1; done");
    let mut live = Live::of(
        "stopped",
        &mut command(["run", "--name", "stopped", "--", "sh", "-c", &script]),
    );
    live.hear("begun");
    cgmgr(&["freeze", "stopped"]).expect(0);
    cgmgr(&["stop", "stopped"]).expect(0);
    assert_eq!(read(&told), "in order");
    live.wait().expect(3);
}

/// K-49: what is not frozen when the time is over is named, and the rest of it freezes when it can. Above memory.high
/// without swap a process sleeps uninterruptibly most of the time (K-56), as one does that waits for a disk.
#[test]
fn what_does_not_freeze_in_time_is_named() {
    let _lab = Lab::new();
    let options = ["--memory-high", "20MiB", "--memory-swap-max", "0"];
    let mut live = Live::start("late", &options, &["hog", "400"]);
    let pid: i32 = live.hear("hog ").parse().expect("a pid");
    let mut told = Value::Null;
    until("it is found in its sleep", || {
        let done = cgmgr(&["freeze", "late", "--timeout", "0", "--json"]);
        told = done.json()[0].clone();
        assert_eq!(done.status, i32::from(told["done"] == false), "{told:#}");
        if told["not_frozen"][0]["state"] == "D" {
            return true;
        }
        cgmgr(&["thaw", "late"]).expect(0);
        false
    });
    assert!(["freezing", "frozen"].contains(&state("late").as_str()));
    let left = &told["not_frozen"][0];
    assert_eq!(
        (&left["pid"], &left["comm"]),
        (&pid.into(), &"payload".into()),
        "{told:#}"
    );
    let error = told["error"].as_str().expect("an error");
    let name = format!("late is not wholly frozen after 0 µs: pid {pid} (payload, state D)");
    assert_eq!(error, name);
    until("it is frozen", || state("late") == "frozen");
    cgmgr(&["kill", "late"]).expect(0);
    live.wait().expect(137);
}

/// A group above that is frozen keeps what is below it frozen.
#[test]
fn thawing_below_a_frozen_group_says_which() {
    let _lab = Lab::new();
    let live = Live::hold("below", &[], 0);
    cgmgr(&["freeze", "below"]).expect(0);
    let above = format!("{}/cgroup.freeze", sessions());
    write(&above, "1");
    let done = cgmgr(&["thaw", "below"]);
    write(&above, "0");
    let group = sessions().replace(crate::lab::MOUNT, "");
    done.expect(1)
        .says(&format!("below is still frozen: {group}, a group above it, is"));
    until("it goes on", || state("below") == "running");
    live.end().expect(0);
}

/// Lesson 27: killed at any point, what `status` says is what the kernel does, and the next command gets it right.
#[test]
fn killed_in_the_middle_it_leaves_what_status_says() {
    let _lab = Lab::new();
    let live = busy("mid", "30");
    for pause in [0, 2, 5, 10, 15, 20, 30, 50] {
        let mut child = command(["freeze", "mid"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("cgmgr");
        std::thread::sleep(Duration::from_millis(pause));
        let _ = (child.kill(), child.wait());
        let asked = read(&format!("{}/cgroup.freeze", live.group()));
        match asked.as_str() {
            "1" => until("it is frozen", || state("mid") == "frozen"),
            _ => assert_eq!(state("mid"), "running"),
        }
        cgmgr(&["thaw", "mid"]).expect(0);
        assert_eq!(state("mid"), "running");
    }
    cgmgr(&["kill", "mid"]).expect(0);
    live.wait().expect(137);
}

#[test]
fn nobody_freezes_himself() {
    let _lab = Lab::new();
    let done = run_shell(
        &["--name", "self"],
        &format!("{} freeze self; echo $?", must("CGMGR_BIN")),
    )
    .expect(0);
    assert_eq!(done.out, "1\n");
    done.says("runs inside session self").says("from outside");
}

#[test]
fn that_it_holds_the_terminal_is_said() {
    let _lab = Lab::new();
    let mut pty = Pty::start(&mut command([
        "run",
        "--quiet",
        "--name",
        "typed",
        "--",
        "bash",
        "--norc",
        "--noprofile",
        "-i",
    ]));
    pty.expect("outer> ");
    cgmgr(&["freeze", "typed"])
        .expect(0)
        .says("typed holds its terminal")
        .says("cgmgr thaw typed");
    cgmgr(&["thaw", "typed"]).expect(0).says_nothing_of("terminal");
    pty.line("exit 7");
    assert_eq!(pty.wait(), 7);
    let live = Live::hold("piped", &[], 0);
    cgmgr(&["freeze", "piped"]).expect(0).says_nothing_of("terminal");
    cgmgr(&["thaw", "piped"]).expect(0);
    live.end().expect(0);
}
