//! Watches the sessions that live, records what only one who looks on can see, and has people told.
//!
//! One thread and one epoll loop. Whoever is in charge of a session records its life (`session::records`); here is what
//! nobody is in charge of: limits that were reached, stalls, drift, sessions whose supervisor was killed. It keeps nothing
//! that SIGKILL could lose: counters are the kernel's, what was told of them is in the store, and a daemon that starts
//! again reads both and tells the difference.

mod differences;
mod drift;
mod ends;
mod finding;
mod lull;
mod notices;
mod slices;
mod watched;

use self::drift::SliceDrift;
use self::finding::Finding;
use self::lull::Lull;
use self::notices::Notices;
use self::slices::Slices;
use self::watched::{Before, Watched, Who, Woken};
use crate::kernel::kmsg::{KernelLog, OomLog};
use crate::kernel::survey;
use crate::path::GroupPath;
use crate::record::{Applied, Fact, Record};
use crate::role::Events;
use crate::session::applied;
use crate::session::place::Place;
use crate::session::records::{now_usec, of_machine};
use crate::session::view::dying_descendants;
use crate::store::{Only, Store, Tail};
use crate::systemd::notify::{Notifier, State};
use crate::text::count;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often everything is looked at that nothing tells of: limits that others changed, sessions that were not found.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// One in so many of these looks is at everything, whether the kernel told of it or not.
const ALL_OF_LOOKS: u32 = 30;
/// How often a session is sampled that no descriptor is left for.
const POLL: Duration = Duration::from_secs(1);
/// Descriptors that are left for other things than to watch sessions.
const SPARE: u64 = 16;
/// What is older is not told to people any more, when nobody did in time.
const TOLD_WITHIN: Duration = Duration::from_secs(600);
/// The kernel's log is kept so long, in victims: who was killed is asked for soon after.
const VICTIMS_KEPT: usize = 512;
/// So many sessions that are over are remembered.
const GONE_KEPT: usize = 256;

/// What an epoll event is about.
mod token {
    pub(super) const SIGNALS: u64 = 0;
    pub(super) const STORE: u64 = 1;
    pub(super) const FINDING: u64 = 2;
    pub(super) const PRESSURE: u64 = 3;
    /// From here on: one per session.
    pub(super) const SESSIONS: u64 = 16;
}

/// Why the daemon cannot run.
#[derive(Debug)]
pub struct CannotRun {
    /// What.
    pub message: String,
    /// One line of remedy.
    pub help: String,
}

