//! A session's group that somebody else takes away: at a launch nothing is started, later the command goes on and what
//! cannot be known is called so.

use std::fs;
use std::process::{Command, Stdio};

use super::together::clear;
use crate::cgmgr::{Done, Live, cgmgr, finish, report, run_payload, until};
use crate::lab::{Lab, must, path_of, procs, read, write};
use crate::strangers::Elsewhere;

fn signal(pid: i32, signal: &str) {
    finish(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()])).expect(0);
}

#[test]
fn a_group_removed_at_any_moment_of_a_launch_starts_nothing() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let group = path_of("robbed");
    let marked = || rustix::fs::getxattr(group.as_str(), "user.cgmgr.session", &mut [0_u8; 4096]).is_ok();
    let limited = || {
        let max = fs::read_to_string(format!("{group}/memory.max"));
        max.is_ok_and(|text| text.trim_end() == (48 << 20).to_string())
    };
    let there = || fs::exists(&group).expect("a look");
    let moments: [(&str, &dyn Fn() -> bool); 3] =
        [("fsetxattr", &there), ("pwrite64", &marked), ("clone3", &limited)];
    for (call, reached) in moments {
        let (file, marker) = (lab.path("report"), lab.path("marker"));
        let launch = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"])
            .arg(format!("inject={call}:delay_enter=3000000:when=1"))
            .arg(must("CGMGR_BIN"))
            .args([
                "run",
                "--name",
                "robbed",
                "--memory-max",
                "48MiB",
                "--report",
                &file,
                "--",
                "touch",
                &marker,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace");
        until(&format!("{call} is reached"), reached);
        fs::remove_dir(&group).expect("an empty group");
        let output = launch.wait_with_output().expect("a child");
        let done = Done {
            status: crate::cgmgr::shell_status(output.status),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert_eq!(done.status, 125, "at {call}: {done:#?}");
        clear(&done);
        done.says(&group);
        assert!(
            !fs::exists(&marker).expect("a look"),
            "at {call}: the command ran"
        );
        assert_eq!(report(&file)["started_command"], false, "at {call}");
        assert!(!there(), "at {call}: a group is left");
    }
}

#[test]
fn a_live_sessions_group_cannot_be_removed_and_goes_on() {
    let _lab = Lab::new();
    let live = Live::hold("held", &["--memory-max", "64MiB"], 1);
    let error = fs::remove_dir(live.group()).expect_err("the kernel keeps it");
    assert_eq!(error.raw_os_error(), Some(libc_ebusy()));
    live.end().expect(0);
}

/// What a process has used, in clock ticks (proc_pid_stat(5)).
fn cpu_ticks(pid: i32) -> u64 {
    let stat = read(&format!("/proc/{pid}/stat"));
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.map(|field| field.parse::<u64>().expect("a number")).sum()
}

fn libc_ebusy() -> i32 {
    rustix::io::Errno::BUSY.raw_os_error()
}

#[test]
fn a_session_that_was_moved_out_of_its_group_ends_as_its_command_does() {
    let lab = Lab::new();
    // The controllers are cgmgr's to switch off again: it switches them on.
    cgmgr(&["run", "--", "true"]).expect(0);
    let elsewhere = Elsewhere::new("lab-elsewhere");
    let file = lab.path("report");
    let live = Live::hold("moved", &["--memory-max", "64MiB", "--report", &file], 1);
    let leaf = elsewhere.group("leaf");
    for pid in procs(&live.group()) {
        write(&format!("{leaf}/cgroup.procs"), &pid.to_string());
    }
    until("its group can be removed", || {
        fs::remove_dir(live.group()).is_ok()
    });
    // A file of a group that is gone can be read for ever, as poll(2) has it.
    until("who waits for it rests", || {
        let before = cpu_ticks(live.pid());
        std::thread::sleep(std::time::Duration::from_millis(500));
        cpu_ticks(live.pid()) == before
    });
    let done = live.end().expect(0);
    done.says("its group was removed by somebody else");
    assert_eq!(report(&file)["oom"], "unknown");
}

#[test]
fn a_group_removed_before_the_end_is_accounted_for_leaves_the_verdict_unknown() {
    let lab = Lab::new();
    let file = lab.path("report");
    let live = Live::hold("vanished", &["--memory-max", "64MiB", "--report", &file], 1);
    signal(live.pid(), "STOP");
    signal(procs(&live.group())[0], "TERM");
    until("its group can be removed", || {
        fs::remove_dir(live.group()).is_ok()
    });
    let cgmgr = live.pid();
    signal(cgmgr, "CONT");
    let done = live.wait().expect(143);
    done.says("whether it was OOM-killed is not known");
    assert_eq!(report(&file)["oom"], "unknown");
    run_payload(&["--name", "vanished"], &["facts"]).expect(0);
}
