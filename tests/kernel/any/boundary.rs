//! Inside and outside: what a payload can do to the limits of its session, and what the report promises of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::cgmgr::{Done, cgmgr, finish, payload, report, run_command, run_payload};
use crate::escape::{CLASSES, attempts, told_once};
use crate::lab::{Lab, MOUNT, children, read, session_groups};
use crate::people::coder;

const LIMITS: [&str; 8] = [
    "--memory-max",
    "300MiB",
    "--memory-high",
    "250MiB",
    "--pids",
    "64",
    "--cpus",
    "1.5",
];

/// A machine with both parts, so that there is somewhere to go.
fn parts(lab: &Lab) {
    coder();
    let role = lab.file(
        "parts.role.toml",
        "[agent]\nmemory_low = \"16 MiB\"\n[workloads]\npids = \"80%\"\n",
    );
    cgmgr(&["apply", &role]).expect(0);
    assert!(
        children(MOUNT).contains(&"agent.slice".to_owned()),
        "{:?}",
        children(MOUNT)
    );
}

fn run(lab: &Lab, name: &str, more: &[&str]) -> (Done, String) {
    let file = lab.path(name);
    let options = [&["--name", name, "--report", &file], &LIMITS[..], more].concat();
    let done = run_payload(&options, &["escape"]).expect(0);
    (done, file)
}

fn groups(top: &str) -> usize {
    let below = children(top);
    1 + below
        .iter()
        .map(|name| groups(&format!("{top}/{name}")))
        .sum::<usize>()
}

#[test]
fn nothing_that_a_users_session_tries_gets_it_out() {
    let lab = Lab::new();
    parts(&lab);
    let least = groups(MOUNT);
    let (done, file) = run(&lab, "his", &["--user", "coder"]);
    let tried = attempts(&done);
    let classes: BTreeSet<&str> = tried.iter().map(|a| a.class.as_str()).collect();
    assert_eq!(classes, CLASSES.into(), "what was tried");
    let got: Vec<&str> = tried.iter().filter(|a| a.done).map(|a| a.what.as_str()).collect();
    assert!(got.is_empty(), "these were not refused: {got:#?}");
    assert_eq!(report(&file)["promise"], "boundary");

    // Every group there is, its own included, and two files of each; a dozen limits at the least of each below the root.
    let of = |class: &str| tried.iter().filter(|a| a.class == class).count();
    assert_eq!(of("clone"), least + 1, "{:?}", children(MOUNT));
    assert_eq!(of("move"), 2 * (least + 1));
    assert!(of("limit") > 12 * least, "{}", of("limit"));
    // The namespace was made and had its mount: what was refused was refused there, too.
    for step in ["unshare", "uid_map", "mount"] {
        assert!(
            done.out.contains(&format!("step {step}: allowed\n")),
            "{}",
            told_once(&done)
        );
    }
    assert!(
        done.out.ends_with("/cgmgr-his\n"),
        "it was last seen in {}",
        told_once(&done)
    );
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn the_same_attempts_succeed_where_limits_are_bookkeeping() {
    let lab = Lab::new();
    parts(&lab);
    let (done, file) = run(&lab, "roots", &[]);
    let mut got: BTreeMap<String, usize> = BTreeMap::new();
    for attempt in attempts(&done).into_iter().filter(|a| a.done) {
        *got.entry(attempt.class).or_default() += 1;
    }
    // Root has every way out, but for descriptors of ours: there are none to be inherited by anybody.
    let mut all: BTreeSet<&str> = CLASSES.into();
    all.remove("descriptor");
    if !crate::lab::is_systemd() {
        all.remove("manager");
    }
    assert_eq!(
        got.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        all,
        "{got:#?}"
    );
    assert_eq!(report(&file)["promise"], "bookkeeping");
    // It undid all that, and is still measured as if it had not.
    assert!(done.out.ends_with("/cgmgr-roots\n"), "{}", told_once(&done));
}

#[test]
fn a_session_without_a_group_promises_nothing() {
    let lab = Lab::new();
    coder();
    let file = lab.path("report");
    let options = ["--user", "coder", "--report", &file, "--memory-max", "64MiB"];
    let mut command = run_command(&options, &["facts"]);
    command.env("CGMGR_BACKEND", "process");
    finish(&mut command).expect(0);
    assert_eq!(report(&file)["promise"], "none");
}

/// The descriptors that a payload finds open, beside the three that it must have.
fn inherited(words: &[&str], user: bool) -> Vec<String> {
    let mut all = vec!["run", "--name", "heir"];
    all.extend(words);
    if user {
        all.extend(["--user", "coder"]);
    }
    let payload = payload();
    all.extend(["--", &payload, "fds"]);
    let done = cgmgr(&all).expect(0);
    let text = if words.contains(&"--detach") {
        cgmgr(&["wait", "heir"]).expect(0);
        read(words.last().expect("a log"))
    } else {
        done.out
    };
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(lines.len() >= 3, "{lines:?}");
    let of_three = |line: &String| ["0 ", "1 ", "2 "].iter().any(|fd| line.starts_with(fd));
    lines.into_iter().filter(|line| !of_three(line)).collect()
}

#[test]
fn a_payload_inherits_no_descriptor_of_cgmgrs() {
    let lab = Lab::new();
    coder();
    let (log, file) = (lab.path("log"), lab.path("report"));
    for user in [false, true] {
        for words in [
            &["--quiet"][..],
            &["--report", &file, "--memory-max", "64MiB", "--summary"],
            &["--exec"],
            &["--backend", "process"],
            &["--detach", "--log", &log],
        ] {
            assert_eq!(
                inherited(words, user),
                [""; 0],
                "{words:?}, as another user: {user}"
            );
            let _ = std::fs::remove_file(&log);
        }
    }
    // What the caller leaves open is the caller's to give, unless it says otherwise; so the look does see one.
    let procs = format!("{MOUNT}/cgroup.procs");
    for (flag, count) in [("", 1), ("--close-fds", 0)] {
        let script = format!(
            "exec 7<>{procs}; exec {} run {flag} --user coder -- {} fds",
            crate::lab::must("CGMGR_BIN"),
            payload()
        );
        let done = finish(std::process::Command::new("sh").args(["-c", &script])).expect(0);
        let held = done
            .out
            .lines()
            .filter(|line| line.ends_with("/cgroup.procs"))
            .count();
        assert_eq!(held, count, "{flag} {done:#?}");
    }
}
