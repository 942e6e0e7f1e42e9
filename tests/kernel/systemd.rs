//! True of machines that systemd runs.

mod adopt;
mod anchor;
mod boundary;
mod daemon;
mod install;
mod protect;
pub mod readme;
mod reboot;
mod sampled;
mod scopes;
mod scopes_compared;
mod scopes_under_fire;
mod slices;
mod ssh;
mod transient_slices;
mod unread;
mod user;
mod user_installed;
mod user_sessions;

use std::path::Path;
use std::process::Command;

use crate::lab::{read, variable};

#[test]
fn systemd_is_pid_1_and_the_machine_is_up() {
    assert_eq!(read("/proc/1/comm"), "systemd");
    assert!(Path::new("/run/systemd/system").is_dir());
    let output = Command::new("systemctl")
        .args(["is-system-running", "--wait"])
        .output()
        .expect("systemctl");
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // A machine of somebody's own may well have a failed unit; ours has none.
    let state = if variable("CGMGR_LAB_SYSTEMD").is_none() {
        state.replace("degraded", "running")
    } else {
        state
    };
    let failed = Command::new("systemctl")
        .args(["--failed", "--plain", "--no-legend"])
        .output()
        .expect("systemctl");
    assert_eq!(state, "running", "{}", String::from_utf8_lossy(&failed.stdout));
}

#[test]
fn systemd_is_the_version_that_was_asked_for() {
    let output = Command::new("systemctl")
        .arg("--version")
        .output()
        .expect("systemctl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = variable("CGMGR_LAB_SYSTEMD").unwrap_or_default();
    assert!(text.starts_with(&format!("systemd {expected}")), "{text}");
}

#[test]
fn a_transient_scope_gets_its_limit() {
    let script = "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/pids.max";
    let output = Command::new("systemd-run")
        .args(["--quiet", "--scope", "--property=TasksMax=33", "sh", "-c", script])
        .output()
        .expect("systemd-run");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "33", "{output:?}");
}
