//! The JSON Schema (draft 2020-12) of role files: what an editor completes, explains and underlines.
//!
//! It is made from the knob table and not by a derive (schemars), since no type is deserialised from a role file: its
//! keys are looked up in that table one by one, so that every mistake is told at once and with its place.
//!
//! Whatever [`resolve()`](super::resolve()) takes, the schema takes. The other way round it goes as far as a pattern can: that
//! a memory limit in words is at least 1 MiB, that `memory_high` is not above `memory_max` and that `$VAR` is set, only
//! `cgmgr check` knows. It is of the form that is cgmgr's own: a file of multicode's has an `[agent]` of another kind.

use serde_json::{Map, Value, json};

use super::name::NAME_MAX;
use crate::limits::{Admission, KNOBS, Kind, Knob, KnobId, Scalar, StallAction};

/// Blanks are allowed around a value and before its unit.
const BLANKS: &str = r"[ \t]*";
/// Any number; no more digits after the point than are read.
const NUMBER: &str = r"[0-9]+(?:\.[0-9]{1,22}0*)?";
/// Any number but 0.
const POSITIVE: &str = r"(?:0*[1-9][0-9]*(?:\.[0-9]{1,22}0*)?|0+\.[0-9]{0,21}[1-9]0*)";
/// 0 to 100.
const SHARE: &str = r"0*(?:100(?:\.0+)?|[0-9]{1,2}(?:\.[0-9]{1,9}0*)?)";
/// The same without 0.
const POSITIVE_SHARE: &str = r"(?:0*(?:100(?:\.0+)?|[1-9][0-9]?(?:\.[0-9]{1,9}0*)?)|0+\.[0-9]{0,8}[1-9]0*)";
/// Of an amount of memory.
const UNIT: &str = r"(?:[KMGTPkmgtp](?:[Ii][Bb]?|[Bb])?|[Bb])?";
const NO_LIMIT: &str = "[Mm][Aa][Xx]";
/// Where a whole number is meant, `5.0` is one.
const WHOLE: &str = r"(?:\.0+)?";
/// A value with a variable in it can be anything: `$VAR` is put in before it is read.
const VARIABLE: &str = r"\$";

/// The schema.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cgmgr role",
        "description": "What one kind of session may use. A knob that is absent limits nothing. Other programs' tables may be in the same file.",
        "type": "object",
        "properties": {
            "version": {
                "description": "The version of the format.",
                "type": "string",
                "pattern": "^v1(?:alpha[0-9]+)?$",
                "examples": ["v1"],
            },
            "role": {
                "description": "The role itself.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "name": {
                        "description": "Sessions and their groups are named after it; without it, after the file.",
                        "type": "string",
                        "pattern": format!("^[A-Za-z0-9:_][A-Za-z0-9:_.-]{{0,{}}}$|{VARIABLE}", NAME_MAX - 1),
                    },
                    "extends": {
                        "description": "A role file to take over, as a path relative to this one; what is said here goes before it.",
                        "type": "string",
                        "minLength": 1,
                    },
                },
            },
            "runtime": {
                "description": "Limits of each session are in its table `limits`.",
                "type": "object",
                "properties": { "limits": limits() },
            },
            "agent": table("agent", "What must survive: agent.slice."),
            "workloads": table("workloads", "All sessions together: workloads.slice."),
        },
    })
}

fn limits() -> Value {
    let mut limits = table("runtime.limits", "Limits of each session.");
    limits["properties"]["oom"] = table(
        "runtime.limits.oom",
        "What happens when a session runs out of memory.",
    );
    limits
}

