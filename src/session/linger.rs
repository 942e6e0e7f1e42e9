//! Stays with what a command left behind in its session, until that has ended too; and the way into the background.

use super::launch::Running;
use super::registry::Registry;
use super::signals::Signals;
use super::supervise::remove;
use crate::kernel::{Group, Tree, sys};
use std::time::Duration;

/// Splits off a process that stays with what is left of a session until it is empty, then removes its group. The
/// session's lock stays with it, and an OOM kill that happens meanwhile goes into its record. Returns in both
/// processes; in the one that stayed there is nothing more to do.
///
/// # Errors
///
/// No process could be split off: the next command sweeps.
pub fn linger(
    running: Running,
    status: u8,
    tree: &Tree,
    registry: &Registry,
    signals: &Signals,
) -> Result<(), String> {
    let Running {
        name,
        lock,
        group,
        mut record,
        ..
    } = running;
    let Some((group, path)) = group else { return Ok(()) };
    match sys::fork() {
        Err(errno) => return Err(format!("cannot leave a process beside session {name}: {errno}")),
        Ok(Some(_)) => {
            if let Some(lock) = lock {
                lock.leave_to_other();
            }
            return Ok(());
        }
        Ok(None) => {}
    }
    into_background();
    // Whoever asks this process to end is heard: it only tidies up, and the next command does that too.
    signals.callers.put_back();
    let before = oom_kills(&group);
    while group.wait_empty(Duration::from_secs(3600)).is_err() {}
    let late = oom_kills(&group).saturating_sub(before);
    if late > 0 {
        let killed = crate::text::count(late, "process was", "processes were");
        record
            .story
            .push(format!("{name}: {killed} OOM-killed after the command had ended"));
        record.status = Some(status);
        record.detached = true;
        if let Err(error) = registry.write(&name, &record) {
            tracing::error!("cannot keep what happened in session {name}: {error}");
        }
    }
    if let Err(error) = remove(tree, &path) {
        tracing::error!("cannot remove session {name}: {error}");
    }
    drop(lock);
    Ok(())
}

fn oom_kills(group: &Group) -> u64 {
    group
        .counters("memory.events")
        .ok()
        .and_then(|c| c.get("oom_kill"))
        .unwrap_or(0)
}

/// Leaves the caller's terminal and streams: a session of its own, and /dev/null for input and output.
pub fn into_background() {
    let _ = nix::unistd::setsid();
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
