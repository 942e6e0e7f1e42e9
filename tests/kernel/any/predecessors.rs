//! What jackin' and multicode do while a session runs and when it ends, by the row of the table of their behaviours: kept,
//! or done better where theirs falls short. What their files say is in `dialects.rs` and the native tests.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::cgmgr::{Live, cgmgr, payload, run_command, run_payload, run_shell, shell_status, until};
use crate::lab::{Lab, path_of, procs, read, session_groups, workloads};

fn sessions() -> Vec<Value> {
    let all = cgmgr(&["status", "--json"]).expect(0).json();
    all["sessions"].as_array().expect("a list").clone()
}

#[track_caller]
fn session(name: &str) -> Value {
    let all = sessions();
    let found = all.iter().find(|session| session["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {all:#?}")).clone()
}

/// J20, J21: how it ended is told from the OOM kill, not from the status, and kept for whoever asks later.
#[test]
fn j20_j21_an_oom_kill_of_a_detached_session_is_kept_for_who_asks() {
    let _lab = Lab::new();
    let payload = payload();
    let start = |name: &str, words: &[&str]| {
        let mut all = vec!["run", "--detach", "--name", name, "--memory-max", "16MiB", "--"];
        all.extend(words);
        cgmgr(&all).expect(0);
    };
    start("oom", &[&payload, "hog", "40"]);
    start("killed", &["sh", "-c", "kill -9 $$"]);
    let told = cgmgr(&["wait", "oom"]).expect(137);
    told.says("oom was OOM-killed: memory_max 16.0 MiB reached");
    assert_eq!(session("oom")["state"], "ended");
    let told = cgmgr(&["wait", "--json", "oom"]).expect(137).json();
    assert_eq!(told["status"], 137);
    assert!(told["story"].to_string().contains("OOM-killed"), "{told:#}");
    cgmgr(&["wait", "killed"]).expect(137).says_nothing_of("OOM");
}

/// J23: who comes back to a session that is over is told so, and what to do.
#[test]
fn j23_to_enter_a_session_that_is_over_is_refused_with_what_to_do() {
    let _lab = Lab::new();
    cgmgr(&["run", "--detach", "--name", "over", "--", "true"]).expect(0);
    cgmgr(&["wait", "over"]).expect(0);
    let done = cgmgr(&["enter", "over", "--", "true"]).expect(125);
    done.says("over").says("help: ");
}

/// J28, U11, U20: an OOM kill of a child is told while the command lives on, it does not end the session, and it is counted
/// where people look.
#[test]
fn j28_u11_u20_an_oom_kill_of_a_child_is_told_and_counted_and_ends_nothing_else() {
    let lab = Lab::new();
    let said = lab.path("said");
    let mut run = run_command(
        &["--name", "parent", "--memory-max", "32MiB"],
        &["grandchild", "80"],
    );
    run.stdin(Stdio::piped()).stdout(Stdio::null());
    run.stderr(fs::File::create(&said).expect("a file"));
    let mut run = run.spawn().expect("cgmgr");
    until("the kill is told while the session goes on", || {
        read(&said).contains("OOM-killed: memory_max 32.0 MiB reached")
            && read(&said).contains("the session goes on")
    });
    assert_eq!(session("parent")["oom_kills"], 1);
    let text = cgmgr(&["status"]).expect(0).out;
    assert!(text.contains("1 OOM kill"), "{text}");
    assert_ne!(procs(&path_of("parent")), [0; 0]);
    drop(run.stdin.take());
    assert_eq!(shell_status(run.wait().expect("a child")), 5);
}

/// J30: each limit can be overridden by a flag, down as well as up; the others stay.
#[test]
fn j30_a_flag_goes_over_one_limit_of_the_role() {
    let lab = Lab::new();
    let text = "[runtime.limits]\nmemory_max = \"64 MiB\"\npids = 50\ncpus = 1\nnofile = 300\n";
    let role = lab.file("r.role.toml", text);
    for (flag, file, holds) in [
        ("--memory-max=32MiB", "memory.max", "33554432"),
        ("--memory-max=96MiB", "memory.max", "100663296"),
        ("--memory-high=16MiB", "memory.high", "16777216"),
        ("--cpus=0.5", "cpu.max", "50000 100000"),
        ("--pids=20", "pids.max", "20"),
    ] {
        let facts = run_payload(&["--role", &role, flag], &["facts"]).expect(0).json();
        assert_eq!(facts["files"][file], holds, "{flag}");
        let others = [
            ("memory.max", "67108864"),
            ("pids.max", "50"),
            ("cpu.max", "100000 100000"),
        ];
        for (other, as_in_the_role) in others.into_iter().filter(|(other, _)| *other != file) {
            assert_eq!(facts["files"][other], as_in_the_role, "{flag}");
        }
    }
    let done = run_shell(&["--role", &role, "--nofile=200"], "ulimit -n").expect(0);
    assert_eq!(done.out, "200\n");
}

