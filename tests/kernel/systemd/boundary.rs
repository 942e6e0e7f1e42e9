//! What a user's own systemd does for his session.

use std::path::Path;

use crate::cgmgr::{report, run_payload, until};
use crate::escape::{attempts, told_once};
use crate::lab::Lab;
use crate::people::{UserManager, coder};

#[test]
fn a_users_own_systemd_takes_processes_out_and_no_boundary_is_promised() {
    let lab = Lab::new();
    coder();
    let file = lab.path("report");
    let options = ["--user", "coder", "--memory-max", "300MiB", "--report", &file];
    let got = |classes: &str| {
        let done = run_payload(&options, &["escape"]).expect(0);
        let got = attempts(&done).into_iter().filter(|a| a.done);
        let named = |class: &str| classes.split(' ').any(|c| c == class);
        let (expected, other): (Vec<_>, Vec<_>) = got.partition(|a| named(&a.class));
        assert!(other.is_empty(), "{}", told_once(&done));
        expected.len()
    };
    let manager = UserManager::start();
    // The files that are his are those of his systemd's own group.
    assert!(got("manager limit") > 1, "his systemd did not do it");
    assert_eq!(report(&file)["promise"], "bookkeeping");
    drop(manager);
    until("his manager has gone", || {
        !Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service").exists()
    });
    assert_eq!(got(""), 0);
    assert_eq!(report(&file)["promise"], "boundary");
}
