//! The commands on live sessions: status, kill, stop, wait.

use std::fs;

use serde_json::Value;

use crate::cgmgr::{Live, cgmgr, run_payload, until};
use crate::lab::{Lab, path_of, procs};

fn status(session: &str) -> Value {
    let done = cgmgr(&["status", session, "--json"]).expect(0);
    let json = done.json();
    let sessions = json["sessions"].as_array().expect("sessions").clone();
    assert_eq!(sessions.len(), 1, "{json:#}");
    sessions[0].clone()
}

#[test]
fn status_shows_use_against_limit() {
    let lab = Lab::new();
    let role = lab.file(
        "seen.role.toml",
        "[runtime.limits]\nmemory_max = \"100 MiB\"\npids = 64\ncpus = 1.5\n",
    );
    let live = Live::hold("seen", &["--role", &role], 40);
    let session = status("seen");
    assert_eq!(
        (&session["name"], &session["role"]),
        (&"seen".into(), &"seen".into())
    );
    assert_eq!(session["backend"], "cgroupfs");
    assert_eq!(session["supervisor"], live.pid());
    assert_eq!(session["memory"]["max"], 100 << 20);
    let current = session["memory"]["current"].as_u64().expect("a number");
    assert!((40 << 20..=100 << 20).contains(&current), "{session:#}");
    assert_eq!(
        (&session["pids"]["current"], &session["pids"]["max"]),
        (&1.into(), &64.into())
    );
    assert_eq!(session["cpu"]["quota_usec"], 150_000);
    let text = cgmgr(&["status"]).expect(0);
    for word in ["seen", "workloads.slice", "100"] {
        assert!(text.out.contains(word), "{word} in {}", text.out);
    }
    assert!(!text.out.contains('\x1b'), "colours without a terminal");
    live.end().expect(0);
    let ended = cgmgr(&["status", "seen"]).expect(1);
    ended.says("seen").says("help: ");
}

#[test]
fn the_effective_limit_is_the_smallest_above() {
    let lab = Lab::new();
    let role = lab.file(
        "e.role.toml",
        "[runtime.limits]\nmemory_max = \"500 MiB\"\n[workloads]\nmemory_max = \"500 MiB\"\n",
    );
    cgmgr(&["apply", &role]).expect(0);
    let live = Live::hold("eff", &["--memory-max", "900MiB"], 0);
    let session = status("eff");
    assert_eq!(session["memory"]["max"], 900 << 20);
    assert_eq!(session["memory"]["effective_max"], 500 << 20, "{session:#}");
    live.end().expect(0);
}

#[test]
fn status_changes_nothing() {
    let _lab = Lab::new();
    run_payload(&[], &["facts"]).expect(0);
    let mut live = Live::hold("dead", &[], 0);
    live.cgmgr.kill().expect("SIGKILL");
    drop(live);
    until("it is empty", || procs(&path_of("dead")).is_empty());
    cgmgr(&["status"]).expect(0);
    assert!(fs::exists(path_of("dead")).expect("a look"), "status swept");
    // The next run does sweep.
    run_payload(&[], &["facts"]).expect(0);
    until("it is swept", || !fs::exists(path_of("dead")).expect("a look"));
}

#[test]
fn names_and_commands_cannot_act_on_the_terminal() {
    let lab = Lab::new();
    let evil = lab.path("e\x1b[31mvil");
    fs::copy("/bin/sleep", &evil).expect("a copy");
    let mut command = crate::cgmgr::command(["run", "--quiet", "--name", "evil", "--", &evil, "1000"]);
    let mut live = Live::of("evil", &mut command);
    until("it runs", || {
        fs::exists(path_of("evil")).expect("a look") && !procs(&path_of("evil")).is_empty()
    });
    for words in [
        ["status", "evil"].as_slice(),
        &["status"],
        &["status", "--json"],
        &["down"],
    ] {
        let done = cgmgr(words);
        assert!(
            !done.out.contains('\x1b') && !done.err.contains('\x1b'),
            "{done:#?}"
        );
    }
    cgmgr(&["kill", "evil"]).expect(0);
    let _ = live.cgmgr.wait();
}

