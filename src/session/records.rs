//! What one session leaves in the store while it runs and when it is over.
//!
//! Whoever is in charge of a session writes its records: it knows how the command ended, and the daemon need not run. That a
//! record cannot be written stops nothing; the first failure is kept, to be told.

use super::account::Ended;
use super::launch::Running;
use super::measure::{self, Usage};
use super::registry::Entry;
use super::verdict::{Cause, Exit, Oom};
use crate::host::Base;
use crate::kernel::counters::parse_pressure;
use crate::kernel::{Group, Tree, process, survey, sys};
use crate::limits::{KnobId, Settings, Value};
use crate::order;
use crate::path::{GroupPath, SessionName};
use crate::plan::identity::Identity;
use crate::plan::receipt::Backend;
use crate::record::scene::{Process, Split};
use crate::record::{Declared, Exited, Fact, OomKill, Record, Scene, Started, session_id};
use crate::store::Store;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So many records of OOM kills are written at once for a session; further ones with [`PAUSE`] between.
const AT_ONCE: u32 = 20;
/// Between two records of OOM kills in a session that has very many.
const PAUSE: Duration = Duration::from_secs(10);

/// Microseconds since 1970.
pub fn now_usec() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// Writes a fact about the machine or a slice.
///
/// # Errors
///
/// As [`Store::append`].
pub fn of_machine(store: &Store, role: Option<&str>, fact: Fact) -> std::io::Result<()> {
    store.append(&Record {
        time_usec: now_usec(),
        session: None,
        id: None,
        role: role.map(str::to_owned),
        fact,
    })
}

/// The records of one session.
#[derive(Debug, Default)]
pub struct Records {
    store: Option<Arc<Store>>,
    name: String,
    id: String,
    role: Option<String>,
    /// When it began, in microseconds since 1970.
    pub started_usec: u64,
    /// OOM kills that records have told of, as the kernel counts them, and who was killed in them.
    kills: u64,
    /// The same without those that the kernel counts twice, where all of them are told here: what is found then is found
    /// since the session began.
    told: Option<u64>,
    victims: BTreeSet<i32>,
    written: u32,
    last: Option<Instant>,
    scene: Option<Scene>,
    failure: Option<String>,
    /// Where the OOM killer ends it, its record is kept, and its name, until they are forgotten.
    preserve: bool,
    /// People are told of its OOM kills, beyond whoever runs it.
    pub notify: bool,
}

impl Records {
    /// Begins the records of a session that has just been started with these settings.
    pub(super) fn begin(
        store: Option<Arc<Store>>,
        name: &SessionName,
        group: Option<&Group>,
        entry: &Entry,
        settings: &Settings,
    ) -> Self {
        let started_usec = now_usec();
        let of = group.and_then(|group| group.id().ok());
        let mut records = Self {
            id: session_id(
                entry.started,
                of.unwrap_or(entry.supervisor.unsigned_abs().into()),
            ),
            role: entry.role.clone(),
            ..Self::of(store, name.as_str())
        };
        records.started_usec = started_usec;
        records.told = Some(0);
        let is_on = |knob| !matches!(settings.value(knob), Some(Value::Switch(false)));
        records.preserve = is_on(KnobId::OomPreserveState);
        records.notify = is_on(KnobId::OomNotify);
        records.write(Fact::Started(Started {
            command: entry.command.clone(),
            uid: entry.uid,
            creator: entry.creator,
            group: group.map(|group| group.path().to_owned()),
        }));
        records
    }

    /// The records of a session that somebody else began, whose group says who it is.
    pub fn resumed(
        store: Option<Arc<Store>>,
        name: &SessionName,
        group: &Group,
        identity: &Identity,
    ) -> Self {
        Self {
            id: session_id(identity.started, group.id().unwrap_or_default()),
            role: identity.role.clone(),
            started_usec: identity.started * 1_000_000,
            preserve: is_on(identity, KnobId::OomPreserveState),
            notify: is_on(identity, KnobId::OomNotify),
            ..Self::of(store, name.as_str())
        }
    }

