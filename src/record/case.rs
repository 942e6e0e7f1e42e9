//! The OOM kills of one session, put together from its records, and told in prose and numbers. Pure.

use super::words::{self, Filled, limit_reached};
use super::{Exited, Fact, OomKill, Record, Scene};
use crate::kernel::kmsg::Victim;
use crate::text::{bytes, count, duration_us, escape, time};
use serde::Serialize;
use std::collections::BTreeMap;

/// A session in which there were OOM kills.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Case {
    /// The session's name.
    pub session: String,
    /// Which session of that name.
    pub id: String,
    /// Its role.
    pub role: Option<String>,
    /// When the first kill was observed, in microseconds since 1970.
    pub first_usec: u64,
    /// When the last one was.
    pub last_usec: u64,
    /// Each record of a kill, with its time.
    pub kills: Vec<(u64, OomKill)>,
    /// How it ended, and when that was observed; none while it runs.
    pub exited: Option<(u64, Exited)>,
    /// Where the ceiling over all sessions was hit and it is known who had declared it: where to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_from: Option<String>,
    /// When that was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_usec: Option<u64>,
    /// Sessions of this name or this role that had OOM kills before.
    pub earlier: u64,
    /// When the last of those had one.
    pub earlier_usec: Option<u64>,
}

/// Puts cases together from records, which are given from the oldest on.
#[derive(Debug, Default)]
pub struct Cases {
    cases: BTreeMap<String, Case>,
    order: Vec<String>,
    /// The ceiling that was last applied, where to change it, and when that was.
    ceiling: Option<(u64, String, u64)>,
}

impl Cases {
    /// Takes a record into account.
    pub fn add(&mut self, record: &Record) {
        // One that declares none leaves what there is.
        if let Fact::Applied(applied) = &record.fact
            && let (Some(limit), Some(from)) = (applied.ceiling, &applied.ceiling_from)
        {
            self.ceiling = Some((limit, from.clone(), record.time_usec));
        }
        let (Some(session), Some(id)) = (&record.session, &record.id) else {
            return;
        };
        let oom = match &record.fact {
            Fact::OomKill(kill) => Some(&**kill),
            Fact::Exited(exited) => exited.oom.as_ref(),
            _ => None,
        };
        if oom.is_none() && !self.cases.contains_key(id) {
            return;
        }
        let case = self.cases.entry(id.clone()).or_insert_with(|| {
            self.order.push(id.clone());
            Case {
                session: session.clone(),
                id: id.clone(),
                role: record.role.clone(),
                first_usec: record.time_usec,
                ..Case::default()
            }
        });
        // Somebody may have set another one since.
        if let Some((limit, from, at)) = &self.ceiling
            && oom.is_some_and(|oom| oom.hit().is_ceiling() && is_held_as(*limit, oom.limit))
        {
            case.ceiling_from = Some(from.clone());
            case.ceiling_usec = Some(*at);
        }
        match &record.fact {
            Fact::OomKill(kill) => {
                case.last_usec = record.time_usec;
                case.kills.push((record.time_usec, (**kill).clone()));
            }
            // Whoever cleans up after a killed supervisor knows less than it did.
            Fact::Exited(exited) => {
                let better = case
                    .exited
                    .as_ref()
                    .is_none_or(|(_, known)| known.status.is_none());
                if better {
                    case.last_usec = case.last_usec.max(record.time_usec);
                    case.exited = Some((record.time_usec, (**exited).clone()));
                }
            }
            _ => {}
        }
    }

    /// The cases, the oldest first, each with what there was before it.
    pub fn finish(mut self) -> Vec<Case> {
        let mut done: Vec<Case> = Vec::new();
        for id in self.order {
            let Some(mut case) = self.cases.remove(&id) else {
                continue;
            };
            let related = |other: &&Case| {
                other.session == case.session || (case.role.is_some() && other.role == case.role)
            };
            let earlier: Vec<&Case> = done.iter().filter(related).collect();
            let (earlier_count, last) = (earlier.len() as u64, earlier.last().map(|case| case.last_usec));
            case.earlier = earlier_count;
            case.earlier_usec = last;
            done.push(case);
        }
        done
    }
}

impl Case {
    /// The kill that says most: the one of the end where there is one, else the last record of one.
    pub fn verdict(&self) -> Option<&OomKill> {
        let at_end = self.exited.as_ref().and_then(|(_, exited)| exited.oom.as_ref());
        at_end.or_else(|| self.kills.last().map(|(_, kill)| kill))
    }

