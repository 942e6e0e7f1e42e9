//! The scope of an agent: systemd is asked for it, with the process that is to be in it.

use super::{Request, Whom, gone};
use crate::host::{AGENT_SLICE, Base, Manager};
use crate::kernel::{Tree, process};
use crate::limits::{KnobId, Part, Settings};
use crate::path::GroupPath;
use crate::plan::unit::{self, Property};
use crate::session::command;
use crate::session::failure::LaunchError;
use crate::session::scoped::random;
use crate::systemd::{Reason, Systemd};
use rustix::fd::AsFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How the description of a slice of a user's own systemd begins that cgmgr had made.
const OURS: &str = "cgmgr: ";

/// Has systemd make the scope.
///
/// # Errors
///
/// Its name is in use, systemd refuses, or the process is elsewhere although it was said that it had been moved.
pub(super) fn enter(
    request: &Request<'_>,
    manager: Manager,
    tree: &Tree,
    base: &Base,
    notes: &mut Vec<String>,
) -> Result<(), LaunchError> {
    let systemd = Systemd::of(manager);
    let pid = request.whom.pid();
    let unit = match &request.name {
        Some(name) => format!("cgmgr-agent-{name}.scope"),
        None => format!("cgmgr-agent-{}-{:08x}.scope", request.stem, random()),
    };
    let pidfd = Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(|errno| {
            LaunchError::new(
                format!("cannot hold pid {pid}: {errno}"),
                "name a process that runs",
            )
        })?;
    let properties = properties(request, tree, base);
    if let Err(error) = systemd.start_transient(&unit, &properties, &[(pid, pidfd.as_fd())]) {
        let in_use = error.reason == Reason::UnitExists;
        let mut error = LaunchError::from(error);
        if in_use {
            error.help = Some("an agent of that name runs: choose another --name".into());
        }
        return Err(error);
    }
    if let Whom::Other(held) = &request.whom
        && !held.lives()
    {
        return Err(gone(held));
    }
    // What systemd said is not what counts.
    let found = process::group_of(pid).and_then(|group| GroupPath::new(&group));
    if let Some(found) = found.as_ref().filter(|found| found.name() != Some(unit.as_str())) {
        return Err(LaunchError::new(
            format!(
                "{} said that {unit} was started, but {} is in {found}",
                manager.describe(),
                request.whom.describe()
            ),
            format!("`systemctl status {unit}` shows what it did"),
        ));
    }
    if found.is_some_and(|found| !base.agent.contains(&found)) {
        notes.push(format!("{unit} is not in {}", base.agent));
    }
    Ok(())
}

/// What the scope is. Memory that is protected is said on it as well: where the hierarchy is mounted without
/// `memory_recursiveprot`, a slice's protection does not reach what is below it (cgroup-v2.rst, "memory.min").
fn properties(request: &Request<'_>, tree: &Tree, base: &Base) -> Vec<Property> {
    let command: String = command::shown(&request.argv).join(" ").chars().take(80).collect();
    let mut all = vec![
        Property::text("Description", format!("cgmgr agent: {command}")),
        Property::text("Slice", AGENT_SLICE),
        Property::text("OOMPolicy", "continue"),
        Property::text("ManagedOOMPreference", "omit"),
        Property::text("CollectMode", "inactive-or-failed"),
        Property::number("TasksMax", u64::MAX),
    ];
    let slice = tree.find(&base.agent).ok().flatten();
    for (id, name) in [
        (KnobId::AgentMemoryMin, "MemoryMin"),
        (KnobId::AgentMemoryLow, "MemoryLow"),
    ] {
        let setting = request.settings.get(id);
        let in_force = slice
            .as_ref()
            .and_then(|slice| slice.get(setting.knob.file?).ok().flatten())
            .and_then(|text| text.trim().parse().ok());
        let declared = setting.value.as_ref().and_then(|_| setting.text()?.parse().ok());
        if let Some(bytes) = in_force.filter(|bytes| *bytes > 0).or(declared) {
            all.push(Property::number(name, bytes));
        }
    }
    all
}

/// Has a user's own systemd make agent.slice, as `[agent]` declares it. What it has already is left as it is.
///
/// # Errors
///
/// It cannot be asked, or refuses.
pub(super) fn make_slice_of_user(settings: &Settings, base: &Base) -> Result<(), LaunchError> {
    let systemd = Systemd::of(Manager::User);
    let found = systemd.unit(AGENT_SLICE)?;
    if found.is_active() || !found.fragment.is_empty() {
        return Ok(());
    }
    let declared = settings.part(Part::Agent).filter(|s| {
        let there = |c| base.controllers.contains(&c);
        s.value.is_some() && s.knob.controller.is_none_or(there)
    });
    let mut properties: Vec<Property> = declared.filter_map(|s| unit::of_setting(s, u32::MAX)).collect();
    let lines: Vec<String> = properties.iter().map(Property::line).collect();
    let said = if lines.is_empty() {
        "no limits".to_owned()
    } else {
        lines.join(" ")
    };
    properties.push(Property::text("Description", format!("{OURS}{said}")));
    match systemd.start_transient(AGENT_SLICE, &properties, &[]) {
        // Another one was faster.
        Err(error) if error.reason == Reason::UnitExists => Ok(()),
        other => Ok(other?),
    }
}

/// Has a user's own systemd stop the agent.slice that [`super::protect`] had it make, where nobody is in it any more. Whether it
/// did.
///
/// # Errors
///
/// It cannot be asked, or refuses.
pub fn take_back_slice_of_user(tree: &Tree, base: &Base) -> Result<bool, LaunchError> {
    let Some(group) = tree.find(&base.agent)? else {
        return Ok(false);
    };
    let systemd = Systemd::of(Manager::User);
    let found = systemd.unit(AGENT_SLICE)?;
    if !found.is_active() || !found.description.starts_with(OURS) || group.populated()? {
        return Ok(false);
    }
    systemd.stop(AGENT_SLICE)?;
    Ok(true)
}
