//! `check` and `explain`, and reading a role for the other commands.

use super::args::{CheckArgs, ExplainArgs, Global};
use super::check::{self, Context};
use super::context::{CommandError, Outcome, colour, host};
use super::{explain, role_file};
use crate::host::{Host, Machine};
use crate::kernel::{disks, probe};
use crate::limits::{KnobId, Settings};
use crate::plan::receipt::predict;
use crate::role::{Diagnostic, Overrides, Role};
use std::io;
use std::path::Path;

/// `cgmgr check`.
pub fn check(args: &CheckArgs, global: &Global) -> Outcome {
    let machine = probe::machine();
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let mut context = Context {
        machine: &machine,
        env: &role_file::env,
        colour: colour(global.color),
        out: &mut out,
        err: &mut err,
    };
    Ok(check::check(&args.roles, args.json, &mut context)?)
}

/// `cgmgr explain`.
pub fn explain(args: &ExplainArgs, global: &Global) -> Outcome {
    let (mut host, backend) = host(global)?;
    host.disks = Some(disks::disks(&host.hierarchy));
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let mut context = Context {
        machine: &host.machine,
        env: &role_file::env,
        colour: colour(global.color),
        out: &mut out,
        err: &mut err,
    };
    let effect = |setting: &crate::limits::Setting| predict(setting, &host, backend, &[]).to_string();
    Ok(explain::explain(
        &args.role,
        &args.limits.overrides(),
        args.json,
        &effect,
        &mut context,
    )?)
}

/// Shows diagnostics on standard error.
pub fn show(diagnostics: &[Diagnostic], global: &Global) {
    use std::io::Write;
    let mut err = io::stderr().lock();
    for diagnostic in diagnostics {
        let _ = writeln!(err, "{}\n", diagnostic.render(colour(global.color)));
    }
}

/// Logs diagnostics in one line each. A launch says what is not in force; what else there is to say about a role is
/// for `check`, `explain`, `plan` and `apply`.
pub fn log(diagnostics: &[Diagnostic]) {
    for d in diagnostics {
        let place = d
            .path
            .as_ref()
            .map(|p| crate::text::escape(&p.to_string_lossy()))
            .unwrap_or_default();
        let at = match (d.line, d.column) {
            (Some(line), Some(column)) => format!("{place}:{line}:{column}: "),
            _ if place.is_empty() => String::new(),
            _ => format!("{place}: "),
        };
        tracing::info!("{at}{}", crate::text::escape(&d.message));
    }
}

/// Reads a role file with flags over it. Mistakes are shown; the error then only says that there were some.
pub fn read(
    path: &Path,
    overrides: &Overrides,
    host: &Host,
    global: &Global,
) -> Result<(Role, Vec<Diagnostic>), CommandError> {
    let resolved = match role_file::resolve(path, &host.machine, overrides, &role_file::env) {
        Err(unreadable) => Err(vec![*unreadable]),
        Ok(resolved) => resolved,
    };
    resolved.map_err(|mistakes| {
        show(&mistakes, global);
        invalid(&format!(
            "{} is not a valid role",
            crate::text::escape(&path.to_string_lossy())
        ))
    })
}

/// A role made of flags alone.
pub fn of_flags(
    overrides: &Overrides,
    host: &Host,
    global: &Global,
) -> Result<(Role, Vec<Diagnostic>), CommandError> {
    Role::without_file(overrides, &host.machine).map_err(|mistakes| {
        show(&mistakes, global);
        invalid("the limits given by flags are not valid")
    })
}

fn invalid(message: &str) -> CommandError {
    CommandError {
        status: 2,
        message: message.to_owned(),
        help: None,
    }
}

/// The settings of a role with the limits on top that a session was launched with by flags.
pub fn with_overrides(settings: &Settings, overrides: &[(String, String)], machine: &Machine) -> Settings {
    let mut settings = settings.clone();
    for (key, text) in overrides {
        if let Some(id) = KnobId::from_key(key)
            && let Ok(value) = id.knob().parse(text, machine)
        {
            settings.set(
                id,
                value,
                crate::limits::Origin::Flag(format!("--{}", key.replace('_', "-"))),
            );
        }
    }
    settings
}
