//! The library as a program with children and threads of its own uses it: this very one.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command as OwnCommand};

use cgmgr::workspace::{
    Backend, Cause, Command, ErrorKind, Exit, Limits, Promise, Role, Session, State, Stdio, Workspace,
};

use crate::cgmgr::{cgmgr, finish, payload, until};
use crate::lab::{Lab, counter, is_systemd, must, path_of, procs, read, session_groups};

fn open() -> Workspace {
    let workspace = Workspace::open().expect("a place for sessions");
    assert_eq!(workspace.backend(), Backend::Cgroupfs);
    workspace
}

fn role(workspace: &Workspace, memory_max: &str) -> Role {
    let limits = Limits::new().memory_max(memory_max).pids("50");
    workspace.role(&limits).expect("good limits")
}

fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

fn start(workspace: &Workspace, name: &str, memory_max: &str, command: Command) -> Session {
    let role = role(workspace, memory_max);
    let session = workspace.session(&role).name(name).require_limits(true);
    session.spawn(command).unwrap_or_else(|error| panic!("{error}"))
}

/// A child of this program's own that has ended and that nobody has waited for.
fn zombie(status: &str) -> Child {
    let child = OwnCommand::new("sh")
        .args(["-c", status])
        .spawn()
        .expect("a child");
    let stat = format!("/proc/{}/stat", child.id());
    until("it has ended", || read(&stat).contains(") Z "));
    child
}

#[test]
fn an_oom_kill_is_told_and_no_other_child_is_waited_for() {
    let _lab = Lab::new();
    let mut ended_before = zombie("exit 7");
    let mut living = OwnCommand::new("sleep").arg("1000").spawn().expect("a child");
    let workspace = open();
    let mut session = start(
        &workspace,
        "hungry",
        "16 MiB",
        Command::new(payload()).args(["hog", "40"]).stdout(Stdio::null()),
    );
    assert_eq!(session.group(), Some(path_of("hungry").as_str()));
    assert_eq!(session.receipt().unconfined().count(), 0);
    let ended = session.wait();
    assert_eq!(
        (ended.exit, ended.code(), ended.success()),
        (Exit::Signal(9), None, false)
    );
    assert!(
        ended.was_oom_killed() && !ended.oom_unknown && ended.left.is_empty(),
        "{ended:#?}"
    );
    let oom = ended.oom.as_ref().expect("a verdict");
    assert_eq!(
        (&oom.cause, oom.limit, oom.kills),
        (&Cause::Session, Some(16 << 20), 1),
        "{oom:#?}"
    );
    // Unknown is allowed, wrong is not.
    for victim in &oom.victims {
        assert_eq!(
            (victim.pid.unsigned_abs(), victim.comm.as_str()),
            (session.pid(), "payload")
        );
    }
    let text = ended.to_string();
    assert!(
        text.starts_with("hungry was OOM-killed: memory_max 16.0 MiB reached"),
        "{text}"
    );
    assert!(
        text.contains("Raise its memory_max") && !text.contains("fewer jobs"),
        "{text}"
    );
    assert_eq!(session.wait().to_string(), text, "the second time");
    assert_eq!(session_groups(), [""; 0]);
    assert_eq!(
        ended_before.wait().expect("still to be waited for").code(),
        Some(7)
    );
    assert!(living.try_wait().expect("a child").is_none());
    living.kill().and_then(|()| living.wait()).expect("a child");
}

#[test]
fn what_is_killed_beside_the_command_is_told_at_once() {
    let _lab = Lab::new();
    let workspace = open();
    let script = format!("{} hog 40; read line; exit 5", payload());
    let command = shell(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut session = start(&workspace, "tough", "16 MiB", command);
    let mut input = session.stdin.take();
    let mut told = Vec::new();
    let ended = session.wait_telling(&mut |line| {
        told.push(line.to_owned());
        // Only now may it end.
        drop(input.take());
    });
    assert_eq!(ended.code(), Some(5), "{ended:#?}");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("memory_max 16.0 MiB reached; the session goes on"),
        "{told:?}"
    );
    let oom = ended.oom.as_ref().expect("a verdict");
    assert!(
        !oom.took_command && oom.kills == 1 && !ended.was_oom_killed(),
        "{oom:#?}"
    );
}

