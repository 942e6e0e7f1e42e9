//! `cgmgr history`: sessions that are over, how they ended, and what they used.

use super::args::{Global, HistoryArgs};
use super::context::{Outcome, print_json};
use super::records::{place, since, store};
use crate::record::{Exited, Fact, Record};
use crate::text::{bytes, duration_us, escape, time};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Runs the command.
pub fn history(args: &HistoryArgs, _global: &Global) -> Outcome {
    let store = store()?;
    let since = since(args.since.as_deref())?.unwrap_or(0);
    let mut order = Vec::new();
    let mut ended: BTreeMap<String, (Record, Box<Exited>)> = BTreeMap::new();
    for record in store.read().map_err(place)? {
        let Fact::Exited(exited) = &record.fact else {
            continue;
        };
        let of_role = args
            .role
            .as_deref()
            .is_none_or(|role| record.role.as_deref() == Some(role));
        if !of_role || record.time_usec < since {
            continue;
        }
        let id = record.id.clone().unwrap_or_default();
        // Whoever cleans up after a killed supervisor knows less than it did.
        match ended.get(&id) {
            Some((_, known)) if known.status.is_some() || exited.status.is_none() => {}
            Some(_) => {
                ended.insert(id, (record.clone(), exited.clone()));
            }
            None => {
                order.push(id.clone());
                ended.insert(id, (record.clone(), exited.clone()));
            }
        }
    }
    let shown = order.len().saturating_sub(args.last.unwrap_or(usize::MAX));
    let shown = order[shown..].iter().filter_map(|id| ended.get(id));
    if args.json {
        let all: Vec<&Record> = shown.map(|(record, _)| record).collect();
        print_json(&json!({ "sessions": all }))?;
        return Ok(0);
    }
    let mut out = io::stdout().lock();
    for (record, exited) in shown {
        writeln!(out, "{}", line(record, exited))?;
    }
    Ok(0)
}

fn line(record: &Record, exited: &Exited) -> String {
    let how = match (exited.status, exited.signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (Some(status), None) => format!("status {status}"),
        (None, None) => "end unknown".into(),
    };
    let usage = &exited.usage;
    let mut rest = vec![format!("took {}", duration_us(usage.wall_usec))];
    rest.extend(usage.cpu_usec.map(|us| format!("CPU {}", duration_us(us))));
    rest.extend(
        usage
            .memory_peak
            .map(|peak| format!("memory peak {}", bytes(peak))),
    );
    let pids = usage.pids_refused.filter(|n| *n > 0);
    rest.extend(pids.map(|n| format!("{n} forks refused")));
    if let Some(oom) = &exited.oom {
        rest.push(format!("{} OOM-killed ({})", oom.kills, oom.level));
    }
    let role = record.role.as_deref().map(|role| format!(" ({})", escape(role)));
    format!(
        "{} {}{}: {how}, {}: {}",
        time(exited.started_usec),
        record.session.as_deref().map(escape).unwrap_or_default(),
        role.unwrap_or_default(),
        rest.join(", "),
        escape(&exited.command.join(" "))
    )
}
