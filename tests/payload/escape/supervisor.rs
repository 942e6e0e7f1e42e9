//! What could be done to the cgmgr in charge, this process's parent.

use std::fs::{self, File};
use std::io;

use rustix::fd::AsRawFd;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};

use super::{result, told};

/// By /proc, ptrace(2), signals, and what sets another's limits.
pub fn try_everything() {
    let parent = rustix::process::getppid().expect("a parent");
    let number = parent.as_raw_nonzero().get();
    let proc = format!("/proc/{number}");
    for file in ["mem", "environ", "maps", "syscall"] {
        told(
            "proc",
            &format!("{proc}/{file}"),
            File::open(format!("{proc}/{file}")).map(drop),
        );
    }
    let mem = format!("{proc}/mem");
    told(
        "proc",
        &format!("{mem} to write"),
        File::options().write(true).open(&mem).map(drop),
    );
    told(
        "proc",
        &format!("{proc}/fd"),
        fs::read_dir(format!("{proc}/fd")).map(drop),
    );
    let score = format!("{proc}/oom_score_adj");
    told(
        "proc",
        &format!("{score} to write"),
        File::options().write(true).open(&score).map(drop),
    );
    trace(number);
    read_memory(number);
    signal(parent, number);
    limits(number);
}

/// In a thread of its own: its end lets go of what it traces.
fn trace(pid: i32) {
    let attempt = std::thread::spawn(move || {
        // SAFETY: the request reads and writes no memory.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
        result(seized)
    });
    told("trace", "seize", attempt.join().expect("no panic"));
}

fn read_memory(pid: i32) {
    let mut byte = 0u8;
    let local = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // The same program is not there: any address will do, as the right to it is asked for first.
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(4096),
        iov_len: 1,
    };
    // SAFETY: `local` is one byte of ours; `remote` is an address in another process.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    let outcome = match result(read as i64) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        other => other,
    };
    told("trace", "process_vm_readv", outcome);
}

fn signal(parent: Pid, number: i32) {
    // A signal that does nothing to who has no handler for it. (SIGCONT may be sent to anybody in the same session.)
    // SAFETY: sends a signal.
    told(
        "signal",
        "kill",
        result(unsafe { libc::kill(number, libc::SIGURG) }.into()),
    );
    let handle = rustix::process::pidfd_open(parent, PidfdFlags::empty()).expect("its pid is no secret");
    let sent = rustix::process::pidfd_send_signal(&handle, Signal::URG);
    told("signal", "pidfd_send_signal", sent.map_err(io::Error::from));
    for fd in 0..16 {
        let taken = rustix::process::pidfd_getfd(&handle, fd, PidfdGetfdFlags::empty());
        told(
            "trace",
            &format!("pidfd_getfd {fd}"),
            taken.map(drop).map_err(io::Error::from),
        );
    }
    assert!(handle.as_raw_fd() > 2);
}

fn limits(pid: i32) {
    // SAFETY: no address is given, so that nothing is read or written.
    let asked = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), std::ptr::null_mut()) };
    told("meddle", "prlimit", result(asked.into()));
    // SAFETY: changes a number.
    let nice = unsafe { libc::setpriority(libc::PRIO_PROCESS, pid as u32, 19) };
    told("meddle", "setpriority", result(nice.into()));
    // SAFETY: as above.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, pid as u32, 0) };
    // SAFETY: all zeros is an empty set of CPUs.
    let mut all: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: 0 and 1 are in range of the set.
    (0..2).for_each(|cpu| unsafe { libc::CPU_SET(cpu, &mut all) });
    // SAFETY: reads a set of the size that is given.
    let set = unsafe { libc::sched_setaffinity(pid, std::mem::size_of_val(&all), &raw const all) };
    told("meddle", "sched_setaffinity", result(set.into()));
}
