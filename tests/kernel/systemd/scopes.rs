//! Sessions that are scopes of systemd's: what works on a session works on them, what others do to systemd changes
//! nothing of them, and nothing of them stays.

use std::fs;
use std::process::{Child, Command, Stdio};

use cgmgr::backend::scope::{self, ScopeError};
use cgmgr::kernel::Tree;
use cgmgr::limits::Controller;
use cgmgr::systemd::{Manager, Property, Reason, Systemd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::cgmgr::{cgmgr, finish, payload, report, until};
use crate::escape::{attempts, told_once};
use crate::lab::{MOUNT, children, counter, must, procs, read, workloads};
use crate::people::coder;
use crate::readback::entry;
use crate::scoped::{
    Scopes, contents, file_of, hold, main_of, run, run_shell, scoped, systemctl, top_of, unit_of,
};

const LIMITS: [&str; 13] = [
    "--memory-max",
    "123MiB",
    "--memory-high",
    "100MiB",
    "--pids",
    "77",
    "--cpus",
    "1.2345",
    "--cpu-weight",
    "57",
    "--io-weight",
    "33",
    "--oom-group",
];

fn end_all(group: &str) {
    for pid in procs(group) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// A process that cgmgr did not start. It goes with the test.
struct Stray(Child);

impl Stray {
    fn start(words: &[&str]) -> Stray {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Stray(command.spawn().expect("a child"))
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A scope of somebody's, beside a session's.
struct Neighbour(Child);

impl Neighbour {
    const UNIT: &str = "neighbour.scope";

    fn start() -> Neighbour {
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--scope", "--collect", "--slice=workloads.slice"]);
        command.args(["--unit=neighbour", "sleep", "1000"]);
        let neighbour = Neighbour(command.stdin(Stdio::null()).spawn().expect("systemd-run"));
        let group = format!("{}/{}", workloads(), Neighbour::UNIT);
        until("the neighbour is there", || fs::exists(&group).unwrap_or(false));
        neighbour
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        systemctl(&["stop", Neighbour::UNIT]);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nothing_that_is_done_to_systemd_changes_a_control_file() {
    let scopes = Scopes::new();
    let live = hold("steady", &LIMITS, 1);
    let other = hold("other", &["--memory-max", "50MiB"], 1);
    let neighbour = Neighbour::start();
    let top = top_of("steady");
    let before = contents(&top);
    assert!(before.len() > 20, "{before:#?}");
    let others = unit_of("other");
    for words in [
        ["daemon-reload"].as_slice(),
        &["daemon-reexec"],
        &["restart", "dbus.service"],
        // It does not come back to a bus that was restarted, and without it no user's manager starts.
        &["restart", "systemd-logind.service"],
        &["restart", "systemd-journald.service"],
        &[
            "set-property",
            "--runtime",
            Neighbour::UNIT,
            "MemoryMax=60M",
            "CPUWeight=20",
            "TasksMax=30",
        ],
        &[
            "set-property",
            "--runtime",
            &others,
            "MemoryMax=70M",
            "CPUQuota=30%",
            "TasksMax=50",
        ],
        &["daemon-reload"],
        &[
            "set-property",
            "--runtime",
            Neighbour::UNIT,
            "CPUQuota=33%",
            "IOWeight=20",
        ],
        &["daemon-reexec"],
    ] {
        until("systemd has done it", || systemctl(words).status == 0);
        until("systemd answers", || {
            systemctl(&["is-active", &unit_of("steady")]).out == "active\n"
        });
        assert_eq!(contents(&top), before, "{words:?}");
    }
    drop(neighbour);
    live.end().expect(0);
    other.end().expect(0);
    scopes.nothing_left();
}

#[test]
fn what_an_administrator_set_on_it_is_told_and_left() {
    let scopes = Scopes::new();
    let role = scopes.lab.file(
        "adm.role.toml",
        "version = \"v1\"\n[runtime.limits]\nmemory_max = \"64 MiB\"\ncpu_weight = 50\n",
    );
    let live = hold("adm", &["--role", &role], 5);
    let top = top_of("adm");
    let applied = cgmgr(&["apply", &role]).expect(0);
    assert!(applied.out.contains("nothing changed"), "{applied:#?}");
    let unit = unit_of("adm");
    let set = ["set-property", "--runtime", &unit, "MemoryMax=80M"];
    until("systemd has done it", || systemctl(&set).status == 0);
    cgmgr(&["apply", &role])
        .expect(0)
        .says("memory_max of session adm: MemoryMax of ")
        .says("left as it is");
    assert_eq!(read(&format!("{top}/memory.max")), (80 << 20).to_string());
    cgmgr(&["apply", &role, "--force"]).expect(0);
    assert_eq!(read(&format!("{top}/memory.max")), (64 << 20).to_string());
    assert_eq!(read(&format!("{top}/cpu.weight")), "50");
    live.end().expect(0);
    scopes.nothing_left();
}

#[test]
fn enter_limits_freeze_thaw_and_status_work_on_it() {
    let scopes = Scopes::new();
    let live = hold(
        "door",
        &["--memory-max", "200MiB", "--pids", "40", "--cpus", "1.5"],
        5,
    );
    let main = main_of("door");
    let command = procs(&main)[0];

    // From outside by whichever backend new sessions get.
    for mut enter in [
        scoped(["enter", "door"]),
        crate::cgmgr::command(["enter", "door"]),
    ] {
        let facts = finish(enter.arg("--").arg(payload()).arg("facts"))
            .expect(0)
            .json();
        assert_eq!(facts["cgroup"], main.trim_start_matches(MOUNT));
        assert_eq!(facts["files"]["pids.max"], "40");
        assert_eq!(facts["env"]["CGMGR_SESSION"], "door");
        assert_eq!(facts["nice"], 5);
    }
    // The limits as they are inside, and by its own cgmgr.
    let inside = cgmgr(&["enter", "door", "--", &must("CGMGR_BIN"), "limits", "--json"])
        .expect(0)
        .json();
    let text = inside.to_string();
    for number in ["209715200", "40", "\"door\""] {
        assert!(text.contains(number), "{inside:#}");
    }
    // A session inside a session is the same one.
    let nested = finish(
        scoped(["enter", "door", "--", &must("CGMGR_BIN"), "run", "--", "sh", "-c"])
            .arg("cut -d: -f3 /proc/self/cgroup"),
    )
    .expect(0);
    assert_eq!(nested.out.trim(), main.trim_start_matches(MOUNT), "{nested:#?}");

    let default = |words: &[&str]| crate::cgmgr::command(words);
    let scope = |words: &[&str]| scoped(words);
    for how in [&default as &dyn Fn(&[&str]) -> Command, &scope] {
        let status = finish(&mut how(&["status", "door", "--json"])).expect(0).json();
        let one = &status["sessions"][0];
        assert_eq!(
            (&one["name"], &one["state"]),
            (&json!("door"), &json!("running")),
            "{status:#}"
        );
        assert_eq!(one["memory"]["max"], 200 << 20, "{status:#}");
        assert_eq!(one["pids"]["max"], 40, "{status:#}");
        assert_eq!(one["cpu"]["quota_usec"], 150_000, "{status:#}");
        finish(&mut how(&["freeze", "door"])).expect(0);
        assert_eq!(counter(&format!("{main}/cgroup.events"), "frozen"), 1);
        let frozen = finish(&mut how(&["status", "door", "--json"])).expect(0).json();
        assert_eq!(frozen["sessions"][0]["state"], "frozen");
        finish(&mut how(&["thaw", "door"])).expect(0);
        assert_eq!(counter(&format!("{main}/cgroup.events"), "frozen"), 0);
    }
    assert_eq!(procs(&main), [command]);
    live.end().expect(0).says_nothing_of("warning");
    scopes.nothing_left();
}

#[test]
fn set_is_read_back_and_systemd_remembers_it() {
    let scopes = Scopes::new();
    let live = hold(
        "up",
        &["--memory-max", "200MiB", "--pids", "64", "--cpus", "1.5"],
        5,
    );
    let words = [
        "set",
        "up",
        "memory_max=100MiB",
        "memory_high=90MiB",
        "cpus=1.2345",
        "pids=32",
        "cpu_weight=50",
        "oom_group=true",
        "--json",
    ];
    let told = cgmgr(&words).expect(0).json();
    let quota = read(&file_of("up", "cpu.max"));
    assert!(
        ["124000 100000", "123450 100000"].contains(&quota.as_str()),
        "{quota}"
    );
    let rounded = if quota.starts_with("124") {
        "rounded"
    } else {
        "enforced"
    };
    for (knob, file, value, state) in [
        ("memory_max", "memory.max", "104857600", "enforced"),
        ("memory_high", "memory.high", "94371840", "enforced"),
        ("cpus", "cpu.max", quota.as_str(), rounded),
        ("pids", "pids.max", "32", "enforced"),
        ("cpu_weight", "cpu.weight", "50", "enforced"),
        ("oom_group", "memory.oom.group", "1", "enforced"),
    ] {
        assert_eq!(read(&file_of("up", file)), value, "{told:#}");
        assert_eq!(
            entry(&told["receipt"], knob).expect("an entry")["state"],
            state,
            "{told:#}"
        );
    }
    // Asked again it is nothing new, also where systemd has rounded.
    let again = cgmgr(&["set", "up", "memory_max=100MiB", "oom_group=true", "--json"])
        .expect(0)
        .json();
    assert_eq!(again["changed"], 0, "{again:#}");
    let top = top_of("up");
    let before = contents(&top);
    systemctl(&["daemon-reload"]).expect(0);
    assert_eq!(contents(&top), before);
    live.end().expect(0);
    scopes.nothing_left();
}

/// systemd answers before it writes: who looks at once, on a machine where systemd is not the next to run, must see the
/// new value all the same.
#[test]
fn a_change_is_read_back_when_it_has_been_made_and_not_before() {
    let scopes = Scopes::new();
    let live = hold("up", &["--memory-max", "200MiB"], 1);
    let busy: Vec<Stray> = (0..6)
        .map(|_| Stray::start(&["sh", "-c", "while :; do :; done"]))
        .collect();
    for turn in 0..60 {
        let mib = 120 + turn;
        let (memory, weight) = (format!("memory_max={mib}MiB"), format!("cpu_weight={mib}"));
        let told = cgmgr(&["set", "up", &memory, &weight, "--json"]).expect(0).json();
        for knob in ["memory_max", "cpu_weight"] {
            let entry = entry(&told["receipt"], knob).expect("an entry");
            assert_eq!(entry["state"], "enforced", "{knob} {mib}: {told:#}");
        }
        assert_eq!(read(&file_of("up", "memory.max")), (mib << 20).to_string());
        assert_eq!(read(&file_of("up", "cpu.weight")), mib.to_string());
    }
    drop(busy);
    live.end().expect(0);
    scopes.nothing_left();
}

#[test]
fn stop_and_kill_end_it_and_what_is_left_is_nothing() {
    let scopes = Scopes::new();
    for (how, words) in [("stop", ["stop", "victim"]), ("kill", ["kill", "victim"])] {
        for backend in [crate::cgmgr::command, scoped] {
            let live = hold("victim", &["--memory-max", "100MiB"], 1);
            finish(&mut backend(words)).expect(0);
            let done = live.wait();
            let signal = if how == "stop" { 143 } else { 137 };
            assert_eq!(done.status, signal, "{how}: {done:#?}");
            done.says_nothing_of("OOM");
            scopes.nothing_left();
        }
    }
    // A frozen one ends too.
    let live = hold("victim", &[], 1);
    cgmgr(&["freeze", "victim"]).expect(0);
    cgmgr(&["kill", "victim"]).expect(0);
    live.wait().expect(137);
    scopes.nothing_left();
}

#[test]
fn a_killed_supervisor_leaves_the_session_and_nothing_else() {
    let scopes = Scopes::new();
    let mut live = hold("orphan", &["--memory-max", "100MiB"], 1);
    let (top, unit) = (top_of("orphan"), unit_of("orphan"));
    live.cgmgr.kill().expect("SIGKILL");
    live.cgmgr.wait().expect("a child");
    // The pin has gone with who held it.
    until("the pin is gone", || procs(&format!("{top}/pin")).is_empty());
    assert_eq!(procs(&format!("{top}/main")).len(), 1);
    assert_eq!(systemctl(&["is-active", &unit]).out, "active\n");
    assert_eq!(read(&format!("{top}/memory.max")), (100 << 20).to_string());
    let status = cgmgr(&["status", "orphan", "--json"]).expect(0).json();
    assert_eq!(status["sessions"][0]["state"], "unattended", "{status:#}");
    finish(&mut scoped(["run", "--name", "orphan", "--", "true"]))
        .expect(125)
        .says("in use");
    end_all(&format!("{top}/main"));
    scopes.nothing_left();
    finish(&mut scoped(["run", "--name", "orphan", "--", "true"])).expect(0);
    scopes.nothing_left();
}

#[test]
fn an_orphan_is_killed_like_any_other() {
    let scopes = Scopes::new();
    let mut live = hold("orphan", &[], 1);
    live.cgmgr.kill().expect("SIGKILL");
    live.cgmgr.wait().expect("a child");
    cgmgr(&["kill", "orphan"]).expect(0);
    scopes.nothing_left();
}

#[test]
fn what_its_command_leaves_keeps_it_until_it_ends() {
    let scopes = Scopes::new();
    let (file, pid) = (scopes.lab.path("report"), scopes.lab.path("pid"));
    let script = format!("sleep 1000 >/dev/null 2>&1 & echo $! >{pid}; exit 4");
    let done = run_shell(
        &["--name", "left", "--memory-max", "50MiB", "--report", &file],
        &script,
    )
    .expect(4);
    let pid: i32 = read(&pid).parse().expect("a pid");
    done.says(&format!("sleep (pid {pid})"));
    assert_eq!(report(&file)["left"], json!([{ "pid": pid, "comm": "sleep" }]));
    assert_eq!(procs(&main_of("left")), [pid]);
    assert_eq!(
        procs(&format!("{}/pin", top_of("left"))).len(),
        1,
        "a supervisor has stayed"
    );
    finish(&mut scoped(["run", "--name", "left", "--", "true"]))
        .expect(125)
        .says("in use");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("SIGKILL");
    scopes.nothing_left();
    run_shell(
        &["--name", "left", "--kill-leftover"],
        "sleep 1000 >/dev/null 2>&1 & exit 4",
    )
    .expect(4);
    scopes.nothing_left();
}

#[test]
fn a_detached_one_keeps_its_status_and_an_executed_one_its_limits() {
    let scopes = Scopes::new();
    let go = scopes.lab.path("go");
    let script = format!("while ! [ -e {go} ]; do sleep 0.1; done; exit 9");
    let words = [
        "run",
        "--detach",
        "--name",
        "away",
        "--memory-max",
        "50MiB",
        "--",
        "sh",
        "-c",
        &script,
    ];
    assert_eq!(finish(&mut scoped(words)).expect(0).out, "away\n");
    assert_eq!(read(&file_of("away", "memory.max")), (50 << 20).to_string());
    assert_eq!(procs(&format!("{}/pin", top_of("away"))).len(), 1);
    fs::write(&go, "").expect("a file");
    cgmgr(&["wait", "away"]).expect(9);
    scopes.nothing_left();
    cgmgr(&["wait", "away"]).expect(9);

    // Told whoever waits, by who has stayed.
    let words = [
        "run",
        "--detach",
        "--name",
        "doomed",
        "--memory-max",
        "16MiB",
        "--",
        &payload(),
        "hog",
        "100",
    ];
    finish(&mut scoped(words)).expect(0);
    cgmgr(&["wait", "doomed"])
        .expect(137)
        .says("doomed was OOM-killed: memory_max 16.0 MiB reached");
    scopes.nothing_left();

    // Nobody stays: the command is the process that cgmgr was, and the scope goes with it.
    let options = [
        "--exec",
        "--name",
        "become",
        "--memory-max",
        "50MiB",
        "--pids",
        "20",
    ];
    let done = finish(&mut run(&options, &["facts"])).expect(0).json();
    assert!(
        done["cgroup"]
            .as_str()
            .is_some_and(|g| g.ends_with(".scope/main")),
        "{done:#}"
    );
    assert_eq!(done["files"]["pids.max"], "20");
    assert_eq!(done["fds"].as_array().map(Vec::len), Some(3), "{}", done["fds"]);
    scopes.nothing_left();
    finish(scoped(["run", "--exec", "--name", "become", "--", "/nowhere/at-all"]).arg("x")).expect(127);
    scopes.nothing_left();
}

#[test]
fn a_users_session_cannot_get_out_of_it_and_a_roots_is_bookkeeping() {
    let scopes = Scopes::new();
    coder();
    let file = scopes.lab.path("report");
    let options = [
        "--memory-max",
        "300MiB",
        "--pids",
        "64",
        "--cpus",
        "1.5",
        "--report",
        &file,
    ];
    let his = [&["--user", "coder", "--name", "his"], &options[..]].concat();
    let done = finish(&mut run(&his, &["escape"])).expect(0);
    let got: Vec<_> = attempts(&done).into_iter().filter(|a| a.done).collect();
    assert!(got.is_empty(), "{got:#?}\n{}", told_once(&done));
    assert_eq!(report(&file)["promise"], "boundary");
    scopes.nothing_left();
    finish(&mut run(&options, &["facts"])).expect(0);
    assert_eq!(report(&file)["promise"], "bookkeeping");
    scopes.nothing_left();
}

#[test]
fn a_fork_bomb_meets_the_leafs_limit_and_the_pin_is_not_counted() {
    let scopes = Scopes::new();
    let live = hold("bounds", &["--pids", "30"], 0);
    assert_eq!(read(&file_of("bounds", "pids.max")), "30");
    assert_eq!(read(&format!("{}/pids.max", top_of("bounds"))), "31");
    live.end().expect(0);
    let storm = finish(&mut run(&["--pids", "30"], &["storm"])).expect(0).out;
    // The payload itself is one of the thirty.
    let forked = storm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    assert_eq!(forked, Some(29), "{storm}");
    assert!(storm.contains("errno 11"), "{storm}");
    scopes.nothing_left();
}

#[test]
fn a_kill_of_the_whole_group_spares_the_pin_and_names_the_sessions_own_limit() {
    let scopes = Scopes::new();
    let file = scopes.lab.path("report");
    let options = [
        "--name",
        "flock",
        "--memory-max",
        "24MiB",
        "--oom-group",
        "--report",
        &file,
    ];
    let done = finish(&mut run(&options, &["crowd", "3", "2"])).expect(137);
    done.says("flock was OOM-killed: memory_max 24.0 MiB reached");
    let oom = &report(&file)["oom"];
    assert_eq!(
        (&oom["level"], &oom["limit"]),
        (&json!("session"), &json!(24 << 20)),
        "{oom:#}"
    );
    assert_eq!(
        (&oom["whole_group"], &oom["kills"]),
        (&json!(true), &json!(3)),
        "{oom:#}"
    );
    assert_eq!(oom["took_command"], true, "{oom:#}");
    scopes.nothing_left();

    // The ceiling's is not the session's.
    let role = scopes
        .lab
        .file("c.role.toml", "[workloads]\nmemory_max = \"96 MiB\"\n");
    cgmgr(&["apply", &role]).expect(0);
    let options = [
        "--name",
        "high",
        "--memory-max",
        "300MiB",
        "--oom-score-adj",
        "1000",
        "--report",
        &file,
    ];
    finish(&mut run(&options, &["hog", "200"])).expect(137);
    let oom = &report(&file)["oom"];
    assert_eq!(
        (&oom["level"], &oom["group"]),
        (&json!("ceiling"), &json!("/workloads.slice")),
        "{oom:#}"
    );
    cgmgr(&["down"]).expect(0);
    scopes.nothing_left();
}

#[test]
fn running_processes_are_adopted_into_one() {
    let scopes = Scopes::new();
    let stray = Stray::start(&["sleep", "1000"]);
    let pid = stray.0.id().to_string();
    let words = [
        "adopt",
        &pid,
        "--name",
        "taken",
        "--memory-max",
        "64MiB",
        "--pids",
        "9",
        "--json",
    ];
    let done = finish(&mut scoped(words)).expect(0);
    assert!(done.out.contains("taken"), "{done:#?}");
    assert_eq!(procs(&main_of("taken")), [stray.0.id() as i32]);
    assert_eq!(read(&file_of("taken", "memory.max")), (64 << 20).to_string());
    assert_eq!(read(&file_of("taken", "pids.max")), "9");
    // Somebody has stayed, who holds the scope open until its end has been told.
    assert_eq!(procs(&format!("{}/pin", top_of("taken"))).len(), 1);
    let status = cgmgr(&["status", "taken", "--json"]).expect(0).json();
    assert_eq!(status["sessions"][0]["state"], "running", "{status:#}");
    cgmgr(&["set", "taken", "memory_max=48MiB"]).expect(0);
    assert_eq!(read(&file_of("taken", "memory.max")), (48 << 20).to_string());
    cgmgr(&["kill", "taken"]).expect(0);
    drop(stray);
    scopes.nothing_left();
}

#[test]
fn a_name_in_use_and_a_unit_that_systemd_refuses_leave_nothing() {
    let scopes = Scopes::new();
    let live = hold("taken", &[], 0);
    let before = children(&workloads());
    finish(&mut scoped(["run", "--name", "taken", "--", "true"]))
        .expect(125)
        .says("session name taken is in use");
    // Also for the other kind, which is the same name to a user.
    cgmgr(&["run", "--name", "taken", "--", "true"])
        .expect(125)
        .says("in use");
    assert_eq!(children(&workloads()), before);
    live.end().expect(0);

    let tree = Tree::open(MOUNT).expect("the hierarchy");
    let systemd = Systemd::of(Manager::System);
    let limits = [Controller::Memory, Controller::Pids];
    let usual = |more: &[Property]| {
        let mut all = vec![
            Property::text("Slice", "workloads.slice"),
            Property::switch("Delegate", true),
            Property::text("CollectMode", "inactive-or-failed"),
        ];
        all.extend_from_slice(more);
        all
    };
    let unit = "cgmgr-lab-0000beef.scope";
    let refused = |more: &[Property]| match scope::make(&systemd, &tree, unit, &usual(more), &limits) {
        Err(ScopeError::Systemd(error)) => error,
        other => panic!("{other:?}"),
    };
    let error = refused(&[Property::number("NoSuchThing", 1)]);
    assert_eq!(error.reason, Reason::Property, "{error}");
    let error = refused(&[Property::text("MemoryMax", "much")]);
    assert!(
        error.message.contains(unit) && !error.help.is_empty(),
        "{error:?}"
    );
    scopes.nothing_left();

    let made = scope::make(&systemd, &tree, unit, &usual(&[]), &limits).expect("a scope");
    let error = refused(&[]);
    assert_eq!(error.reason, Reason::UnitExists, "{error}");
    // The one that has the name has none of it.
    assert_eq!(procs(&format!("{}/{unit}/pin", workloads())).len(), 1);
    drop(made);
    scopes.nothing_left();
}
