//! A pseudo-terminal with a program on it, used as a person would.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};

use crate::cgmgr::{PATIENCE, shell_status};

/// What keys send.
pub const CTRL_C: &str = "\x03";
pub const CTRL_Z: &str = "\x1a";

/// A terminal whose other side we are.
pub struct Pty {
    master: File,
    // Open as long as we are, so that the terminal outlives each program on it.
    _slave: OwnedFd,
    /// The program on the terminal.
    pub child: Child,
    seen: String,
}

impl Pty {
    /// Starts a program as the leader of a terminal session of its own.
    pub fn start(command: &mut Command) -> Pty {
        let pair = openpty(None, None).expect("a pseudo-terminal");
        let stdio = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        command
            .env("TERM", "dumb")
            .env("PS1", "outer> ")
            .env("HISTFILE", "/dev/null");
        let slave = pair.slave.as_raw_fd();
        // SAFETY: setsid(2) and an ioctl in the child.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() < 0 || libc::ioctl(slave, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("a program");
        let slave = pair.slave.try_clone().expect("a descriptor");
        for fd in [pair.master.as_fd(), slave.as_fd()] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).expect("a flag");
        }
        // SAFETY: the descriptor is ours alone from here on.
        let master = unsafe { File::from_raw_fd(pair.master.into_raw_fd()) };
        Pty {
            master,
            _slave: slave,
            child,
            seen: String::new(),
        }
    }

    /// An interactive bash without anybody's settings.
    pub fn shell() -> Pty {
        let mut pty = Pty::start(Command::new("bash").args(["--norc", "--noprofile", "-i"]));
        pty.expect("outer> ");
        pty
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Types a line.
    pub fn line(&mut self, text: &str) {
        self.send(&format!("{text}\n"));
    }

    /// Waits for a text, and forgets everything up to its end. What was typed is echoed: a text that is to come from
    /// a program must differ from what was typed.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "`{text}` never came; this did: {:?}",
                self.seen
            );
            self.read();
        }
    }

    fn read(&mut self) {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(200_u8)) != Ok(1) {
            return;
        }
        let mut buffer = [0; 4096];
        let count = rustix::io::read(&self.master, &mut buffer).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }

    /// The process group that has the terminal.
    pub fn foreground(&self) -> i32 {
        tcgetpgrp(&self.master).map_or(0, |group| group.as_raw_nonzero().get())
    }

    /// Changes the terminal's size, as a window does.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).expect("a terminal");
    }

    /// Waits for the end of the program on the terminal: its exit status.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            self.read();
            if let Some(status) = self.child.try_wait().expect("a child") {
                return shell_status(status);
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "it does not end; it said: {:?}",
                self.seen
            );
        }
    }

    /// What has come and was not expected yet.
    pub fn rest(&mut self) -> String {
        self.read();
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
