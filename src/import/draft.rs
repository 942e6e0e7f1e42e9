//! The role file that is being made.

use std::path::Path;

use super::Left;
use crate::limits::{Bytes, Declared, KNOBS, KnobId, Max, Nice, Scalar, Size, Value};
use crate::role::check_name;
use crate::text::escape;

/// Comments begin in this column, where the value leaves room.
const COLUMN: usize = 32;

/// Limits as a role file has them, and what has no place in it.
pub(super) struct Draft {
    file: String,
    name: Option<String>,
    /// What each knob says, in TOML, and where that is from; in the order of the table.
    limits: Vec<Option<(String, String)>>,
    left: Vec<Left>,
}

impl Draft {
    pub(super) fn new(path: &Path) -> Draft {
        Draft {
            file: escape(&path.to_string_lossy()),
            name: None,
            limits: KNOBS.iter().map(|_| None).collect(),
            left: Vec::new(),
        }
    }

    /// What the role is called, as far as a role can be.
    pub(super) fn name(&mut self, name: &str) {
        let plain = |c: char| match c {
            c if c.is_ascii_alphanumeric() || "_.:".contains(c) => c,
            _ => '-',
        };
        let name: String = name.chars().map(plain).collect();
        let name = name.trim_start_matches(['-', '.']);
        if check_name(name).is_ok() {
            self.name = Some(name.to_owned());
        }
    }

    /// A limit in the knob's own grammar. `from` is where it was, and what it said.
    pub(super) fn set(&mut self, id: KnobId, text: &str, from: &str) {
        match id.knob().declare(Scalar::Text(text)) {
            Ok(declared) => {
                let value = toml_of(&declared, text);
                self.limits[id as usize] = Some((value, from.to_owned()));
            }
            Err(error) => self.leave(
                from,
                &format!("{} = {text:?}: {error}; {}", id.knob().key, error.help()),
            ),
        }
    }

    /// A value.
    pub(super) fn set_value(&mut self, id: KnobId, value: &Value, from: &str) {
        let text = match value {
            Value::Memory(Max::At(bytes)) => size(*bytes),
            Value::Memory(_) | Value::Cpu(Max::Max) | Value::Count(Max::Max) => "\"max\"".to_owned(),
            Value::Cpu(Max::At(quota)) => quota.to_string(),
            Value::Nice(Nice::Relative(by)) => format!("\"{by:+}\""),
            Value::Admission(word) => format!("\"{word}\""),
            Value::Nice(Nice::Absolute(nice)) => nice.to_string(),
            other => other.human(),
        };
        self.limits[id as usize] = Some((text, from.to_owned()));
    }

    /// Memory in bytes.
    pub(super) fn set_bytes(&mut self, id: KnobId, bytes: u64, from: &str) {
        self.set(id, &bytes.to_string(), from);
    }

    /// Whether something is said of this knob.
    pub(super) fn has(&self, id: KnobId) -> bool {
        self.limits[id as usize].is_some()
    }

    /// Takes a limit back.
    pub(super) fn unset(&mut self, id: KnobId) {
        self.limits[id as usize] = None;
    }

    /// Something that is not taken over.
    pub(super) fn leave(&mut self, what: &str, why: &str) {
        self.left.push(Left {
            what: escape(what),
            why: escape(why),
        });
    }

    /// The text, how many limits are in it, and what is not.
    pub(super) fn finish(self) -> (String, usize, Vec<Left>) {
        let mut text = format!("# Imported by cgmgr from {}.\nversion = \"v1\"\n", self.file);
        if let Some(name) = &self.name {
            text.push_str(&format!("\n[role]\nname = \"{name}\"\n"));
        }
        let mut table = "";
        for knob in KNOBS {
            let Some((value, from)) = &self.limits[knob.id as usize] else {
                continue;
            };
            if knob.table() != table {
                table = knob.table();
                text.push_str(&format!("\n[{table}]\n"));
            }
            let mut line = format!("{} = {value}", knob.name());
            while line.len() < COLUMN {
                line.push(' ');
            }
            text.push_str(&format!("{line} # {}\n", escape(from)));
        }
        if !self.left.is_empty() {
            text.push_str("\n# Not taken over:\n");
        }
        for left in &self.left {
            text.push_str(&format!("#   {}: {}\n", left.what, left.why));
        }
        (text, self.limits.iter().flatten().count(), self.left)
    }
}

/// As a role file has it. A percentage stays as it was written.
fn toml_of(declared: &Declared, text: &str) -> String {
    let quoted = || format!("\"{}\"", text.trim());
    match declared {
        Declared::Size(Size::Bytes(bytes)) => size(*bytes),
        Declared::Cpu(Max::At(quota)) => quota.to_string(),
        Declared::Weight(weight) => weight.to_string(),
        Declared::Switch(on) => on.to_string(),
        Declared::Nice(Nice::Absolute(nice)) => nice.to_string(),
        Declared::OomScoreAdj(score) => score.to_string(),
        _ if text.parse::<i64>().is_ok_and(|number| number.to_string() == text) => text.to_owned(),
        _ => quoted(),
    }
}

/// In the largest unit in which it is a short whole number.
fn size(bytes: Bytes) -> String {
    const UNITS: [(&str, u64); 7] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
    ];
    let fits =
        |(_, unit): &&(&str, u64)| bytes.0 != 0 && bytes.0.is_multiple_of(*unit) && bytes.0 / unit < 10_000;
    match UNITS.iter().find(fits) {
        Some((name, unit)) => format!("\"{} {name}\"", bytes.0 / unit),
        None => bytes.0.to_string(),
    }
}
