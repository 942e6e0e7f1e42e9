//! Job control on a pseudo-terminal: what a person's keys do to a session.

use crate::cgmgr::{command, payload, until};
use crate::lab::{Lab, must, path_of, procs, read};
use crate::pty::{CTRL_C, CTRL_Z, Pty};

/// The command line of `cgmgr run OPTIONS --`, to be typed.
fn run(options: &str) -> String {
    format!("{} run --quiet {options} --", must("CGMGR_BIN"))
}

/// The pid of a shell that has printed `NAME=PID.`.
fn one_process(session: &str) -> i32 {
    until("the session has a process", || {
        std::fs::exists(path_of(session)).expect("a look") && !procs(&path_of(session)).is_empty()
    });
    procs(&path_of(session))[0]
}

/// The same, once it is the program that was to be run: before that it is cgmgr's child on the way to it.
fn executed(session: &str) -> i32 {
    let pid = one_process(session);
    until("it is the command", || {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm != "cgmgr\n")
    });
    pid
}

/// An interactive shell in the session `inter`, at its prompt.
fn inner_shell() -> Pty {
    let mut pty = Pty::start(&mut command([
        "run",
        "--quiet",
        "--name",
        "inter",
        "--",
        "bash",
        "--norc",
        "--noprofile",
        "-i",
    ]));
    pty.expect("outer> ");
    pty
}

#[test]
fn ctrl_z_in_the_middle_of_a_launch_leaves_no_terminal_hanging() {
    let _lab = Lab::new();
    for _ in 0..20 {
        let mut pty = Pty::shell();
        pty.line(&format!("{} sleep 1000", run("--name soon")));
        // At once: it may be anything between cgmgr's child and the command.
        one_process("soon");
        pty.send(CTRL_Z);
        pty.expect("Stopped");
        pty.expect("outer> ");
        pty.line("kill -KILL %1; kill -CONT %1; exit");
        let done = crate::cgmgr::cgmgr(&["kill", "soon"]);
        assert!([0, 1].contains(&done.status), "{done:#?}");
        drop(pty);
        until("the session is gone", || {
            crate::cgmgr::cgmgr(&["run", "--name", "soon", "--", "true"]).status == 0
        });
    }
}

#[test]
fn ctrl_c_ends_the_foreground_job_and_neither_the_shell_nor_the_session() {
    let _lab = Lab::new();
    let mut pty = inner_shell();
    let shell = one_process("inter");
    pty.line("echo pid $((1+1)) && sleep 1000");
    pty.expect("pid 2");
    // A key that comes between the shell's fork and its exec is the shell's own affair.
    let is_sleep =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n");
    until("the sleep has the terminal", || {
        pty.foreground() != shell && procs(&path_of("inter")).iter().any(is_sleep)
    });
    pty.send(CTRL_C);
    pty.expect("outer> ");
    pty.line("echo status $?-$((40+2))");
    pty.expect("status 130-42");
    assert_eq!(procs(&path_of("inter")), [shell]);
    pty.line("exit 6");
    assert_eq!(pty.wait(), 6);
}

#[test]
fn ctrl_z_stops_a_job_of_the_inner_shell_and_fg_continues_it() {
    let _lab = Lab::new();
    let mut pty = inner_shell();
    pty.line(&format!("{} hold", payload()));
    pty.expect("ready ");
    pty.send(CTRL_Z);
    pty.expect("Stopped");
    pty.expect("outer> ");
    pty.line("fg; echo went-$?-on");
    // Its name is what the shell prints when it goes on.
    pty.expect("hold");
    pty.send("\x04");
    pty.expect("went-0-on");
    pty.line("exit");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn ctrl_z_stops_run_as_a_job_of_the_outer_shell_and_fg_continues_it() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    pty.line(&format!("{} {} hold", run("--name job"), payload()));
    pty.expect("ready ");
    let pid = one_process("job");
    pty.send(CTRL_Z);
    pty.expect("Stopped");
    pty.expect("outer> ");
    let stat = read(&format!("/proc/{pid}/stat"));
    assert!(
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T')),
        "{stat}"
    );
    assert_eq!(
        pty.foreground(),
        pty.child.id() as i32,
        "the outer shell has the terminal"
    );
    pty.line("jobs; echo listed-$((1+1))");
    pty.expect("listed-2");
    pty.line("fg");
    pty.expect("hold");
    until("it runs again", || {
        let stat = read(&format!("/proc/{pid}/stat"));
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('T'))
    });
    pty.send("\x04");
    pty.expect("outer> ");
    pty.line("echo status-$?");
    pty.expect("status-0");
    pty.line("exit");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn bg_and_kill_work_on_a_stopped_run() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    pty.line(&format!("{} sleep 1000", run("--name job")));
    let pid = executed("job");
    pty.send(CTRL_Z);
    pty.expect("Stopped");
    pty.line("bg");
    until("it runs in the background", || {
        let stat = read(&format!("/proc/{pid}/stat"));
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('T'))
    });
    pty.line("kill %1; wait %1; echo status-$?");
    pty.expect("status-143");
    pty.line("exit");
    pty.wait();
}

