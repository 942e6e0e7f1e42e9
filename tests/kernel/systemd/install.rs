//! `install` and `uninstall` in full: a role that holds from boot on, somebody else's service in agent.slice, a user's
//! own systemd. Afterwards systemd's configuration is as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cgmgr::{Done, cgmgr, finish, until};
use crate::lab::{Lab, MOUNT, must, procs, read, workloads};
use crate::people::coder;

fn systemctl(words: &[&str]) -> Done {
    finish(Command::new("systemctl").args(words))
}

pub fn property(unit: &str, name: &str) -> String {
    let shown = systemctl(&["show", "--value", &format!("--property={name}"), unit]);
    shown.out.trim().to_owned()
}

/// Every path below a directory, with what it holds.
pub fn all(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path().to_string_lossy().into_owned();
        let kind = entry.file_type().expect("a look");
        let text = match (kind.is_dir(), kind.is_symlink()) {
            (true, _) => "a folder".to_owned(),
            (_, true) => fs::read_link(&path).expect("a link").display().to_string(),
            _ => fs::read_to_string(&path).expect("a file"),
        };
        if kind.is_dir() {
            found.extend(all(&path));
        }
        found.insert(path, text);
    }
    found
}

/// A machine with nothing of cgmgr's installed, and its configuration.
fn clean() -> (Lab, BTreeMap<String, String>) {
    cgmgr(&["down", "--kill"]);
    cgmgr(&["uninstall"]).expect(0);
    (Lab::bare(), all("/etc/systemd"))
}

/// A service of somebody's, as an agent's is.
struct Agent;

impl Agent {
    const FILE: &str = "/run/systemd/system/guinea.service";

    fn start() -> Agent {
        fs::write(Agent::FILE, "[Service]\nExecStart=sleep 100000\n").expect("a file");
        systemctl(&["daemon-reload"]).expect(0);
        systemctl(&["start", "guinea"]).expect(0);
        Agent
    }

    fn group() -> String {
        property("guinea.service", "ControlGroup")
    }

