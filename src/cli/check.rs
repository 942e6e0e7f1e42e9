//! `cgmgr check`: says every mistake of role files. Needs no rights and changes nothing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::files;
use crate::host::Machine;
use crate::role::{Diagnostic, Dialect, HostPolicy, Overrides, Role};
use crate::text::escape;

/// What a command about role files needs from outside.
pub struct Context<'a> {
    /// The machine that the roles are for.
    pub machine: &'a Machine,
    /// Variables for `$VAR`, e.g. [`files::env`].
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// What the host allows.
    pub policy: Option<&'a HostPolicy>,
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
    dialect: Option<&'static str>,
    diagnostics: Vec<Diagnostic>,
}

/// Checks role files and returns the exit status: 0 all are good (warnings do not count), 2 one is invalid
/// or could not be read. With `json`, an array of `{file, ok, role, dialect, diagnostics}` on `out`, and nothing on `err`.
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
                dialect: role.as_ref().and_then(dialect).map(Dialect::name),
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
            let form = match dialect(&role) {
                None | Some(Dialect::Cgmgr) => String::new(),
                Some(other) => format!(", {}", other.title()),
            };
            writeln!(context.out, "ok: {file} (role {}, {limits}{form})", role.name)?;
        }
    }
    if json {
        serde_json::to_writer_pretty(&mut *context.out, &reports)?;
        writeln!(context.out)?;
    }
    Ok(status)
}

fn check_one(path: &Path, context: &Context<'_>) -> (Option<Role>, Vec<Diagnostic>, u8) {
    match files::resolve(path, context.machine, &Overrides::default(), context.env) {
        Err(unreadable) => (None, vec![*unreadable], 2),
        Ok(Err(mistakes)) => (None, mistakes, 2),
        Ok(Ok((mut role, mut warnings))) => {
            if let Some(policy) = context.policy {
                warnings.extend(policy.cap(&mut role.settings));
            }
            (Some(role), warnings, 0)
        }
    }
}

/// The form of a role's own file.
fn dialect(role: &Role) -> Option<Dialect> {
    role.dialects.first().map(|(_, dialect)| *dialect)
}

/// Says that a host's policy is good, or all that is wrong with it, as [`check`] does for a role file.
pub fn check_policy(
    path: &Path,
    policy: Result<&HostPolicy, &[Diagnostic]>,
    json: bool,
    context: &mut Context<'_>,
) -> io::Result<u8> {
    let diagnostics = policy.err().unwrap_or_default();
    let status = if policy.is_ok() { 0 } else { 2 };
    if json {
        let report = Report {
            file: path.to_string_lossy().into_owned(),
            ok: status == 0,
            role: None,
            dialect: None,
            diagnostics: diagnostics.to_vec(),
        };
        serde_json::to_writer_pretty(&mut *context.out, &[report])?;
        writeln!(context.out)?;
        return Ok(status);
    }
    show(diagnostics, context)?;
    if let Ok(policy) = policy {
        let words = crate::text::count(policy.len() as u64, "knob", "knobs");
        let file = escape(&path.to_string_lossy());
        writeln!(context.out, "ok: {file} (host policy, {words})")?;
    }
    Ok(status)
}

/// Shows mistakes on `err`, each with an empty line after it.
pub fn show(diagnostics: &[Diagnostic], context: &mut Context<'_>) -> io::Result<()> {
    for diagnostic in diagnostics {
        writeln!(context.err, "{}\n", diagnostic.render(context.colour))?;
    }
    Ok(())
}
