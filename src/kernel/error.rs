//! What the kernel refused, in words: one place translates an errno of cgroupfs into its meaning and its remedy.
//! May not do I/O.
#![deny(clippy::disallowed_methods)]

use rustix::io::Errno;
use std::fmt;

/// The kind of operation that failed; with the errno it decides what the failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Opening a group's directory.
    OpenGroup,
    /// Reading a control file or a file of /proc.
    Read,
    /// Writing a control file.
    Write,
    /// Writing a control file and finding another value there afterwards.
    ReadBack,
    /// `mkdir` of a group.
    MakeGroup,
    /// `rmdir` of a group.
    RemoveGroup,
    /// Setting or reading a `user.cgmgr.*` extended attribute.
    Mark,
    /// `clone3(CLONE_INTO_CGROUP)` into a group.
    Place,
    /// Writing a pid to `cgroup.procs`.
    Move,
    /// Waiting until a group holds no process.
    WaitEmpty,
    /// Anything else, named by the path.
    Other,
}

/// A refused operation: what, where, with which value, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// What was tried.
    pub doing: Doing,
    /// The file or directory, as a user would type it.
    pub path: String,
    /// The value that was to be written, where there was one.
    pub value: Option<String>,
    /// The kernel's raw answer (Rust's `ErrorKind` folds ENODEV, ERANGE and ESRCH together).
    pub errno: Errno,
    /// What was seen around the failure, e.g. who sits in the group.
    pub detail: Option<String>,
}

impl KernelError {
    /// An error of `doing` at `path`.
    pub fn new(doing: Doing, path: impl Into<String>, errno: Errno) -> Self {
        Self {
            doing,
            path: path.into(),
            value: None,
            errno,
            detail: None,
        }
    }

