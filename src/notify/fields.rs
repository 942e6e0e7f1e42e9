//! A record as fields of a journal entry. Pure.

use crate::record::{Count, Fact, Record};

/// What the journal knows of one kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name, as in `event` of a record.
    pub event: &'static str,
    /// The journal's MESSAGE_ID. It never changes: people search for it, and systemd/cgmgr.catalog explains it.
    pub message_id: &'static str,
    /// How bad it is, as syslog(3) counts: 3 error, 4 warning, 5 notice, 6 information.
    pub priority: u8,
}

const fn kind(event: &'static str, message_id: &'static str, priority: u8) -> Kind {
    Kind {
        event,
        message_id,
        priority,
    }
}

/// Every kind of record.
pub static KINDS: [Kind; 11] = [
    kind("started", "7b32216dfd5e4f65b4811c412c452d1e", 6),
    kind("oom_kill", "cd471b1ab4cc409da5769d450dcc4e02", 3),
    kind("max_hit", "45bde02eb2234130b2f52d05c6463db1", 5),
    kind("throttled", "af713d481c884943bd03ac0a6e9194da", 5),
    kind("stalled", "365be814479a471eb22895e9d335a1f1", 4),
    kind("pids_hit", "7c98abfa08f4470fb7b975815a573784", 4),
    kind("pressure", "5af03bae3d304e7ab2718827af459cc5", 4),
    kind("drifted", "f518c20dd48844a3b6df22c98505aaba", 4),
    kind("applied", "327abac1402a45aa99d71a6599433824", 6),
    kind("frozen", "4ac4c73e82e74710ac2dac25d036f2d9", 6),
    kind("exited", "ac6286534d3c4351b16641bac6058b80", 6),
];

