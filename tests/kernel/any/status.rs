//! The exit status of `run`, and that a session leaves nothing behind whatever it is.

use std::process::Command;

use crate::cgmgr::{cgmgr, command, finish, report, run_payload, run_shell, shell_status};
use crate::lab::{Lab, session_groups};

#[track_caller]
fn nothing_is_left() {
    assert_eq!(session_groups(), [""; 0], "a group is left");
}

#[test]
fn the_commands_own_status_is_returned() {
    let _lab = Lab::new();
    for status in [0, 1, 3, 7, 125, 137, 255] {
        run_shell(&[], &format!("exit {status}")).expect(status);
        nothing_is_left();
    }
}

#[test]
fn a_signal_gives_128_and_its_number() {
    let lab = Lab::new();
    for (signal, status) in [("TERM", 143), ("KILL", 137), ("INT", 130), ("SEGV", 139)] {
        let file = lab.path("report");
        run_shell(&["--report", &file], &format!("kill -{signal} $$")).expect(status);
        assert_eq!(report(&file)["exit"]["signal"], status - 128);
        nothing_is_left();
    }
}

#[test]
fn a_command_that_is_missing_or_cannot_be_executed() {
    let lab = Lab::new();
    let plain = lab.file("plain", "not a program");
    let cases: [(&str, i32); 4] = [
        ("/nowhere/at-all", 127),
        ("no-such-command-here", 127),
        (&plain, 126),
        ("/etc", 126),
    ];
    for (command, status) in cases {
        let file = lab.path("report");
        let done = cgmgr(&["run", "--report", &file, "--", command]).expect(status);
        done.says("cgmgr: error: ").says(command).says("help: ");
        let report = report(&file);
        assert_eq!(
            (&report["started_command"], &report["status"]),
            (&false.into(), &status.into())
        );
        assert!(report["exit"].is_null(), "{report}");
        nothing_is_left();
    }
}

#[test]
fn a_script_without_an_interpreter_runs_as_under_env() {
    let lab = Lab::new();
    let script = lab.file("script", "echo by $0; exit 3\n");
    finish(Command::new("chmod").args(["+x", &script])).expect(0);
    let env = finish(Command::new("env").arg(&script));
    let done = cgmgr(&["run", "--", &script]).expect(3);
    assert_eq!((done.status, &done.out), (env.status, &env.out));
}

#[test]
fn usage_errors_of_run_are_125_and_start_nothing() {
    let lab = Lab::new();
    let marker = lab.path("marker");
    let touch = ["--", "touch", &marker];
    let bad: [&[&str]; 7] = [
        &["--no-such-option"],
        &["--memory-max", "0"],
        &["--memory-max", "12 parsecs"],
        &["--cpus", "-1"],
        &["--pids", "0"],
        &["--nofile", "lots"],
        &["--user", "nobody-of-this-name"],
    ];
    for options in bad {
        let mut words = vec!["run"];
        words.extend(options);
        words.extend(touch);
        let done = cgmgr(&words).expect(125);
        assert!(!done.err.is_empty());
        assert!(
            !std::path::Path::new(&marker).exists(),
            "{options:?} ran the command"
        );
    }
    cgmgr(&["run"]).expect(125);
    cgmgr(&["run", "--"]).expect(125);
    nothing_is_left();
}

#[test]
fn a_role_that_is_wrong_is_125_for_run_and_2_for_check() {
    let lab = Lab::new();
    let role = lab.file(
        "wrong.role.toml",
        "[runtime.limits]\nmemory_max = \"8 Gb\"\nmemory_hihg = 1\npids = 0\n",
    );
    let run = cgmgr(&["run", "--role", &role, "--", "true"]).expect(125);
    let check = cgmgr(&["check", &role]).expect(2);
    for done in [&run, &check] {
        done.says("wrong.role.toml:3:")
            .says("wrong.role.toml:4:")
            .says("help:");
    }
    nothing_is_left();
}

