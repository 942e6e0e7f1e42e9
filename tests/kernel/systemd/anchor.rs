//! The scope that sessions live in, and its anchor: nobody depends on the anchor's life, and a scope that went is made
//! anew by the next launch.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cgmgr::{Done, Live, cgmgr, command, finish, payload, report, run_payload, run_shell, until};
use crate::lab::{Lab, must, path_of, procs, read, session_groups, sessions};

const SERVICE: &str = "cgmgr-sessions.service";
const SCOPE: &str = "cgmgr-sessions.scope";
/// As many as live while their anchor dies.
const MANY: usize = 100;

fn systemctl(words: &[&str]) -> Done {
    finish(Command::new("systemctl").args(words))
}

fn leaf() -> String {
    format!("{}/supervisor", sessions())
}

/// The one anchor that there is.
#[track_caller]
fn anchor() -> i32 {
    let anchors = procs(&leaf());
    assert_eq!(anchors.len(), 1, "{anchors:?}");
    assert_eq!(read(&format!("/proc/{}/comm", anchors[0])), "cgmgr-anchor");
    anchors[0]
}

#[track_caller]
fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("SIGKILL");
}

fn kill_anchor() {
    kill(anchor());
    until("the anchor is gone", || {
        fs::read_to_string(format!("{}/cgroup.procs", leaf()))
            .unwrap_or_default()
            .is_empty()
    });
}

/// Ends the anchor where no session lives: then the scope goes too.
fn lose_the_scope() {
    assert_eq!(session_groups(), [""; 0]);
    kill_anchor();
    until("the scope is gone", || !Path::new(&sessions()).exists());
}

#[test]
fn the_anchor_is_where_it_should_be_and_holds_nothing() {
    let _lab = Lab::new();
    let pid = anchor();
    let (scope, leaf) = (sessions(), leaf());
    let at = |group: &str| group.trim_start_matches("/sys/fs/cgroup").to_owned();
    assert_eq!(read(&format!("/proc/{pid}/cgroup")), format!("0::{}", at(&leaf)));
    assert_eq!(read(&format!("/proc/{pid}/oom_score_adj")), "-1000");
    assert_eq!(fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc").count(), 0);
    let stat = read(&format!("/proc/{pid}/stat"));
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .expect("a name")
        .1
        .split_whitespace()
        .collect();
    let own = pid.to_string();
    assert_eq!(
        (fields[1], fields[3]),
        ("1", own.as_str()),
        "PID 1's child, in a session of its own"
    );
    assert_eq!(procs(&scope), [0; 0]);
    let shown = systemctl(&[
        "show",
        "--property=Slice,Delegate,OOMPolicy,TasksMax,CollectMode,SendSIGHUP,TimeoutStopUSec,ControlGroup",
        SCOPE,
    ]);
    for line in [
        "Slice=workloads.slice",
        "Delegate=yes",
        "OOMPolicy=continue",
        "TasksMax=infinity",
        "CollectMode=inactive-or-failed",
        "SendSIGHUP=yes",
        "TimeoutStopUSec=20s",
        &format!("ControlGroup={}", at(&scope)),
    ] {
        assert!(shown.out.lines().any(|l| l == line), "{line} in {}", shown.out);
    }
    let service = systemctl(&[
        "show",
        "--property=ActiveState,SubState,MainPID,TasksCurrent",
        SERVICE,
    ]);
    assert!(service.out.contains("SubState=exited\n"), "{service:#?}");
    // Said again it changes nothing.
    systemctl(&["restart", SERVICE]).expect(0);
    assert_eq!(anchor(), pid);
}

#[test]
fn neither_the_anchors_death_nor_the_units_restart_ends_a_session() {
    let lab = Lab::new();
    let name = |n: usize| format!("s{n}");
    for n in 0..MANY {
        let pids = (20 + n).to_string();
        let options = [
            "run",
            "--detach",
            "--name",
            &name(n),
            "--memory-max",
            "64MiB",
            "--pids",
            &pids,
        ];
        cgmgr(&[&options[..], &["--", "sleep", "100000"]].concat()).expect(0);
    }
    let file = lab.path("report");
    let go = lab.path("go");
    let script = format!(
        "until test -e {go}; do sleep 0.2; done; exec {} hog 40",
        payload()
    );
    let mut doomed = command([
        "run",
        "--name",
        "doomed",
        "--memory-max",
        "16MiB",
        "--report",
        &file,
    ]);
    let doomed = Live::of("doomed", doomed.args(["--", "sh", "-c", &script]));
    until("it runs", || {
        fs::read_to_string(path_of("doomed") + "/cgroup.procs").is_ok_and(|t| !t.is_empty())
    });

    let look = || -> Vec<(Vec<i32>, String, String)> {
        let of = |n| {
            let group = path_of(&name(n));
            (
                procs(&group),
                read(&format!("{group}/memory.max")),
                read(&format!("{group}/pids.max")),
            )
        };
        (0..MANY).map(of).collect()
    };
    let before = look();
    for (n, (procs, memory, pids)) in before.iter().enumerate() {
        assert_eq!(
            (procs.len(), memory.as_str(), pids.as_str()),
            (1, "67108864", (20 + n).to_string().as_str())
        );
    }
    let first = anchor();
    kill_anchor();
    assert_eq!(look(), before, "after the anchor's death");
    systemctl(&["daemon-reload"]).expect(0);
    assert_eq!(look(), before, "after a reload");
    // The verdict rests on the group, and nothing of that is the anchor's.
    fs::write(&go, "").expect("a file");
    assert_eq!(doomed.wait().status, 137);
    assert_eq!(report(&file)["oom"]["level"], "session");

    run_shell(&["--memory-max", "48MiB"], "true")
        .expect(0)
        .says_nothing_of("cgmgr:");
    let second = anchor();
    assert_ne!(second, first, "the launch gave the scope a new anchor");
    for words in [["restart", SERVICE], ["stop", SERVICE], ["start", SERVICE]] {
        systemctl(&words).expect(0);
        assert_eq!(look(), before, "{words:?}");
        assert_eq!(anchor(), second, "{words:?}");
    }
    kill_anchor();
    systemctl(&["restart", SERVICE]).expect(0);
    assert_eq!(look(), before);
    anchor();
    // As long as one lives there is something to stop.
    cgmgr(&["uninstall"]).expect(1).says("s99");
    assert_eq!(look(), before);
    cgmgr(&["down", "--kill"]).expect(0);
}

#[test]
fn a_scope_that_went_is_made_anew_by_the_next_launch() {
    let lab = Lab::new();
    let detached = cgmgr(&["run", "--detach", "--name", "past", "--", "sh", "-c", "exit 7"]);
    detached.expect(0);
    until("it has ended", || session_groups().is_empty());
    lose_the_scope();
    // Who only looks makes nothing, and nobody is told of a failure.
    for words in [
        &["status"][..],
        &["doctor"],
        &["plan", &crate::lab::example("rust")],
    ] {
        cgmgr(words).expect(0);
        assert!(!Path::new(&sessions()).exists(), "{words:?}");
    }
    // What ended in the old scope is known still.
    cgmgr(&["wait", "past"]).expect(7);
    let facts = run_payload(&["--memory-max", "99MiB"], &["facts"]).expect(0);
    facts.says_nothing_of("cgmgr:");
    assert_eq!(facts.json()["files"]["memory.max"], (99 << 20).to_string());
    anchor();
    assert!(systemctl(&["--failed", "--plain", "--no-legend"]).out.is_empty());
    // More often than systemd lets a unit fail.
    for _ in 0..8 {
        lose_the_scope();
        run_shell(&[], "true").expect(0);
    }
    drop(lab);
}

#[test]
fn launches_at_once_make_one_scope() {
    let _lab = Lab::new();
    lose_the_scope();
    let run = |n: usize| {
        let name = format!("at-once-{n}");
        run_payload(&["--name", &name, "--memory-max", "77MiB"], &["facts"])
    };
    let all: Vec<Done> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|n| scope.spawn(move || run(n))).collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    for done in all {
        assert_eq!(
            done.expect(0).json()["files"]["memory.max"],
            (77 << 20).to_string()
        );
    }
    anchor();
}

