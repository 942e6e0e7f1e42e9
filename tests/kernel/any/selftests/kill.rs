//! test_kill.c: cgroup.kill, as `cgmgr kill` uses it.

use std::fs;

use crate::cgmgr::{Live, cgmgr, until};
use crate::lab::{Lab, counter, full, procs};

/// Kills the session and sees that nothing of it is left.
#[track_caller]
fn kill_whole(live: Live) {
    let group = live.group();
    cgmgr(&["kill", &live.name.clone()]).expect(0);
    // `kill` returns when the group is empty: one that is still there must say so.
    let left = fs::read_to_string(format!("{group}/cgroup.events")).unwrap_or_default();
    assert!(!left.contains("populated 1"), "{left}: {:?}", procs(&group));
    live.wait().expect(137).says_nothing_of("OOM");
    assert!(!fs::exists(&group).expect("a look"), "{group} is left");
}

/// The kernel: a fork bomb in a group is gone after one write to cgroup.kill.
///
/// Here the bomb is a session within its `pids` limit, and `cgmgr kill` ends it: no fork escapes, the group is gone.
#[test]
fn cgkill_forkbomb() {
    let _lab = Lab::new();
    for pids in if full() {
        vec![2, 16, 32, 64, 128, 200]
    } else {
        vec![48]
    } {
        let mut live = Live::start("bomb", &["--pids", &pids.to_string()], &["bomb"]);
        live.hear("bomb");
        let current = format!("{}/pids.current", live.group());
        until("the bomb has gone off", || counter(&current, "") == pids);
        kill_whole(live);
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
    kill_whole(live);
}
