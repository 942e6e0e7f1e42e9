//! Sessions without root, as scopes of the user's own systemd: he asks for them from outside of its tree, as from an ssh
//! login, and from inside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cgmgr::{Done, Live, finish, payload, report, until};
use crate::lab::{Lab, MOUNT, children, must, procs, read};
use crate::people::{UserManager, coder, coders, coders_in_his_scope};

/// The user's systemd. When it goes, nothing of any session may be left with it.
struct His(UserManager);

impl His {
    fn new() -> His {
        let his = His(UserManager::start());
        nothing_is_left();
        his
    }
}

impl Drop for His {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            nothing_is_left();
        }
    }
}

pub fn workloads() -> String {
    format!("{MOUNT}{}/workloads.slice", UserManager::GROUP)
}

/// The scopes of sessions, in the tree and as the manager has them.
fn scopes() -> Vec<String> {
    let mut all = children(&workloads());
    let list = [
        "systemctl",
        "--user",
        "list-units",
        "--all",
        "--plain",
        "--no-legend",
        "cgmgr*",
    ];
    all.extend(finish(&mut coders(list)).expect(0).out.lines().map(str::to_owned));
    all
}

#[track_caller]
fn nothing_is_left() {
    until("no session's scope is there", || scopes().is_empty());
}

/// The directory of the group that a session's processes are in.
#[track_caller]
fn group(session: &str) -> String {
    let found = children(&workloads());
    let begin = format!("cgmgr-{session}-");
    let scope = found.iter().find(|unit| unit.starts_with(&begin));
    let scope = scope.unwrap_or_else(|| panic!("no {session} in {found:?}"));
    format!("{}/{scope}/main", workloads())
}

/// `cgmgr WORDS` of his, from outside of his systemd's tree or from inside.
pub fn command(words: &[&str], inside: bool) -> Command {
    let program = must("CGMGR_BIN");
    let all = [&[program.as_str()], words].concat();
    if inside {
        coders_in_his_scope(&all)
    } else {
        coders(all)
    }
}

pub fn his(words: &[&str]) -> Done {
    finish(&mut command(words, false))
}

/// `cgmgr run OPTIONS -- payload WORDS`.
pub fn run(options: &[&str], words: &[&str]) -> Done {
    let payload = payload();
    his(&[&["run"], options, &["--", &payload], words].concat())
}

/// A session of that name that lives until it is ended; returned once its command runs.
pub fn hold(name: &str, options: &[&str], inside: bool) -> Live {
    let payload = payload();
    let words = [&["run", "--name", name], options, &["--", &payload, "hold"]].concat();
    let mut live = Live::of(name, &mut command(&words, inside));
    live.hear("ready ");
    live
}

/// A file that he may read.
pub fn role(text: &str) -> String {
    let path = "/home/coder/his.role.toml";
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("chmod");
    path.to_owned()
}

pub const REPORT: &str = "/home/coder/report.json";

pub fn states(report: &Value) -> Vec<(String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let entries = report["receipt"].as_array().expect("a receipt");
    entries
        .iter()
        .map(|e| (text(e, "knob"), text(e, "state")))
        .collect()
}

#[test]
fn limits_hold_from_outside_and_from_inside() {
    let _his = His::new();
    let role = role(
        "[runtime.limits]\nmemory_max = \"80 MiB\"\nmemory_high = \"70 MiB\"\npids = 40\ncpus = 0.5\n\
         cpu_weight = 33\nnice = 5\n[runtime.limits.oom]\ngroup = true\n",
    );
    for inside in [false, true] {
        let live = hold("lim", &["--role", &role, "--report", REPORT], inside);
        let main = group("lim");
        let has = |file: &str| read(&format!("{main}/{file}"));
        assert_eq!(has("../memory.max"), (80 << 20).to_string());
        assert_eq!(has("../memory.high"), (70 << 20).to_string());
        assert_eq!(has("../cpu.max"), "50000 100000");
        assert_eq!(has("../cpu.weight"), "33");
        assert_eq!(has("pids.max"), "40");
        assert_eq!(has("memory.oom.group"), "1");
        let inside_it = procs(&main);
        assert_eq!(inside_it.len(), 1);
        let status = read(&format!("/proc/{}/status", inside_it[0]));
        assert!(status.contains("Uid:\t1000\t1000\t1000\t1000"), "{status}");
        let shown = his(&["status", "lim", "--json"]).expect(0).json();
        assert_eq!(shown["sessions"][0]["memory"]["max"], 80 << 20, "{shown:#}");
        assert_eq!(shown["sessions"][0]["pids"]["max"], 40, "{shown:#}");
        live.end().expect(0).says_nothing_of("not enforced");
        let told = report(REPORT);
        assert_eq!(told["backend"], "scope", "{told:#}");
        assert_eq!(told["promise"], "bookkeeping");
        assert_eq!(told["placed_by"], if inside { "clone3" } else { "move" });
        let states = states(&told);
        assert_eq!(states.len(), 8, "{states:?}");
        assert!(states.iter().all(|(_, state)| state == "enforced"), "{states:?}");
        nothing_is_left();
    }
}

