//! What is on record: true of every session, whoever was killed meanwhile.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

use crate::cgmgr::{Done, Live, command, finish, payload, until};
use crate::lab::{Lab, must, path_of, session_groups, write};

/// A store of the test's own.
pub struct Records {
    pub lab: Lab,
    pub state: String,
}

impl Records {
    pub fn new() -> Records {
        let lab = Lab::new();
        let state = lab.path("state");
        Records { lab, state }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = command(words);
        command.env("CGMGR_STATE_DIR", &self.state);
        command
    }

    pub fn cgmgr(&self, words: &[&str]) -> Done {
        finish(&mut self.command(words))
    }

    /// Runs a payload in a session.
    pub fn run(&self, options: &[&str], words: &[&str]) -> Done {
        let payload = payload();
        let words = [&["run"], options, &["--", &payload], words].concat();
        self.cgmgr(&words)
    }

    /// Records of a session, of this kind.
    pub fn of(&self, session: &str, event: &str) -> Vec<Value> {
        let done = self
            .cgmgr(&["events", "--json", "--session", session, "--event", event])
            .expect(0);
        done.out
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// A daemon that watches sessions already; what it says is in a file.
    pub fn daemon(&self) -> Daemon {
        self.daemon_where("")
    }

    /// The same, where the shell has done this before it.
    pub fn daemon_where(&self, script: &str) -> Daemon {
        let said = self.lab.path("daemon.log");
        let log = std::fs::File::options().create(true).append(true).open(&said);
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{script}\nexec \"$0\" daemon"), &must("CGMGR_BIN")])
            .env("CGMGR_STATE_DIR", &self.state)
            .env_remove("CGMGR_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a file"));
        Daemon(command.spawn().expect("a daemon"))
    }

    /// What the daemon said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.lab.path("daemon.log")).unwrap_or_default()
    }

    pub fn until_recorded(&self, session: &str, event: &str) -> Value {
        until(&format!("{event} of {session} is on record"), || {
            !self.of(session, event).is_empty()
        });
        self.of(session, event).remove(0)
    }
}

/// A daemon of the test's own.
pub struct Daemon(Child);

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended by itself, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child")
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_session_is_on_record_from_its_start_to_what_it_used() {
    let records = Records::new();
    let role = records
        .lab
        .file("calm.role.toml", "[runtime.limits]\npids = 100\n");
    records
        .run(&["--role", &role, "--name", "calm"], &["exit", "7"])
        .expect(7);
    let started = records.of("calm", "started");
    let exited = records.of("calm", "exited");
    assert_eq!((started.len(), exited.len()), (1, 1));
    assert_eq!(started[0]["id"], exited[0]["id"]);
    assert_eq!(
        (&exited[0]["status"], &exited[0]["role"]),
        (&json!(7), &json!("calm"))
    );
    assert_eq!(exited[0]["declared"]["limits"]["pids"], "100");
    assert!(
        exited[0]["usage"]["memory_peak"].as_u64() > Some(0),
        "{}",
        exited[0]
    );
    assert!(exited[0]["oom"].is_null());
    let history = records
        .cgmgr(&["history", "--json", "--role", "calm"])
        .expect(0)
        .json();
    assert_eq!(history["sessions"][0], exited[0]);
    let shown = records.cgmgr(&["history"]).expect(0);
    assert!(shown.out.contains("calm (calm): status 7"), "{shown:#?}");
    assert_eq!(session_groups(), [""; 0]);
}

/// A session that nobody is in charge of, its command running.
fn executed(records: &Records, name: &str) -> Child {
    let mut command = records.command(&["run", "--exec", "--name", name, "--", &payload(), "hold"]);
    let session = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let events = format!("{}/cgroup.events", path_of(name));
    until("it runs", || {
        std::fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1"))
    });
    session.expect("a session")
}

#[test]
fn whoever_puts_a_session_away_its_end_is_on_record_once() {
    let records = Records::new();
    let daemon = records.daemon();
    for number in 0..8 {
        let name = format!("alone-{number}");
        let mut session = executed(&records, &name);
        // Both the daemon and this one see that nobody is left.
        records.cgmgr(&["kill", &name]).expect(0);
        session.wait().expect("a child");
        records.until_recorded(&name, "exited");
        until("its group is gone", || session_groups().is_empty());
        assert_eq!(records.of(&name, "exited").len(), 1, "{name}");
    }
    drop(daemon);
}