impl CannotRun {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Watches the sessions of `place` until it is told to end (SIGTERM, SIGINT).
///
/// # Errors
///
/// There are no groups to watch, the store cannot be used, or another daemon is at it.
pub fn run(place: &Place, events: &Events) -> Result<(), CannotRun> {
    let Some(store) = place.store.clone() else {
        return Err(CannotRun::new(
            "nothing says where records are put: neither XDG_STATE_HOME nor HOME is set",
            "set HOME, or name the directory with CGMGR_STATE_DIR",
        ));
    };
    if place.base().is_none() {
        let (why, fix) = match &place.host.base {
            Err(none) => (none.why.clone(), none.fix.clone()),
            Ok(_) => (
                "the process backend has no groups".into(),
                "leave out --backend process".into(),
            ),
        };
        return Err(CannotRun::new(
            format!("there are no sessions to watch: {why}"),
            fix,
        ));
    }
    let of_store = |error: std::io::Error| {
        CannotRun::new(
            format!("the store of records cannot be used: {error}"),
            "make the directory writable for this user only, or name another with CGMGR_STATE_DIR",
        )
    };
    let Some(mut only) = store.only_daemon().map_err(of_store)? else {
        return Err(CannotRun::new(
            "another daemon watches these sessions already",
            "`systemctl status cgmgr.service` shows it; one is enough",
        ));
    };
    // What was recorded while there was no daemon is told by this one.
    let tail = Tail::resume(store.directory(), only.mark()).map_err(of_store)?;
    // From here on, if this one is killed before it hears of anything.
    if let Some(mark) = tail.mark() {
        only.set_mark(&mark).map_err(of_store)?;
    }
    let (before, made) = before(&store).map_err(of_store)?;
    let most = more_descriptors();
    let mut daemon = Daemon::new(place, store, (tail, only), events, before, most).map_err(|errno| {
        CannotRun::new(
            format!("cannot begin to watch: {errno}"),
            "raise the open-file limit",
        )
    })?;
    if let Some(made) = made {
        daemon.drift.hear(&made);
    }
    daemon.look_around(Instant::now());
    daemon.hear();
    let notifier = Notifier::of_environment();
    daemon.beat = notifier.beat();
    said(notifier.tell(&[State::Ready, State::Status(&daemon.status())]));
    let ended = daemon.watch(&notifier);
    said(notifier.tell(&[State::Stopping]));
    daemon.finish();
    ended
}

fn said(told: std::io::Result<bool>) {
    if let Err(error) = told {
        tracing::warn!("systemd takes no message: {error}");
    }
}

/// What records tell of already, by session, of one that is over nothing more will be told; and what cgmgr last made of the slices.
fn before(store: &Store) -> std::io::Result<(Before, Option<Applied>)> {
    let mut before = Before::default();
    let (mut made, booted) = (None, applied::booted_usec());
    for record in store.read()? {
        before.oldest_usec.get_or_insert(record.time_usec);
        made = applied::of_record(&record, booted).cloned().or(made);
        match (record.id, &record.fact) {
            (Some(id), Fact::Exited(_)) => {
                before.told.remove(&id);
            }
            (Some(id), fact) => before.told.entry(id).or_default().take(fact),
            (None, _) => {}
        }
    }
    Ok((before, made))
}

/// As many as this process may have: a session takes four. Returns the last one that is to be taken for one: to read a file
/// takes another, for a moment.
fn more_descriptors() -> i32 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let more = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let current = match setrlimit(Resource::Nofile, more) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let most = current.unwrap_or(u64::MAX).saturating_sub(SPARE);
    i32::try_from(most).unwrap_or(i32::MAX)
}

/// What tells of launches.
fn of_launches<'t>(tail: &'t Tail, finding: &'t Finding) -> Vec<(BorrowedFd<'t>, u64)> {
    let all = [
        (tail.descriptor(), token::STORE),
        (finding.descriptor(), token::FINDING),
    ];
    let there = |(descriptor, token): (Option<_>, _)| Some((descriptor?, token));
    all.into_iter().filter_map(there).collect()
}

struct Daemon<'a> {
    place: &'a Place,
    store: Arc<Store>,
    tail: Tail,
    only: Only,
    epoll: OwnedFd,
    signals: SignalFd,
    finding: Finding,
    lull: Lull,
    slices: Slices,
    drift: SliceDrift,
    notices: Notices<'a>,
    events: &'a Events,
    watched: BTreeMap<u64, Watched>,
    paths: BTreeMap<GroupPath, u64>,
    next: u64,
    before: Before,
    log: Option<KernelLog>,
    oom: OomLog,
    begun: Instant,
    looked_around: Instant,
    looks: u32,
    beat: Option<Duration>,
    beaten: Instant,
    /// Sessions that are over, the last ones.
    gone: VecDeque<(String, Who)>,
    /// Some group became empty that nobody attends.
    is_to_sweep: bool,
    warned_of_watches: bool,
    /// The last descriptor that is to be taken for a session.
    most: i32,
}

