//! The way back: limits that another program was told, as a role file. Pure: text in, text out.
//!
//! What a file says about limits is either in the role or in a comment below it, with the reason; the rest of the file is
//! none of cgmgr's business. Where another program does something by itself that cgmgr does not (docker allows as much swap
//! as memory), the role says so.
#![deny(clippy::disallowed_methods)]

mod compose;
mod draft;
mod oci;
mod role;
mod unit;
mod yaml;

use crate::role::{Diagnostic, Inputs, Source};
use draft::Draft;
use serde::Serialize;

/// A form of file that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A file of the Compose specification.
    Compose,
    /// A unit or drop-in of systemd's, or several as `systemctl cat` shows them.
    SystemdUnit,
    /// A config.json of the OCI runtime specification, or a part of one.
    Oci,
    /// TOML: jackin's role manifest or configuration, multicode's configuration, a role of cgmgr's.
    Toml,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 4] = [Form::Compose, Form::SystemdUnit, Form::Oci, Form::Toml];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Form::Compose => "compose",
            Form::SystemdUnit => "systemd-unit",
            Form::Oci => "oci",
            Form::Toml => "toml",
        }
    }

    /// What a text looks like: a brace begins JSON; a key with an equals sign is TOML or a unit, which has sections of its
    /// own; what has colons is YAML.
    pub fn of(text: &str) -> Form {
        if text.trim_start().starts_with('{') {
            return Form::Oci;
        }
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
        let Some(first) = lines.next() else {
            return Form::Toml;
        };
        let section = first.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match section {
            Some(name) if unit::SECTIONS.contains(&name) => Form::SystemdUnit,
            Some(_) => Form::Toml,
            None if first.contains('=') || !first.contains(':') => Form::Toml,
            None => Form::Compose,
        }
    }
}

/// Something about limits that is not in the role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Where it is and what it says, e.g. `services.web.mem_swappiness = 10`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A role that was made of another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What the file was.
    pub form: Form,
    /// The role file; it ends with a newline.
    pub text: String,
    /// How many limits it has.
    pub limits: usize,
    /// What is not in it. The text has it in comments.
    pub left: Vec<Left>,
    /// Warnings about the file itself, where it was a role.
    pub warnings: Vec<Diagnostic>,
}

/// Why a file cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// All mistakes of a role file.
    Mistakes(Vec<Diagnostic>),
    /// What is wrong, and what to do.
    Because(String, String),
}

/// Makes a role of a file. `service` is the one of a Compose file with several.
///
/// # Errors
///
/// The file is not what it seemed, or which of several services is meant is not said.
pub fn import(
    source: Source,
    form: Form,
    service: Option<&str>,
    inputs: &Inputs<'_>,
) -> Result<Imported, Refused> {
    let mut draft = Draft::new(&source.path);
    let mut warnings = Vec::new();
    match form {
        Form::Compose => compose::read(&source.text, service, &mut draft)?,
        Form::SystemdUnit => unit::read(&source, &mut draft),
        Form::Oci => oci::read(&source.text, &mut draft)?,
        Form::Toml => warnings = role::read(source, inputs, &mut draft)?,
    }
    let (text, limits, left) = draft.finish();
    Ok(Imported {
        form,
        text,
        limits,
        left,
        warnings,
    })
}
