//! One session that is watched.

use super::differences::Differences;
use super::finding::Finding;
use crate::kernel::sample::Fields;
use crate::kernel::sampler::Sampler;
use crate::kernel::{Group, Tree, survey, sys};
use crate::limits::{KnobId, StallAction};
use crate::path::{GroupPath, SessionName};
use crate::plan::equal::same;
use crate::plan::identity::Identity;
use crate::plan::unit;
use crate::record::fold::{self, Pace, Told};
use crate::record::watchdog::Watchdog;
use crate::record::{Drift, Fact, Record, Stall, Started};
use crate::session::measure::{self, Moment};
use crate::session::place::Place;
use crate::session::records::Records;
use crate::session::verdict::Oom;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::time::Duration;

/// The files whose changes the kernel tells of (cgroup-v2.rst).
const FILES: [&str; 3] = ["memory.events", "pids.events", "cgroup.events"];

/// What the store had when this daemon began.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// What records told of sessions; taken as they are found.
    pub(super) told: BTreeMap<String, Told>,
    /// When the oldest one was written, in microseconds since 1970; none: there was none.
    pub(super) oldest_usec: Option<u64>,
}

/// What a look has shown.
pub(super) enum Woken {
    /// The group is gone.
    Gone,
    /// It is there.
    Lives {
        /// There were OOM kills that no record tells of.
        kills: bool,
        /// Nothing is in it any more.
        empty: bool,
    },
}

/// Who a session is for those who are told of it.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// People are told of its OOM kills.
    pub(super) notify: bool,
    /// The user that its command runs as.
    pub(super) uid: u32,
    /// Its processes, where nobody is in charge who would say it at their terminal.
    pub(super) processes: Vec<i32>,
}

impl Who {
    /// By the record of its start. Whether people are told is then in the record of each kill.
    pub(super) fn started(started: &Started) -> Self {
        Self {
            notify: true,
            uid: started.uid.unwrap_or(0),
            processes: Vec::new(),
        }
    }
}

/// A session that is watched.
pub(super) struct Watched {
    pub(super) name: SessionName,
    path: GroupPath,
    sampler: Sampler,
    identity: Identity,
    pub(super) records: Records,
    /// The levels above when it was found.
    pub(super) before: Moment,
    pace: Pace,
    watchdog: Watchdog,
    /// OOM kills that the kernel has counted.
    pub(super) kills: u64,
    files: Vec<OwnedFd>,
    /// Watches that tell of control files that somebody writes; empty: nothing does.
    writes: Vec<i32>,
    /// Somebody wrote one, or it is new here: its limits are to be compared.
    is_to_compare: bool,
    /// It has no watch: it is looked at once a second.
    is_polled: bool,
    looked: Duration,
    /// It was looked at before: what is new since then has happened before this daemon's eyes.
    pub(super) was_seen: bool,
    /// Limits that are not what they were set to, by knob.
    drift: Differences,
}

impl Watched {
    /// Begins to watch a session; `None` where it has no mark yet.
    pub(super) fn begin(
        place: &Place,
        (name, path, group): (SessionName, GroupPath, Group),
        before: &mut Before,
    ) -> Option<Self> {
        let identity = survey::identity(&group)?;
        let mut records = Records::resumed(place.store.clone(), &name, &group, &identity);
        let mut sampler = Sampler::new(group).ok()?;
        let mut told = before.told.remove(records.id()).unwrap_or_default();
        // When it started is known to the second.
        let began_before = |oldest: u64| records.started_usec + 1_000_000 < oldest;
        if !told.is_whole
            && before.oldest_usec.is_some_and(began_before)
            && let Some(sample) = sampler.sample(Fields::FOLDED)
        {
            told.or_counted(&sample);
        }
        records.know_of_kills(told.kills);
        let mut drift = Differences::default();
        if told.lifted {
            lifted(&mut drift);
        }
        let before = Moment {
            levels: match &place.tree {
                Some(tree) => measure::events_above(tree, &path, place.is_namespaced()),
                None => Vec::new(),
            },
            ..Moment::default()
        };
        Some(Self {
            name,
            path,
            sampler,
            identity,
            records,
            before,
            pace: Pace::new(told),
            watchdog: Watchdog::default(),
            kills: told.kills,
            files: Vec::new(),
            writes: Vec::new(),
            is_to_compare: true,
            is_polled: false,
            looked: Duration::ZERO,
            was_seen: false,
            drift,
        })
    }

