//! `cgmgr install`, `cgmgr uninstall` and `cgmgr anchor`: cgmgr's units on a systemd machine.

use super::args::{InstallArgs, UninstallArgs};
use super::context::{self, CommandError, Outcome, print_json};
use crate::backend::anchor;
use crate::backend::slices::{self, SystemdError};
use crate::backend::units::{self, Change, UnitsError};
use crate::host::{AGENT_SLICE, Base, Host, SESSIONS_UNIT, WORKLOADS_SLICE};
use crate::kernel::{Tree, probe, survey};
use crate::limits::Controller;
use crate::path::GroupPath;
use crate::plan::apply::drop_in_path;
use crate::plan::state::Survey;
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

impl From<UnitsError> for CommandError {
    fn from(error: UnitsError) -> Self {
        Self::failed(&error, error.help.clone())
    }
}

impl From<SystemdError> for CommandError {
    fn from(error: SystemdError) -> Self {
        Self::failed(&error, error.help.clone())
    }
}

const NO_SYSTEMD: &str = "PID 1 of this machine is not systemd";

/// `cgmgr install`.
pub fn install(args: &InstallArgs) -> Outcome {
    let host = probe::host(None);
    let only_files = args.root.is_some();
    if !only_files && !host.systemd {
        return Err(CommandError::failed(
            NO_SYSTEMD,
            "there is nothing to install here: `cgmgr run` makes its groups itself. --root DIR is for images",
        ));
    }
    if !only_files && !args.dry_run && host.euid != 0 {
        return Err(CommandError::failed(
            "only root can put units in place",
            "run as root; --dry-run shows what it would do",
        ));
    }
    let root = args.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    if !root.is_dir() {
        return Err(CommandError::failed(
            format!("{} is no directory", crate::text::escape(&root.to_string_lossy())),
            "name the root directory of an image",
        ));
    }
    let program = program(&root)?;
    if !only_files && !args.dry_run {
        trusted(&program)?;
    }
    let changes = units::to_install(&root, &program)?;
    if args.dry_run {
        return report(&changes, "would", None, args.json);
    }
    let was_active = !only_files && is_active(SESSIONS_UNIT);
    units::change(&changes)?;
    let started = if only_files {
        None
    } else {
        match start(&changes) {
            Ok(started) => Some(started),
            Err(mut error) => {
                if !was_active {
                    let _ = slices::systemctl(&["stop", SESSIONS_UNIT]);
                }
                for left in units::take_back(&changes) {
                    error.message.push_str(&format!("; could not undo: {left}"));
                }
                let _ = slices::systemctl(&["daemon-reload"]);
                return Err(error);
            }
        }
    };
    report(&changes, "", started, args.json)
}

/// This program's path, as it is on a machine whose root directory is `root`.
fn program(root: &Path) -> Result<PathBuf, CommandError> {
    let program = std::env::current_exe()?;
    let root = root.canonicalize()?;
    Ok(match program.strip_prefix(&root) {
        Ok(inside) => Path::new("/").join(inside),
        Err(_) => program,
    })
}

/// The unit starts this program as root at every boot: whoever could replace it would be root.
fn trusted(program: &Path) -> Result<(), CommandError> {
    use std::os::unix::fs::MetadataExt;
    for path in program.ancestors() {
        let meta = std::fs::metadata(path)?;
        // A directory with the sticky bit (like /tmp) lets nobody replace what is another's.
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        // On older Debian systems /usr/local is writable for the group staff (50), whose members are as good as root.
        let others = if matches!(meta.gid(), 0 | 50) {
            0o002
        } else {
            0o022
        };
        if meta.uid() != 0 || (meta.mode() & others != 0 && !sticky) {
            return Err(CommandError::failed(
                format!(
                    "{} can be changed by others than root, and the unit would run {} as root",
                    crate::text::escape(&path.to_string_lossy()),
                    crate::text::escape(&program.to_string_lossy())
                ),
                "put it where only root can write, and call it there: install -m755 cgmgr /usr/local/bin/",
            ));
        }
    }
    Ok(())
}

/// Has systemd take the units up. What it says goes to the user.
fn start(changes: &[Change]) -> Result<String, CommandError> {
    let changed = |name: &str| {
        changes
            .iter()
            .any(|c| c.path.ends_with(name) && c.verb() == "write")
    };
    let mut said = "it was running already";
    if !changes.is_empty() {
        slices::systemctl(&["daemon-reload"])?;
    }
    let active = is_active(SESSIONS_UNIT);
    let changed_slices: Vec<String> = [AGENT_SLICE, WORKLOADS_SLICE]
        .into_iter()
        .filter(|s| changed(s))
        .map(str::to_owned)
        .collect();
    if !changed_slices.is_empty() {
        slices::reload(&changed_slices)?;
    }
    if !active {
        slices::systemctl(&["start", SESSIONS_UNIT])?;
        said = "started";
    } else if changed(SESSIONS_UNIT) {
        if running(&probe::host(None)).is_empty() {
            slices::systemctl(&["restart", SESSIONS_UNIT])?;
            said = "restarted";
        } else {
            said = "sessions run, so it goes on as it was started; the change holds after its next start";
        }
    }
    verify()?;
    Ok(said.to_owned())
}

fn is_active(unit: &str) -> bool {
    slices::systemctl(&["is-active", "--quiet", unit]).is_ok()
}

