//! Processes and groups of somebody else.

use std::fs;
use std::process::{Child, Command};

use crate::lab::{MOUNT, children, read, write};

/// A process of somebody else's in a group of his.
pub struct Stranger(Child);

impl Stranger {
    /// One that sleeps there.
    pub fn in_group(group: &str) -> Stranger {
        let child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        write(&format!("{group}/cgroup.procs"), &child.id().to_string());
        Stranger(child)
    }

    /// Whether it does.
    pub fn lives(&mut self) -> bool {
        self.0.try_wait().expect("a look").is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// A group of somebody else's outside of anything of cgmgr's. It goes with everything in it.
pub struct Elsewhere {
    /// Its directory.
    pub path: String,
    controllers: String,
}

impl Elsewhere {
    /// Made below the root, with the controllers that the root has.
    pub fn new(name: &str) -> Elsewhere {
        let control = format!("{MOUNT}/cgroup.subtree_control");
        let controllers = read(&control);
        write(&control, "+cpu +io +memory +pids");
        let path = format!("{MOUNT}/{name}");
        fs::create_dir(&path).expect("a group");
        Elsewhere { path, controllers }
    }

    /// A group in it.
    pub fn group(&self, below: &str) -> String {
        let path = format!("{}/{below}", self.path);
        fs::create_dir(&path).expect("a group");
        path
    }

    /// Everything that cgmgr could change: the groups below with their types, controllers and processes.
    pub fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        state_of(&self.path, &mut state);
        state
    }
}

fn state_of(group: &str, state: &mut Vec<String>) {
    let file = |name: &str| fs::read_to_string(format!("{group}/{name}")).unwrap_or_default();
    let mut mark = [0_u8; 16];
    let marked = rustix::fs::getxattr(group, "user.cgmgr.made", &mut mark).is_ok();
    let [kind, control, procs] = ["cgroup.type", "cgroup.subtree_control", "cgroup.procs"].map(file);
    state.push(format!("{group} {kind:?} {control:?} {procs:?} {marked}"));
    for child in children(group) {
        state_of(&format!("{group}/{child}"), state);
    }
}

fn remove_tree(group: &str) {
    for child in children(group) {
        remove_tree(&format!("{group}/{child}"));
    }
    let _ = fs::remove_dir(group);
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = fs::write(format!("{}/cgroup.kill", self.path), "1");
        for _ in 0..200 {
            remove_tree(&self.path);
            if !fs::exists(&self.path).unwrap_or(true) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        for name in ["cpu", "io", "memory", "pids"] {
            if !self.controllers.split(' ').any(|had| had == name) {
                let _ = fs::write(format!("{MOUNT}/cgroup.subtree_control"), format!("-{name}"));
            }
        }
    }
}
