//! Job control: cgmgr and the session's command are one job of the caller's shell.
//!
//! The command stays in the caller's process group, so the terminal's keys reach both. An interactive shell makes
//! groups of its own and takes the terminal; when it stops or dies, the terminal must come back to the job's leader.

use crate::kernel::process;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp, getppid, getsid, tcgetpgrp, tcsetpgrp};
use rustix::fs::{Mode, OFlags};
use std::fs::File;

/// The caller's controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
}

impl Terminal {
    /// The controlling terminal, if this process has one.
    pub fn open() -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        let tty = File::from(rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?);
        Some(Self { tty })
    }

    /// Takes the terminal back from a group of the session, or from one that is no more: a shell in the session was
    /// killed before it could give it back. What the caller's shell put into the foreground meanwhile keeps it. The
    /// caller has SIGTTOU blocked, as tcsetpgrp(3) from the background demands.
    pub fn take_back(&self) {
        let Ok(group) = tcgetpgrp(&self.tty) else { return };
        if group == getpgrp() {
            return;
        }
        let is_gone = killpg(group, None) == Err(Errno::ESRCH);
        let is_ours = || process::descendants(std::process::id() as i32).contains(&group.as_raw());
        if is_gone || is_ours() {
            let _ = tcsetpgrp(&self.tty, getpgrp());
        }
    }

    /// The command was stopped by `signal`: stop with it, so that the caller's shell sees a stopped job; and once the
    /// shell goes on with the job, let the command go on too, in the foreground if the job is.
    ///
    /// Where nobody does job control for this process (a script, a remote command, a process group that is orphaned)
    /// nobody would let it go on, so it does not stop; whoever stopped the command lets that go on by itself.
    pub fn stop_with(&self, command: i32, signal: i32) {
        let asked = matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        let still = || process::stat(command).is_some_and(|s| s.state == 'T');
        if (!asked && is_orphaned()) || !still() {
            return;
        }
        let command = Pid::from_raw(command);
        let own = getpgrp();
        let group = getpgid(Some(command)).unwrap_or(own);
        self.take_back();
        // SIGSTOP and not SIGTSTP: the latter is blocked here, and ignored in an orphaned group.
        let _ = kill(Pid::this(), Signal::SIGSTOP);
        if group == own {
            let _ = kill(command, Signal::SIGCONT);
            return;
        }
        if tcgetpgrp(&self.tty).is_ok_and(|foreground| foreground == own) {
            let _ = tcsetpgrp(&self.tty, group);
        }
        let _ = killpg(group, Signal::SIGCONT);
    }
}

/// Whether this process's group is orphaned: nobody in its session, outside of the group, is a parent of one in it
/// (POSIX, "Orphaned Process Group"). Looked at along this process's own ancestors.
fn is_orphaned() -> bool {
    let own = getpgrp();
    let mut parent = getppid();
    while parent.as_raw() > 0 && getpgid(Some(parent)) == Ok(own) {
        parent = process::stat(parent.as_raw()).map_or(Pid::from_raw(0), |s| Pid::from_raw(s.parent));
    }
    parent.as_raw() <= 0 || getsid(Some(parent)) != getsid(None)
}
