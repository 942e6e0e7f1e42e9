//! Signals to cgmgr reach the command, once, and its end is cgmgr's.

use rustix::process::{Pid, Signal, kill_process};

use crate::cgmgr::{Live, payload, run_command};
use crate::lab::{Lab, read};

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("a signal");
}

#[test]
fn sigterm_is_passed_on_and_the_status_tells_it() {
    let _lab = Lab::new();
    let live = Live::hold("ended", &[], 0);
    send(live.pid(), Signal::TERM);
    live.wait().expect(143);
}

#[test]
fn each_signal_is_passed_on_exactly_once() {
    let _lab = Lab::new();
    for (name, signal) in [
        ("SIGUSR1", Signal::USR1),
        ("SIGHUP", Signal::HUP),
        ("SIGINT", Signal::INT),
        ("SIGUSR2", Signal::USR2),
    ] {
        let mut live = Live::start("counts", &[], &["count", name]);
        live.hear("counting ");
        send(live.pid(), signal);
        let done = live.wait().expect(9);
        assert_eq!(done.out, "counted 1\n", "{name}");
    }
}

#[test]
fn a_command_that_heeds_no_signal_goes_on() {
    let _lab = Lab::new();
    let mut command = run_command(&["--name", "deaf"], &[]);
    command = {
        let mut fresh = crate::cgmgr::command(["run", "--name", "deaf", "--", "sh", "-c"]);
        fresh.arg(format!("trap '' TERM; exec {} hold", payload()));
        drop(command);
        fresh
    };
    let mut live = Live::of("deaf", &mut command);
    live.hear("ready ");
    send(live.pid(), Signal::TERM);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(live.cgmgr.try_wait().expect("a look").is_none(), "it ended");
    live.end().expect(0);
}

#[test]
fn a_stopped_command_is_no_ended_one() {
    let _lab = Lab::new();
    let mut live = Live::start("stopped", &[], &["hold"]);
    let pid: i32 = live.hear("ready ").parse().expect("a pid");
    send(pid, Signal::STOP);
    crate::cgmgr::until("it is stopped", || {
        let stat = read(&format!("/proc/{pid}/stat"));
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(live.cgmgr.try_wait().expect("a look").is_none(), "it ended");
    send(pid, Signal::CONT);
    live.end().expect(0);
}

#[test]
fn cgmgr_reaps_the_orphans_of_its_session() {
    let _lab = Lab::new();
    let script = "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done; exec \"$0\" hold";
    let mut command =
        crate::cgmgr::command(["run", "--name", "reaper", "--", "sh", "-c", script, &payload()]);
    let mut live = Live::of("reaper", &mut command);
    live.hear("ready ");
    let supervisor = live.pid();
    // Five orphans became children of the supervisor; when they have ended only the command is left, and no zombie.
    crate::cgmgr::until("only the command is left", || {
        let children = read(&format!("/proc/{supervisor}/task/{supervisor}/children"));
        children.split_whitespace().count() == 1
    });
    live.end().expect(0);
}
