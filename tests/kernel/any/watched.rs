//! What only one who looks on can see: each kind of record comes of what really happened, whatever the daemon lacks, and
//! whenever it is killed.

use std::path::Path;
use std::process::Child;

use serde_json::{Value, json};

use super::records::Records;
use crate::cgmgr::{Live, payload, until};
use crate::lab::{is_systemd, path_of, read, session_groups, workloads, write};

/// A session of these records that runs while the test looks at it.
fn live(records: &Records, name: &str, options: &[&str], words: &[&str]) -> Live {
    let payload = payload();
    let all = [&["run", "--name", name], options, &["--", &payload], words].concat();
    Live::of(name, &mut records.command(&all))
}

/// Records of no session, of this kind.
fn of_machine(records: &Records, event: &str) -> Vec<Value> {
    let done = records.cgmgr(&["events", "--json", "--event", event]).expect(0);
    let all = done
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    all.filter(|record: &Value| record["session"].is_null()).collect()
}

#[test]
fn limits_that_are_reached_are_told_though_nobody_is_killed() {
    let records = Records::new();
    let daemon = records.daemon();
    let mut full = live(
        &records,
        "full",
        &["--memory-max", "24MiB"],
        &["cache", "60", "/var/tmp/cgmgr-full"],
    );
    let mut slow = live(
        &records,
        "slow",
        &["--memory-high", "24MiB"],
        &["cache", "60", "/var/tmp/cgmgr-slow"],
    );
    full.hear("cached ");
    slow.hear("cached ");
    let hit = records.until_recorded("full", "max_hit");
    assert_eq!(hit["limit"], 24 << 20);
    assert!(
        hit["rise"].as_u64() > Some(0) && hit["rise"] == hit["total"],
        "{hit}"
    );
    let throttled = records.until_recorded("slow", "throttled");
    assert_eq!(throttled["limit"], 24 << 20);
    assert!(throttled["current"].as_u64() > Some(0), "{throttled}");
    for live in [full, slow] {
        let name = live.name.clone();
        live.end().expect(0);
        assert_eq!(records.of(&name, "oom_kill").len(), 0);
    }
    let used = &records.of("full", "exited")[0]["usage"];
    assert!(used["memory_max_events"].as_u64() > Some(0), "{used}");
    drop(daemon);
}

#[test]
fn what_stands_still_is_told_and_lifted_or_killed_where_its_role_says_so() {
    let records = Records::new();
    // The slice is made after the daemon has looked for it, where nothing is installed.
    records.cgmgr(&["down", "--kill"]).expect(0);
    let daemon = records.daemon();
    let start = |name: &str, action: &str| {
        let text = format!(
            "[runtime.limits]\nmemory_high = \"20 MiB\"\nmemory_max = \"150 MiB\"\nstall = \"{action}\"\n"
        );
        let role = records.lab.file(&format!("{name}.role.toml"), &text);
        live(&records, name, &["--role", &role], &["hog", "60"])
    };
    let left = start("left", "record");
    let lifted = start("lifted", "lift");
    let killed = start("killed", "kill");
    for (name, action) in [("left", "record"), ("lifted", "lift"), ("killed", "kill")] {
        let stall = records.until_recorded(name, "stalled");
        assert_eq!(
            (&stall["limit"], &stall["action"]),
            (&json!(20 << 20), &json!(action))
        );
        assert!(stall["error"].is_null(), "{stall}");
        assert!(stall["for_usec"].as_u64() >= Some(6_000_000), "{stall}");
    }
    let done = lifted.wait().expect(0);
    assert!(done.out.contains("survived"), "{done:#?}");
    killed.wait().expect(137);
    assert_eq!(records.of("killed", "oom_kill").len(), 0, "it was no OOM kill");
    // All the while tasks have waited for memory below workloads.slice.
    until("pressure is on record", || {
        !of_machine(&records, "pressure").is_empty()
    });
    let pressure = &of_machine(&records, "pressure")[0];
    assert_eq!(
        (&pressure["group"], &pressure["resource"]),
        (&json!("/workloads.slice"), &json!("memory"))
    );
    records.cgmgr(&["kill", "left"]).expect(0);
    left.wait().expect(137);
    // What cgmgr has lifted itself is nobody's drift.
    assert_eq!(records.of("lifted", "drifted").len(), 0);
    drop(daemon);
}

