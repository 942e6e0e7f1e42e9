//! What of `[agent]` is in force where an agent is now: read from the kernel, whoever wrote it.

use super::way::Way;
use super::{Protection, Request};
use crate::host::{Base, Host, NoBase};
use crate::kernel::{KernelError, Tree, disks};
use crate::limits::{KnobId, Part, Setting};
use crate::path::GroupPath;
use crate::plan::receipt::{Outcome, of_read_back};
use crate::session::place::Place;
use std::borrow::Cow;

/// Notes the outcome of each setting that has a control file, and what else is to be known of the protection.
pub(super) fn look(request: &Request<'_>, place: &Place, way: &Way, done: &mut Protection) {
    let settings: Vec<&Setting> = request
        .settings
        .part(Part::Agent)
        .filter(|s| s.knob.file.is_some())
        .collect();
    let (Some((tree, base)), false) = (place.base(), *way == Way::Nowhere) else {
        nowhere(&settings, place.host.base.as_ref().err(), done);
        return;
    };
    let host = with_disks(&place.host, request);
    for setting in &settings {
        let outcome = outcome(setting, tree, base, &host).unwrap_or_else(|error| Outcome::NotEnforced {
            why: error.to_string(),
        });
        done.receipt.note(setting, outcome);
    }
    protected_at_all(tree, base, done);
    for id in [KnobId::AgentMemoryMin, KnobId::AgentMemoryLow] {
        let_through(request.settings.get(id), tree, base, done);
    }
}

fn nowhere(settings: &[&Setting], none: Option<&NoBase>, done: &mut Protection) {
    let why = none.map_or("the process backend has no cgroup", |none| &none.why);
    for setting in settings {
        done.receipt
            .note(setting, Outcome::NotEnforced { why: why.into() });
    }
    let shields = [KnobId::AgentMemoryMin, KnobId::AgentMemoryLow];
    if done
        .receipt
        .entries
        .iter()
        .any(|entry| shields.contains(&entry.knob))
    {
        return;
    }
    let remedy = none.map_or("", |none| &none.fix);
    done.notes.push(format!(
        "no memory is protected: {why}{}{remedy}",
        if remedy.is_empty() { "" } else { "; " }
    ));
}

/// The host, with its disks where a weight of I/O makes them matter.
fn with_disks<'a>(host: &'a Host, request: &Request<'_>) -> Cow<'a, Host> {
    let asks = request.settings.get(KnobId::AgentIoWeight).value.is_some();
    if !asks || host.disks.is_some() {
        return Cow::Borrowed(host);
    }
    Cow::Owned(Host {
        disks: Some(disks::disks(&host.hierarchy)),
        ..host.clone()
    })
}

fn outcome(setting: &Setting, tree: &Tree, base: &Base, host: &Host) -> Result<Outcome, KernelError> {
    let (file, wanted) = (
        setting.knob.file.unwrap_or_default(),
        setting.text().unwrap_or_default(),
    );
    let found = match tree.find(&base.agent)? {
        Some(agent) => agent.get(file)?,
        None => None,
    };
    let Some(found) = found else {
        return Ok(Outcome::NotEnforced {
            why: format!("{} has no {file}", base.agent),
        });
    };
    let found = found.lines().next().unwrap_or_default();
    let foretold = match host.io_weight_idle() {
        Some(why) if file == "io.weight" => Outcome::Idle { why },
        _ => Outcome::Enforced,
    };
    let outcome = of_read_back(setting, &foretold, &wanted, found, host.machine.page_size);
    Ok(match outcome {
        Outcome::NotEnforced { .. } => Outcome::NotEnforced {
            why: format!("it is {found}, and only `cgmgr apply` changes what is there"),
        },
        other => other,
    })
}

/// An agent without any protected memory is told so, whatever was declared.
fn protected_at_all(tree: &Tree, base: &Base, done: &mut Protection) {
    let any = |group: &GroupPath| {
        ["memory.min", "memory.low"]
            .iter()
            .any(|file| bytes(tree, group, file) > Some(0))
    };
    let own = done.group.as_ref().is_some_and(any);
    if !own && !any(&base.agent) {
        done.notes.push(format!(
            "no memory is protected: {} has neither memory_min nor memory_low (`cgmgr apply` with a role whose [agent] has them)",
            base.agent
        ));
    }
}

/// A group protects no more than each of those above it does, as far as they have limits at all (cgroup-v2.rst, "memory.min").
fn let_through(setting: &Setting, tree: &Tree, base: &Base, done: &mut Protection) {
    let file = setting.knob.file.unwrap_or_default();
    let Some(own) = bytes(tree, &base.agent, file).filter(|own| *own > 0) else {
        return;
    };
    let above = base.agent.ancestors().skip(1);
    let least = above
        .filter_map(|group| Some((bytes(tree, &group, file)?, group)))
        .min_by_key(|(bytes, _)| *bytes);
    if let Some((bytes, group)) = least.filter(|(bytes, _)| *bytes < own) {
        done.notes.push(format!(
            "of the {} of {} at most {} are protected from what is outside of {group}: its {file} is {}",
            crate::text::bytes(own),
            setting.knob.key,
            crate::text::bytes(bytes),
            crate::text::bytes(bytes)
        ));
    }
}

fn bytes(tree: &Tree, group: &GroupPath, file: &str) -> Option<u64> {
    let text = tree.find(group).ok()??.get(file).ok()??;
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}
