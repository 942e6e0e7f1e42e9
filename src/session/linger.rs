//! Stays with what a command left behind in its session, until that has ended too; and the way into the background.

use super::account::Ended;
use super::launch::Running;
use super::onlooker::Scenery;
use super::place::Place;
use super::records::{self, Records};
use super::registry::{Entry, Lock};
use super::supervise::remove;
use super::verdict::{Exit, Oom};
use crate::backend::scope::Pin;
use crate::kernel::Group;
use crate::kernel::counters::Keyed;
use crate::kernel::group::read_record;
use crate::kernel::kmsg::{KernelLog, OomLog};
use crate::kernel::sys::{self, CallersSignals};
use crate::path::{GroupPath, SessionName};
use crate::record::Exited;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Between two looks at OOM kills that are too many to be recorded one by one.
const AGAIN: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

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
    /// The kernel's log from some time before; `None` where it cannot be read.
    pub log: Option<KernelLog>,
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
            log: running.log,
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
pub fn linger(left: Left, place: &Place, callers: Option<&CallersSignals>) -> Result<(), String> {
    let Left {
        name,
        lock,
        group,
        pin,
        mut entry,
        status,
        mut records,
        ended,
        log,
    } = left;
    let (Some((group, path)), Some(tree)) = (group, &place.tree) else {
        return Ok(());
    };
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
    let before = records.kills();
    records.look_on();
    let scenery = Scenery {
        tree,
        namespaced: place.is_namespaced(),
        group: &group,
        path: &path,
    };
    let seen = watch(&scenery, place, &mut records, log);
    while group.wait_empty(Duration::from_secs(3600)).is_err() {}
    let kills = records::oom_kills(&group);
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
        if let Err(error) = place.registry.write(&name, &entry) {
            tracing::error!("cannot keep what happened in session {name}: {error}");
        }
    }
    let (exited, oom) = ended.unwrap_or_else(|| (records::of_entry(&entry), None));
    let oom = [oom, seen.oom].into_iter().flatten().reduce(Oom::and);
    records::over_at_last(&mut records, exited, oom, seen.counted.max(before), &group);
    if let Err(error) = remove(tree, &path) {
        tracing::error!("cannot remove session {name}: {error}");
    }
    drop(pin);
    drop(lock);
    Ok(())
}

/// What was seen while it lived.
#[derive(Default)]
struct Seen {
    /// Its OOM kills.
    oom: Option<Oom>,
    /// As the kernel has counted them.
    counted: u64,
}

/// Waits until nothing is in it any more, and records OOM kills at once.
fn watch(scenery: &Scenery<'_>, place: &Place, records: &mut Records, mut log: Option<KernelLog>) -> Seen {
    let watches: Vec<OwnedFd> = ["cgroup.events", "memory.events"]
        .into_iter()
        .filter_map(|file| scenery.group.watch(file).ok())
        .collect();
    let mut said = OomLog::default();
    let mut above = scenery.above();
    let mut seen = Seen::default();
    loop {
        // Read through the very descriptors that are polled: that arms them.
        let texts = watches.iter().map(|file| read_record(file.as_fd()));
        let Ok(texts) = texts.collect::<Result<Vec<String>, _>>() else {
            return seen;
        };
        let events: Vec<Keyed> = texts.iter().map(|text| Keyed::parse(text)).collect();
        let get = |key: &str| events.iter().find_map(|events| events.get(key));
        let kills = get("oom_kill").unwrap_or(0);
        if records.is_news(kills)
            && let Some(oom) = scenery.kills_since(records.kills(), &mut above, log.as_mut(), &mut said)
        {
            records.oom(&oom, kills, scenery.group, place.base());
            seen.counted = kills;
            seen.oom = seen.oom.take().into_iter().chain([oom]).reduce(Oom::and);
        }
        if get("populated") != Some(1) {
            return seen;
        }
        let mut fds: Vec<PollFd<'_>> = watches
            .iter()
            .map(|file| PollFd::new(file, PollFlags::PRI))
            .collect();
        // What was too much to be told at once is told after a while.
        let again = (kills > records.kills()).then_some(AGAIN);
        let _ = poll(&mut fds, again.as_ref());
    }
}

/// Leaves the caller's terminal, streams, files and directory: a session of its own, and /dev/null for input and output.
/// Whatever it has open of the caller's would be locked, or not end, for as long as the session lives.
pub fn into_background() {
    let _ = nix::unistd::setsid();
    let _ = std::env::set_current_dir("/");
    sys::close_inherited();
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
