//! A cgroup as an opened directory: the operations cgroupfs offers, one function each, relative to that directory.
//!
//! Control files are opened without `O_CREAT` (with it the kernel answers EACCES for a missing file) and one value is
//! one `write(2)`. No path below the mount is ever followed through `..` or a link.

use super::counters::Keyed;
use super::error::{Doing, KernelError};
use super::sys::Identity;
use crate::path::{GroupPath, MAIN, SessionName};
use crate::plan::unit::is_of_unit;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// Result of an operation on the cgroup file system.
pub type Result<T> = std::result::Result<T, KernelError>;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const LOCAL_EVENTS: &str = "memory.events.local";
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// The mounted unified hierarchy.
#[derive(Debug)]
pub struct Tree {
    dir: OwnedFd,
    mount: String,
}

impl Tree {
    /// Opens the mount at `mount`.
    pub fn open(mount: &str) -> Result<Self> {
        let dir =
            fs::open(mount, DIR, Mode::empty()).map_err(|e| KernelError::new(Doing::OpenGroup, mount, e))?;
        Ok(Self {
            dir,
            mount: mount.to_owned(),
        })
    }

    /// The mount point.
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// The path of `group` as a user would type it.
    pub fn display(&self, group: &GroupPath) -> String {
        if group.is_root() {
            self.mount.clone()
        } else {
            format!("{}{group}", self.mount)
        }
    }

    /// Opens `group`.
    pub fn group(&self, group: &GroupPath) -> Result<Group> {
        let path = self.display(group);
        let relative = if group.is_root() { "." } else { group.relative() };
        let open = |relative: &str| {
            fs::openat2(&self.dir, relative, DIR, Mode::empty(), BENEATH)
                .map_err(|e| KernelError::new(Doing::OpenGroup, path.as_str(), e))
        };
        let limits = group.scope().map(|scope| open(scope.relative())).transpose()?;
        let dir = open(relative)?;
        Ok(Group { dir, path, limits })
    }

    /// The id of `group`, without opening it (see [`Group::id`]).
    pub fn id(&self, group: &GroupPath) -> Result<u64> {
        let relative = if group.is_root() { "." } else { group.relative() };
        fs::statat(&self.dir, relative, AtFlags::SYMLINK_NOFOLLOW)
            .map(|s| s.st_ino)
            .map_err(|e| KernelError::new(Doing::OpenGroup, self.display(group), e))
    }

