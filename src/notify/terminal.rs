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

    #[test]
    fn what_others_chose_cannot_act_on_the_terminal() {
        assert_eq!(text("a\u{1b}[2J\nb\r"), "\r\ncgmgr: a\\u{1b}[2J\r\nb\\r\r\n");
    }
}
