//! A user namespace, in which it is root, with a cgroup namespace and a mount of cgroup2 of its own.

use std::fs::{self, File};
use std::io;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{control_files, groups, told, write};

/// In a process of its own, which has no way back.
pub fn try_everything() {
    // SAFETY: there is one thread by now, and the child only runs this.
    match unsafe { nix::unistd::fork() }.expect("a child") {
        nix::unistd::ForkResult::Child => {
            inside();
            std::process::exit(0);
        }
        nix::unistd::ForkResult::Parent { child } => {
            let _ = nix::sys::wait::waitpid(child, None);
        }
    }
}

fn inside() {
    let own = super::super::groups::own();
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    let spaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWNS;
    // How far it gets is said with another word: only what comes of it counts.
    step("unshare", unshare(spaces).map_err(io::Error::from));
    step("setgroups", fs::write("/proc/self/setgroups", "deny"));
    step("uid_map", fs::write("/proc/self/uid_map", format!("0 {user} 1")));
    step("gid_map", fs::write("/proc/self/gid_map", format!("0 {group} 1")));
    let private = mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    );
    step("private", private.map_err(io::Error::from));
    let point = "/mnt";
    let mounted = mount(
        Some("none"),
        point,
        Some("cgroup2"),
        MsFlags::empty(),
        None::<&str>,
    );
    step("mount", mounted.map_err(io::Error::from));
    for group in groups(point).into_iter().chain([own]) {
        for file in ["cgroup.procs", "cgroup.threads"] {
            told(
                "namespace",
                &format!("{group}/{file}"),
                write(&format!("{group}/{file}"), "0"),
            );
        }
        for file in control_files(&group) {
            told(
                "namespace",
                &file,
                File::options().write(true).open(&file).map(drop),
            );
        }
        let below = format!("{group}/mine");
        told(
            "namespace",
            &below,
            fs::create_dir(&below).and_then(|()| fs::remove_dir(&below)),
        );
    }
}

fn step(what: &str, outcome: io::Result<()>) {
    match outcome {
        Ok(()) => super::say(&format!("step {what}: allowed")),
        Err(error) => super::say(&format!(
            "step {what}: refused {}",
            error.raw_os_error().unwrap_or(-1)
        )),
    }
}
