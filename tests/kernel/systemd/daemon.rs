//! cgmgr's daemon as systemd runs it: where it is, what it may, that its end costs no session anything, and that people are
//! told of an OOM kill.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::install::{all, property};
use crate::cgmgr::{Live, cgmgr, finish, payload, until};
use crate::lab::{Lab, MOUNT, procs, read, write};
use crate::people;

const UNIT: &str = "cgmgr.service";
const POLICY: &str = "/etc/cgmgr/host.toml";

/// A machine with everything installed, and without it when this goes.
struct Installed {
    before: std::collections::BTreeMap<String, String>,
    lab: Lab,
}

impl Installed {
    fn new() -> Installed {
        cgmgr(&["down", "--kill"]);
        cgmgr(&["uninstall"]).expect(0);
        let before = all("/etc/systemd");
        let lab = Lab::bare();
        let done = cgmgr(&["install"]).expect(0);
        assert!(done.out.contains("cgmgr.service: started\n"), "{done:#?}");
        Installed { before, lab }
    }

    fn end(self) {
        let _ = fs::remove_file(POLICY);
        let gone = cgmgr(&["uninstall"]).expect(0);
        assert!(
            gone.out.contains("removed /etc/systemd/system/cgmgr.service\n"),
            "{gone:#?}"
        );
        assert_eq!(all("/etc/systemd"), self.before);
        assert!(!Path::new(&format!("{MOUNT}/agent.slice/{UNIT}")).exists());
        assert!(!Path::new("/usr/local/lib/systemd/catalog/cgmgr.catalog").exists());
    }
}

fn systemctl(words: &[&str]) {
    finish(Command::new("systemctl").args(words)).expect(0);
}

fn main_pid() -> String {
    property(UNIT, "MainPID")
}

fn is_active() -> bool {
    property(UNIT, "ActiveState") == "active"
}

#[test]
fn it_is_protected_and_may_do_no_more_than_it_must() {
    let installed = Installed::new();
    assert!(is_active());
    assert_eq!(property(UNIT, "ControlGroup"), format!("/agent.slice/{UNIT}"));
    assert_eq!(property(UNIT, "WatchdogUSec"), "30s");
    assert_eq!(property(UNIT, "WantedBy"), "multi-user.target");
    let pid = main_pid();
    assert!(procs(&format!("{MOUNT}/agent.slice/{UNIT}")).contains(&pid.parse().expect("a pid")));
    assert_eq!(read(&format!("/proc/{pid}/oom_score_adj")), "-900");
    let exposure =
        finish(Command::new("systemd-analyze").args(["security", "--no-pager", "--threshold=30", UNIT]));
    assert_eq!(exposure.status, 0, "{exposure:#?}");
    let again = cgmgr(&["install"]).expect(0);
    assert!(
        again.out.contains("cgmgr.service: it was running already\n"),
        "{again:#?}"
    );
    assert_eq!(main_pid(), pid);
    // Without it there is everything else.
    installed.end();
    let without = cgmgr(&["install", "--no-daemon"]).expect(0);
    assert!(!without.out.contains("cgmgr.service"), "{without:#?}");
    cgmgr(&["uninstall"]).expect(0);
}

#[test]
fn its_end_ends_no_session_and_it_comes_back() {
    let installed = Installed::new();
    let live = Live::hold("kept", &["--memory-max", "64MiB"], 0);
    let before = (
        procs(&live.group()),
        read(&format!("{}/memory.max", live.group())),
    );
    let directory = |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect(path));
    let kept = ["/run/cgmgr", "/var/lib/cgmgr"].map(directory);
    let comes_back = |why: &str, end: &dyn Fn(&str)| {
        let pid = main_pid();
        end(&pid);
        until(why, || {
            is_active() && !["0", pid.as_str()].contains(&main_pid().as_str())
        });
        let after = (
            procs(&live.group()),
            read(&format!("{}/memory.max", live.group())),
        );
        assert_eq!(after, before, "{why}");
        assert_eq!(["/run/cgmgr", "/var/lib/cgmgr"].map(directory), kept, "{why}");
    };
    comes_back("it is there after a restart", &|_| systemctl(&["restart", UNIT]));
    comes_back("it is there after it was killed", &|pid| {
        finish(Command::new("kill").args(["-KILL", pid])).expect(0);
    });
    // A daemon that hangs, with the time shortened that systemd gives it.
    let drop_in = format!("/run/systemd/system/{UNIT}.d");
    fs::create_dir_all(&drop_in).expect("a folder");
    write(&format!("{drop_in}/short.conf"), "[Service]\nWatchdogSec=5\n");
    systemctl(&["daemon-reload"]);
    systemctl(&["restart", UNIT]);
    comes_back("it is there after it hung", &|pid| {
        finish(Command::new("kill").args(["-STOP", pid])).expect(0);
    });
    fs::remove_dir_all(&drop_in).expect("ours");
    systemctl(&["daemon-reload"]);
    // Stopped, and not only between two lives: the session goes on, and its end is its own.
    systemctl(&["stop", UNIT]);
    assert_eq!(procs(&live.group()), before.0);
    live.end().expect(0);
    installed.end();
}

