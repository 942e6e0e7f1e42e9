//! Stays beside a session, outside its group: forwards signals, keeps the terminal right, reaps, notices OOM kills
//! while it lives, reads its counters when its command has ended, and removes its group.
//!
//! An OOM kill of the whole group never takes this process. It owns the caller's process: it reaps every child, so it
//! is for the command line and not for a program that has children of its own.

use super::launch::Running;
use super::measure::{self, Level, Moment, Usage};
use super::terminal::Terminal;
use super::verdict::{self, Evidence, Exit, Oom};
use crate::kernel::group::read_all;
use crate::kernel::kmsg::OomLog;
use crate::kernel::sys::{self, Mask};
use crate::kernel::{Group, Tree, process};
use crate::plan::path::{GroupPath, SessionName};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Signals that are passed on to the command.
const FORWARDED: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// `si_code` of a signal that the kernel itself sent: the terminal, to the whole foreground group.
const SI_KERNEL: i32 = 0x80;

/// How long the rest of a group may take to die after a kill of the whole group.
const GROUP_KILL_DEADLINE: Duration = Duration::from_secs(30);
/// How long processes may take to follow the command that was their reason, before they count as left over.
const STRAGGLERS: Duration = Duration::from_millis(200);
/// How long the kernel log may lag behind the counters.
const LOG_LAG: Duration = Duration::from_millis(300);
/// How long the command may live on after an OOM kill before that is told as a session that goes on.
const OOM_TELL_AFTER: Duration = Duration::from_millis(250);
/// How long processes have to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// Blocks the signals that a supervisor takes by descriptor. To be called before the launch: the command gets back
/// the mask that was in force.
pub fn block_signals() -> Result<(SignalFd, Mask), Errno> {
    let mut set = SigSet::empty();
    for signal in FORWARDED {
        set.add(signal);
    }
    for signal in [Signal::SIGCHLD, Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGTTOU] {
        set.add(signal);
    }
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
    let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    Ok((fd, before.into()))
}

/// How a session ended.
#[derive(Debug)]
pub struct Ended {
    /// How the command ended.
    pub exit: Exit,
    /// OOM kills in the session.
    pub oom: Option<Oom>,
    /// What it used.
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
    /// Signals as they come in.
    pub signals: &'a SignalFd,
    /// The caller's terminal, where the session is in the foreground of one.
    pub terminal: Option<Terminal>,
    /// Told of an OOM kill while the session goes on.
    pub on_oom: &'a mut dyn FnMut(&Oom),
    /// End what is left when the command has ended.
    pub kill_left: bool,
}

/// What is known of the children so far.
#[derive(Default)]
struct Reaped {
    exit: Option<Exit>,
    killed: Vec<i32>,
}

