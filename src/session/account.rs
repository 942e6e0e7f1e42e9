//! Says what happened in a session, from its counters and the kernel log, while its command runs and when it has ended.
//!
//! Who waits for the command and for the session's other processes, and how, is somebody else's business: the command
//! line's supervisor reaps every child, a program that embeds cgmgr only the command that it started.

use super::at_limit::AtLimit;
use super::end;
use super::launch::Running;
use super::looks::Looks;
use super::measure::{self, Usage};
use super::verdict::{self, Evidence, Exit, Oom};
use crate::host::Base;
use crate::kernel::counters::Keyed;
use crate::kernel::group::read_record;
use crate::kernel::kmsg::OomLog;
use crate::kernel::{Group, Tree, process};
use crate::path::GroupPath;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// How long the rest of a group may take to die after a kill of the whole group.
const GROUP_KILL_DEADLINE: Duration = Duration::from_secs(30);
/// How long processes may take to follow the command that was their reason, before they count as left over.
pub(super) const STRAGGLERS: Duration = Duration::from_millis(200);
/// How long a record of an OOM kill waits for the name of who was killed.
const LOG_SOON: Duration = Duration::from_millis(10);
/// How long the kernel log may lag behind the counters.
const LOG_LAG: Duration = Duration::from_millis(300);

/// How a session ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How the command ended.
    pub exit: Exit,
    /// OOM kills in the session.
    pub oom: Option<Oom>,
    /// The group, and with it the counters, was gone before they could be read: whether there was an OOM kill is not
    /// known.
    pub oom_unknown: bool,
    /// What the kernel has counted of OOM kills in it, the same one twice at times ([`Oom::kills`] has them once).
    pub counted_kills: u64,
    /// What it used.
    pub usage: Usage,
    /// Processes that live on in the session: pid and comm.
    pub left: Vec<(i32, String)>,
    /// What the user should know about the end.
    pub warnings: Vec<String>,
}

impl Ended {
    /// The command ended so; nothing else is known yet.
    pub fn new(running: &Running, exit: Exit) -> Self {
        let mut ended = Self {
            exit,
            oom: None,
            oom_unknown: false,
            counted_kills: 0,
            usage: Usage {
                wall_usec: wall(running),
                ..Usage::default()
            },
            left: Vec::new(),
            warnings: Vec::new(),
        };
        if exit == Exit::Unknown {
            ended
                .warnings
                .push("how the command ended is not known: somebody else waited for it".into());
        }
        ended
    }
}

/// What is known of the session so far.
#[derive(Debug, Default)]
pub struct Known {
    /// How the command ended, if it has.
    pub exit: Option<Exit>,
    /// Pids that were killed and are known to have been in the session.
    pub killed: Vec<i32>,
    /// OOM kills that the command lived on after.
    survived: u64,
    log: OomLog,
    oomd: bool,
    /// The group's memory.events, where it has them.
    events: Option<OwnedFd>,
    /// They cannot be read any more: somebody removed the group. Such a file would wake for ever.
    is_gone: bool,
    /// OOM kills in the group before the command started.
    kills_before: u64,
    looks: Looks,
    limit: AtLimit,
}

impl Known {
    /// What is known of a session that has just begun.
    pub fn of(running: &Running) -> Self {
        let group = running.group.as_ref();
        Self {
            events: group.and_then(|(group, _)| group.watch("memory.events").ok()),
            kills_before: running.before.events.get("oom_kill").unwrap_or(0),
            ..Self::default()
        }
    }

    /// Waits until `waker` can be read, an OOM kill is counted, or [`Account::look_on`] is due whatever happens.
    pub fn sleep(&self, running: &Running, waker: BorrowedFd<'_>) {
        let mut fds = vec![PollFd::new(waker, PollFlags::POLLIN)];
        if let Some(events) = self.events.as_ref().filter(|_| !self.is_gone) {
            fds.push(PollFd::new(events.as_fd(), PollFlags::POLLPRI));
        }
        if self.limit.is_now(running.since.elapsed())
            && let Some(log) = &running.log
        {
            fds.push(PollFd::new(log.as_fd(), PollFlags::POLLIN));
        }
        let timeout = self.looks.next().map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_sub(running.since.elapsed()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut fds, timeout);
    }

    /// OOM kills since the command started; `None` where the group does not count them, or is gone.
    fn kills(&mut self) -> Option<u64> {
        let counted = self.counted()?;
        self.kills_in(&counted)
    }

    /// What the group's memory.events says. Reading at offset 0 also re-arms the notification of this very descriptor.
    fn counted(&mut self) -> Option<Keyed> {
        let text = read_record(self.events.as_ref()?.as_fd());
        self.is_gone |= matches!(text, Err(Errno::NODEV));
        Some(Keyed::parse(&text.ok()?))
    }

    fn kills_in(&self, counted: &Keyed) -> Option<u64> {
        Some(counted.get("oom_kill")?.saturating_sub(self.kills_before))
    }
}

/// How to account for a session.
pub struct Account<'a> {
    /// The hierarchy, where the session has a group.
    pub tree: Option<&'a Tree>,
    /// Where all sessions are in it.
    pub base: Option<&'a Base>,
    /// Whether the hierarchy is seen from inside a cgroup namespace.
    pub namespaced: bool,
    /// End what is left when the command has ended.
    pub kill_left: bool,
    /// Collects what has ended of the session, as far as it is the caller's to wait for.
    pub reap: &'a dyn Fn(&mut Known),
}

