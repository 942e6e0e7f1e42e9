//! test_pids.c: how many tasks a session may have.

use super::number;
use crate::cgmgr::{cgmgr, report, run_payload};
use crate::lab::{Lab, counter, read, workloads};

/// Forks of a session until one was refused with EAGAIN.
#[track_caller]
fn forks(out: &str) -> u64 {
    assert!(out.ends_with(&format!(" errno {}\n", libc::EAGAIN)), "{out}");
    number(out.strip_prefix("forked ").unwrap_or(out))
}

/// The kernel: with pids.max 2 a process can have one child, and the second fork fails with EAGAIN.
///
/// Here the limit is `--pids 2`; the report counts the refusal.
#[test]
fn pids_max() {
    let lab = Lab::new();
    let file = lab.path("report");
    for (pids, children) in [("2", 1), ("17", 16)] {
        let done = run_payload(&["--pids", pids, "--report", &file], &["storm"]).expect(0);
        assert_eq!(forks(&done.out), children, "{done:#?}");
        let usage = &report(&file)["usage"];
        assert_eq!(
            (&usage["pids_refused"], &usage["pids_peak"]),
            (&1.into(), &(children + 1).into())
        );
    }
}

/// The kernel: a fork that the limit of the parent refused is counted at the parent, not at the child (where the kernel
/// has `pids_localevents`; older ones count it where the fork was).
///
/// Here the parent's limit is the ceiling over all sessions, and the session has none.
#[test]
fn pids_events() {
    let lab = Lab::new();
    let busy = counter(&format!("{}/pids.current", workloads_now(&lab)), "");
    let role = lab.file("few.role.toml", &format!("[workloads]\npids = {}\n", busy + 8));
    cgmgr(&["apply", &role]).expect(0);
    let events = format!("{}/pids.events", workloads());
    let before = counter(&events, "max");
    let file = lab.path("report");
    let done = run_payload(&["--report", &file], &["storm"]).expect(0);
    assert_eq!(forks(&done.out), 7, "{done:#?}");
    let (own, ceilings) = (
        report(&file)["usage"]["pids_refused"].as_u64(),
        counter(&events, "max") - before,
    );
    let features = read("/sys/kernel/cgroup/features");
    let at_the_limit = features.lines().any(|feature| feature == "pids_localevents");
    assert_eq!(
        (own, ceilings),
        if at_the_limit { (Some(0), 1) } else { (Some(1), 0) }
    );
}

/// The ceiling's group, made where it is not there yet.
fn workloads_now(lab: &Lab) -> String {
    let role = lab.file("none.role.toml", "[workloads]\npids = \"max\"\n");
    cgmgr(&["apply", &role]).expect(0);
    workloads()
}