#[test]
fn threads_have_sessions_side_by_side() {
    let _lab = Lab::new();
    let workspace = open();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let workspace = &workspace;
            scope.spawn(move || {
                for round in 0..5 {
                    let status = thread * 10 + round;
                    let script = format!("exit {status}");
                    let mut own = OwnCommand::new("sh")
                        .args(["-c", &script])
                        .spawn()
                        .expect("a child");
                    let role = role(workspace, "32 MiB");
                    let session = workspace.session(&role).spawn(shell(&script));
                    let ended = session.unwrap_or_else(|error| panic!("{error}")).wait();
                    assert_eq!((ended.code(), ended.story.len()), (Some(status), 0), "{ended:#?}");
                    assert_eq!(own.wait().expect("a child").code(), Some(status));
                }
            });
        }
    });
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn a_session_is_controlled_while_it_runs() {
    let _lab = Lab::new();
    let workspace = open();
    let mut session = start(&workspace, "dev", "64 MiB", Command::new("sleep").arg("1000"));
    let group = path_of("dev");
    let changed = workspace.set("dev", &[("memory_max", "32 MiB"), ("pids", "default")]);
    let changed = changed.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (changed.before.len(), changed.receipt.unconfined().count()),
        (2, 0),
        "{changed:#?}"
    );
    assert_eq!(counter(&format!("{group}/memory.max"), ""), 32 << 20);
    assert_eq!(read(&format!("{group}/pids.max")), "max");
    let error = workspace
        .set("dev", &[("memory_max", "12 parsecs"), ("memroy_high", "1G")])
        .expect_err("mistakes");
    assert_eq!(
        (error.kind, error.others.len()),
        (ErrorKind::Invalid, 1),
        "{error}"
    );
    let error = workspace
        .set("dev", &[("memory_max", "2 MiB"), ("nofile", "5")])
        .expect_err("not while it runs");
    assert!(error.to_string().contains("nofile cannot be changed"), "{error}");
    assert_eq!(counter(&format!("{group}/memory.max"), ""), 32 << 20);

    let state = || {
        let all = workspace.list().expect("a list");
        let own = all
            .into_iter()
            .find(|one| one.name == "dev")
            .expect("it is listed");
        own.state
    };
    assert_eq!(state(), State::Running);
    assert_eq!(workspace.freeze("dev").expect("frozen").processes, 1);
    assert_eq!(
        (state(), counter(&format!("{group}/cgroup.events"), "frozen")),
        (State::Frozen, 1)
    );
    assert!(session.try_wait().is_none());
    workspace.thaw("dev").expect("thawed");
    assert_eq!(state(), State::Running);
    assert_eq!(workspace.kill("dev").expect("killed").killed, 1);
    let ended = session.wait();
    assert_eq!(
        (ended.exit, ended.oom.is_none()),
        (Exit::Signal(9), true),
        "{ended:#?}"
    );
    assert_eq!(session_groups(), [""; 0]);
    let error = workspace.freeze("dev").expect_err("it is gone");
    assert_eq!(error.message, "there is no session dev");
}

#[test]
fn a_dropped_session_lives_on_and_is_put_away() {
    let _lab = Lab::new();
    let workspace = open();
    let mut left = start(
        &workspace,
        "forgotten",
        "32 MiB",
        Command::new("sleep").arg("1000"),
    );
    let pid = left.pid();
    assert!(left.try_wait().is_none());
    drop(left);
    assert_eq!(procs(&path_of("forgotten")), [pid as i32]);
    let error = workspace
        .session(&role(&workspace, "1 GiB"))
        .name("forgotten")
        .spawn(Command::new("true"));
    assert!(error.expect_err("it lives").message.contains("in use"));
    workspace.kill("forgotten").expect("killed");
    assert_eq!(session_groups(), [""; 0]);
    assert!(
        !fs::exists(format!("/proc/{pid}")).expect("a look"),
        "nobody has waited for it"
    );

    // With the workspace goes the charge: whoever comes next puts away what is over.
    drop(start(
        &workspace,
        "orphan",
        "32 MiB",
        Command::new("sleep").arg("1000"),
    ));
    drop(workspace);
    let status = cgmgr(&["status", "orphan", "--json"]).expect(0).json();
    assert_eq!(status["sessions"][0]["state"], "unattended", "{status:#}");
    cgmgr(&["kill", "orphan"]).expect(0);
    assert_eq!(session_groups(), [""; 0]);

    let workspace = open();
    drop(start(
        &workspace,
        "brief",
        "32 MiB",
        shell("read line").stdin(Stdio::piped()),
    ));
    drop(workspace);
    until("nothing is in it", || procs(&path_of("brief")).is_empty());
    cgmgr(&["run", "--", "true"]).expect(0);
    assert_eq!(session_groups(), [""; 0], "it was not swept");
}