#[test]
fn down_records_the_end_of_what_nobody_attends() {
    let records = Records::new();
    let mut session = executed(&records, "alone");
    records.cgmgr(&["down", "--kill"]).expect(0);
    session.wait().expect("a child");
    assert_eq!(records.of("alone", "exited").len(), 1);
}

#[test]
fn a_daemon_whose_records_were_taken_away_ends_so_that_another_can_begin() {
    let records = Records::new();
    let mut daemon = records.daemon();
    until("it has begun", || {
        Path::new(&records.state).join("daemon.lock").exists()
    });
    std::fs::remove_dir_all(&records.state).expect("its directory");
    until("it has ended", || daemon.ended().is_some());
    assert_eq!(daemon.ended().and_then(|status| status.code()), Some(1));
    assert!(
        records.said().contains("the records were taken away from "),
        "{}",
        records.said()
    );
}

/// What a command leaves behind, as a shell's words; it goes on as soon as a file is there, and then does this.
fn helper(lab: &Lab, then: &str) -> (String, String) {
    let go = lab.path("go");
    let script = format!("setsid sh -c 'while ! [ -e {go} ]; do sleep 0.1; done; {then}' >/dev/null 2>&1 &");
    (go, script)
}

#[test]
fn what_is_left_behind_is_recorded_when_it_happens_and_not_when_it_is_over() {
    let records = Records::new();
    let role = "[runtime.limits]\nmemory_max = \"48 MiB\"\n[runtime.limits.oom]\ngroup = false\n";
    let role = records.lab.file("one.role.toml", role);
    let end = records.lab.path("end");
    let waits = format!("while ! [ -e {end} ]; do sleep 0.1; done");
    let (go, script) = helper(&records.lab, &format!("{} hog 80; {waits}", payload()));
    let run = |name: &str, script: &str| {
        records.cgmgr(&["run", "--name", name, "--role", &role, "--", "sh", "-c", script])
    };
    run("left", &script).expect(0);
    assert_eq!(records.of("left", "oom_kill").len(), 0);
    write(&go, "");
    let kill = records.until_recorded("left", "oom_kill");
    assert_eq!(
        (&kill["level"], &kill["limit"], &kill["kills"]),
        (&json!("session"), &json!(48 << 20), &json!(1)),
        "{kill}"
    );
    assert_eq!(kill["victims"][0]["comm"], "payload", "{kill}");
    let ends_once = |name: &str, status: u64, file: &str| {
        assert_eq!(records.of(name, "exited").len(), 0, "it lives on");
        write(file, "");
        let exited = records.until_recorded(name, "exited");
        assert_eq!(
            (&exited["status"], &exited["oom"]["kills"]),
            (&json!(status), &json!(1)),
            "{exited}"
        );
        assert_eq!(records.of(name, "oom_kill").len(), 1);
    };
    ends_once("left", 0, &end);

    // The command itself is killed, and a helper of it lives on.
    for file in [&go, &end] {
        std::fs::remove_file(file).expect("a file");
    }
    let (go, script) = helper(&records.lab, ":");
    run("headless", &format!("{script} exec {} hog 80", payload())).expect(137);
    let kills = records.of("headless", "oom_kill");
    assert_eq!(kills.len(), 1, "{kills:?}");
    ends_once("headless", 137, &go);
}

#[test]
fn an_oom_kill_is_told_whole_and_its_name_is_kept_until_it_is_forgotten() {
    let records = Records::new();
    let limits = ["--name", "hungry", "--memory-max", "16MiB"];
    let done = records.run(&limits, &["hog", "40"]).expect(137);
    let hog = done
        .out
        .lines()
        .find_map(|line| line.strip_prefix("hog "))
        .expect("a pid")
        .to_owned();
    let kills = records.of("hungry", "oom_kill");
    let told: u64 = kills
        .iter()
        .map(|kill| kill["kills"].as_u64().expect("a number"))
        .sum();
    assert_eq!(told, 1, "{kills:?}");
    assert_eq!(
        (&kills[0]["level"], &kills[0]["limit"]),
        (&json!("session"), &json!(16 << 20))
    );
    let exited = &records.of("hungry", "exited")[0];
    assert_eq!(exited["oom"]["took_command"], true);
    let list = records.cgmgr(&["oom"]).expect(0);
    assert!(
        list.out.contains("hungry: memory_max 16.0 MiB reached")
            && list.out.contains("; command killed; kept"),
        "{list:#?}"
    );
    let story = records.cgmgr(&["oom", "hungry"]).expect(0).out;
    for part in [
        "hungry was OOM-killed on ",
        "Why: memory_max 16.0 MiB reached.",
        "What to do: Raise --memory-max",
        "How much is enough is not known: try 32.0 MiB, twice as much.",
        "The command itself was killed.",
        "no earlier OOM kill of this name or role is on record",
    ] {
        assert!(story.contains(part), "{part}\n{story}");
    }
    assert!(!story.contains("fewer jobs"), "it was one process\n{story}");
    assert!(
        story.contains(&format!("(pid {hog})")) || story.contains("not known"),
        "{story}"
    );
    records
        .run(&["--name", "hungry"], &["exit", "0"])
        .expect(125)
        .says("session hungry was OOM-killed, and what is known of it is kept");
    records.cgmgr(&["forget", "hungry"]).expect(0);
    records
        .cgmgr(&["forget", "hungry"])
        .expect(1)
        .says("nothing is kept of hungry");
    records.run(&["--name", "hungry"], &["exit", "0"]).expect(0);
    // Forgotten is the name, not what happened.
    records.cgmgr(&["oom", "hungry"]).expect(0);
}

