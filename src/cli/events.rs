//! `cgmgr events`: what was observed, record by record; and with `--follow` what is observed from now on.

use super::args::{EventsArgs, Global};
use super::context::Outcome;
use super::records::{place, since, store};
use crate::record::Record;
use crate::record::line::line;
use crate::session::records::now_usec;
use crate::store::Tail;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// Runs the command.
pub fn events(args: &EventsArgs, _global: &Global) -> Outcome {
    let store = store()?;
    let since = since(args.since.as_deref())?;
    let is_wanted = |record: &Record| {
        record.time_usec >= since.unwrap_or(0)
            && args.session.as_deref().is_none_or(|name| record.is_of(name))
            && (args.event.is_empty() || args.event.iter().any(|event| event == record.fact.name()))
    };
    let mut out = io::stdout().lock();
    let mut show = |text: &str| -> io::Result<()> {
        let Some(record) = Record::from_text(text) else {
            return Ok(());
        };
        if !is_wanted(&record) {
            return Ok(());
        }
        match args.json {
            true => writeln!(out, "{text}"),
            false => writeln!(out, "{}", line(&record)),
        }
    };
    // Begun before what is there is read, so that nothing falls between; what comes in meanwhile is met twice.
    let begun = now_usec();
    let tail = match args.follow {
        true => Some(Tail::begin(store.directory()).map_err(place)?),
        false => None,
    };
    let mut met = BTreeSet::new();
    // Whoever follows wants what comes; what was before is shown where it is asked for.
    if !args.follow || args.since.is_some() {
        let mut reader = store.read().map_err(place)?;
        while let Some(text) = reader.next_line() {
            show(&text)?;
            let time = Record::from_text(&text).map_or(0, |record| record.time_usec);
            if args.follow && time >= begun {
                met.insert(text);
            }
        }
    }
    let Some(mut tail) = tail else { return Ok(0) };
    loop {
        for text in tail.lines() {
            if !met.remove(&text) {
                show(&text)?;
            }
        }
        tail.wait(None);
    }
}
