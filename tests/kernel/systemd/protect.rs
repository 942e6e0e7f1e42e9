//! `Workspace::protect` where the slices are systemd's: refused whole, with the remedy.

use cgmgr::workspace::{Limits, Workspace};

use crate::lab::{Lab, read};

#[test]
fn what_systemd_alone_may_do_is_left_to_it() {
    let _lab = Lab::new();
    let workspace = Workspace::open().expect("a place for sessions");
    let role = workspace
        .role(&Limits::new().memory_max("64 MiB"))
        .expect("good limits");
    let before = read("/proc/self/cgroup");
    let error = workspace.protect(&role).expect_err("systemd's slices");
    assert!(error.message.contains("agent.slice is systemd's"), "{error}");
    assert!(
        error
            .help
            .as_ref()
            .is_some_and(|help| help.contains("Slice=agent.slice")),
        "{error}"
    );
    assert_eq!(read("/proc/self/cgroup"), before);
}
