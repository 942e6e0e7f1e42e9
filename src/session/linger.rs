//! Stays with what a command left behind in its session, until that has ended too; and the way into the background.

use super::account::Ended;
use super::launch::Running;
use super::measure;
use super::records::{self, Records};
use super::registry::{Entry, Lock, Registry};
use super::supervise::remove;
use super::verdict::{Exit, Oom};
use crate::backend::scope::Pin;
use crate::kernel::sys::{self, CallersSignals};
use crate::kernel::{Group, Tree};
use crate::path::{GroupPath, SessionName};
use crate::record::Exited;
use std::time::Duration;

/// A session whose processes nobody waits for.
pub struct Left {
    /// Its name.
    pub name: SessionName,
    /// The right to be in charge of it.
    pub lock: Option<Lock>,
    /// Its group.
    pub group: Option<(Group, GroupPath)>,
    /// What holds its scope open, where it is one.
    pub pin: Option<Pin>,
    /// Its entry in the registry.
    pub entry: Entry,
    /// The exit status of the command that left them; `None` where they were adopted, and no command was.
    pub status: Option<u8>,
    /// What it leaves in the store.
    pub records: Records,
    /// What is to be recorded of its command's end, and its OOM kills until then.
    pub ended: Option<(Exited, Option<Oom>)>,
}

impl Left {
    /// What the command of `running` left behind when it ended.
    pub fn by(running: Running, ended: &Ended, story: &[String]) -> Self {
        Self {
            ended: Some((records::of_running(&running, ended, story), ended.oom.clone())),
            name: running.name,
            lock: running.lock,
            group: running.group,
            pin: running.pin,
            entry: running.entry,
            status: Some(ended.exit.status()),
            records: running.records,
        }
    }
}

/// Splits off a process that stays with what is left of a session until it is empty, then removes its group. The
/// session's lock stays with it, and an OOM kill that happens meanwhile goes into its entry. `callers` are the caller's
/// signals, where they were changed. Returns in both processes; in the one that stayed there is nothing more to do.
///
/// # Errors
///
/// No process could be split off: the next command sweeps.
pub fn linger(
    left: Left,
    tree: &Tree,
    registry: &Registry,
    callers: Option<&CallersSignals>,
) -> Result<(), String> {
    let Left {
        name,
        lock,
        group,
        pin,
        mut entry,
        status,
        mut records,
        ended,
    } = left;
    let Some((group, path)) = group else { return Ok(()) };
    match sys::fork() {
        Err(errno) => return Err(format!("cannot leave a process beside session {name}: {errno}")),
        Ok(Some(_)) => {
            if let Some(lock) = lock {
                lock.leave_to_other();
            }
            if let Some(pin) = pin {
                pin.leave_to_other();
            }
            return Ok(());
        }
        Ok(None) => {}
    }
    into_background();
    // Whoever asks this process to end is heard: it only tidies up, and the next command does that too.
    if let Some(callers) = callers {
        callers.put_back();
    }
    // What happened before its command ended has been told; of adopted processes nothing has.
    let before = status.map_or(0, |_| oom_kills(&group));
    while group.wait_empty(Duration::from_secs(3600)).is_err() {}
    let kills = oom_kills(&group);
    let late = kills.saturating_sub(before);
    if late > 0 {
        let killed = crate::text::count(late, "process was", "processes were");
        entry.story.push(match status {
            Some(_) => format!("{name}: {killed} OOM-killed after the command had ended"),
            None => format!(
                "{name}: {killed} OOM-killed; how the adopted processes ended is theirs to know who started them"
            ),
        });
        entry.status = Some(status.unwrap_or_else(|| Exit::Unknown.status()));
        entry.detached = true;
        if let Err(error) = registry.write(&name, &entry) {
            tracing::error!("cannot keep what happened in session {name}: {error}");
        }
    }
    let usage = measure::usage(
        &group,
        None,
        records::now_usec().saturating_sub(records.started_usec),
    );
    let (exited, oom) = match ended {
        Some(ended) => ended,
        None => (records::of_entry(&entry), None),
    };
    let exited = Exited { usage, ..exited };
    let oom = match oom {
        Some(oom) => Some(Oom {
            kills: oom.kills + late,
            unseen: oom.unseen + late,
            ..oom
        }),
        None => records::unwatched(&group, kills),
    };
    records.exited(exited, oom.as_ref(), kills);
    if let Err(error) = remove(tree, &path) {
        tracing::error!("cannot remove session {name}: {error}");
    }
    drop(pin);
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