#[test]
fn a_command_from_outside_is_in_the_session_from_its_first_instruction_on() {
    let lab = Lab::bare();
    let _his = His::new();
    let program = crate::first_fork::program(&lab);
    for run in 0..5 {
        let done = his(&["run", "--name", "first", "--", &program]).expect(0);
        let seen: Vec<&str> = done.out.lines().collect();
        let begin = format!("0::{}/workloads.slice/cgmgr-first-", UserManager::GROUP);
        let is_in = |line: &&str| line.starts_with(&begin) && line.ends_with(".scope/main");
        assert!(seen.len() == 4 && seen.iter().all(is_in), "run {run}: {done:#?}");
    }
    // What becomes the command itself is in it too, and the scope goes with the command.
    let done = his(&[
        "run",
        "--name",
        "itself",
        "--exec",
        "--",
        "cat",
        "/proc/self/cgroup",
    ])
    .expect(0);
    assert!(
        done.out.contains("/cgmgr-itself-") && done.out.ends_with("/main\n"),
        "{done:#?}"
    );
    // A session inside a session stays in it.
    let program = must("CGMGR_BIN");
    let words = [
        "run",
        "--name",
        "outer",
        "--",
        &program,
        "run",
        "--",
        "cat",
        "/proc/self/cgroup",
    ];
    let done = his(&words).expect(0);
    done.says("already inside session outer");
    assert!(done.out.contains("/cgmgr-outer-"), "{done:#?}");
}

#[test]
fn an_oom_kill_is_told_with_its_victim_or_as_unknown() {
    let _his = His::new();
    let options = ["--memory-max", "32MiB", "--report", REPORT];
    for round in 0..5 {
        let done = run(&options, &["hog", "80"]).expect(137);
        let told = report(REPORT);
        let oom = &told["oom"];
        assert_eq!(oom["level"], "session", "round {round}: {told:#}\n{done:#?}");
        assert_eq!(
            (&oom["kills"], &oom["limit"]),
            (&1.into(), &(32 << 20).into()),
            "{oom}"
        );
        done.says("was OOM-killed: memory_max 32.0 MiB reached");
        let hog = done.out.lines().find_map(|line| line.strip_prefix("hog "));
        let hog: i64 = hog.and_then(|pid| pid.parse().ok()).expect("it says its pid");
        if !oom["victim"].is_null() {
            assert_eq!(oom["victim"]["pid"], hog, "{told:#}");
        }
    }
    run(&options, &["hog", "4"]).expect(0).says_nothing_of("OOM");
    assert!(report(REPORT)["oom"].is_null());
}

