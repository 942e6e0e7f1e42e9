//! test_freezer.c. The groups are frozen from outside, as somebody with root would, and the commands have to cope;
//! `freeze` itself is tested in `control::freeze`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::status;
use crate::cgmgr::{Live, cgmgr, payload, until};
use crate::lab::{Lab, counter, procs, read, write};

/// Freezes the session's group, until the kernel says that it is frozen.
#[track_caller]
fn freeze(live: &Live) {
    write(&format!("{}/cgroup.freeze", live.group()), "1");
    let events = format!("{}/cgroup.events", live.group());
    until("the group is frozen", || counter(&events, "frozen") == 1);
    assert_eq!(status(&live.name)["state"], "frozen");
    let text = cgmgr(&["status"]).expect(0).out;
    assert!(text.contains("frozen"), "{text}");
}

#[track_caller]
fn kill_frozen(live: Live) {
    let group = live.group();
    assert_eq!(status(&live.name)["state"], "frozen");
    cgmgr(&["kill", &live.name.clone()]).expect(0);
    live.wait().expect(137).says_nothing_of("OOM");
    assert!(!fs::exists(&group).expect("a look"), "{group} is left");
}

/// The kernel: a fork bomb freezes as a whole, and can be killed while it is frozen.
///
/// Here: `status` tells that the session is frozen; nothing forks meanwhile; `kill` ends a frozen session, which stays
/// frozen to its end; `stop` thaws it first, so that it can end in order.
#[test]
fn cgfreezer_forkbomb() {
    let lab = Lab::new();
    let mut live = Live::start("bomb", &["--pids", "40"], &["bomb"]);
    live.hear("bomb");
    let events = format!("{}/pids.events", live.group());
    until("the bomb has gone off", || counter(&events, "max") > 100);
    freeze(&live);
    let before = (
        read(&format!("{}/cpu.stat", live.group())),
        procs(&live.group()).len(),
    );
    std::thread::sleep(Duration::from_secs(1));
    let after = (
        read(&format!("{}/cpu.stat", live.group())),
        procs(&live.group()).len(),
    );
    assert_eq!(before, after, "something went on");
    kill_frozen(live);

    let told = lab.path("told");
    let script =
        format!("trap 'echo in order >{told}; exit 3' TERM; echo begun; while :; do sleep 0.1; done");
    let mut live = Live::of(
        "tidy",
        &mut crate::cgmgr::command(["run", "--name", "tidy", "--", "sh", "-c", &script]),
    );
    live.hear("begun");
    freeze(&live);
    cgmgr(&["stop", "tidy"]).expect(0);
    assert_eq!(read(&told), "in order");
    live.wait().expect(3);
}

/// The kernel: a group with a process that is traced and stopped by its tracer can be frozen and thawed.
///
/// Here: `status` tells it as frozen, and `kill` ends such a session although its tracer does not let go. How the command
/// ended the kernel tells its tracer first, and `run` only when that one has let go: `run` returns then, as a shell would,
/// and the group stays as long; `kill` does not wait for it and says so.
#[test]
fn cgfreezer_ptraced() {
    let _lab = Lab::new();
    let mut live = Live::start("traced", &[], &["hold"]);
    let pid = live.hear("ready ");
    let mut tracer = Command::new(payload())
        .args(["trace", &pid])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the payload");
    until("the process is traced and stopped", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") t "))
    });
    freeze(&live);
    write(&format!("{}/cgroup.freeze", live.group()), "0");
    let events = format!("{}/cgroup.events", live.group());
    until("the group is thawed", || counter(&events, "frozen") == 0);
    assert_eq!(status("traced")["state"], "running");
    freeze(&live);
    let killed = cgmgr(&["kill", "traced"]);
    let populated = counter(&events, "populated");
    let waits = live.cgmgr.try_wait().expect("a look").is_none();
    let held = tracer.try_wait().expect("a look").is_none();
    drop(tracer.stdin.take());
    tracer.wait().expect("a child");
    killed.expect(0).says("held by a debugger");
    assert_eq!((populated, waits, held), (0, true, true));
    let group = live.group();
    live.wait().expect(137).says_nothing_of("OOM");
    assert!(!fs::exists(&group).expect("a look"), "{group} is left");
}