    /// Has epoll tell of its events. `most` is the last descriptor that may be taken for that.
    pub(super) fn watch(&mut self, epoll: &OwnedFd, token: u64, most: i32) -> Result<(), Errno> {
        for name in FILES {
            // A controller that is not on has no file, and nothing to tell.
            let file = match self.sampler.group().watch(name) {
                Ok(file) => file,
                Err(error) if error.is_gone() => continue,
                Err(error) => return self.polled(error.errno),
            };
            if file.as_raw_fd() > most {
                return self.polled(Errno::MFILE);
            }
            if let Err(errno) = epoll::add(
                epoll,
                &file,
                EventData::new_u64(token),
                EventFlags::PRI | EventFlags::ET,
            ) {
                return self.polled(errno);
            }
            self.files.push(file);
        }
        Ok(())
    }

    /// Has the kernel tell of what others write to its limits, which are those of the scope around it where it has one.
    pub(super) fn watch_writes(&mut self, finding: &Finding, tree: &Tree) {
        let groups: Vec<GroupPath> = [Some(self.path.clone()), self.path.scope()]
            .into_iter()
            .flatten()
            .collect();
        let watches = groups
            .iter()
            .filter_map(|group| finding.watch_writes(tree, group));
        self.writes = watches.collect();
        // One alone would tell of half of its limits.
        if self.writes.len() < groups.len() {
            finding.forget_writes(&std::mem::take(&mut self.writes));
        }
    }

    /// The watches that tell of writes.
    pub(super) fn writes(&self) -> &[i32] {
        &self.writes
    }

    /// Somebody wrote where these watches are.
    pub(super) fn hear_of_writes(&mut self, watches: &[i32]) {
        self.is_to_compare |= watches.iter().any(|watch| self.writes.contains(watch));
    }

    /// Whether its limits may be others than at the last look.
    pub(super) fn is_to_compare(&self) -> bool {
        self.is_to_compare || self.writes.is_empty() || self.drift.are_open()
    }

    fn polled(&mut self, errno: Errno) -> Result<(), Errno> {
        self.files.clear();
        self.is_polled = true;
        Err(errno)
    }

    pub(super) fn id(&self) -> &str {
        self.records.id()
    }

    pub(super) fn group_id(&self) -> u64 {
        self.sampler.id()
    }

    pub(super) fn path(&self) -> &GroupPath {
        &self.path
    }

    pub(super) fn group(&self) -> &Group {
        self.sampler.group()
    }

    /// Records OOM kills.
    pub(super) fn record(&mut self, place: &Place, oom: &Oom, kills: u64) {
        self.records.oom(oom, kills, self.sampler.group(), place.base());
    }

    pub(super) fn who(&self, place: &Place) -> Who {
        let processes = match place.registry.is_attended(&self.name) {
            true => Vec::new(),
            false => self.group().processes_below().unwrap_or_default(),
        };
        Who {
            processes,
            notify: self.records.notify,
            uid: self.identity.uid,
        }
    }

    /// When to look whatever happens, since the daemon began.
    pub(super) fn due(&self) -> Option<Duration> {
        let stall = self
            .watchdog
            .is_awake()
            .then(|| self.looked + Duration::from_secs(2));
        let polled = self.is_polled.then(|| self.looked + super::POLL);
        let told = self
            .pace
            .due()
            .map(|due| due.max(self.looked + Duration::from_millis(10)));
        // Kills that the one in charge has not recorded: it may have been killed itself.
        let kills = (self.kills > self.records.kills()).then(|| self.looked + super::POLL);
        [stall, polled, told, kills].into_iter().flatten().min()
    }

    /// Somebody recorded something of it.
    pub(super) fn hear(&mut self, record: &Record) {
        if let Fact::OomKill(kill) = &record.fact {
            self.records.know_of_kills(kill.total);
        }
    }

