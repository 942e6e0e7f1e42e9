//! One process as /proc shows it.

use super::group::{read_all, read_record};
use super::mounts;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::sync::Mutex;

/// The text of a file of one record below /proc (or any other small kernel file).
pub fn read(path: &str) -> Result<String, Errno> {
    read_record(open(path)?.as_fd())
}

/// The text of a file of many records below /proc.
pub fn read_list(path: &str) -> Result<String, Errno> {
    read_all(open(path)?.as_fd())
}

fn open(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The process's name (`comm`), escaped for printing; `None` where it is gone.
pub fn comm(pid: i32) -> Option<String> {
    Some(crate::text::escape(
        read(&format!("/proc/{pid}/comm")).ok()?.trim_end_matches('\n'),
    ))
}

/// `pid 12 (bash)`.
pub fn describe(pid: i32) -> String {
    match comm(pid) {
        Some(comm) => format!("pid {pid} ({comm})"),
        None => format!("pid {pid}"),
    }
}

/// The process's group in the unified hierarchy. `None` where it, or the hierarchy, is gone.
pub fn group_of(pid: i32) -> Option<String> {
    mounts::own_group(&read(&format!("/proc/{pid}/cgroup")).ok()?)
}

/// The caller's own group in the unified hierarchy.
pub fn own_group() -> Option<String> {
    mounts::own_group(&read("/proc/self/cgroup").ok()?)
}

/// The caller's own `oom_score_adj`.
pub fn own_oom_score_adj() -> Result<i32, Errno> {
    read("/proc/self/oom_score_adj")?
        .trim()
        .parse()
        .map_err(|_| Errno::INVAL)
}

/// The `oom_score_adj` of a process; `None` where it is gone.
pub fn oom_score_adj(pid: i32) -> Option<i32> {
    read(&format!("/proc/{pid}/oom_score_adj"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The caller's own nice value.
pub fn own_nice() -> Result<i32, Errno> {
    rustix::process::getpriority_process(None)
}

/// The process's state, terminal and start (/proc/PID/stat). `None` where it is gone.
pub fn stat(pid: i32) -> Option<Stat> {
    Stat::parse(&read(&format!("/proc/{pid}/stat")).ok()?)
}

/// What [`stat`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `T`, `Z` and so on.
    pub state: char,
    /// Its parent's pid.
    pub parent: i32,
    /// Whether it has a controlling terminal.
    pub has_terminal: bool,
    /// Whether it is in its terminal's foreground: what is typed there goes to it.
    pub foreground: bool,
    /// Its flags (`PF_…`).
    pub flags: u64,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

impl Stat {
    /// Reads the text of a /proc/PID/stat (proc_pid_stat(5)).
    pub fn parse(text: &str) -> Option<Self> {
        // comm is in parentheses and may itself contain any of them: fields start after the last one.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next().filter(char::is_ascii_alphabetic)?,
            parent: fields.get(1)?.parse().ok()?,
            has_terminal: *fields.get(4)? != "0",
            foreground: *fields.get(4)? != "0" && fields.get(2)? == fields.get(5)?,
            flags: fields.get(6)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// The value of a line `key: value` of a /proc file, e.g. of /proc/PID/status or /proc/meminfo.
pub fn line_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim())
}

/// When the process started, in clock ticks since boot: with the pid it names one process, where a pid alone may be
/// reused.
pub fn start_time(pid: i32) -> Option<u64> {
    Some(stat(pid)?.start)
}

/// When this very process started. It is read once: an embedding program launches many sessions.
pub fn own_start_time() -> Option<u64> {
    static READ: Mutex<Option<(u32, u64)>> = Mutex::new(None);
    // A fork of this process is another one.
    let own = std::process::id();
    let mut read = READ.lock().ok()?;
    if read.is_none_or(|(pid, _)| pid != own) {
        *read = Some((own, start_time(own as i32)?));
    }
    read.map(|(_, start)| start)
}

/// The process that a thread belongs to. `None` where the thread is gone.
pub fn thread_group(thread: i32) -> Option<i32> {
    let status = read(&format!("/proc/{thread}/status")).ok()?;
    line_of(&status, "Tgid")?.parse().ok()
}

/// Whether the process is stopped (SIGSTOP, Ctrl-Z) or held by a debugger.
pub fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|s| matches!(s.state, 'T' | 't'))
}

/// Sends signals to a process that `is_it` still recognizes once it is held by a descriptor, so that a pid that was
/// reused meanwhile is never hit. `false`: it is gone, or is another one.
pub fn signal(
    pid: i32,
    signals: &[rustix::process::Signal],
    is_it: &dyn Fn(i32) -> bool,
) -> Result<bool, Errno> {
    let Some(raw) = rustix::process::Pid::from_raw(pid) else {
        return Ok(false);
    };
    let held = match rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(false),
        other => other?,
    };
    if !is_it(pid) {
        return Ok(false);
    }
    for signal in signals {
        match rustix::process::pidfd_send_signal(&held, *signal) {
            Err(Errno::SRCH) => return Ok(false),
            other => other?,
        }
    }
    Ok(true)
}

/// Whether the process is on its way out: ended and not yet reaped, or with `PF_EXITING` among its flags (field 9 of
/// /proc/PID/stat), or with a SIGKILL pending that it has not yet got round to (proc_pid_status(5), `ShdPnd`). `None`
/// where it is gone.
pub fn is_exiting(pid: i32) -> Option<bool> {
    const PF_EXITING: u64 = 0x4;
    const SIGKILL_BIT: u64 = 1 << 8;
    let stat = stat(pid)?;
    let status = read(&format!("/proc/{pid}/status")).ok()?;
    let pending = line_of(&status, "ShdPnd").and_then(|p| u64::from_str_radix(p, 16).ok());
    Some(
        matches!(stat.state, 'Z' | 'X')
            || stat.flags & PF_EXITING != 0
            || pending.unwrap_or(0) & SIGKILL_BIT != 0,
    )
}

/// Ids of the process's threads; none where it is gone.
pub fn threads(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    tasks
        .flatten()
        .filter_map(|task| task.file_name().to_string_lossy().parse().ok())
        .collect()
}

/// Pids of the process's children, by all its threads.
pub fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| {
            read(&format!(
                "/proc/{pid}/task/{}/children",
                task.file_name().to_string_lossy()
            ))
            .ok()
        })
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

