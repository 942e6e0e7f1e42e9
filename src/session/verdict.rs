//! What happened, from counters: who was killed, by whose limit. Pure.
//!
//! A verdict never rests on an exit status: 137 is also what a plain `kill -9` gives. It rests on `oom_kill` of the
//! session, and the level on whose own `oom` counter moved (cgroup-v2.rst, "memory.events"). The kernel log, where it
//! can be read, says both for certain and names the victim.
#![deny(clippy::disallowed_methods)]

use super::measure::Moment;
use crate::kernel::kmsg::{Incident, OomLog, Victim};
use crate::order;
use crate::path::GroupPath;
use crate::record::OomKill;
use crate::record::words::Hit;
use serde::Serialize;

/// The signal of `kill -9`, and of the OOM killer.
const SIGKILL: i32 = 9;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not known: somebody else waited for it.
    Unknown,
}

impl Exit {
    /// The status a shell gives: the code, or 128 and the signal.
    pub fn status(self) -> u8 {
        match self {
            Self::Code(code) => code as u8,
            Self::Signal(signal) => (128 + signal) as u8,
            Self::Unknown => 125,
        }
    }
}

/// Whose limit was hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The session's own memory_max.
    Session,
    /// A limit of a group that the session made itself.
    Inner,
    /// A limit of a group above: workloads.slice, or one further up.
    Above(GroupPath),
    /// The machine ran out of memory.
    Global,
    /// Seen from inside a cgroup namespace: a limit outside of it, or the whole machine.
    Outside,
    /// systemd-oomd ended the session.
    SystemdOomd,
    /// Not the session's own: nobody looked on who could say which of those above it was.
    Unknown,
}

impl Cause {
    /// Its name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Inner => "inner",
            Self::Above(_) => "ceiling",
            Self::Global => "global",
            Self::Outside => "outside",
            Self::SystemdOomd => "systemd-oomd",
            Self::Unknown => "unknown",
        }
    }
}

/// An OOM kill in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oom {
    /// Whose limit was hit.
    pub cause: Cause,
    /// That limit, in bytes, where it is one of a group.
    pub limit: Option<u64>,
    /// Processes of the session that were killed.
    pub kills: u64,
    /// Whether the kernel killed the whole group at once (memory.oom.group).
    pub whole_group: bool,
    /// Victims known by name, the chosen one first. Empty: unknown.
    pub victims: Vec<Victim>,
    /// Kills that the kernel counted and that no line of its log is known to tell of.
    pub unseen: u64,
    /// Whether the command itself was among the victims.
    pub took_command: bool,
}

impl Oom {
    /// With what came later in the same session; the limit is that of the first.
    #[must_use]
    pub fn and(mut self, later: Oom) -> Self {
        self.kills += later.kills;
        self.unseen += later.unseen;
        self.victims.extend(later.victims);
        self.took_command |= later.took_command;
        self.whole_group |= later.whole_group;
        self
    }

    /// The limit that was hit.
    pub fn hit(&self) -> Hit<'_> {
        Hit {
            level: self.cause.name(),
            group: match &self.cause {
                Cause::Above(group) => Some(group.as_str()),
                _ => None,
            },
            limit: self.limit,
        }
    }
}

impl From<&Oom> for OomKill {
    fn from(oom: &Oom) -> Self {
        let hit = oom.hit();
        Self {
            level: hit.level.to_owned(),
            limited_group: hit.group.map(str::to_owned),
            limit: hit.limit,
            kills: oom.kills,
            total: oom.kills,
            whole_group: oom.whole_group,
            took_command: Some(oom.took_command),
            victims: oom.victims.clone(),
            ..Self::default()
        }
    }
}

/// What is known from outside the counters.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The kernel log since the session began; `None` where it cannot be read.
    pub log: Option<OomLog>,
    /// Pids that are known to have been in the session.
    pub pids: Vec<i32>,
    /// Whether systemd-oomd left its mark on the session's group.
    pub oomd: bool,
    /// Whether this is seen from inside a cgroup namespace: then the kernel log's paths are not comparable with ours,
    /// and there may be limits above that cannot be seen.
    pub namespaced: bool,
    /// The command's pid.
    pub command: i32,
    /// How the command ended, if it has.
    pub exit: Option<Exit>,
    /// OOM kills that the command is known to have lived through.
    pub survived: u64,
}