#[test]
fn commands_on_a_live_session_from_outside() {
    let _his = His::new();
    let live = hold("live", &["--memory-max", "80MiB", "--pids", "40"], false);
    let main = group("live");
    let has = |file: &str| read(&format!("{main}/{file}"));

    his(&["set", "live", "memory_max=120MiB", "pids=50", "cpus=1.5"]).expect(0);
    assert_eq!(has("../memory.max"), (120 << 20).to_string());
    assert_eq!(
        (has("pids.max"), has("../cpu.max")),
        ("50".into(), "150000 100000".into())
    );

    his(&["freeze", "live"]).expect(0);
    assert!(has("cgroup.events").contains("frozen 1"));
    his(&["thaw", "live"]).expect(0);
    assert!(has("cgroup.events").contains("frozen 0"));

    let payload = payload();
    for inside in [false, true] {
        let mut enter = command(&["enter", "live", "--", &payload, "facts"], inside);
        let facts = finish(&mut enter).expect(0).json();
        assert_eq!(facts["cgroup"], main.trim_start_matches(MOUNT), "{facts:#}");
        assert_eq!(facts["files"]["pids.max"], "50");
    }
    his(&["stop", "live"]).expect(0);
    live.wait().expect(143);
    nothing_is_left();

    let live = hold("live", &[], false);
    his(&["kill", "live"]).expect(0);
    live.wait().expect(137);
    nothing_is_left();

    his(&["run", "--name", "later", "--detach", "--", "sh", "-c", "exit 7"]).expect(0);
    his(&["wait", "later"]).expect(7);
    let live = hold("live", &[], true);
    his(&["down"]).expect(1).says("still running");
    his(&["down", "--kill"]).expect(0);
    live.wait().expect(137);
}

#[test]
fn a_killed_supervisor_leaves_a_session_that_can_be_ended_and_goes_when_it_ends() {
    let _his = His::new();
    for ended_by_itself in [false, true] {
        let mut live = hold("orphan", &["--memory-max", "80MiB"], false);
        let main = group("orphan");
        let left = procs(&main);
        live.cgmgr
            .kill()
            .and_then(|()| live.cgmgr.wait())
            .expect("a child");
        until("its pin has gone", || {
            let pin = main.replace("/main", "/pin");
            !Path::new(&pin).exists() || procs(&pin).is_empty()
        });
        assert_eq!(procs(&main), left);
        assert_eq!(read(&format!("{main}/../memory.max")), (80 << 20).to_string());
        let shown = his(&["status", "--json"]).expect(0).json();
        assert_eq!(shown["sessions"][0]["name"], "orphan", "{shown:#}");
        if ended_by_itself {
            kill(Pid::from_raw(left[0]), Signal::SIGTERM).expect("it lives");
        } else {
            his(&["kill", "orphan"]).expect(0);
        }
        nothing_is_left();
    }
    his(&["run", "--name", "orphan", "--", "true"]).expect(0);
}

#[test]
fn running_processes_are_adopted_from_outside_where_they_are_his() {
    let _his = His::new();
    let mut stray = coders(["sleep", "1000"])
        .stdout(Stdio::null())
        .spawn()
        .expect("sleep");
    let pid = stray.id().to_string();
    his(&["adopt", "--name", "taken", "--memory-max", "64MiB", &pid]).expect(0);
    let main = group("taken");
    assert_eq!(procs(&main), [stray.id() as i32]);
    assert_eq!(read(&format!("{main}/../memory.max")), (64 << 20).to_string());
    his(&["kill", "taken"]).expect(0);
    stray.wait().expect("a child");
    nothing_is_left();

    let mut roots = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let pid = roots.id().to_string();
    let refused = his(&["adopt", "--name", "taken", &pid]).expect(1);
    refused.says("cannot be adopted").says("help: ");
    roots.kill().and_then(|()| roots.wait()).expect("a child");
}

#[test]
fn twenty_at_once_all_run() {
    let _his = His::new();
    let one = |n: usize| {
        let name = format!("many{n}");
        his(&[
            "run",
            "--name",
            &name,
            "--memory-max",
            "64MiB",
            "--",
            "sh",
            "-c",
            "exit 3",
        ])
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..20).map(|n| scope.spawn(move || one(n))).collect();
        for done in all {
            done.join().expect("no panic").expect(3);
        }
    });
}