#[test]
fn a_role_that_is_applied_is_on_record_where_it_changed_something() {
    let records = Records::new();
    let role = records
        .lab
        .file("all.role.toml", "[workloads]\nmemory_max = \"80%\"\n");
    records.cgmgr(&["apply", &role]).expect(0);
    let applied = of_machine(&records, "applied");
    assert_eq!(applied.len(), 1);
    assert_eq!(
        (&applied[0]["file"], &applied[0]["role"]),
        (&json!(role), &json!("all"))
    );
    assert!(applied[0]["changes"].as_u64() > Some(0), "{applied:?}");
    assert_eq!(
        applied[0]["ceiling_from"],
        format!("workloads.memory_max in {role}"),
        "{applied:?}"
    );
    records.cgmgr(&["apply", &role]).expect(0);
    assert_eq!(of_machine(&records, "applied").len(), 1, "nothing was changed");
}

#[test]
fn what_somebody_changed_of_a_slice_is_on_record_though_nobody_looked_on_then() {
    let records = Records::new();
    let role = |text: &str| {
        records
            .lab
            .file("slices.role.toml", &format!("[workloads]\n{text}\n"))
    };
    records
        .cgmgr(&["apply", &role("memory_max = \"1GiB\"\npids = 5000")])
        .expect(0);
    let (max, pids) = (
        format!("{}/memory.max", workloads()),
        format!("{}/pids.max", workloads()),
    );
    write(&max, &(900 << 20).to_string());
    let policy = records.lab.file("host.toml", "[events]\ndrift = \"repair\"\n");
    let daemon = records.daemon_where(&format!("export CGMGR_HOST_POLICY={policy}"));
    let drifted = || of_machine(&records, "drifted");
    until("the memory of the slice is on record", || !drifted().is_empty());
    // The slices' files are systemd's to write, where it is there.
    let of_memory = json!({
        "group": "/workloads.slice", "knob": "workloads.memory_max",
        "declared": (1u64 << 30).to_string(), "found": (900u64 << 20).to_string(), "repaired": !is_systemd(),
    });
    let is = |found: &Value, wanted: &Value| {
        let wanted = wanted.as_object().expect("an object");
        wanted.iter().all(|(key, value)| found[key] == *value)
    };
    assert!(is(&drifted()[0], &of_memory), "{:?}", drifted());
    assert_eq!(read(&max) == (1u64 << 30).to_string(), !is_systemd());
    // What cgmgr changes itself is nobody's drift, and what is changed after that is.
    records
        .cgmgr(&["apply", &role("memory_max = \"800MiB\"\npids = 4000")])
        .expect(0);
    write(&pids, "3000");
    until("the tasks of the slice are on record", || drifted().len() > 1);
    let of_pids = json!({
        "group": "/workloads.slice", "knob": "workloads.pids",
        "declared": "4000", "found": "3000", "repaired": !is_systemd(),
    });
    assert_eq!(drifted().len(), 2, "{:?}", drifted());
    assert!(is(&drifted()[1], &of_pids), "{:?}", drifted());
    drop(daemon);
}

#[test]
fn a_limit_that_somebody_changed_is_set_back_where_the_policy_says_so() {
    let records = Records::new();
    let policy = records.lab.file("host.toml", "[events]\ndrift = \"repair\"\n");
    let daemon = records.daemon_where(&format!("export CGMGR_HOST_POLICY={policy}"));
    let mut held = live(&records, "held", &["--pids", "7"], &["hold"]);
    held.hear("ready ");
    let file = format!("{}/pids.max", held.group());
    write(&file, "500");
    let drifted = records.until_recorded("held", "drifted");
    assert_eq!(
        (
            &drifted["knob"],
            &drifted["declared"],
            &drifted["found"],
            &drifted["repaired"]
        ),
        (&json!("pids"), &json!("7"), &json!("500"), &json!(true))
    );
    assert_eq!(read(&file), "7");
    held.end().expect(0);
    assert_eq!(records.of("held", "drifted").len(), 1);
    drop(daemon);
}

