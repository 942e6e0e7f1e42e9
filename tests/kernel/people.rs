//! Users of the machine.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::DumpableBehavior;
use rustix::thread::{Gid, Uid};

use crate::cgmgr::{finish, until};
use crate::lab::read;

const ID: u32 = 1000;

/// The user `coder` with uid and gid 1000 and no other group: made where the machine does not have him.
pub fn coder() {
    if read("/etc/passwd")
        .lines()
        .any(|line| line.starts_with("coder:x:1000:1000:"))
    {
        return;
    }
    let mut add = Command::new("useradd");
    add.args([
        "--uid",
        "1000",
        "--user-group",
        "--create-home",
        "--shell",
        "/bin/bash",
        "coder",
    ]);
    finish(&mut add).expect(0);
}

/// Does something as `coder`, in a thread that is him. Its group is this program's: outside of his own systemd's, as a
/// shell is that he logged in to without a scope of its own.
pub fn as_coder<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let become_him = || {
        let (user, group) = (Uid::from_raw(ID), Gid::from_raw(ID));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
        // What the change of user has taken from all threads of this program.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
    };
    let done = std::thread::scope(|scope| {
        let coder = scope.spawn(|| {
            become_him().expect("root may");
            act()
        });
        coder.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A command of `coder`'s, there as well.
pub fn coders<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).uid(ID).gid(ID).stdin(Stdio::null());
    command.current_dir("/home/coder").env("HOME", "/home/coder");
    command.env("XDG_RUNTIME_DIR", "/run/user/1000");
    command
}

/// A command of `coder`'s in a scope of his own systemd, as what he starts on a desktop is.
pub fn coders_in_his_scope(words: &[&str]) -> Command {
    let scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"];
    coders(scope.iter().chain(words))
}

/// The systemd of `coder`'s own, as it runs for who is logged in or lingers. It goes with everything in it.
pub struct UserManager;

impl UserManager {
    /// Its unit.
    pub const UNIT: &str = "user@1000.service";
    /// Its group.
    pub const GROUP: &str = "/user.slice/user-1000.slice/user@1000.service";

    /// Starts it: a second or two, so that only tests that want it have it.
    pub fn start() -> UserManager {
        coder();
        finish(Command::new("systemctl").args(["start", UserManager::UNIT])).expect(0);
        until("his bus is there", || Path::new("/run/user/1000/bus").exists());
        UserManager
    }
}

impl Drop for UserManager {
    fn drop(&mut self) {
        for unit in [UserManager::UNIT, "user-runtime-dir@1000.service"] {
            let _ = Command::new("systemctl").args(["stop", unit]).status();
        }
    }
}
