//! `check` and `explain`, and reading a role for the other commands.

use super::args::{CheckArgs, ExplainArgs, Global};
use super::check::{self, Context};
use super::context::{CommandError, Outcome, colour, host};
use super::explain;
use crate::files;
use crate::host::{Base, Host, Machine, Manager};
use crate::kernel::{disks, probe};
use crate::limits::{KnobId, Settings};
use crate::plan::receipt::{depends_on_version, predict};
use crate::role::{Diagnostic, HostPolicy, Overrides, Role, Source};
use crate::systemd::Systemd;
use crate::text::escape;
use std::cell::OnceCell;
use std::io;
use std::path::Path;

/// `cgmgr check`.
pub fn check(args: &CheckArgs, global: &Global) -> Outcome {
    if args.roles.is_empty() && global.host_policy.is_none() {
        return Err(CommandError::usage(
            "nothing to check",
            "name role files, or a host's policy with --host-policy FILE",
        ));
    }
    let machine = probe::machine();
    let policy = files::policy(global.host_policy.as_deref(), &machine);
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let mut context = Context {
        machine: &machine,
        env: &files::env,
        policy: policy.as_ref().ok().and_then(Option::as_ref),
        colour: colour(global.color),
        out: &mut out,
        err: &mut err,
    };
    let path = global
        .host_policy
        .as_deref()
        .unwrap_or(Path::new(files::POLICY_PLACE));
    match &policy {
        // Its mistakes are no role's: what the roles are worth on this host cannot be told.
        Err(mistakes) => Ok(check::check_policy(path, Err(mistakes), args.json, &mut context)?),
        Ok(Some(policy)) if args.roles.is_empty() => {
            Ok(check::check_policy(path, Ok(policy), args.json, &mut context)?)
        }
        Ok(_) => Ok(check::check(&args.roles, args.json, &mut context)?),
    }
}

/// `cgmgr explain`.
pub fn explain(args: &ExplainArgs, global: &Global) -> Outcome {
    let (mut host, backend) = host(global)?;
    host.disks = Some(disks::disks(&host.hierarchy));
    let policy = policy(&host.machine, global)?;
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let mut context = Context {
        machine: &host.machine,
        env: &files::env,
        policy: policy.as_ref(),
        colour: colour(global.color),
        out: &mut out,
        err: &mut err,
    };
    // systemd is asked for its version at most once, and only where what it rounds is declared.
    let with_version = OnceCell::new();
    let effect = |setting: &crate::limits::Setting| {
        let host = match depends_on_version(setting, backend) {
            true => with_version.get_or_init(|| versioned(&host)),
            false => &host,
        };
        predict(setting, host, backend, &[]).to_string()
    };
    Ok(explain::explain(
        &args.role,
        &args.limits.overrides(),
        args.json,
        &effect,
        &mut context,
    )?)
}

/// The host with the version of the systemd that writes limits there. Where it cannot be asked, nothing is foretold of it.
pub fn versioned(host: &Host) -> Host {
    let manager = host.base.as_ref().ok().and_then(Base::scope_manager);
    let systemd = Systemd::of(manager.unwrap_or(Manager::System));
    Host {
        systemd_version: systemd.version().ok(),
        ..host.clone()
    }
}

/// What the host allows. Mistakes are shown; the error then only says that there were some.
pub fn policy(machine: &Machine, global: &Global) -> Result<Option<HostPolicy>, CommandError> {
    files::policy(global.host_policy.as_deref(), machine).map_err(|mistakes| {
        show(&mistakes, global);
        let path = mistakes.first().and_then(|mistake| mistake.path.as_deref());
        let path = path.unwrap_or(Path::new(files::POLICY_PLACE)).to_string_lossy();
        let mut error = invalid(&format!("the host's policy {} is not valid", escape(&path)));
        error.help = Some(
            "nothing is done under a policy that cannot be read: `cgmgr check --host-policy FILE`".into(),
        );
        error
    })
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
            .map(|p| escape(&p.to_string_lossy()))
            .unwrap_or_default();
        let at = match (d.line, d.column) {
            (Some(line), Some(column)) => format!("{place}:{line}:{column}: "),
            _ if place.is_empty() => String::new(),
            _ => format!("{place}: "),
        };
        tracing::info!("{at}{}", escape(&d.message));
    }
}

/// Reads a role file with flags over it, within what the host allows. Mistakes are shown; the error then only says that
/// there were some.
pub fn read(
    path: &Path,
    overrides: &Overrides,
    host: &Host,
    global: &Global,
) -> Result<(Role, Vec<Diagnostic>), CommandError> {
    read_on(path, overrides, &host.machine, global)
}

/// The same where nothing but the machine's size matters.
pub fn read_on(
    path: &Path,
    overrides: &Overrides,
    machine: &Machine,
    global: &Global,
) -> Result<(Role, Vec<Diagnostic>), CommandError> {
    let policy = policy(machine, global)?;
    let resolved = match files::resolve(path, machine, overrides, &files::env) {
        Err(unreadable) => Err(vec![*unreadable]),
        Ok(resolved) => resolved,
    };
    let resolved = resolved.map_err(|mistakes| {
        show(&mistakes, global);
        invalid(&format!(
            "{} is not a valid role",
            escape(&path.to_string_lossy())
        ))
    });
    Ok(within(policy, resolved?))
}

/// The text of a file that is no role; `-` is standard input. What is wrong with it is shown, as [`read`] does.
pub fn source(path: &Path, global: &Global) -> Result<Source, CommandError> {
    files::read(path).map_err(|unreadable| {
        show(&[*unreadable], global);
        invalid(&format!("{} cannot be read", escape(&path.to_string_lossy())))
    })
}

/// A role made of flags alone, within what the host allows.
pub fn of_flags(
    overrides: &Overrides,
    host: &Host,
    global: &Global,
) -> Result<(Role, Vec<Diagnostic>), CommandError> {
    let policy = policy(&host.machine, global)?;
    let resolved = Role::without_file(overrides, &host.machine).map_err(|mistakes| {
        show(&mistakes, global);
        invalid("the limits given by flags are not valid")
    });
    Ok(within(policy, resolved?))
}

fn within(
    policy: Option<HostPolicy>,
    (mut role, mut warnings): (Role, Vec<Diagnostic>),
) -> (Role, Vec<Diagnostic>) {
    if let Some(policy) = policy {
        warnings.extend(policy.cap(&mut role.settings));
    }
    (role, warnings)
}

/// Exit status 2, where everything that is wrong has been shown.
pub fn invalid(message: &str) -> CommandError {
    CommandError {
        status: 2,
        message: message.to_owned(),
        help: None,
    }
}

/// The settings of a role with the limits on top that a session was launched with by flags, within what the host
/// allows.
pub fn with_overrides(
    settings: &Settings,
    overrides: &[(String, String)],
    machine: &Machine,
    policy: Option<&HostPolicy>,
) -> Settings {
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
    if let Some(policy) = policy {
        policy.cap(&mut settings);
    }
    settings
}
