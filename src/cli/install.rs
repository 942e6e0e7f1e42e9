//! `cgmgr install`, `cgmgr uninstall` and `cgmgr anchor`: cgmgr's units on a systemd machine.

use super::apply::record_changes;
use super::args::{AnchorArgs, Global, InstallArgs, UninstallArgs};
use super::context::{self, CommandError, Outcome, print_json};
use super::records::store;
use super::roles;
use crate::backend::anchor::{self, AnchorError};
use crate::backend::enact;
use crate::backend::slices::SystemdError;
use crate::backend::units::{self, Change, DropIn, Folder, UnitsError};
use crate::host::{AGENT_SLICE, Base, DAEMON_UNIT, Host, SESSIONS_SCOPE, SESSIONS_UNIT, WORKLOADS_SLICE};
use crate::kernel::{Tree, manager, probe, survey};
use crate::limits::{Controller, KnobId, PROTECTED_SCORE, Part, Settings, Value};
use crate::path::GroupPath;
use crate::plan::apply::drop_in_path;
use crate::plan::drop_in;
use crate::plan::state::Survey;
use crate::role::Overrides;
use crate::systemd::{BusError, Manager, Systemd};
use crate::text::escape;
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

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

impl From<BusError> for CommandError {
    fn from(error: BusError) -> Self {
        Self::failed(&error, error.help.clone())
    }
}

impl From<AnchorError> for CommandError {
    fn from(error: AnchorError) -> Self {
        Self::failed(&error, error.help.clone())
    }
}

const NO_SYSTEMD: &str = "PID 1 of this machine is not systemd";

/// What is installed where.
struct Site {
    manager: Manager,
    folder: Folder,
    /// The root directory that the files are below.
    root: PathBuf,
    /// Nothing is started, and no manager asked.
    only_files: bool,
}

impl Site {
    fn of_user() -> Result<Self, CommandError> {
        let config = manager::configuration().ok_or_else(|| {
            CommandError::failed(
                "where this user's units go is not known: neither XDG_CONFIG_HOME nor HOME is an absolute path",
                "HOME=/home/YOU cgmgr install --user",
            )
        })?;
        Ok(Self {
            manager: Manager::User,
            folder: Folder::of_user(&config),
            root: "/".into(),
            only_files: false,
        })
    }

    fn of_machine(root: Option<&Path>) -> Self {
        let at = root.unwrap_or(Path::new("/"));
        Self {
            manager: Manager::System,
            folder: Folder::of_machine(at),
            root: at.to_owned(),
            only_files: root.is_some(),
        }
    }

    fn systemd(&self) -> Systemd {
        Systemd::of(self.manager)
    }

    /// `systemctl`, as it is to be typed.
    fn systemctl(&self) -> &'static str {
        match self.manager {
            Manager::System => "systemctl",
            Manager::User => "systemctl --user",
        }
    }

    fn is_active(&self, unit: &str) -> bool {
        self.systemd().unit(unit).is_ok_and(|unit| unit.is_active())
    }
}