    /// What was to be seen: of the kill that was looked at while most was there.
    fn scene(&self) -> Option<&Scene> {
        let all = self.kills.iter().map(|(_, kill)| &kill.scene);
        let all = all.chain(self.verdict().map(|verdict| &verdict.scene));
        all.max_by_key(|scene| (scene.processes.len(), scene.memory.is_some(), scene.current))
    }

    fn victims(&self) -> Vec<&Victim> {
        let mut victims: Vec<&Victim> = Vec::new();
        let of_records = self.kills.iter().flat_map(|(_, kill)| &kill.victims);
        for victim in self
            .verdict()
            .into_iter()
            .flat_map(|v| &v.victims)
            .chain(of_records)
        {
            if !victims.iter().any(|known| known.pid == victim.pid) {
                victims.push(victim);
            }
        }
        victims
    }

    /// Where the session's memory_max was declared, and whether another one was in force when it was hit.
    fn memory_max_from(&self, verdict: &OomKill) -> (String, bool) {
        let Some((_, exited)) = &self.exited else {
            return ("memory_max".into(), false);
        };
        let declared = &exited.declared;
        let differs = match (verdict.limit, self.declared_memory_max()) {
            (Some(hit), Some(limit)) => !is_held_as(limit, Some(hit)),
            _ => false,
        };
        let from = match &declared.role_file {
            _ if declared.flags.iter().any(|flag| flag == "memory_max") => "--memory-max".into(),
            Some(file) => format!("runtime.limits.memory_max in {}", escape(file)),
            None => "memory_max".into(),
        };
        (from, differs)
    }

    /// The memory_max that was declared for it.
    fn declared_memory_max(&self) -> Option<u64> {
        let (_, exited) = self.exited.as_ref()?;
        exited.declared.limits.get("memory_max")?.parse().ok()
    }

    /// Who filled it.
    fn filled(&self, verdict: &OomKill) -> Filled {
        let victims = self.victims();
        let scene = self.scene();
        let alive = scene.map_or(&[][..], |scene| &scene.processes);
        // Those of other kills held it at another time.
        let held = victims.first().map(|victim| victim.rss).into_iter();
        let processes = alive.len() as u64 + scene.map_or(0, |scene| scene.more_processes);
        Filled::of(
            verdict.limit,
            held.chain(alive.iter().map(|process| process.rss)),
            processes.saturating_add(verdict.kills.max(victims.len() as u64)),
        )
    }

    /// Who held what when a limit above the session was hit, in a row; none where nobody looked.
    fn holders(&self) -> Option<String> {
        let kills = self.kills.iter().rev().map(|(_, kill)| kill);
        let mut looked = self.verdict().into_iter().chain(kills);
        let kill = looked.find(|kill| !kill.scene.sessions.is_empty())?;
        let scene = &kill.scene;
        // What was killed here has given its memory back before anybody could look.
        let victims = kill
            .victims
            .iter()
            .fold(0u64, |sum, v| sum.saturating_add(v.anon));
        let mut all = Vec::new();
        for holder in &scene.sessions {
            let role = holder.role.as_deref().map(|role| format!(" ({role})"));
            let is_this = holder.session == self.session;
            let (memory, when) = match is_this {
                true if victims > holder.memory => (victims, " before the kill"),
                true => (holder.memory, " after the kill"),
                false => (holder.memory, ""),
            };
            let text = format!(
                "{}{} {}{when}",
                holder.session,
                role.unwrap_or_default(),
                bytes(memory)
            );
            all.insert(if is_this { 0 } else { all.len() }, text);
        }
        if scene.more_sessions > 0 {
            all.push(format!("and {} more", scene.more_sessions));
        }
        Some(all.join(", "))
    }

    /// Why, and whether its own limit could have stopped it first.
    fn why(&self, verdict: &OomKill) -> String {
        let why = limit_reached(&verdict.hit());
        let own = self.declared_memory_max();
        match (verdict.level.as_str(), own, verdict.limit) {
            ("ceiling", Some(own), Some(limit)) if own > limit && !is_held_as(own, Some(limit)) => format!(
                "{why}. Its own memory_max {} is above that: it can never be reached",
                bytes(own)
            ),
            _ => why,
        }
    }