    fn of(store: Option<Arc<Store>>, name: &str) -> Self {
        Self {
            store,
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Why a record could not be written, the first time; told once.
    pub fn failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// OOM kills are known to have been told of: those are not told again.
    pub fn know_of_kills(&mut self, kills: u64) {
        self.kills = self.kills.max(kills);
    }

    /// From here on what is found is found since the last record: by one who looks on at what the command has left.
    pub(super) fn look_on(&mut self) {
        self.told = None;
    }

    /// Writes of an OOM kill that the command's end was found with, where it was not told while the command lived: what it
    /// left behind may live for days.
    pub(crate) fn catch_up(&mut self, ended: &Ended, group: &Group, all: Option<(&Tree, &Base)>) {
        if let Some(oom) = &ended.oom
            && ended.counted_kills > self.kills
        {
            self.oom(oom, ended.counted_kills, group, all);
        }
    }

    /// OOM kills that records have told of.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// Writes a record of the session.
    pub fn write(&mut self, fact: Fact) -> Option<Record> {
        let store = self.store.as_ref()?;
        let record = Record {
            time_usec: now_usec(),
            session: Some(self.name.clone()),
            id: Some(self.id.clone()),
            role: self.role.clone(),
            fact,
        };
        if let Err(error) = store.append(&record) {
            tracing::debug!("{error}");
            self.failure
                .get_or_insert(format!("records cannot be kept: {error}"));
        }
        Some(record)
    }

    /// Whether `kills` are more than were told, and it is time to tell of them.
    pub(super) fn is_news(&self, kills: u64) -> bool {
        let paused = self.written < AT_ONCE || self.last.is_none_or(|last| last.elapsed() >= PAUSE);
        self.store.is_some() && kills > self.kills && paused
    }

    /// Writes of an OOM kill while the session is there. `kills` is what the kernel has counted in it, `all` where the
    /// sessions are.
    pub fn oom(
        &mut self,
        oom: &Oom,
        kills: u64,
        group: &Group,
        all: Option<(&Tree, &Base)>,
    ) -> Option<Record> {
        let mut scene = scene(group);
        // Each session that has a kill at a ceiling looks at all of them: not again and again.
        if self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            scene = with_sessions(scene, &oom.cause, all);
        }
        let before = self.scene.replace(scene.clone());
        if scene.sessions.is_empty()
            && let (Some(now), Some(before)) = (&mut self.scene, before)
        {
            now.sessions = before.sessions;
            now.more_sessions = before.more_sessions;
        }
        let record = OomKill {
            took_command: None,
            quiet: !self.notify,
            scene,
            ..self.news(oom, kills)
        };
        // The kernel counts whom it chose again when it kills the rest of the group.
        if record.kills == 0 {
            return None;
        }
        self.written += 1;
        self.last = Some(Instant::now());
        self.write(Fact::OomKill(Box::new(record)))
    }

    /// Looks at who holds what where that matters and nobody looked while the session was there: before its end is written.
    pub(super) fn look_around(&mut self, oom: &Oom, all: Option<(&Tree, &Base)>) {
        if self.store.is_some() && self.scene.as_ref().is_none_or(|scene| scene.sessions.is_empty()) {
            let scene = self.scene.take().unwrap_or_default();
            self.scene = Some(with_sessions(scene, &oom.cause, all));
        }
    }

    /// What of `oom` no record has told of yet.
    fn news(&mut self, oom: &Oom, kills: u64) -> OomKill {
        let mut news = OomKill::from(oom);
        news.victims.retain(|victim| self.victims.insert(victim.pid));
        news.kills = match &mut self.told {
            Some(told) => oom
                .kills
                .saturating_sub(std::mem::replace(told, oom.kills.max(*told))),
            None => kills.saturating_sub(self.kills).min(oom.kills),
        };
        news.total = kills;
        self.kills = kills;
        news
    }

    /// Writes that the session is over, and of OOM kills that no record has told of. What was written of the end.
    pub fn exited(&mut self, mut exited: Exited, oom: Option<&Oom>, kills: u64) -> Option<Record> {
        exited.started_usec = self.started_usec;
        if let Some(oom) = oom {
            let scene = self.scene.take().unwrap_or_default();
            exited.oom = Some(OomKill {
                scene: scene.clone(),
                total: kills,
                ..OomKill::from(oom)
            });
            if kills > self.kills || kills == 0 {
                let told = OomKill {
                    quiet: !self.notify,
                    scene,
                    ..self.news(oom, kills)
                };
                // What was told already, and what systemd-oomd did, the kernel does not count.
                if told.kills > 0 || kills == 0 {
                    self.write(Fact::OomKill(Box::new(told)));
                }
            }
        }
        let was_killed = self.preserve && exited.was_oom_killed();
        let record = self.write(Fact::Exited(Box::new(exited)))?;
        if was_killed
            && let (Some(store), Ok(name)) = (&self.store, SessionName::new(&self.name))
            && let Err(error) = store.kept().keep(&name, &record)
        {
            tracing::debug!("{error}");
            self.failure
                .get_or_insert(format!("its record cannot be kept: {error}"));
        }
        Some(record)
    }
}

/// Whether a switch that is on by default is on for a session, by what was declared for it.
fn is_on(identity: &Identity, knob: KnobId) -> bool {
    identity
        .limits
        .get(knob.knob().key)
        .is_none_or(|declared| declared != "false")
}

/// What is to be seen in a session now.
pub fn scene(group: &Group) -> Scene {
    let page_size = sys::page_size() as u64;
    let number = |file: &str| group.get(file).ok().flatten().and_then(|t| t.trim().parse().ok());
    let stat = group.counters("memory.stat").ok();
    let pressure = group.get("memory.pressure").ok().flatten().unwrap_or_default();
    let pids = group.processes_below().unwrap_or_default();
    let seen = |pid: i32| {
        // What is dying has given its memory back already.
        let rss = process::rss(pid, page_size).filter(|rss| *rss > 0)?;
        let comm = process::comm(pid)?;
        Some(Process { pid, comm, rss })
    };
    Scene {
        current: number("memory.current"),
        peak: number("memory.peak"),
        memory: stat.filter(|stat| !stat.is_empty()).map(|stat| Split::of(&stat)),
        ..Scene::default()
    }
    .with_processes(pids.into_iter().filter_map(seen).collect())
    .with_pressure(
        parse_pressure(&pressure, "some"),
        parse_pressure(&pressure, "full"),
    )
}

/// With the sessions that hold the most memory now, where the limit is one that they share.
fn with_sessions(scene: Scene, cause: &Cause, all: Option<(&Tree, &Base)>) -> Scene {
    let is_shared = matches!(cause, Cause::Above(_) | Cause::Global | Cause::Outside);
    let Some((tree, base)) = all.filter(|_| is_shared) else {
        return scene;
    };
    let Ok(sessions) = survey::session_groups(tree, base) else {
        return scene;
    };
    let held = sessions.flatten().filter_map(|(name, path, group)| {
        let memory = group.get("memory.current").ok().flatten()?.trim().parse().ok()?;
        Some((name.to_string(), memory, path))
    });
    let role = |path: &GroupPath| survey::identity(&tree.find(path).ok()??)?.role;
    scene.with_sessions(held.collect(), &role)
}

/// What there is to say of a session whose command has ended.
pub(crate) fn of_running(running: &Running, ended: &Ended, story: &[String]) -> Exited {
    let limits = running.receipt.entries.iter();
    let limits = limits.map(|e| (e.knob.knob().key.to_owned(), e.requested.clone()));
    let exited = of_entry(&running.entry);
    Exited {
        status: Some(ended.exit.status()).filter(|_| ended.exit != Exit::Unknown),
        signal: match ended.exit {
            Exit::Signal(signal) => Some(signal),
            _ => None,
        },
        oom_unknown: ended.oom_unknown,
        usage: ended.usage.clone(),
        declared: Declared {
            limits: order::map(limits),
            ..exited.declared
        },
        story: story.to_vec(),
        ..exited
    }
}

/// What the registry has of a session.
pub(super) fn of_entry(entry: &Entry) -> Exited {
    Exited {
        command: entry.command.clone(),
        uid: entry.uid,
        creator: entry.creator,
        backend: entry.backend.clone(),
        declared: Declared {
            unconfined: entry.unconfined.clone(),
            role_file: entry.role_file.clone(),
            flags: entry.flags.clone(),
            ..Declared::default()
        },
        ..Exited::default()
    }
}

/// Writes that a session is over whose command has ended, and of which nothing is left.
pub fn over(running: &mut Running, ended: &Ended, story: &[String]) -> Option<Record> {
    let exited = of_running(running, ended, story);
    running
        .records
        .exited(exited, ended.oom.as_ref(), ended.counted_kills)
}

/// Writes that a session is over in which a command had left processes, and nothing is left now. `oom` is what was found of
/// OOM kills while the kernel had counted `counted` of them.
pub(crate) fn over_at_last(
    records: &mut Records,
    exited: Exited,
    oom: Option<Oom>,
    counted: u64,
    group: &Group,
) {
    let kills = oom_kills(group);
    let unseen = kills.saturating_sub(counted);
    let oom = match oom {
        Some(oom) => Some(Oom {
            kills: oom.kills + unseen,
            unseen: oom.unseen + unseen,
            ..oom
        }),
        None => unwatched(group, kills),
    };
    let wall = now_usec().saturating_sub(records.started_usec);
    let usage = measure::usage(group, None, wall);
    records.exited(Exited { usage, ..exited }, oom.as_ref(), kills);
}

/// OOM kills that the kernel has counted in a group.
pub(super) fn oom_kills(group: &Group) -> u64 {
    let events = group.counters("memory.events").unwrap_or_default();
    events.get("oom_kill").unwrap_or(0)
}

/// What there is to say of a session that nobody was in charge of any more when it ended.
pub fn of_unattended(identity: &Identity, backend: &str, usage: Usage) -> Exited {
    Exited {
        command: identity.command.clone(),
        uid: Some(identity.uid),
        creator: identity.creator,
        backend: backend.to_owned(),
        usage,
        declared: Declared {
            limits: identity.limits.clone(),
            unconfined: identity.unconfined.clone(),
            role_file: identity.role_file.clone(),
            flags: identity.overrides.iter().map(|(knob, _)| knob.clone()).collect(),
        },
        ..Exited::default()
    }
}

/// On a group whose session's end is recorded: two may be about to put it away, and a group that cannot be removed is met
/// again and again.
const BURIED: &str = "buried";

/// Writes what can still be known of a session that nobody was in charge of when it ended, before its group goes.
pub fn bury(store: Option<&Arc<Store>>, name: &SessionName, group: &Group) {
    let Some(store) = store.filter(|_| group.marked(BURIED).is_none()) else {
        return;
    };
    let Some(identity) = survey::identity(group) else {
        return;
    };
    let mut records = Records::resumed(Some(store.clone()), name, group, &identity);
    let wall = now_usec().saturating_sub(records.started_usec);
    let backend = if group.is_in_scope() {
        Backend::Scope
    } else {
        Backend::Cgroupfs
    };
    let mut exited = of_unattended(&identity, backend.name(), measure::usage(group, None, wall));
    let kills = oom_kills(group);
    // Whoever looked on, the daemon mostly, has seen more of a kill than is left to be seen.
    let known = (kills > 0).then(|| last_kill(store, records.id())).flatten();
    if let Some(known) = known {
        let told = known.total;
        records.know_of_kills(told);
        exited.oom = Some(OomKill {
            kills: known.kills.max(kills.min(told)),
            ..known
        });
    }
    let late = unwatched(group, kills).filter(|_| kills > records.kills());
    records.exited(exited, late.as_ref(), kills);
    if records.failure().is_none()
        && let Err(error) = group.mark(BURIED, "1")
    {
        tracing::debug!("{error}");
    }
}

/// The last record of an OOM kill in this session.
fn last_kill(store: &Store, id: &str) -> Option<OomKill> {
    let of_session = |record: Record| match record.fact {
        Fact::OomKill(kill) if record.id.as_deref() == Some(id) => Some(*kill),
        _ => None,
    };
    store.read().ok()?.filter_map(of_session).last()
}

/// OOM kills that nobody saw: `kills` were counted. The counters above were not looked at when the session began, so whose
/// limit it was they cannot say; its own can.
pub fn unwatched(group: &Group, kills: u64) -> Option<Oom> {
    let own = || group.local_events().ok().flatten().and_then(|own| own.get("oom"));
    (kills > 0).then(|| Oom {
        cause: if own() > Some(0) {
            Cause::Session
        } else {
            Cause::Unknown
        },
        limit: None,
        kills,
        whole_group: false,
        victims: Vec::new(),
        unseen: kills,
        took_command: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oom(kills: u64) -> Oom {
        Oom {
            cause: Cause::Session,
            limit: None,
            kills,
            whole_group: kills > 1,
            victims: Vec::new(),
            unseen: kills,
            took_command: false,
        }
    }

    #[test]
    fn each_kill_is_told_once_though_the_kernel_counts_the_chosen_one_again() {
        // Who is in charge finds out what there was since the session began.
        let mut own = Records {
            told: Some(0),
            ..Records::default()
        };
        // The chosen one; the same again, with its group; two more of that.
        let told =
            [(1, 1), (1, 2), (3, 4), (3, 4)].map(|(kills, counted)| own.news(&oom(kills), counted).kills);
        assert_eq!(told, [1, 0, 2, 0]);
        assert_eq!(own.kills(), 4);

        // Who looks on finds out what there was since the last record.
        let mut other = Records::default();
        other.know_of_kills(4);
        let news = other.news(&oom(2), 6);
        assert_eq!((news.kills, news.total, other.news(&oom(2), 6).kills), (2, 6, 0));
    }
}