/// Fields by name, in the order in which the journal is told.
type Fields = Vec<(&'static str, String)>;

/// The fields of a record's entry. `sentence` is what people read.
pub fn of(record: &Record, sentence: &str) -> Fields {
    let event = record.fact.name();
    let mut fields = vec![("MESSAGE", sentence.to_owned())];
    if let Some(kind) = KINDS.iter().find(|kind| kind.event == event) {
        fields.push(("PRIORITY", kind.priority.to_string()));
        fields.push(("MESSAGE_ID", kind.message_id.to_owned()));
    }
    fields.push(("SYSLOG_IDENTIFIER", "cgmgr".to_owned()));
    fields.push(("CGMGR_EVENT", event.to_owned()));
    fields.push(("CGMGR_TIME_USEC", record.time_usec.to_string()));
    some(&mut fields, "CGMGR_SESSION", record.session.as_ref());
    some(&mut fields, "CGMGR_ID", record.id.as_ref());
    some(&mut fields, "CGMGR_ROLE", record.role.as_ref());
    add(&mut fields, &record.fact);
    fields
}

fn some(fields: &mut Fields, name: &'static str, value: Option<&impl ToString>) {
    fields.extend(value.map(|value| (name, value.to_string())));
}

fn add(fields: &mut Fields, fact: &Fact) {
    let text = |value: &dyn ToString| value.to_string();
    match fact {
        Fact::OomKill(oom) => {
            fields.push(("CGMGR_LEVEL", oom.level.clone()));
            some(fields, "CGMGR_LIMITED_GROUP", oom.limited_group.as_ref());
            some(fields, "CGMGR_LIMIT", oom.limit.as_ref());
            fields.push(("CGMGR_KILLS", text(&oom.kills)));
            fields.push(("CGMGR_TOTAL", text(&oom.total)));
            fields.push(("CGMGR_WHOLE_GROUP", text(&oom.whole_group)));
            some(fields, "CGMGR_PEAK", oom.scene.peak.as_ref());
            // A field may be there several times: the journal finds an entry by each of them.
            for victim in &oom.victims {
                fields.push(("CGMGR_VICTIM_PID", text(&victim.pid)));
                fields.push(("CGMGR_VICTIM_COMM", victim.comm.clone()));
                fields.push(("CGMGR_VICTIM_RSS", text(&victim.rss)));
            }
        }
        Fact::MaxHit(count) | Fact::Throttled(count) | Fact::PidsHit(count) => add_count(fields, count),
        Fact::Stalled(stall) => {
            fields.push(("CGMGR_LIMIT", text(&stall.limit)));
            fields.push(("CGMGR_CURRENT", text(&stall.current)));
            fields.push(("CGMGR_FOR_USEC", text(&stall.for_usec)));
        }
        Fact::Pressure(pressure) => {
            fields.push(("CGMGR_GROUP", pressure.group.clone()));
            fields.push(("CGMGR_RESOURCE", pressure.resource.clone()));
        }
        Fact::Drifted(drift) => {
            fields.push(("CGMGR_GROUP", drift.group.clone()));
            fields.push(("CGMGR_KNOB", drift.knob.clone()));
            fields.push(("CGMGR_DECLARED", drift.declared.clone()));
            fields.push(("CGMGR_FOUND", drift.found.clone()));
            fields.push(("CGMGR_REPAIRED", text(&drift.repaired)));
        }
        Fact::Exited(exited) => some(fields, "CGMGR_STATUS", exited.status.as_ref()),
        Fact::Started(_) | Fact::Applied(_) | Fact::Frozen(_) => {}
    }
}

fn add_count(fields: &mut Fields, count: &Count) {
    fields.push(("CGMGR_TOTAL", count.total.to_string()));
    fields.push(("CGMGR_RISE", count.rise.to_string()));
    some(fields, "CGMGR_LIMIT", count.limit.as_ref());
    some(fields, "CGMGR_CURRENT", count.current.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::kmsg::Victim;
    use crate::record::OomKill;
    use std::collections::BTreeSet;

    fn oom_kill() -> Record {
        let victim = |pid, comm: &str| Victim {
            pid,
            comm: comm.into(),
            rss: 5,
            anon: 4,
            oom_score_adj: None,
            repeats: 0,
        };
        Record {
            time_usec: 7,
            session: Some("rust-1".into()),
            id: None,
            role: Some("rust".into()),
            fact: Fact::OomKill(Box::new(OomKill {
                level: "session".into(),
                limit: Some(1 << 20),
                kills: 2,
                victims: vec![victim(12, "cc1"), victim(13, "ld")],
                ..OomKill::default()
            })),
        }
    }

    #[test]
    fn who_and_by_which_limit_are_fields() {
        let fields = of(&oom_kill(), "it was killed");
        let all = |name: &str| -> Vec<&str> {
            let named = fields.iter().filter(|(found, _)| *found == name);
            named.map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(all("MESSAGE"), ["it was killed"]);
        assert_eq!(all("MESSAGE_ID"), ["cd471b1ab4cc409da5769d450dcc4e02"]);
        assert_eq!(all("PRIORITY"), ["3"]);
        assert_eq!(all("CGMGR_EVENT"), ["oom_kill"]);
        assert_eq!(all("CGMGR_SESSION"), ["rust-1"]);
        assert_eq!(all("CGMGR_ROLE"), ["rust"]);
        assert_eq!(all("CGMGR_LIMIT"), ["1048576"]);
        assert_eq!(all("CGMGR_VICTIM_PID"), ["12", "13"]);
        assert_eq!(all("CGMGR_VICTIM_COMM"), ["cc1", "ld"]);
        assert!(all("CGMGR_ID").is_empty() && all("CGMGR_LIMITED_GROUP").is_empty());
    }

    #[test]
    fn names_are_such_as_the_journal_takes() {
        for (name, _) in of(&oom_kill(), "") {
            let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            assert!(name.bytes().all(plain) && !name.starts_with('_'), "{name}");
        }
    }

    #[test]
    fn the_catalog_explains_every_kind() {
        let catalog = include_str!("../../systemd/cgmgr.catalog");
        let explained: BTreeSet<&str> = catalog
            .lines()
            .filter_map(|line| line.strip_prefix("-- "))
            .collect();
        assert_eq!(explained, KINDS.iter().map(|kind| kind.message_id).collect());
        assert_eq!(catalog.matches("\n-- ").count(), KINDS.len());
    }

    #[test]
    fn kinds_differ() {
        let ids: BTreeSet<_> = KINDS.iter().map(|kind| kind.message_id).collect();
        assert_eq!(ids.len(), KINDS.len());
        for id in ids {
            assert!(
                id.len() == 32 && id.bytes().all(|b| b"0123456789abcdef".contains(&b)),
                "{id}"
            );
        }
    }
}
