//! Which sessions are attended, and how the ended ones ended: a lock and an entry per session in the runtime
//! directory.
//!
//! The lock is an flock that the cgmgr process in charge holds as long as it lives, so a free lock means that nobody
//! is in charge, however that process ended. The directory is private to its user: on the group's own directory
//! anybody could hold a lock.

use crate::host::{Base, BaseKind, Manager};
use crate::kernel::{manager, process};
use crate::order;
use crate::path::SessionName;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Entries of ended sessions kept per base; the oldest go first.
const ENTRIES_KEPT: usize = 512;

/// How often a lock that is held is tried again, and how long after.
const LOCK_TRIES: u32 = 3;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// The registry of sessions without a group.
pub const PROCESS_SCOPE: &str = "process";

/// The registry of what systemd's own manager holds.
pub const SYSTEMD_SCOPE: &str = "systemd";

/// The registry of a base whose group has this id. The id names it across mounts and namespaces. The group of systemd's
/// scope may be made anew, and need not be there, but it is the same base: there is one of it for each manager.
///
/// # Errors
///
/// What `id` says.
pub fn base_scope<E>(base: &Base, id: impl FnOnce() -> Result<u64, E>) -> Result<String, E> {
    match base.kind {
        BaseKind::SessionsUnit(Manager::User) | BaseKind::Scopes(Manager::User) => {
            Ok("user-systemd".to_owned())
        }
        BaseKind::SessionsUnit(Manager::System) | BaseKind::Scopes(Manager::System) => {
            Ok(SYSTEMD_SCOPE.to_owned())
        }
        _ => Ok(format!("base-{:x}", id()?)),
    }
}

/// The sessions of one base.
#[derive(Debug, Clone)]
pub struct Registry {
    directory: PathBuf,
}

/// The right to be in charge of a session; given up when dropped, or when the process ends.
#[derive(Debug)]
pub struct Lock {
    _fd: OwnedFd,
    path: PathBuf,
}

/// What is known of a session beside its group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The session's name.
    pub name: String,
    /// `cgroupfs` or `process`.
    pub backend: String,
    /// The role's name.
    pub role: Option<String>,
    /// The command and its arguments, cut.
    #[serde(default)]
    pub command: Vec<String>,
    /// The cgmgr process in charge.
    pub supervisor: i32,
    /// The command's process.
    pub pid: Option<i32>,
    /// When that process started, in ticks since boot: with the pid it names one process.
    pub pid_start: Option<u64>,
    /// When it began: seconds since 1970.
    pub started: u64,
    /// The process in charge is a program with children of its own: what descends from it is not the session.
    #[serde(default)]
    pub embedded: bool,
    /// Whether it was detached: then its entry stays for `cgmgr wait`.
    #[serde(default)]
    pub detached: bool,
    /// The exit status as `run` would have returned it; `None` while it runs.
    pub status: Option<u8>,
    /// What is to be said about its end.
    #[serde(default)]
    pub story: Vec<String>,
    /// Knobs that are not enforced.
    #[serde(default)]
    pub unconfined: Vec<String>,
    /// The user that its command runs as.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The user who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<u32>,
    /// The role's file, as it was named.
    #[serde(default)]
    pub role_file: Option<String>,
    /// Knobs that were given by flags.
    #[serde(default)]
    pub flags: Vec<String>,
}

impl Entry {
    /// The entry's file.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The entry in a file's text, if it is one.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Registry {
    /// The registry `scope` (a base's cgroup id, or `process`) in the caller's runtime directory.
    pub fn open(scope: &str) -> io::Result<Self> {
        let directory = runtime_directory()?.join(scope);
        let registry = Self { directory };
        registry.make()?;
        Ok(registry)
    }

    fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(at(&self.directory, e)),
            _ => Ok(()),
        }
    }

    /// Waits for the right to change what all sessions share: two that converge the slices at once would leave a mixture.
    /// Given up when dropped, or when the process ends.
    pub fn alone(&self) -> io::Result<OwnedFd> {
        loop {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = match fs::open(&self.directory, flags, Mode::empty()) {
                // `down` removed it: its last act, in another process.
                Err(Errno::NOENT) => {
                    runtime_directory()?;
                    self.make()?;
                    continue;
                }
                other => other.map_err(|e| at(&self.directory, e.into()))?,
            };
            match fs::flock(&fd, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => continue,
                other => other.map_err(|e| at(&self.directory, e.into()))?,
            }
            if is_still(&fd, &self.directory) {
                return Ok(fd);
            }
        }
    }

    /// The registry `scope` if there is one that this user may trust. Makes nothing: for commands that only look.
    pub fn find(scope: &str) -> Option<Self> {
        let directory = runtime_path();
        trusted(&directory).ok()?;
        let directory = directory.join(scope);
        directory.is_dir().then_some(Self { directory })
    }

    fn lock_path(&self, name: &SessionName) -> PathBuf {
        self.directory.join(format!("{name}.lock"))
    }

    fn entry_path(&self, name: &SessionName) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// Takes charge of `name`; `None` where somebody is.
    pub fn lock(&self, name: &SessionName) -> io::Result<Option<Lock>> {
        let path = self.lock_path(name);
        let mut tries = 0;
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let opened = fs::open(&path, flags, Mode::from_raw_mode(0o600));
            let fd = opened.map_err(|e| at(&path, e.into()))?;
            match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // Whoever sweeps holds it for a moment only.
                Err(Errno::WOULDBLOCK) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                    continue;
                }
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(at(&path, e.into())),
            }
            // The holder before us may have unlinked the file between our open and our lock.
            if is_still(&fd, &path) {
                return Ok(Some(Lock { _fd: fd, path }));
            }
        }
    }

    /// Whether somebody is in charge of `name`.
    pub fn is_attended(&self, name: &SessionName) -> bool {
        let Ok(fd) = fs::open(
            self.lock_path(name),
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        ) else {
            return false;
        };
        matches!(
            fs::flock(&fd, FlockOperation::NonBlockingLockShared),
            Err(Errno::WOULDBLOCK)
        )
    }

    /// Waits until nobody is in charge of `name`. Returns at once where nobody is.
    pub fn wait_unattended(&self, name: &SessionName) -> io::Result<()> {
        let fd = match fs::open(
            self.lock_path(name),
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        loop {
            match fs::flock(&fd, FlockOperation::LockShared) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Takes charge of a free name `<stem>-<n>` for which `taken` and `kept` say no; of `<stem>-1` where all are free. There
    /// may be very many that are kept.
    pub fn lock_numbered(
        &self,
        stem: &SessionName,
        taken: &dyn Fn(&SessionName) -> bool,
        kept: &dyn Fn(&SessionName) -> bool,
    ) -> io::Result<(SessionName, Lock)> {
        let mut n = first_free(&|n| {
            let name = stem.numbered(n);
            self.is_known(&name) || kept(&name)
        });
        let first = n;
        loop {
            let name = stem.numbered(n);
            if !taken(&name)
                && (n == first || !kept(&name))
                && let Some(lock) = self.lock(&name)?
            {
                return Ok((name, lock));
            }
            n += 1;
        }
    }

    /// Whether there is a lock or an entry of this name.
    fn is_known(&self, name: &SessionName) -> bool {
        let there = |path: PathBuf| fs::access(&path, fs::Access::EXISTS).is_ok();
        there(self.lock_path(name)) || there(self.entry_path(name))
    }

    /// Names of all sessions with a lock or an entry, sorted.
    pub fn names(&self) -> io::Result<Vec<SessionName>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory)?.flatten() {
            let file = entry.file_name();
            let file = file.to_string_lossy();
            let stem = file.strip_suffix(".lock").or_else(|| file.strip_suffix(".json"));
            names.extend(stem.and_then(|s| SessionName::new(s).ok()));
        }
        order::sort(&mut names);
        names.dedup();
        Ok(names)
    }

    /// Writes a session's entry, whole or not at all.
    pub fn write(&self, name: &SessionName, entry: &Entry) -> io::Result<()> {
        let path = self.entry_path(name);
        let temporary = self.directory.join(format!(".{name}.{}", std::process::id()));
        let text = entry.to_text();
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&temporary, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    /// A session's entry, if there is one.
    pub fn read(&self, name: &SessionName) -> Option<Entry> {
        Entry::from_text(&std::fs::read_to_string(self.entry_path(name)).ok()?)
    }

    /// Forgets a session's entry.
    pub fn forget(&self, name: &SessionName) {
        let _ = std::fs::remove_file(self.entry_path(name));
    }

    /// Removes what killed processes left: locks that nobody holds, and entries that were not finished. Sessions that
    /// live cost little, and the entries of ended ones nothing. Returns the sessions that somebody is in charge of; `own`
    /// is known to be.
    pub fn sweep_debris(&self, own: Option<&SessionName>) -> BTreeSet<SessionName> {
        let (attended, entries) = self.debris(own);
        // Not each time one is too many: to tell the oldest each of them has to be looked at.
        if entries > 2 * ENTRIES_KEPT {
            self.forget_surplus();
        }
        attended
    }

    /// The same, and how many entries there are.
    fn debris(&self, own: Option<&SessionName>) -> (BTreeSet<SessionName>, usize) {
        let mut entries = 0;
        let mut attended: BTreeSet<SessionName> = order::set(own.cloned().into_iter());
        // Not by /proc/locks: to list all locks the kernel first waits for every processor (percpu_down_write in
        // fs/locks.c), which takes longer than to ask for a few hundred one by one.
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let file = file.to_string_lossy();
            if let Some(name) = file.strip_suffix(".lock") {
                let Ok(name) = SessionName::new(name) else {
                    continue;
                };
                if attended.contains(&name) || self.is_attended(&name) {
                    attended.insert(name);
                } else {
                    // Taking and dropping a free lock removes its file.
                    drop(self.lock(&name));
                }
            } else if file.starts_with('.')
                && let Some((_, pid)) = file.rsplit_once('.')
                && pid.parse().is_ok_and(|pid: i32| process::stat(pid).is_none())
            {
                let _ = std::fs::remove_file(entry.path());
            } else if file.ends_with(".json") {
                entries += 1;
            }
        }
        (attended, entries)
    }

    /// Removes the locks of dead sessions, and the oldest entries of ended ones beyond what is kept.
    pub fn sweep(&self) {
        self.debris(None);
        self.forget_surplus();
    }

    /// Removes the oldest entries of ended sessions beyond what is kept.
    fn forget_surplus(&self) {
        let Ok(names) = self.names() else { return };
        let mut ended = Vec::new();
        for name in names {
            // Taking and dropping a free lock removes its file.
            let free = !self.lock_path(&name).exists() || matches!(self.lock(&name), Ok(Some(_)));
            if free && let Ok(meta) = std::fs::metadata(self.entry_path(&name)) {
                ended.push((meta.mtime(), name));
            }
        }
        order::sort(&mut ended);
        let surplus = ended.len().saturating_sub(ENTRIES_KEPT);
        for (_, name) in &ended[..surplus] {
            self.forget(name);
        }
    }

    /// Forgets every session that nobody is in charge of.
    pub fn forget_ended(&self) {
        self.sweep();
        for name in self.names().unwrap_or_default() {
            if !self.is_attended(&name) {
                self.forget(&name);
            }
        }
    }

    /// Removes the registry's directory if nothing is in it.
    pub fn remove_if_empty(&self) {
        let _ = std::fs::remove_dir(&self.directory);
        if let Some(parent) = self.directory.parent() {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Unlinked while it is still held: whoever opened it before sees another inode under the name and tries again.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Lock {
    /// Leaves the lock to another process that holds the same open file (a fork of this one): this copy goes without
    /// removing the file.
    pub fn leave_to_other(self) {
        std::mem::forget(self);
    }
}

/// A number from 1 on that is not in use, and whose predecessor is. Where the numbers in use have no gaps that is the
/// first free one. It asks about a few numbers, however many are in use: nobody lists a thousand sessions to start one.
fn first_free(in_use: &dyn Fn(u64) -> bool) -> u64 {
    let (mut used, mut free) = (0, 1);
    while in_use(free) {
        used = free;
        free *= 2;
    }
    while free - used > 1 {
        let middle = used + (free - used) / 2;
        if in_use(middle) {
            used = middle;
        } else {
            free = middle;
        }
    }
    free
}

/// The same error, naming the file.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn is_still(fd: &OwnedFd, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (fs::fstat(fd.as_fd()), fs::stat(path)) else {
        return false;
    };
    (held.st_ino, held.st_dev) == (named.st_ino, named.st_dev)
}

/// `$CGMGR_RUNTIME_DIR`, `/run/cgmgr` for root, `$XDG_RUNTIME_DIR/cgmgr` for others, or where that is not set the one that
/// it stands for: a user's cgmgr is to find the locks of the others wherever it was started. Where that cannot be (a
/// container with a read-only root, a user without a login session) a private directory in the one for temporary files.
/// Always from the root on: who stays with a session leaves the caller's directory.
fn runtime_path() -> PathBuf {
    let path = runtime_path_as_named();
    std::path::absolute(&path).unwrap_or(path)
}

fn runtime_path_as_named() -> PathBuf {
    let named = |variable: &str| {
        std::env::var_os(variable)
            .filter(|d| !d.is_empty())
            .map(PathBuf::from)
    };
    if let Some(directory) = named("CGMGR_RUNTIME_DIR") {
        return directory;
    }
    let uid = rustix::process::geteuid();
    let parents = if uid.is_root() {
        vec![PathBuf::from("/run")]
    } else {
        manager::runtime_directories()
    };
    let mut usable = parents
        .into_iter()
        .filter(|p| fs::access(p, fs::Access::WRITE_OK).is_ok());
    match usable.next() {
        Some(parent) => parent.join("cgmgr"),
        None => std::env::temp_dir().join(format!("cgmgr-{}", uid.as_raw())),
    }
}

/// The runtime directory, made if it is missing.
pub fn runtime_directory() -> io::Result<PathBuf> {
    let directory = runtime_path();
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(at(&directory, e));
        }
        _ => {}
    }
    trusted(&directory)?;
    Ok(directory)
}