    /// The most memory that was held at once.
    fn peak(&self) -> Option<u64> {
        let at_end = self
            .exited
            .as_ref()
            .and_then(|(_, exited)| exited.usage.memory_peak);
        at_end.or_else(|| self.scene()?.peak)
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        let Some(verdict) = self.verdict() else {
            return String::new();
        };
        let (from, differs) = self.memory_max_from(verdict);
        let (hit, filled) = (verdict.hit(), self.filled(verdict));
        let mut usual = match verdict.level.as_str() {
            "session" if differs => words::advice_of_set_limit(&self.session, filled),
            _ => words::advice(&hit, &from, filled),
        };
        let ceiling = self.ceiling_usec.zip(self.ceiling_from.as_deref());
        let more = words::value_to_try(&hit, self.peak().unwrap_or(0))
            .or_else(|| words::where_the_ceiling_is(&hit, ceiling));
        if let Some(more) = more {
            usual = format!("{usual} {more}");
        }
        // What the memory was goes first: a higher limit would only be filled too.
        if let Some(memory) = self.scene().and_then(|scene| scene.memory) {
            let sum = memory.sum();
            // What has died has given its memory back: what is left says something only where it is most of it.
            let is_most = self.peak().or(verdict.limit).is_some_and(|held| sum > held / 2);
            if is_most && memory.shmem > sum / 2 {
                return format!(
                    "Most of the memory was files in memory (tmpfs: /dev/shm, often /tmp): they count until they are \
                     deleted; put them on a disk. Otherwise: {usual}"
                );
            } else if is_most && memory.kernel > sum / 2 {
                return format!(
                    "Most of the memory was the kernel's own for this session: very many processes, open files or \
                     connections. Otherwise: {usual}"
                );
            }
        }
        usual
    }

    /// One line of a list.
    pub fn line(&self) -> String {
        let role = self.role.as_deref().map(|role| format!(" ({role})"));
        let Some(verdict) = self.verdict() else {
            return String::new();
        };
        let who = match self.victims().first() {
            Some(victim) => format!("{} pid {} ({})", victim.comm, victim.pid, bytes(victim.rss)),
            None => "victim unknown".into(),
        };
        let whole = if verdict.whole_group { ", whole group" } else { "" };
        let end = match &self.exited {
            Some((_, exited)) => match exited.oom.as_ref().and_then(|oom| oom.took_command) {
                Some(true) => "command killed",
                Some(false) => "command survived",
                None => "whether the command survived is not known",
            },
            None => "no end recorded",
        };
        // As a whole: what was read may have anybody's text in any place.
        escape(&format!(
            "{} {}{}: {}; {who}{whole}; {end}",
            time(self.first_usec),
            self.session,
            role.unwrap_or_default(),
            limit_reached(&verdict.hit()),
        ))
    }