    /// The same error, naming the value that was to be written.
    pub fn with_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// The same error, naming what was seen around it.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Whether the group is simply not there any more (ENOENT on a path, ENODEV on an open file): during teardown
    /// this is no failure.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno, Errno::NOENT | Errno::NODEV)
    }

    /// Whether the kernel says that something is not there, not offered or not allowed. Any other answer (an I/O error,
    /// no memory) says nothing about the host.
    pub fn says_no(&self) -> bool {
        matches!(
            self.errno,
            Errno::NOENT
                | Errno::NOTDIR
                | Errno::NODEV
                | Errno::ACCESS
                | Errno::PERM
                | Errno::ROFS
                | Errno::OPNOTSUPP
                | Errno::NOSYS
        )
    }

    /// What this errno means for this operation (cgroup-v2.rst, and observed on 6.1 and 6.12), or `None` where the
    /// kernel's own words are all there is to say.
    pub fn meaning(&self) -> Option<&'static str> {
        let file = self.path.rsplit('/').next().unwrap_or("");
        let subtree = file == "cgroup.subtree_control";
        Some(match (self.doing, self.errno) {
            (Doing::Write, Errno::BUSY) if subtree => {
                "processes sit in this group, or a child still uses the controller"
            }
            (Doing::Write, Errno::NOENT) if subtree => "the controller is not available in this group",
            (Doing::Write, Errno::INVAL) if subtree => "no such controller in this kernel",
            (Doing::Write | Doing::Place | Doing::Move, Errno::OPNOTSUPP) => {
                "the group is threaded, or invalid because its parent is"
            }
            (Doing::Write | Doing::Read, Errno::NOENT) => {
                "this kernel has no such control file here: the controller is not enabled for this group, or the \
                 kernel is too old for it"
            }
            (Doing::Write, Errno::RANGE | Errno::INVAL) => "the kernel does not take this value",
            (Doing::Write, Errno::PERM) => {
                "this group is the root of a cgroup namespace: its limits are set outside"
            }
            (_, Errno::ACCESS) | (Doing::Mark | Doing::MakeGroup, Errno::PERM) => {
                "this group is not delegated to you"
            }
            (_, Errno::ROFS) => "the cgroup file system is mounted read-only",
            (Doing::MakeGroup, Errno::AGAIN) => {
                "cgroup.max.descendants or cgroup.max.depth of an ancestor is reached"
            }
            (Doing::MakeGroup, Errno::EXIST) => "something is there already that cgmgr did not make",
            (Doing::MakeGroup, Errno::NOSPC | Errno::NOMEM) => "the kernel has no room for another group",
            (Doing::RemoveGroup, Errno::BUSY) => "processes or child groups are still inside",
            (Doing::Place | Doing::Move, Errno::BUSY) => {
                "the group has controllers enabled for children: processes may live in leaves only"
            }
            (Doing::Place, Errno::AGAIN) => "pids.max of the group or of an ancestor is reached",
            (Doing::Move, Errno::SRCH) => "no such process",
            (Doing::Move, Errno::INVAL) => "kernel threads cannot be moved",
            (_, Errno::NODEV) => "the group was removed meanwhile",
            (Doing::OpenGroup | Doing::Place, Errno::NOENT) => {
                "the group does not exist, or was removed meanwhile"
            }
            (Doing::WaitEmpty, Errno::TIMEDOUT) => "processes did not end in time",
            _ => return None,
        })
    }

    /// One line of remedy.
    pub fn help(&self) -> &'static str {
        match (self.doing, self.errno) {
            (_, Errno::ACCESS) | (Doing::Mark | Doing::MakeGroup, Errno::PERM) => {
                "run as root, or give this user a delegated group; `cgmgr doctor` shows which"
            }
            (_, Errno::ROFS) => "mount it read-write, or use `--backend process`",
            (Doing::MakeGroup, Errno::EXIST) => "choose another name, or remove that directory",
            (Doing::MakeGroup, Errno::AGAIN) => {
                "raise the limit on groups named above; one on descendants also makes room as other sessions end"
            }
            (Doing::MakeGroup, Errno::NOSPC | Errno::NOMEM) => {
                "end other sessions; `cgmgr status` lists them"
            }
            (Doing::Write, Errno::BUSY) | (Doing::Place | Doing::Move, Errno::BUSY) => {
                "move the processes named above into a leaf group first"
            }
            (Doing::Place, Errno::AGAIN) => "raise workloads.pids or pids of the role, or end other sessions",
            (Doing::RemoveGroup, Errno::BUSY) => "`cgmgr kill` ends what is inside; then try again",
            (Doing::WaitEmpty, _) => {
                "look at the processes named above: they may be in an uninterruptible sleep"
            }
            (Doing::Write | Doing::Read, Errno::NOENT) => "`cgmgr doctor` shows what this kernel can enforce",
            (Doing::Write | Doing::ReadBack, _) => "`cgmgr explain` shows the value and where it comes from",
            _ => "`cgmgr doctor` shows what this host can do",
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        let value = self.value.as_deref().unwrap_or("");
        match self.doing {
            Doing::OpenGroup => write!(f, "cannot open {path}")?,
            Doing::Read => write!(f, "cannot read {path}")?,
            Doing::Write => write!(f, "cannot write `{value}` to {path}")?,
            Doing::ReadBack => {
                write!(f, "wrote `{value}` to {path} but the kernel did not take it")?;
                if let Some(detail) = &self.detail {
                    write!(f, ": {detail}")?;
                }
                return Ok(());
            }
            Doing::MakeGroup => write!(f, "cannot make {path}")?,
            Doing::RemoveGroup => write!(f, "cannot remove {path}")?,
            Doing::Mark => write!(f, "cannot set attribute {value} of {path}")?,
            Doing::Place => write!(f, "cannot start a process in {path}")?,
            Doing::Move => write!(f, "cannot move process {value} to {path}")?,
            Doing::WaitEmpty => write!(f, "{path} did not become empty")?,
            Doing::Other => write!(f, "{path}")?,
        }
        write!(f, ": {}", std::io::Error::from(self.errno))?;
        if let Some(meaning) = self.meaning() {
            write!(f, ": {meaning}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl std::error::Error for KernelError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_place_value_reason_and_remedy() {
        let e = KernelError::new(
            Doing::Write,
            "/sys/fs/cgroup/a/cgroup.subtree_control",
            Errno::BUSY,
        )
        .with_value("+memory")
        .with_detail("pid 12 bash");
        assert_eq!(
            e.to_string(),
            "cannot write `+memory` to /sys/fs/cgroup/a/cgroup.subtree_control: Device or resource busy (os error \
             16): processes sit in this group, or a child still uses the controller (pid 12 bash)"
        );
        assert!(e.help().contains("leaf group"));
    }

    #[test]
    fn a_missing_control_file_is_not_called_a_missing_group() {
        let e = KernelError::new(Doing::Write, "/sys/fs/cgroup/a/memory.max", Errno::NOENT).with_value("1");
        assert!(e.to_string().contains("no such control file"), "{e}");
    }
}
