//! The controlling terminal of a process.

use super::process;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags};

/// A terminal, open for writing; a write to it does not wait.
#[derive(Debug)]
pub struct Terminal {
    /// The terminal itself.
    pub file: OwnedFd,
    /// What tells it from others: two devpts may have one of the same number.
    pub device: (u64, u64),
}

/// The controlling terminal of a process, where one of its standard streams is that terminal; `None` where it has none,
/// or is gone, or is not to be looked at by this process.
///
/// It is opened as the process itself has it, not by a name: in a container the name may be another's terminal, or a file
/// that somebody laid there. The kernel vouches that it is a terminal by its number in /proc/PID/stat.
pub fn of(pid: i32) -> Option<Terminal> {
    let number = number(&process::read(&format!("/proc/{pid}/stat")).ok()?)?;
    (0..=2).find_map(|stream| {
        // A look at what it is first: to open a device may do something by itself.
        let look = rustix::fs::openat(
            CWD,
            format!("/proc/{pid}/fd/{stream}"),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let stat = rustix::fs::fstat(&look).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != number {
            return None;
        }
        let file = rustix::fs::openat(
            CWD,
            format!("/proc/self/fd/{}", look.as_raw_fd()),
            OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        Some(Terminal {
            file,
            device: (stat.st_dev, stat.st_rdev),
        })
    })
}

/// The number of the device in the text of a /proc/PID/stat (proc_pid_stat(5), `tty_nr`): bits 0 to 7 and 20 to 31 are the
/// minor one, 8 to 19 the major one.
fn number(stat: &str) -> Option<u64> {
    let number: i32 = stat
        .rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(4)?
        .parse()
        .ok()?;
    let number = number as u32;
    let minor = (number & 0xff) | (number >> 12 & 0xfff00);
    (number != 0).then(|| rustix::fs::makedev(number >> 8 & 0xfff, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_terminals() {
        let stat = |tty: &str| number(&format!("1 (a) b) S 1 1 1 {tty} 1"));
        assert_eq!(stat("0"), None);
        assert_eq!(stat("34817"), Some(rustix::fs::makedev(136, 1)));
        // /dev/pts/300 and /dev/ttyS0.
        assert_eq!(stat("1083436"), Some(rustix::fs::makedev(136, 300)));
        assert_eq!(stat("1088"), Some(rustix::fs::makedev(4, 64)));
        assert_eq!(stat("x"), None);
    }

    #[test]
    fn a_process_without_a_terminal_has_none() {
        let mut child = std::process::Command::new("setsid")
            .args(["sleep", "60"])
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        while process::comm(pid).as_deref() != Some("sleep") {
            std::thread::yield_now();
        }
        assert!(of(pid).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of(pid).is_none());
    }
}
