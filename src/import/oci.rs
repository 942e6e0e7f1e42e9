//! A config.json of the OCI runtime specification: `linux.resources` and what is on the process.

use serde_json::Value as Json;

use super::Refused;
use super::draft::Draft;
use crate::limits::{KNOBS, KnobId, PERIOD_US, Part};
use crate::translate::weights;

/// Reads one.
pub(super) fn read(text: &str, draft: &mut Draft) -> Result<(), Refused> {
    let config: Json = serde_json::from_str(text).map_err(|error| {
        Refused::Because(
            format!("not JSON: {error}"),
            "name a config.json of the OCI runtime specification".to_owned(),
        )
    })?;
    if let Some(name) = config.get("hostname").and_then(Json::as_str) {
        draft.name(name);
    }
    let none = Json::Null;
    let resources = config.pointer("/linux/resources").unwrap_or(&none);
    let fields = resources.as_object().into_iter().flatten();
    for (table, value) in fields.filter(|(table, _)| !matches!(table.as_str(), "unified" | "devices")) {
        for (field, value) in value.as_object().into_iter().flatten() {
            let said = (table.as_str(), field.as_str());
            resource(said, value, resources, draft);
        }
    }
    // It goes before the fields that say the same.
    for (file, value) in resources
        .get("unified")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        unified(file, value, draft);
    }
    process(config.get("process").unwrap_or(&none), draft);
    if draft.has(KnobId::MemoryMax) && !draft.has(KnobId::MemorySwapMax) {
        draft.set(
            KnobId::MemorySwapMax,
            "max",
            "a runtime limits no swap unless it is told to",
        );
    }
    Ok(())
}

/// A field below linux.resources.
fn resource((table, field): (&str, &str), value: &Json, resources: &Json, draft: &mut Draft) {
    let from = format!("linux.resources.{table}.{field} = {value}");
    let beside = |field: &str| resources.get(table).and_then(|table| table.get(field));
    let limit = || match value.as_i64() {
        Some(-1) => "max".to_owned(),
        _ => value.to_string(),
    };
    let number = value.as_u64();
    match ((table, field), number) {
        (("memory", "limit"), _) => draft.set(KnobId::MemoryMax, &limit(), &from),
        (("memory", "swap"), _) => match (number, beside("limit").and_then(Json::as_u64)) {
            (None, _) => draft.set(KnobId::MemorySwapMax, &limit(), &from),
            (Some(total), Some(memory)) if total >= memory => {
                draft.set_bytes(
                    KnobId::MemorySwapMax,
                    total - memory,
                    &format!("{from}, memory included"),
                );
            }
            _ => draft.leave(
                &from,
                "it is memory and swap together, and says nothing without a limit on memory",
            ),
        },
        (("memory", "reservation"), _) => {
            let from = format!("{from}, which on cgroup v2 only protects so much");
            draft.set(KnobId::MemoryHigh, &limit(), &from);
        }
        (("cpu", "quota"), None) => draft.set(KnobId::Cpus, &limit(), &from),
        (("cpu", "quota"), Some(quota)) => {
            let period = beside("period").and_then(Json::as_u64).unwrap_or(PERIOD_US);
            set_quota(quota, period, &from, draft);
        }
        (("cpu", "period"), _) => {}
        (("cpu", "shares"), Some(shares)) => {
            let weight = weights::weight_of(shares).to_string();
            draft.set(
                KnobId::CpuWeight,
                &weight,
                &format!("{from}, as runc 1.3.2 and crun 1.23 have it"),
            );
        }
        (("pids", "limit"), _) => draft.set(KnobId::Pids, &limit(), &from),
        (("blockIO", "weight"), Some(weight)) => {
            let weight = weights::io_of(weight).to_string();
            draft.set(KnobId::IoWeight, &weight, &format!("{from}, as runc has it"));
        }
        _ => draft.leave(&from, "a role has no such limit"),
    }
}

/// CPU time in µs per period.
pub(super) fn set_quota(quota: u64, period: u64, from: &str, draft: &mut Draft) {
    let us = u128::from(quota) * u128::from(PERIOD_US) / u128::from(period.max(1));
    let text = format!("{}.{:05}", us / u128::from(PERIOD_US), us % u128::from(PERIOD_US));
    draft.set(KnobId::Cpus, &text, from);
}

/// A control file by its name.
fn unified(file: &str, value: &Json, draft: &mut Draft) {
    let text = value.as_str().unwrap_or_default();
    let from = format!("linux.resources.unified[{file:?}] = {value}");
    let mut knobs = KNOBS.iter().filter(|knob| knob.part == Part::Session);
    let knob = knobs.find(|knob| knob.file == Some(file));
    match knob.map(|knob| knob.id) {
        None => draft.leave(&from, "a role has no such limit for a session"),
        Some(KnobId::OomGroup) => draft.set(
            KnobId::OomGroup,
            if text == "1" { "true" } else { "false" },
            &from,
        ),
        Some(KnobId::Cpus) => match text.split_once(' ').unwrap_or((text, "100000")) {
            ("max", _) => draft.set(KnobId::Cpus, "max", &from),
            (quota, period) => match (quota.parse(), period.parse()) {
                (Ok(quota), Ok(period)) => set_quota(quota, period, &from, draft),
                _ => draft.leave(&from, "it is no quota and period in µs"),
            },
        },
        Some(id) => draft.set(id, text.strip_prefix("default ").unwrap_or(text), &from),
    }
}

/// What is on the process.
fn process(process: &Json, draft: &mut Draft) {
    if let Some(score) = process.get("oomScoreAdj") {
        draft.set(
            KnobId::OomScoreAdj,
            &score.to_string(),
            &format!("process.oomScoreAdj = {score}"),
        );
    }
    if let Some(nice) = process.pointer("/scheduler/nice") {
        draft.set(
            KnobId::Nice,
            &nice.to_string(),
            &format!("process.scheduler.nice = {nice}"),
        );
    }
    for limit in process
        .get("rlimits")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
    {
        let kind = limit.get("type").and_then(Json::as_str).unwrap_or_default();
        let (soft, hard) = (limit.get("soft"), limit.get("hard"));
        let from = format!("process.rlimits: {limit}");
        match (soft, hard) {
            (Some(soft), Some(hard)) if kind == "RLIMIT_NOFILE" && soft == hard => {
                draft.set(KnobId::Nofile, &soft.to_string(), &from);
            }
            _ if kind == "RLIMIT_NOFILE" => {
                draft.leave(&from, "a role has one number for the soft and the hard limit");
            }
            _ => draft.leave(&from, "a role has no such limit"),
        }
    }
}
