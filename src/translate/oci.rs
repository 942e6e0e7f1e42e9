//! The config.json of an OCI runtime (runc, crun): `linux.resources`, with `unified` for what only cgroup v2 has, and what is
//! on the process. Alone it is a fragment; with a whole config.json it is put into that.
//!
//! Not by the types of the crate oci-spec: what they do not know of a config.json that is merged (annotations of a runtime's own,
//! fields of a newer version) would be lost on the way through them. The tests read what is written with that crate.
//!
//! Source: the OCI runtime specification, config.md and config-linux.md.

use serde_json::{Map, Value as Json, json};

use super::docker::together;
use super::podman::OLD_CRUN;
use super::sheet::Sheet;
use crate::limits::{Engine, KnobId, Max, PERIOD_US};

/// What says the same as a field of ours in other words, by the field. It goes, since a runtime would take one of the two.
const SAID_OTHERWISE: [(&str, &str, &str); 8] = [
    ("memory", "limit", "memory.max"),
    ("memory", "swap", "memory.swap.max"),
    ("cpu", "quota", "cpu.max"),
    ("pids", "limit", "pids.max"),
    ("cpu", "shares", "cpu.weight"),
    ("cpu", "idle", "cpu.weight"),
    ("blockIO", "weight", "io.weight"),
    ("blockIO", "weight", "io.bfq.weight"),
];

/// Where swap is limited without memory.
const SWAP_ALONE: &str = "linux.resources.unified[\"memory.swap.max\"]";

/// The fragment, or the whole of `merge` with it.
pub(super) fn config(sheet: &mut Sheet<'_>, merge: Option<Json>) -> Result<Json, String> {
    let mut config = match merge {
        None => json!({}),
        Some(config) if config.is_object() => config,
        Some(_) => return Err("it is no JSON object".to_owned()),
    };
    let mut said = Vec::new();
    let mut put = |id: KnobId, value: Json| said.push((id.knob().at(Engine::Oci).unwrap_or_default(), value));
    let memory = sheet.memory(KnobId::MemoryMax);
    if let Some(max) = memory {
        put(KnobId::MemoryMax, or_none(max));
    }
    let swap = sheet.memory(KnobId::MemorySwapMax);
    let mut alone = None;
    match (memory.and_then(Max::at), swap) {
        (Some(memory), Some(swap)) => {
            let total = together(sheet, memory, swap).parse::<i64>().unwrap_or(-1);
            put(KnobId::MemorySwapMax, total.into());
        }
        // Without a limit on memory the two together are none.
        (None, Some(swap)) => alone = Some(swap.to_string()),
        _ => {}
    }
    match sheet.setting(KnobId::Cpus).value {
        None => {}
        Some(_) => {
            let quota = sheet
                .quota(KnobId::Cpus)
                .map_or(-1, |quota| quota.quota_us() as i64);
            put(KnobId::Cpus, quota.into());
        }
    }
    if let Some(pids) = sheet.count(KnobId::Pids) {
        put(KnobId::Pids, or_none(pids));
    }
    for id in [
        KnobId::MemoryHigh,
        KnobId::CpuWeight,
        KnobId::IoWeight,
        KnobId::OomGroup,
    ] {
        let setting = sheet.setting(id);
        if let Some(value) = &setting.value {
            let text = value.kernel_text(setting.knob);
            put(id, text.strip_prefix("default ").unwrap_or(&text).into());
        }
    }
    if let Some(score) = sheet.score() {
        put(KnobId::OomScoreAdj, score.into());
    }
    if let Some(nice) = sheet.nice() {
        put(KnobId::Nice, nice.into());
        sheet.note(
            "process.scheduler, which has the nice value, is read by runc from 1.2 and crun from 1.9 on",
        );
    }
    let is_declared = |id: KnobId| sheet.setting(id).value.is_some();
    if is_declared(KnobId::Pids) || is_declared(KnobId::IoWeight) {
        sheet.note(&format!(
            "where systemd makes the group (--systemd-cgroup): {OLD_CRUN}"
        ));
    }
    if let Some(swap) = alone {
        said.push((SWAP_ALONE, swap.into()));
    }
    for (path, value) in said {
        set(&mut config, path, value)?;
    }
    if let Some(Max::At(files)) = sheet.count(KnobId::Nofile) {
        rlimit(&mut config, files)?;
    }
    Ok(config)
}

fn or_none(limit: Max<u64>) -> Json {
    limit
        .at()
        .and_then(|limit| i64::try_from(limit).ok())
        .unwrap_or(-1)
        .into()
}

/// Sets a field by the table's name of it: `linux.resources.pids.limit`, `linux.resources.unified["memory.high"]`.
fn set(config: &mut Json, path: &str, value: Json) -> Result<(), String> {
    let (tables, key) = match path.split_once("[\"") {
        Some((tables, key)) => (tables, key.trim_end_matches("\"]")),
        None => path.rsplit_once('.').unwrap_or_default(),
    };
    let names: Vec<&str> = tables.split('.').collect();
    let table = table(config, &names)?;
    table.insert(key.to_owned(), value);
    match path {
        "linux.resources.cpu.quota" => {
            table.insert("period".into(), PERIOD_US.into());
        }
        // It comes with a policy, and what was there may be one without nice values.
        "process.scheduler.nice" => {
            table.insert("policy".into(), "SCHED_OTHER".into());
        }
        _ => {}
    }
    if names.first() == Some(&"linux") {
        let resources = self::table(config, &["linux", "resources"])?;
        say_once(resources, names.last().copied().unwrap_or_default(), key);
    }
    Ok(())
}

/// Takes away what says the same in other words.
fn say_once(resources: &mut Map<String, Json>, table: &str, key: &str) {
    for (old, field, file) in SAID_OTHERWISE {
        let gone = match table {
            "unified" if key == file => (old, field),
            _ if table == old && key == field => ("unified", file),
            _ => continue,
        };
        if let Some(fields) = resources.get_mut(gone.0).and_then(Json::as_object_mut) {
            take(fields, gone.1);
            if fields.is_empty() {
                take(resources, gone.0);
            }
        }
    }
}

/// Takes a field away. (The map's own way puts its tree in balance again, which is much code for a few fields.)
fn take(fields: &mut Map<String, Json>, name: &str) {
    if fields.contains_key(name) {
        for (field, value) in std::mem::take(fields) {
            if field != name {
                fields.insert(field, value);
            }
        }
    }
}

/// The table at this path, made where it is missing. An error names what is there and is none.
fn table<'c>(config: &'c mut Json, path: &[&str]) -> Result<&'c mut Map<String, Json>, String> {
    let mut at = config;
    for (depth, name) in path.iter().enumerate() {
        let Some(here) = at.as_object_mut() else {
            return Err(format!("{} in it is no table", path[..depth].join(".")));
        };
        at = here.entry(*name).or_insert(Json::Null);
        if at.is_null() {
            *at = json!({});
        }
    }
    at.as_object_mut()
        .ok_or_else(|| format!("{} in it is no table", path.join(".")))
}

/// The one limit of open files.
fn rlimit(config: &mut Json, files: u64) -> Result<(), String> {
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": files, "hard": files });
    let limits = table(config, &["process"])?
        .entry("rlimits")
        .or_insert(Json::Null);
    if limits.is_null() {
        *limits = json!([]);
    }
    let Some(limits) = limits.as_array_mut() else {
        return Err("process.rlimits in it is no list".to_owned());
    };
    limits.retain(|limit| limit.get("type").and_then(Json::as_str) != Some("RLIMIT_NOFILE"));
    limits.push(limit);
    Ok(())
}