/// `cgmgr install`.
pub fn install(args: &InstallArgs, global: &Global) -> Outcome {
    let host = probe::host(None);
    let mut site = match args.user {
        true => Site::of_user()?,
        false => Site::of_machine(args.root.as_deref()),
    };
    if args.minimal || args.no_daemon {
        site.folder = site.folder.without_daemon();
    }
    if !site.only_files && !host.systemd {
        return Err(CommandError::failed(
            NO_SYSTEMD,
            "there is nothing to install here: `cgmgr run` makes its groups itself. --root DIR is for images",
        ));
    }
    let of_machine = site.manager == Manager::System;
    if of_machine && !site.only_files && !args.dry_run && host.euid != 0 {
        return Err(CommandError::failed(
            "only root can put units in place",
            "run as root; --dry-run shows what it would do, and --user installs for your own systemd",
        ));
    }
    if !site.root.is_dir() {
        return Err(CommandError::failed(
            format!("{} is no directory", escape(&site.root.to_string_lossy())),
            "name the root directory of an image",
        ));
    }
    let program = program(&site.root)?;
    if of_machine && !site.only_files && !args.dry_run {
        trusted(&program)?;
    }
    let (drop_ins, protected) = drop_ins(args, global, &host, &site)?;
    let changes = units::to_install(&site.folder, &program, &drop_ins)?;
    if args.dry_run {
        return report(&changes, "would", None, &[], args.json);
    }
    let units = [SESSIONS_SCOPE, SESSIONS_UNIT, DAEMON_UNIT];
    let were = units.map(|unit| !site.only_files && site.is_active(unit));
    units::change(&changes)?;
    if site.only_files {
        return report(&changes, "", None, &[], args.json);
    }
    match start(&site, &changes) {
        Ok(started) => {
            changed(&site, &changes);
            let later = to_restart(&site, &protected);
            report(&changes, "", Some(started), &later, args.json)
        }
        Err(mut error) => {
            for (unit, was_active) in units.into_iter().zip(were) {
                if !was_active && site.is_active(unit) {
                    let _ = site.systemd().stop(unit);
                }
            }
            for left in units::take_back(&changes) {
                error.message.push_str(&format!("; could not undo: {left}"));
            }
            let _ = enact::take_up(&site.systemd(), &[]);
            Err(error)
        }
    }
}

/// The drop-ins that were asked for, and which services are protected by them. Everything wrong is told at once.
fn drop_ins(
    args: &InstallArgs,
    global: &Global,
    host: &Host,
    site: &Site,
) -> Result<(Vec<DropIn>, Vec<String>), CommandError> {
    let settings = match &args.role {
        None => Settings::none(),
        Some(_) if site.root != Path::new("/") => {
            return Err(CommandError::usage(
                "--role cannot be put into an image: its percentages would be of this machine",
                "install it on the machine itself, or write sizes into the image's own drop-ins",
            ));
        }
        Some(path) => {
            let (role, warnings) = roles::read(path, &Overrides::default(), host, global)?;
            roles::show(&warnings, global);
            role.settings
        }
    };
    let mut drop_ins = Vec::new();
    for (part, slice) in [(Part::Agent, AGENT_SLICE), (Part::Workloads, WORKLOADS_SLICE)] {
        let of_part: Vec<_> = settings.part(part).collect();
        drop_ins.extend(drop_in::of_slice(&of_part).map(|text| DropIn {
            unit: slice.to_owned(),
            text,
        }));
    }
    if args.role.is_some() && drop_ins.is_empty() {
        context::warn(
            "the role declares neither [agent] nor [workloads]: it changes nothing of what is installed",
        );
    }
    let score = settings.get(KnobId::AgentOomScoreAdj).text();
    let score = score
        .and_then(|text| text.parse().ok())
        .unwrap_or(PROTECTED_SCORE);
    let nice = match settings.value(KnobId::AgentNice) {
        Some(Value::Nice(nice)) => Some(nice.from_own(0)),
        _ => None,
    };
    let mut protected = Vec::new();
    let mut refused = Vec::new();
    for unit in &args.protect {
        match service(unit, site) {
            Ok(unit) if protected.contains(&unit) => {}
            Ok(unit) => protected.push(unit),
            Err(error) => refused.push(error),
        }
    }
    if let Some(last) = refused.pop() {
        refused.iter().for_each(context::say_error);
        return Err(last);
    }
    drop_ins.extend(protected.iter().map(|unit| DropIn {
        unit: unit.clone(),
        text: drop_in::of_protected(unit, score, nice),
    }));
    Ok((drop_ins, protected))
}