/// What was wanted is that sessions can be limited: that is looked at, and not what systemd said.
fn verify() -> Result<(), CommandError> {
    let help = "`systemctl status cgmgr-sessions` and `journalctl -u cgmgr-sessions` show what it said";
    match probe::host(None).base {
        Ok(base) if base.slices_are_systemds() && base.controllers.contains(&Controller::Memory) => Ok(()),
        Ok(base) => Err(CommandError::failed(
            format!(
                "{SESSIONS_UNIT} runs, but sessions would be in {} without its controllers",
                base.group
            ),
            help,
        )),
        Err(none) => Err(CommandError::failed(
            format!("{SESSIONS_UNIT} was started, but {}", none.why),
            help,
        )),
    }
}

/// Names of the sessions that run below the unit.
fn running(host: &Host) -> Vec<String> {
    let Some(survey) = survey_of_unit(host) else {
        return Vec::new();
    };
    let alive = survey.sessions.iter().filter(|s| s.state.populated);
    alive.map(|s| s.name.to_string()).collect()
}

fn survey_of_unit(host: &Host) -> Option<Survey> {
    let tree = Tree::open(&host.hierarchy.mount()?.point).ok()?;
    let unit = GroupPath::root().join(WORKLOADS_SLICE).join(SESSIONS_UNIT);
    survey::survey(&tree, &Base::sessions_unit(unit, Vec::new()), &|_| false).ok()
}

fn report(changes: &[Change], would: &str, service: Option<String>, json: bool) -> Outcome {
    if json {
        let changed: Vec<_> = changes
            .iter()
            .map(|c| json!({ "action": c.verb(), "path": c.path.to_string_lossy() }))
            .collect();
        print_json(&json!({ "changed": changed, "dry_run": !would.is_empty(), "service": service }))?;
        return Ok(0);
    }
    let mut out = io::stdout().lock();
    for change in changes {
        let verb = match (would.is_empty(), change.verb()) {
            (false, verb) => format!("would {verb}"),
            (true, "write") => "wrote".into(),
            (true, "link") => "linked".into(),
            (true, _) => "removed".into(),
        };
        writeln!(out, "{verb} {}", change.path.display())?;
    }
    if changes.is_empty() {
        writeln!(out, "nothing to change: everything is as it should be")?;
    }
    if let Some(service) = service {
        writeln!(out, "{SESSIONS_UNIT}: {service}")?;
        writeln!(
            out,
            "check it with: systemctl status cgmgr-sessions; cgmgr doctor"
        )?;
    }
    Ok(0)
}

/// `cgmgr uninstall`.
pub fn uninstall(args: &UninstallArgs) -> Outcome {
    let host = probe::host(None);
    let root = GroupPath::root();
    let drop_ins = [AGENT_SLICE, WORKLOADS_SLICE].map(|slice| drop_in_path(&root.join(slice)));
    let (changes, foreign) = units::to_uninstall(Path::new("/"), &drop_ins)?;
    for path in &foreign {
        context::warn(format_args!(
            "{} was not installed by cgmgr: left alone",
            path.display()
        ));
    }
    if changes.is_empty() {
        return report_removed(&changes, args);
    }
    let sessions = if host.systemd { running(&host) } else { Vec::new() };
    if !sessions.is_empty() {
        return Err(CommandError::failed(
            format!("sessions still run: {}", sessions.join(", ")),
            format!("cgmgr stop {}", sessions.join(" ")),
        ));
    }
    if args.dry_run {
        return report_removed(&changes, args);
    }
    let ours = |name: &str| changes.iter().any(|c| c.path.ends_with(name));
    // Changed first, so that without the right to do so nothing is stopped.
    units::change(&changes)?;
    if host.systemd
        && let Err(mut error) = put_down(&ours, &host)
    {
        for left in units::take_back(&changes) {
            error.message.push_str(&format!("; could not undo: {left}"));
        }
        let _ = slices::systemctl(&["daemon-reload"]);
        return Err(error);
    }
    report_removed(&changes, args)
}

fn put_down(ours: &dyn Fn(&str) -> bool, host: &Host) -> Result<(), CommandError> {
    if ours(SESSIONS_UNIT) && is_active(SESSIONS_UNIT) {
        slices::systemctl(&["stop", SESSIONS_UNIT])?;
    }
    slices::systemctl(&["daemon-reload"])?;
    // A slice that somebody else uses stays up, now with systemd's defaults; stopping it would end what is in it.
    let survey = survey_of_unit(host).unwrap_or_default();
    for slice in [WORKLOADS_SLICE, AGENT_SLICE] {
        let state = survey.group(&GroupPath::root().join(slice));
        if ours(slice) && state.is_some_and(|s| !s.populated && s.children.is_empty()) {
            slices::systemctl(&["stop", slice])?;
        }
    }
    Ok(())
}

fn report_removed(changes: &[Change], args: &UninstallArgs) -> Outcome {
    if changes.is_empty() && !args.json {
        writeln!(io::stdout(), "nothing to remove: cgmgr is not installed here")?;
        return Ok(0);
    }
    report(changes, if args.dry_run { "would" } else { "" }, None, args.json)
}

/// `cgmgr anchor`: holds the delegated unit open until it is stopped.
pub fn anchor() -> Outcome {
    anchor::prepare()?;
    anchor::tell_ready()?;
    anchor::hold();
    Ok(0)
}