    /// `memory.events.local` of `group`, which is not opened for it. `None` where there is no such file or group.
    pub fn local_events(&self, group: &GroupPath) -> Result<Option<Keyed>> {
        let file = match group.relative() {
            "" => LOCAL_EVENTS.to_owned(),
            relative => format!("{relative}/{LOCAL_EVENTS}"),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let text = fs::openat2(&self.dir, &*file, flags, Mode::empty(), BENEATH)
            .and_then(|file| read_record(file.as_fd()));
        match text {
            Ok(text) => Ok(Some(Keyed::parse(&text))),
            Err(errno) => {
                let error = KernelError::new(Doing::Read, format!("{}/{file}", self.mount), errno);
                if error.is_gone() { Ok(None) } else { Err(error) }
            }
        }
    }

    /// Opens `group`, or `None` where there is none.
    pub fn find(&self, group: &GroupPath) -> Result<Option<Group>> {
        match self.group(group) {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_gone() => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// One cgroup, held by its directory. It stays this very group even if another is made under its name.
#[derive(Debug)]
pub struct Group {
    dir: OwnedFd,
    path: String,
    /// The group of the scope around it, where this is the leaf of a session's scope. What that holds is read from there.
    limits: Option<OwnedFd>,
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Group {
    /// Its path as a user would type it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of one of its control files.
    pub fn file(&self, name: &str) -> String {
        match (self.path.rsplit_once('/'), self.holder(name).is_some()) {
            (Some((scope, _)), true) => format!("{scope}/{name}"),
            _ => format!("{}/{name}", self.path),
        }
    }

    /// Whether its limits are those of the systemd scope around it.
    pub fn is_in_scope(&self) -> bool {
        self.limits.is_some()
    }

    /// Whether the file is read from the scope around it, and is systemd's alone to write.
    pub fn is_on_scope(&self, file: &str) -> bool {
        self.holder(file).is_some()
    }

    /// The group of the scope, where the file is that one's.
    fn holder(&self, file: &str) -> Option<BorrowedFd<'_>> {
        self.limits.as_ref().filter(|_| is_of_unit(file)).map(AsFd::as_fd)
    }

    /// Its id: the inode number of its directory, which a later group of the same name does not share.
    pub fn id(&self) -> Result<u64> {
        fs::fstat(&self.dir)
            .map(|s| s.st_ino)
            .map_err(|e| KernelError::new(Doing::Read, self.path.as_str(), e))
    }

    /// How many child groups it has: a directory has a link from each of its own (kernfs counts them so), and asking is
    /// cheaper than to list them. `None` where it cannot be told.
    pub fn count_children(&self) -> Option<u64> {
        let links = fs::fstat(&self.dir).ok()?.st_nlink;
        links.checked_sub(2)
    }

    pub(super) fn open(&self, name: &str, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        let holder = self.holder(name).unwrap_or(self.dir.as_fd());
        // Its writes would be undone, and not all at once: they are systemd's.
        if self.holder(name).is_some() && flags != OFlags::RDONLY {
            return Err(Errno::PERM);
        }
        fs::openat(
            holder,
            name,
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
    }

    /// Opens a control file of the scope around it; `None` where it is not the leaf of one.
    pub(super) fn open_on_scope(&self, name: &str) -> Option<std::result::Result<OwnedFd, Errno>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let scope = self.limits.as_ref()?;
        Some(fs::openat(scope, name, flags, Mode::empty()))
    }

    /// Opens a control file for polling (`POLLPRI`).
    pub fn watch(&self, name: &str) -> Result<OwnedFd> {
        self.open(name, OFlags::RDONLY)
            .map_err(|e| KernelError::new(Doing::Read, self.file(name), e))
    }

    /// The text of a control file.
    pub fn read(&self, name: &str) -> Result<String> {
        let read = match name {
            "cgroup.procs" | "cgroup.threads" => read_all,
            _ => read_record,
        };
        let text = self.open(name, OFlags::RDONLY).and_then(|fd| read(fd.as_fd()));
        text.map_err(|e| KernelError::new(Doing::Read, self.file(name), e))
    }

    /// The text of a control file without its last newline, or `None` where the file, or the group, is not there.
    pub fn get(&self, name: &str) -> Result<Option<String>> {
        match self.read(name) {
            Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
            Err(e) if e.is_gone() || e.errno == Errno::OPNOTSUPP => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The counters of a flat keyed control file; empty where it is not there.
    pub fn counters(&self, name: &str) -> Result<Keyed> {
        Ok(self
            .get(name)?
            .map(|text| Keyed::parse(&text))
            .unwrap_or_default())
    }

    /// `memory.events.local` of this group, with that of the scope around it: `oom` rises where the limit is, `oom_kill`
    /// where the victim was. `None` where there is no such file.
    pub fn local_events(&self) -> Result<Option<Keyed>> {
        let Some(own) = self.get(LOCAL_EVENTS)?.map(|text| Keyed::parse(&text)) else {
            return Ok(None);
        };
        let Some(scope) = &self.limits else {
            return Ok(Some(own));
        };
        let text = fs::openat(
            scope,
            LOCAL_EVENTS,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|fd| read_record(fd.as_fd()));
        match text {
            Ok(text) => Ok(Some(own.plus(&Keyed::parse(&text)))),
            Err(e) => Err(KernelError::new(Doing::Read, self.file(LOCAL_EVENTS), e)),
        }
    }

    /// Whether a control file is there.
    pub fn has(&self, name: &str) -> bool {
        fs::accessat(
            self.holder(name).unwrap_or(self.dir.as_fd()),
            name,
            fs::Access::EXISTS,
            AtFlags::empty(),
        )
        .is_ok()
    }

    /// The same where a file that is not there means that a limit is not enforced: what else the kernel may answer does
    /// not say so.
    pub fn try_has(&self, name: &str) -> Result<bool> {
        let holder = self.holder(name).unwrap_or(self.dir.as_fd());
        match fs::accessat(holder, name, fs::Access::EXISTS, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(KernelError::new(Doing::Read, self.file(name), e)),
        }
    }

    /// Writes `value`, in one write.
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        self.write_open(name, value, OFlags::WRONLY).map(drop)
    }

    /// Writes `value` and returns what the file then holds: the kernel rounds, and what is in force is what it says.
    pub fn write_and_read_back(&self, name: &str, value: &str) -> Result<String> {
        let fd = self.write_open(name, value, OFlags::RDWR)?;
        let text = read_record(fd.as_fd()).map_err(|e| KernelError::new(Doing::Read, self.file(name), e))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn write_open(&self, name: &str, value: &str, flags: OFlags) -> Result<OwnedFd> {
        let refused = |e| KernelError::new(Doing::Write, self.file(name), e).with_value(value);
        // An empty write succeeds and changes nothing.
        if value.is_empty() {
            return Err(refused(Errno::INVAL));
        }
        let fd = self.open(name, flags).map_err(refused)?;
        match rustix::io::pwrite(&fd, value.as_bytes(), 0) {
            Ok(n) if n == value.len() => Ok(fd),
            Ok(_) => Err(refused(Errno::IO)),
            Err(e) => Err(refused(e)),
        }
    }

    /// Makes the child group `name`; an existing one is an error (EEXIST).
    pub fn make_child(&self, name: &str) -> Result<Group> {
        let mode = Mode::from_raw_mode(0o755);
        fs::mkdirat(&self.dir, name, mode)
            .map_err(|e| KernelError::new(Doing::MakeGroup, self.file(name), e))?;
        // One that was made and cannot be opened is of no use to anybody: an error means that nothing was made.
        self.child(name).inspect_err(|_| {
            let _ = fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR);
        })
    }

    /// Opens the child group `name`.
    pub fn child(&self, name: &str) -> Result<Group> {
        let path = self.file(name);
        let dir = fs::openat2(&self.dir, name, DIR, Mode::empty(), BENEATH)
            .map_err(|e| KernelError::new(Doing::OpenGroup, path.as_str(), e))?;
        let own_name = self.path.rsplit('/').next().unwrap_or_default();
        let is_leaf = name == MAIN && SessionName::of_scope(own_name).is_some();
        let limits = is_leaf.then(|| self.dir.try_clone()).transpose();
        let limits = limits.map_err(|_| KernelError::new(Doing::OpenGroup, path.as_str(), Errno::MFILE))?;
        Ok(Group { dir, path, limits })
    }

    /// Removes the empty child group `name`. One that is gone already is no error.
    ///
    /// The kernel keeps a group busy for a moment after its last process ended, so EBUSY of a group that is
    /// unpopulated and childless is tried again a few times.
    pub fn remove_child(&self, name: &str) -> Result<()> {
        let mut pause = Duration::from_millis(1);
        for attempt in 0.. {
            match fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
                Err(Errno::BUSY) if attempt < 8 && self.child_looks_empty(name) => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err(e) => return Err(KernelError::new(Doing::RemoveGroup, self.file(name), e)),
            }
        }
        unreachable!("the loop ends by returning");
    }

    /// Removes the child group `name` of a session together with the groups that the session made below it: they are
    /// part of it and go with it. Only what is empty goes, the deepest first; a process anywhere below keeps the groups
    /// above it, and the error is then that of [`Group::remove_child`].
    pub fn remove_session(&self, name: &str) -> Result<()> {
        // Most sessions make no groups of their own: nothing has to be listed then.
        match fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(_) => {}
        }
        match self.child(name) {
            Ok(child) => child.remove_below(),
            Err(e) if e.is_gone() => return Ok(()),
            Err(e) => return Err(e),
        }
        self.remove_child(name)
    }

    /// Failures are left to the group above, whose own removal then fails with the reason.
    fn remove_below(&self) {
        for name in self.children().unwrap_or_default() {
            if let Ok(child) = self.child(&name)
                && !child.populated().unwrap_or(true)
            {
                child.remove_below();
                let _ = self.remove_child(&name);
            }
        }
    }

    fn child_looks_empty(&self, name: &str) -> bool {
        let Ok(child) = self.child(name) else { return true };
        !child.populated().unwrap_or(true) && child.children().is_ok_and(|c| c.is_empty())
    }

    /// Names of the child groups, unordered; empty where the group is gone.
    pub fn children(&self) -> Result<Vec<String>> {
        let refused = |e| KernelError::new(Doing::Read, self.path.as_str(), e);
        let mut names = Vec::new();
        // The listing opens `.` anew, which a removed group does not have any more.
        let entries = match fs::Dir::read_from(&self.dir) {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(names),
            other => other.map_err(refused)?,
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT | Errno::NODEV) => break,
                Err(e) => return Err(refused(e)),
            };
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == fs::FileType::Directory && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Pids in this very group. The kernel gives them unordered, may repeat one, and leaves out zombies: decide
    /// emptiness by [`Group::populated`] only.
    pub fn procs(&self) -> Result<Vec<i32>> {
        Ok(self
            .get("cgroup.procs")?
            .unwrap_or_default()
            .lines()
            .filter_map(|l| l.parse().ok())
            .collect())
    }

    /// Whether a live process is in this group or below. A group that is gone is not populated.
    pub fn populated(&self) -> Result<bool> {
        Ok(self.counters("cgroup.events")?.get("populated").unwrap_or(0) != 0)
    }

    /// Kills every process in and below the group (`cgroup.kill`: recursive, and no fork escapes it).
    pub fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Waits until no process is in or below the group. The error names who is left.
    pub fn wait_empty(&self, deadline: Duration) -> Result<()> {
        if self.is_empty_within(deadline)? {
            return Ok(());
        }
        let who = self.describe_some()?;
        Err(KernelError::new(Doing::WaitEmpty, self.path.as_str(), Errno::TIMEDOUT).with_detail(who))
    }

    /// Waits until no process is in or below the group; `false` where some are when the time is over.
    pub fn is_empty_within(&self, deadline: Duration) -> Result<bool> {
        self.events_within(deadline, |events| events.get("populated") != Some(1))
    }

    /// Waits until `cgroup.events` is as wanted; `false` where it is not when the time is over. A group that is gone is
    /// as wanted, whatever that is.
    pub fn events_within(&self, deadline: Duration, is_so: impl Fn(&Keyed) -> bool) -> Result<bool> {
        let started = Instant::now();
        let watch = match self.watch("cgroup.events") {
            Err(e) if e.is_gone() => return Ok(true),
            other => other?,
        };
        loop {
            // Read through the very descriptor that is polled: one that was never read is ready at once, for ever.
            match read_record(watch.as_fd()) {
                Ok(text) if !is_so(&Keyed::parse(&text)) => {}
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => return Ok(true),
                Err(e) => return Err(KernelError::new(Doing::Read, self.file("cgroup.events"), e)),
            }
            let left = deadline.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            // The notification may be missed when it falls between the read and the poll: look again at least
            // every 100 ms.
            let pause = Timespec::try_from(left.min(Duration::from_millis(100))).unwrap_or_default();
            let _ = poll(&mut [PollFd::new(&watch, PollFlags::PRI)], Some(&pause));
        }
    }

    /// A few of the processes in and below the group, for people.
    pub fn describe_some(&self) -> Result<String> {
        let some = self.thread_groups_below()?.into_iter().take(8);
        let list: Vec<String> = some.map(super::process::describe).collect();
        Ok(list.join(", "))
    }

    /// How many tasks are in and below the group (`pids.current`), where that is counted. Cheaper than any list of them.
    pub fn tasks(&self) -> Option<u64> {
        self.get("pids.current").ok()??.parse().ok()
    }

    /// Every pid in and below the group.
    pub fn processes_below(&self) -> Result<Vec<i32>> {
        let mut pids = self.procs()?;
        for name in self.children()? {
            match self.child(&name) {
                Ok(child) => pids.extend(child.processes_below()?),
                Err(e) if e.is_gone() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(pids)
    }

    /// Every process in and below the group, also one of whose threads only some are there, and one whose main thread
    /// has ended while others live on.
    fn thread_groups_below(&self) -> Result<Vec<i32>> {
        let mut pids = self.procs()?;
        let threads = self.get("cgroup.threads")?.unwrap_or_default();
        for thread in threads.lines().filter_map(|l| l.parse().ok()) {
            if !pids.contains(&thread)
                && let Some(pid) = super::process::thread_group(thread)
                && !pids.contains(&pid)
            {
                pids.push(pid);
            }
        }
        for name in self.children()? {
            match self.child(&name) {
                Ok(child) => pids.extend(child.thread_groups_below()?),
                Err(e) if e.is_gone() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(pids)
    }

    /// Sends SIGKILL to each process in and below the group. `cgroup.kill` signals main threads only: a process whose
    /// main thread has ended while others live on survives it.
    pub fn kill_each(&self) -> Result<()> {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let held: Vec<_> = self
            .thread_groups_below()?
            .into_iter()
            // No more at a time than a low limit of open files allows; the next round takes the rest.
            .take(256)
            .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
            .collect();
        // Looked at again while the descriptors hold them, so that a pid that was reused meanwhile is never hit.
        let inside = self.thread_groups_below()?;
        for (_, process) in held.iter().filter(|(pid, _)| inside.contains(pid)) {
            // A process of another user, in a group of this one, is the kernel's to kill and was told.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        Ok(())
    }

    /// Sets the extended attribute `user.cgmgr.<key>`.
    pub fn mark(&self, key: &str, value: &str) -> Result<()> {
        let name = format!("user.cgmgr.{key}");
        fs::fsetxattr(&self.dir, name.as_str(), value.as_bytes(), XattrFlags::empty())
            .map_err(|e| KernelError::new(Doing::Mark, self.path.as_str(), e).with_value(name))
    }

    /// Removes the extended attribute `user.cgmgr.<key>`; one that is not there is no error.
    pub fn unmark(&self, key: &str) -> Result<()> {
        let name = format!("user.cgmgr.{key}");
        match fs::fremovexattr(&self.dir, name.as_str()) {
            Ok(()) | Err(Errno::NODATA | Errno::NODEV) => Ok(()),
            Err(e) => Err(KernelError::new(Doing::Mark, self.path.as_str(), e).with_value(name)),
        }
    }

    /// The extended attribute `user.cgmgr.<key>`, if it is there.
    pub fn marked(&self, key: &str) -> Option<String> {
        self.attribute(&format!("user.cgmgr.{key}"))
    }

    /// The same where it decides what is ours: only that it is not there means that it is not.
    pub fn try_marked(&self, key: &str) -> Result<Option<String>> {
        let name = format!("user.cgmgr.{key}");
        let mut value = [0u8; 256];
        match fs::fgetxattr(&self.dir, name.as_str(), &mut value) {
            Ok(size) => Ok(String::from_utf8(value[..size].to_vec()).ok()),
            Err(Errno::NODATA | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
            Err(e) => Err(KernelError::new(
                Doing::Read,
                format!("{name} of {}", self.path),
                e,
            )),
        }
    }

    /// Any extended attribute, if it is there and readable (`user.delegate` is systemd's mark of a delegated unit).
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.try_attribute(name).ok().flatten()
    }

    /// The same; that it is not there, or not to be read, is no error.
    pub fn try_attribute(&self, name: &str) -> Result<Option<String>> {
        // What others leave on a unit is on the group of the scope.
        let dir = match &self.limits {
            Some(scope) if !name.starts_with("user.cgmgr.") => scope,
            _ => &self.dir,
        };
        let mut value = vec![0u8; 256];
        let mut got = fs::fgetxattr(dir, name, &mut value);
        if got == Err(Errno::RANGE) {
            value = vec![0u8; 64 * 1024];
            got = fs::fgetxattr(dir, name, &mut value);
        }
        match got {
            Ok(size) => {
                value.truncate(size);
                Ok(String::from_utf8(value).ok())
            }
            Err(e) => {
                let error = KernelError::new(Doing::Read, self.path.as_str(), e);
                if e == Errno::NODATA || error.says_no() {
                    return Ok(None);
                }
                Err(error.with_detail(format!("its attribute {name}")))
            }
        }
    }

    /// Whether `user`, who is not root, may make groups here, move processes in or take controllers away.
    pub fn writable_for(&self, user: &Identity) -> bool {
        let his = |name: &str| {
            fs::statat(&self.dir, name, AtFlags::empty()).is_ok_and(|file| {
                let (owner, group) = (file.st_uid == user.uid, user.gid == file.st_gid);
                let bit = match (owner, group || user.groups.contains(&file.st_gid)) {
                    (true, _) => 0o200,
                    (_, true) => 0o020,
                    _ => 0o002,
                };
                file.st_mode & bit != 0
            })
        };
        [".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"]
            .into_iter()
            .any(his)
    }

    /// Whether this process may move processes in and make groups here.
    pub fn writable(&self) -> Result<bool> {
        for name in [".", "cgroup.procs", "cgroup.subtree_control"] {
            match fs::accessat(&self.dir, name, fs::Access::WRITE_OK, AtFlags::EACCESS) {
                Ok(()) => {}
                Err(e) => {
                    let error = KernelError::new(Doing::OpenGroup, self.file(name), e);
                    return if error.says_no() { Ok(false) } else { Err(error) };
                }
            }
        }
        Ok(true)
    }
}

/// Reads a file of one record: a control file with a value, or one of /proc/self. The kernel makes its buffer as large as
/// the record (seq_file's `single_open`), so what comes short of the space given is all there is, and one call does.
pub fn read_record(fd: BorrowedFd<'_>) -> std::result::Result<String, Errno> {
    read_until(fd, |got, space| got < space)
}

/// Reads a file of any number of records (a list of pids or mounts) from its start to its end.
pub fn read_all(fd: BorrowedFd<'_>) -> std::result::Result<String, Errno> {
    read_until(fd, |got, _| got == 0)
}

fn read_until(
    fd: BorrowedFd<'_>,
    is_end: impl Fn(usize, usize) -> bool,
) -> std::result::Result<String, Errno> {
    let mut text = Vec::with_capacity(4096);
    loop {
        text.reserve(1024);
        let space = text.capacity() - text.len();
        let offset = text.len() as u64;
        match rustix::io::pread(fd, spare_capacity(&mut text), offset) {
            Ok(got) if is_end(got, space) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(String::from_utf8(text).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}