#[test]
fn a_kill_at_the_ceiling_says_who_held_what_and_where_the_ceiling_is() {
    let records = Records::new();
    let ceiling = records
        .lab
        .file("all.role.toml", "[workloads]\nmemory_max = \"200 MiB\"\n");
    let role = records
        .lab
        .file("big.role.toml", "[runtime.limits]\nmemory_max = \"300 MiB\"\n");
    records.cgmgr(&["apply", &ceiling]).expect(0);
    let options = ["--role", &role, "--oom-score-adj"];
    let first = Live::hold("first", &[&options[..], &["0"]].concat(), 100);
    let second = [&options[..], &["1000", "--name", "second"]].concat();
    records.run(&second, &["hog", "140"]).expect(137);
    let exited = &records.of("second", "exited")[0];
    let scene = &exited["oom"]["scene"];
    let held = scene["sessions"].as_array().expect("sessions");
    let of_first = held.iter().find(|held| held["session"] == "first");
    let of_first = of_first.unwrap_or_else(|| panic!("{exited:#}"));
    assert_eq!(of_first["role"], "big");
    assert!(of_first["memory"].as_u64() >= Some(100 << 20), "{exited:#}");
    let story = records.cgmgr(&["oom", "second"]).expect(0).out;
    for part in [
        "first (big) 1",
        "Its own memory_max 300.0 MiB is above that: it can never be reached.",
        &format!("The ceiling is workloads.memory_max in {ceiling}, applied on "),
    ] {
        assert!(story.contains(part), "{part}\n{story}");
    }
    first.end().expect(0);
}

#[test]
fn with_preserve_state_off_nothing_is_kept() {
    let records = Records::new();
    let text = "[runtime.limits]\nmemory_max = \"16 MiB\"\n[runtime.limits.oom]\npreserve_state = false\n";
    let role = records.lab.file("loose.role.toml", text);
    for _ in 0..2 {
        records
            .run(&["--role", &role, "--name", "loose"], &["hog", "40"])
            .expect(137);
    }
    let story = records.cgmgr(&["oom", "loose"]).expect(0).out;
    assert!(story.contains("1 earlier session with OOM kills"), "{story}");
    assert!(story.contains("Raise runtime.limits.memory_max in "), "{story}");
}

#[test]
fn the_end_of_a_session_whose_cgmgr_was_killed_is_recorded_by_the_next() {
    let records = Records::new();
    let words = [
        "run",
        "--name",
        "orphan",
        "--memory-max",
        "64MiB",
        "--",
        "sleep",
        "1000",
    ];
    let mut child = records
        .command(&words)
        .stdout(Stdio::null())
        .spawn()
        .expect("a session");
    let group = path_of("orphan");
    until("it runs", || {
        Path::new(&group).is_dir() && !records.of("orphan", "started").is_empty()
    });
    child.kill().expect("its cgmgr is killed");
    child.wait().expect("it is gone");
    assert_eq!(records.of("orphan", "exited").len(), 0);
    records.cgmgr(&["kill", "orphan"]).expect(0);
    let exited = records.of("orphan", "exited");
    assert_eq!(exited.len(), 1);
    assert!(exited[0]["status"].is_null());
    assert_eq!(exited[0]["declared"]["limits"]["memory_max"], json!("67108864"));
    assert_eq!(exited[0]["id"], records.of("orphan", "started")[0]["id"]);
}

