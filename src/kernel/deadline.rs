//! A write that may block, with a deadline: lowering a memory limit makes the writer itself take memory back, which can
//! take as long as the disk does (mm/memcontrol.c, memory_max_write).
//!
//! A process of its own does the write, so that it can be cut off whatever the kernel is at: the loop in the kernel ends
//! for a signal, and a process that is killed ends once it is out of it. Nothing of it outlives the caller.

use super::error::{Doing, KernelError};
use super::group::{Group, Result};
use super::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};
use std::time::{Duration, Instant};

/// How long a write that was cut off may take to let go.
const LET_GO: Duration = Duration::from_secs(2);

/// How a write with a deadline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// The kernel took it, in time.
    Done,
    /// It was cut off, and nothing of it is left. What the file holds is to be read.
    Late,
    /// It was cut off, and the kernel does not let this process go yet: it is killed and ends when it is let go.
    Stuck(i32),
}

impl Group {
    /// Writes `value` to the control file `name`, in a process of its own that is cut off after `deadline`.
    ///
    /// # Errors
    ///
    /// The kernel refused it, or no process could be made.
    pub fn write_within(&self, name: &str, value: &str, deadline: Duration) -> Result<Within> {
        let refused = |e| KernelError::new(Doing::Write, self.file(name), e).with_value(value);
        let file = self.open(name, OFlags::WRONLY).map_err(refused)?;
        let pid = sys::write_apart(file.as_fd(), value.as_bytes()).map_err(refused)?;
        let process = Pid::from_raw(pid).ok_or(refused(Errno::SRCH))?;
        // Not waited for yet: the pid is that process's own.
        let process = pidfd_open(process, PidfdFlags::empty()).map_err(refused)?;
        if !has_ended_within(&process, deadline) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
            if !has_ended_within(&process, LET_GO) {
                return Ok(Within::Stuck(pid));
            }
        }
        let answer = match waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED) {
            // The caller was started with SIGCHLD ignored: nobody is told how a child ended. What the file holds is.
            Err(Errno::CHILD) => return Ok(Within::Done),
            other => other.map_err(refused)?,
        };
        match answer.as_ref().and_then(WaitIdStatus::exit_status) {
            Some(0) => Ok(Within::Done),
            Some(errno) => Err(refused(Errno::from_raw_os_error(errno))),
            None => Ok(Within::Late),
        }
    }
}

fn has_ended_within(process: &OwnedFd, deadline: Duration) -> bool {
    let started = Instant::now();
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        let pause = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&pause)) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            _ => return true,
        }
    }
}