/// A table of knobs, in which every other key is a mistake.
fn table(path: &str, description: &str) -> Value {
    let knobs = KNOBS.iter().filter(|knob| knob.table() == path);
    let mut properties = Map::new();
    for knob in knobs {
        properties.insert(knob.name().into(), property(knob));
    }
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(knob: &Knob) -> Value {
    let (values, examples) = values(knob.kind);
    let mut property = json!({ "description": description(knob), "anyOf": values, "examples": examples });
    if let Some(default) = default(knob) {
        property["default"] = default;
    }
    property
}

fn description(knob: &Knob) -> String {
    let mut text = knob.doc.to_owned();
    let places: Vec<String> = [
        knob.file.map(|file| format!("kernel file {file}")),
        knob.systemd.map(|property| format!("systemd {property}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !places.is_empty() {
        text.push_str(&format!(" ({})", places.join(", ")));
    }
    if !knob.in_this_version {
        text.push_str(" It is read and checked; nothing enforces it in this version.");
    }
    text
}

/// What an absent knob amounts to, where that is a value that could be written.
fn default(knob: &Knob) -> Option<Value> {
    // Without it there is no swap beside a memory_max and no limit otherwise.
    if knob.id == KnobId::MemorySwapMax || knob.declare(Scalar::Text(knob.absent)).is_err() {
        return None;
    }
    // As it would be written: true, 100, "max".
    Some(serde_json::from_str(knob.absent).unwrap_or_else(|_| knob.absent.into()))
}

/// The values that a kind of knob takes, and examples of them.
fn values(kind: Kind) -> (Value, Value) {
    let integer = |least: i64, most: i64| json!({ "type": "integer", "minimum": least, "maximum": most });
    match kind {
        Kind::MemoryLimit => (
            json!([
                integer(1 << 20, i64::MAX),
                text(&[
                    NO_LIMIT.into(),
                    amount(POSITIVE, UNIT),
                    amount(POSITIVE_SHARE, "%")
                ]),
            ]),
            json!(["16 GiB", "80%", "max"]),
        ),
        Kind::Swap => (
            json!([
                integer(0, i64::MAX),
                text(&[NO_LIMIT.into(), amount(NUMBER, UNIT), amount(SHARE, "%")]),
            ]),
            json!(["0", "2 GiB", "max"]),
        ),
        Kind::Protection => (
            json!([
                integer(0, i64::MAX),
                text(&[amount(NUMBER, UNIT), amount(SHARE, "%")]),
            ]),
            json!(["256 MiB", "5%"]),
        ),
        Kind::Cpu => (
            json!([
                { "type": "number", "minimum": 0.01, "maximum": 175_921_860.444_1 },
                text(&[
                    NO_LIMIT.into(),
                    r"0*[1-9][0-9]*(?:\.[0-9]{1,4}0*)?".into(),
                    r"0+\.(?:[1-9][0-9]{0,3}|0[1-9][0-9]{0,2})0*".into(),
                    amount(r"0*[1-9][0-9]*(?:\.[0-9]{1,2}0*)?", "%"),
                ]),
            ]),
            json!([1.5, "150%", "max"]),
        ),
        Kind::Weight => (
            json!([
                integer(1, 10_000),
                text(&[format!(r"\+?{BLANKS}0*(?:10000|[1-9][0-9]{{0,3}}){WHOLE}")]),
            ]),
            json!([100]),
        ),
        Kind::Count {
            least,
            most,
            max,
            percent,
            ..
        } => {
            let digits = most.to_string().len() - 1;
            let mut words = vec![format!(r"\+?{BLANKS}0*[1-9][0-9]{{0,{digits}}}{WHOLE}")];
            words.extend(max.then(|| NO_LIMIT.into()));
            words.extend(percent.then(|| amount(POSITIVE_SHARE, "%")));
            let values = json!([
                { "type": "integer", "minimum": least, "maximum": most },
                text(&words),
            ]);
            let example = if percent { json!("80%") } else { json!(4096) };
            (values, json!([example]))
        }
        Kind::Switch => (
            json!([
                { "type": "boolean" },
                { "type": "string", "pattern": format!("^(?:true|false)$|{VARIABLE}") },
            ]),
            json!([true, false]),
        ),
        Kind::Nice { relative } => {
            let mut words = vec![format!("0*1?[0-9]{WHOLE}")];
            words.extend(relative.then(|| format!("[+-]{BLANKS}0*[1-3]?[0-9]{WHOLE}")));
            let examples = if relative { json!(["+5", 10]) } else { json!([0]) };
            (json!([integer(-20, 19), text(&words)]), examples)
        }
        Kind::OomScoreAdj => (
            json!([
                integer(-1000, 1000),
                text(&[format!("[+-]?{BLANKS}0*(?:1000|[0-9]{{1,3}}){WHOLE}")]),
            ]),
            json!([998]),
        ),
        Kind::Admission => one_of(&Admission::ALL.map(Admission::word)),
        Kind::Stall => one_of(&StallAction::ALL.map(StallAction::word)),
    }
}

fn one_of(words: &[&str]) -> (Value, Value) {
    let pattern = format!("^(?:{})$|{VARIABLE}", words.join("|"));
    (json!([{ "type": "string", "pattern": pattern }]), json!(words))
}

fn amount(number: &str, unit: &str) -> String {
    format!("{number}{BLANKS}{unit}")
}

/// A string that is one of these forms, or has a variable in it.
fn text(forms: &[String]) -> Value {
    let pattern = format!("^{BLANKS}(?:{}){BLANKS}$|{VARIABLE}", forms.join("|"));
    json!({ "type": "string", "pattern": pattern })
}
