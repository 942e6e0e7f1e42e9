//! `enter`: a further command inside a live session is under its limits from its first instruction on, as who the session
//! is, and is not what the session lives by.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgmgr::{Done, Live, cgmgr, command, finish, payload, until};
use crate::escape::attempts;
use crate::first_fork;
use crate::lab::{Lab, MOUNT, counter, must, path_of, procs, session_groups, write};
use crate::people::coder;
use crate::pty::{CTRL_C, CTRL_Z, Pty};

/// `cgmgr enter WORDS -- payload PAYLOAD`.
fn enter(words: &[&str], payloads: &[&str]) -> Done {
    let payload = payload();
    cgmgr(&[&["enter"], words, &["--", &payload], payloads].concat())
}

fn enter_shell(session: &str, script: &str) -> Done {
    cgmgr(&["enter", session, "--", "sh", "-c", script])
}

#[test]
fn it_is_inside_from_its_first_instruction_on() {
    let lab = Lab::new();
    let program = first_fork::program(&lab);
    let live = Live::hold("door", &[], 0);
    let group = format!("0::{}", path_of("door").trim_start_matches(MOUNT));
    for run in 0..20 {
        let done = cgmgr(&["enter", "door", "--", &program]).expect(0);
        let seen: Vec<&str> = done.out.lines().collect();
        assert_eq!(seen, [group.as_str(); 4], "run {run}: {done:#?}");
    }
    live.end().expect(0).says_nothing_of("lives on");
}

#[test]
fn it_shares_limits_and_counters() {
    let lab = Lab::new();
    let live = Live::hold("door", &["--memory-max", "200MiB", "--pids", "40"], 0);
    let facts = enter(&["door"], &["facts"]).expect(0).json();
    assert_eq!(facts["files"]["memory.max"], (200 << 20).to_string());
    assert_eq!(facts["files"]["pids.max"], "40");
    assert_eq!(facts["env"]["CGMGR_SESSION"], "door");
    let inside = facts["files"]["cgroup.procs"].as_str().expect("a list");
    let mut inside: Vec<i64> = inside.lines().filter_map(|pid| pid.parse().ok()).collect();
    inside.sort_unstable();
    let mut both = vec![
        i64::from(procs(&live.group())[0]),
        facts["pid"].as_i64().expect("a pid"),
    ];
    both.sort_unstable();
    assert_eq!(
        inside, both,
        "nobody else is there: the cgmgr of either is outside"
    );
    // What it uses is the session's use.
    let before = counter(&format!("{}/memory.peak", live.group()), "");
    enter(&["door"], &["hog", "60"]).expect(0);
    let after = counter(&format!("{}/memory.peak", live.group()), "");
    assert!(after > before.max(60 << 20), "{before} {after}");
    // And its tasks are limited together with the others'.
    let storm = enter(&["door"], &["storm"]).expect(0);
    let forked: u64 = storm
        .out
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!(
        (30..=38).contains(&forked) && storm.out.contains("errno 11"),
        "{storm:#?}"
    );
    live.end().expect(0);
    drop(lab);
}

#[test]
fn it_gets_what_the_sessions_own_command_got() {
    let lab = Lab::new();
    let look = "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; nice; env | grep -c CODER_";
    // Whoever enters has other priorities than whoever ran it, which changes nothing.
    let from_elsewhere = |session: &str| {
        let script = "echo 300 > /proc/self/oom_score_adj; exec nice -n 3 \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args([
            "-c",
            script,
            &must("CGMGR_BIN"),
            "enter",
            session,
            "--",
            "sh",
            "-c",
            look,
        ]);
        command
            .env("CODER_PROC_PRIO_MGMT", "1")
            .env("CODER_PROC_NICE_SCORE", "11");
        finish(command.stdin(Stdio::null())).expect(1)
    };
    let declared = ["--nofile", "512", "--nice", "7", "--oom-score-adj", "600"];
    let live = Live::hold("declared", &declared, 0);
    assert_eq!(from_elsewhere("declared").out, "512\n512\n600\n7\n0\n");
    live.end().expect(0);
    let live = Live::hold("derived", &["--nofile", "700"], 0);
    assert_eq!(from_elsewhere("derived").out, "700\n700\n998\n5\n0\n");
    live.end().expect(0);
    drop(lab);
}

#[test]
fn it_is_the_sessions_user_unless_root_says_otherwise() {
    let lab = Lab::new();
    coder();
    let live = Live::hold("his", &["--user", "coder", "--memory-max", "300MiB"], 0);
    let done = enter_shell("his", "id -u; id -g; echo $HOME $USER").expect(0);
    assert_eq!(done.out, "1000\n1000\n/home/coder coder\n");
    done.says_nothing_of("warning");
    // What binds the session binds it too.
    let done = enter(&["his"], &["escape"]).expect(0);
    let tried = attempts(&done);
    assert!(tried.len() > 100, "{}", tried.len());
    let got: Vec<&str> = tried.iter().filter(|a| a.done).map(|a| a.what.as_str()).collect();
    assert!(got.is_empty(), "these were not refused: {got:#?}");
    let root = cgmgr(&["enter", "--user", "root", "his", "--", "id", "-u"]).expect(0);
    assert_eq!(root.out, "0\n");
    root.says("runs as root");
    live.end().expect(0);
    drop(lab);
}