impl<'a> Daemon<'a> {
    fn new(
        place: &'a Place,
        store: Arc<Store>,
        (tail, only): (Tail, Only),
        events: &'a Events,
        before: Before,
        most: i32,
    ) -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD]
            .into_iter()
            .for_each(|signal| set.add(signal));
        let from = |e: nix::errno::Errno| Errno::from_raw_os_error(e as i32);
        set.thread_block().map_err(from)?;
        let signals =
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(from)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let finding = Finding::new();
        let of = |token| EventData::new_u64(token);
        epoll::add(&epoll, &signals, of(token::SIGNALS), EventFlags::IN)?;
        for (descriptor, token) in of_launches(&tail, &finding) {
            epoll::add(&epoll, descriptor, of(token), EventFlags::IN)?;
        }
        let now = Instant::now();
        Ok(Self {
            place,
            store,
            tail,
            only,
            epoll,
            signals,
            finding,
            lull: Lull::default(),
            slices: Slices::default(),
            drift: SliceDrift::default(),
            notices: Notices::new(events),
            events,
            watched: BTreeMap::new(),
            paths: BTreeMap::new(),
            next: token::SESSIONS,
            before,
            log: KernelLog::open_at_end().ok(),
            oom: OomLog::default(),
            begun: now,
            looked_around: now,
            looks: 0,
            beat: None,
            beaten: now,
            gone: VecDeque::new(),
            is_to_sweep: false,
            warned_of_watches: false,
            most,
        })
    }

    fn status(&self) -> String {
        let watched = count(self.watched.len() as u64, "session", "sessions");
        let slice = self.place.base().map(|(tree, base)| tree.find(&base.workloads));
        let dying = match slice {
            Some(Ok(Some(group))) => dying_descendants(&group).unwrap_or(0),
            _ => 0,
        };
        match dying {
            0 => format!("watches {watched}"),
            _ => format!(
                "watches {watched}; the kernel still holds {} that were removed",
                count(dying, "group", "groups")
            ),
        }
    }

    /// The loop. An error: it cannot go on.
    fn watch(&mut self, notifier: &Notifier) -> Result<(), CannotRun> {
        let mut events = Vec::with_capacity(64);
        loop {
            let pause = self.pause(Instant::now());
            let limit = rustix::event::Timespec {
                tv_sec: pause.as_secs() as i64,
                tv_nsec: i64::from(pause.subsec_nanos()),
            };
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&limit),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!("cannot wait for events: {errno}");
                    std::thread::sleep(POLL);
                }
            }
            let mut news = false;
            for event in &events {
                match event.data.u64() {
                    token::SIGNALS => {
                        if self.is_to_end() {
                            return Ok(());
                        }
                    }
                    token::STORE | token::FINDING => news = true,
                    token::PRESSURE => self.pressed(),
                    session => self.woken(session),
                }
            }
            let now = Instant::now();
            self.launches(now, news);
            self.due(now);
            if now >= self.looked_around + LOOK_AROUND {
                self.look_around(now);
                said(notifier.tell(&[State::Status(&self.status())]));
                if !self.only.is_there(self.store.directory()) {
                    return Err(CannotRun::new(
                        format!(
                            "the records were taken away from {}",
                            self.store.directory().path().display()
                        ),
                        "start it again, as systemd does: it begins anew with what is there then",
                    ));
                }
            }
            if self.tail.descriptor().is_none() {
                self.hear();
            }
            if let Some(beat) = self.beat
                && now >= self.beaten + beat
            {
                self.beaten = now;
                said(notifier.tell(&[State::Alive]));
            }
        }
    }

    /// Sessions that came or went, and what was recorded, by others and by this daemon itself: a while after the first of it.
    fn launches(&mut self, now: Instant, news: bool) {
        let sources = of_launches(&self.tail, &self.finding);
        let begun = match news {
            true => self.lull.begin(now, &self.epoll, &sources),
            false => Ok(()),
        };
        let is_over = self.lull.is_over(now, &self.epoll, &sources);
        // Where it cannot wait it looks at once.
        if begun.is_err() || is_over.unwrap_or(true) {
            if self.finding.happened() {
                self.find();
            }
            self.hear();
            self.lull.took(now.elapsed());
        }
    }

    /// How long nothing is to be done if nothing happens.
    fn pause(&self, now: Instant) -> Duration {
        let mut until = self.looked_around + LOOK_AROUND;
        if let Some(beat) = self.beat {
            until = until.min(self.beaten + beat);
        }
        let due = self.watched.values().filter_map(Watched::due).min();
        if let Some(due) = due {
            until = until.min(self.begun + due);
        }
        for due in [self.finding.due(), self.lull.until()].into_iter().flatten() {
            until = until.min(due);
        }
        if self.tail.descriptor().is_none() {
            until = until.min(now + POLL);
        }
        until.saturating_duration_since(now)
    }

    /// Reads signals; whether one of them says to end.
    fn is_to_end(&mut self) -> bool {
        let mut end = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => {
                    while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
                        self.notices.ended(pid.as_raw_nonzero().get());
                    }
                }
                Ok(Signal::SIGTERM | Signal::SIGINT) => end = true,
                _ => {}
            }
        }
        end
    }

    /// What was recorded since the last time.
    fn hear(&mut self) {
        let lines = self.tail.lines();
        let booted = applied::booted_usec();
        for line in &lines {
            let Some(record) = Record::from_text(line) else {
                continue;
            };
            if let Some(applied) = applied::of_record(&record, booted) {
                self.drift.hear(applied);
            }
            let id = record.id.as_deref().unwrap_or_default();
            let of = self.watched.values_mut().find(|one| one.id() == id);
            let age = now_usec().saturating_sub(record.time_usec);
            let is_told =
                self.events.tells_of(record.fact.name()) && u128::from(age) < TOLD_WITHIN.as_micros();
            let who = match of {
                Some(one) => {
                    one.hear(&record);
                    is_told.then(|| one.who(self.place))
                }
                None => {
                    let mut last_first = self.gone.iter().rev();
                    last_first
                        .find(|(gone, _)| gone == id)
                        .map(|(_, who)| who.clone())
                }
            };
            // It may be over before it is found.
            if let (None, Fact::Started(started)) = (&who, &record.fact) {
                let who = Who::started(started);
                self.remember(id.to_owned(), who);
            }
            if is_told {
                self.notices.tell(&record, who);
            }
        }
        if !lines.is_empty()
            && let Some(mark) = self.tail.mark()
            && let Err(error) = self.only.set_mark(&mark)
        {
            tracing::debug!("how far it came cannot be kept: {error}");
        }
    }

    /// Who a session is, or was, for those who are told of what is recorded last.
    fn remember(&mut self, id: String, who: Who) {
        if self.gone.len() >= GONE_KEPT {
            self.gone.pop_front();
        }
        self.gone.push_back((id, who));
    }

    /// Sessions that are there and not watched yet.
    fn find(&mut self) {
        let Some((tree, base)) = self.place.base() else {
            return;
        };
        self.finding.watch(tree, base);
        if let Some(trigger) = self.slices.arm(tree, &base.workloads) {
            let token = EventData::new_u64(token::PRESSURE);
            if let Err(errno) = epoll::add(&self.epoll, trigger, token, EventFlags::PRI) {
                tracing::warn!("{} is not watched for pressure: {errno}", base.workloads);
            }
        }
        let mut found = BTreeSet::new();
        let paths = survey::session_paths(tree, base).unwrap_or_else(|error| {
            self.finding.warn(&error);
            Vec::new()
        });
        for (name, path) in paths {
            found.insert(path.clone());
            // What is known is not opened again: there may be many.
            if let Some(known) = self.paths.get(&path).copied() {
                let id = tree.id(&path).ok();
                if self
                    .watched
                    .get(&known)
                    .is_some_and(|one| id == Some(one.group_id()))
                {
                    continue;
                }
                self.forget(known);
            }
            let group = match tree.find(&path) {
                Ok(Some(group)) => group,
                Ok(None) => continue,
                Err(error) => {
                    self.finding.warn(&error);
                    continue;
                }
            };
            let token = self.next;
            match Watched::begin(self.place, (name, path.clone(), group), &mut self.before) {
                Some(mut one) => {
                    if let Err(errno) = one.watch(&self.epoll, token, self.most) {
                        self.warn_of_watches(errno);
                    }
                    one.watch_writes(&self.finding, tree);
                    self.next += 1;
                    self.paths.insert(path, token);
                    self.watched.insert(token, one);
                    // What happened before it was watched.
                    self.look_at(token);
                }
                // It has just been made, and is not marked yet.
                None => self.finding.look_again(),
            }
        }
        // What is not found may be gone.
        let missing = self.paths.iter().filter(|(path, _)| !found.contains(*path));
        let missing: Vec<u64> = missing.map(|(_, token)| *token).collect();
        missing.into_iter().for_each(|token| self.look_at(token));
    }

    fn warn_of_watches(&mut self, errno: Errno) {
        if !std::mem::replace(&mut self.warned_of_watches, true) {
            tracing::warn!(
                "no more watches are to be had ({errno}): sessions beyond {} are looked at once a second; raise \
                 LimitNOFILE= of the daemon",
                self.watched.len()
            );
        }
    }

    fn woken(&mut self, session: u64) {
        if self.watched.contains_key(&session) {
            self.look_at(session);
        }
    }

    /// Samples a session and records what is new.
    fn look_at(&mut self, session: u64) {
        let now = self.begun.elapsed();
        let Some(one) = self.watched.get_mut(&session) else {
            return;
        };
        match one.look(now) {
            Woken::Gone => self.forget(session),
            Woken::Lives { kills, empty } => {
                self.is_to_sweep |= empty;
                // Who is in charge knows more of a kill, and records it itself.
                if kills && !self.place.registry.is_attended(&one.name) {
                    self.account(session);
                }
                if let Some(one) = self.watched.get_mut(&session) {
                    one.was_seen |= one.kills <= one.records.kills();
                }
            }
        }
    }

    /// Records OOM kills of a session that nobody is in charge of.
    fn account(&mut self, session: u64) {
        // The one who was may have recorded them, the moment before it was killed.
        self.hear();
        if let Some(one) = self.watched.get_mut(&session)
            && one.kills > one.records.kills()
        {
            ends::account(self.place, one, self.log.as_mut(), &mut self.oom);
            self.oom.forget_but(VICTIMS_KEPT);
        }
    }

    fn forget(&mut self, session: u64) {
        if let Some(mut one) = self.watched.remove(&session) {
            one.flush();
            self.finding.forget_writes(one.writes());
            self.paths.remove(one.path());
            // Its last records may still be on their way here.
            let who = one.who(self.place);
            self.remember(one.id().to_owned(), who);
        }
    }

    /// What is due by time.
    fn due(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.begun);
        let due = |one: &Watched| one.due().is_some_and(|due| due <= since);
        let sessions: Vec<u64> = self
            .watched
            .iter()
            .filter(|(_, one)| due(one))
            .map(|(t, _)| *t)
            .collect();
        for session in sessions {
            self.look_at(session);
        }
        if self.finding.due().is_some_and(|due| due <= now) {
            self.finding.begins();
            self.find();
        }
        if std::mem::take(&mut self.is_to_sweep) {
            ends::sweep(self.place);
        }
    }

    /// Looks at what has to be looked at twice, and now and then at everything that the kernel tells of. Counters are not among it:
    /// it tells of each that rises, and of what cannot be watched there is a look every second.
    fn look_around(&mut self, now: Instant) {
        self.looked_around = now;
        self.notices.end_overdue();
        let at_all = self.looks.is_multiple_of(ALL_OF_LOOKS);
        self.looks += 1;
        if at_all || self.finding.is_blind() {
            self.find();
        }
        if at_all {
            self.place.registry.sweep();
        }
        let written = self.finding.take_written();
        let repair = self.events.drift == crate::role::DriftAction::Repair;
        for one in self.watched.values_mut() {
            one.hear_of_writes(written.as_deref().unwrap_or_default());
            if at_all || written.is_none() || one.is_to_compare() {
                one.look_for_drift(repair);
            }
        }
        let Some((tree, base)) = self.place.base() else {
            return;
        };
        for fact in self.drift.look(tree, base, repair) {
            self.record_of_machine(fact);
        }
    }

    fn pressed(&mut self) {
        if let Some(fact) = self.slices.pressed() {
            self.record_of_machine(fact);
        }
    }

    fn record_of_machine(&self, fact: Fact) {
        if let Err(error) = of_machine(&self.store, None, fact) {
            tracing::warn!("a record cannot be kept: {error}");
        }
    }

    /// Before the end: what was counted and not told yet.
    fn finish(&mut self) {
        self.watched.values_mut().for_each(Watched::flush);
        self.hear();
    }
}