/// The service that a name means, if it is one that can be put into agent.slice.
fn service(name: &str, site: &Site) -> Result<String, CommandError> {
    let shown = escape(name);
    let list = format!(
        "`{} list-units --type=service` lists what there is",
        site.systemctl()
    );
    // systemd.unit(5): what a unit's name is made of.
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(CommandError::usage(
            format!("--protect `{shown}` is no unit's name"),
            list,
        ));
    }
    let kind = name.rsplit_once('.').map(|(_, kind)| kind);
    let unit = match kind {
        Some("service") => name.to_owned(),
        Some(
            "scope" | "slice" | "socket" | "target" | "timer" | "mount" | "path" | "device" | "swap"
            | "automount",
        ) => {
            return Err(CommandError::usage(
                format!("--protect {shown}: only a service can be put into {AGENT_SLICE} by a drop-in"),
                format!("name the service that the agent runs in: {list}"),
            ));
        }
        _ => format!("{name}.service"),
    };
    if unit == SESSIONS_UNIT || unit == DAEMON_UNIT {
        return Err(CommandError::usage(
            format!("--protect {unit}: that is cgmgr's own, and no agent"),
            format!("name the service that the agent runs in: {list}"),
        ));
    }
    let there = match site.only_files {
        true => site.folder.has(&unit),
        false => site.systemd().unit(&unit)?.load == "loaded",
    };
    if !there {
        return Err(CommandError::failed(
            format!("there is no unit {}", escape(&unit)),
            list,
        ));
    }
    Ok(unit)
}

/// Those services that run outside of agent.slice still: a unit's place holds from its next start on.
fn to_restart(site: &Site, protected: &[String]) -> Vec<String> {
    let elsewhere = |unit: &&String| {
        let found = site.systemd().unit(unit).unwrap_or_default();
        found.is_active() && !found.group.contains(&format!("/{AGENT_SLICE}/"))
    };
    protected
        .iter()
        .filter(elsewhere)
        .map(|unit| format!("{} restart {unit}", site.systemctl()))
        .collect()
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

/// What was said of each service that was to be started.
type Started = Vec<(&'static str, &'static str)>;

/// Has systemd take the units up. What it says goes to the user.
fn start(site: &Site, changes: &[Change]) -> Result<Started, CommandError> {
    let systemd = site.systemd();
    let changed = |unit: &str| {
        let drop_ins = format!("{unit}.d");
        let of_it = |c: &&Change| {
            let directory = c.path.parent().and_then(Path::file_name);
            c.path.ends_with(unit) && c.verb() == "write" || directory.is_some_and(|d| d == drop_ins.as_str())
        };
        changes.iter().any(|c| of_it(&c))
    };
    if !changes.is_empty() {
        let slices: Vec<&str> = [AGENT_SLICE, WORKLOADS_SLICE]
            .into_iter()
            .filter(|s| changed(s))
            .collect();
        enact::take_up(&systemd, &slices)?;
    }
    let was_active = site.is_active(SESSIONS_UNIT);
    let said = if was_active && !changed(SESSIONS_UNIT) && site.is_active(SESSIONS_SCOPE) {
        "it was running already"
    } else {
        // No session is in it, so that none is ended.
        systemd
            .restart(SESSIONS_UNIT)
            .map_err(|error| CommandError::failed(&error, what_it_said(site, "cgmgr-sessions")))?;
        if was_active { "restarted" } else { "started" }
    };
    verify(site)?;
    let mut started = vec![(SESSIONS_UNIT, said)];
    if site.folder.has_daemon() {
        started.push((DAEMON_UNIT, start_daemon(site, changed(DAEMON_UNIT))?));
    }
    read_catalog(changes);
    Ok(started)
}

/// No session is in it either.
fn start_daemon(site: &Site, changed: bool) -> Result<&'static str, CommandError> {
    let was_active = site.is_active(DAEMON_UNIT);
    if was_active && !changed {
        return Ok("it was running already");
    }
    site.systemd()
        .restart(DAEMON_UNIT)
        .map_err(|error| CommandError::failed(&error, what_it_said(site, "cgmgr")))?;
    Ok(if was_active { "restarted" } else { "started" })
}

