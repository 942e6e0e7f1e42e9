//! The signals of a supervisor: taken by descriptor, and passed on to the command where they have not reached it
//! already.

use crate::kernel::sys::CallersSignals;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgid, getpgrp};
use rustix::fd::{AsFd, BorrowedFd};

/// Signals that are passed on to the command.
const FORWARDED: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// `si_code` of a signal that the kernel itself sent: the terminal, to the whole foreground group.
const SI_KERNEL: i32 = 0x80;

/// A supervisor's signals.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    /// How the caller had them: so the command gets them.
    pub callers: CallersSignals,
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Signals {
    /// Blocks the signals that a supervisor takes by descriptor. To be called before the launch.
    pub fn take() -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        for signal in FORWARDED {
            set.add(signal);
        }
        // SIGTTOU too: a blocked one lets a background process give the terminal to another group (tcsetpgrp(3)).
        set.add(Signal::SIGCHLD);
        set.add(Signal::SIGTTOU);
        let callers = CallersSignals::block(&set).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, callers })
    }

    /// Passes on what has come in since the last call. What the terminal sent has reached the command already where it
    /// is in this process's group; one that made a group of its own (timeout does) hears nothing from the terminal as
    /// long as this process's group is in the foreground.
    pub fn pass_on(&self, command: i32) {
        self.pass_on_unless(command, |code| {
            code == SI_KERNEL && getpgid(Some(Pid::from_raw(command))).is_ok_and(|group| group == getpgrp())
        });
    }

    /// Passes on what came in before the command was executed, the terminal's too: what came before its process existed
    /// has not reached it. What came after that waits for it, and waits once however often it is sent.
    pub fn pass_on_early(&self, command: i32) {
        self.pass_on_unless(command, |_| false);
    }

    fn pass_on_unless(&self, command: i32, heard: impl Fn(i32) -> bool) {
        while let Ok(Some(info)) = self.fd.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else {
                continue;
            };
            if FORWARDED.contains(&signal) && !heard(info.ssi_code) {
                let _ = kill(Pid::from_raw(command), signal);
            }
        }
    }
}
