//! Ends live sessions from outside: at once, or with time to put things in order.
//!
//! A session with a group is ended by the kernel (`cgroup.kill`: recursive, and no fork escapes it). One without is what
//! descends from its supervisor, which adopts every orphan of it; that is killed again and again until nothing is left.

use super::records;
use super::registry::{Entry, Registry};
use crate::backend::cgroupfs::{self, PROGRESS, Progress};
use crate::kernel::error::Doing;
use crate::kernel::{Group, KernelError, Tree, process};
use crate::path::{GroupPath, SessionName};
use crate::store::{Directory, Store};
use rustix::io::Errno;
use rustix::process::Signal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long processes have to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How long killed processes may take to be gone: core dumps and uninterruptible sleeps end late.
const KILL_DEADLINE: Duration = Duration::from_secs(60);
/// How long the cgmgr in charge may take to put an ended session away.
pub const PUT_AWAY: Duration = Duration::from_secs(10);

/// How to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// SIGKILL.
    Kill,
    /// SIGTERM, ten seconds, SIGKILL.
    Stop,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Processes that were in it.
    pub processes: usize,
    /// How many of them SIGKILL ended.
    pub killed: usize,
    /// What the user should know.
    pub note: Option<String>,
}

/// Ends a session that has a group, and sees to it that the group goes: whoever is in charge of it has `patience` to put it
/// away.
pub fn group(
    tree: &Tree,
    (group, path): (&Group, &GroupPath),
    name: &SessionName,
    registry: Option<&Registry>,
    how: How,
    patience: Duration,
    progress: Progress<'_>,
) -> Result<End, KernelError> {
    let mut end = End {
        processes: group.processes_below()?.len(),
        ..End::default()
    };
    let stopped = how == How::Stop && ask_to_end(group, path, progress)?;
    if !stopped {
        end.killed = match how {
            How::Kill => end.processes,
            How::Stop => group.processes_below()?.len(),
        };
        cgroupfs::kill_and_tell(group, KILL_DEADLINE, progress)?;
    }
    end.note = put_away(tree, group, path, name, registry, patience)?;
    Ok(end)
}

/// Ends what a command left behind in its group: SIGTERM, ten seconds, then a kill that no fork escapes.
pub(super) fn left_over(group: &Group, path: &GroupPath) -> Result<(), String> {
    let ended = ask_to_end(group, path, &mut |_| {}).map_err(|e| e.to_string())?;
    if ended {
        return Ok(());
    }
    crate::backend::cgroupfs::kill_and_wait(group, KILL_DEADLINE).map_err(|e| e.to_string())
}

/// Ends everything that descends from this process. `reap` collects those that have ended.
pub(super) fn descendants(reap: &mut dyn FnMut()) -> Result<(), String> {
    let mut now = || -> Vec<(i32, u64)> {
        reap();
        let pids = process::descendants(std::process::id() as i32).into_iter().rev();
        let living = pids.filter_map(|pid| Some((pid, process::stat(pid)?)));
        living
            .filter(|(_, stat)| stat.state != 'Z')
            .map(|(pid, stat)| (pid, stat.start))
            .collect()
    };
    ask_members(&now())?;
    poll_until(GRACE, "to end", &mut now, &mut |_| {});
    kill_members(&mut now, &mut |_| {})
}

/// SIGTERM, and SIGHUP for those at a terminal: an interactive shell ignores the former. `true`: all have ended.
fn ask_to_end(group: &Group, path: &GroupPath, progress: Progress<'_>) -> Result<bool, KernelError> {
    // Frozen processes hear nothing but SIGKILL.
    if group.get("cgroup.freeze")?.as_deref() == Some("1") {
        group.write("cgroup.freeze", "0")?;
    }
    let inside = |pid: i32| {
        process::group_of(pid)
            .and_then(|g| GroupPath::new(&g))
            .is_some_and(|g| path.contains(&g))
    };
    // Said from inside the session: whoever says it goes last.
    for pid in group
        .processes_below()?
        .into_iter()
        .filter(|pid| *pid != own_pid())
    {
        ask(pid, &inside)
            .map_err(|e| KernelError::new(Doing::Other, format!("signal {}", process::describe(pid)), e))?;
    }
    match wait_empty(group, GRACE, "to end", progress) {
        Ok(()) => Ok(true),
        Err(e) if e.errno == Errno::TIMEDOUT => Ok(false),
        Err(e) => Err(e),
    }
}