#[test]
fn the_daemon_records_what_counters_prove_however_often_it_is_killed() {
    let records = Records::new();
    let bin = must("CGMGR_BIN");
    // Refused forks are counted by the kernel, one by one.
    let words = ["run", "--name", "few", "--pids", "2", "--", "sleep", "1000"];
    let mut child = records
        .command(&words)
        .stdout(Stdio::null())
        .spawn()
        .expect("a session");
    let group = path_of("few");
    until("it runs", || Path::new(&format!("{group}/pids.events")).exists());
    let refused = |times: u32| {
        for _ in 0..times {
            // A command that enters and forks is one too many.
            let enter = Command::new(&bin)
                .args(["enter", "few", "--", "sh", "-c", "/bin/true; /bin/true"])
                .env("CGMGR_STATE_DIR", &records.state)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status();
            enter.expect("it was started");
        }
    };
    let counted = || -> u64 {
        let text = std::fs::read_to_string(format!("{group}/pids.events")).expect("counters");
        text.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number")
    };
    let daemon = records.daemon();
    refused(2);
    assert!(counted() > 0, "the kernel refused no fork");
    records.until_recorded("few", "pids_hit");
    daemon.kill();
    refused(2);
    let daemon = records.daemon();
    let sum = || -> u64 {
        let all = records.of("few", "pids_hit");
        all.iter()
            .map(|hit| hit["rise"].as_u64().expect("a number"))
            .sum()
    };
    until("what was counted without a daemon is recorded", || {
        sum() == counted()
    });
    write(&format!("{group}/cgroup.freeze"), "1");
    records.until_recorded("few", "frozen");
    write(&format!("{group}/cgroup.freeze"), "0");
    write(&format!("{group}/pids.max"), "50");
    let drifted = records.until_recorded("few", "drifted");
    assert_eq!(
        (&drifted["knob"], &drifted["declared"], &drifted["found"]),
        (&json!("pids"), &json!("2"), &json!("50"))
    );
    records
        .cgmgr(&["daemon"])
        .expect(1)
        .says("another daemon watches these sessions already");
    records.cgmgr(&["kill", "few"]).expect(0);
    child.wait().expect("it has ended");
    drop(daemon);
    assert_eq!(records.of("few", "pids_hit").len(), 2);
}

#[test]
fn the_daemon_tells_of_oom_kills_where_nobody_is_in_charge() {
    let records = Records::new();
    let daemon = records.daemon();
    let (payload, go) = (payload(), records.lab.path("go"));
    let script = format!("while [ ! -e {go} ]; do sleep 0.1; done; {payload} hog 40; sleep 1000");
    let words = [
        "run",
        "--name",
        "alone",
        "--memory-max",
        "16MiB",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let mut child = records
        .command(&words)
        .stdout(Stdio::null())
        .spawn()
        .expect("a session");
    records.until_recorded("alone", "started");
    child.kill().expect("its cgmgr is killed");
    child.wait().expect("it is gone");
    records.lab.file("go", "");
    let kill = records.until_recorded("alone", "oom_kill");
    assert_eq!(
        (&kill["level"], &kill["kills"], &kill["limit"]),
        (&json!("session"), &json!(1), &json!(16 << 20))
    );
    assert_eq!(
        kill["scene"]["processes"].as_array().map(|all| !all.is_empty()),
        Some(true),
        "{kill}"
    );
    records.cgmgr(&["kill", "alone"]).expect(0);
    let exited = records.until_recorded("alone", "exited");
    assert_eq!(exited["oom"]["kills"], 1);
    assert_eq!(records.of("alone", "oom_kill").len(), 1);
    drop(daemon);
}

#[test]
fn a_full_disk_keeps_no_record_out() {
    let records = Records::new();
    let disk = records.lab.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let mount = |words: &[&str]| finish(Command::new("mount").args(words)).expect(0);
    mount(&["-t", "tmpfs", "-o", "size=6m,mode=700", "none", &disk]);
    let records = Records {
        state: format!("{disk}/state"),
        ..records
    };
    records.run(&["--name", "before"], &["exit", "0"]).expect(0);
    let full = finish(Command::new("sh").args(["-c", &format!("cat /dev/zero > {disk}/fill")]));
    full.says("No space left");
    for _ in 0..20 {
        records
            .run(&["--name", "after"], &["exit", "0"])
            .expect(0)
            .says_nothing_of("records");
    }
    assert_eq!(
        (
            records.of("before", "exited").len(),
            records.of("after", "exited").len()
        ),
        (1, 20)
    );
    finish(Command::new("umount").arg(&disk)).expect(0);
}