/// `cgmgr WORDS` as the user coder.
fn as_coder(words: &[&str]) -> Done {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "1000",
        "--regid",
        "1000",
        "--init-groups",
        &must("CGMGR_BIN"),
    ]);
    command
        .args(words)
        .stdin(Stdio::null())
        .env_remove("XDG_RUNTIME_DIR");
    finish(&mut command)
}

#[test]
fn nobody_gets_in_who_may_not_move_processes_there() {
    let lab = Lab::new();
    coder();
    let roots = Live::hold("roots", &[], 0);
    let his = Live::hold("his", &["--user", "coder"], 0);
    as_coder(&["enter", "roots", "--", "true"])
        .expect(125)
        .says("only root")
        .says("help: ");
    // It is his session, but the group is not his.
    as_coder(&["enter", "his", "--", "true"])
        .expect(125)
        .says("not delegated")
        .says("help: ");
    as_coder(&["enter", "--user", "root", "his", "--", "true"])
        .expect(125)
        .says("--user needs root");
    // From inside another session it is the same; root, who may, goes over.
    let bin = must("CGMGR_BIN");
    let inside = cgmgr(&["run", "--user", "coder", "--", &bin, "enter", "his", "--", "true"]).expect(125);
    inside.says("not delegated");
    let over = cgmgr(&[
        "run",
        "--",
        &bin,
        "enter",
        "roots",
        "--",
        "cat",
        "/proc/self/cgroup",
    ])
    .expect(0);
    assert!(over.out.ends_with("/cgmgr-roots\n"), "{over:#?}");
    roots.end().expect(0);
    his.end().expect(0);
    drop(lab);
}

#[test]
fn its_exit_status_is_the_commands() {
    let lab = Lab::new();
    let live = Live::hold("door", &[], 0);
    enter_shell("door", "exit 7").expect(7);
    enter_shell("door", "kill -9 $$")
        .expect(137)
        .says_nothing_of("OOM");
    enter_shell("door", "kill -TERM $$").expect(143);
    cgmgr(&["enter", "door", "--", "/etc/passwd"])
        .expect(126)
        .says("help: ");
    cgmgr(&["enter", "door", "--", "no-such-command"])
        .expect(127)
        .says("no such command");
    cgmgr(&["enter", "dor", "--", "true"])
        .expect(125)
        .says("no session dor")
        .says("did you mean door");
    cgmgr(&["enter"]).expect(125);
    cgmgr(&["enter", "--no-such-flag", "door"]).expect(125);
    assert_eq!(procs(&live.group()).len(), 1);
    live.end().expect(0);
    drop(lab);
}

