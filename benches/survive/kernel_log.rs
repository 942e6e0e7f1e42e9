//! Who was killed, from the kernel's own log (dev-kmsg).

use super::at;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// The log, from when it was opened on.
pub struct KernelLog {
    file: File,
    /// Pid and name of who was killed for want of memory, in turn. Where a whole group is killed, who was picked first is
    /// told of twice.
    killed: Vec<(String, String)>,
    /// What else it said that tells of a machine in trouble.
    pub trouble: Vec<String>,
    /// Whether records were lost.
    pub lost: bool,
}

impl KernelLog {
    /// Begins with what comes next.
    pub fn open() -> Result<KernelLog, String> {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .map_err(at("/dev/kmsg"))?;
        file.seek(SeekFrom::End(0)).map_err(at("/dev/kmsg"))?;
        Ok(KernelLog {
            file,
            killed: Vec::new(),
            trouble: Vec::new(),
            lost: false,
        })
    }

    /// The names of who was killed for want of memory, in turn.
    pub fn killed(&self) -> Vec<&str> {
        self.killed.iter().map(|(_, name)| name.as_str()).collect()
    }

    /// Reads what is there.
    pub fn read(&mut self) {
        let mut record = [0; 8192];
        loop {
            match self.file.read(&mut record) {
                Ok(length) => self.take(&String::from_utf8_lossy(&record[..length])),
                // Overwritten before it was read; the next read goes on with the oldest that is left.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => self.lost = true,
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, record: &str) {
        let text = record.split_once(';').map_or(record, |(_, text)| text);
        let text = text.lines().next().unwrap_or_default();
        if let Some((_, victim)) = text.split_once("Killed process ") {
            let (pid, rest) = victim.split_once(" (").unwrap_or((victim, victim));
            let name = rest.split_once(')').map_or(rest, |(name, _)| name);
            let killed = (pid.to_owned(), name.to_owned());
            if !self.killed.contains(&killed) {
                self.killed.push(killed);
            }
        }
        for sign in [
            "blocked for more than",
            "soft lockup",
            "rcu_preempt detected",
            "Kernel panic",
            "BUG:",
        ] {
            if text.contains(sign) && self.trouble.len() < 20 {
                self.trouble.push(text.to_owned());
            }
        }
    }
}
