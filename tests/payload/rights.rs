//! Payloads that use what one identity opened under another, and one that traces.

use std::fs::File;
use std::io::{Read, Write};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Gid, Uid, chown};

use super::groups::own;
use super::say;

/// Goes to the group of the cgroup.procs file `procs` through a descriptor that was opened by somebody lesser: `how` is
/// `user` for the user 1000, who is made the owner of the files of both groups, or `namespace` for a thread in a cgroup
/// namespace of its own. Says `done` or the error's number.
pub fn lesser(how: &str, procs: &str) {
    let open = || File::options().write(true).open(procs);
    let opened = match how {
        "user" => {
            let coder = Uid::from_raw(1000);
            for file in [procs, &format!("{}/cgroup.procs", own())] {
                chown(file, Some(coder), Some(Gid::from_raw(1000))).expect("root may");
            }
            effective(coder);
            let opened = open();
            effective(Uid::ROOT);
            opened
        }
        "namespace" => std::thread::scope(|scope| {
            let opener = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWCGROUP).expect("root may");
                open()
            });
            opener.join().expect("no panic")
        }),
        _ => panic!("unknown way {how}"),
    };
    let mut file = opened.unwrap_or_else(|error| panic!("cannot open {procs}: {error}"));
    match file.write_all(b"0") {
        Ok(()) => say("done"),
        Err(error) => say(&format!("errno {}", error.raw_os_error().unwrap_or(-1))),
    }
}

fn effective(user: Uid) {
    rustix::thread::set_thread_res_uid(Uid::ROOT, user, Uid::ROOT).expect("root may");
}

/// Traces a process and stops it; holds it so until its standard input ends.
pub fn trace(pid: i32) {
    let call = |request: libc::c_uint| {
        // SAFETY: neither request reads or writes memory.
        let done = unsafe { libc::ptrace(request, pid, 0, 0) };
        assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
    };
    call(libc::PTRACE_SEIZE);
    call(libc::PTRACE_INTERRUPT);
    // SAFETY: a null pointer is allowed where the status is not wanted.
    let stopped = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
    assert_eq!(stopped, pid, "{}", std::io::Error::last_os_error());
    say("tracing");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