/// What `cgmgr run -- true` connects to.
fn connections(lab: &Lab) -> String {
    let log = lab.path("strace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-e", "trace=connect", "-o", &log])
        .arg(must("CGMGR_BIN"));
    finish(
        strace
            .args(["run", "--memory-max", "64MiB", "--", "true"])
            .stdin(Stdio::null()),
    )
    .expect(0);
    fs::read_to_string(log).expect("a log")
}

#[test]
fn a_launch_into_the_scope_asks_systemd_nothing() {
    let lab = Lab::new();
    run_shell(&[], "true").expect(0);
    assert_eq!(connections(&lab), "");
    // It would be seen.
    lose_the_scope();
    assert!(connections(&lab).contains("/run/systemd/private"));
}

#[test]
fn where_the_scope_cannot_be_made_the_launch_says_so_and_starts_nothing() {
    let lab = Lab::new();
    let folder = format!("/run/systemd/system/{SERVICE}.d");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(
        format!("{folder}/broken.conf"),
        "[Service]\nExecStart=\nExecStart=/bin/false\n",
    )
    .expect("a file");
    systemctl(&["daemon-reload"]).expect(0);
    lose_the_scope();
    let marker = lab.path("marker");
    let refused = cgmgr(&["run", "--", "touch", &marker]);
    let kept = run_shell(&["--backend", "process"], "true");
    fs::remove_dir_all(&folder).expect("ours");
    systemctl(&["daemon-reload"]).expect(0);
    refused
        .says(SCOPE)
        .says("journalctl -b -u cgmgr-sessions.service");
    assert_eq!(refused.status, 125, "{refused:#?}");
    assert!(!Path::new(&marker).exists());
    kept.expect(0);
    run_shell(&[], "true").expect(0);
    systemctl(&["reset-failed"]).expect(0);
}

#[test]
fn stopping_the_scope_ends_the_sessions() {
    let _lab = Lab::new();
    let live = Live::hold("last", &[], 0);
    systemctl(&["stop", SCOPE]).expect(0);
    assert!(live.wait().status >= 128);
    assert!(!Path::new(&sessions()).exists());
    run_shell(&[], "true").expect(0);
    anchor();
}
