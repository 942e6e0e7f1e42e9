//! A process that is held by a descriptor, so that another one that gets its pid later is told from it; and what /proc
//! says of a process that this one did not start.

use super::error::{Doing, KernelError};
use super::group::Group;
use super::process;
use super::sys::Identity;
use nix::unistd::{Pid, getpgid, getsid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};
use std::ffi::OsString;

/// `PF_KTHREAD` (linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// One process, which a later process of the same pid is not.
#[derive(Debug)]
pub struct Held {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// Its name, escaped for printing.
    pub comm: String,
    pidfd: OwnedFd,
}

impl Held {
    /// Holds the process `pid`; `None` where there is none.
    ///
    /// # Errors
    ///
    /// EINVAL or ENOENT where `pid` is a thread that leads no process; EMFILE where no further file may be opened.
    pub fn open(pid: i32) -> Result<Option<Self>, Errno> {
        // rustix takes negative numbers for a mistake of its caller's.
        let Some(raw) = rustix::process::Pid::from_raw(pid.max(0)) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            other => other?,
        };
        let (Some(start), Some(comm)) = (process::start_time(pid), process::comm(pid)) else {
            return Ok(None);
        };
        let held = Self {
            pid,
            start,
            comm,
            pidfd,
        };
        // What was read is of this very process only if that has not ended by now.
        Ok(held.lives().then_some(held))
    }

    /// Whether it has not ended. A process whose main thread has ended lives as long as another of its threads does.
    pub fn lives(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&Timespec::default())) {
                Err(Errno::INTR) => {}
                Ok(0) => return true,
                Ok(_) | Err(_) => return false,
            }
        }
    }
}

/// Whether this process may move others from one place below `group` to another.
///
/// # Errors
///
/// It may not, or that cannot be told.
pub fn may_move_through(group: &Group) -> Result<(), KernelError> {
    let may = accessat(group, "cgroup.procs", Access::WRITE_OK, AtFlags::EACCESS);
    may.map_err(|errno| KernelError::new(Doing::Write, group.file("cgroup.procs"), errno))
}

/// Whether it is a thread of the kernel's own.
pub fn is_kernel_thread(pid: i32) -> bool {
    process::stat(pid).is_some_and(|stat| stat.flags & KERNEL_THREAD != 0)
}

/// Its parent's pid.
pub fn parent(pid: i32) -> Option<i32> {
    Some(process::stat(pid)?.parent).filter(|parent| *parent > 0)
}

/// The processes above it, the nearest first.
pub fn ancestors(pid: i32) -> Vec<i32> {
    let mut above = Vec::new();
    let mut next = parent(pid);
    while let Some(pid) = next {
        // Pids may be reused between two looks: what goes round in a circle ends.
        if above.contains(&pid) {
            break;
        }
        above.push(pid);
        next = parent(pid);
    }
    above
}

/// Its process group and its session in the terminal's sense.
pub fn job(pid: i32) -> Option<(i32, i32)> {
    let pid = Pid::from_raw(pid);
    Some((
        getpgid(Some(pid)).ok()?.as_raw(),
        getsid(Some(pid)).ok()?.as_raw(),
    ))
}

/// Its command line; empty where it is gone or has none.
pub fn command_line(pid: i32) -> Vec<OsString> {
    let text = process::read_list(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = text.split_terminator('\0');
    words.map(OsString::from).collect()
}

/// Whose it is: root, where any of its four user ids is root's, for it can then become root again.
pub fn owner(pid: i32) -> Option<Identity> {
    let status = process::read(&format!("/proc/{pid}/status")).ok()?;
    let numbers = |key: &str| -> Option<Vec<u32>> {
        let line = process::line_of(&status, key)?;
        Some(
            line.split_ascii_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect(),
        )
    };
    let uids = numbers("Uid")?;
    Some(Identity {
        uid: if uids.contains(&0) { 0 } else { *uids.get(1)? },
        gid: *numbers("Gid")?.get(1)?,
        groups: numbers("Groups").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_held_until_it_ends() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id() as i32;
        let held = Held::open(pid).unwrap().unwrap();
        assert!(held.lives() && held.start > 0);
        assert_eq!(parent(pid), Some(std::process::id() as i32));
        assert_eq!(ancestors(pid).first(), Some(&(std::process::id() as i32)));
        assert_eq!(job(pid), job(std::process::id() as i32));
        assert!(!is_kernel_thread(pid));
        let euid = rustix::process::geteuid().as_raw();
        assert_eq!(owner(pid).unwrap().uid, euid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!held.lives());
        assert!(
            Held::open(pid)
                .unwrap()
                .is_none_or(|other| other.start != held.start)
        );
        assert!(Held::open(0).unwrap().is_none() && Held::open(-5).unwrap().is_none());
    }

    #[test]
    fn a_command_line_is_words() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line", ""])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        // The kernel lets its parent go on before it has put the new program's arguments in place.
        for _ in 0..500 {
            if !command_line(pid).is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(command_line(pid), ["sh", "-c", "read line", ""]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(command_line(pid), [""; 0]);
    }
}
