//! Job control: cgmgr and the session's command are one job of the caller's shell.
//!
//! The command stays in the caller's process group, so the terminal's keys reach both. An interactive shell makes
//! groups of its own and takes the terminal; when it stops or dies, the terminal must come back to the job's leader.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp};
use rustix::fs::{Mode, OFlags};
use std::fs::File;

/// The caller's controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    /// Whether the caller's group was in the foreground when the session began.
    was_foreground: bool,
}

impl Terminal {
    /// The controlling terminal, if this process has one.
    pub fn open() -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        let tty = File::from(rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?);
        let was_foreground = tcgetpgrp(&tty).is_ok_and(|group| group == getpgrp());
        Some(Self { tty, was_foreground })
    }

    /// Takes the terminal back from a group that holds it no longer (its leader ended, perhaps killed). The caller
    /// has SIGTTOU blocked, as tcsetpgrp(3) from the background demands.
    pub fn take_back(&self) {
        if self.was_foreground && tcgetpgrp(&self.tty).is_ok_and(|group| group != getpgrp()) {
            let _ = tcsetpgrp(&self.tty, getpgrp());
        }
    }

    /// The command has stopped: stop with it, so that the caller's shell sees a stopped job; and once the shell goes
    /// on with the job, let the command go on too, in the foreground if the job is.
    pub fn stop_with(&self, command: i32) {
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
