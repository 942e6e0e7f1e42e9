//! Sessions where cgroup v1 holds the controllers: no set-up, a warning per knob that does not hold, the command runs.

use std::process::Command;

use serde_json::json;

use crate::cgmgr::{Live, cgmgr, finish, payload, report, run_payload};
use crate::lab::{Lab, example, examples, read};
use crate::readback::{entry, knob, knobs, of_session};

#[test]
fn every_example_runs_and_each_knob_that_does_not_hold_is_warned_of_once() {
    let lab = Lab::bare();
    for role in examples() {
        let role = role.display().to_string();
        let file = lab.path("report");
        let done = cgmgr(&[
            "run", "--role", &role, "--report", &file, "--", "sh", "-c", "exit 7",
        ])
        .expect(7);
        let told = report(&file);
        assert_eq!(told["backend"], "process");
        assert_eq!(told["promise"], "none");
        let mut warned = 0;
        for knob in knobs(&role)
            .iter()
            .filter(|k| of_session(k) && k["file"].is_string() && k["origin"] == "role")
        {
            let name = knob["knob"].as_str().expect("a name");
            let state = entry(&told["receipt"], name)
                .unwrap_or_else(|| panic!("{role}: no receipt for {name}"))["state"]
                .clone();
            let lines = done
                .err
                .lines()
                .filter(|l| l.starts_with(&format!("cgmgr: warning: {name} is ")))
                .count();
            match state.as_str() {
                Some("not_enforced") => assert_eq!(lines, 1, "{role}: {name} in {}", done.err),
                Some("stood_in_for") | Some("enforced") => {}
                other => panic!("{role}: {name} is {other:?}"),
            }
            warned += usize::from(state == "not_enforced");
        }
        // One role is about the machine and limits no session.
        let limits = role.contains("workspace") || warned > 0;
        assert!(limits, "{role}: no knob is said not to hold");
    }
}

#[test]
fn make_runs_under_the_rust_example_and_its_status_is_returned() {
    let lab = Lab::bare();
    let good = lab.file("good.mk", "all:\n\t@echo built\n");
    let bad = lab.file("bad.mk", "all:\n\t@exit 3\n");
    let role = example("rust");
    let done = cgmgr(&["run", "--role", &role, "--", "make", "-f", &good]).expect(0);
    assert_eq!(done.out, "built\n");
    done.says("cgmgr: warning: ");
    cgmgr(&["run", "--role", &role, "--", "make", "-f", &bad]).expect(2);
}

#[test]
fn what_needs_no_cgroup_holds() {
    let _lab = Lab::bare();
    let role = example("rust");
    let announced = knobs(&role);
    let facts = run_payload(&["--role", &role, "--cpus", "1"], &["facts"])
        .expect(0)
        .json();
    let nofile: u64 = knob(&announced, "nofile")["value"]
        .as_str()
        .and_then(|v| v.parse().ok())
        .expect("a number");
    assert_eq!(facts["nofile"], json!([nofile, nofile]));
    assert_eq!(knob(&announced, "nice")["value"], "+5");
    assert_eq!(facts["nice"], 5, "relative to the caller's 0");
    assert_eq!(facts["oom_score_adj"], 998);
    let cpus = facts["cpus_allowed"][0].as_str().expect("a list");
    assert!(
        !cpus.contains(['-', ',']),
        "one CPU stands in for cpus = 1: {cpus}"
    );
}

#[test]
fn nothing_is_written_below_any_hierarchy() {
    let _lab = Lab::bare();
    let list = || {
        let mut find = Command::new("find");
        find.args(["/sys/fs/cgroup", "-type", "d"]);
        finish(&mut find).expect(0).out
    };
    let before = list();
    run_payload(&["--role", &example("rust")], &["facts"]).expect(0);
    assert_eq!(list(), before);
}

#[test]
fn require_limits_is_3_and_apply_says_why_it_cannot() {
    let lab = Lab::bare();
    let marker = lab.path("marker");
    cgmgr(&[
        "run",
        "--role",
        &example("rust"),
        "--require-limits",
        "--",
        "touch",
        &marker,
    ])
    .expect(3);
    assert!(!std::fs::exists(&marker).expect("a look"));
    for command in ["plan", "apply"] {
        let done = cgmgr(&[command, &example("rust")]).expect(1);
        done.says("hybrid")
            .says("help: ")
            .says("systemd.unified_cgroup_hierarchy=1");
    }
}

