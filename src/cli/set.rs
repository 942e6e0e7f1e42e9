//! `cgmgr set`: change the limits of a session while it runs.
//!
//! What is set counts as a flag of the launch from then on: a later `apply` of the session's role keeps it.

use super::apply::{print_plan, refused};
use super::args::{Global, SetArgs};
use super::context::{self, CommandError, Outcome, print_json, say_error, warn_notice};
use super::look::look;
use super::roles;
use crate::kernel::disks;
use crate::limits::KnobId;
use crate::plan::Plan;
use crate::session::relimit::{Changed, Cut, How};
use crate::text::count;
use crate::workspace::Error;
use crate::workspace::change::{self, Change, Target, held};
use serde_json::json;
use std::io::{self, Write};

/// Runs the command.
pub fn set(args: &SetArgs, global: &Global) -> Outcome {
    let mut look = look(global)?;
    look.host.disks = Some(disks::disks(&look.host.hierarchy));
    let machine = &look.host.machine;
    let words = args.knobs.iter().map(|word| word.to_string_lossy());
    let asked = change::all(words.map(|word| change::read(&word, machine))).map_err(all_but_the_last_said)?;
    let policy = roles::policy(machine, global)?;
    let change = Change::of(&look, &args.session, asked, policy.as_ref(), args.force)?;
    let Change { target, plan, .. } = &change;
    let tree = look.tree.as_ref().ok_or_else(|| target.gone())?;
    if args.json && (args.dry_run || !plan.refusals.is_empty()) {
        let mut value = plan.to_json(tree.mount());
        value["session"] = json!(target.name.as_str());
        value["changed"] = json!(0);
        print_json(&value)?;
    }
    if args.dry_run {
        if !args.json {
            print_plan(plan, tree.mount())?;
        }
        return Ok(u8::from(!plan.refusals.is_empty()));
    }
    if !plan.refusals.is_empty() {
        return Err(refused(plan));
    }
    if !args.json {
        plan.warnings.iter().for_each(warn_notice);
    }
    let how = How {
        force: args.force,
        timeout: args.timeout,
    };
    let changed = change.carry_out(&look, how)?;
    if args.json {
        print_json(&to_json(target, plan, &changed))?;
    } else {
        print(target, &changed)?;
    }
    let mut warnings = Vec::new();
    let concluded = change::conclude(&target.name, &changed, how, &mut warnings);
    warnings.iter().for_each(context::warn);
    concluded?;
    Ok(0)
}

/// Shows all mistakes but the last, which is the command's error.
fn all_but_the_last_said(mistakes: Error) -> CommandError {
    let mut all = vec![Error {
        others: Vec::new(),
        ..mistakes.clone()
    }];
    all.extend(mistakes.others);
    let mut all: Vec<CommandError> = all.into_iter().map(CommandError::from).collect();
    let last = all.pop();
    all.iter().for_each(say_error);
    last.unwrap_or_else(|| CommandError::usage("nothing to set", "e.g. memory_max=8GiB"))
}

fn before(changed: &Changed, knob: KnobId) -> Option<&str> {
    let found = changed.before.iter().find(|(id, _)| *id == knob);
    found.map(|(_, before)| before.as_str())
}

fn print(target: &Target, changed: &Changed) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    if changed.ended {
        return Ok(());
    }
    let in_force = changed.before.iter().filter(|(knob, _)| held(changed, *knob));
    match in_force.count() as u64 {
        0 => writeln!(out, "{}: nothing changed", target.name)?,
        n => writeln!(out, "{}: {} changed", target.name, count(n, "limit", "limits"))?,
    }
    for entry in &changed.receipt.entries {
        let was = before(changed, entry.knob).map_or(String::new(), |was| format!("  (was {was})"));
        writeln!(out, "  {entry}{was}")?;
    }
    Ok(())
}

fn to_json(target: &Target, plan: &Plan, changed: &Changed) -> serde_json::Value {
    let receipt: Vec<_> = changed
        .receipt
        .entries
        .iter()
        .map(|entry| {
            let mut json = entry.to_json();
            json["before"] = json!(before(changed, entry.knob));
            json
        })
        .collect();
    json!({
        "session": target.name.as_str(),
        "group": target.path.as_str(),
        "changed": changed.before.iter().filter(|(knob, _)| held(changed, *knob)).count(),
        "receipt": receipt,
        "timed_out": matches!(changed.cut, Some(Cut::Reclaim | Cut::Write(_))),
        "oom_kills": changed.kills,
        "memory_current": changed.current,
        "warnings": plan.warnings,
        "ended": changed.ended,
        "unrecorded": changed.unrecorded,
    })
}
