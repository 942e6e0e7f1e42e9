//! A line on the terminals of processes.

use crate::kernel::terminal;
use crate::text::escape;
use rustix::io::Errno;
use std::io;

/// Writes the sentence on each of the processes' terminals, once. Never waits: a terminal that was stopped (Ctrl-S) or
/// that nobody reads misses it. Returns what went wrong.
pub(super) fn write(processes: &[i32], sentence: &str) -> Vec<String> {
    let text = text(sentence);
    let mut told = Vec::new();
    let mut failures = Vec::new();
    for pid in processes {
        // One that ended, or has no terminal, has nobody to be told there.
        let Some(terminal) = terminal::of(*pid) else {
            continue;
        };
        if told.contains(&terminal.device) {
            continue;
        }
        told.push(terminal.device);
        match rustix::io::write(&terminal.file, text.as_bytes()) {
            // Hung up: nobody is there any more.
            Ok(_) | Err(Errno::IO) => {}
            Err(errno) => failures.push(format!(
                "the terminal of pid {pid} takes nothing: {}",
                io::Error::from(errno)
            )),
        }
    }
    failures
}

/// On a line of its own wherever the cursor is, and in whatever mode the terminal is: an editor may have it raw.
fn text(sentence: &str) -> String {
    let lines: Vec<String> = sentence.lines().map(escape).collect();
    format!("\r\ncgmgr: {}\r\n", lines.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sys::{self, Child};
    use nix::pty::openpty;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fd::OwnedFd;
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
    use std::ffi::CString;

    /// A shell that sits at a terminal of its own.
    struct Sitter {
        master: OwnedFd,
        pid: i32,
    }

    impl Sitter {
        fn new() -> Self {
            let pty = openpty(None, None).unwrap();
            let name = nix::unistd::ttyname(&pty.slave).unwrap();
            // Who leads a session and opens a terminal that is nobody's gets it.
            let script = "exec <$0 >$0 2>&1; stty raw; echo ready; read line";
            let c = |text: &str| CString::new(text).unwrap();
            let child = Child {
                candidates: vec![c("/bin/sh")],
                argv: vec![c("sh"), c("-c"), c(script), c(name.to_str().unwrap())],
                envp: vec![c("PATH=/bin:/usr/bin")],
                new_session: true,
                ..Child::default()
            };
            let pid = sys::spawn(&child, None, None).unwrap().pid;
            let sitter = Self {
                master: pty.master,
                pid,
            };
            assert_eq!(sitter.read(6), "ready\n");
            sitter
        }

        fn read(&self, length: usize) -> String {
            let mut bytes = vec![0; length];
            let mut read = 0;
            while read < length {
                read += rustix::io::read(&self.master, &mut bytes[read..]).unwrap();
            }
            String::from_utf8(bytes).unwrap()
        }

        fn has_more(&self) -> bool {
            let now = rustix::event::Timespec::default();
            poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&now)).unwrap() > 0
        }
    }

    impl Drop for Sitter {
        fn drop(&mut self) {
            let pid = Pid::from_raw(self.pid).unwrap();
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
        }
    }

    #[test]
    fn each_terminal_gets_it_once() {
        let (one, other) = (Sitter::new(), Sitter::new());
        let processes = [one.pid, other.pid, one.pid, i32::MAX];
        assert_eq!(write(&processes, "a was killed"), [""; 0]);
        for sitter in [&one, &other] {
            assert_eq!(sitter.read(23), "\r\ncgmgr: a was killed\r\n");
            assert!(!sitter.has_more());
        }
    }

    #[test]
    fn one_that_takes_nothing_holds_up_nobody() {
        let sitter = Sitter::new();
        let said = (0..1 << 20).find_map(|_| write(&[sitter.pid], &"x".repeat(1000)).pop());
        assert!(said.unwrap().contains("takes nothing"));
    }

    #[test]
    fn what_others_chose_cannot_act_on_the_terminal() {
        assert_eq!(text("a\u{1b}[2J\nb\r"), "\r\ncgmgr: a\\u{1b}[2J\r\nb\\r\r\n");
    }
}