#[test]
fn what_outlives_its_command_is_told_and_stays_limited() {
    let _lab = Lab::new();
    let workspace = open();
    let script = "sleep 1000 >/dev/null 2>&1 & exit 3";
    let mut session = start(&workspace, "server", "32 MiB", shell(script));
    let ended = session.wait();
    assert_eq!((ended.code(), ended.left.len()), (Some(3), 1), "{ended:#?}");
    assert!(ended.to_string().contains("1 process lives on: sleep"), "{ended}");
    assert_eq!(procs(&path_of("server")), [ended.left[0].0]);
    drop(session);
    workspace.kill("server").expect("killed");
    assert_eq!(session_groups(), [""; 0]);

    // What is known of its command is on record when the last one of it has ended by itself.
    let ended = start(&workspace, "helper", "32 MiB", shell("sleep 1 & exit 3")).wait();
    assert_eq!((ended.code(), ended.left.len()), (Some(3), 1), "{ended:#?}");
    until("it is put away", || {
        workspace.tend();
        session_groups().is_empty()
    });
    let words = ["events", "--json", "--session", "helper", "--event", "exited"];
    let exited: serde_json::Value =
        serde_json::from_str(cgmgr(&words).expect(0).out.lines().last().expect("a record")).expect("JSON");
    assert_eq!(exited["status"], 3, "{exited}");

    let role = role(&workspace, "32 MiB");
    let launch = workspace.session(&role).name("tidy").kill_leftover(true);
    let ended = launch.spawn(shell(script)).expect("started").wait();
    assert_eq!((ended.code(), ended.left.len()), (Some(3), 0), "{ended:#?}");
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn the_hosts_policy_caps_what_the_library_starts() {
    let lab = Lab::new();
    let policy = lab.file("host.toml", "[limits]\nmemory_max = \"20 MiB\"\n");
    let workspace = open().with_host_policy(&policy).expect("a good policy");
    let mut session = start(
        &workspace,
        "capped",
        "1 GiB",
        shell("read line").stdin(Stdio::piped()),
    );
    assert_eq!(
        counter(&format!("{}/memory.max", path_of("capped")), ""),
        20 << 20
    );
    assert!(
        session.notes()[0].contains("is above the host's 20 MiB"),
        "{:?}",
        session.notes()
    );
    let changed = workspace.set("capped", &[("memory_max", "30 MiB")]).expect("set");
    assert!(
        changed.before.is_empty() && changed.notes[0].contains("above the host's"),
        "{changed:#?}"
    );
    // As it is now, not as it was.
    fs::write(&policy, "[limits]\nmemroy_max = 5\n").expect("a file");
    let refused = workspace
        .session(&role(&workspace, "16 MiB"))
        .spawn(Command::new("true"));
    let error = refused.expect_err("what the host forbids is not known");
    assert!(error.to_string().contains("did you mean `memory_max`"), "{error}");
    assert_eq!(session_groups().len(), 1);
    assert_eq!(session.wait().code(), Some(1), "its input has ended");
}

#[test]
fn a_command_is_what_was_asked_for() {
    let lab = Lab::new();
    fs::create_dir(lab.path("here")).expect("a folder");
    std::os::unix::fs::chown(lab.path("here"), Some(65534), None).expect("a folder of his");
    let workspace = open();
    let role = role(&workspace, "32 MiB");
    let script = "cat; echo $A:$HOME:$CGMGR_SESSION; pwd; id -u; echo errors >&2; exit 4";
    let command = shell(script).env("A", "1").current_dir(lab.path("here"));
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut session = workspace
        .session(&role)
        .name("asked")
        .user("65534")
        .spawn(command)
        .expect("started");
    assert_eq!(session.promise(), Promise::Boundary);
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
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        (lines[0], lines[3], err.as_str()),
        ("said", "65534", "errors\n"),
        "{out}"
    );
    assert!(
        lines[1].starts_with("1:/") && lines[1].ends_with(":asked"),
        "{out}"
    );
    assert_eq!(
        lines[2],
        fs::canonicalize(lab.path("here"))
            .expect("a path")
            .to_string_lossy()
    );

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
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn the_example_does_what_it_says() {
    let _lab = Lab::new();
    let done = finish(&mut OwnCommand::new(must("CGMGR_EMBED"))).expect(0);
    let has = |line: &str| assert!(done.out.contains(line), "no `{line}`: {done:#?}");
    has("backend: cgroupfs\n");
    has(if is_systemd() {
        "protected in /agent.slice/cgmgr-agent-demo-"
    } else {
        "protected in /agent.slice\n"
    });
    has("hello from worker\n");
    has("worker ended with exit status 3\n");
    has("greedy was OOM-killed: memory_max 48.0 MiB reached");
    has("Raise runtime.limits.memory_max in demo");
    has("idle: memory_max = 33554432: enforced\n");
    has("idle is frozen\n");
    has("idle: 1 killed\n");
    has("idle was ended by signal 9\n");
    has("0 sessions are left\n");
    assert_eq!((done.err.as_str(), session_groups().len()), ("", 0), "{done:#?}");
}
