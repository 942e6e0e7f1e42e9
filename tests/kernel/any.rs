//! True of every machine with cgroup v2.

mod adopt;
mod after;
mod agents;
mod boundary;
mod coder;
mod control;
pub mod dialects;
mod doctor;
mod enter;
mod exhausted;
pub mod fates;
mod input;
mod killed;
mod library;
mod limits;
mod live;
mod names;
mod obstacles;
mod oracle;
mod package;
mod placement;
mod predecessors;
mod priorities;
mod protect;
mod records;
mod refused;
mod removed;
pub mod sampled;
mod selftests;
mod signals;
mod status;
mod terminal;
mod together;
mod verdict;
mod watched;

use crate::lab::{mounted, read, variable};

#[test]
fn the_kernel_is_the_one_that_was_asked_for() {
    let release = read("/proc/sys/kernel/osrelease");
    let expected = variable("CGMGR_LAB_KERNEL").unwrap_or_default();
    assert!(
        release == expected || release.starts_with(&format!("{expected}.")) || expected.is_empty(),
        "{release}"
    );
}

#[test]
fn cgroup_v2_is_mounted_with_the_options_that_systemd_uses() {
    let (kind, options) = mounted("/sys/fs/cgroup").expect("something is mounted there");
    assert_eq!(kind, "cgroup2");
    for option in ["nsdelegate", "memory_recursiveprot"] {
        assert!(
            options.split(',').any(|o| o == option),
            "{option} is not in {options}"
        );
    }
}

#[test]
fn the_controllers_and_pressure_are_there() {
    let controllers = read("/sys/fs/cgroup/cgroup.controllers");
    for controller in ["cpuset", "cpu", "io", "memory", "pids"] {
        assert!(
            controllers.split(' ').any(|c| c == controller),
            "{controller} is not in {controllers}"
        );
    }
    assert!(read("/proc/pressure/memory").contains("full avg10="));
}

#[test]
fn signals_and_the_oom_score_are_as_a_login_has_them() {
    let status = read("/proc/self/status");
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"))
        .expect("a SigIgn line");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
    // Rust's runtime ignores SIGPIPE (13) itself; nothing else may be ignored.
    assert_eq!(ignored & !(1 << 12), 0, "{ignored:x}");
    assert_eq!(read("/proc/self/oom_score_adj"), "0");
}
