//! Stays beside a session, outside its group: forwards signals, keeps the terminal right, reaps, notices OOM kills
//! while it lives, reads its counters when its command has ended, and removes its group.
//!
//! An OOM kill of the whole group never takes this process. It owns the caller's process: it reaps every child, so it
//! is for the command line and not for a program that has children of its own.

use super::end;
use super::launch::Running;
use super::looks::Looks;
use super::measure::{self, Usage};
use super::signals::Signals;
use super::terminal::Terminal;
use super::verdict::{self, Evidence, Exit, Oom};
use crate::kernel::group::read_record;
use crate::kernel::kmsg::OomLog;
use crate::kernel::{Group, Tree, process};
use crate::path::GroupPath;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use std::time::{Duration, Instant};

/// How long the rest of a group may take to die after a kill of the whole group.
const GROUP_KILL_DEADLINE: Duration = Duration::from_secs(30);
/// How long processes may take to follow the command that was their reason, before they count as left over.
const STRAGGLERS: Duration = Duration::from_millis(200);
/// How long the kernel log may lag behind the counters.
const LOG_LAG: Duration = Duration::from_millis(300);

/// How a session ended.
#[derive(Debug)]
pub struct Ended {
    /// How the command ended.
    pub exit: Exit,
    /// OOM kills in the session.
    pub oom: Option<Oom>,
    /// The group, and with it the counters, was gone before they could be read: whether there was an OOM kill is not
    /// known.
    pub oom_unknown: bool,
    /// What it used. Only the time, where nobody wanted the rest and there was no OOM kill.
    pub usage: Usage,
    /// Processes that live on in the session: pid and comm.
    pub left: Vec<(i32, String)>,
    /// What the user should know about the end.
    pub warnings: Vec<String>,
}

/// What a supervisor needs beside the session.
pub struct Supervisor<'a> {
    /// The hierarchy, where the session has a group.
    pub tree: Option<&'a Tree>,
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
    /// Read what the session used.
    pub usage: bool,
}

/// What is known of the session so far.
#[derive(Default)]
struct Known {
    exit: Option<Exit>,
    /// Pids that were killed and are known to have been in the session.
    killed: Vec<i32>,
    /// OOM kills that the command lived on after.
    survived: u64,
    log: OomLog,
    oomd: bool,
    /// The group's memory.events, where it has them.
    events: Option<OwnedFd>,
    /// OOM kills in the group before the command started.
    kills_before: u64,
}

impl Known {
    /// OOM kills since the command started; `None` where the group does not count them, or is gone. Reading at offset 0 also re-arms the
    /// notification of this very descriptor.
    fn kills(&self) -> Option<u64> {
        let text = read_record(self.events.as_ref()?.as_fd()).ok()?;
        let kills = crate::kernel::counters::Keyed::parse(&text).get("oom_kill")?;
        Some(kills.saturating_sub(self.kills_before))
    }
}