#[test]
fn ctrl_c_on_a_plain_command_ends_it_with_130() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    pty.line(&format!("{} sleep 1000", run("--name plain")));
    until("run has the terminal", || {
        pty.foreground() != pty.child.id() as i32
    });
    executed("plain");
    pty.send(CTRL_C);
    pty.expect("outer> ");
    pty.line("echo status-$?");
    pty.expect("status-130");
    pty.line("exit");
    pty.wait();
}

#[test]
fn ctrl_c_reaches_the_command_exactly_once() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    pty.line(&format!("{} {} count SIGINT", run(""), payload()));
    pty.expect("counting ");
    pty.send(CTRL_C);
    pty.expect("counted 1\r\n");
    pty.expect("outer> ");
    pty.line("echo status-$?");
    pty.expect("status-9");
    pty.line("exit");
    pty.wait();
}

#[test]
fn ctrl_c_reaches_the_command_once_however_late_its_supervisor_learns_that_it_runs() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    // The first thing that is waited for is the command's execution.
    let late = "strace -o /dev/null -e trace=poll,ppoll -e inject=poll,ppoll:delay_exit=1500000:when=1";
    pty.line(&format!("{late} {} {} count SIGINT", run(""), payload()));
    pty.expect("counting ");
    pty.send(CTRL_C);
    pty.expect("counted 1\r\n");
    pty.expect("outer> ");
    pty.line("exit");
    pty.wait();
}

#[test]
fn the_terminal_comes_back_after_the_inner_shell_was_killed() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    pty.line(&format!("{} bash --norc --noprofile -i", run("--name inter")));
    let inner = one_process("inter");
    until("the inner shell has the terminal", || pty.foreground() == inner);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(inner).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .expect("SIGKILL");
    until("the outer shell has the terminal", || {
        pty.foreground() == pty.child.id() as i32
    });
    pty.line("echo status-$?");
    pty.expect("status-137");
    pty.line(&format!("{} true; echo again-$?", run("")));
    pty.expect("again-0");
    pty.line("exit");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn a_command_killed_by_oom_gives_the_terminal_back() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    let line = run("--name inter --memory-max 32MiB --oom-group");
    pty.line(&format!("{line} bash --norc --noprofile -i"));
    let inner = one_process("inter");
    until("the inner shell has the terminal", || pty.foreground() == inner);
    pty.line(&format!("{} hog 300", payload()));
    pty.expect("was OOM-killed");
    until("the outer shell has the terminal", || {
        pty.foreground() == pty.child.id() as i32
    });
    pty.line("echo status-$?");
    pty.expect("status-137");
    pty.line("exit");
    pty.wait();
}

#[test]
fn a_change_of_the_windows_size_reaches_the_command() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    pty.resize(80, 24);
    pty.line(&format!("{} {} windows", run(""), payload()));
    pty.expect("size 80x24");
    pty.resize(132, 43);
    pty.expect("size 132x43");
    pty.resize(90, 30);
    pty.expect("size 90x30");
    pty.expect("outer> ");
    pty.line("exit");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn a_run_in_the_background_does_not_take_the_terminal() {
    let _lab = Lab::new();
    let mut pty = Pty::shell();
    pty.line(&format!(
        "{} sleep 1000 & echo begun-$((3+4))",
        run("--name back")
    ));
    pty.expect("begun-7");
    one_process("back");
    pty.line("echo mine-$((4+5))");
    pty.expect("mine-9");
    assert_eq!(pty.foreground(), pty.child.id() as i32);
    pty.line("kill %1; wait %1; echo status-$?");
    pty.expect("status-143");
    pty.line("exit");
    pty.wait();
    assert!(!pty.rest().contains("stopped"));
}
