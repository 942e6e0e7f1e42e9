//! The bare floor of a launch, in a loop: what `floor.c` does, without the start of a process for it.
#![allow(unsafe_code)]

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, c_char};
use std::{io, ptr};

/// Control file and value; those of `floor.c`.
const LIMITS: [(&str, &str); 5] = [
    ("memory.high", "67108864"),
    ("memory.max", "100663296"),
    ("cpu.max", "200000 100000"),
    ("pids.max", "64"),
    ("memory.oom.group", "1"),
];

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// linux/sched.h; the libc crate's constant is an `i32` and has overflowed.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A group below `parent`, its limits, `/bin/true` in it, and all away again.
pub fn once(parent: &OwnedFd, name: &str) -> io::Result<()> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let group = openat(parent, name, DIRECTORY, Mode::empty())?;
    for (file, value) in LIMITS {
        let file = openat(&group, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, value.as_bytes())?;
    }
    let pid = start(&group, &[c"/bin/true"])?;
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
    loop {
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::BUSY) => {}
            other => return Ok(other?),
        }
    }
}

/// Opens the directory of a group.
pub fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, DIRECTORY, Mode::empty())?)
}

/// Starts a program, with its arguments, in a group.
pub fn start(group: &OwnedFd, command: &[&CStr]) -> io::Result<rustix::process::Pid> {
    let mut argv: Vec<*const c_char> = command.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    let envp: [*const c_char; 1] = [ptr::null()];
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = group.as_fd().as_raw_fd() as u64;
    // SAFETY: a valid clone_args of the size given. Without CLONE_VM the child has its own copy of memory and of this
    // stack; it calls only execve and _exit, with arguments that end in a null pointer.
    unsafe {
        match libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of_val(&args)) {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                libc::execve(argv[0], argv.as_ptr(), envp.as_ptr());
                libc::_exit(127)
            }
            pid => rustix::process::Pid::from_raw(pid as i32).ok_or_else(|| io::ErrorKind::Other.into()),
        }
    }
}
