//! The library's face without groups: what it does to the program that embeds it, which is nothing.

use cgmgr::workspace::{Command, ErrorKind, Exit, Limits, Role, Session, Stdio, Workspace};
use std::io::{Read, Write};
use std::process::Command as OwnCommand;
use std::time::{Duration, Instant};

fn open() -> (Workspace, Role) {
    let workspace = Workspace::without_groups().expect("it needs nothing");
    let role = workspace.role(&Limits::new().memory_max("32 MiB").nofile("99"));
    (workspace, role.expect("good limits"))
}

/// Other tests, and other programs of this user, have sessions too.
fn name(stem: &str) -> String {
    format!("{stem}-{}", std::process::id())
}

fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it never came to be that {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn tasks(workspace: &Workspace, name: &str) -> Option<u64> {
    let list = workspace.list().expect("a list");
    let own = list.into_iter().find(|session| session.name == name)?;
    own.usage.pids.current
}

#[test]
fn no_child_but_the_command_is_waited_for_or_killed() {
    let (workspace, role) = open();
    let mut living = OwnCommand::new("sleep").arg("1000").spawn().expect("a child");
    let mut zombie = OwnCommand::new("sh")
        .args(["-c", "exit 7"])
        .spawn()
        .expect("a child");
    let stat = format!("/proc/{}/stat", zombie.id());
    until("it has ended", || {
        std::fs::read_to_string(&stat).expect("a zombie").contains(") Z ")
    });
    let start = |name: &str| {
        let session = workspace.session(&role).name(name);
        session.spawn(shell("sleep 1000 & wait")).expect("started")
    };
    let names = [name("one"), name("other")];
    let (mut one, mut other): (Session, Session) = (start(&names[0]), start(&names[1]));
    assert!(
        one.notes()[0].starts_with("memory_max is not enforced"),
        "{:?}",
        one.notes()
    );
    until("both have a child", || {
        names.iter().all(|name| tasks(&workspace, name) == Some(2))
    });
    assert!(one.try_wait().is_none());
    let end = workspace.kill(&names[0]).expect("killed");
    assert_eq!((end.processes, one.wait().exit), (2, Exit::Signal(9)), "{end:?}");
    assert!(other.try_wait().is_none() && living.try_wait().expect("a child").is_none());
    let error = workspace.freeze(&names[1]).expect_err("no group");
    assert!(error.message.contains("it has no group"), "{error}");
    workspace.kill(&names[1]).expect("killed");
    assert_eq!(other.wait().to_string(), "was ended by signal 9");
    assert!(names.iter().all(|name| tasks(&workspace, name).is_none()));
    assert_eq!(zombie.wait().expect("still to be waited for").code(), Some(7));
    living.kill().and_then(|()| living.wait()).expect("a child");
}

#[test]
fn threads_have_sessions_side_by_side() {
    let (workspace, role) = open();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (workspace, role) = (&workspace, &role);
            scope.spawn(move || {
                for round in 0..5 {
                    let status = thread * 10 + round;
                    let script = format!("exit {status}");
                    let mut own = OwnCommand::new("sh")
                        .args(["-c", &script])
                        .spawn()
                        .expect("a child");
                    let mut session = workspace.session(role).spawn(shell(&script)).expect("started");
                    assert_eq!(session.wait().code(), Some(status));
                    assert_eq!(own.wait().expect("a child").code(), Some(status));
                }
            });
        }
    });
}

#[test]
fn a_dropped_session_is_waited_for_by_its_workspace() {
    let (workspace, role) = open();
    let launch = workspace.session(&role).name(name("dropped"));
    let session = launch
        .spawn(shell("read line").stdin(Stdio::piped()))
        .expect("started");
    let process = format!("/proc/{}", session.pid());
    // With it goes its end of the pipe.
    drop(session);
    until("it is put away", || {
        workspace.tend();
        !std::fs::exists(&process).expect("a look")
    });
    assert_eq!(tasks(&workspace, &name("dropped")), None);
}

#[test]
fn a_command_is_what_was_asked_for() {
    let (workspace, role) = open();
    let command = shell("cat; echo $A:$HOME:$CGMGR_SESSION; pwd; ulimit -n; echo errors >&2; exit 4");
    let command = command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("A", "1")
        .current_dir("/");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let launch = workspace.session(&role).name(name("asked"));
    let mut session = launch.spawn(command.stderr(Stdio::piped())).expect("started");
    let mut input = session.stdin.take().expect("a pipe");
    input.write_all(b"said\n").expect("it reads");
    drop(input);
    let (mut out, mut err) = (String::new(), String::new());
    session
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut out)
        .expect("text");
    session
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut err)
        .expect("text");
    assert_eq!(session.wait().code(), Some(4));
    assert_eq!(out, format!("said\n1::{}\n/\n99\n", name("asked")));
    assert_eq!(err, "errors\n");
}

#[test]
fn what_cannot_be_started_is_told_apart() {
    let (workspace, role) = open();
    let launch = |command: Command| workspace.session(&role).spawn(command).expect_err("not started");
    assert_eq!(launch(Command::new("no-such-command")).kind, ErrorKind::NotFound);
    assert_eq!(launch(Command::new("/etc/passwd")).kind, ErrorKind::NotExecutable);
    let error = launch(Command::new("true").current_dir("/no/such/folder"));
    assert!(
        error
            .message
            .contains("cannot run `true` in /no/such/folder: No such file"),
        "{error}"
    );
    let strict = workspace.session(&role).require_limits(true);
    let error = strict.spawn(Command::new("true")).expect_err("memory_max");
    assert_eq!(error.kind, ErrorKind::Unenforceable);
    let error = workspace.session(&role).name("a/b").spawn(Command::new("true"));
    assert_eq!(error.expect_err("no name").kind, ErrorKind::Invalid);
}

#[test]
fn nothing_is_started_under_a_policy_that_cannot_be_read() {
    let (workspace, role) = open();
    let file = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("workspace-host.toml");
    std::fs::write(&file, "[limits]\nnofile = 64\n").expect("a file");
    let workspace = workspace.with_host_policy(&file).expect("a good policy");
    let command = || shell("ulimit -n").stdout(Stdio::piped());
    let mut session = workspace.session(&role).spawn(command()).expect("started");
    let mut out = String::new();
    session
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut out)
        .expect("text");
    assert!(session.wait().success());
    assert_eq!(out, "64\n");
    assert!(
        session.notes()[0].contains("is above the host's 64"),
        "{:?}",
        session.notes()
    );
    // As it is now, not as it was.
    std::fs::write(&file, "[limits]\nnofiles = 5\n").expect("a file");
    let error = workspace
        .session(&role)
        .spawn(command())
        .expect_err("what it forbids is not known");
    assert!(error.to_string().contains("did you mean `nofile`"), "{error}");
    assert!(workspace.with_host_policy("/no/such/file").is_err());
}
