//! Compares what `explain` announced with what the kernel holds.

use serde_json::Value;

use crate::cgmgr::{Done, cgmgr};
use crate::lab::{MOUNT, read, workloads};

/// The knobs of `explain ROLE --json`.
#[track_caller]
pub fn knobs(role: &str) -> Vec<Value> {
    let done = cgmgr(&["explain", role, "--json"]).expect(0);
    done.json().as_array().expect("an array").clone()
}

/// A knob's object in a list of them.
#[track_caller]
pub fn knob<'a>(list: &'a [Value], name: &str) -> &'a Value {
    let found = list.iter().find(|k| k["knob"] == name);
    found.unwrap_or_else(|| panic!("no knob {name} in {list:#?}"))
}

/// Whether a knob is one of a session: its name has no table in front.
pub fn of_session(knob: &Value) -> bool {
    !knob["knob"].as_str().expect("a name").contains('.')
}

/// What is announced for a control file, rounded down to a page where it is a number of bytes.
pub fn rounded(file: &str, value: &str) -> String {
    match value.parse::<u64>() {
        Ok(bytes) if file.starts_with("memory.") && file != "memory.oom.group" => {
            (bytes - bytes % rustix::param::page_size() as u64).to_string()
        }
        _ => value.to_owned(),
    }
}

/// Compares the control files of a group with what is announced; returns how many were compared.
#[track_caller]
pub fn compare<'a>(group: &str, announced: impl IntoIterator<Item = &'a Value>, what: &str) -> usize {
    let mut compared = 0;
    for knob in announced {
        let (Some(file), Some(value)) = (knob["file"].as_str(), knob["value"].as_str()) else {
            continue;
        };
        let path = format!("{group}/{file}");
        let held = read(&path);
        // Per-device lines follow the default's.
        let held = held.lines().next().unwrap_or("");
        assert_eq!(held, rounded(file, value), "{what}: {} in {path}", knob["knob"]);
        compared += 1;
    }
    compared
}

/// Compares what the role itself announces for both slices; the rest is the installed unit's.
#[track_caller]
pub fn compare_slices(role: &str) {
    let announced = knobs(role);
    for (table, group) in [
        ("agent.", format!("{MOUNT}/agent.slice")),
        ("workloads.", workloads()),
    ] {
        let said = announced
            .iter()
            .filter(|k| k["knob"].as_str().expect("a name").starts_with(table) && k["origin"] == "role");
        compare(&group, said, role);
    }
}

/// A receipt's entry for a knob.
pub fn entry<'a>(receipt: &'a Value, knob: &str) -> Option<&'a Value> {
    receipt.as_array()?.iter().find(|entry| entry["knob"] == knob)
}

/// The steps of `plan ROLE --json`.
#[track_caller]
pub fn steps(done: &Done) -> Vec<Value> {
    done.json()["steps"].as_array().expect("steps").clone()
}