#[test]
fn kill_ends_the_whole_tree_and_returns_when_it_has() {
    let _lab = Lab::new();
    // The trap keeps what SIGTERM could end from ending; the children are of two generations.
    let script =
        "trap '' TERM; (trap '' TERM; sleep 1000 & sleep 1000) & echo begun; while :; do sleep 0.2; done";
    let mut command = crate::cgmgr::command(["run", "--name", "tree", "--", "sh", "-c", script]);
    let mut live = Live::of("tree", &mut command);
    live.hear("begun");
    cgmgr(&["kill", "tree"]).expect(0);
    // A group that is still there must be empty: kill waits for `populated 0`.
    let left = fs::read_to_string(format!("{}/cgroup.procs", path_of("tree"))).unwrap_or_default();
    assert_eq!(left, "");
    let done = live.wait().expect(137);
    done.says_nothing_of("OOM");
    until("the group is gone", || {
        !fs::exists(path_of("tree")).expect("a look")
    });
}

#[test]
fn stop_lets_end_in_order_and_then_kills() {
    let lab = Lab::new();
    let told = lab.path("told");
    let script =
        format!("trap 'echo in order >{told}; exit 3' TERM; echo begun; while :; do sleep 0.1; done");
    let mut command = crate::cgmgr::command(["run", "--name", "tidy", "--", "sh", "-c", &script]);
    let mut live = Live::of("tidy", &mut command);
    live.hear("begun");
    cgmgr(&["stop", "tidy"]).expect(0);
    assert_eq!(crate::lab::read(&told), "in order");
    live.wait().expect(3);

    let mut command = crate::cgmgr::command([
        "run",
        "--name",
        "deaf",
        "--",
        "sh",
        "-c",
        "trap '' TERM; echo begun; while :; do sleep 0.1; done",
    ]);
    let mut live = Live::of("deaf", &mut command);
    live.hear("begun");
    cgmgr(&["stop", "deaf"]).expect(0);
    live.wait().expect(137);
}

#[test]
fn a_session_that_is_not_there() {
    let _lab = Lab::new();
    for command in ["kill", "stop", "wait", "status"] {
        cgmgr(&[command, "nobody"])
            .expect(1)
            .says("nobody")
            .says("help: ");
        let done = cgmgr(&[command, "../etc"]);
        assert!([1, 2].contains(&done.status), "{done:#?}");
    }
}

#[test]
fn wait_returns_when_a_foreground_session_has_ended() {
    let _lab = Lab::new();
    let live = Live::hold("front", &[], 0);
    let mut wait = crate::cgmgr::command(["wait", "front"]);
    let mut waiting = wait.stderr(std::process::Stdio::null()).spawn().expect("cgmgr");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(waiting.try_wait().expect("a look").is_none(), "it did not wait");
    live.end().expect(0);
    assert!(waiting.wait().expect("a child").success());
}

#[test]
fn several_may_wait_for_a_detached_session() {
    let lab = Lab::new();
    let go = lab.path("go");
    let script = format!("while ! [ -e {go} ]; do sleep 0.1; done; exit 23");
    cgmgr(&["run", "--detach", "--name", "shared", "--", "sh", "-c", &script]).expect(0);
    let waiting: Vec<_> = (0..3)
        .map(|_| crate::cgmgr::command(["wait", "shared"]).spawn().expect("cgmgr"))
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    fs::write(&go, "").expect("a file");
    for mut child in waiting {
        assert_eq!(crate::cgmgr::shell_status(child.wait().expect("a child")), 23);
    }
}

#[test]
fn doctor_says_what_this_host_can_enforce() {
    let _lab = Lab::new();
    let done = cgmgr(&["doctor", "--json"]);
    assert!([0, 1].contains(&done.status), "{done:#?}");
    assert!(done.json().is_object(), "{done:#?}");
    let text = cgmgr(&["doctor"]);
    for word in ["cgroup", "memory"] {
        assert!(text.out.contains(word), "{word} in {}", text.out);
    }
    let placed = text
        .out
        .lines()
        .any(|l| l.contains("placement") || l.contains("placed"));
    assert!(placed, "no word of the placement self-test: {}", text.out);
}
