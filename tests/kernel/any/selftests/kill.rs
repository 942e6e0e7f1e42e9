//! test_kill.c: cgroup.kill, as `cgmgr kill` uses it.

use std::fs;
use std::process::Command;

use crate::cgmgr::{Live, command, finish, until};
use crate::lab::{Lab, counter, full, must, procs};

/// Kills the session with this command and sees that nothing of it is left.
#[track_caller]
fn kill_whole(live: Live, mut kill: Command) {
    let group = live.group();
    finish(kill.arg(&live.name)).expect(0);
    // `kill` returns when the group is empty: one that is still there must say so.
    let left = fs::read_to_string(format!("{group}/cgroup.events")).unwrap_or_default();
    assert!(!left.contains("populated 1"), "{left}: {:?}", procs(&group));
    live.wait().expect(137).says_nothing_of("OOM");
    assert!(!fs::exists(&group).expect("a look"), "{group} is left");
}

/// `cgmgr kill` so slow that a bomb forks between any two of its steps: each is told to a tracer.
fn slow_kill() -> Command {
    let mut strace = Command::new("strace");
    strace.args(["--follow-forks", "--output=/dev/null", &must("CGMGR_BIN"), "kill"]);
    strace
}

/// The kernel: a fork bomb in a group is gone after one write to cgroup.kill.
///
/// Here the bomb is a session within its `pids` limit, and `cgmgr kill` ends it however slow it is: no fork escapes, the
/// group is gone.
#[test]
fn cgkill_forkbomb() {
    let _lab = Lab::new();
    for round in 0..if full() { 60 } else { 6 } {
        let pids = [16, 64, 128][round % 3].to_string();
        let mut live = Live::start("bomb", &["--pids", &pids], &["bomb"]);
        live.hear("bomb");
        let events = format!("{}/pids.events", live.group());
        until("the bomb has gone off", || counter(&events, "max") > 100);
        kill_whole(live, slow_kill());
    }
}

/// The kernel: the processes of a tree of groups are all killed by one write to cgroup.kill of its top.
///
/// Here the top is a session that made the tree itself: a chain of ten groups with a process in each.
#[test]
fn cgkill_tree() {
    let _lab = Lab::new();
    let mut live = Live::start("tree", &[], &["chain", "10"]);
    live.hear("ready ");
    let depths = (1..=10).map(|depth| format!("{}{}", live.group(), "/deeper".repeat(depth)));
    for group in depths {
        assert_eq!(procs(&group).len(), 1, "{group}");
    }
    assert_eq!(super::status("tree")["pids"]["current"], 11);
    kill_whole(live, command(["kill"]));
}
