//! Stays beside a session, outside its group: forwards signals, keeps the terminal right, reaps, notices OOM kills
//! while it lives, reads its counters when its command has ended, and removes its group.
//!
//! An OOM kill of the whole group never takes this process. It owns the caller's process: it reaps every child, so it
//! is for the command line and not for a program that has children of its own.

use super::account::{Account, Known, STRAGGLERS};
use super::end;
use super::launch::Running;
use super::signals::Signals;
use super::terminal::Terminal;
use super::verdict::{Exit, Oom};
use crate::host::Base;
use crate::kernel::{Tree, process};
use crate::path::GroupPath;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use std::time::{Duration, Instant};

pub use super::account::Ended;

/// What a supervisor needs beside the session.
pub struct Supervisor<'a> {
    /// The hierarchy, where the session has a group.
    pub tree: Option<&'a Tree>,
    /// Where all sessions are in it.
    pub base: Option<&'a Base>,
    /// Whether the hierarchy is seen from inside a cgroup namespace.
    pub namespaced: bool,
    /// Signals as they come in.
    pub signals: &'a Signals,
    /// The caller's terminal, where the session is in the foreground of one.
    pub terminal: Option<Terminal>,
    /// Told of an OOM kill while the session goes on.
    pub on_oom: &'a mut dyn FnMut(&Oom),
    /// End what is left when the command has ended.
    pub kill_left: bool,
}

impl Supervisor<'_> {
    /// Waits until the command has ended, and accounts for it. What is left in the group then lives on: the caller
    /// hands it to [`linger`](super::linger::linger).
    pub fn watch(&mut self, running: &mut Running) -> Ended {
        let command = running.spawned.pid;
        let reap = |known: &mut Known| reap(command, self.terminal.as_ref(), known);
        let account = Account {
            tree: self.tree,
            base: self.base,
            namespaced: self.namespaced,
            kill_left: self.kill_left,
            reap: &reap,
        };
        let mut known = Known::of(running);
        loop {
            reap(&mut known);
            if known.exit.is_some() {
                break;
            }
            account.look_on(running, &mut known, self.on_oom);
            known.sleep(running, self.signals.as_fd());
            self.signals.pass_on(command);
        }
        if let Some(terminal) = &self.terminal {
            terminal.take_back();
        }
        let mut ended = Ended::new(running, known.exit.unwrap_or(Exit::Unknown));
        match &running.group {
            Some(_) => account.end(running, &mut known, &mut ended),
            None => end_without_group(self.kill_left, &reap, &mut known, &mut ended),
        }
        ended
    }
}

/// Collects every child that ended or stopped. Besides the command there are its orphans: this process adopts
/// them, so that none stays a zombie.
fn reap(command: i32, terminal: Option<&Terminal>, known: &mut Known) {
    loop {
        let (pid, status) = match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
            Ok(None) => return,
            Err(Errno::INTR) => continue,
            Err(_) => {
                // No child at all: somebody else waited for the command.
                if known.exit.is_none() {
                    known.exit = Some(Exit::Unknown);
                }
                return;
            }
        };
        if status.terminating_signal() == Some(libc::SIGKILL) {
            known.killed.push(pid);
        }
        if pid != command {
            continue;
        }
        if let Some(code) = status.exit_status() {
            known.exit = Some(Exit::Code(code));
        } else if let Some(signal) = status.terminating_signal() {
            known.exit = Some(Exit::Signal(signal));
        } else if let Some(signal) = status.stopping_signal()
            && let Some(terminal) = terminal
        {
            terminal.stop_with(command, signal);
        }
    }
}

fn end_without_group(kill_left: bool, reap: &dyn Fn(&mut Known), known: &mut Known, ended: &mut Ended) {
    ended.usage.cpu_usec = children_cpu_usec();
    let since = Instant::now();
    loop {
        reap(known);
        ended.left = living_descendants();
        if ended.left.is_empty() || since.elapsed() > STRAGGLERS {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if kill_left && !ended.left.is_empty() {
        ended
            .warnings
            .extend(end::descendants(&mut || reap(&mut Known::default())).err());
        ended.left = living_descendants();
    }
}

/// What descends from this process. A zombie is dead, only not reaped yet.
fn living_descendants() -> Vec<(i32, String)> {
    process::descendants(std::process::id() as i32)
        .into_iter()
        .filter(|p| process::stat(*p).is_some_and(|s| s.state != 'Z'))
        .filter_map(|p| Some((p, process::comm(p)?)))
        .collect()
}

fn children_cpu_usec() -> Option<u64> {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).ok()?;
    let usec = |t: nix::sys::time::TimeVal| t.tv_sec() as u64 * 1_000_000 + t.tv_usec() as u64;
    Some(usec(used.user_time()) + usec(used.system_time()))
}

/// Makes this process the one that adopts the session's orphans.
pub fn adopt_orphans() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Removes a session's group once nothing is in it, reaping first: newer kernels let rmdir wait for zombies that the
/// caller itself owes a wait.
pub fn remove(tree: &Tree, path: &GroupPath) -> Result<(), String> {
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    end::remove(tree, path)
}