fn ask(pid: i32, is_it: &dyn Fn(i32) -> bool) -> Result<bool, Errno> {
    // As systemd does it: SIGCONT last, so that a stopped process handles what is pending.
    let at_terminal = process::stat(pid).is_some_and(|s| s.has_terminal);
    let signals: &[Signal] = if at_terminal {
        &[Signal::TERM, Signal::HUP, Signal::CONT]
    } else {
        &[Signal::TERM, Signal::CONT]
    };
    process::signal(pid, signals, is_it)
}

fn wait_empty(
    group: &Group,
    deadline: Duration,
    what_for: &str,
    progress: Progress<'_>,
) -> Result<(), KernelError> {
    let started = Instant::now();
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        match group.wait_empty(left.min(PROGRESS)) {
            Err(e) if e.errno == Errno::TIMEDOUT && left > PROGRESS => {
                let who = e.detail.unwrap_or_default();
                progress(&format!("waiting for processes {what_for}: {who}"));
            }
            other => return other,
        }
    }
}

/// The cgmgr in charge removes the group; where there is none, this one does.
fn put_away(
    tree: &Tree,
    group: &Group,
    path: &GroupPath,
    name: &SessionName,
    registry: Option<&Registry>,
    patience: Duration,
) -> Result<Option<String>, KernelError> {
    let id = group.id()?;
    let started = Instant::now();
    loop {
        // Another group under this name is another session.
        match tree.find(path)? {
            Some(now) if now.id()? == id => {}
            _ => return Ok(None),
        }
        let free = match registry {
            Some(registry) => registry.lock(name).ok().flatten(),
            None => return Ok(Some("its group is left to the cgmgr in charge of it".into())),
        };
        if let Some(_held) = free {
            let store = Directory::of_caller().map(|directory| Arc::new(Store::new(directory)));
            records::bury(store.as_ref(), name, group);
            return Ok(remove(tree, path)
                .err()
                .map(|e| format!("its group is left: {e}")));
        }
        if started.elapsed() >= patience {
            let late = "the cgmgr in charge of it has not removed its group yet (is it stopped, or its command held by \
                        a debugger?)";
            return Ok((!patience.is_zero()).then(|| late.into()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes a session's group once nothing is in it. Nobody's children are waited for.
pub fn remove(tree: &Tree, path: &GroupPath) -> Result<(), String> {
    let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
        return Ok(());
    };
    match tree.find(&parent) {
        Ok(Some(parent)) => parent.remove_session(name).map_err(|e| e.to_string()),
        Ok(None) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

fn own_pid() -> i32 {
    std::process::id() as i32
}

/// The processes of a session without a group, each with its start. Zombies are dead already.
fn members(entry: &Entry, attended: bool) -> Vec<(i32, u64)> {
    // A pid that was reused is younger than the command that its first owner started.
    let is_supervisor = attended
        && !entry.embedded
        && process::start_time(entry.supervisor)
            .is_some_and(|start| entry.pid_start.is_none_or(|command| start <= command));
    let mut pids = Vec::new();
    if is_supervisor {
        pids = process::descendants(entry.supervisor);
    } else if let Some(pid) = entry.pid
        && entry.pid_start.is_some()
        && process::start_time(pid) == entry.pid_start
    {
        pids.push(pid);
        pids.extend(process::descendants(pid));
    }
    // Children before their parents: the command goes last, so that its supervisor finds nobody left over. Who says
    // this from inside the session is not to stop itself half-way.
    pids.into_iter()
        .rev()
        .filter(|pid| *pid != own_pid())
        .filter_map(|pid| Some((pid, process::stat(pid)?)))
        .filter(|(_, stat)| stat.state != 'Z')
        .map(|(pid, stat)| (pid, stat.start))
        .collect()
}

fn signal_all(members: &[(i32, u64)], signals: &[Signal]) -> Result<(), String> {
    for (pid, start) in members {
        process::signal(*pid, signals, &|p| process::start_time(p) == Some(*start))
            .map_err(|e| format!("cannot signal {}: {e}", process::describe(*pid)))?;
    }
    Ok(())
}

/// Ends a session of the process backend; whoever is in charge of it has `patience` to notice.
pub fn without_group(
    name: &SessionName,
    entry: &Entry,
    registry: &Registry,
    how: How,
    patience: Duration,
    progress: Progress<'_>,
) -> Result<End, String> {
    let attended = registry.is_attended(name);
    let mut now = || members(entry, attended);
    let mut end = End {
        processes: now().len(),
        ..End::default()
    };
    if how == How::Stop {
        ask_members(&now())?;
        poll_until(GRACE, "to end", &mut now, progress);
    }
    end.killed = now().len();
    kill_members(&mut now, progress)?;
    if entry.embedded {
        end.note = Some("processes that had left its command's tree cannot be found".into());
    } else if !attended {
        end.note =
            Some("its cgmgr is gone: processes that had left its command's tree cannot be found".into());
        return Ok(end);
    }
    let started = Instant::now();
    while registry.is_attended(name) && started.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(end)
}

fn ask_members(members: &[(i32, u64)]) -> Result<(), String> {
    for (pid, start) in members {
        ask(*pid, &|p| process::start_time(p) == Some(*start))
            .map_err(|e| format!("cannot signal {}: {e}", process::describe(*pid)))?;
    }
    Ok(())
}

/// Kills until nothing is left: what is found was perhaps about to fork.
fn kill_members(now: &mut dyn FnMut() -> Vec<(i32, u64)>, progress: Progress<'_>) -> Result<(), String> {
    let started = Instant::now();
    while started.elapsed() < KILL_DEADLINE {
        let found = now();
        if found.is_empty() {
            return Ok(());
        }
        // Stopped first: what is stopped forks no more, so that a round catches all there are.
        signal_all(&found, &[Signal::STOP])?;
        signal_all(&now(), &[Signal::KILL])?;
        poll_until(Duration::from_millis(200), "to die", now, progress);
    }
    let who: Vec<String> = now()
        .iter()
        .take(8)
        .map(|(pid, _)| process::describe(*pid))
        .collect();
    Err(format!("these do not die: {}", who.join(", ")))
}

fn poll_until(
    deadline: Duration,
    what_for: &str,
    members: &mut dyn FnMut() -> Vec<(i32, u64)>,
    progress: Progress<'_>,
) {
    let started = Instant::now();
    let mut tell_at = PROGRESS;
    loop {
        let left = members();
        if left.is_empty() || started.elapsed() >= deadline {
            return;
        }
        if started.elapsed() >= tell_at {
            tell_at += PROGRESS;
            let who: Vec<String> = left
                .iter()
                .take(8)
                .map(|(pid, _)| process::describe(*pid))
                .collect();
            progress(&format!("waiting for processes {what_for}: {}", who.join(", ")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_nobody_of_the_session() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        let pid = child.id() as i32;
        let mut entry = Entry {
            pid: Some(pid),
            pid_start: process::start_time(pid),
            supervisor: pid,
            ..Entry::default()
        };
        assert_eq!(members(&entry, false).len(), 1);
        entry.pid_start = entry.pid_start.map(|s| s - 1);
        // Neither the command's pid nor the supervisor's is the one that was recorded.
        assert!(members(&entry, false).is_empty() && members(&entry, true).is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
