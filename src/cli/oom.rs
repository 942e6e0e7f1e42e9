//! `cgmgr oom`: which sessions had OOM kills; and of one of them the whole story.

use super::args::{Global, OomArgs};
use super::context::{CommandError, Outcome, print_json};
use super::records::{place, since, store};
use super::run::session_name;
use crate::order;
use crate::record::Record;
use crate::record::case::{Case, Cases};
use crate::store::Store;
use serde_json::{Value as Json, json};
use std::io::{self, Write};

/// Runs the command.
pub fn oom(args: &OomArgs, _global: &Global) -> Outcome {
    let store = store()?;
    let since = since(args.since.as_deref())?.unwrap_or(0);
    let cases = cases(&store)?;
    match &args.session {
        Some(name) => tell(args, &session_name(name)?.to_string(), cases),
        None => list(
            args,
            cases.into_iter().filter(|case| case.last_usec >= since).collect(),
            &store,
        ),
    }
}

fn cases(store: &Store) -> Result<Vec<Case>, CommandError> {
    let mut cases = Cases::default();
    // What is kept may be older than all other records.
    let kept = store.kept();
    let mut old: Vec<Record> = kept
        .names()
        .map_err(place)?
        .iter()
        .filter_map(|name| kept.get(name))
        .collect();
    order::sort_by_key(&mut old, |record| record.time_usec);
    old.iter().for_each(|record| cases.add(record));
    store.read().map_err(place)?.for_each(|record| cases.add(&record));
    let mut cases = cases.finish();
    order::sort_by_key(&mut cases, |case| case.first_usec);
    Ok(cases)
}

fn list(args: &OomArgs, cases: Vec<Case>, store: &Store) -> Outcome {
    let kept = store.kept().names().map_err(place)?;
    let is_kept = |case: &Case| kept.iter().any(|name| name.as_str() == case.session);
    if args.json {
        let all: Vec<Json> = cases
            .iter()
            .map(|case| json!({ "case": case, "advice": case.advice(), "kept": is_kept(case) }))
            .collect();
        print_json(&json!({ "cases": all }))?;
        return Ok(0);
    }
    let mut out = io::stdout().lock();
    if cases.is_empty() {
        writeln!(out, "no OOM kill is on record")?;
    }
    for case in &cases {
        let kept = if is_kept(case) { "; kept" } else { "" };
        writeln!(out, "{}{kept}", case.line())?;
    }
    Ok(0)
}

fn tell(args: &OomArgs, name: &str, cases: Vec<Case>) -> Outcome {
    let Some(case) = cases.into_iter().rfind(|case| case.session == name) else {
        return Err(CommandError::failed(
            format!("no OOM kill of a session {name} is on record"),
            "`cgmgr oom` lists those that are; `cgmgr history` shows how sessions ended",
        ));
    };
    if args.json {
        print_json(&json!({ "case": case, "advice": case.advice(), "story": case.story() }))?;
        return Ok(0);
    }
    let mut out = io::stdout().lock();
    for line in case.story() {
        writeln!(out, "{line}")?;
    }
    Ok(0)
}