#[test]
fn what_it_cannot_do_is_said_with_the_remedy() {
    let _his = His::new();
    let role = role(
        "[runtime.limits]\nmemory_max = \"80 MiB\"\nio_weight = 50\n[workloads]\nmemory_max = \"500 MiB\"\n\
         [agent]\nmemory_low = \"32 MiB\"\n",
    );
    let done = his(&["run", "--role", &role, "--report", REPORT, "--", "true"]).expect(0);
    done.says("io controller is not delegated to the user's systemd")
        .says("systemctl edit user@.service")
        .says("not enforced here: agent.memory_low, workloads.memory_max")
        .says("systemctl --user set-property workloads.slice MemoryMax=");
    let told = report(REPORT);
    let state = |knob: &str| states(&told).into_iter().find(|(k, _)| k == knob).map(|(_, s)| s);
    assert_eq!(state("io_weight").as_deref(), Some("not_enforced"), "{told:#}");
    assert_eq!(state("memory_max").as_deref(), Some("enforced"), "{told:#}");
    his(&["run", "--role", &role, "--require-limits", "--", "true"])
        .expect(3)
        .says("io_weight");
    let explained = his(&["explain", &role, "--json"]).expect(0).out;
    assert!(explained.contains("not delegated"), "{explained}");
    his(&["apply", &role])
        .expect(1)
        .says("systemctl --user set-property workloads.slice");
    // What he sets himself, by the remedy that was said, is not missing any more.
    let set = [
        "systemctl",
        "--user",
        "set-property",
        "--runtime",
        "workloads.slice",
        "MemoryMax=500M",
    ];
    let live = hold("there", &[], false);
    finish(&mut coders(set)).expect(0);
    his(&["run", "--role", &role, "--", "true"])
        .expect(0)
        .says("not enforced here: agent.memory_low;");
    live.end().expect(0);

    let found = his(&["doctor", "--json"]).expect(0).json();
    let finding = |id: &str| {
        let all = found["findings"].as_array().expect("findings");
        let one = all.iter().find(|f| f["id"] == id);
        one.unwrap_or_else(|| panic!("no {id} in {found:#}")).clone()
    };
    assert!(
        finding("base")["what"]
            .as_str()
            .is_some_and(|w| w.contains("scopes of the user's systemd"))
    );
    assert_eq!(finding("self_test")["level"], "ok");
    for (id, remedy) in [
        ("controllers_missing", "Delegate="),
        ("user_manager_ends", "enable-linger"),
    ] {
        let fix = finding(id)["fix"].clone();
        assert!(fix.as_str().is_some_and(|fix| fix.contains(remedy)), "{fix}");
    }
    finding("bookkeeping");
}

#[test]
fn inside_a_session_of_the_machines_nothing_is_started_outside_of_it() {
    let lab = Lab::new();
    let _his = His::new();
    let program = must("CGMGR_BIN");
    let mut outer = crate::cgmgr::command(["run", "--name", "outer", "--user", "coder", "--"]);
    outer.args([
        &program,
        "run",
        "--memory-max",
        "64MiB",
        "--",
        "cat",
        "/proc/self/cgroup",
    ]);
    let done = finish(outer.env("XDG_RUNTIME_DIR", "/run/user/1000")).expect(0);
    assert!(done.out.contains("cgmgr-outer"), "{done:#?}");
    assert!(!done.out.contains("user@1000"), "{done:#?}");
    done.says("inside session outer");

    // Outside he sees those of the machine's, and his own.
    let theirs = Live::hold("theirs", &[], 0);
    let own = hold("own", &[], false);
    let shown = his(&["status", "--json"]).expect(0).json();
    let names: Vec<_> = shown["sessions"].as_array().expect("sessions").iter().collect();
    let names: Vec<_> = names
        .iter()
        .map(|s| s["name"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(names, ["own", "theirs"], "{shown:#}");
    his(&["kill", "theirs"]).expect(1);
    theirs.end().expect(0);
    own.end().expect(0);
    drop(lab);
}

#[test]
fn without_a_systemd_of_his_own_the_command_runs_and_the_remedy_is_said() {
    coder();
    let socket = "/run/user/1000/systemd/private";
    until("no other test's manager is there", || !Path::new(socket).exists());
    let done = his(&["run", "--memory-max", "64MiB", "--", "cat", "/proc/self/cgroup"]).expect(0);
    assert!(!done.out.contains("workloads.slice"), "{done:#?}");
    done.says("memory_max is not enforced").says("enable-linger");
    let refused = his(&["run", "--backend", "scope", "--", "true"]);
    assert!(refused.status != 0, "{refused:#?}");
    refused.says("enable-linger");
    let found = finish(&mut command(&["doctor"], false)).expect(1).out;
    assert!(found.contains("enable-linger"), "{found}");
}
