//! nice and oom_score_adj of a process that runs: this one's, or another's.

use super::process;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, dumpable_behavior, set_dumpable_behavior, setpriority_process};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;

/// How often new threads are looked for: what a thread starts has its nice value already.
const ROUNDS: u32 = 20;

/// Sets the oom_score_adj of a process, from -1000 to 1000 (proc_pid_oom_score_adj(5)).
///
/// # Errors
///
/// EACCES: the process is another user's, or the score is below the lowest that a process with CAP_SYS_RESOURCE gave it.
pub fn set_oom_score_adj(pid: i32, score: i32) -> Result<(), Errno> {
    let own = pid == std::process::id() as i32;
    let first = write_score(pid, score);
    if first != Err(Errno::ACCESS) || !own {
        return first;
    }
    // The files of a program with file capabilities in /proc are root's, unless it is dumpable (prctl(2)).
    let before = dumpable_behavior()?;
    if before == DumpableBehavior::Dumpable {
        return first;
    }
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let second = write_score(pid, score);
    if before == DumpableBehavior::NotDumpable {
        set_dumpable_behavior(before)?;
    }
    second
}

fn write_score(pid: i32, score: i32) -> Result<(), Errno> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let file = OpenOptions::new().write(true).open(path);
    // Never padded with zeros: the kernel would read octal.
    let written = file.and_then(|mut file| file.write_all(score.to_string().as_bytes()));
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Sets the nice value of every thread of a process, from -20 to 19 (setpriority(2): it is each thread's own).
///
/// # Errors
///
/// EACCES: it is below what the process has, and CAP_SYS_NICE or RLIMIT_NICE does not allow that. EPERM: it is another
/// user's. ESRCH: it has ended.
pub fn set_nice(pid: i32, nice: i32) -> Result<(), Errno> {
    let mut done = BTreeSet::new();
    for _ in 0..ROUNDS {
        let threads: Vec<i32> = process::threads(pid)
            .into_iter()
            .filter(|thread| !done.contains(thread))
            .collect();
        if threads.is_empty() {
            break;
        }
        for thread in threads {
            match setpriority_process(Pid::from_raw(thread), nice) {
                // Ended meanwhile.
                Err(Errno::SRCH) if thread != pid => {}
                other => other?,
            }
            done.insert(thread);
        }
    }
    if done.is_empty() { Err(Errno::SRCH) } else { Ok(()) }
}
