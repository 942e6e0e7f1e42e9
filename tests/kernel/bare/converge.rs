//! What a cgmgr that was killed, or that failed half-way, leaves behind, and how the next one gets over it. strace
//! refuses or kills at a chosen system call.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::campaign::{state, without_controllers};
use crate::cgmgr::{Done, Live, cgmgr, finish, run_shell, until};
use crate::lab::{Lab, MOUNT, children, must, path_of, procs, read, workloads, write};

const ROLE: &str = "[runtime.limits]\nmemory_max = \"64 MiB\"\n[agent]\nmemory_min = \"8 MiB\"\n\
                    [workloads]\nmemory_max = \"400 MiB\"\n";

/// `cgmgr WORDS`, with something injected into one of its system calls.
fn injected(inject: &str, words: &[&str]) -> Done {
    let call = inject.split(':').next().expect("a system call");
    let trace = format!("trace={call}");
    let inject = format!("inject={inject}");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject])
        .arg(must("CGMGR_BIN"))
        .args(words)
        .stdin(Stdio::null());
    finish(&mut command)
}

/// A child that sleeps in a group, ended with the test.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn in_group(group: &str) -> Sleeper {
        let child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        write(&format!("{group}/cgroup.procs"), &child.id().to_string());
        Sleeper(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: i32, signal: &str) {
    finish(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()])).expect(0);
}

#[test]
fn what_another_enabled_after_a_failed_apply_stays() {
    without_controllers();
    let lab = Lab::new();
    let role = lab.file("r.role.toml", ROLE);
    injected("mkdirat:error=ENOSPC:when=2", &["apply", &role]).expect(1);
    let control = format!("{MOUNT}/cgroup.subtree_control");
    write(&control, "+memory");
    cgmgr(&["down"]).expect(0);
    assert_eq!(read(&control), "memory");
    write(&control, "-memory");
    drop(lab);
}

#[test]
fn processes_moved_to_the_leaf_come_back() {
    without_controllers();
    let lab = Lab::new();
    let role = lab.file("r.role.toml", ROLE);
    let base = format!("{MOUNT}/d");
    write(
        &format!("{MOUNT}/cgroup.subtree_control"),
        "+cpu +io +memory +pids",
    );
    fs::create_dir(&base).expect("a group");
    let sleepers: Vec<Sleeper> = (0..4).map(|_| Sleeper::in_group(&base)).collect();
    let all = |group: &str| {
        let mut pids = procs(group);
        pids.sort();
        pids
    };
    let before = (all(&base), state(&base));
    for call in ["mkdirat", "fsetxattr", "pwrite64"] {
        for nth in 1.. {
            let words = ["--cgroup-root", "/d", "apply", &role];
            let done = injected(&format!("{call}:error=EPERM:when={nth}"), &words);
            if done.status == 0 {
                cgmgr(&["--cgroup-root", "/d", "down"]).expect(0);
                break;
            }
            assert_eq!(
                (all(&base), state(&base)),
                before,
                "refused at {call} {nth}: {done:#?}"
            );
            // Killed at the same place, and got over. Values go with the slices, as they do elsewhere.
            if call == "pwrite64" && nth > 3 {
                continue;
            }
            injected(&format!("{call}:signal=KILL:when={nth}"), &words);
            cgmgr(&words).expect(0);
            cgmgr(&["--cgroup-root", "/d", "down"]).expect(0);
            assert_eq!((all(&base), state(&base)), before, "killed at {call} {nth}");
        }
    }
    drop(sleepers);
    until("the group can go", || fs::remove_dir(&base).is_ok());
    without_controllers();
    drop(lab);
}

/// Makes a session whose cgmgr was killed and whose processes have ended, with groups that it had made itself.
fn debris(name: &str) {
    let group = path_of(name);
    let script = format!("mkdir -p {group}/a/b {group}/c; echo ready; exec sleep 1000");
    let mut command = crate::cgmgr::command(["run", "--name", name, "--", "sh", "-c", &script]);
    let mut live = Live::of(name, &mut command);
    live.hear("ready");
    signal(live.pid(), "KILL");
    drop(live);
    write(&format!("{group}/cgroup.kill"), "1");
    until("the session is empty", || {
        read(&format!("{group}/cgroup.events")).contains("populated 0")
    });
    assert_eq!(children(&group), ["a", "c"]);
}

#[test]
fn debris_goes_with_the_groups_that_it_made() {
    let lab = Lab::new();
    let role = lab.file("r.role.toml", ROLE);
    let gone = |name: &str| assert!(fs::metadata(path_of(name)).is_err(), "{name} is left");
    debris("swept");
    run_shell(&["--name", "other"], "true")
        .expect(0)
        .says_nothing_of("cannot");
    gone("swept");
    debris("named");
    run_shell(&["--name", "named"], "true").expect(0);
    gone("named");
    debris("applied");
    cgmgr(&["apply", &role]).expect(0);
    gone("applied");
    debris("downed");
    cgmgr(&["down", "--kill"]).expect(0);
    gone("downed");
    assert!(fs::metadata(workloads()).is_err());
    drop(lab);
}

#[test]
fn a_process_without_its_main_thread_is_killed_too() {
    let lab = Lab::new();
    for how in [&["kill", "dead"][..], &["down", "--kill"]] {
        let mut live = Live::start("dead", &[], &["headless"]);
        live.hear("ready");
        let begun = Instant::now();
        cgmgr(how).expect(0);
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{how:?}: {:?}",
            begun.elapsed()
        );
        live.wait().expect(137);
    }
    drop(lab);
}

#[test]
fn down_kills_beside_a_stopped_supervisor() {
    let lab = Lab::new();
    let live = Live::hold("stopped", &[], 1);
    signal(live.pid(), "STOP");
    cgmgr(&["down", "--kill"])
        .expect(0)
        .says("the cgmgr in charge of it is stopped");
    assert!(fs::metadata(workloads()).is_err());
    signal(live.pid(), "CONT");
    live.wait().expect(137);
    drop(lab);
}

#[test]
fn apply_holds_beside_sessions_that_come_and_go() {
    let lab = Lab::new();
    let one = lab.file("r.role.toml", ROLE);
    let name = "[role]\nname = \"r\"\n";
    fs::write(&one, format!("{name}{ROLE}")).expect("a role");
    let other = lab.file(
        "s.role.toml",
        &format!("{name}{}", ROLE.replace("64 MiB", "63 MiB")),
    );
    cgmgr(&["apply", &one]).expect(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..12 {
                    run_shell(&["-q", "--role", &one], "sleep 0.05").expect(0);
                }
            });
        }
        for _ in 0..8 {
            cgmgr(&["apply", &one]).expect(0);
            cgmgr(&["apply", &other]).expect(0);
        }
    });
    drop(lab);
}