#[test]
fn only_nofile_and_priorities_satisfy_require_limits() {
    let lab = Lab::bare();
    let role = lab.file(
        "p.role.toml",
        "[runtime.limits]\nnofile = 100\nnice = 7\noom_score_adj = 900\n",
    );
    let done = run_payload(&["--role", &role, "--require-limits"], &["facts"]).expect(0);
    assert_eq!(done.json()["nice"], 7);
}

#[test]
fn a_session_is_seen_stopped_and_killed() {
    let _lab = Lab::bare();
    let live = Live::hold("seen", &[], 0);
    let seen = cgmgr(&["status", "--json"]).expect(0).json();
    let sessions = seen["sessions"].as_array().expect("sessions").clone();
    let session = sessions.iter().find(|s| s["name"] == "seen");
    let session = session.unwrap_or_else(|| panic!("it is not there: {seen:#}"));
    assert_eq!(
        (&session["state"], &session["backend"]),
        (&json!("running"), &json!("process"))
    );
    cgmgr(&["run", "--name", "seen", "--", "true"])
        .expect(125)
        .says("in use");
    cgmgr(&["stop", "seen"]).expect(0);
    live.wait().expect(143);

    // A tree with a grandchild, in which everybody ignores SIGTERM and one has left for a session of its own.
    let script = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; exec sleep 4242' & exec {} hold",
        payload()
    );
    let mut command = crate::cgmgr::command(["run", "--name", "tree", "--", "sh", "-c", &script]);
    let mut live = Live::of("tree", &mut command);
    live.hear("ready ");
    let sleepers = || finish(Command::new("pgrep").args(["-f", "sleep 4242"])).status == 0;
    crate::cgmgr::until("the grandchild runs", sleepers);
    cgmgr(&["kill", "tree"]).expect(0);
    live.wait().expect(137);
    crate::cgmgr::until("the grandchild is gone", || !sleepers());
}

#[test]
fn a_detached_session_keeps_its_status() {
    let lab = Lab::bare();
    let log = lab.path("log");
    let done = cgmgr(&[
        "run",
        "--detach",
        "--name",
        "away",
        "--log",
        &log,
        "--",
        "sh",
        "-c",
        "echo out; exit 9",
    ])
    .expect(0);
    assert_eq!(done.out, "away\n");
    cgmgr(&["wait", "away"]).expect(9);
    assert_eq!(read(&log), "out");
}

#[test]
fn exit_statuses_are_the_same_as_anywhere() {
    let _lab = Lab::bare();
    for (script, status) in [
        ("exit 0", 0),
        ("exit 137", 137),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let done = crate::cgmgr::run_shell(&["--quiet"], script).expect(status);
        assert_eq!(done.err, "", "{script}");
    }
    cgmgr(&["run", "--", "/nowhere/at-all"]).expect(127);
    cgmgr(&["run", "--", "/etc"]).expect(126);
    cgmgr(&["run", "--name", "a/b", "--", "true"]).expect(125);
}

#[test]
fn the_cgroupfs_backend_cannot_be_forced() {
    let _lab = Lab::bare();
    let done = cgmgr(&["run", "--backend", "cgroupfs", "--", "true"]).expect(125);
    done.says("hybrid").says("help: ");
}

#[test]
fn doctor_names_the_controllers_that_v1_holds() {
    let _lab = Lab::bare();
    let said = cgmgr(&["doctor", "--json"]).expect(1).json();
    assert_eq!(
        (&said["hierarchy"], &said["can_enforce"]),
        (&json!("hybrid"), &json!(false))
    );
    let all = said["findings"].as_array().expect("findings");
    let problems: Vec<_> = all.iter().filter(|f| f["level"] == "problem").collect();
    assert_eq!(problems.len(), 1, "{said:#}");
    let what = problems[0]["what"].as_str().expect("words");
    assert!(problems[0]["id"] == "hybrid" && what.contains("pids"), "{what}");
    let fix = problems[0]["fix"].as_str().expect("a remedy");
    assert!(fix.contains("systemd.unified_cgroup_hierarchy=1"), "{fix}");
}

#[test]
fn limits_says_that_it_does_not_see_those_of_version_1() {
    let told = cgmgr(&["limits", "--json"]).expect(0).json();
    let unknown = told["unreadable"].as_array().expect("a list");
    assert!(
        unknown
            .iter()
            .any(|what| what.as_str().is_some_and(|what| what.contains("cgroup v1"))),
        "{told:#}"
    );
    assert_eq!(told["in_session"], false);
    assert!(told["suggested_jobs"].as_u64() >= Some(1), "{told:#}");
}