/// Pids of all descendants of a process, parents before their children.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut all = children(pid);
    let mut next = 0;
    while next < all.len() {
        let more = children(all[next]);
        all.extend(more);
        next += 1;
    }
    all
}

/// Resident memory of the process, in bytes.
pub fn rss(pid: i32, page_size: u64) -> Option<u64> {
    let pages: u64 = read(&format!("/proc/{pid}/statm"))
        .ok()?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some(pages * page_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_a_letter() {
        let stat = |state: &str| {
            let rest = ["0"; 20].join(" ");
            Stat::parse(&format!("1 (a) b) {state} {rest}"))
        };
        assert_eq!(stat("S").unwrap().state, 'S');
        // Found by the fuzz target: white space, though not to split_ascii_whitespace.
        assert_eq!(stat("\u{b}"), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = std::process::id() as i32;
        assert!(comm(me).is_some());
        assert!(start_time(me).unwrap() > 0);
        assert_eq!(
            (own_start_time(), own_start_time()),
            (start_time(me), start_time(me))
        );
        assert_eq!(is_exiting(me), Some(false));
        assert!(!is_stopped(me));
        let thread = std::thread::spawn(|| thread_group(rustix::thread::gettid().as_raw_nonzero().get()));
        assert_eq!(thread.join().unwrap(), Some(me));
        assert!(rss(me, 4096).unwrap() > 0);
        assert!((-1000..=1000).contains(&own_oom_score_adj().unwrap()));
        assert!((-20..=19).contains(&own_nice().unwrap()));
    }

    #[test]
    fn descendants_of_a_child() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 5 & wait"])
            .spawn()
            .unwrap();
        // Of this child and not of this process: other tests have children of their own, which are not to be killed.
        let parent = child.id() as i32;
        let mut seen = Vec::new();
        for _ in 0..100 {
            seen = descendants(parent);
            if seen.iter().any(|p| comm(*p).as_deref() == Some("sleep")) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for pid in seen.iter().rev().chain([&parent]) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(*pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        child.wait().unwrap();
        assert!(!seen.is_empty(), "{seen:?}");
    }
}
