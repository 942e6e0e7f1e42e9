//! test_core.c: what is true of the tree, and needs groups of our own.

use std::fs;

use serde_json::json;

use super::{Base, only};
use crate::cgmgr::{Live, cgmgr, payload, report};
use crate::lab::{Lab, MOUNT, children, read, workloads, write};
use crate::readback::entry;

fn given(group: &str) -> String {
    read(&format!("{group}/cgroup.subtree_control"))
}

/// The kernel: a group can give its children no controller that it has not got itself.
///
/// Here: a base without the memory controller. cgmgr does not ask for what cannot be had: the session runs with what
/// there is, and it is told what does not hold; with `--require-limits` nothing runs. Where the root can give it, cgmgr
/// enables it from the top down.
#[test]
fn top_down_constraint_enable() {
    only(&[]);
    let lab = Lab::new();
    let base = Base::with(&["cpu", "pids"]);
    let refused = fs::write(format!("{}/cgroup.subtree_control", Base::PATH), "+memory");
    assert_eq!(refused.expect_err("refused").raw_os_error(), Some(libc::ENOENT));
    let (file, marker) = (lab.path("report"), lab.path("marker"));
    let limits = [
        "--cgroup-root",
        "/base",
        "run",
        "--memory-max",
        "64MiB",
        "--pids",
        "20",
        "--report",
        &file,
    ];
    let run = |more: &[&str]| cgmgr(&[&limits[..], more].concat());
    let done = run(&["--", &payload(), "facts"]).expect(0);
    done.says("cgmgr: warning: ").says("memory_max");
    assert_eq!(done.json()["files"]["pids.max"], "20");
    let told = report(&file);
    assert_eq!(
        entry(&told["receipt"], "memory_max").expect("an entry")["state"],
        "not_enforced"
    );
    assert_eq!(
        entry(&told["receipt"], "pids").expect("an entry")["state"],
        "enforced"
    );
    assert_eq!(given(&format!("{}/workloads.slice", Base::PATH)), "cpu pids");
    run(&["--require-limits", "--", "touch", &marker]).expect(3);
    assert!(!fs::exists(&marker).expect("a look"), "the command ran");
    cgmgr(&["--cgroup-root", "/base", "down"]).expect(0);
    drop(base);

    let role = lab.file("r.role.toml", "[runtime.limits]\nmemory_max = \"64 MiB\"\n");
    cgmgr(&["run", "--role", &role, "--require-limits", "--", "true"]).expect(0);
    assert!(given(MOUNT).contains("memory") && given(&workloads()).contains("memory"));
    drop(lab);
}

/// The kernel: a group cannot take a controller from its children while one of them gives it on.
///
/// Here: a live session needs it, and `down` refuses and takes nothing away; with the session gone it takes the
/// controllers back, leaf before root. What a group of somebody else's still gives on stays.
#[test]
fn top_down_constraint_disable() {
    only(&[]);
    let lab = Lab::new();
    let live = Live::hold("live", &["--memory-max", "64MiB"], 0);
    let before = (given(MOUNT), given(&workloads()));
    assert!(
        before.0.contains("memory") && before.1.contains("memory"),
        "{before:?}"
    );
    let refused = fs::write(format!("{MOUNT}/cgroup.subtree_control"), "-memory");
    assert_eq!(refused.expect_err("refused").raw_os_error(), Some(libc::EBUSY));
    cgmgr(&["down"]).expect(1).says("live");
    assert_eq!((given(MOUNT), given(&workloads())), before);
    let events = read(&format!("{}/memory.max", live.group()));
    assert_eq!(events, (64 << 20).to_string(), "down took a limit away");

    let foreign = format!("{MOUNT}/foreign");
    fs::create_dir(&foreign).expect("a group");
    write(&format!("{foreign}/cgroup.subtree_control"), "+memory");
    live.end().expect(0);
    let down = cgmgr(&["down"]);
    let (left, theirs) = (given(MOUNT), given(&foreign));
    write(&format!("{foreign}/cgroup.subtree_control"), "-memory");
    fs::remove_dir(&foreign).expect("an empty group");
    assert_eq!(
        (left.as_str(), theirs.as_str()),
        ("memory", "memory"),
        "{down:#?}"
    );
    assert!(!fs::exists(workloads()).expect("a look"), "{down:#?}");
    only(&[]);
    drop(lab);
}

/// The kernel: a child of a threaded group is `domain invalid`, and entering it fails with EOPNOTSUPP.
///
/// Here: a base in which somebody has made a threaded group: every session's group would be invalid. cgmgr starts
/// nothing, says why, and leaves nothing; it does not make groups threaded to get by.
#[test]
fn invalid_domain() {
    let lab = Lab::new();
    let base = Base::with(&["cpu", "pids"]);
    fs::create_dir(format!("{}/theirs", Base::PATH)).expect("a group");
    write(&format!("{}/theirs/cgroup.type", Base::PATH), "threaded");
    assert_eq!(read(&format!("{}/cgroup.type", Base::PATH)), "domain threaded");
    let (file, marker) = (lab.path("report"), lab.path("marker"));
    for backend in ["auto", "cgroupfs"] {
        let words = [
            "--cgroup-root",
            "/base",
            "--backend",
            backend,
            "run",
            "--pids",
            "20",
            "--report",
            &file,
            "--",
            "touch",
            &marker,
        ];
        let done = cgmgr(&words).expect(125);
        done.says("threaded").says("help: ");
        assert!(!fs::exists(&marker).expect("a look"), "the command ran");
        assert_eq!(report(&file)["started_command"], json!(false));
        assert_eq!(children(Base::PATH), ["theirs"]);
        assert_eq!(given(Base::PATH), "");
    }
    drop(base);
    drop(lab);
}
