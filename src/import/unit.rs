//! Units and drop-ins of systemd's, one or, with the comments of `systemctl cat` between them, several.
//!
//! Sources: systemd.syntax(7), systemd.resource-control(5), systemd.exec(5).

use super::draft::Draft;
use crate::limits::{KNOBS, Knob, KnobId, Part, Size};
use crate::role::Source;

/// Sections that tell a unit from TOML.
pub(super) const SECTIONS: [&str; 9] = [
    "Unit",
    "Service",
    "Slice",
    "Scope",
    "Socket",
    "Mount",
    "Swap",
    "Install",
    "Container",
];

/// What a property that is about limits begins with.
const ABOUT_LIMITS: [&str; 10] = [
    "Memory",
    "CPU",
    "IO",
    "Tasks",
    "Limit",
    "Startup",
    "Allowed",
    "BlockIO",
    "ManagedOOM",
    "DefaultMemory",
];

/// A property as it is written, and the unit and section that it is in.
struct Line {
    unit: String,
    section: String,
    key: String,
    value: String,
}

pub(super) fn read(source: &Source, draft: &mut Draft) {
    let path = source.path.to_string_lossy();
    let lines = lines(&path, &source.text);
    // What is put into agent.slice is the agent.
    let agents: Vec<&str> = lines
        .iter()
        .filter(|line| line.key == "Slice" && line.value == "agent.slice")
        .map(|line| line.unit.as_str())
        .collect();
    let sessions = lines
        .iter()
        .find(|line| line.section == "Service" && !agents.contains(&line.unit.as_str()));
    if let Some(line) = sessions {
        let name = line
            .unit
            .rsplit_once('.')
            .map_or(line.unit.as_str(), |(name, _)| name);
        draft.name(name);
    }
    for line in &lines {
        let part = match line.section.as_str() {
            "Slice" if line.unit == "agent.slice" => Part::Agent,
            "Slice" => Part::Workloads,
            _ if agents.contains(&line.unit.as_str()) => Part::Agent,
            _ => Part::Session,
        };
        property(line, part, draft);
    }
    if draft.has(KnobId::MemoryMax) && !draft.has(KnobId::MemorySwapMax) {
        draft.set(
            KnobId::MemorySwapMax,
            "max",
            "systemd limits no swap unless it is told to",
        );
    }
}

/// Takes one property over, or says why not.
fn property(line: &Line, part: Part, draft: &mut Draft) {
    let from = format!("{}={} of {}", line.key, line.value, line.unit);
    let mut knobs = KNOBS.iter().filter(|knob| knob.part == part);
    let Some(knob) = knobs.find(|knob| knob.systemd == Some(line.key.as_str())) else {
        if ABOUT_LIMITS.iter().any(|prefix| line.key.starts_with(prefix)) && !line.key.ends_with("Accounting")
        {
            draft.leave(&from, &format!("a role has no such limit for the {part}"));
        }
        return;
    };
    // An empty value takes back what was said before.
    if line.value.is_empty() {
        return draft.unset(knob.id);
    }
    match value(knob, &line.value) {
        Ok(text) => draft.set(knob.id, &text, &from),
        Err(why) => draft.leave(&from, why),
    }
}

/// systemd's value in the knob's own grammar.
fn value(knob: &Knob, text: &str) -> Result<String, &'static str> {
    Ok(match (knob.id, text) {
        (KnobId::OomGroup, "kill") => "true".into(),
        (KnobId::OomGroup, "continue") => "false".into(),
        (KnobId::OomGroup, _) => {
            return Err("to end the unit at the first OOM kill is not something that a session does");
        }
        (KnobId::Nofile, _) => {
            let (soft, hard) = text.split_once(':').unwrap_or((text, text));
            match (soft == hard, soft.parse()) {
                (true, Ok(Size::Bytes(files))) => files.to_string(),
                (true, _) => return Err("a number is needed"),
                (false, _) => return Err("a role has one number for the soft and the hard limit"),
            }
        }
        // With a sign it would be relative.
        (KnobId::Nice | KnobId::AgentNice, _) => text.strip_prefix('+').unwrap_or(text).into(),
        (_, "infinity") => "max".into(),
        _ => text.into(),
    })
}

/// The properties of all units in a text.
fn lines(path: &str, text: &str) -> Vec<Line> {
    let mut unit = unit_of(path);
    let mut section = String::new();
    let mut found = Vec::new();
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            let place = comment.trim();
            if place.starts_with('/') && !place.contains(' ') {
                unit = unit_of(place);
                section.clear();
            }
            continue;
        }
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let mut whole = line.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            let Some(next) = rest.next() else { break };
            // Comments in between are left out.
            match next.trim() {
                next if next.starts_with(['#', ';']) => whole.push('\\'),
                next => whole = format!("{} {next}", whole.trim_end()),
            }
        }
        if let Some((key, value)) = whole.split_once('=') {
            found.push(Line {
                unit: unit.clone(),
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            });
        }
    }
    found
}

/// The unit that a file is of: its name, or for a drop-in that of its directory.
fn unit_of(path: &str) -> String {
    let mut names = path.rsplit('/');
    let file = names.next().unwrap_or_default();
    match names.next().and_then(|folder| folder.strip_suffix(".d")) {
        Some(unit) if file.ends_with(".conf") => unit.to_owned(),
        _ => file.to_owned(),
    }
}