    /// The whole story, in lines.
    pub fn story(&self) -> Vec<String> {
        let Some(verdict) = self.verdict() else {
            return Vec::new();
        };
        let mut lines = vec![self.head(verdict), String::new()];
        lines.push(format!("Why: {}.", self.why(verdict)));
        lines.push(format!("Who: {}", self.who(verdict)));
        lines.push(format!("What to do: {}", self.advice()));
        lines.push(String::new());
        let mut row = |name: &str, text: String| lines.push(format!("  {name:<12} {text}"));
        if let Some((_, exited)) = &self.exited {
            if !exited.command.is_empty() {
                row("command", exited.command.join(" "));
            }
            let by = exited.creator.filter(|creator| exited.uid != Some(*creator));
            match (exited.uid, by) {
                (Some(uid), Some(by)) => row("user", format!("{uid}, started by {by}")),
                (Some(user), None) | (None, Some(user)) => row("user", user.to_string()),
                (None, None) => {}
            }
            let declared: Vec<String> = ["memory_high", "memory_max", "memory_swap_max", "oom_group"]
                .iter()
                .filter_map(|knob| Some(format!("{knob} {}", declared(exited.declared.limits.get(*knob)?))))
                .collect();
            if !declared.is_empty() {
                row("declared", declared.join(", "));
            }
        }
        let scene = self.scene();
        if let Some(peak) = self.peak() {
            row("peak", bytes(peak));
        }
        if let Some(holders) = self.holders() {
            row("held then", holders);
        }
        if let Some(scene) = scene {
            if let Some(memory) = scene.memory {
                row(
                    "left after",
                    format!(
                        "programs {}, files {} (in memory only: {}), kernel {}, sockets {}",
                        bytes(memory.anon),
                        bytes(memory.file),
                        bytes(memory.shmem),
                        bytes(memory.kernel),
                        bytes(memory.sock)
                    ),
                );
            }
            if let (Some(some), Some(full)) = (scene.some_avg60, scene.full_avg60) {
                row(
                    "waits",
                    format!("for memory, of the minute before: some task {some:.0} %, all tasks {full:.0} %"),
                );
            }
            let mut alive: Vec<String> = scene
                .processes
                .iter()
                .map(|p| format!("{} {} ({})", p.comm, p.pid, bytes(p.rss)))
                .collect();
            if scene.more_processes > 0 {
                alive.push(format!("and {} more", scene.more_processes));
            }
            if !alive.is_empty() {
                row("alive then", alive.join(", "));
            }
        }
        row("before", self.before());
        if let Some((_, exited)) = &self.exited {
            row(
                "end",
                match (exited.status, exited.signal) {
                    (_, Some(signal)) => format!("the command was ended by signal {signal}"),
                    // 128 and SIGKILL.
                    (Some(137), None) => {
                        "the command ended with exit status 137, which is 128 + 9: so a shell reports that \
                                          its child was killed"
                            .into()
                    }
                    (Some(status), None) => format!("the command ended with exit status {status}"),
                    (None, None) => "how the command ended is not known".into(),
                },
            );
        }
        lines.iter().map(|line| escape(line)).collect()
    }

    fn head(&self, verdict: &OomKill) -> String {
        let role = self.role.as_deref().map(|role| format!(" (role {role})"));
        let after = self
            .exited
            .as_ref()
            .map(|(_, exited)| self.first_usec.saturating_sub(exited.started_usec));
        let after = after.map(|after| format!(", {} after it had begun", duration_us(after)));
        let ended = self
            .exited
            .as_ref()
            .is_some_and(|(_, exited)| exited.was_oom_killed());
        let what = match ended || verdict.whole_group {
            true => "was OOM-killed".to_owned(),
            false => format!("had {} OOM-killed", count(verdict.kills, "process", "processes")),
        };
        format!(
            "{}{} {what} on {}{}.",
            self.session,
            role.unwrap_or_default(),
            time(self.first_usec),
            after.unwrap_or_default()
        )
    }

    fn who(&self, verdict: &OomKill) -> String {
        let victims = self.victims();
        let mut text = match victims.first() {
            Some(victim) => {
                let score = victim
                    .oom_score_adj
                    .map(|score| format!(", oom_score_adj {score}"));
                format!(
                    "the kernel chose {} (pid {}), which held {}{}.",
                    victim.comm,
                    victim.pid,
                    bytes(victim.rss),
                    score.unwrap_or_default()
                )
            }
            None => "not known: the kernel's log cannot be read, or does not name it.".into(),
        };
        if verdict.whole_group {
            text.push_str(&format!(
                " With it went the whole group, {} in all (memory.oom.group).",
                count(verdict.kills, "process", "processes")
            ));
        } else if victims.len() > 1 {
            let others: Vec<String> = victims[1..]
                .iter()
                .take(5)
                .map(|v| format!("{} {} ({})", v.comm, v.pid, bytes(v.rss)))
                .collect();
            let more = victims.len() - 1 - others.len();
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            text.push_str(&format!(" Also killed: {}{more}.", others.join(", ")));
        }
        match self
            .exited
            .as_ref()
            .and_then(|(_, exited)| exited.oom.as_ref()?.took_command)
        {
            Some(true) => text.push_str(" The command itself was killed."),
            Some(false) => text.push_str(" The command itself was not killed."),
            None => {}
        }
        text
    }

    fn before(&self) -> String {
        match (self.earlier, self.earlier_usec) {
            (0, _) | (_, None) => "no earlier OOM kill of this name or role is on record".into(),
            (earlier, Some(last)) => format!(
                "{} of this name or role on record, the last on {}",
                count(
                    earlier,
                    "earlier session with OOM kills",
                    "earlier sessions with OOM kills"
                ),
                time(last)
            ),
        }
    }
}