#[test]
fn a_limit_that_was_lifted_is_not_set_back_by_the_next_daemon() {
    let records = Records::new();
    let policy = records.lab.file("host.toml", "[events]\ndrift = \"repair\"\n");
    let start = || records.daemon_where(&format!("export CGMGR_HOST_POLICY={policy}"));
    let text =
        "[runtime.limits]\nmemory_high = \"20 MiB\"\nmemory_max = \"150 MiB\"\npids = 9\nstall = \"lift\"\n";
    let role = records.lab.file("lift.role.toml", text);
    let daemon = start();
    let script = format!("{} hog 60; read line; exit 0", payload());
    let words = [
        "run", "--name", "lifted", "--role", &role, "--", "sh", "-c", &script,
    ];
    let mut lifted = Live::of("lifted", &mut records.command(&words));
    records.until_recorded("lifted", "stalled");
    lifted.hear("hog ");
    lifted.hear("survived");
    daemon.kill();
    let daemon = start();
    // Another limit that differs is set back at the look that would set back this one.
    let file = |name: &str| format!("{}/{name}", lifted.group());
    write(&file("pids.max"), "500");
    records.until_recorded("lifted", "drifted");
    assert_eq!(
        (read(&file("pids.max")), read(&file("memory.high"))),
        ("9".into(), "max".into())
    );
    let drifted = records.of("lifted", "drifted");
    assert!(drifted.iter().all(|one| one["knob"] == "pids"), "{drifted:?}");
    lifted.end().expect(0);
    drop(daemon);
}

/// A number below /proc/sys that is another one until this goes.
struct Sysctl(&'static str, String);

impl Sysctl {
    fn set(path: &'static str, value: &str) -> Sysctl {
        let before = read(path);
        write(path, value);
        Sysctl(path, before)
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        write(self.0, &self.1);
    }
}

/// Freezes a session, and waits until that is recorded.
fn is_watched(records: &Records, live: &Live) {
    write(&format!("{}/cgroup.freeze", live.group()), "1");
    records.until_recorded(&live.name, "frozen");
    write(&format!("{}/cgroup.freeze", live.group()), "0");
}

#[test]
fn without_watches_it_looks_again_and_again_and_says_so() {
    let records = Records::new();
    let few = Sysctl::set("/proc/sys/fs/inotify/max_user_instances", "0");
    let daemon = records.daemon();
    until("it says that it looks", || {
        records.said().contains("are looked for once a second")
    });
    assert!(
        records.said().contains("it is looked at twice a second"),
        "{}",
        records.said()
    );
    let mut one = live(&records, "one", &["--pids", "9"], &["hold"]);
    one.hear("ready ");
    is_watched(&records, &one);
    drop(few);
    // Watches of the kernel's files, which epoll has as many of as a user may have.
    let none = Sysctl::set("/proc/sys/fs/epoll/max_user_watches", "0");
    let mut two = live(&records, "two", &["--pids", "9"], &["hold"]);
    two.hear("ready ");
    is_watched(&records, &two);
    until("it says so", || {
        records.said().contains("no more watches are to be had")
    });
    drop(none);
    daemon.kill();
    // Descriptors. Each session takes some, and some have to be left.
    let daemon = records.daemon_where("ulimit -n 40");
    let more: Vec<Live> = (3..12)
        .map(|number| {
            let mut more = live(&records, &format!("more-{number}"), &["--pids", "9"], &["hold"]);
            more.hear("ready ");
            more
        })
        .collect();
    for one in &more {
        is_watched(&records, one);
    }
    for live in more.into_iter().chain([one, two]) {
        live.end().expect(0);
    }
    assert_eq!(
        records.said().matches("no more watches are to be had").count(),
        2,
        "{}",
        records.said()
    );
    drop(daemon);
}

/// A session whose cgmgr is killed as soon as it runs. It goes on once the file `go` is there.
fn orphan(records: &Records, name: &str, then: &str) -> String {
    let go = records.lab.path(&format!("go-{name}"));
    let script = format!("while [ ! -e {go} ]; do sleep 0.1; done; {then}");
    let words = [
        "run",
        "--name",
        name,
        "--memory-max",
        "16MiB",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let mut command = records.command(&words);
    let mut child: Child = command
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a session");
    records.until_recorded(name, "started");
    child.kill().expect("its cgmgr is killed");
    child.wait().expect("it is gone");
    go
}

#[test]
fn what_happened_while_nobody_looked_on_is_told_once() {
    let records = Records::new();
    let go = orphan(&records, "alone", &format!("{} hog 40; sleep 1000", payload()));
    let daemon = records.daemon();
    is_watched_named(&records, "alone");
    daemon.kill();
    write(&go, "");
    let events = format!("{}/memory.events", path_of("alone"));
    until("it was OOM-killed", || read(&events).contains("oom_kill 1"));
    let daemon = records.daemon();
    let kill = records.until_recorded("alone", "oom_kill");
    assert_eq!((&kill["level"], &kill["kills"]), (&json!("session"), &json!(1)));
    daemon.kill();
    let daemon = records.daemon();
    is_watched_named(&records, "alone");
    records.cgmgr(&["kill", "alone"]).expect(0);
    records.until_recorded("alone", "exited");
    assert_eq!(records.of("alone", "oom_kill").len(), 1);
    drop(daemon);
}

fn is_watched_named(records: &Records, name: &str) {
    let before = records.of(name, "frozen").len();
    for (text, count) in [("1", before + 1), ("0", before + 2)] {
        write(&format!("{}/cgroup.freeze", path_of(name)), text);
        until("it is told", || records.of(name, "frozen").len() == count);
    }
}

#[test]
fn a_session_that_nobody_attends_is_put_away_when_it_is_over() {
    let records = Records::new();
    let daemon = records.daemon();
    let go = orphan(&records, "left", "exit 0");
    write(&go, "");
    let exited = records.until_recorded("left", "exited");
    assert!(exited["status"].is_null() && exited["oom"].is_null(), "{exited}");
    until("its group is gone", || session_groups().is_empty());
    assert_eq!(records.of("left", "exited").len(), 1);
    let status = records.cgmgr(&["status", "--json"]).expect(0).json();
    assert!(status["workloads"]["dying_descendants"].is_u64(), "{status:#}");
    drop(daemon);
}

/// How many directories and files a process watches.
fn watches(pid: u32) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a process") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default();
        count += text.lines().filter(|line| line.starts_with("inotify ")).count();
    }
    count
}

