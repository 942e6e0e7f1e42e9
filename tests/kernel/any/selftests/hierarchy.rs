//! test_core.c: what is true of the tree.

use std::fs;

use super::status;
use crate::cgmgr::{Live, cgmgr, command, payload, report, run_payload, until};
use crate::lab::{Lab, children, counter, is_systemd, must, path_of, procs, read, sessions, workloads};
use crate::people::coder;

/// The kernel: of A/B/C and A/B/D with a process in C, `populated` is 1 for A, B and C and 0 for D, and flips to 0 for
/// all when that process has gone.
///
/// Here A is a session, whose command goes into C: the session lives although no process is in its own group, `status`
/// counts what is below, and when the process has gone (with cgmgr stopped, so that somebody can look), all are empty;
/// then cgmgr removes the groups, which it did not make.
#[test]
fn populated() {
    let lab = Lab::new();
    let mut live = Live::start("deep", &[], &["deep"]);
    let pid = live.hear("ready ");
    let a = live.group();
    let groups = ["", "/b", "/b/c", "/b/d"].map(|below| format!("{a}{below}"));
    let populated = || {
        groups
            .each_ref()
            .map(|g| counter(&format!("{g}/cgroup.events"), "populated"))
    };
    assert_eq!(populated(), [1, 1, 1, 0]);
    assert!(procs(&a).is_empty() && procs(&groups[1]).is_empty());
    let session = status("deep");
    assert_eq!(
        (&session["state"], &session["pids"]["current"]),
        (&"running".into(), &1.into())
    );
    assert_eq!(counter(&format!("{}/cgroup.events", workloads()), "populated"), 1);

    signal(live.pid(), "STOP");
    signal(pid.parse().expect("a pid"), "KILL");
    until("all of them are empty", || populated() == [0; 4]);
    assert_eq!(status("deep")["state"], "empty");
    if !is_systemd() {
        // On systemd the unit's anchor is in there.
        assert_eq!(counter(&format!("{}/cgroup.events", workloads()), "populated"), 0);
    }
    signal(live.pid(), "CONT");
    live.wait().expect(137).says_nothing_of("OOM");
    assert!(!fs::exists(&a).expect("a look"), "{:?}", children(&a));
    drop(lab);
}

fn signal(pid: i32, name: &str) {
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().expect("a signal");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("a process");
}

/// The kernel: no process can enter a group that has given its children a controller.
///
/// Here: cgmgr's own groups above a session are such groups and have no process in them; and where a session has made
/// its own group one, a `cgmgr run` in it stays where its caller is, and does not fail with EBUSY.
#[test]
fn internal_process_constraint() {
    let lab = Lab::new();
    let live = Live::hold("leaf", &[], 0);
    assert!(!procs(&live.group()).is_empty());
    let above = sessions();
    assert!(!read(&format!("{above}/cgroup.subtree_control")).is_empty());
    assert!(procs(&above).is_empty());
    let refused = fs::write(format!("{above}/cgroup.procs"), std::process::id().to_string());
    assert_eq!(refused.expect_err("refused").raw_os_error(), Some(libc::EBUSY));
    live.end().expect(0);

    let group = path_of("inner");
    let script = format!(
        "mkdir {group}/leaf && echo 0 >{group}/leaf/cgroup.procs && echo +pids >{group}/cgroup.subtree_control || exit 90; \
         (echo 0 >{group}/cgroup.procs) 2>/dev/null && exit 91; exec {} run -- {} facts",
        must("CGMGR_BIN"),
        payload()
    );
    let done = cgmgr(&["run", "--name", "inner", "--", "sh", "-c", &script]).expect(0);
    let own = done.json()["cgroup"].clone();
    assert!(
        own.as_str().is_some_and(|g| g.ends_with("/cgmgr-inner/leaf")),
        "{done:#?}"
    );
    done.says("already inside session inner");
    drop(lab);
}

/// The kernel: a move to another group is judged by who opened its cgroup.procs, not by who writes: a file that was
/// opened without the right to the groups' common ancestor moves nobody, though root writes.
///
/// Here the two groups are those of two sessions, with cgroup.procs given to `coder`. Opened by him it moves nobody out
/// of a session: not a payload of root's that borrowed his identity, and not his own. That root's own opening does move
/// is what `bookkeeping` stands for, and shows that the refusals are for this reason.
#[test]
fn lesser_euid_open() {
    let lab = Lab::new();
    coder();
    let target = Live::hold("target", &[], 0);
    let procs = format!("{}/cgroup.procs", target.group());
    assert_eq!(
        run_payload(&[], &["lesser", "user", &procs]).expect(0).out,
        refusal(libc::EACCES)
    );

    // He owns the file of his session too, as the payload above had made it.
    let file = lab.path("report");
    let mut live = Live::start("his", &["--user", "coder", "--report", &file], &["hold"]);
    let pid = live.hear("ready ");
    let own = format!("{}/cgroup.procs", live.group());
    std::os::unix::fs::chown(&own, Some(1000), Some(1000)).expect("root may");
    let moved = std::process::Command::new("setpriv")
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c"])
        .arg(format!("echo {pid} >{procs}"))
        .output()
        .expect("setpriv");
    assert!(!moved.status.success(), "{moved:?}");
    assert!(read(&own).lines().any(|p| p == pid), "he left: {moved:?}");
    live.end().expect(0);
    assert_eq!(report(&file)["promise"], "boundary");

    let file = lab.path("roots");
    let done = run_payload(&["--report", &file], &["write", &procs, "0"]).expect(0);
    assert_eq!(
        (done.out.as_str(), &report(&file)["promise"]),
        ("done\n", &"bookkeeping".into())
    );
    target.end().expect(0);
}

/// What a payload says that was refused.
fn refusal(errno: i32) -> String {
    format!("errno {errno}\n")
}

/// The kernel: a move is judged by the opener's cgroup namespace too (with `nsdelegate`): what is outside of it does not
/// exist for the file, whoever writes.
///
/// Here a thread of one session's payload has taken its session for the root of its namespace and opened another
/// session's file: not even root leaves through it. Without the namespace root does.
#[test]
fn lesser_ns_open() {
    let _lab = Lab::new();
    let target = Live::hold("target", &[], 0);
    let procs = format!("{}/cgroup.procs", target.group());
    let done = run_payload(&["--name", "boxed"], &["lesser", "namespace", &procs]).expect(0);
    assert_eq!(done.out, refusal(libc::ENOENT));
    let done = crate::cgmgr::finish(&mut command(["run", "--", &payload(), "write", &procs, "0"])).expect(0);
    assert_eq!(done.out, "done\n");
    target.end().expect(0);
}