/// What the journal's entries mean is kept in a database, which only the journal's own program writes. Without it the entries
/// are there all the same.
fn read_catalog(changes: &[Change]) {
    if !units::touch_catalog(changes) {
        return;
    }
    let said = match Command::new("journalctl").arg("--update-catalog").output() {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    context::warn(format_args!("journalctl --update-catalog: {}", escape(&said)));
}

/// Where to read why the unit failed.
fn what_it_said(site: &Site, unit: &str) -> String {
    let of_user = if site.manager == Manager::User {
        "--user "
    } else {
        ""
    };
    format!("`systemctl {of_user}status {unit}` and `journalctl {of_user}-u {unit}` show what it said")
}

/// What was wanted is that sessions can be limited: that is looked at, and not what systemd said.
fn verify(site: &Site) -> Result<(), CommandError> {
    let help = what_it_said(site, "cgmgr-sessions");
    if !site.is_active(SESSIONS_SCOPE) {
        return Err(CommandError::failed(
            format!("{SESSIONS_UNIT} was started, but there is no {SESSIONS_SCOPE}"),
            help,
        ));
    }
    if site.manager == Manager::User {
        return Ok(());
    }
    match probe::host(None).base {
        Ok(base) if base.slices_are_systemds() && base.controllers.contains(&Controller::Memory) => Ok(()),
        Ok(base) => Err(CommandError::failed(
            format!(
                "{SESSIONS_SCOPE} is there, but sessions would be in {} without its controllers",
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

/// Names of the sessions that run in the manager's scope.
fn running(site: &Site, host: &Host) -> Vec<String> {
    let group = match site.manager {
        Manager::System => Some(crate::host::sessions_scope()),
        Manager::User => site
            .systemd()
            .unit(SESSIONS_SCOPE)
            .ok()
            .and_then(|unit| GroupPath::new(&unit.group)),
    };
    let Some(survey) = group.and_then(|group| survey_of(host, group)) else {
        return Vec::new();
    };
    let alive = survey.sessions.iter().filter(|s| s.state.populated);
    alive.map(|s| s.name.to_string()).collect()
}

fn survey_of(host: &Host, scope: GroupPath) -> Option<Survey> {
    let tree = Tree::open(&host.hierarchy.mount()?.point).ok()?;
    survey::survey(&tree, &Base::sessions_unit(scope, Vec::new()), &|_| false).ok()
}

fn report(
    changes: &[Change],
    would: &str,
    started: Option<Started>,
    later: &[String],
    json: bool,
) -> Outcome {
    let said_of = |unit: &str| {
        let found = started.iter().flatten().find(|(of, _)| *of == unit);
        found.map(|(_, said)| *said)
    };
    if json {
        let changed: Vec<_> = changes
            .iter()
            .map(|c| json!({ "action": c.verb(), "path": c.path.to_string_lossy() }))
            .collect();
        print_json(&json!({
            "changed": changed,
            "dry_run": !would.is_empty(),
            "service": said_of(SESSIONS_UNIT),
            "daemon": said_of(DAEMON_UNIT),
            "restart_later": later,
        }))?;
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
    let of_user = |change: &Change| change.path.to_string_lossy().contains("/systemd/user/");
    if let Some(started) = &started {
        for (unit, said) in started {
            writeln!(out, "{unit}: {said}")?;
        }
        let systemctl = match changes.iter().any(of_user) {
            true => "systemctl --user",
            false => "systemctl",
        };
        writeln!(
            out,
            "check it with: {systemctl} status cgmgr-sessions; cgmgr doctor"
        )?;
    }
    if !later.is_empty() {
        writeln!(
            out,
            "it runs on where it is until it is restarted: {}",
            later.join("; ")
        )?;
    }
    Ok(0)
}

/// `cgmgr uninstall`.
pub fn uninstall(args: &UninstallArgs) -> Outcome {
    let host = probe::host(None);
    let site = match args.user {
        true => Site::of_user()?,
        false => Site::of_machine(None),
    };
    let root = GroupPath::root();
    let applied = match site.manager {
        Manager::System => vec![AGENT_SLICE, WORKLOADS_SLICE],
        Manager::User => Vec::new(),
    };
    let applied: Vec<String> = applied
        .iter()
        .map(|slice| drop_in_path(&root.join(slice)))
        .collect();
    let (changes, foreign) = units::to_uninstall(&site.folder, &applied)?;
    for path in &foreign {
        context::warn(format_args!(
            "{} was not installed by cgmgr: left alone",
            path.display()
        ));
    }
    if changes.is_empty() {
        return report_removed(&changes, &[], args);
    }
    let sessions = if host.systemd {
        running(&site, &host)
    } else {
        Vec::new()
    };
    if !sessions.is_empty() {
        return Err(CommandError::failed(
            format!("sessions still run: {}", sessions.join(", ")),
            format!("cgmgr stop {}", sessions.join(" ")),
        ));
    }
    if args.dry_run {
        return report_removed(&changes, &[], args);
    }
    let ours = |name: &str| changes.iter().any(|c| c.path.ends_with(name));
    // Changed first, so that without the right to do so nothing is stopped.
    units::change(&changes)?;
    if host.systemd
        && let Err(mut error) = put_down(&site, &ours, &host)
    {
        for left in units::take_back(&changes) {
            error.message.push_str(&format!("; could not undo: {left}"));
        }
        let _ = enact::take_up(&site.systemd(), &[]);
        return Err(error);
    }
    if host.systemd {
        read_catalog(&changes);
    }
    let later = if host.systemd {
        still_protected(&site, &changes)
    } else {
        Vec::new()
    };
    changed(&site, &changes);
    report_removed(&changes, &later, args)
}

/// Puts on record that the slices may have changed, by cgmgr itself.
fn changed(site: &Site, changes: &[Change]) {
    if let (Manager::System, Ok(store)) = (site.manager, store()) {
        record_changes(&store, changes.len());
    }
}

fn put_down(site: &Site, ours: &dyn Fn(&str) -> bool, host: &Host) -> Result<(), CommandError> {
    let systemd = site.systemd();
    if ours(DAEMON_UNIT) && systemd.unit(DAEMON_UNIT)?.is_active() {
        systemd.stop(DAEMON_UNIT)?;
    }
    if ours(SESSIONS_UNIT) {
        for unit in [SESSIONS_UNIT, SESSIONS_SCOPE] {
            if systemd.unit(unit)?.is_active() {
                systemd.stop(unit)?;
            }
        }
    }
    systemd.reload()?;
    // A slice that somebody else uses stays up, now with systemd's defaults; stopping it would end what is in it.
    let tree = host
        .hierarchy
        .mount()
        .and_then(|mount| Tree::open(&mount.point).ok());
    for slice in [WORKLOADS_SLICE, AGENT_SLICE] {
        let found = systemd.unit(slice)?;
        let group = GroupPath::new(&found.group).filter(|group| !group.is_root());
        let Some(group) = tree
            .as_ref()
            .zip(group)
            .and_then(|(tree, at)| tree.find(&at).ok()?)
        else {
            continue;
        };
        if ours(slice) && found.is_active() && !group.populated()? && group.children()?.is_empty() {
            systemd.stop(slice)?;
        }
    }
    Ok(())
}

/// Services whose drop-in went, and that run below agent.slice until their next start.
fn still_protected(site: &Site, changes: &[Change]) -> Vec<String> {
    let unit = |change: &Change| {
        let directory = change.path.parent()?.file_name()?.to_str()?;
        let unit = directory.strip_suffix(".d")?;
        unit.ends_with(".service").then(|| unit.to_owned())
    };
    let inside = |unit: &String| {
        let found = site.systemd().unit(unit).unwrap_or_default();
        found.is_active() && found.group.contains(&format!("/{AGENT_SLICE}/"))
    };
    let units = changes.iter().filter_map(unit).filter(inside);
    units
        .map(|unit| format!("{} restart {unit}", site.systemctl()))
        .collect()
}

fn report_removed(changes: &[Change], later: &[String], args: &UninstallArgs) -> Outcome {
    if changes.is_empty() && !args.json {
        writeln!(io::stdout(), "nothing to remove: cgmgr is not installed here")?;
        return Ok(0);
    }
    report(
        changes,
        if args.dry_run { "would" } else { "" },
        None,
        later,
        args.json,
    )
}

/// `cgmgr anchor`: makes the scope of sessions with its anchor, or gives it a new one. Returns once that is done.
pub fn anchor(args: &AnchorArgs) -> Outcome {
    let manager = if args.user { Manager::User } else { Manager::System };
    let scope = anchor::ensure(manager)?;
    writeln!(io::stdout(), "sessions can be made in {scope}")?;
    Ok(0)
}