impl Supervisor<'_> {
    /// Waits until the command has ended, and accounts for it. What is left in the group then lives on: the caller
    /// hands it to [`linger`].
    pub fn watch(&mut self, running: &mut Running) -> Ended {
        let command = running.spawned.pid;
        let mut reaped = Reaped::default();
        let events = running
            .group
            .as_ref()
            .and_then(|(group, _)| group.watch("memory.events").ok());
        let mut log = OomLog::default();
        let mut told = 0;
        let mut tell_at: Option<Instant> = None;
        loop {
            self.reap(command, &mut reaped);
            if reaped.exit.is_some() {
                break;
            }
            let kills = events.as_ref().map_or(0, oom_kills);
            if kills > told && tell_at.is_none() {
                tell_at = Some(Instant::now() + OOM_TELL_AFTER);
                self.note_victims(running, &mut log, &mut reaped);
            }
            if tell_at.is_some_and(|at| Instant::now() >= at) {
                tell_at = None;
                told = kills;
                self.note_victims(running, &mut log, &mut reaped);
                let oom = self
                    .account(running, &log, &reaped, false)
                    .and_then(|(oom, _)| oom);
                if let Some(oom) = oom.filter(|oom| goes_on(oom, command)) {
                    (self.on_oom)(&oom);
                }
            }
            self.sleep(events.as_ref(), tell_at);
            self.forward(command);
        }
        if let Some(terminal) = &self.terminal {
            terminal.take_back();
        }
        self.end(running, log, reaped)
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

    /// Passes signals on to the command. One that the terminal sent has reached the whole group already.
    fn forward(&self, command: i32) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else {
                continue;
            };
            let ours = FORWARDED.contains(&signal) || matches!(signal, Signal::SIGTSTP | Signal::SIGCONT);
            if ours && info.ssi_code != SI_KERNEL {
                let _ = kill(Pid::from_raw(command), signal);
            }
        }
    }

    /// Collects every child that ended or stopped. Besides the command there are its orphans: this process adopts
    /// them, so that none stays a zombie.
    fn reap(&self, command: i32, reaped: &mut Reaped) {
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == command => {
                    reaped.exit = Some(Exit::Code(code))
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    if pid.as_raw() == command {
                        reaped.exit = Some(Exit::Signal(signal as i32));
                    }
                    if signal == Signal::SIGKILL {
                        reaped.killed.push(pid.as_raw());
                    }
                }
                Ok(WaitStatus::Stopped(pid, _)) if pid.as_raw() == command => {
                    if let Some(terminal) = &self.terminal {
                        terminal.stop_with(command);
                    }
                }
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => {
                    // No child at all: somebody else reaped the command. How it ended is then not known.
                    if reaped.exit.is_none() && !alive(command) {
                        reaped.exit = Some(Exit::Signal(Signal::SIGKILL as i32));
                    }
                    return;
                }
            }
        }
    }

    /// Reads on in the kernel log, and remembers which of its victims were in this session: a victim's group can be
    /// read as long as nobody has reaped it.
    fn note_victims(&self, running: &mut Running, log: &mut OomLog, reaped: &mut Reaped) {
        let Some(kernel) = &mut running.log else { return };
        let seen = log.victims.len();
        kernel.read_on(log);
        let Some((_, path)) = &running.group else { return };
        for victim in &log.victims[seen..] {
            let group = process::group_of(victim.pid).and_then(|g| GroupPath::new(&g));
            if group.is_some_and(|g| path.contains(&g)) {
                reaped.killed.push(victim.pid);
            }
        }
    }

    fn account(
        &self,
        running: &Running,
        log: &OomLog,
        reaped: &Reaped,
        oomd: bool,
    ) -> Option<(Option<Oom>, Usage)> {
        let (group, path) = running.group.as_ref()?;
        let after = measure::moment(self.tree?, group, path).ok()?;
        let evidence = Evidence {
            log: running.log.is_some().then(|| log.clone()),
            pids: reaped.killed.clone(),
            oomd,
        };
        let oom = verdict::oom(&before(&running.above), &after, &evidence);
        Some((oom, measure::usage(group, wall(running))))
    }

    /// What still descends from this process, after a moment for those that follow the command.
    fn left_without_group(&self, command: i32, reaped: &mut Reaped) -> Vec<(i32, String)> {
        let since = Instant::now();
        loop {
            self.reap(command, reaped);
            let left: Vec<(i32, String)> = process::descendants(std::process::id() as i32)
                .into_iter()
                // A zombie is dead, only not reaped yet.
                .filter(|p| process::stat(*p).is_some_and(|s| s.state != 'Z'))
                .filter_map(|p| Some((p, process::comm(p)?)))
                .collect();
            if left.is_empty() || since.elapsed() > STRAGGLERS {
                return left;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(&mut self, running: &mut Running, mut log: OomLog, mut reaped: Reaped) -> Ended {
        let exit = reaped.exit.unwrap_or(Exit::Code(125));
        let mut ended = Ended {
            exit,
            oom: None,
            usage: Usage::default(),
            left: Vec::new(),
            warnings: Vec::new(),
        };
        ended.usage.wall_usec = wall(running);
        let Some((group, _)) = &running.group else {
            ended.usage.cpu_usec = children_cpu_usec();
            ended.left = self.left_without_group(running.spawned.pid, &mut reaped);
            return ended;
        };
        let oom_kills = group
            .counters("memory.events")
            .ok()
            .and_then(|c| c.get("oom_kill"))
            .unwrap_or(0);
        let whole_group = group.get("memory.oom.group").ok().flatten().as_deref() == Some("1");
        let patience = if oom_kills > 0 && whole_group {
            GROUP_KILL_DEADLINE
        } else {
            STRAGGLERS
        };
        let empty = group.wait_empty(patience).is_ok();
        if !empty
            && self.kill_left
            && let Err(error) = end_all(group)
        {
            ended.warnings.push(error);
        }
        self.reap(running.spawned.pid, &mut reaped);
        let oomd = group
            .attribute("user.oomd_kill")
            .is_some_and(|v| v.trim() != "0" && !v.trim().is_empty());
        let lagging = Instant::now();
        loop {
            self.note_victims(running, &mut log, &mut reaped);
            if let Some((oom, usage)) = self.account(running, &log, &reaped, oomd) {
                ended.oom = oom;
                ended.usage = usage;
            }
            let unknown = ended
                .oom
                .as_ref()
                .is_some_and(|o| o.kills > 0 && o.victims.is_empty());
            if !unknown || running.log.is_none() || lagging.elapsed() > LOG_LAG {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some((group, _)) = &running.group {
            let left = group.processes_below().unwrap_or_default();
            ended.left = left
                .into_iter()
                .map(|p| (p, process::comm(p).unwrap_or_default()))
                .collect();
        }
        ended
    }
}

/// Whether the session goes on after an OOM kill. A process with much memory takes long to die: that the command has
/// not ended yet does not say that it lives on.
fn goes_on(oom: &Oom, command: i32) -> bool {
    let dying = |pid: i32| process::is_exiting(pid).unwrap_or(true);
    !oom.whole_group && !oom.victims.iter().any(|v| v.pid == command) && !dying(command)
}

/// Nothing had happened in the session before it began; above it things may have.
fn before(above: &[Level]) -> Moment {
    Moment {
        events: Default::default(),
        levels: above.to_vec(),
    }
}

fn wall(running: &Running) -> u64 {
    u64::try_from(running.since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Reading at offset 0 also re-arms the notification of this very descriptor.
fn oom_kills(events: &OwnedFd) -> u64 {
    let text = read_all(events.as_fd()).unwrap_or_default();
    crate::kernel::counters::Keyed::parse(&text)
        .get("oom_kill")
        .unwrap_or(0)
}

fn alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

fn children_cpu_usec() -> Option<u64> {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).ok()?;
    let usec = |t: nix::sys::time::TimeVal| t.tv_sec() as u64 * 1_000_000 + t.tv_usec() as u64;
    Some(usec(used.user_time()) + usec(used.system_time()))
}

/// Ends every process of a group: SIGTERM, ten seconds, then a kill that no fork escapes. A frozen group is thawed, so
/// that SIGTERM can be heard.
pub fn end_all(group: &Group) -> Result<(), String> {
    for pid in group.processes_below().map_err(|e| e.to_string())? {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if group.wait_empty(GRACE).is_ok() {
        return Ok(());
    }
    crate::backend::cgroupfs::kill_and_wait(group, GROUP_KILL_DEADLINE).map_err(|e| e.to_string())
}

/// Makes this process the one that adopts the session's orphans.
pub fn adopt_orphans() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Removes a session's group once nothing is in it, reaping first: newer kernels let rmdir wait for zombies that the
/// caller itself owes a wait.
pub fn remove(tree: &Tree, path: &GroupPath) -> Result<(), String> {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
    {
    }
    let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
        return Ok(());
    };
    match tree.find(&parent) {
        Ok(Some(parent)) => parent.remove_session(name).map_err(|e| e.to_string()),
        Ok(None) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

/// Splits off a process that stays with what is left of a session until it is empty, then removes its group. The
/// session's lock stays with it. Returns in the caller only.
pub fn linger(running: Running, tree: &Tree) -> Result<(), String> {
    let Running {
        name, lock, group, ..
    } = running;
    let Some((group, path)) = group else { return Ok(()) };
    match sys::fork() {
        Err(errno) => Err(format!("cannot leave a process beside session {name}: {errno}")),
        Ok(Some(_)) => {
            if let Some(lock) = lock {
                lock.leave_to_other();
            }
            Ok(())
        }
        Ok(None) => {
            detach_from_caller();
            stay_until_empty(&group, &path, tree, &name);
            drop(lock);
            std::process::exit(0);
        }
    }
}

fn stay_until_empty(group: &Group, path: &GroupPath, tree: &Tree, name: &SessionName) {
    while group.wait_empty(Duration::from_secs(3600)).is_err() {}
    if let Err(error) = remove(tree, path) {
        tracing::error!("cannot remove session {name}: {error}");
    }
}

/// Leaves the caller's terminal and streams: a session of its own, and /dev/null for input and output.
pub fn detach_from_caller() {
    let _ = nix::unistd::setsid();
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
