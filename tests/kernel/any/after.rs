//! What outlives the command or the caller: left-over processes, detached sessions, `--exec`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cgmgr::{cgmgr, command, finish, payload, report, run_payload, run_shell, until};
use crate::lab::{Lab, must, path_of, procs, read, session_groups};

fn gone(session: &str) -> bool {
    !fs::exists(path_of(session)).expect("a look")
}

#[test]
fn what_is_left_is_named_and_the_group_goes_when_it_ends() {
    let lab = Lab::new();
    let (file, pid) = (lab.path("report"), lab.path("pid"));
    let script = format!("sleep 1000 >/dev/null 2>&1 & echo $! >{pid}; exit 4");
    let done = run_shell(&["--name", "left", "--report", &file], &script).expect(4);
    let pid: i32 = read(&pid).parse().expect("a pid");
    done.says(&format!("sleep (pid {pid})"));
    let left = report(&file)["left"].clone();
    assert_eq!(left, serde_json::json!([{ "pid": pid, "comm": "sleep" }]));
    assert_eq!(procs(&path_of("left")), [pid]);
    cgmgr(&["run", "--name", "left", "--", "true"])
        .expect(125)
        .says("in use");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .expect("SIGKILL");
    until("the group is gone", || gone("left"));
    cgmgr(&["run", "--name", "left", "--", "true"]).expect(0);
    drop(lab);
}

#[test]
fn who_stays_with_a_session_keeps_nothing_of_the_callers() {
    let lab = Lab::new();
    let lock = lab.path("lock");
    let bin = must("CGMGR_BIN");
    let left = format!("{bin} run --name left -- sh -c 'sleep 1000 9>&- >/dev/null 2>&1 &'");
    let detached = format!("{bin} run --detach --name detached -- sleep 1000");
    for launch in [left, detached] {
        let script = format!("cd {} && exec 9>{lock} && flock 9 && {launch}", lab.path("."));
        finish(Command::new("sh").args(["-c", &script])).expect(0);
        finish(Command::new("flock").args(["-n", &lock, "true"])).expect(0);
    }
    let status = cgmgr(&["status", "detached", "--json"]).expect(0).json();
    let supervisor = &status["sessions"][0]["supervisor"];
    let cwd = fs::read_link(format!("/proc/{supervisor}/cwd"));
    assert!(cwd.is_ok_and(|cwd| cwd == Path::new("/")), "{status:#}");
    for name in ["left", "detached"] {
        cgmgr(&["kill", name]).expect(0);
    }
}

#[test]
fn kill_leftover_ends_what_is_left() {
    let lab = Lab::new();
    // One that heeds SIGTERM and tells, and one that does not.
    let heard = lab.path("heard");
    let script = format!(
        "sh -c 'trap \"echo heard >{heard}; exit\" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1 & \
         sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1 & sleep 1; exit 4"
    );
    run_shell(&["--name", "killed", "--kill-leftover"], &script).expect(4);
    assert!(gone("killed"), "{:?}", session_groups());
    assert_eq!(read(&heard), "heard");
}

#[test]
fn a_detached_session_goes_on_logs_and_keeps_its_status() {
    let lab = Lab::new();
    let (log, go) = (lab.path("log"), lab.path("go"));
    let script = format!("echo out; echo err >&2; while ! [ -e {go} ]; do sleep 0.1; done; echo end; exit 9");
    let words = [
        "run", "--detach", "--name", "away", "--log", &log, "--", "sh", "-c", &script,
    ];
    let done = cgmgr(&words).expect(0);
    assert_eq!(done.out, "away\n");
    until("it has spoken", || {
        fs::read_to_string(&log).unwrap_or_default().contains("err")
    });
    assert!(!procs(&path_of("away")).is_empty());
    let one = procs(&path_of("away"))[0];
    assert_eq!(
        fs::read_link(format!("/proc/{one}/fd/0")).expect("a link"),
        std::path::Path::new("/dev/null")
    );
    fs::write(&go, "").expect("a file");
    cgmgr(&["wait", "away"]).expect(9);
    assert_eq!(read(&log), "out\nerr\nend");
    until("the group is gone", || gone("away"));
    cgmgr(&["wait", "away"]).expect(9);
}

#[test]
fn a_detached_session_that_is_oom_killed_tells_whoever_waits() {
    let _lab = Lab::new();
    let words = [
        "run",
        "--detach",
        "--name",
        "doomed",
        "--memory-max",
        "16MiB",
        "--",
        &payload(),
        "hog",
        "100",
    ];
    cgmgr(&words).expect(0);
    let done = cgmgr(&["wait", "doomed"]).expect(137);
    done.says("doomed was OOM-killed: memory_max 16.0 MiB reached");
}

#[test]
fn a_detached_launch_that_fails_fails_its_caller() {
    let _lab = Lab::new();
    let done = cgmgr(&["run", "--detach", "--name", "never", "--", "/nowhere/at-all"]).expect(127);
    assert_eq!(done.out, "");
    done.says("/nowhere/at-all");
    assert!(gone("never"));
}

#[test]
fn a_detached_session_does_not_hold_its_callers_output() {
    let _lab = Lab::new();
    // `finish` reads to the end of both streams: a supervisor or session that held them would keep it here.
    let done = cgmgr(&["run", "--detach", "--name", "quietly", "--", "sleep", "1000"]).expect(0);
    assert_eq!(done.out, "quietly\n");
    assert!(!procs(&path_of("quietly")).is_empty());
}

#[test]
fn exec_becomes_the_command_inside_the_group() {
    let lab = Lab::new();
    let role = lab.file(
        "x.role.toml",
        "[runtime.limits]\nmemory_max = \"90 MiB\"\nnofile = 444\n",
    );
    let mut run = command([
        "run",
        "--exec",
        "--name",
        "became",
        "--role",
        &role,
        "--",
        &payload(),
        "facts",
    ]);
    let child = run.stdout(std::process::Stdio::piped()).spawn().expect("cgmgr");
    let pid = child.id();
    let output = child.wait_with_output().expect("a child");
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(facts["pid"], pid, "the process is the one that was started");
    assert!(
        facts["cgroup"]
            .as_str()
            .expect("a group")
            .ends_with("/cgmgr-became"),
        "{facts}"
    );
    assert_eq!(facts["files"]["memory.max"], (90 << 20).to_string());
    assert_eq!(facts["nofile"], serde_json::json!([444, 444]));
    assert_eq!(facts["env"]["CGMGR_SESSION"], "became");
    // Nobody stayed to remove the group; the next command does.
    run_payload(&["--name", "next"], &["facts"]).expect(0);
    until("the group is swept", || gone("became"));
}

#[test]
fn exec_of_something_missing_leaves_nothing() {
    let _lab = Lab::new();
    let done = finish(&mut command([
        "run",
        "--exec",
        "--name",
        "nope",
        "--",
        "/nowhere/at-all",
    ]))
    .expect(127);
    done.says("/nowhere/at-all");
    run_payload(&[], &["facts"]).expect(0);
    assert!(gone("nope"));
}