#[test]
fn an_oom_kill_is_told_in_the_journal_and_to_the_operators_program() {
    let installed = Installed::new();
    fs::create_dir_all("/etc/cgmgr").expect("a folder");
    // In the daemon's own directory: it can write nowhere else.
    let told = "/run/cgmgr/told.json";
    let script =
        format!("cat > {told}.new; echo $CGMGR_EVENT $CGMGR_SESSION >> {told}.new; mv {told}.new {told}");
    write(
        POLICY,
        &format!(
            "[events]\non_event = [\"/bin/sh\", \"-c\", {}]\n",
            serde_json::json!(script)
        ),
    );
    // A `$` would be a variable, which has no meaning there.
    cgmgr(&["check", "--host-policy", POLICY]).expect(2);
    let program = "/usr/local/bin/tell-oom";
    write(program, &format!("#!/bin/sh\n{script}\n"));
    finish(Command::new("chmod").args(["755", program])).expect(0);
    write(POLICY, &format!("[events]\non_event = [\"{program}\"]\n"));
    systemctl(&["restart", UNIT]);

    cgmgr(&[
        "run",
        "--name",
        "greedy",
        "--memory-max",
        "16MiB",
        "--",
        &payload(),
        "hog",
        "40",
    ])
    .expect(137);
    until("the operator's program was told", || Path::new(told).exists());
    let text = read(told);
    let (record, variables) = text.split_once('\n').expect("two lines");
    let record: serde_json::Value = serde_json::from_str(record).expect("a record");
    assert_eq!(record["event"], "oom_kill");
    assert_eq!(record["session"], "greedy");
    assert_eq!(record["level"], "session");
    assert_eq!(record["limit"], 16 << 20);
    assert_eq!(variables.trim(), "oom_kill greedy");

    let entry = || {
        let matches = ["CGMGR_EVENT=oom_kill", "CGMGR_SESSION=greedy"];
        finish(
            Command::new("journalctl")
                .args(["--boot", "--no-pager", "--output=json"])
                .args(matches),
        )
        .out
    };
    until("the journal has it", || !entry().is_empty());
    let entry: serde_json::Value =
        serde_json::from_str(entry().lines().next().expect("an entry")).expect("JSON");
    assert_eq!(entry["MESSAGE_ID"], "cd471b1ab4cc409da5769d450dcc4e02");
    assert_eq!(entry["SYSLOG_IDENTIFIER"], "cgmgr");
    assert_eq!(entry["PRIORITY"], "3");
    assert_eq!(entry["CGMGR_LIMIT"], (16 << 20).to_string());
    assert_eq!(entry["CGMGR_VICTIM_COMM"], "payload");
    let explained = ["-x", "--boot", "--no-pager", "CGMGR_SESSION=greedy"];
    let explained = finish(Command::new("journalctl").args(explained)).out;
    assert!(
        explained.contains("The OOM killer ended processes of the session greedy"),
        "{explained}"
    );
    cgmgr(&["forget", "greedy"]);
    fs::remove_file(program).expect("ours");
    let _ = fs::remove_file(told);
    installed.end();
    let _ = fs::remove_dir("/etc/cgmgr");
}

/// A user's own systemd with its session bus, and somebody who writes down what goes over that.
struct SessionBus {
    listener: Child,
    heard: String,
}

impl SessionBus {
    const MANAGER: &str = "user@1000.service";
    const BUS: &str = "/run/user/1000/bus";

    fn of_coder(lab: &Lab) -> SessionBus {
        people::coder();
        systemctl(&["start", Self::MANAGER]);
        until("the user has a session bus", || Path::new(Self::BUS).exists());
        let heard = lab.path("heard");
        let listener = Command::new("setpriv")
            .args(["--reuid=1000", "--regid=1000", "--clear-groups", "dbus-monitor"])
            .args(["--session", "interface=org.freedesktop.Notifications"])
            .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", Self::BUS))
            .stdin(Stdio::null())
            .stdout(fs::File::create(&heard).expect("a file"))
            .spawn()
            .expect("dbus-monitor");
        let bus = SessionBus { listener, heard };
        // The first thing that it is told is its own name.
        until("it listens", || bus.heard().contains("NameAcquired"));
        bus
    }

    fn heard(&self) -> String {
        fs::read_to_string(&self.heard).unwrap_or_default()
    }
}

impl Drop for SessionBus {
    fn drop(&mut self) {
        let _ = self.listener.kill();
        let _ = self.listener.wait();
        finish(Command::new("systemctl").args(["stop", Self::MANAGER]));
    }
}

#[test]
fn an_oom_kill_is_told_on_the_users_own_desktop() {
    let installed = Installed::new();
    let bus = SessionBus::of_coder(&installed.lab);
    let hog = |name: &str, user: &[&str]| {
        let limits = ["run", "--name", name, "--memory-max", "16MiB"];
        let payload = payload();
        cgmgr(&[&limits, user, &["--", &payload, "hog", "40"]].concat()).expect(137);
    };
    hog("roots", &[]);
    hog("coders", &["--user", "coder"]);
    until("it is told on the session bus", || {
        bus.heard().contains("member=Notify")
    });
    let heard = bus.heard();
    let said = heard.split("member=Notify").nth(1).expect("what was told");
    for word in [
        "string \"cgmgr\"",
        "string \"cgmgr: coders oom kill\"",
        "memory_max 16.0 MiB",
    ] {
        assert!(said.contains(word), "{word}: {heard}");
    }
    // Nobody has a desktop there, which is no failure; and what happens in root's sessions is not the user's.
    assert!(!heard.contains("roots"), "{heard}");
    let journal = Command::new("journalctl")
        .args(["--boot", "--no-pager", "--output=cat", "--unit", UNIT])
        .output();
    let said = String::from_utf8_lossy(&journal.expect("the journal").stdout).into_owned();
    assert!(!said.contains("the desktop of uid"), "{said}");
    drop(bus);
    for name in ["roots", "coders"] {
        cgmgr(&["forget", name]);
    }
    installed.end();
}