impl Supervisor<'_> {
    /// Waits until the command has ended, and accounts for it. What is left in the group then lives on: the caller
    /// hands it to [`linger`](super::linger::linger).
    pub fn watch(&mut self, running: &mut Running) -> Ended {
        let command = running.spawned.pid;
        let group = running.group.as_ref();
        let mut known = Known {
            events: group.and_then(|(group, _)| group.watch("memory.events").ok()),
            kills_before: running.before.events.get("oom_kill").unwrap_or(0),
            ..Known::default()
        };
        let mut looks = Looks::default();
        loop {
            self.reap(command, &mut known);
            if known.exit.is_some() {
                break;
            }
            let kills = known.kills().unwrap_or(0);
            if looks.notice(kills, running.since.elapsed()) {
                note_victims(running, &mut known);
            }
            if looks.is_due(running.since.elapsed()) {
                note_victims(running, &mut known);
                let oom = self.account(running, &known).and_then(|(oom, _)| oom);
                let nameless = |oom: &Oom| oom.unseen > 0 && running.log.is_some() && looks.may_give_a_name();
                if let Some(oom) = oom.filter(|oom| goes_on(oom, command) && !nameless(oom)) {
                    looks.told(kills);
                    known.survived = kills;
                    (self.on_oom)(&oom);
                } else {
                    looks.unclear(running.since.elapsed());
                }
            }
            self.sleep(known.events.as_ref(), looks.next().map(|at| running.since + at));
            self.signals.pass_on(command);
        }
        if let Some(terminal) = &self.terminal {
            terminal.take_back();
        }
        self.end(running, known)
    }

    fn sleep(&self, events: Option<&OwnedFd>, until: Option<Instant>) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(events) = events {
            fds.push(PollFd::new(events.as_fd(), PollFlags::POLLPRI));
        }
        let timeout = until.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut fds, timeout);
    }

    /// Collects every child that ended or stopped. Besides the command there are its orphans: this process adopts
    /// them, so that none stays a zombie.
    fn reap(&self, command: i32, known: &mut Known) {
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
                && let Some(terminal) = &self.terminal
            {
                terminal.stop_with(command, signal);
            }
        }
    }

    fn account(&self, running: &Running, known: &Known) -> Option<(Option<Oom>, Usage)> {
        let (group, path) = running.group.as_ref()?;
        let after = measure::moment(self.tree?, group, path, self.namespaced).ok()?;
        let evidence = Evidence {
            log: running.log.is_some().then(|| known.log.clone()),
            pids: known.killed.clone(),
            oomd: known.oomd,
            namespaced: self.namespaced,
            command: running.spawned.pid,
            exit: known.exit,
            survived: known.survived,
        };
        let oom = verdict::oom(&running.before, &after, &evidence);
        Some((oom, measure::usage(group, wall(running))))
    }

    fn end(&mut self, running: &mut Running, mut known: Known) -> Ended {
        let exit = known.exit.unwrap_or(Exit::Unknown);
        let usage = Usage {
            wall_usec: wall(running),
            ..Usage::default()
        };
        let mut ended = Ended {
            exit,
            oom: None,
            oom_unknown: false,
            usage,
            left: Vec::new(),
            warnings: Vec::new(),
        };
        if exit == Exit::Unknown {
            ended
                .warnings
                .push("how the command ended is not known: somebody else waited for it".into());
        }
        match &running.group {
            Some(_) if running.entered => self.end_entered(running, &mut known, &mut ended),
            Some(_) => self.end_in_group(running, &mut known, &mut ended),
            None => self.end_without_group(running.spawned.pid, &mut known, &mut ended),
        }
        ended
    }

    fn end_without_group(&self, command: i32, known: &mut Known, ended: &mut Ended) {
        ended.usage.cpu_usec = children_cpu_usec();
        let since = Instant::now();
        loop {
            self.reap(command, known);
            ended.left = living_descendants();
            if ended.left.is_empty() || since.elapsed() > STRAGGLERS {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.kill_left && !ended.left.is_empty() {
            ended
                .warnings
                .extend(end::descendants(&mut || self.reap(command, &mut Known::default())).err());
            ended.left = living_descendants();
        }
    }

    /// The end of a command that entered somebody else's session: that goes on, or is put away by whoever is in charge.
    fn end_entered(&self, running: &mut Running, known: &mut Known, ended: &mut Ended) {
        let kills = known.kills();
        let killed = ended.exit == Exit::Signal(libc::SIGKILL);
        ended.oom_unknown = killed && known.events.is_some() && kills.is_none();
        if kills.unwrap_or(0) > 0 {
            self.explain(running, known, ended);
        }
    }

    fn end_in_group(&self, running: &mut Running, known: &mut Known, ended: &mut Ended) {
        let Some((group, path)) = &running.group else {
            return;
        };
        let whole_group = || group.get("memory.oom.group").ok().flatten().as_deref() == Some("1");
        let mut empty = self.settle(group, running.spawned.pid, known);
        if !empty && known.kills().unwrap_or(0) > 0 && whole_group() {
            empty = self.dies_out(group, running.spawned.pid, known);
        }
        if !empty && self.kill_left {
            ended.warnings.extend(end::left_over(group, path).err());
            empty = group.is_empty_within(Duration::ZERO).unwrap_or(false);
        }
        self.reap(running.spawned.pid, known);
        let oomd = group.attribute("user.oomd_kill");
        known.oomd = oomd.is_some_and(|v| !matches!(v.trim(), "" | "0"));
        let kills = known.kills();
        ended.oom_unknown = known.events.is_some() && kills.is_none();
        if kills.unwrap_or(0) > 0 || known.oomd {
            self.explain(running, known, ended);
        } else if self.usage {
            ended.usage = measure::usage(group, wall(running));
        }
        if let Some((group, _)) = &running.group
            && !empty
        {
            let left = group.processes_below().unwrap_or_default();
            ended.left = left
                .into_iter()
                .map(|p| (p, process::comm(p).unwrap_or_default()))
                .collect();
        }
    }

    /// Waits for those who follow the command, or were killed with it: as long as they get fewer. Those who mean to stay
    /// do not. Whether the group is empty then.
    fn settle(&self, group: &Group, command: i32, known: &mut Known) -> bool {
        let since = Instant::now();
        // Nearly always nobody follows.
        if group.is_empty_within(Duration::ZERO).unwrap_or(false) {
            return true;
        }
        let mut before = group.tasks();
        loop {
            if group.is_empty_within(STRAGGLERS).unwrap_or(false) {
                return true;
            }
            // What has ended counts until it is waited for.
            self.reap(command, known);
            let now = group.tasks();
            if now.is_none() || now >= before || since.elapsed() > GROUP_KILL_DEADLINE {
                return false;
            }
            before = now;
        }
    }

    /// Waits for those whom a kill of the whole group has hit, as long as one of them is dying: who has an oom_score_adj
    /// of -1000 is spared and may live for ever. Whether the group is empty then.
    fn dies_out(&self, group: &Group, command: i32, known: &mut Known) -> bool {
        let since = Instant::now();
        // The kernel hits one after the other: that nobody is dying is believed when it is seen again and again.
        let mut spared = 0;
        while spared < 3 && since.elapsed() < GROUP_KILL_DEADLINE {
            if group.is_empty_within(STRAGGLERS).unwrap_or(false) {
                return true;
            }
            self.reap(command, known);
            let inside = group.processes_below().unwrap_or_default();
            let dying = |pid: i32| process::is_exiting(pid).unwrap_or(true);
            spared = if inside.into_iter().any(dying) {
                0
            } else {
                spared + 1
            };
        }
        false
    }

    /// Who was OOM-killed, and by which limit.
    fn explain(&self, running: &mut Running, known: &mut Known, ended: &mut Ended) {
        let lagging = Instant::now();
        loop {
            note_victims(running, known);
            if let Some((oom, usage)) = self.account(running, known) {
                ended.oom = oom;
                ended.usage = usage;
            }
            let unseen = ended.oom.as_ref().is_some_and(|o| o.unseen > 0);
            if !unseen || running.log.is_none() || lagging.elapsed() > LOG_LAG {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Reads on in the kernel log, and remembers which of its victims were in this session: a victim's group can be read
/// as long as nobody has reaped it.
fn note_victims(running: &mut Running, known: &mut Known) {
    let Some(kernel) = &mut running.log else { return };
    let seen = known.log.victims.len();
    kernel.read_on(&mut known.log);
    let Some((_, path)) = &running.group else { return };
    for victim in &known.log.victims[seen..] {
        let group = process::group_of(victim.pid).and_then(|g| GroupPath::new(&g));
        if group.is_some_and(|g| path.contains(&g)) {
            known.killed.push(victim.pid);
        }
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

/// Whether the session goes on after an OOM kill. A process with much memory takes long to die: that the command has
/// not ended yet does not say that it lives on.
fn goes_on(oom: &Oom, command: i32) -> bool {
    let dying = |pid: i32| process::is_exiting(pid).unwrap_or(true);
    !oom.whole_group && !oom.victims.iter().any(|v| v.pid == command) && !dying(command)
}

fn wall(running: &Running) -> u64 {
    u64::try_from(running.since.elapsed().as_micros()).unwrap_or(u64::MAX)
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
    let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
        return Ok(());
    };
    match tree.find(&parent) {
        Ok(Some(parent)) => parent.remove_session(name).map_err(|e| e.to_string()),
        Ok(None) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}
