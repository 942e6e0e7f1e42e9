//! A record as a line for people. Pure.

use super::words::limit_reached;
use super::{Count, Fact, OomKill, Record, StallAction};
use crate::text::{bytes, count, duration_us, escape, time};

/// One line: when, who, what.
pub fn line(record: &Record) -> String {
    let who = record.session.as_deref().unwrap_or_default();
    let sep = if who.is_empty() { "" } else { " " };
    let what = what(&record.fact);
    // As a whole: what was read may have anybody's text in any place.
    escape(&format!(
        "{} {who}{sep}{}: {what}",
        time(record.time_usec),
        record.fact.name()
    ))
}

/// What a notice says: who and what, without the time.
pub fn sentence(record: &Record) -> String {
    let what = what(&record.fact);
    escape(&match &record.session {
        Some(session) => format!("{session}: {what}"),
        None => what,
    })
}

fn what(fact: &Fact) -> String {
    match fact {
        Fact::Started(started) => match started.command.is_empty() {
            true => "processes were adopted".into(),
            false => started.command.join(" "),
        },
        Fact::OomKill(oom) => oom_kill(oom),
        Fact::MaxHit(hits) => times("reached memory_max", hits, &bytes),
        Fact::Throttled(hits) => times("slowed down for being over memory_high", hits, &bytes),
        Fact::PidsHit(hits) => times("a fork was refused: the limit is pids", hits, &|n| n.to_string()),
        Fact::Stalled(stall) => {
            let then = match (&stall.error, stall.action) {
                (Some(error), action) => format!("; {} failed: {error}", action_word(action)),
                (None, StallAction::Record) => String::new(),
                (None, StallAction::Lift) => "; memory_high was taken away".into(),
                (None, StallAction::Kill) => "; it was killed".into(),
            };
            format!(
                "over memory_high {} with {} for {}, in which every task waited for memory {:.0} % of the time{then}",
                bytes(stall.limit),
                bytes(stall.current),
                duration_us(stall.for_usec),
                stall.full_percent
            )
        }
        Fact::Pressure(p) => format!(
            "tasks of {} waited for {}: some {:.0} %, all {:.0} % of the last 10 s",
            p.group, p.resource, p.some_avg10, p.full_avg10
        ),
        Fact::Drifted(drift) => format!(
            "{} of {} is {} and was set to {}{}",
            drift.knob,
            drift.group,
            drift.found,
            drift.declared,
            if drift.repaired { "; set back" } else { "" }
        ),
        Fact::Applied(applied) => format!(
            "{}{}",
            count(applied.changes, "change", "changes"),
            match &applied.file {
                Some(file) => format!(" from {file}"),
                None => String::new(),
            }
        ),
        Fact::Frozen(frozen) => if frozen.frozen { "frozen" } else { "thawed" }.into(),
        Fact::Exited(exited) => {
            let how = match (exited.status, exited.signal) {
                (_, Some(signal)) => format!("ended by signal {signal}"),
                (Some(status), None) => format!("exit status {status}"),
                (None, None) => "ended, how is not known".into(),
            };
            let oom = match &exited.oom {
                Some(oom) => format!(", {} OOM-killed", count(oom.kills, "process", "processes")),
                None if exited.oom_unknown => ", whether it was OOM-killed is not known".into(),
                None => String::new(),
            };
            let peak = exited
                .usage
                .memory_peak
                .map(|peak| format!(", memory peak {}", bytes(peak)));
            format!(
                "{how}{oom}, took {}{}",
                duration_us(exited.usage.wall_usec),
                peak.unwrap_or_default()
            )
        }
    }
}

fn action_word(action: StallAction) -> &'static str {
    match action {
        StallAction::Record => "to record it",
        StallAction::Lift => "to take memory_high away",
        StallAction::Kill => "to kill it",
    }
}

fn times(what: &str, hits: &Count, show: &dyn Fn(u64) -> String) -> String {
    let limit = hits
        .limit
        .map(|limit| format!(" {}", show(limit)))
        .unwrap_or_default();
    let all = if hits.total > hits.rise {
        format!(", {} in all", hits.total)
    } else {
        String::new()
    };
    format!("{what}{limit} {}{all}", count(hits.rise, "time", "times"))
}

fn oom_kill(oom: &OomKill) -> String {
    let who = match oom.victims.first() {
        Some(victim) => format!(
            "{} pid {} ({}) was killed",
            victim.comm,
            victim.pid,
            bytes(victim.rss)
        ),
        None => format!(
            "{} killed, who is not known",
            count(oom.kills, "process was", "processes were")
        ),
    };
    let why = limit_reached(&oom.hit());
    let rest = match oom.whole_group {
        true => format!("; the whole group, {}", count(oom.kills, "process", "processes")),
        false => String::new(),
    };
    format!("{who}: {why}{rest}")
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn record(fact: Fact) -> Record {
        Record {
            time_usec: 1_795_412_001_500_000,
            session: Some("rust-3".into()),
            id: None,
            role: None,
            fact,
        }
    }

    #[test]
    fn records_are_lines() {
        let hit = Count {
            total: 7,
            rise: 2,
            limit: Some(1 << 30),
            current: None,
        };
        assert_eq!(
            line(&record(Fact::Throttled(hit))),
            "2026-11-23 05:33:21Z rust-3 throttled: slowed down for being over memory_high 1.0 GiB 2 times, 7 in all"
        );
        let frozen = Record {
            session: None,
            ..record(Fact::Frozen(Frozen { frozen: true }))
        };
        assert_eq!(line(&frozen), "2026-11-23 05:33:21Z frozen: frozen");
    }

    #[test]
    fn whatever_was_read_moves_no_terminal() {
        let text = r#"{"time_usec":1,"session":"a\u001bb","event":"oom_kill","level":"ceiling","limited_group":"/\u001b",
            "kills":1,"victims":[{"pid":1,"comm":"\u001b[2J","rss":1,"anon":1,"oom_score_adj":null}]}"#;
        let record = Record::from_text(text).unwrap();
        for said in [line(&record), sentence(&record)] {
            assert!(
                said.contains("\\u{1b}[2J") && !said.contains('\u{1b}'),
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_record_is_read_as_written() {
        let oom = OomKill {
            level: "session".into(),
            kills: 1,
            ..OomKill::default()
        };
        for fact in [
            Fact::OomKill(Box::new(oom)),
            Fact::Exited(Box::default()),
            Fact::Stalled(Stall::default()),
        ] {
            let written = record(fact);
            let text = written.to_text();
            assert!(!text.contains('\n') && text.contains("\"event\":"), "{text}");
            assert_eq!(Record::from_text(&text), Some(written));
        }
        assert_eq!(
            Record::from_text("{\"time_usec\":1,\"event\":\"of_tomorrow\"}"),
            None
        );
    }
}
