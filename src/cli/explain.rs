//! `cgmgr explain`: for every knob its value, where that came from, where it will be written, and what this host will
//! do with it. Changes nothing.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::check::{Context, show};
use crate::files;
use crate::limits::{Origin, Part, Setting};
use crate::role::{Dialect, Overrides, Role};
use crate::text::escape;

/// The width that the table is made for, in characters.
const WIDTH: usize = 100;

#[derive(Serialize)]
struct Row {
    knob: &'static str,
    value: Option<String>,
    human: String,
    origin: &'static str,
    source: Option<String>,
    dialect: Option<&'static str>,
    file: Option<&'static str>,
    systemd_property: Option<&'static str>,
    effect: String,
    note: Option<String>,
}

/// Explains a role file, with flags over it. `effect` says what this host will do with a setting. Returns the exit
/// status as [`check`](super::check::check) has it. Names the form of each file that is not cgmgr's own. With `json`, an array with one object for each knob, declared or
/// not, on `out`; mistakes go to `err` in any case.
pub fn explain(
    path: &Path,
    overrides: &Overrides,
    json: bool,
    effect: &dyn Fn(&Setting) -> String,
    context: &mut Context<'_>,
) -> io::Result<u8> {
    let (mut role, mut warnings) = match files::resolve(path, context.machine, overrides, context.env) {
        Err(unreadable) => {
            show(&[*unreadable], context)?;
            return Ok(2);
        }
        Ok(Err(mistakes)) => {
            show(&mistakes, context)?;
            return Ok(2);
        }
        Ok(Ok(good)) => good,
    };
    if let Some(policy) = context.policy {
        warnings.extend(policy.cap(&mut role.settings));
    }
    show(&warnings, context)?;
    if json {
        let settings = role.settings.iter();
        let rows: Vec<Row> = settings.map(|setting| row(&role, setting, effect)).collect();
        serde_json::to_writer_pretty(&mut *context.out, &rows)?;
        writeln!(context.out)?;
    } else {
        write_table(&role, effect, context.out)?;
    }
    Ok(0)
}

fn row(role: &Role, setting: &Setting, effect: &dyn Fn(&Setting) -> String) -> Row {
    let knob = setting.knob;
    // Why it is derived is worth a word; a note that says more goes before it.
    let derived = match &setting.origin {
        Origin::Derived(why) => Some(why.clone()),
        _ => None,
    };
    Row {
        knob: knob.key,
        value: setting.text(),
        human: setting.human(),
        origin: setting.origin.label(),
        source: setting.origin.source(),
        dialect: role.dialect_of(&setting.origin).map(Dialect::name),
        file: knob.file,
        systemd_property: knob.systemd,
        effect: effect(setting),
        note: setting.note.clone().or(derived),
    }
}

fn write_table(role: &Role, effect: &dyn Fn(&Setting) -> String, out: &mut dyn Write) -> io::Result<()> {
    let cells: Vec<(&Setting, [String; 5])> = role.settings.iter().map(|one| (one, cells(one))).collect();
    let heads = ["KNOB", "VALUE", "FROM", "KERNEL FILE", "SYSTEMD"];
    let width = |column: usize| {
        let lengths = cells.iter().map(|(_, cells)| cells[column].chars().count());
        lengths.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: [&str; 5]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        format!("  {}", padded.join("  ")).trim_end().to_string()
    };
    let file = role
        .file
        .as_deref()
        .map(|file| format!(" ({})", file.display()))
        .unwrap_or_default();
    writeln!(out, "role {}{}", role.name, escape(&file))?;
    for (file, dialect) in &role.dialects {
        let inherited = Some(file) != role.file.as_ref();
        if inherited || *dialect != Dialect::Cgmgr {
            let file = escape(&file.to_string_lossy());
            let name = if inherited {
                format!("inherits from {file}: ")
            } else {
                String::new()
            };
            writeln!(out, "{name}{}", dialect.title())?;
        }
    }
    for part in Part::ALL {
        writeln!(out, "\n{}", title(part))?;
        writeln!(out, "{}", line(heads))?;
        for (setting, cells) in cells.iter().filter(|(setting, _)| setting.knob.part == part) {
            writeln!(out, "{}", line(cells.each_ref().map(String::as_str)))?;
            write_details(setting, effect, out)?;
        }
    }
    Ok(())
}

fn title(part: Part) -> &'static str {
    match part {
        Part::Session => "each session",
        Part::Agent => "the agent (agent.slice)",
        Part::Workloads => "all sessions together (workloads.slice)",
    }
}

fn cells(setting: &Setting) -> [String; 5] {
    let knob = setting.knob;
    let from = match &setting.origin {
        Origin::Role { line, .. } => format!("role line {line}"),
        Origin::Inherited { file, line } | Origin::HostPolicy { file, line } => {
            let name = file
                .file_name()
                .map(|name| name.to_string_lossy())
                .unwrap_or_default();
            format!("{}:{line}", escape(&name))
        }
        Origin::Flag(flag) => flag.clone(),
        Origin::Derived(_) | Origin::Default => setting.origin.label().into(),
    };
    let file = match (knob.file, setting.text()) {
        (Some(file), Some(text)) => format!("{file} = {text}"),
        _ => "-".into(),
    };
    let name = knob.key.split_once('.').map_or(knob.key, |(_, name)| name);
    [
        name.into(),
        setting.human(),
        from,
        file,
        knob.systemd.unwrap_or("-").into(),
    ]
}

/// What this host does with it, and the note, below the line of a knob that somebody declared.
fn write_details(
    setting: &Setting,
    effect: &dyn Fn(&Setting) -> String,
    out: &mut dyn Write,
) -> io::Result<()> {
    let declared = setting.value.is_some() || matches!(setting.origin, Origin::Derived(_));
    let effect = if declared { effect(setting) } else { String::new() };
    let why = match &setting.origin {
        Origin::Derived(why) => Some(why.as_str()),
        _ => None,
    };
    let note = setting.note.as_deref().filter(|note| declared && *note != effect);
    for text in [Some(effect.as_str()), why, note]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
    {
        for line in wrapped(&escape(text), WIDTH - 6) {
            writeln!(out, "      {line}")?;
        }
    }
    Ok(())
}

/// Breaks text between words. A word that is too long stays whole.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}