#[test]
fn input_and_output_are_the_commands() {
    let _lab = Lab::new();
    let mut command = command(["run", "--", "sh", "-c", "cat; echo to-err >&2"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("cgmgr");
    use std::io::{Read, Write};
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"a\0b\xff")
        .expect("input");
    let mut out = Vec::new();
    child
        .stdout
        .take()
        .expect("a pipe")
        .read_to_end(&mut out)
        .expect("output");
    let mut err = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut err)
        .expect("output");
    assert_eq!(shell_status(child.wait().expect("a child")), 0);
    assert_eq!(out, b"a\0b\xff");
    assert!(err.contains("to-err\n"), "{err}");
}

#[test]
fn arguments_are_passed_as_they_are() {
    let _lab = Lab::new();
    let words = [
        "run", "--", "printf", "[%s]", "a b", "", "--name", "-x", "*", "\n",
    ];
    let done = cgmgr(&words).expect(0);
    assert_eq!(done.out, "[a b][][--name][-x][*][\n]");
}

#[test]
fn the_report_tells_everything() {
    let lab = Lab::new();
    let file = lab.path("report");
    let options = [
        "--name",
        "told",
        "--memory-max",
        "64MiB",
        "--pids",
        "50",
        "--report",
        &file,
    ];
    run_payload(&options, &["facts"]).expect(0);
    let report = report(&file);
    assert_eq!(report["session"], "told");
    assert_eq!(report["backend"], "cgroupfs");
    let group = report["group"].as_str().expect("a group");
    assert_eq!(format!("/sys/fs/cgroup{group}"), crate::lab::path_of("told"));
    assert_eq!(report["started_command"], true);
    assert_eq!(report["status"], 0);
    assert_eq!(report["exit"]["code"], 0);
    assert!(report["oom"].is_null() && report["error"].is_null(), "{report}");
    assert!(
        report["started"].as_u64().is_some_and(|t| t > 1_000_000_000),
        "{report}"
    );
    assert_eq!(report["command"][1], "facts");
    for count in ["memory_peak", "cpu_usec", "wall_usec"] {
        assert!(
            report["usage"][count].as_u64().is_some_and(|n| n > 0),
            "{count} in {report}"
        );
    }
    assert_eq!(report["left"].as_array().map(Vec::len), Some(0));
    let receipt = report["receipt"].as_array().expect("a receipt");
    for knob in ["memory_max", "pids"] {
        let entry = receipt.iter().find(|entry| entry["knob"] == knob);
        assert_eq!(entry.expect("an entry")["state"], "enforced", "{report}");
    }
    // Root could write the files of its own group; that must be told.
    assert_eq!(report["promise"], "bookkeeping");
}

#[test]
fn a_summary_is_one_line_of_figures() {
    let _lab = Lab::new();
    let done = run_shell(&["--name", "sum", "--summary"], "exit 4").expect(4);
    let lines: Vec<&str> = done
        .err
        .lines()
        .filter(|l| l.starts_with("cgmgr: sum: "))
        .collect();
    assert_eq!(lines.len(), 1, "{done:#?}");
    for word in ["exit status 4", "took ", "CPU ", "memory peak "] {
        assert!(lines[0].contains(word), "{word} in {lines:?}");
    }
    run_shell(&[], "exit 0").expect(0).says_nothing_of("exit status");
}

#[test]
fn every_line_of_cgmgrs_own_begins_with_its_name() {
    let lab = Lab::new();
    let role = lab.file(
        "r.role.toml",
        "[runtime.limits]\nmemory_max = \"32 MiB\"\nio_weight = 7\n",
    );
    let done = run_payload(&["--role", &role, "--summary"], &["hog", "200"]).expect(137);
    for line in done.err.lines() {
        assert!(
            line.starts_with("cgmgr: ") || line.starts_with("  help: "),
            "{line:?}"
        );
    }
    assert!(done.err.lines().count() >= 2, "{done:#?}");
}