/// J31, U9: two sessions of one role have a cap each; a further terminal in a session shares its cap.
#[test]
fn j31_u9_sessions_have_a_cap_each_and_terminals_of_one_share_it() {
    let lab = Lab::new();
    let role = lab.file("r.role.toml", "[runtime.limits]\nmemory_max = \"64 MiB\"\n");
    let one = Live::hold("one", &["--role", &role], 40);
    let two = Live::hold("two", &["--role", &role], 40);
    for session in [&one, &two] {
        assert_eq!(read(&format!("{}/memory.max", session.group())), "67108864");
    }
    let payload = payload();
    // Together they are above the cap: had the further one a cap of its own, both would live. Whom the kernel takes is its
    // own affair.
    cgmgr(&["enter", "one", "--", &payload, "hog", "50"]);
    two.end().expect(0).says_nothing_of("OOM");
    one.end().says("OOM-killed: memory_max 64.0 MiB reached");
}

/// U10: there is a cap over all sessions together.
#[test]
fn u10_all_sessions_together_have_a_cap() {
    let lab = Lab::new();
    let role = lab.file(
        "r.role.toml",
        "[runtime.limits]\nmemory_max = \"120 MiB\"\n[workloads]\nmemory_max = \"160 MiB\"\n",
    );
    cgmgr(&["apply", &role]).expect(0);
    assert_eq!(read(&format!("{}/memory.max", workloads())), "167772160");
    let first = Live::hold("first", &["--role", &role], 90);
    let second = run_payload(&["--name", "second", "--role", &role], &["hog", "100"]);
    // Each is within its own cap.
    let first = first.end();
    let told = format!("{}{}", first.err, second.err);
    assert!(
        told.contains("OOM-killed") && told.contains("workloads"),
        "{told}"
    );
}

/// U12, U7: a start that fails is an error with its reason, also of a detached session, and leaves nothing.
#[test]
fn u12_a_start_that_fails_is_told_to_who_started_it() {
    let _lab = Lab::new();
    for words in [
        &["run", "--name", "none", "--", "/nowhere/at-all"][..],
        &["run", "--detach", "--name", "none", "--", "/nowhere/at-all"],
    ] {
        let done = cgmgr(words).expect(127);
        done.says("/nowhere/at-all").says("help: ");
        assert_eq!((done.out.as_str(), session_groups().len()), ("", 0));
    }
    assert_eq!(sessions(), [] as [Value; 0]);
}

/// U13: a session is stopped by its name, whole, with time to end.
#[test]
fn u13_stop_ends_the_whole_tree_and_says_how() {
    let lab = Lab::new();
    let bye = lab.path("bye");
    let script = format!(
        "trap 'echo bye > {bye}; exit 0' TERM; setsid sleep 1000 & echo up; while :; do sleep 0.1; done"
    );
    let mut command = crate::cgmgr::command(["run", "--name", "tree", "--", "sh", "-c", &script]);
    let mut live = Live::of("tree", &mut command);
    live.hear("up");
    cgmgr(&["stop", "tree"]).expect(0);
    assert_eq!(read(&bye), "bye");
    until("nothing of it is left", || session_groups().is_empty());
    live.wait();
}

/// U17, U18: what is over is called so and nothing else is, and no limit is not a number.
#[test]
fn u17_u18_states_are_told_apart_and_no_limit_is_none() {
    let _lab = Lab::new();
    let live = Live::hold("live", &["--memory-max", "64MiB"], 0);
    cgmgr(&["run", "--detach", "--name", "over", "--", "sh", "-c", "exit 3"]).expect(0);
    until("it is over", || session("over")["state"] == "ended");
    let (seen, over) = (session("live"), session("over"));
    assert_eq!((&seen["state"], &over["status"]), (&json!("running"), &json!(3)));
    assert_eq!(seen["memory"]["max"], 64 << 20, "{seen:#}");
    assert!(
        seen["memory"]["high"].is_null() && seen["pids"]["max"].is_null(),
        "{seen:#}"
    );
    live.end().expect(0);
    let gone = cgmgr(&["status", "live"]).expect(1);
    gone.says("there is no session live");
    cgmgr(&["wait", "over"]).expect(3);
}

/// U24: limits that change in the file reach the sessions that run.
#[test]
fn u24_a_changed_role_reaches_its_live_sessions() {
    let lab = Lab::new();
    let with = |max: &str| format!("[runtime.limits]\nmemory_max = \"{max}\"\npids = 50\n");
    let role = lab.file("r.role.toml", &with("64 MiB"));
    let live = Live::hold("live", &["--role", &role], 0);
    let held = || read(&format!("{}/memory.max", path_of("live")));
    assert_eq!(held(), "67108864");
    fs::write(&role, with("96 MiB")).expect("a file");
    cgmgr(&["apply", &role]).expect(0);
    assert_eq!(held(), "100663296");
    live.end().expect(0);
}
