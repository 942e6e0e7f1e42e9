//! What the tests know of the machine that they run on, and how they leave it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cgmgr::{cgmgr, until};

/// Where cgroup v2 is mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// A variable that the lab sets, if it is the lab that runs us.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable that a test cannot do without.
#[track_caller]
pub fn must(name: &str) -> String {
    variable(name).unwrap_or_else(|| panic!("{name} is not set: `cargo xtask test` sets it"))
}

/// Whether the long campaigns are to be run in full.
pub fn full() -> bool {
    variable("CGMGR_FULL").is_some_and(|value| value == "1")
}

/// A file's content with the line ends cut off.
#[track_caller]
pub fn read(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => panic!("cannot read {path}: {error}"),
    }
}

/// Writes to a control file, as cgroupfs wants it: the file must exist.
#[track_caller]
pub fn write(path: &str, text: &str) {
    if let Err(error) = fs::write(path, text) {
        panic!("cannot write `{text}` to {path}: {error}");
    }
}

/// A number in a file: behind a key at the begin of a line, or alone in it for no key.
#[track_caller]
pub fn counter(path: &str, key: &str) -> u64 {
    let text = read(path);
    let line = text.lines().find_map(|line| match key {
        "" => Some(line),
        key => line.strip_prefix(key)?.strip_prefix(' '),
    });
    let value = line.and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no number `{key}` in {path}: {text}"))
}

/// Whether two numbers differ by no more than so many percent of their sum: `values_close` of the kernel's selftests.
pub fn close(one: u64, other: u64, percent: u64) -> bool {
    one.abs_diff(other) <= (one + other) / 100 * percent
}

/// The type and the options of the file system mounted at `path`.
pub fn mounted(path: &str) -> Option<(String, String)> {
    let table = read("/proc/self/mounts");
    let rows = table.lines().map(|row| row.split(' ').collect::<Vec<_>>());
    let mut last = rows.filter(|row| row.get(1) == Some(&path)).collect::<Vec<_>>();
    let row = last.pop()?;
    Some((row.get(2)?.to_string(), row.get(3)?.to_string()))
}

/// Whether systemd runs this machine.
pub fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The directory of `workloads.slice`.
pub fn workloads() -> String {
    format!("{MOUNT}/workloads.slice")
}

/// The directory that holds the sessions' groups.
pub fn sessions() -> String {
    if is_systemd() {
        format!("{MOUNT}/workloads.slice/cgmgr-sessions.scope")
    } else {
        workloads()
    }
}

/// The directory of a session's group.
pub fn path_of(session: &str) -> String {
    format!("{}/cgmgr-{session}", sessions())
}

/// A group's directories, by name.
pub fn children(group: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(group)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The sessions' groups that exist.
pub fn session_groups() -> Vec<String> {
    let mut names = children(&sessions());
    names.retain(|name| name.starts_with("cgmgr-"));
    names
}

/// The processes in a group.
#[track_caller]
pub fn procs(group: &str) -> Vec<i32> {
    let text = read(&format!("{group}/cgroup.procs"));
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// The example roles.
pub fn examples() -> Vec<PathBuf> {
    let folder = must("CGMGR_EXAMPLES");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("no examples in {folder}: {error}"))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".role.toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there is no *.role.toml in {folder}");
    files
}

/// An example role's file.
pub fn example(name: &str) -> String {
    format!("{}/{name}.role.toml", must("CGMGR_EXAMPLES"))
}

/// A machine ready for sessions, and a folder for files. When it goes, everything that cgmgr made must have gone.
pub struct Lab {
    folder: PathBuf,
    controllers: Vec<String>,
    root: Vec<String>,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Makes the machine ready. On a machine with systemd the sessions' unit is put in place, once for all tests.
    pub fn new() -> Lab {
        if is_systemd() && !Path::new(&sessions()).is_dir() {
            cgmgr(&["install", "--minimal"]).expect(0);
            let there = || Path::new(&sessions()).is_dir();
            until("the sessions' unit has its group", there);
        }
        let lab = Lab::bare();
        assert_eq!(session_groups(), [""; 0], "an earlier test left sessions");
        lab
    }

    /// The same without any set-up: for machines and tests that need none.
    pub fn bare() -> Lab {
        let number = LABS.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("lab-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for files");
        // Names that another test's OOM kill has taken. On a developer's own machine what is kept is not the tests' to forget.
        if Path::new("/lab").is_dir() {
            let _ = fs::remove_dir_all("/var/lib/cgmgr/kept");
        }
        Lab {
            folder,
            controllers: controllers(),
            root: children(MOUNT),
        }
    }

    /// A path in the test's own folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// A file in the test's own folder: its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// `cgmgr down --kill`, after which nothing of cgmgr's may be left.
    fn clean(&self) -> Result<(), String> {
        let done = cgmgr(&["down", "--kill"]);
        let _ = fs::remove_dir_all(&self.folder);
        if done.status != 0 {
            return Err(format!("`cgmgr down --kill` failed: {done:#?}"));
        }
        let groups = session_groups();
        if !groups.is_empty() {
            return Err(format!("sessions are left: {groups:?}"));
        }
        if controllers() != self.controllers && !is_systemd() {
            return Err(format!(
                "controllers were {:?} and are {:?}",
                self.controllers,
                controllers()
            ));
        }
        if children(MOUNT) != self.root && !is_systemd() {
            return Err(format!(
                "groups were {:?} and are {:?}",
                self.root,
                children(MOUNT)
            ));
        }
        Ok(())
    }
}

/// The controllers that the root's children have.
fn controllers() -> Vec<String> {
    let mut names: Vec<String> = fs::read_to_string(format!("{MOUNT}/cgroup.subtree_control"))
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

impl Drop for Lab {
    fn drop(&mut self) {
        let cleaned = self.clean();
        if !std::thread::panicking()
            && let Err(why) = cleaned
        {
            panic!("something is left: {why}");
        }
    }
}