impl Account<'_> {
    /// Looks for OOM kills while the command runs, and tells of one that the session lives on after.
    pub fn look_on(&self, running: &mut Running, known: &mut Known, on_oom: &mut dyn FnMut(&Oom)) {
        let counted = known.counted().unwrap_or_default();
        let kills = known.kills_in(&counted).unwrap_or(0);
        let now = running.since.elapsed();
        known.limit.notice(counted.get("max").unwrap_or(0), now);
        // What wakes has to be read: all that was said meanwhile.
        if known.looks.notice(kills, now) || known.limit.is_now(now) {
            note_victims(running, known);
        }
        if running.records.is_news(kills) {
            self.record(running, known, kills);
        }
        if !known.looks.is_due(running.since.elapsed()) {
            return;
        }
        note_victims(running, known);
        let oom = self.account(running, known).and_then(|(oom, _)| oom);
        let may_give_a_name = known.looks.may_give_a_name();
        let nameless = |oom: &Oom| oom.unseen > 0 && running.log.is_some() && may_give_a_name;
        if let Some(oom) = oom.filter(|oom| goes_on(oom, running.spawned.pid) && !nameless(oom)) {
            known.looks.told(kills);
            known.survived = kills;
            on_oom(&oom);
        } else {
            known.looks.unclear(running.since.elapsed());
        }
    }

    /// Records an OOM kill at once. The kernel counts it a little before its log names who was killed.
    fn record(&self, running: &mut Running, known: &mut Known, kills: u64) {
        let since = Instant::now();
        let oom = loop {
            note_victims(running, known);
            let Some((Some(oom), _)) = self.account(running, known) else {
                return;
            };
            let Some(log) = running
                .log
                .as_ref()
                .filter(|_| oom.unseen > 0 && since.elapsed() < LOG_SOON)
            else {
                break oom;
            };
            log.wait(LOG_SOON);
        };
        if let Some((group, _)) = &running.group {
            running.records.oom(&oom, kills, group, self.tree.zip(self.base));
        }
    }

    /// Accounts for a session that has a group and whose command has ended: waits for those who follow it, and reads the
    /// counters. What is left in the group then lives on.
    pub fn end(&self, running: &mut Running, known: &mut Known, ended: &mut Ended) {
        if running.entered {
            self.end_entered(running, known, ended);
        } else {
            self.end_in_group(running, known, ended);
        }
    }

    /// What the counters say of OOM kills now, and the session's memory.events. `None` where they are gone.
    fn account(&self, running: &Running, known: &Known) -> Option<(Option<Oom>, Keyed)> {
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
        Some((oom, after.events))
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
        let mut empty = self.settle(group, known);
        if !empty && known.kills().unwrap_or(0) > 0 && whole_group() {
            empty = self.dies_out(group, known);
        }
        if !empty && self.kill_left {
            ended.warnings.extend(end::left_over(group, path).err());
            empty = group.is_empty_within(Duration::ZERO).unwrap_or(false);
        }
        (self.reap)(known);
        // systemd-oomd kills all that is in a group: whoever ended well was not there any more.
        let asked = (ended.exit != Exit::Code(0)).then(|| group.attribute("user.oomd_kill"));
        known.oomd = asked.flatten().is_some_and(|v| !matches!(v.trim(), "" | "0"));
        let counted = known.counted();
        let kills = counted.as_ref().and_then(|counted| known.kills_in(counted));
        ended.oom_unknown = known.events.is_some() && kills.is_none();
        ended.counted_kills = kills.unwrap_or(0);
        if kills.unwrap_or(0) > 0 || known.oomd {
            self.explain(running, known, ended);
            if let Some(oom) = &ended.oom {
                running.records.look_around(oom, self.tree.zip(self.base));
            }
        } else {
            ended.usage = measure::usage(group, counted, wall(running));
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
    fn settle(&self, group: &Group, known: &mut Known) -> bool {
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
            (self.reap)(known);
            let now = group.tasks();
            if now.is_none() || now >= before || since.elapsed() > GROUP_KILL_DEADLINE {
                return false;
            }
            before = now;
        }
    }

    /// Waits for those whom a kill of the whole group has hit, as long as one of them is dying: who has an oom_score_adj
    /// of -1000 is spared and may live for ever. Whether the group is empty then.
    fn dies_out(&self, group: &Group, known: &mut Known) -> bool {
        let since = Instant::now();
        // The kernel hits one after the other: that nobody is dying is believed when it is seen again and again.
        let mut spared = 0;
        while spared < 3 && since.elapsed() < GROUP_KILL_DEADLINE {
            if group.is_empty_within(STRAGGLERS).unwrap_or(false) {
                return true;
            }
            (self.reap)(known);
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
            if let Some((oom, events)) = self.account(running, known)
                && let Some((group, _)) = &running.group
            {
                ended.oom = oom;
                ended.usage = measure::usage(group, Some(events), wall(running));
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

/// Whether the session goes on after an OOM kill. A process with much memory takes long to die: that the command has
/// not ended yet does not say that it lives on.
fn goes_on(oom: &Oom, command: i32) -> bool {
    let dying = |pid: i32| process::is_exiting(pid).unwrap_or(true);
    !oom.whole_group && !oom.victims.iter().any(|v| v.pid == command) && !dying(command)
}

fn wall(running: &Running) -> u64 {
    u64::try_from(running.since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
