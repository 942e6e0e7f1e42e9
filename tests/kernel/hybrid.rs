//! True of machines whose controllers are bound to cgroup v1.

mod sessions;

use crate::lab::{mounted, read, variable};

#[test]
fn controllers_are_in_v1_and_v2_has_none_of_those() {
    assert_eq!(
        mounted("/sys/fs/cgroup").expect("something is mounted there").0,
        "tmpfs"
    );
    assert_eq!(
        mounted("/sys/fs/cgroup/unified")
            .expect("something is mounted there")
            .0,
        "cgroup2"
    );
    let left = read("/sys/fs/cgroup/unified/cgroup.controllers");
    // Debian's 6.12 cloud kernel has no memory controller for v1: there v2 keeps it.
    let memory: &[&str] = if variable("CGMGR_LAB_KERNEL").as_deref() == Some("6.12") {
        &[]
    } else {
        &["memory"]
    };
    for controller in memory.iter().chain(&["cpu", "cpuacct", "pids"]) {
        let (kind, options) = mounted(&format!("/sys/fs/cgroup/{controller}")).expect("a v1 hierarchy");
        assert_eq!(kind, "cgroup");
        assert!(
            options.split(',').any(|o| o == *controller),
            "{controller} is not in {options}"
        );
        assert!(
            !left.split(' ').any(|c| c == *controller),
            "{controller} is in v2's {left}"
        );
    }
}