/// The OOM kills between two moments; `None` where there were none.
pub fn oom(before: &Moment, after: &Moment, evidence: &Evidence) -> Option<Oom> {
    let in_session = |key: &str| {
        after
            .events
            .get(key)
            .unwrap_or(0)
            .saturating_sub(before.events.get(key).unwrap_or(0))
    };
    let kills = in_session("oom_kill");
    if kills == 0 {
        return evidence.oomd.then(|| Oom {
            cause: Cause::SystemdOomd,
            limit: None,
            kills: 0,
            whole_group: true,
            victims: Vec::new(),
            unseen: 0,
            took_command: true,
        });
    }
    let session = &after.levels.first()?.group;
    let empty = OomLog::default();
    let log = evidence.log.as_ref().unwrap_or(&empty);
    let in_this_session = |i: &&Incident| GroupPath::new(&i.task_group).is_some_and(|g| session.contains(&g));
    let here: Vec<_> = log
        .incidents
        .iter()
        .filter(|_| !evidence.namespaced)
        .filter(in_this_session)
        .collect();
    let cause = match here.last() {
        Some(incident) => match incident.limited.as_deref().and_then(GroupPath::new) {
            None => Cause::Global,
            Some(group) if group == *session || session.scope().as_ref() == Some(&group) => Cause::Session,
            Some(group) if session.contains(&group) => Cause::Inner,
            Some(group) => Cause::Above(group),
        },
        None => by_counters(before, after, in_session("oom"), evidence.namespaced),
    };
    let limited = match &cause {
        Cause::Session => Some(session),
        Cause::Above(group) => Some(group),
        _ => None,
    };
    let limit = limited.and_then(|g| after.levels.iter().find(|l| l.group == *g)?.max);
    let of_session = |v: &&Victim| here.iter().any(|i| i.pid == v.pid) || evidence.pids.contains(&v.pid);
    let mut victims: Vec<Victim> = log.victims.iter().filter(of_session).cloned().collect();
    // The one the kernel chose comes first; with memory.oom.group the others die along with it.
    order::sort_by_key(&mut victims, |v| {
        let chosen = here.iter().any(|i| i.pid == v.pid);
        (!chosen, v.repeats == 0, std::cmp::Reverse(v.rss))
    });
    // A session's group is new, and its own counters began at zero; one that is entered has a past.
    let past = before.levels.iter().find(|level| level.group == *session);
    let past = past
        .and_then(|level| level.local.get("oom_group_kill"))
        .unwrap_or(0);
    let now = after.levels[0].local.get("oom_group_kill").unwrap_or(0);
    let group_kills = now.saturating_sub(past);
    // The kernel counts the process it chose again when it kills the rest of the group (mm/oom_kill.c,
    // oom_kill_process), where that process has not ended by then. The log shows how often that was, if it shows
    // every kill that was counted.
    let repeats = victims.iter().map(|v| v.repeats).sum::<u64>();
    let unseen = kills.saturating_sub(victims.len() as u64 + repeats);
    let again = if unseen == 0 { repeats } else { group_kills };
    let counted = kills.saturating_sub(again).max(1);
    let killed = evidence.exit == Some(Exit::Signal(SIGKILL));
    // A SIGKILL alone proves nothing. It is the OOM killer's where the log names the command, where the whole group
    // went, or, with no log to ask, where there was an OOM kill that the command did not live on after.
    let took_command = killed
        && (group_kills > 0
            || victims.iter().any(|v| v.pid == evidence.command)
            || (victims.is_empty() && kills > evidence.survived));
    Some(Oom {
        cause,
        limit,
        kills: counted,
        whole_group: group_kills > 0,
        victims,
        unseen,
        took_command,
    })
}

/// The level by the counters alone: `oom` rises where the limit was hit.
fn by_counters(before: &Moment, after: &Moment, in_session_tree: u64, namespaced: bool) -> Cause {
    let rose = |index: usize| {
        let level = &after.levels[index];
        let earlier = before
            .levels
            .iter()
            .find(|l| l.group == level.group)
            .and_then(|l| l.local.get("oom"))
            .unwrap_or(0);
        level.local.get("oom").unwrap_or(0) > earlier
    };
    if rose(0) {
        return Cause::Session;
    }
    if in_session_tree > 0 {
        return Cause::Inner;
    }
    match (1..after.levels.len()).find(|i| rose(*i)) {
        Some(index) => Cause::Above(after.levels[index].group.clone()),
        None if namespaced => Cause::Outside,
        None => Cause::Global,
    }
}