    fn score() -> String {
        let pid = procs(&format!("{MOUNT}{}", Agent::group()))[0];
        read(&format!("/proc/{pid}/oom_score_adj"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = systemctl(&["stop", "guinea"]);
        let _ = fs::remove_file(Agent::FILE);
        let _ = systemctl(&["daemon-reload"]);
    }
}

#[test]
fn a_role_holds_from_boot_on_and_goes_with_uninstall() {
    let (lab, before) = clean();
    let role = lab.file(
        "w.role.toml",
        "[agent]\nmemory_min = \"100 MiB\"\n[workloads]\nmemory_max = \"900 MiB\"\npids = 3000\ncpus = 1.5\n",
    );
    let done = cgmgr(&["install", "--role", &role]).expect(0);
    assert!(
        done.out
            .contains("wrote /etc/systemd/system/workloads.slice.d/40-cgmgr.conf\n"),
        "{done:#?}"
    );
    let look = || {
        let of = |f| read(&format!("{}/{f}", workloads()));
        let min = read(&format!("{MOUNT}/agent.slice/memory.min"));
        [of("memory.max"), of("pids.max"), of("cpu.max"), min]
    };
    let wanted = ["943718400", "3000", "150000 100000", "104857600"];
    assert_eq!(look(), wanted);
    systemctl(&["daemon-reload"]).expect(0);
    assert_eq!(look(), wanted);
    assert!(!Path::new("/run/systemd/system.control/workloads.slice.d").exists());
    // What a boot goes by.
    let service = "cgmgr-sessions.service";
    assert_eq!(property(service, "WantedBy"), "multi-user.target");
    assert_eq!(systemctl(&["is-enabled", service]).out, "enabled\n");
    let names = |name: &str| {
        property(service, name)
            .split(' ')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(names("Before").contains(&"systemd-user-sessions.service".to_owned()));
    for slice in ["agent.slice", "workloads.slice"] {
        assert!(names("Wants").contains(&slice.to_owned()) && names("After").contains(&slice.to_owned()));
    }
    // Said again, also without the role, nothing changes.
    for words in [
        &["install", "--role", &role][..],
        &["install"],
        &["install", "--minimal"],
    ] {
        assert!(
            cgmgr(words).expect(0).out.contains("nothing to change"),
            "{words:?}"
        );
        assert_eq!(look(), wanted);
    }
    // Another role takes its place, and what it does not declare is the installed unit's.
    let other = lab.file("o.role.toml", "[workloads]\npids = 2000\n");
    cgmgr(&["install", "--role", &other]).expect(0);
    assert_eq!(look()[1], "2000");
    assert_ne!(look()[0], wanted[0]);
    assert_eq!(look()[2], "max 100000");
    cgmgr(&["uninstall"]).expect(0);
    assert_eq!(all("/etc/systemd"), before);
    assert!(!Path::new(&workloads()).exists());
    assert!(
        systemctl(&["list-units", "--all", "--plain", "--no-legend", "cgmgr-sessions*"])
            .out
            .is_empty()
    );
}

#[test]
fn a_protected_service_comes_into_agent_slice_with_its_next_start() {
    let (lab, before) = clean();
    let agent = Agent::start();
    let outside = Agent::group();
    let done = cgmgr(&["install", "--protect", "guinea.service", "--json"]).expect(0);
    assert_eq!(
        done.json()["restart_later"],
        serde_json::json!(["systemctl restart guinea.service"])
    );
    assert_eq!(Agent::group(), outside, "it was not touched");
    systemctl(&["restart", "guinea"]).expect(0);
    assert_eq!(Agent::group(), "/agent.slice/guinea.service");
    assert_eq!(Agent::score(), "-900");
    for (name, value) in [
        ("OOMPolicy", "continue"),
        ("ManagedOOMPreference", "omit"),
        ("Slice", "agent.slice"),
    ] {
        assert_eq!(property("guinea.service", name), value);
    }
    // Without its suffix it is the same, and a role says another score.
    let role = lab.file("a.role.toml", "[agent]\noom_score_adj = -500\n");
    let again = cgmgr(&["install", "--protect", "guinea", "--role", &role]).expect(0);
    assert!(!again.out.contains("restart"), "{again:#?}");
    systemctl(&["restart", "guinea"]).expect(0);
    assert_eq!(Agent::score(), "-500");

    let gone = cgmgr(&["uninstall"]).expect(0);
    assert!(gone.out.contains("systemctl restart guinea.service"), "{gone:#?}");
    assert_eq!(all("/etc/systemd"), before);
    assert_eq!(
        Agent::group(),
        "/agent.slice/guinea.service",
        "it was not touched"
    );
    assert_eq!(property("guinea.service", "ActiveState"), "active");
    systemctl(&["restart", "guinea"]).expect(0);
    assert_eq!(Agent::group(), outside);
    drop(agent);
}

#[test]
fn what_cannot_be_protected_is_refused_before_anything_is_written() {
    let (lab, before) = clean();
    let refused = cgmgr(&[
        "install",
        "--protect",
        "nobodys",
        "--protect",
        "init.scope",
        "--protect",
        "a/b",
    ]);
    assert_ne!(refused.status, 0);
    refused
        .says("there is no unit nobodys.service")
        .says("init.scope: only a service can be put into agent.slice")
        .says("`a/b` is no unit's name");
    cgmgr(&["install", "--protect", "cgmgr-sessions"])
        .expect(2)
        .says("cgmgr's own");
    cgmgr(&["install", "--minimal", "--protect", "cron"]).expect(2);
    let bad = lab.file("bad.role.toml", "[workloads]\nmemory_max = \"a lot\"\n");
    cgmgr(&["install", "--role", &bad]).expect(2).says("a lot");
    assert_eq!(all("/etc/systemd"), before);
    // A drop-in of that name which is somebody else's.
    let agent = Agent::start();
    let folder = "/etc/systemd/system/guinea.service.d";
    fs::create_dir_all(folder).expect("a folder");
    fs::write(format!("{folder}/40-cgmgr.conf"), "[Service]\nNice=1\n").expect("a file");
    let with_theirs = all("/etc/systemd");
    cgmgr(&["install", "--protect", "guinea"])
        .expect(1)
        .says("was not installed by cgmgr");
    assert_eq!(all("/etc/systemd"), with_theirs);
    fs::remove_dir_all(folder).expect("ours");
    drop(agent);

    // What is only asked for writes nothing.
    let role = lab.file("w.role.toml", "[workloads]\npids = 2000\n");
    let agent = Agent::start();
    let would = cgmgr(&["install", "--dry-run", "--role", &role, "--protect", "guinea"]).expect(0);
    assert_eq!(would.out.lines().count(), 9, "{would:#?}");
    assert!(would.out.lines().all(|l| l.starts_with("would ")), "{would:#?}");
    assert_eq!(all("/etc/systemd"), before);
    cgmgr(&["install", "--role", &role, "--protect", "guinea"]).expect(0);
    let installed = all("/etc/systemd");
    assert_eq!(
        installed.len(),
        before.len() + 10,
        "eight files and links, two directories"
    );
    assert_eq!(
        cgmgr(&["uninstall", "--dry-run"]).expect(0).out.lines().count(),
        9
    );
    assert_eq!(all("/etc/systemd"), installed);
    cgmgr(&["uninstall"]).expect(0);
    assert_eq!(all("/etc/systemd"), before);
    drop(agent);
}

/// The user's own manager, as it runs for who is logged in or lingers.
struct Manager;

impl Manager {
    fn start() -> Manager {
        systemctl(&["start", "user@1000.service"]).expect(0);
        until("his bus is there", || Path::new("/run/user/1000/bus").exists());
        Manager
    }

    /// Runs a command as that user, with his manager in sight.
    fn run(words: &[&str]) -> Done {
        let home = finish(Command::new("sh").args(["-c", "getent passwd coder | cut -d: -f6"])).out;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1000", "--regid=1000", "--init-groups", "env", "-i"]);
        command
            .arg(format!("HOME={}", home.trim()))
            .arg(format!("PATH={}", must("PATH")));
        finish(
            command
                .arg("XDG_RUNTIME_DIR=/run/user/1000")
                .args(words)
                .current_dir("/"),
        )
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = systemctl(&["stop", "user@1000.service"]);
        let _ = systemctl(&["stop", "user-runtime-dir@1000.service"]);
    }
}

#[test]
fn a_user_installs_for_his_own_systemd() {
    let (_lab, before) = clean();
    coder();
    let manager = Manager::start();
    let bin = must("CGMGR_BIN");
    let would = Manager::run(&[&bin, "install", "--user", "--dry-run"]).expect(0);
    assert_eq!(would.out.lines().count(), 4, "{would:#?}");
    assert!(
        would
            .out
            .contains(".config/systemd/user/cgmgr-sessions.service\n"),
        "{would:#?}"
    );
    let installed = Manager::run(&[&bin, "install", "--user"]);
    let said =
        || finish(Command::new("journalctl").args(["--boot", "--no-pager", "--lines=40", "_UID=1000"])).out;
    assert_eq!(installed.status, 0, "{installed:#?}\n{}", said());
    let shown = Manager::run(&[
        "systemctl",
        "--user",
        "show",
        "--property=ControlGroup,ActiveState",
        "cgmgr-sessions.scope",
    ]);
    assert!(shown.out.contains("ActiveState=active\n"), "{shown:#?}");
    let group = shown
        .out
        .lines()
        .find_map(|l| l.strip_prefix("ControlGroup="))
        .expect("a group");
    assert!(
        group.ends_with("user@1000.service/workloads.slice/cgmgr-sessions.scope"),
        "{group}"
    );
    let leaf = format!("{MOUNT}{group}/supervisor");
    let anchor = procs(&leaf);
    assert_eq!(anchor.len(), 1);
    let enabled = read(&format!("{MOUNT}{group}/cgroup.subtree_control"));
    assert!(
        enabled.contains("memory") && enabled.contains("pids"),
        "{enabled}"
    );
    let wanted_by = Manager::run(&[
        "systemctl",
        "--user",
        "show",
        "--value",
        "--property=WantedBy",
        "cgmgr-sessions.service",
    ]);
    assert_eq!(wanted_by.out.trim(), "default.target");
    assert!(
        Manager::run(&[&bin, "install", "--user"])
            .expect(0)
            .out
            .contains("nothing to change")
    );
    Manager::run(&["systemctl", "--user", "restart", "cgmgr-sessions.service"]).expect(0);
    assert_eq!(procs(&leaf), anchor);
    Manager::run(&[&bin, "uninstall", "--user"]).expect(0);
    assert!(!Path::new(&leaf).exists());
    let left = Manager::run(&["sh", "-c", "find ~/.config/systemd/user -type f -o -type l"]);
    assert_eq!(left.out, "", "{left:#?}");
    assert_eq!(all("/etc/systemd"), before);
    drop(manager);
    Command::new("sh")
        .args(["-c", "rm -rf ~coder/.config"])
        .status()
        .expect("sh");
}
