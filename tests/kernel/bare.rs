//! True of machines without systemd, where we start in the root cgroup.

mod apply;
mod converge;
mod delegated;
mod protect;
mod selftests;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::read;

#[test]
fn pid_1_is_not_systemd_and_we_are_in_the_root_cgroup() {
    assert_eq!(read("/proc/1/comm"), "init");
    assert!(!Path::new("/run/systemd").exists());
    assert_eq!(read("/proc/1/cgroup"), "0::/");
    assert_eq!(read("/proc/self/cgroup"), "0::/");
}

#[test]
fn pid_1_reaps_orphans() {
    let output = Command::new("sh")
        .args(["-c", "sleep 0.2 >/dev/null 2>&1 & echo $!"])
        .output()
        .expect("sh");
    let orphan = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let begun = Instant::now();
    while Path::new("/proc").join(&orphan).exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{}",
            read(&format!("/proc/{orphan}/status"))
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn controllers_can_be_enabled_in_a_group_of_ones_own() {
    std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids")
        .expect("the root takes controllers");
    let group = Path::new("/sys/fs/cgroup/lab-sanity");
    std::fs::create_dir(group).expect("a group");
    std::fs::write(group.join("memory.max"), "33554433").expect("a limit");
    let limit = std::fs::read_to_string(group.join("memory.max"));
    std::fs::remove_dir(group).expect("an empty group can go");
    assert_eq!(limit.expect("the limit reads back"), "33554432\n");
}