#[test]
fn a_signal_to_cgmgr_reaches_the_command() {
    let lab = Lab::new();
    let live = Live::hold("door", &[], 0);
    let mut visit = command([
        "enter",
        "door",
        "--",
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo on; while :; do sleep 0.1; done",
    ])
    .stdout(Stdio::piped())
    .spawn()
    .expect("cgmgr");
    let mut line = String::new();
    let mut out = std::io::BufReader::new(visit.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    kill(Pid::from_raw(visit.id() as i32), Signal::SIGTERM).expect("a process");
    assert_eq!(visit.wait().expect("a child").code(), Some(5));
    live.end().expect(0);
    drop(lab);
}

#[test]
fn what_cannot_be_entered_says_why() {
    let lab = Lab::new();
    let live = Live::hold("cold", &["--pids", "1"], 0);
    enter_shell("cold", "true")
        .expect(125)
        .says("pids.max")
        .says("help: ");
    write(&format!("{}/cgroup.freeze", live.group()), "1");
    enter_shell("cold", "true")
        .expect(125)
        .says("cold is frozen")
        .says("cgmgr thaw cold");
    write(&format!("{}/cgroup.freeze", live.group()), "0");
    // A parent's freeze is its own.
    write(&format!("{}/cgroup.freeze", crate::lab::sessions()), "1");
    let frozen = enter_shell("cold", "true");
    write(&format!("{}/cgroup.freeze", crate::lab::sessions()), "0");
    frozen
        .expect(125)
        .says("cold is frozen, because")
        .says("write 0 to");
    live.end().expect(0);

    enter_shell("cold", "true").expect(125).says("no session cold");
    let foreign = path_of("foreign");
    fs::create_dir(&foreign).expect("a group");
    enter_shell("foreign", "true")
        .expect(125)
        .says("not made by cgmgr");
    fs::remove_dir(&foreign).expect("an empty group");

    cgmgr(&["run", "--detach", "--name", "past", "--", "sh", "-c", "exit 4"]).expect(0);
    cgmgr(&["wait", "past"]).expect(4);
    enter_shell("past", "true").expect(125).says("past has ended");

    let process = Live::of(
        "bare",
        crate::cgmgr::run_command(&["--name", "bare"], &["hold"]).env("CGMGR_BACKEND", "process"),
    );
    until("it has a record", || {
        cgmgr(&["--backend", "process", "status", "bare"]).status == 0
    });
    cgmgr(&["--backend", "process", "enter", "bare", "--", "true"])
        .expect(125)
        .says("process backend");
    process.end().expect(0);
    drop(lab);
}

#[test]
fn an_oom_kill_of_it_is_told_with_the_limit() {
    let lab = Lab::new();
    let role = lab.file("small.role.toml", "[runtime.limits]\nmemory_max = \"48 MiB\"\n");
    let live = Live::hold("small", &["--role", &role], 0);
    let done = enter(&["small"], &["hog", "200"]).expect(137);
    done.says("small: the command that entered was OOM-killed: memory_max 48.0 MiB reached")
        .says("Raise runtime.limits.memory_max in ");
    // What had happened before is nothing of the next one's.
    enter_shell("small", "kill -9 $$")
        .expect(137)
        .says_nothing_of("OOM");
    enter(&["small"], &["hog", "4"]).expect(0).says_nothing_of("OOM");
    // A grandchild's end is told while the command goes on.
    let done = enter(&["small"], &["grandchild", "200"]).expect(5);
    done.says("OOM-killed: memory_max 48.0 MiB reached");
    assert_eq!(procs(&live.group()).len(), 1, "the session goes on");
    live.end().expect(0);
}

#[test]
fn the_session_neither_ends_with_it_nor_waits_for_it() {
    let lab = Lab::new();
    let live = Live::hold("host", &[], 0);
    enter_shell("host", "true").expect(0);
    assert!(fs::exists(live.group()).expect("a look"));
    let mut visit = command(["enter", "host", "--", &payload(), "hold"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cgmgr");
    until("it is inside", || procs(&path_of("host")).len() == 2);
    // The session's own command ends: who entered is what it left.
    let done = live.end().expect(0);
    done.says("the command has ended and 1 process lives on: payload");
    enter_shell("host", "true").expect(0);
    drop(visit.stdin.take());
    assert_eq!(visit.wait().expect("a child").code(), Some(0));
    until("the group is put away", || session_groups().is_empty());
    drop(lab);
}

#[test]
fn it_ends_with_the_session_that_is_killed() {
    let lab = Lab::new();
    let live = Live::hold("host", &[], 0);
    let visit = command(["enter", "host", "--", "sleep", "1000"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("cgmgr");
    until("it is inside", || procs(&path_of("host")).len() == 2);
    cgmgr(&["kill", "host"]).expect(0);
    let output = visit.wait_with_output().expect("a child");
    assert_eq!(output.status.code(), Some(137));
    live.wait().expect(137);
    drop(lab);
}

#[test]
fn a_shell_is_what_one_gets_at_a_terminal() {
    let lab = Lab::new();
    let live = Live::hold("desk", &[], 0);
    let mut pty = Pty::start(
        command(["enter", "desk"])
            .env("SHELL", "/bin/sh")
            .env_remove("ENV"),
    );
    pty.expect("outer> ");
    pty.line("case $- in *i*) echo inter$((1+1));; esac");
    pty.expect("inter2");
    pty.line("cat /proc/self/cgroup");
    pty.expect("/cgmgr-desk");
    pty.line("exit 3");
    assert_eq!(pty.wait(), 3);
    // Without one it reads what it is given, as any shell does.
    let mut shell = command(["enter", "desk"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cgmgr");
    let mut input = shell.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, b"echo $((40+2)); exit 6\n").expect("a reader");
    drop(input);
    let output = shell.wait_with_output().expect("a child");
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(6), &b"42\n"[..])
    );
    live.end().expect(0);
    drop(lab);
}

#[test]
fn job_control_goes_through_it() {
    let lab = Lab::new();
    let live = Live::hold("desk", &[], 0);
    let enter = format!("{} enter --quiet desk --", must("CGMGR_BIN"));
    let mut pty = Pty::shell();
    pty.line(&format!("{enter} {} hold", payload()));
    pty.expect("ready ");
    pty.send(CTRL_Z);
    pty.expect("Stopped");
    pty.expect("outer> ");
    pty.line("fg");
    pty.expect("hold");
    pty.send("\x04");
    pty.expect("outer> ");
    pty.line("echo status-$?");
    pty.expect("status-0");
    pty.line(&format!("{enter} sh -c 'echo on-$((1+1)); exec sleep 1000'"));
    pty.expect("on-2");
    pty.send(CTRL_C);
    pty.expect("outer> ");
    pty.line("echo status $?-$((40+2))");
    pty.expect("status 130-42");
    pty.resize(80, 24);
    pty.line(&format!("{enter} {} windows", payload()));
    pty.expect("size 80x24");
    pty.resize(132, 43);
    pty.expect("size 132x43");
    pty.resize(90, 30);
    pty.expect("size 90x30");
    pty.expect("outer> ");
    pty.line("exit");
    pty.wait();
    assert_eq!(procs(&live.group()).len(), 1);
    live.end().expect(0);
    drop(lab);
}
