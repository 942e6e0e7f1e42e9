//! `cgmgr check`: says every mistake of role files. Needs no rights and changes nothing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::role_file;
use crate::host::Machine;
use crate::role::{Diagnostic, Overrides, Role};
use crate::text::escape;

/// What a command about role files needs from outside.
pub struct Context<'a> {
    /// The machine that the roles are for.
    pub machine: &'a Machine,
    /// Variables for `$VAR`, e.g. [`role_file::env`].
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether what goes to `err` may be coloured.
    pub colour: bool,
    /// Results.
    pub out: &'a mut dyn Write,
    /// Mistakes.
    pub err: &'a mut dyn Write,
}

#[derive(Serialize)]
struct Report {
    file: String,
    ok: bool,
    role: Option<String>,
    diagnostics: Vec<Diagnostic>,
}

/// Checks role files and returns the exit status: 0 all are good (warnings do not count), 2 one is invalid
/// or could not be read. With `json`, an array of `{file, ok, role, diagnostics}` on `out`, and nothing on `err`.
pub fn check(roles: &[PathBuf], json: bool, context: &mut Context<'_>) -> io::Result<u8> {
    let mut status = 0;
    let mut reports = Vec::new();
    for path in roles {
        let (role, diagnostics, this) = check_one(path, context);
        status = status.max(this);
        if json {
            let file = path.to_string_lossy().into_owned();
            reports.push(Report {
                file,
                ok: this == 0,
                role: role.map(|role| role.name),
                diagnostics,
            });
            continue;
        }
        show(&diagnostics, context)?;
        if let Some(role) = role {
            let limits = match role.declared() {
                1 => "1 limit".to_string(),
                n => format!("{n} limits"),
            };
            let file = escape(&path.to_string_lossy());
            writeln!(context.out, "ok: {file} (role {}, {limits})", role.name)?;
        }
    }
    if json {
        serde_json::to_writer_pretty(&mut *context.out, &reports)?;
        writeln!(context.out)?;
    }
    Ok(status)
}

fn check_one(path: &Path, context: &Context<'_>) -> (Option<Role>, Vec<Diagnostic>, u8) {
    match role_file::resolve(path, context.machine, &Overrides::default(), context.env) {
        Err(unreadable) => (None, vec![*unreadable], 2),
        Ok(Err(mistakes)) => (None, mistakes, 2),
        Ok(Ok((role, warnings))) => (Some(role), warnings, 0),
    }
}

/// Shows mistakes on `err`, each with an empty line after it.
pub fn show(diagnostics: &[Diagnostic], context: &mut Context<'_>) -> io::Result<()> {
    for diagnostic in diagnostics {
        writeln!(context.err, "{}\n", diagnostic.render(context.colour))?;
    }
    Ok(())
}
