//! `Workspace::protect`: this program itself moves into agent.slice, and back.

use std::fs::{self, File};
use std::io::Read;

use cgmgr::workspace::{Command, Stdio, Workspace};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::cgmgr::cgmgr;
use crate::lab::{Lab, MOUNT, counter, read, write};

/// Puts this program back to where all tests begin, whatever happens.
struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        write("/proc/self/oom_score_adj", "0");
        write(&format!("{MOUNT}/cgroup.procs"), "0");
    }
}

#[test]
fn a_program_is_protected_and_its_sessions_are_not() {
    let lab = Lab::new();
    let workspace = Workspace::open().expect("a place for sessions");
    let text = "[runtime.limits]\nmemory_max = \"64 MiB\"\n[agent]\nmemory_min = \"8 MiB\"\nnice = 0\n";
    let role = workspace.role_text("agent", text).expect("a good role");
    let _back = Back;
    write("/proc/self/oom_score_adj", "-900");
    let done = workspace.protect(&role).unwrap_or_else(|error| panic!("{error}"));
    let group = done.group.as_ref().map(|group| group.as_str());
    assert_eq!((group, done.already), (Some("/agent.slice"), false));
    assert!(done.left_behind.is_some_and(|bytes| bytes > 0), "{done:#?}");
    let said = done.notes.join("\n");
    assert!(said.contains("stay charged to /"), "{said}");
    assert_eq!(read("/proc/self/cgroup"), "0::/agent.slice");
    assert_eq!(counter(&format!("{MOUNT}/agent.slice/memory.min"), ""), 8 << 20);
    let again = workspace.protect(&role).expect("twice is as good as once");
    assert!(again.already && again.left_behind.is_none(), "{again:#?}");
    // What is there is `apply`'s to change.
    let more = workspace
        .role_text("more", "[agent]\nmemory_min = \"9 MiB\"\n")
        .expect("a good role");
    let again = workspace.protect(&more).expect("protected");
    let said: Vec<String> = again
        .receipt
        .unconfined()
        .map(|e| e.outcome.to_string())
        .collect();
    assert_eq!(
        said,
        ["not enforced: it is 8388608, and only `cgmgr apply` changes what is there"]
    );

    let file = File::open("/etc/passwd").expect("a file");
    fcntl_setfd(&file, FdFlags::empty()).expect("passed on, if nobody looks after it");
    let script = "cat /proc/self/cgroup /proc/self/oom_score_adj; ls -l /proc/self/fd";
    let command = Command::new("sh").args(["-c", script]).stdout(Stdio::piped());
    let mut session = workspace
        .session(&role)
        .name("below")
        .spawn(command)
        .expect("started");
    let mut out = String::new();
    session
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut out)
        .expect("text");
    assert!(session.wait().success());
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["0::/workloads.slice/cgmgr-below", "0"], "{out}");
    assert!(!out.contains("/etc/passwd"), "{out}");

    cgmgr(&["down"]).expect(1).says("/agent.slice still holds pid");
    drop(_back);
    assert_eq!(read("/proc/self/cgroup"), "0::/");
    assert!(fs::exists(format!("{MOUNT}/agent.slice")).expect("a look"));
    drop(lab);
}
