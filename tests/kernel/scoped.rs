//! Sessions that are scopes of systemd's, on a machine where they would else be below the delegated unit.

use std::ffi::OsStr;
use std::process::Command;

use crate::cgmgr::{Done, Live, command, finish, payload, until};
use crate::lab::{Lab, children, read, workloads};

/// `cgmgr WORDS`, not yet started, where new sessions are scopes.
pub fn scoped<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = command(words);
    command.env("CGMGR_BACKEND", "scope");
    command
}

/// `cgmgr run OPTIONS -- payload WORDS`, not yet started.
pub fn run(options: &[&str], words: &[&str]) -> Command {
    let mut command = scoped(["run"]);
    command.args(options).arg("--").arg(payload()).args(words);
    command
}

/// `cgmgr run OPTIONS -- sh -c SCRIPT`, to its end.
pub fn run_shell(options: &[&str], script: &str) -> Done {
    let mut command = scoped(["run"]);
    command.args(options).args(["--", "sh", "-c", script]);
    finish(&mut command)
}

/// A session that runs the payload while the test looks at it.
pub fn start(name: &str, options: &[&str], words: &[&str]) -> Live {
    let options = [&["--name", name], options].concat();
    Live::of(name, &mut run(&options, words))
}

/// A session that holds so much memory until it is ended; returned once it does.
pub fn hold(name: &str, options: &[&str], mib: usize) -> Live {
    let mut live = start(name, options, &["hold", &mib.to_string()]);
    live.hear("ready ");
    live
}

/// A session's scope, if it is there: its unit.
pub fn find_unit(session: &str) -> Option<String> {
    let random = |unit: &str| {
        let rest = unit.strip_prefix(&format!("cgmgr-{session}-"))?;
        Some(rest.strip_suffix(".scope")?.len())
    };
    let mut units = children(&workloads());
    units.retain(|unit| random(unit) == Some(8));
    assert!(units.len() < 2, "{units:?}");
    units.pop()
}

/// A session's scope.
#[track_caller]
pub fn unit_of(session: &str) -> String {
    find_unit(session).unwrap_or_else(|| panic!("{session} has no scope: {:?}", children(&workloads())))
}

/// The directory of a session's scope.
#[track_caller]
pub fn top_of(session: &str) -> String {
    format!("{}/{}", workloads(), unit_of(session))
}

/// The directory of the group with its processes.
#[track_caller]
pub fn main_of(session: &str) -> String {
    format!("{}/main", top_of(session))
}

/// The control file of a session, wherever it is: what counts tasks and what is killed together is on the leaf.
#[track_caller]
pub fn file_of(session: &str, file: &str) -> String {
    let group = match file {
        "pids.max" | "memory.oom.group" | "cgroup.freeze" | "cgroup.events" => main_of(session),
        _ => top_of(session),
    };
    format!("{group}/{file}")
}

/// The files that limits are written to.
pub const FILES: [&str; 8] = [
    "memory.high",
    "memory.max",
    "memory.swap.max",
    "cpu.max",
    "cpu.weight",
    "io.weight",
    "pids.max",
    "memory.oom.group",
];

/// Every file of a group and of those below it, with its content, that only a write changes.
pub fn contents(group: &str) -> Vec<(String, String)> {
    const SET: [&str; 7] = ["max", "high", "low", "min", "weight", "group", "control"];
    let mut found = Vec::new();
    let entries = std::fs::read_dir(group).expect("a group");
    for entry in entries.flatten() {
        let path = entry.path().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(contents(&path));
        } else if SET.iter().any(|end| path.ends_with(&format!(".{end}")))
            || ["cgroup.subtree_control", "cpuset.cpus", "cgroup.type"]
                .iter()
                .any(|name| path.ends_with(name))
        {
            found.push((path.clone(), read(&path)));
        }
    }
    found.sort();
    found
}

/// Asks systemd.
pub fn systemctl(words: &[&str]) -> Done {
    finish(Command::new("systemctl").args(words))
}

/// The units of cgmgr's that systemd has loaded, with their state.
pub fn units() -> Vec<String> {
    let listed = systemctl(&["list-units", "--all", "--plain", "--no-legend", "cgmgr*"]).expect(0);
    let mut units: Vec<String> = listed.out.lines().map(str::to_owned).collect();
    units.sort();
    units
}

/// Every group below `group`.
fn tree(group: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in children(group) {
        let path = format!("{group}/{name}");
        found.extend(tree(&path));
        found.push(path);
    }
    found.sort();
    found
}

/// The scopes that systemd has failed units of, or that are there.
fn scopes() -> Vec<String> {
    let mut units = units();
    units.retain(|unit| {
        unit.split(' ')
            .next()
            .is_some_and(|name| name.ends_with(".scope") && name != "cgmgr-sessions.scope")
    });
    units
}

/// A machine on which nothing of a scope may be left when it goes.
pub struct Scopes {
    pub lab: Lab,
    units: Vec<String>,
    tree: Vec<String>,
}

impl Scopes {
    pub fn new() -> Scopes {
        let lab = Lab::new();
        until("no scope of an earlier test is left", || scopes().is_empty());
        Scopes {
            lab,
            units: units(),
            tree: tree(&workloads()),
        }
    }

    /// That everything is back to where it was; systemd collects what has ended in its own time.
    #[track_caller]
    pub fn nothing_left(&self) {
        until("every scope is gone", || scopes().is_empty());
        until("systemd has the units that it had", || units() == self.units);
        until("the tree is as it was", || tree(&workloads()) == self.tree);
    }
}

impl Drop for Scopes {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.nothing_left();
            return;
        }
        // The next test is not to suffer.
        for unit in scopes() {
            let name = unit.split(' ').next().unwrap_or_default();
            let group = format!("{}/{name}", workloads());
            let _ = std::fs::write(format!("{group}/cgroup.freeze"), "0");
            let _ = std::fs::write(format!("{group}/cgroup.kill"), "1");
            let _ = systemctl(&["reset-failed", name]);
        }
    }
}
