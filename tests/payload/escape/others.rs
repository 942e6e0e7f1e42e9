//! Ways out that are no files of the group's: what was inherited, what marks the session, who else would do it.

use std::fs::{self, File};
use std::io;
use std::process::{Command, Stdio};

use rustix::fs::XattrFlags;
use rustix::thread::Uid;

use super::{told, write};

/// Every descriptor that is open beside the three that a command has, and whether the group of one can be gone to by it.
pub fn descriptors() {
    let names: Vec<String> = fs::read_dir("/proc/self/fd")
        .expect("/proc")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for name in names {
        // What listed them has gone by now.
        let Ok(target) = fs::read_link(format!("/proc/self/fd/{name}")) else {
            continue;
        };
        if !["0", "1", "2"].contains(&name.as_str()) {
            told("descriptor", &format!("{name} {}", target.display()), Ok(()));
        }
    }
    told(
        "descriptor",
        "beside 0, 1 and 2",
        Err(io::Error::from_raw_os_error(libc::EBADF)),
    );
}

/// The mark that says whose session this is.
pub fn identity(own: &str) {
    let name = "user.cgmgr.session";
    let mut before = vec![0; 8192];
    let held = rustix::fs::getxattr(own, name, &mut before);
    let set = held.and_then(|size| rustix::fs::setxattr(own, name, &before[..size], XattrFlags::empty()));
    told("identity", name, set.map_err(io::Error::from));
    let other = "user.cgmgr.mine";
    let set = rustix::fs::setxattr(own, other, b"1", XattrFlags::empty())
        .and_then(|()| rustix::fs::removexattr(own, other));
    told("identity", other, set.map_err(io::Error::from));
}

/// The locks that say which sessions are attended.
pub fn registry() {
    let top = "/run/cgmgr";
    told("registry", top, fs::read_dir(top).map(drop));
    told(
        "registry",
        "a file of its own",
        File::create(format!("{top}/mine")).map(drop),
    );
    let _ = fs::remove_file(format!("{top}/mine"));
    for scope in ["sessions-unit", "process"] {
        let path = format!("{top}/{scope}");
        told("registry", &path, fs::read_dir(&path).map(drop));
    }
}

/// Others who could start or move something for it.
pub fn manager() {
    let run = |what: &str, words: &[&str]| {
        let runtime = format!("/run/user/{}", rustix::process::getuid().as_raw());
        let done = Command::new(words[0])
            .args(&words[1..])
            .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={runtime}/bus"))
            .env("XDG_RUNTIME_DIR", runtime)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let outcome = done.and_then(|status| match status.code() {
            Some(0) => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.unwrap_or(-1))),
        });
        told("manager", what, outcome);
    };
    run(
        "the user's",
        &["systemd-run", "--user", "--scope", "--quiet", "--", "true"],
    );
    run(
        "the machine's",
        &[
            "systemd-run",
            "--no-ask-password",
            "--quiet",
            "--wait",
            "--",
            "true",
        ],
    );
    run("sudo", &["sudo", "-n", "true"]);
}

/// Root's rights, once given up, are gone.
pub fn regain() {
    let own = rustix::process::getuid();
    for (what, real) in [("seteuid", own), ("setresuid", Uid::ROOT)] {
        let set = rustix::thread::set_thread_res_uid(real, Uid::ROOT, real);
        told("regain", what, set.map_err(io::Error::from));
    }
    let groups = rustix::thread::set_thread_groups(&[]);
    told("regain", "setgroups", groups.map_err(io::Error::from));
    let score = "/proc/self/oom_score_adj";
    let lowered = write(score, "-1000").and_then(|()| write(score, "0"));
    told("regain", "oom_score_adj", lowered);
}
