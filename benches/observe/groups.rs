//! Groups to be read: as many as are asked for, with the controllers on, and with a process asleep in every tenth.

use crate::{floor, machine};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::fs;

/// One group in so many has a process.
const ONE_IN: usize = 10;

/// The groups, below one that is made for them.
pub struct Groups {
    parent: String,
    /// Each held by its directory.
    pub dirs: Vec<OwnedFd>,
    asleep: Vec<Pid>,
}

impl Groups {
    /// Makes the parent.
    pub fn new() -> Result<Groups, String> {
        let parent = format!("{}/observe", machine::parent());
        fs::create_dir(&parent).map_err(|e| format!("{parent}: {e}"))?;
        let control = format!("{parent}/cgroup.subtree_control");
        fs::write(&control, "+cpu +memory +pids").map_err(|e| format!("{control}: {e}"))?;
        Ok(Groups {
            parent,
            dirs: Vec::new(),
            asleep: Vec::new(),
        })
    }

    /// The directory that they are in.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// A group's name.
    pub fn name(number: usize) -> String {
        format!("g{number}")
    }

    /// Adds groups until there are `count`.
    pub fn grow_to(&mut self, count: usize) -> Result<(), String> {
        while self.dirs.len() < count {
            let number = self.dirs.len();
            let path = format!("{}/{}", self.parent, Self::name(number));
            let at = |e: std::io::Error| format!("{path}: {e}");
            fs::create_dir(&path).map_err(at)?;
            for (file, value) in [("memory.high", "64M"), ("memory.max", "96M"), ("pids.max", "64")] {
                fs::write(format!("{path}/{file}"), value).map_err(at)?;
            }
            let dir = floor::open(&path).map_err(at)?;
            if number.is_multiple_of(ONE_IN) {
                self.asleep
                    .push(floor::start(&dir, &[c"/bin/sleep", c"100000"]).map_err(at)?);
            }
            self.dirs.push(dir);
        }
        Ok(())
    }

    /// Takes them all away.
    pub fn remove(self) -> Result<(), String> {
        let at = |path: &str, e: std::io::Error| format!("{path}: {e}");
        fs::write(format!("{}/cgroup.kill", self.parent), "1").map_err(|e| at(&self.parent, e))?;
        for pid in &self.asleep {
            waitpid(Some(*pid), WaitOptions::empty()).map_err(|e| at(&self.parent, e.into()))?;
        }
        let mut left: Vec<String> = (0..self.dirs.len())
            .map(|number| format!("{}/{}", self.parent, Self::name(number)))
            .collect();
        left.push(self.parent.clone());
        for path in left {
            // A group is busy for a moment after its last process was reaped.
            while let Err(e) = fs::remove_dir(&path) {
                if e.kind() != std::io::ErrorKind::ResourceBusy {
                    return Err(at(&path, e));
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }
}
