//! Watches the sessions that live, records what only one who looks on can see, and has people told.
//!
//! One thread and one epoll loop. Whoever is in charge of a session records its life (`session::records`); here is what
//! nobody is in charge of: limits that were reached, stalls, drift, sessions whose supervisor was killed. It keeps nothing
//! that SIGKILL could lose: counters are the kernel's, what was told of them is in the store, and a daemon that starts
//! again reads both and tells the difference.

mod ends;
mod finding;
mod notices;
mod slices;
mod watched;

use self::finding::Finding;
use self::notices::Notices;
use self::slices::Slices;
use self::watched::{Watched, Who, Woken};
use crate::kernel::kmsg::{KernelLog, OomLog};
use crate::path::GroupPath;
use crate::record::Record;
use crate::record::fold::Told;
use crate::role::Events;
use crate::session::place::Place;
use crate::store::{Store, Tail};
use crate::systemd::notify::{Notifier, State};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often everything is looked at that nothing tells of: limits that others changed, what a watch that could not be had
/// would have told.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// How often a session is sampled that no descriptor is left for.
const POLL: Duration = Duration::from_secs(1);
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
    let Some(_only) = store.only_daemon().map_err(of_store)? else {
        return Err(CannotRun::new(
            "another daemon watches these sessions already",
            "`systemctl status cgmgr.service` shows it; one is enough",
        ));
    };
    let tail = Tail::begin(store.directory()).map_err(of_store)?;
    let told = told(&store).map_err(of_store)?;
    more_descriptors();
    let mut daemon = Daemon::new(place, store, tail, events, told).map_err(|errno| {
        CannotRun::new(
            format!("cannot begin to watch: {errno}"),
            "raise the open-file limit",
        )
    })?;
    daemon.look_around(Instant::now());
    let notifier = Notifier::of_environment();
    daemon.beat = notifier.beat();
    said(notifier.tell(&[State::Ready, State::Status(&daemon.status())]));
    daemon.watch(&notifier);
    said(notifier.tell(&[State::Stopping]));
    daemon.finish();
    Ok(())
}

fn said(told: std::io::Result<bool>) {
    if let Err(error) = told {
        tracing::warn!("systemd takes no message: {error}");
    }
}

/// What records tell of already, by session.
fn told(store: &Store) -> std::io::Result<BTreeMap<String, Told>> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for record in store.read()? {
        if let Some(id) = &record.id {
            told.entry(id.clone()).or_default().take(&record.fact);
        }
    }
    Ok(told)
}

/// As many as this process may have: a session takes three.
fn more_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

struct Daemon<'a> {
    place: &'a Place,
    store: Arc<Store>,
    tail: Tail,
    epoll: OwnedFd,
    signals: SignalFd,
    finding: Finding,
    slices: Slices,
    notices: Notices<'a>,
    events: &'a Events,
    watched: BTreeMap<u64, Watched>,
    paths: BTreeMap<GroupPath, u64>,
    next: u64,
    /// What records told of sessions before this daemon began; taken as they are found.
    told: BTreeMap<String, Told>,
    log: Option<KernelLog>,
    oom: OomLog,
    begun: Instant,
    looked_around: Instant,
    beat: Option<Duration>,
    beaten: Instant,
    /// Sessions that are over, the last ones.
    gone: VecDeque<(String, Who)>,
    /// Some group became empty that nobody attends.
    is_to_sweep: bool,
    warned_of_watches: bool,
}

impl<'a> Daemon<'a> {
    fn new(
        place: &'a Place,
        store: Arc<Store>,
        tail: Tail,
        events: &'a Events,
        told: BTreeMap<String, Told>,
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
        let finding = Finding::new()?;
        let of = |token| EventData::new_u64(token);
        epoll::add(&epoll, &signals, of(token::SIGNALS), EventFlags::IN)?;
        epoll::add(&epoll, &tail, of(token::STORE), EventFlags::IN)?;
        epoll::add(&epoll, &finding, of(token::FINDING), EventFlags::IN)?;
        let now = Instant::now();
        Ok(Self {
            place,
            store,
            tail,
            epoll,
            signals,
            finding,
            slices: Slices::default(),
            notices: Notices::new(events),
            events,
            watched: BTreeMap::new(),
            paths: BTreeMap::new(),
            next: token::SESSIONS,
            told,
            log: KernelLog::open_at_end().ok(),
            oom: OomLog::default(),
            begun: now,
            looked_around: now,
            beat: None,
            beaten: now,
            gone: VecDeque::new(),
            is_to_sweep: false,
            warned_of_watches: false,
        })
    }

    fn status(&self) -> String {
        format!(
            "watches {}",
            crate::text::count(self.watched.len() as u64, "session", "sessions")
        )
    }