/// It must belong to the caller and be closed to others.
fn trusted(directory: &Path) -> io::Result<()> {
    let uid = rustix::process::geteuid();
    let meta = std::fs::symlink_metadata(directory)?;
    if !meta.is_dir() || meta.uid() != uid.as_raw() || meta.mode() & 0o022 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is not a directory that only user {} can write",
                directory.display(),
                uid.as_raw()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(test: &str) -> Registry {
        let directory = std::env::temp_dir().join(format!("cgmgr-test-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Registry { directory }
    }

    #[test]
    fn one_at_a_time_is_in_charge() {
        let registry = registry("lock");
        let name = SessionName::new("a").unwrap();
        let lock = registry.lock(&name).unwrap().unwrap();
        assert!(registry.lock(&name).unwrap().is_none());
        assert!(registry.is_attended(&name));
        drop(lock);
        assert!(!registry.is_attended(&name));
        assert!(registry.lock(&name).unwrap().is_some());
        std::fs::remove_dir_all(&registry.directory).unwrap();
    }

    #[test]
    fn entries_of_ended_sessions_do_not_pile_up() {
        let registry = registry("entries");
        let (last, held) = (
            SessionName::new("live").unwrap(),
            SessionName::new("first").unwrap(),
        );
        let _lock = registry.lock(&held).unwrap().unwrap();
        registry.write(&held, &Entry::default()).unwrap();
        for number in 2..=2 * ENTRIES_KEPT {
            let name = SessionName::new(&format!("s-{number}")).unwrap();
            registry.write(&name, &Entry::default()).unwrap();
        }
        registry.sweep_debris(None);
        assert_eq!(registry.names().unwrap().len(), 2 * ENTRIES_KEPT, "few enough");
        registry.write(&last, &Entry::default()).unwrap();
        registry.sweep_debris(None);
        let left = registry.names().unwrap();
        // Somebody is in charge of one of them.
        assert_eq!(left.len(), ENTRIES_KEPT + 1);
        assert!(left.contains(&held));
        std::fs::remove_dir_all(&registry.directory).unwrap();
    }

    #[test]
    fn numbered_names_go_up() {
        let registry = registry("numbered");
        let stem = SessionName::new("rust").unwrap();
        let (one, _held1) = registry.lock_numbered(&stem, &|_| false, &|_| false).unwrap();
        let (two, _held2) = registry
            .lock_numbered(&stem, &|n| n.as_str() == "rust-2", &|_| false)
            .unwrap();
        assert_eq!((one.as_str(), two.as_str()), ("rust-1", "rust-3"));
        let kept = |n: &SessionName| matches!(n.as_str(), "rust-2" | "rust-4" | "rust-5");
        let (next, _held3) = registry.lock_numbered(&stem, &|_| false, &kept).unwrap();
        assert_eq!(next.as_str(), "rust-6");
        std::fs::remove_dir_all(&registry.directory).unwrap();
    }

    #[test]
    fn a_free_number_follows_one_in_use() {
        for used in [
            vec![],
            vec![1],
            (1..=1000).collect(),
            vec![1, 2, 4, 5],
            vec![2],
            vec![7],
        ] {
            let asked = std::cell::Cell::new(0);
            let free = first_free(&|n| {
                asked.set(asked.get() + 1);
                used.contains(&n)
            });
            assert!(!used.contains(&free), "{used:?}: {free}");
            assert!(free == 1 || used.contains(&(free - 1)), "{used:?}: {free}");
            assert!(asked.get() < 25, "{used:?}: {}", asked.get());
        }
        assert_eq!(first_free(&|n| n <= 1000), 1001);
    }

    #[test]
    fn what_a_killed_process_left_goes_and_nothing_else() {
        let registry = registry("debris");
        let held = registry
            .lock(&SessionName::new("held").unwrap())
            .unwrap()
            .unwrap();
        let file = |name: &str| std::fs::write(registry.directory.join(name), "").unwrap();
        let own = format!(".b.{}", std::process::id());
        // No pid is as high as this.
        for name in ["a.lock", ".a.b.2147483647", "a.json", &own] {
            file(name);
        }
        registry.sweep_debris(None);
        let mut left: Vec<_> = std::fs::read_dir(&registry.directory)
            .unwrap()
            .flatten()
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [own.as_str(), "a.json", "held.lock"]);
        drop(held);
        std::fs::remove_dir_all(&registry.directory).unwrap();
    }

    #[test]
    fn an_entry_outlives_its_session_and_is_forgotten() {
        let registry = registry("entry");
        let name = SessionName::new("a").unwrap();
        let entry = Entry {
            name: "a".into(),
            status: Some(7),
            ..Entry::default()
        };
        registry.write(&name, &entry).unwrap();
        registry.sweep();
        assert_eq!(registry.read(&name), Some(entry));
        registry.forget(&name);
        assert_eq!(registry.read(&name), None);
        registry.remove_if_empty();
        assert!(!registry.directory.exists());
    }
}