/// Whether the kernel holds `declared` as `held`: it rounds down to pages, and a page of any machine is smaller than this.
fn is_held_as(declared: u64, held: Option<u64>) -> bool {
    held.is_some_and(|held| held <= declared && declared - held < 64 << 10)
}

/// A declared value for people: the kernel's text, and bytes at a glance.
fn declared(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(number) if number >= 1024 => bytes(number),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Applied;
    use super::super::scene::{Process, Split};
    use super::*;

    fn record(time_usec: u64, session: &str, id: &str, fact: Fact) -> Record {
        Record {
            time_usec,
            session: Some(session.into()),
            id: Some(id.into()),
            role: Some("rust".into()),
            fact,
        }
    }

    fn kill() -> OomKill {
        let victim = Victim {
            pid: 4121,
            comm: "rustc".into(),
            rss: 10 << 30,
            anon: 10 << 30,
            oom_score_adj: Some(998),
            repeats: 0,
        };
        let scene = Scene {
            memory: Some(Split {
                anon: 2 << 30,
                file: 13 << 30,
                shmem: 12 << 30,
                ..Split::default()
            }),
            some_avg60: Some(31.0),
            full_avg60: Some(12.0),
            ..Scene::default()
        };
        let cargo = Process {
            pid: 4100,
            comm: "cargo".into(),
            rss: 200 << 20,
        };
        OomKill {
            level: "session".into(),
            limit: Some(16 << 30),
            kills: 1,
            total: 1,
            victims: vec![victim],
            scene: scene.with_processes(vec![cargo]),
            ..OomKill::default()
        }
    }

    fn exited() -> Exited {
        let mut exited = Exited {
            signal: Some(9),
            status: Some(137),
            started_usec: 1_795_411_751_500_000,
            command: vec!["cargo".into(), "build".into()],
            uid: Some(1000),
            oom: Some(OomKill {
                took_command: Some(false),
                ..kill()
            }),
            ..Exited::default()
        };
        exited.usage.memory_peak = Some(16 << 30);
        exited.declared.role_file = Some("rust.role.toml".into());
        exited
            .declared
            .limits
            .insert("memory_max".into(), (16u64 << 30).to_string());
        exited
    }

    const AT: u64 = 1_795_412_001_500_000;

    #[test]
    fn a_story_says_who_why_and_what_to_do() {
        let mut cases = Cases::default();
        let old = Fact::OomKill(Box::new(kill()));
        cases.add(&record(AT - 86_400_000_000, "rust-1", "a", old));
        cases.add(&record(AT, "rust-3", "b", Fact::OomKill(Box::new(kill()))));
        cases.add(&record(AT + 1, "rust-3", "b", Fact::Exited(Box::new(exited()))));
        cases.add(&record(AT + 2, "rust-3", "b", Fact::Exited(Box::default())));
        cases.add(&record(AT + 3, "calm", "c", Fact::Exited(Box::default())));
        let cases = cases.finish();
        assert_eq!(cases.len(), 2);
        let text = cases[1].story().join("\n");
        assert_eq!(
            text,
            "rust-3 (role rust) had 1 process OOM-killed on 2026-11-23 05:33:21Z, 4 min 10 s after it had begun.\n\n\
             Why: memory_max 16.0 GiB reached.\n\
             Who: the kernel chose rustc (pid 4121), which held 10.0 GiB, oom_score_adj 998. The command itself was not \
             killed.\n\
             What to do: Most of the memory was files in memory (tmpfs: /dev/shm, often /tmp): they count until they are \
             deleted; put them on a disk. Otherwise: Raise runtime.limits.memory_max in rust.role.toml. How much is enough \
             is not known: try 32.0 GiB, twice as much.\n\n  \
             command      cargo build\n  \
             user         1000\n  \
             declared     memory_max 16.0 GiB\n  \
             peak         16.0 GiB\n  \
             left after   programs 2.0 GiB, files 13.0 GiB (in memory only: 12.0 GiB), kernel 0 B, sockets 0 B\n  \
             waits        for memory, of the minute before: some task 31 %, all tasks 12 %\n  \
             alive then   cargo 4100 (200.0 MiB)\n  \
             before       1 earlier session with OOM kills of this name or role on record, the last on 2026-11-22 05:33:21Z\n  \
             end          the command was ended by signal 9"
        );
        assert_eq!(
            cases[0].line(),
            "2026-11-22 05:33:21Z rust-1 (rust): memory_max 16.0 GiB reached; rustc pid 4121 (10.0 GiB); no end recorded"
        );
    }

    #[test]
    fn whatever_was_read_moves_no_terminal_and_overflows_no_sum() {
        let odd = "\u{1b}[2J".to_owned();
        let mut kill = kill();
        kill.level = "ceiling".into();
        kill.limited_group = Some(odd.clone());
        kill.victims[0].comm = odd.clone();
        kill.scene.processes[0].comm = odd.clone();
        kill.scene.memory = Some(Split {
            anon: u64::MAX,
            file: u64::MAX,
            kernel: 1,
            ..Split::default()
        });
        let mut exited = exited();
        exited.command = vec![odd.clone()];
        exited.oom = None;
        let mut cases = Cases::default();
        cases.add(&record(AT, &odd, "b", Fact::OomKill(Box::new(kill))));
        cases.add(&record(AT, &odd, "b", Fact::Exited(Box::new(exited))));
        let case = cases.finish().remove(0);
        for said in case.story().iter().chain([&case.line()]) {
            assert!(!said.contains(char::is_control), "{said:?}");
        }
    }

    #[test]
    fn what_is_left_when_all_have_died_gives_no_advice() {
        // As it was seen: 64 MiB were held, and 36 KiB of the kernel's own were left.
        let mut kill = kill();
        kill.limit = Some(64 << 20);
        kill.scene.memory = Some(Split {
            kernel: 36 << 10,
            ..Split::default()
        });
        kill.scene.processes.clear();
        let mut cases = Cases::default();
        cases.add(&record(AT, "x", "b", Fact::OomKill(Box::new(kill))));
        let advice = cases.finish().remove(0).advice();
        assert_eq!(
            advice,
            "Raise memory_max: one program alone needs more than that. How much is enough is not known: try 128.0 MiB, \
             twice as much."
        );
    }

    /// The story of a session that ended so after one kill, told of after a role was applied.
    fn story_of(kill: OomKill, exited: Exited, ceiling: Option<u64>) -> (String, Case) {
        let mut cases = Cases::default();
        let mut apply = record(AT - 10_000_000, "", "", Fact::Applied(Applied::default()));
        (apply.session, apply.id) = (None, None);
        if ceiling.is_some() {
            apply.fact = Fact::Applied(Applied {
                ceiling,
                ceiling_from: Some("workloads.memory_max in all.role.toml".into()),
                ..Applied::default()
            });
            cases.add(&apply);
            // One without a ceiling leaves that of the other.
            apply.fact = Fact::Applied(Applied::default());
        }
        cases.add(&apply);
        cases.add(&record(AT, "other", "b", Fact::OomKill(Box::new(kill.clone()))));
        let exited = Exited {
            oom: Some(OomKill {
                took_command: exited.oom.as_ref().and_then(|oom| oom.took_command),
                ..kill
            }),
            ..exited
        };
        cases.add(&record(AT + 1, "other", "b", Fact::Exited(Box::new(exited))));
        let case = cases.finish().remove(0);
        (case.story().join("\n"), case)
    }

    fn at_ceiling(limit: u64, sessions: &[(&str, u64)]) -> OomKill {
        let mut kill = kill();
        kill.level = "ceiling".into();
        kill.limited_group = Some("/workloads.slice".into());
        kill.limit = Some(limit);
        let sessions = sessions
            .iter()
            .map(|(name, held)| ((*name).to_owned(), *held, ()));
        kill.scene = kill
            .scene
            .with_sessions(sessions.collect(), &|()| Some("r".into()));
        kill
    }

    #[test]
    fn at_the_ceiling_who_held_what_is_told_and_where_it_is_set() {
        let kill = at_ceiling(
            12 << 30,
            &[("build-1", 64 << 20), ("other", 12 << 10), ("calm", 1 << 20)],
        );
        let (text, case) = story_of(kill.clone(), exited(), Some((12 << 30) + 4095));
        for part in [
            "\n  held then    other (r) 10.0 GiB before the kill, build-1 (r) 64.0 MiB, calm (r) 1.0 MiB\n",
            "or raise workloads.memory_max. The ceiling is workloads.memory_max in all.role.toml, applied on 2026-11-23 \
             05:33:11Z: change it there and `cgmgr apply` that role again.\n",
            "Why: all sessions together reached the ceiling workloads.memory_max 12.0 GiB. Its own memory_max 16.0 GiB is \
             above that: it can never be reached.\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let json = serde_json::to_value(&case).unwrap();
        assert_eq!(json["ceiling_from"], "workloads.memory_max in all.role.toml");
        assert_eq!(json["kills"][0][1]["scene"]["sessions"][0]["memory"], 64 << 20);

        // Somebody has set another one since, or nobody has applied one.
        for ceiling in [Some(11 << 30), None] {
            let (text, _) = story_of(kill.clone(), exited(), ceiling);
            assert!(
                text.contains("`systemctl cat workloads.slice` shows which file has it."),
                "{text}"
            );
        }
    }

    #[test]
    fn a_limit_of_its_own_below_the_ceiling_is_not_told_of_nor_sessions_that_nobody_saw() {
        let (text, _) = story_of(at_ceiling(16 << 30, &[]), exited(), None);
        assert!(
            !text.contains("it can never be reached") && !text.contains("held then"),
            "{text}"
        );
        let many: Vec<(String, u64)> = (0..12).map(|n| (format!("s{n}"), n)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(name, held)| (name.as_str(), *held)).collect();
        let (text, _) = story_of(at_ceiling(16 << 30, &many), exited(), None);
        assert!(text.contains(", s2 (r) 2 B, and 2 more\n"), "{text}");
    }

    #[test]
    fn fewer_jobs_are_advised_only_where_there_were_several() {
        let with = |alive: i32, kills: u64, rss: u64| {
            let mut kill = kill();
            kill.scene.memory = None;
            kill.kills = kills;
            kill.victims[0].rss = rss;
            let alive = (0..alive).map(|pid| Process {
                pid,
                comm: "cc1".into(),
                rss: 1 << 30,
            });
            kill.scene = kill.scene.with_processes(alive.collect());
            story_of(kill, exited(), None).1.advice()
        };
        let from = "Raise runtime.limits.memory_max in rust.role.toml";
        let try_twice = " How much is enough is not known: try 32.0 GiB, twice as much.";
        for (alive, kills, rss, how) in [
            (2, 1, 1 << 30, "."),
            (3, 1, 1 << 30, " or build with fewer jobs."),
            (15, 1, 1 << 30, " or build with fewer jobs."),
            (0, 4, 1 << 30, " or build with fewer jobs."),
            (15, 1, 15 << 30, ": one program alone needs more than that."),
        ] {
            assert_eq!(
                with(alive, kills, rss),
                format!("{from}{how}{try_twice}"),
                "{alive} {kills} {rss}"
            );
        }
    }

    #[test]
    fn no_value_is_named_where_more_was_held_already() {
        let mut lowered = kill();
        lowered.limit = Some(1 << 30);
        let advice = story_of(lowered, exited(), None).1.advice();
        assert!(
            advice.ends_with("raise it with `cgmgr set other memory_max=…`."),
            "{advice}"
        );
    }

    #[test]
    fn a_list_says_what_became_of_the_command_and_the_end_what_137_means() {
        for (took_command, said) in [
            (Some(true), "; command killed"),
            (Some(false), "; command survived"),
            (None, "; whether the command survived is not known"),
        ] {
            let mut end = exited();
            end.signal = None;
            end.oom.as_mut().unwrap().took_command = took_command;
            let (text, case) = story_of(kill(), end, None);
            assert!(case.line().ends_with(said), "{}", case.line());
            assert!(
                text.ends_with(
                    "exit status 137, which is 128 + 9: so a shell reports that its child was killed"
                ),
                "{text}"
            );
        }
        let mut end = exited();
        (end.signal, end.status) = (None, Some(3));
        let (text, _) = story_of(kill(), end, None);
        assert!(text.ends_with("the command ended with exit status 3"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let mut cases = Cases::default();
        let kill = OomKill {
            level: "global".into(),
            kills: 2,
            ..OomKill::default()
        };
        cases.add(&record(AT, "x", "b", Fact::OomKill(Box::new(kill))));
        let case = cases.finish().remove(0);
        let text = case.story().join("\n");
        assert!(
            text.contains("Who: not known") && text.contains("the machine ran out of memory"),
            "{text}"
        );
        assert!(text.contains("no earlier OOM kill"), "{text}");
    }
}