    /// The loop.
    fn watch(&mut self, notifier: &Notifier) {
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
            let mut is_to_look = false;
            for event in &events {
                match event.data.u64() {
                    token::SIGNALS => {
                        if self.is_to_end() {
                            return;
                        }
                    }
                    token::STORE => {}
                    token::FINDING => is_to_look = true,
                    token::PRESSURE => self.pressed(),
                    session => self.woken(session),
                }
            }
            let now = Instant::now();
            if is_to_look {
                self.finding.take();
                self.find();
            }
            self.due(now);
            if now >= self.looked_around + LOOK_AROUND {
                self.look_around(now);
                said(notifier.tell(&[State::Status(&self.status())]));
            }
            // What others have recorded, and this daemon itself just now.
            self.hear();
            if let Some(beat) = self.beat
                && now >= self.beaten + beat
            {
                self.beaten = now;
                said(notifier.tell(&[State::Alive]));
            }
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
        if let Some(due) = self.finding.due() {
            until = until.min(due);
        }
        until.saturating_duration_since(now)
    }

    /// Reads signals; whether one of them says to end.
    fn is_to_end(&mut self) -> bool {
        let mut end = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {},
                Ok(Signal::SIGTERM | Signal::SIGINT) => end = true,
                _ => {}
            }
        }
        end
    }

    /// What was recorded since the last time.
    fn hear(&mut self) {
        for line in self.tail.lines() {
            let Some(record) = Record::from_text(&line) else {
                continue;
            };
            let id = record.id.as_deref().unwrap_or_default();
            let of = self.watched.values_mut().find(|one| one.id() == id);
            let is_told = self.events.tells_of(record.fact.name());
            let who = match of {
                Some(one) => {
                    one.hear(&record);
                    is_told.then(|| one.who(self.place))
                }
                None => self
                    .gone
                    .iter()
                    .find(|(gone, _)| gone == id)
                    .map(|(_, who)| who.clone()),
            };
            if is_told {
                self.notices.tell(&record, who);
            }
        }
    }

    /// Sessions that are there and not watched yet.
    fn find(&mut self) {
        let Some((tree, base)) = self.place.base() else {
            return;
        };
        self.finding.watch(tree, base);
        for (name, path, group) in finding::sessions(tree, base) {
            if let Some(known) = self.paths.get(&path) {
                let same = self
                    .watched
                    .get(known)
                    .is_some_and(|one| group.id().ok() == Some(one.group_id()));
                if same {
                    continue;
                }
                let gone = *known;
                self.forget(gone);
            }
            let token = self.next;
            match Watched::begin(self.place, (name, path.clone(), group), &mut self.told) {
                Some(mut one) => {
                    if let Err(errno) = one.watch(&self.epoll, token) {
                        self.warn_of_watches(errno);
                    }
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
                if kills {
                    ends::account(self.place, one, self.log.as_mut(), &mut self.oom);
                    self.oom.forget_but(VICTIMS_KEPT);
                }
                self.is_to_sweep |= empty;
            }
        }
    }

    fn forget(&mut self, session: u64) {
        if let Some(mut one) = self.watched.remove(&session) {
            one.flush();
            self.paths.remove(one.path());
            // Its last records may still be on their way here.
            if self.gone.len() >= GONE_KEPT {
                self.gone.pop_front();
            }
            self.gone.push_back((one.id().to_owned(), one.who(self.place)));
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
            self.finding.take();
            self.find();
        }
        if std::mem::take(&mut self.is_to_sweep) {
            ends::sweep(self.place);
        }
    }

    /// Looks at everything that nothing tells of.
    fn look_around(&mut self, now: Instant) {
        self.looked_around = now;
        self.find();
        let repair = self.events.drift == crate::role::DriftAction::Repair;
        for one in self.watched.values_mut() {
            one.look_for_drift(repair);
        }
        let sessions: Vec<u64> = self.watched.keys().copied().collect();
        for session in sessions {
            self.look_at(session);
        }
        if let Some((tree, base)) = self.place.base()
            && let Some(trigger) = self.slices.arm(tree, &base.workloads)
        {
            let _ = epoll::add(
                &self.epoll,
                trigger,
                EventData::new_u64(token::PRESSURE),
                EventFlags::PRI,
            );
        }
    }

    fn pressed(&mut self) {
        if let Some(fact) = self.slices.pressed() {
            let record = Record {
                time_usec: crate::session::records::now_usec(),
                session: None,
                id: None,
                role: None,
                fact,
            };
            if let Err(error) = self.store.append(&record) {
                tracing::warn!("a record cannot be kept: {error}");
            }
        }
    }

    /// Before the end: what was counted and not told yet.
    fn finish(&mut self) {
        self.watched.values_mut().for_each(Watched::flush);
        self.hear();
    }
}

impl AsFd for Finding {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.descriptor()
    }
}
