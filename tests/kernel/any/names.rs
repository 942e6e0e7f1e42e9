//! Session names: what is taken, what is refused, and what comes of a name that is in use.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::cgmgr::{Live, cgmgr, command, finish, report, run_payload};
use crate::lab::{Lab, children, path_of, procs, sessions};

#[test]
fn a_name_is_the_groups_name() {
    let lab = Lab::new();
    let live = Live::hold("my-name.2:x_y", &[], 0);
    assert_eq!(procs(&live.group()).len(), 1);
    live.end().expect(0);
    assert!(!std::path::Path::new(&path_of("my-name.2:x_y")).exists());
    drop(lab);
}

#[test]
fn names_that_could_leave_the_place_of_sessions_are_refused() {
    let lab = Lab::new();
    // Whatever was made would be seen: neither the sessions' group nor its parents may get a child.
    run_payload(&[], &["facts"]).expect(0);
    let before = (
        children(&sessions()),
        children(&crate::lab::workloads()),
        children("/sys/fs/cgroup"),
    );
    let long = "x".repeat(300);
    let marker = lab.path("marker");
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/",
        "a\nb",
        "a b",
        "\u{e9}",
        "a\x1b[31m",
        &long,
    ] {
        let option = format!("--name={name}");
        let done = cgmgr(&["run", &option, "--", "touch", &marker]).expect(125);
        done.says("help: ").says_nothing_of("\x1b");
        assert!(!std::path::Path::new(&marker).exists(), "{name:?} ran");
    }
    let not_utf8 = OsStr::from_bytes(b"--name=a\xff");
    let mut command = command(["run"]);
    command.arg(not_utf8).args(["--", "touch", &marker]);
    finish(&mut command).expect(125).says("not UTF-8");
    assert!(!std::path::Path::new(&marker).exists());
    let after = (
        children(&sessions()),
        children(&crate::lab::workloads()),
        children("/sys/fs/cgroup"),
    );
    assert_eq!(before, after);
}

#[test]
fn a_name_in_use_is_refused_and_the_session_undisturbed() {
    let lab = Lab::new();
    let live = Live::hold("one", &["--memory-max", "99MiB"], 0);
    let marker = lab.path("marker");
    let done = cgmgr(&[
        "run",
        "--name",
        "one",
        "--memory-max",
        "55MiB",
        "--",
        "touch",
        &marker,
    ]);
    done.expect(125).says("one").says("in use").says("help: ");
    assert!(!std::path::Path::new(&marker).exists());
    assert_eq!(
        crate::lab::read(&format!("{}/memory.max", live.group())),
        (99 << 20).to_string()
    );
    live.end().expect(0);
    run_payload(&["--name", "one"], &["facts"]).expect(0);
}

#[test]
fn without_a_name_there_is_one_after_the_role_or_the_command() {
    let lab = Lab::new();
    let file = lab.path("report");
    let role = lab.file("builder.role.toml", "[runtime.limits]\npids = 100\n");
    run_payload(&["--role", &role, "--report", &file], &["facts"]).expect(0);
    let first = report(&file)["session"].as_str().expect("a name").to_owned();
    assert!(first.starts_with("builder-"), "{first}");
    assert_eq!(report(&file)["role"], "builder");
    cgmgr(&["run", "--report", &file, "--", "/bin/true"]).expect(0);
    let second = report(&file)["session"].as_str().expect("a name").to_owned();
    assert!(second.starts_with("true-"), "{second}");
}

#[test]
fn sessions_at_once_get_names_of_their_own() {
    let lab = Lab::new();
    let role = lab.file("many.role.toml", "[runtime.limits]\npids = 100\n");
    let names: Vec<String> = std::thread::scope(|scope| {
        let run = |number: usize| {
            let (file, role) = (lab.path(&format!("report-{number}")), &role);
            scope.spawn(move || {
                run_payload(&["--role", role, "--report", &file], &["facts"]).expect(0);
                report(&file)["session"].as_str().expect("a name").to_owned()
            })
        };
        let threads: Vec<_> = (0..8).map(run).collect();
        threads.into_iter().map(|t| t.join().expect("a run")).collect()
    });
    assert_eq!(names.len(), 8);
    assert!(names.iter().all(|name| name.starts_with("many-")), "{names:?}");
}

#[test]
fn a_killed_cgmgrs_session_keeps_its_name_until_it_is_empty() {
    let lab = Lab::new();
    let mut live = Live::hold("orphan", &[], 0);
    let pid = procs(&live.group())[0];
    live.cgmgr.kill().expect("SIGKILL");
    let _ = live.cgmgr.wait();
    let used = cgmgr(&["run", "--name", "orphan", "--", "true"]).expect(125);
    used.says("in use");
    assert_eq!(procs(&path_of("orphan")), [pid], "the session itself goes on");
    drop(live);
    crate::cgmgr::until("the orphan's group is empty", || {
        procs(&path_of("orphan")).is_empty()
    });
    // What is left of it is debris of ours: the name is free again.
    cgmgr(&["run", "--name", "orphan", "--", "true"]).expect(0);
    drop(lab);
}

#[test]
fn a_name_whose_lock_is_only_looked_at_is_free() {
    let lab = Lab::new();
    let live = Live::hold("one", &[], 0);
    let mut locks = crate::campaign::runtime_files();
    locks.retain(|file| file.ends_with("/one.lock"));
    let lock = locks[0].replace("/one.lock", "/two.lock");
    // As a sweep does it that is held up for a while.
    let held = std::fs::File::create(&lock).expect("a lock file");
    held.lock().expect("nobody else has it");
    let launch = std::thread::spawn(|| run_payload(&["--name", "two"], &["facts"]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(held);
    launch.join().expect("no panic").expect(0);
    // Who really is in charge keeps the name.
    run_payload(&["--name", "one"], &["facts"])
        .expect(125)
        .says("session name one is in use");
    live.end().expect(0);
    drop(lab);
}