    /// Samples it, and records what is new.
    pub(super) fn look(&mut self, now: Duration) -> Woken {
        self.looked = now;
        // Read, so that the kernel tells of the next change: poll(2) of these files is armed by that (kernfs).
        for file in &self.files {
            let _ = crate::kernel::group::read_record(rustix::fd::AsFd::as_fd(file));
        }
        let fields = Fields::FOLDED.and(Fields::STALL);
        let Some(sample) = self.sampler.sample(fields) else {
            return Woken::Gone;
        };
        let folded = fold::fold(&mut self.pace, &sample, now);
        for fact in folded.facts {
            self.records.write(fact);
        }
        if let Some(stall) = self.watchdog.look(&sample, now) {
            self.stalled(stall);
        }
        self.kills = self.kills.max(folded.total_kills);
        Woken::Lives {
            kills: self.kills > self.records.kills(),
            empty: sample.populated == Some(false),
        }
    }

    /// What the role wants to be done about it.
    fn stalled(&mut self, mut stall: Stall) {
        // `cgmgr set` may have changed that.
        if let Some(identity) = survey::identity(self.sampler.group()) {
            self.identity = identity;
        }
        let declared = self.identity.limits.get(KnobId::Stall.knob().key);
        let wanted =
            declared.and_then(|text| StallAction::ALL.into_iter().find(|action| action.word() == text));
        stall.action = wanted.unwrap_or_default();
        let group = self.sampler.group();
        let done = match stall.action {
            StallAction::Record => Ok(()),
            StallAction::Lift if group.is_in_scope() => {
                Err("its limits are systemd's to change: `cgmgr set SESSION memory_high=max`".to_owned())
            }
            StallAction::Lift => group.write("memory.high", "max").map_err(|e| e.to_string()),
            StallAction::Kill => group.kill().map_err(|e| e.to_string()),
        };
        stall.error = done.err();
        if stall.was_lifted() {
            lifted(&mut self.drift);
        }
        self.records.write(Fact::Stalled(stall));
    }

    /// Compares its limits with what they were set to, as its mark says now. What differs at two looks is told.
    pub(super) fn look_for_drift(&mut self, repair: bool) {
        self.is_to_compare = false;
        let group = self.sampler.group();
        let Some(identity) = survey::identity(group) else {
            return;
        };
        let page_size = sys::page_size() as u64;
        let mut facts = Vec::new();
        self.drift.look();
        for (key, declared) in &identity.limits {
            let Some(knob) = KnobId::from_key(key).map(KnobId::knob) else {
                continue;
            };
            let Some(file) = knob.file.filter(|_| !identity.unconfined.contains(key)) else {
                continue;
            };
            let Ok(Some(found)) = group.get(file) else {
                continue;
            };
            let found = found.lines().next().unwrap_or_default().to_owned();
            // What is on a scope is systemd's to write, and it rounds in its own way.
            let on_scope = group.is_on_scope(file);
            let rounded = || unit::rounded(declared, unit::ROUNDS).as_deref() == Some(&*found);
            if !is_value(declared) || same(knob, declared, &found, page_size) || (on_scope && rounded()) {
                self.drift.is_right(key);
                continue;
            }
            if !self.drift.is_news(key, &found) {
                continue;
            }
            let repaired = repair && !on_scope && group.write(file, declared).is_ok();
            if !repaired {
                self.drift.was_told(key, found.clone());
            }
            facts.push(Fact::Drifted(Drift {
                group: group.path().to_owned(),
                knob: key.clone(),
                declared: declared.clone(),
                found,
                repaired,
            }));
        }
        self.identity = identity;
        for fact in facts {
            self.records.write(fact);
        }
    }

    /// Records what was counted and not told yet.
    pub(super) fn flush(&mut self) {
        for fact in self.pace.flush() {
            self.records.write(fact);
        }
    }
}

/// memory.high was lifted: what cgmgr did itself is no drift.
fn lifted(drift: &mut Differences) {
    drift.was_told(KnobId::MemoryHigh.knob().key, "max".into());
}

/// Whether a declared text is one that a control file holds.
fn is_value(declared: &str) -> bool {
    declared == "max" || declared.starts_with(|c: char| c.is_ascii_digit()) || declared.starts_with("max ")
}
