//! test_memcontrol.c: the memory limits of a session.

use super::number;
use crate::cgmgr::{Live, cgmgr, report, run_payload};
use crate::lab::{Lab, close, counter, procs};

const MIB: u64 = 1 << 20;

/// Where page cache is made: /tmp may be memory itself.
const FILE: &str = "/var/tmp/cgmgr-lab-cache";

/// A session with a limit of 30 MiB reads a file of 50, and holds about 30 then, as its command reads in its own group.
#[track_caller]
fn cache_stays_below(limit: &str) -> Live {
    let mut live = Live::start(
        "cached",
        &[limit, "30MiB", "--memory-swap-max", "0"],
        &["cache", "50", FILE],
    );
    let current = number(&live.hear("cached "));
    assert!(close(current, 30 * MIB, 5), "{limit}: {current}");
    live
}

/// The kernel: memory.high holds page cache down to it, lets anonymous memory above it slowly and kills nobody, and
/// counts `high` events.
///
/// Here the limit is `--memory-high`; that 31 MiB of anonymous memory get by is no OOM kill for cgmgr either, and the
/// report counts what the kernel counted.
#[test]
fn memcg_high() {
    let lab = Lab::new();
    let live = cache_stays_below("--memory-high");
    let events = format!("{}/memory.events", live.group());
    assert!(counter(&events, "high") > 0);
    assert_eq!(counter(&events, "oom_kill"), 0);
    live.end().expect(0);

    let file = lab.path("report");
    let options = [
        "--memory-high",
        "30MiB",
        "--memory-swap-max",
        "0",
        "--summary",
        "--report",
        &file,
    ];
    let done = run_payload(&options, &["hog", "31"]).expect(0);
    assert!(done.out.ends_with("survived\n"), "{done:#?}");
    done.says_nothing_of("OOM").says("memory_high");
    let told = report(&file);
    assert!(told["oom"].is_null(), "{told:#}");
    assert!(told["usage"]["memory_high_events"].as_u64() > Some(0), "{told:#}");
}

/// The kernel: memory.max holds page cache down to it, kills what takes 100 MiB of anonymous memory, and counts `max`
/// events; memory.current is never above it.
///
/// Here the limit is `--memory-max`, and the kill is told.
#[test]
fn memcg_max() {
    let _lab = Lab::new();
    let done = run_payload(&["--memory-max", "30MiB"], &["hog", "100"]).expect(137);
    done.says("was OOM-killed: memory_max 30.0 MiB reached");
    assert!(!done.out.contains("survived"), "{done:#?}");

    let live = cache_stays_below("--memory-max");
    let current = counter(&format!("{}/memory.current", live.group()), "");
    assert!((1..=30 * MIB).contains(&current), "{current}");
    let events = format!("{}/memory.events", live.group());
    assert!(counter(&events, "max") > 0);
    assert_eq!(counter(&events, "oom_kill"), 0);
    live.end().expect(0).says_nothing_of("OOM");
}

/// The kernel (oom_group_leaf_events): with memory.oom.group on the leaf all processes of it are killed and none of its
/// parent's; the parent counts the kills.
///
/// Here the leaf is a session with `--oom-group`; the parent holds a second session, which lives on.
#[test]
fn memcg_oom_group_leaf() {
    let lab = Lab::new();
    let neighbour = Live::hold("neighbour", &["--oom-group", "--memory-max", "200MiB"], 60);
    let parent = format!("{}/memory.events", crate::lab::workloads());
    let before = counter(&parent, "oom_kill");
    let file = lab.path("report");
    let options = ["--memory-max", "50MiB", "--oom-group", "--report", &file];
    let done = run_payload(&options, &["crowd", "3", "1"]).expect(137);
    done.says("The kernel killed the whole group, 3 processes.");
    let told = report(&file);
    let oom = &told["oom"];
    assert_eq!(
        (&oom["level"], &oom["whole_group"], &oom["kills"]),
        (&"session".into(), &true.into(), &3.into()),
        "{told:#}"
    );
    // The kernel may count the one that it chose once more when it kills the group; the verdict does not.
    let counted = counter(&parent, "oom_kill") - before;
    assert!((3..=4).contains(&counted), "{counted}");
    assert_eq!(
        counter(&format!("{}/memory.events", neighbour.group()), "oom_kill"),
        0
    );
    neighbour.end().expect(0).says_nothing_of("OOM");
}

/// The kernel (oom_group_parent_events): with memory.oom.group on a group, an OOM in it kills the processes of the groups
/// below too.
///
/// Here the group is a session with `--oom-group` and `--memory-max`, whose command counts the memory of two groups of
/// its own: all of them go, the verdict counts them and names the session's limit, and cgmgr removes the groups. What
/// the parent's file would do to all sessions at once, cgmgr does not offer: it is no knob of a slice.
#[test]
fn memcg_oom_group_parent() {
    let lab = Lab::new();
    let file = lab.path("report");
    let options = [
        "--name",
        "family",
        "--memory-max",
        "80MiB",
        "--oom-group",
        "--report",
        &file,
    ];
    let done = run_payload(&options, &["family"]).expect(137);
    assert_eq!(done.out, "family\n", "{done:#?}");
    let told = report(&file);
    let oom = &told["oom"];
    assert_eq!(
        (&oom["level"], &oom["whole_group"], &oom["kills"]),
        (&"session".into(), &true.into(), &3.into()),
        "{told:#}"
    );
    assert_eq!(oom["limit"], 80 * MIB);
    assert_eq!(crate::lab::session_groups(), [""; 0]);
    let role = lab.file(
        "r.role.toml",
        "[workloads]\nmemory_max = \"80%\"\n[workloads.oom]\ngroup = true\n",
    );
    cgmgr(&["check", &role]).expect(2);
}

/// The kernel (oom_group_score_events): a process with oom_score_adj -1000 is not killed with its group.
///
/// Here: the command and the others are killed, the verdict counts only those; the one that is left is named, keeps its
/// session, and `cgmgr kill` ends it.
#[test]
fn memcg_oom_group_score_events() {
    let lab = Lab::new();
    let file = lab.path("report");
    let options = [
        "--name",
        "some",
        "--memory-max",
        "50MiB",
        "--oom-group",
        "--report",
        &file,
    ];
    let done = run_payload(&options, &["spared"]).expect(137);
    let spared: i32 = done
        .out
        .trim()
        .strip_prefix("spared ")
        .expect("a pid")
        .parse()
        .expect("a pid");
    let told = report(&file);
    assert_eq!(
        (&told["oom"]["kills"], &told["oom"]["level"]),
        (&2.into(), &"session".into()),
        "{told:#}"
    );
    done.says("was OOM-killed").says(&format!("sleep (pid {spared})"));
    assert_eq!(told["left"][0]["pid"], spared, "{told:#}");
    assert_eq!(procs(&crate::lab::path_of("some")), [spared]);
    cgmgr(&["kill", "some"]).expect(0);
    crate::cgmgr::until("the group is gone", || crate::lab::session_groups().is_empty());
}
