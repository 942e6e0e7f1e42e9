//! Tries to get out of the session that it is in, or to change its limits, by every way there is; one line per attempt:
//! `CLASS WHAT: done`, or `CLASS WHAT: refused ERRNO`. What was done is taken back at once, so that the next attempt begins
//! where this one did.
//!
//! Attempts that could harm the machine, were they not refused, stop where the right to do so is shown: a file is opened
//! for writing, and not written.

mod namespace;
mod others;
mod supervisor;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use super::groups::own;
use super::say;

/// linux/sched.h; libc's own is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

const MOUNT: &str = "/sys/fs/cgroup";

/// Everything.
pub fn try_everything() {
    others::descriptors();
    let own = own();
    let groups = groups(MOUNT);
    for group in &groups {
        for file in ["cgroup.procs", "cgroup.threads"] {
            told("move", &format!("{group}/{file}"), leave(&own, group, file));
        }
        told("clone", group, clone_into(group));
        for file in control_files(group) {
            told("limit", &file, File::options().write(true).open(&file).map(drop));
        }
    }
    let agent = format!("{MOUNT}/agent.slice");
    told("agent", &agent, leave(&own, &agent, "cgroup.procs"));
    raise(&own);
    below(&own);
    others::identity(&own);
    others::registry();
    others::manager();
    others::regain();
    supervisor::try_everything();
    namespace::try_everything();
    say(&format!("end {}", super::groups::own()));
}

/// Says how an attempt went.
pub fn told(class: &str, what: &str, outcome: io::Result<()>) {
    match outcome {
        Ok(()) => say(&format!("{class} {what}: done")),
        Err(error) => say(&format!(
            "{class} {what}: refused {}",
            error.raw_os_error().unwrap_or(-1)
        )),
    }
}

/// The result of a system call that has -1 for an error.
pub fn result(returned: i64) -> io::Result<()> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Writes to a file as cgroupfs wants it.
pub fn write(path: &str, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

/// A group and all below it.
fn groups(top: &str) -> Vec<String> {
    let mut found = vec![top.to_owned()];
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(groups(&entry.path().to_string_lossy()));
        }
    }
    found
}

/// The files of a group that somebody may write, whoever that is.
fn control_files(group: &str) -> Vec<String> {
    fs::read_dir(group)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o222 != 0)
        })
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect()
}

/// Moves this process out, and back.
fn leave(own: &str, group: &str, file: &str) -> io::Result<()> {
    if group == own {
        // Nowhere to go, but the file must not be writable all the same: it takes in processes from elsewhere.
        return File::options()
            .write(true)
            .open(format!("{group}/{file}"))
            .map(drop);
    }
    write(&format!("{group}/{file}"), "0")?;
    let there = super::groups::own() == group;
    // Who got out need not be able to come back.
    let _ = write(&format!("{own}/cgroup.procs"), "0");
    if there {
        Ok(())
    } else {
        Err(io::ErrorKind::Other.into())
    }
}

/// Starts a process elsewhere, as cgmgr does it.
fn clone_into(group: &str) -> io::Result<()> {
    let directory = File::open(group)?;
    // SAFETY: all zeros is what the kernel takes for "not given".
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = CLONE_INTO_CGROUP;
    how.exit_signal = libc::SIGCHLD as u64;
    how.cgroup = directory.as_raw_fd() as u64;
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child has memory of its own, as after fork, and it only ends.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw mut how, size) };
    if child == 0 {
        // SAFETY: ends this process without running anything of its parent's.
        unsafe { libc::_exit(0) };
    }
    result(child)?;
    // SAFETY: a null pointer is allowed where the status is not wanted.
    result(unsafe { libc::waitpid(child as i32, std::ptr::null_mut(), 0) }.into())
}

/// Gives itself more, and undoes its supervisor's hold.
fn raise(own: &str) {
    for file in [
        "memory.max",
        "memory.high",
        "memory.swap.max",
        "pids.max",
        "cpu.max",
    ] {
        let path = format!("{own}/{file}");
        let before = fs::read_to_string(&path).unwrap_or_default();
        let outcome = write(&path, "max").and_then(|()| {
            let raised = fs::read_to_string(&path)?.starts_with("max");
            write(&path, before.trim_end())?;
            if raised {
                Ok(())
            } else {
                Err(io::ErrorKind::Other.into())
            }
        });
        told("raise", &path, outcome);
    }
    for (file, text) in [
        ("memory.oom.group", "0"),
        ("cgroup.subtree_control", "+pids"),
        ("cgroup.type", "threaded"),
    ] {
        let path = format!("{own}/{file}");
        told(
            "raise",
            &format!("{path} {text}"),
            File::options().write(true).open(&path).map(drop),
        );
    }
}

/// Makes a group of its own below, and goes there.
fn below(own: &str) {
    let group = format!("{own}/mine");
    let outcome = fs::create_dir(&group).and_then(|()| {
        let gone = leave(own, &group, "cgroup.procs");
        fs::remove_dir(&group)?;
        gone
    });
    told("below", &group, outcome);
    let beside = format!("{own}/../mine");
    told(
        "below",
        &beside,
        fs::create_dir(&beside).and_then(|()| fs::remove_dir(&beside)),
    );
}
