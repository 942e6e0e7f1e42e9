//! Those of the kernel's selftests (see `any::selftests`) that need a group of our own below the root, with limits, a
//! type or controllers that are not cgmgr's doing: on a machine with systemd every such group is systemd's.

mod hierarchy;
mod memory;

use std::fs;
use std::process::{Child, Command};

use super::delegated::remove_tree;
use crate::lab::{MOUNT, children, read, write};

/// A group below the root to give to cgmgr with `--cgroup-root /base`; gone at the end, with the controllers.
struct Base {
    had: String,
}

impl Base {
    const PATH: &str = "/sys/fs/cgroup/base";

    /// With these controllers, and no others.
    fn with(controllers: &[&str]) -> Base {
        let had = read(&format!("{MOUNT}/cgroup.subtree_control"));
        only(controllers);
        fs::create_dir(Base::PATH).expect("a group");
        Base { had }
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = fs::write(format!("{}/cgroup.kill", Base::PATH), "1");
        for _ in 0..200 {
            remove_tree(Base::PATH);
            if !fs::exists(Base::PATH).unwrap_or(true) {
                only(&self.had.split_whitespace().collect::<Vec<_>>());
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(
            std::thread::panicking(),
            "{} does not go: {:?}",
            Base::PATH,
            children(Base::PATH)
        );
    }
}

/// Gives the root's children these controllers and no others.
fn only(controllers: &[&str]) {
    let file = format!("{MOUNT}/cgroup.subtree_control");
    for name in read(&file).split_whitespace() {
        if !controllers.contains(&name) {
            write(&file, &format!("-{name}"));
        }
    }
    for name in controllers {
        write(&file, &format!("+{name}"));
    }
}

/// A process of the test's own, ended with it.
struct Outside(Child);

impl Outside {
    fn start(command: &mut Command) -> Outside {
        Outside(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}")),
        )
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