#[test]
fn nothing_is_kept_of_sessions_that_are_over() {
    let records = Records::new();
    let daemon = records.daemon();
    // With the first session come the slices.
    let mut first = live(&records, "first", &["--pids", "9"], &["hold"]);
    first.hear("ready ");
    is_watched(&records, &first);
    let before = watches(daemon.pid());
    let mut more: Vec<Live> = ["second", "third"]
        .map(|name| live(&records, name, &["--pids", "9"], &["hold"]))
        .into();
    for one in &mut more {
        one.hear("ready ");
    }
    until("each has a watch of its own", || {
        watches(daemon.pid()) >= before + 2
    });
    more.into_iter().for_each(|one| drop(one.end().expect(0)));
    until("their watches are gone", || watches(daemon.pid()) == before);
    first.end().expect(0);
}

#[test]
fn people_are_told_once_however_often_the_daemon_is_killed_and_not_where_the_role_wants_it_quiet() {
    let records = Records::new();
    let told = records.lab.path("told");
    // It goes on after it has told, as one may that hangs: no later daemon has to wait for that.
    let tell = records
        .lab
        .file("tell", &format!("#!/bin/sh\ncat >> {told}\nsleep 5\n"));
    std::fs::set_permissions(&tell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let policy = records
        .lab
        .file("host.toml", &format!("[events]\non_event = [\"{tell}\"]\n"));
    let start = || records.daemon_where(&format!("export CGMGR_HOST_POLICY={policy}"));
    let names = || -> Vec<String> {
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        let records = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records
            .filter_map(|record| Some(record["session"].as_str()?.to_owned()))
            .collect()
    };
    let text = "[runtime.limits]\nmemory_max = \"16 MiB\"\n[runtime.limits.oom]\nnotify = false\n";
    let quiet = records.lab.file("quiet.role.toml", text);
    // A daemon that is killed before it keeps how far it came has the next one tell of it again.
    let is_kept = || {
        let mark = std::fs::read_to_string(format!("{}/daemon.lock", records.state)).unwrap_or_default();
        let offset = mark.split_whitespace().nth(1).and_then(|text| text.parse().ok());
        let recorded = std::fs::metadata(format!("{}/records.jsonl", records.state)).expect("records");
        offset == Some(recorded.len())
    };
    let hungry = |name: &str| {
        records
            .run(&["--name", name, "--memory-max", "16MiB"], &["hog", "40"])
            .expect(137)
    };
    let daemon = start();
    let mut held = live(&records, "held", &["--pids", "9"], &["hold"]);
    held.hear("ready ");
    is_watched(&records, &held);
    hungry("first");
    until("the operator's program is told", || names() == ["first"]);
    until("that is kept", is_kept);
    daemon.kill();
    // Nobody is there to tell of these.
    records
        .run(&["--name", "quiet", "--role", &quiet], &["hog", "40"])
        .expect(137);
    hungry("second");
    assert_eq!(names(), ["first"]);
    let daemon = start();
    until("it is told by the next one", || names() == ["first", "second"]);
    until("that is kept", is_kept);
    daemon.kill();
    let daemon = start();
    hungry("third");
    until("the third is told", || names().len() == 3);
    assert_eq!(names(), ["first", "second", "third"]);
    held.end().expect(0);
    assert!(Path::new(&records.state).is_dir());
    drop(daemon);
}