/// A verdict for programs.
#[derive(Debug, Clone, Serialize)]
pub struct OomReport {
    /// `session`, `inner`, `ceiling`, `global` or `systemd-oomd`.
    pub level: &'static str,
    /// The group whose limit was hit, where it is above the session.
    pub group: Option<String>,
    /// That limit, in bytes.
    pub limit: Option<u64>,
    /// Processes of the session that were killed.
    pub kills: u64,
    /// Whether the whole group was killed at once.
    pub whole_group: bool,
    /// Whether the command itself was killed.
    pub took_command: bool,
    /// The victim the kernel chose; `null` is unknown.
    pub victim: Option<Victim>,
}

impl From<&Oom> for OomReport {
    fn from(oom: &Oom) -> Self {
        let hit = oom.hit();
        Self {
            level: oom.cause.name(),
            group: hit.group.map(str::to_owned),
            limit: hit.limit,
            kills: oom.kills,
            whole_group: oom.whole_group,
            took_command: oom.took_command,
            victim: oom.victims.first().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::Level;
    use super::*;
    use crate::kernel::counters::Keyed;

    fn moment(events: &str, levels: &[(&str, &str, Option<u64>)]) -> Moment {
        let level = |(group, local, max): &(&str, &str, Option<u64>)| Level {
            group: GroupPath::new(group).unwrap(),
            local: Keyed::parse(local),
            max: *max,
        };
        Moment {
            events: Keyed::parse(events),
            levels: levels.iter().map(level).collect(),
        }
    }

    fn before() -> Moment {
        moment("", &[("/w", "oom 5\noom_kill 5\n", Some(900))])
    }

    fn victim(pid: i32, rss: u64) -> Victim {
        Victim {
            pid,
            comm: format!("c{pid}"),
            rss,
            oom_score_adj: None,
            anon: rss,
            repeats: 0,
        }
    }

    #[test]
    fn no_kill_no_verdict() {
        let after = moment(
            "oom 3\noom_kill 0\n",
            &[("/w/s", "oom 3\n", Some(9)), ("/w", "oom 6\n", Some(900))],
        );
        assert_eq!(oom(&before(), &after, &Evidence::default()), None);
    }

    #[test]
    fn the_sessions_own_limit_by_counters() {
        let after = moment(
            "oom 1\noom_kill 3\n",
            &[
                ("/w/s", "oom 1\noom_kill 3\noom_group_kill 1\n", Some(9)),
                ("/w", "oom 6\n", Some(900)),
            ],
        );
        let oom = oom(&before(), &after, &Evidence::default()).unwrap();
        assert_eq!(
            (oom.cause, oom.limit, oom.kills, oom.whole_group),
            (Cause::Session, Some(9), 2, true)
        );
        assert_eq!(oom.victims, [], "without a log the victim is unknown");
    }

    #[test]
    fn a_whole_groups_kills_are_counted_once_each() {
        let after = moment(
            "oom 1\noom_kill 4\n",
            &[("/w/s", "oom 1\noom_kill 4\noom_group_kill 1\n", Some(9))],
        );
        // 9 was killed in another session right after this one.
        let mut log = OomLog {
            victims: vec![victim(6, 5), victim(7, 9), victim(8, 30), victim(9, 99)],
            ..OomLog::default()
        };
        log.victims[1].repeats = 1;
        let mut evidence = Evidence {
            pids: vec![6, 7, 8],
            log: Some(log),
            ..Evidence::default()
        };
        let told = |evidence: &Evidence| oom(&before(), &after, evidence).unwrap();
        let all = told(&evidence);
        assert_eq!((all.kills, all.victims.len()), (3, 3));
        assert_eq!(all.victims[0].pid, 7, "the one that was chosen, not the largest");
        let log = evidence.log.as_mut().unwrap();
        log.victims[1].repeats = 0;
        log.victims.push(victim(10, 1));
        evidence.pids.push(10);
        assert_eq!(
            told(&evidence).kills,
            4,
            "it had ended before its group was killed"
        );
        evidence.pids.pop();
        assert_eq!(
            told(&evidence).kills,
            3,
            "what is not seen may have been the second time"
        );
    }

    #[test]
    fn ceiling_global_and_inner_by_counters() {
        let ceiling = moment(
            "oom 0\noom_kill 1\n",
            &[("/w/s", "oom 0\n", Some(9)), ("/w", "oom 6\n", Some(900))],
        );
        let cause = |after: &Moment| oom(&before(), after, &Evidence::default()).unwrap().cause;
        assert_eq!(cause(&ceiling), Cause::Above(GroupPath::new("/w").unwrap()));
        let global = moment(
            "oom 0\noom_kill 1\n",
            &[("/w/s", "oom 0\n", Some(9)), ("/w", "oom 5\n", Some(900))],
        );
        assert_eq!(cause(&global), Cause::Global);
        let inner = moment(
            "oom 1\noom_kill 1\n",
            &[("/w/s", "oom 0\n", Some(9)), ("/w", "oom 5\n", Some(900))],
        );
        assert_eq!(cause(&inner), Cause::Inner);
    }

    #[test]
    fn the_log_outweighs_a_ceiling_that_moved_for_another_session() {
        let after = moment(
            "oom 1\noom_kill 1\n",
            &[("/w/s", "oom 1\n", Some(9)), ("/w", "oom 9\n", Some(900))],
        );
        let incident = |limited: Option<&str>, group: &str, pid| Incident {
            limited: limited.map(str::to_owned),
            task_group: group.into(),
            pid,
        };
        let mut log = OomLog {
            victims: vec![victim(7, 10), victim(8, 99), victim(9, 5)],
            ..OomLog::default()
        };
        log.incidents = vec![
            incident(Some("/w"), "/w/other", 8),
            incident(Some("/w"), "/w/s/x", 7),
        ];
        let evidence = Evidence {
            log: Some(log),
            pids: vec![9],
            ..Evidence::default()
        };
        let oom = oom(&before(), &after, &evidence).unwrap();
        assert_eq!(oom.cause, Cause::Above(GroupPath::new("/w").unwrap()));
        assert_eq!(
            oom.victims.iter().map(|v| v.pid).collect::<Vec<_>>(),
            [7, 9],
            "another session's is not ours"
        );
    }

    #[test]
    fn a_plain_kill_after_an_oom_kill_that_was_lived_through_is_not_the_ooms() {
        let after = moment("oom 1\noom_kill 1\n", &[("/w/s", "oom 1\n", Some(9))]);
        let took = |evidence: &Evidence| oom(&before(), &after, evidence).unwrap().took_command;
        let exit = Some(Exit::Signal(9));
        let alone = Evidence {
            exit,
            command: 7,
            ..Evidence::default()
        };
        assert!(took(&alone), "nothing else is known");
        assert!(!took(&Evidence {
            survived: 1,
            ..alone.clone()
        }));
        let log = OomLog {
            victims: vec![victim(8, 1)],
            ..OomLog::default()
        };
        let named = Evidence {
            log: Some(log),
            pids: vec![8],
            ..alone.clone()
        };
        assert!(!took(&named), "the log names another process");
        assert!(took(&Evidence { command: 8, ..named }));
        assert!(!took(&Evidence {
            exit: Some(Exit::Code(137)),
            ..alone
        }));
    }

    #[test]
    fn a_namespace_cannot_tell_the_machine_from_a_limit_outside() {
        let after = moment(
            "oom_kill 1\n",
            &[("/w/s", "oom 0\n", None), ("/", "oom 0\n", None)],
        );
        let evidence = Evidence {
            namespaced: true,
            ..Evidence::default()
        };
        assert_eq!(oom(&before(), &after, &evidence).unwrap().cause, Cause::Outside);
        let after = moment(
            "oom_kill 1\n",
            &[("/w/s", "oom 0\n", None), ("/", "oom 1\n", Some(5))],
        );
        assert_eq!(
            oom(&before(), &after, &evidence).unwrap().cause,
            Cause::Above(GroupPath::root())
        );
    }

    #[test]
    fn oomd_leaves_no_kernel_count() {
        let evidence = Evidence {
            oomd: true,
            ..Evidence::default()
        };
        let after = moment("oom_kill 0\n", &[("/w/s", "oom 0\n", None)]);
        assert_eq!(
            oom(&before(), &after, &evidence).unwrap().cause,
            Cause::SystemdOomd
        );
    }

    #[test]
    fn statuses_are_those_of_a_shell() {
        assert_eq!(Exit::Code(0).status(), 0);
        assert_eq!(Exit::Code(3).status(), 3);
        assert_eq!(Exit::Signal(9).status(), 137);
    }
}
