//! Makes the scope of a session: systemd is asked for it with the limits as its properties, before the first process.

use super::failure::LaunchError;
use super::launch::Request;
use super::place::Place;
use super::prepare::{self, Prepared, Tenant, identity};
use super::promise;
use super::reserve::{Beside, reserve};
use crate::backend::cgroupfs::Cgroupfs;
use crate::backend::scope::{self, ScopeError};
use crate::backend::slices;
use crate::host::{Base, Host, Manager, WORKLOADS_SLICE};
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::{Group, Tree, survey};
use crate::limits::{Controller, KnobId, Part, Setting, Settings};
use crate::path::SessionName;
use crate::plan::Step;
use crate::plan::apply;
use crate::plan::equal::same;
use crate::plan::identity::Identity;
use crate::plan::receipt::{Backend, Outcome, Receipt, of_read_back, predict};
use crate::plan::session as session_plan;
use crate::plan::unit::{self, Property};
use crate::systemd::{BusError, Systemd};
use rustix::io::Errno;
use std::borrow::Cow;

/// How long a stopped session has between SIGTERM and SIGKILL, in µs, where systemd stops it.
const STOP_USEC: u64 = 20_000_000;

impl From<ScopeError> for LaunchError {
    fn from(error: ScopeError) -> Self {
        Self::new(error.to_string(), error.help())
    }
}

impl From<BusError> for LaunchError {
    fn from(error: BusError) -> Self {
        Self::new(error.to_string(), error.help)
    }
}

/// Makes the scope of a session with its leaves, its mark and its limits.
pub(super) fn in_scope<'a>(
    request: &Request<'_>,
    place: &'a Place,
    tree: &'a Tree,
    base: &Base,
    manager: Manager,
    tenant: &Tenant,
) -> Result<Prepared<'a>, LaunchError> {
    let systemd = Systemd::of(manager);
    let mut warnings = Vec::new();
    if manager == Manager::System {
        ready_slices(request.settings, place, tree, base, &mut warnings)?;
    }
    let host = host(place, request.settings, &systemd)?;
    let (name, lock) = reserve(request, place, &Beside::On(tree, base))?;
    let mut receipt = session_plan::forecast(request.settings, &host, Backend::Scope, &[]);
    tenant.limit(&mut receipt);
    let identity = identity(request, place, tenant, &receipt);
    let unit = name.scope(random());
    let properties = properties(&name, request.settings, &identity, &receipt, &host);
    // What oom.group and pids.max need on the leaf.
    let wanted: Vec<Controller> = [Controller::Memory, Controller::Pids]
        .into_iter()
        .filter(|c| base.controllers.contains(c))
        .collect();
    let made = scope::make(&systemd, tree, &unit, &properties, &wanted)?;
    // The scope goes with its pin, and what is below goes with it.
    let mut fs = Cgroupfs::new(tree, place.host.machine.page_size, &|_| Some(Box::new(())));
    let path = made.path;
    fs.keep(path.clone(), made.main);
    let mut steps = vec![Step::Identify {
        group: path.clone(),
        identity: identity.to_text(),
    }];
    let on_leaf = held(request.settings, &receipt).filter(|s| is_on_leaf(s));
    steps.extend(on_leaf.filter_map(|setting| {
        Some(Step::Write {
            group: path.clone(),
            knob: setting.knob.id,
            value: setting.text()?,
            before: None,
        })
    }));
    fs.carry_out(&steps)?;
    let group = fs.take(&path)?;
    read_back(&group, request.settings, &host, &mut receipt)?;
    let promise = promise::of(tree, &path, tenant.user(request), place.host.euid);
    if manager == Manager::User {
        warnings.extend(not_held(request.settings, place, tree, base));
    }
    Ok(Prepared {
        name,
        started: identity.started,
        lock: Some(lock),
        group: Some((group, path)),
        fs: Some(fs),
        pin: Some(made.pin),
        receipt,
        promise,
        warnings,
    })
}

/// What the role declares for the slices and they do not have: cgmgr does not set those of a user's own systemd. By now
/// the one that the scope is in is there, for systemd makes it with what is in it.
fn not_held(settings: &Settings, place: &Place, tree: &Tree, base: &Base) -> Option<String> {
    let mut missing = Vec::new();
    let mut properties = Vec::new();
    for (part, slice) in [(Part::Agent, &base.agent), (Part::Workloads, &base.workloads)] {
        let group = tree.find(slice).ok().flatten();
        let declared = settings.part(part).filter(|s| s.value.is_some());
        for setting in declared {
            let (Some(file), Some(wanted)) = (setting.knob.file, setting.text()) else {
                continue;
            };
            let found = group.as_ref().and_then(|group| group.get(file).ok().flatten());
            let page_size = place.host.machine.page_size;
            if found.is_some_and(|found| same(setting.knob, &wanted, &found, page_size)) {
                continue;
            }
            missing.push(setting.knob.key);
            if part == Part::Workloads {
                properties.extend(setting.knob.systemd.map(|name| format!("{name}=…")));
            }
        }
    }
    if missing.is_empty() {
        return None;
    }
    let missing = missing.join(", ");
    let remedy = match properties.is_empty() {
        true => "only root's cgmgr protects an agent".to_owned(),
        false => format!(
            "for all of this user's sessions together: systemctl --user set-property {WORKLOADS_SLICE} {}",
            properties.join(" ")
        ),
    };
    Some(format!(
        "not enforced here: {missing}; cgmgr does not set the slices of a user's own systemd ({remedy})"
    ))
}

/// Has systemd make the slices that are missing, from the role, whose `[agent]` and `[workloads]` then hold.
fn ready_slices(
    settings: &Settings,
    place: &Place,
    tree: &Tree,
    base: &Base,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    if tree.find(&base.workloads)?.is_some() {
        prepare::differing_ceiling(settings, place, tree, base, warnings);
        return Ok(());
    }
    let _alone = place.alone()?;
    let mut found = survey::survey(tree, base, &|name| place.registry.is_attended(name))?;
    slices::look(&mut found, base).map_err(|e| LaunchError::new(e.to_string(), e.help))?;
    let wanted = apply::Wanted {
        role: "",
        settings,
        session_settings: &|_| settings.clone(),
        force: false,
    };
    let plan = apply::plan(&wanted, &place.host, base, &found);
    prepare::carry_out(&plan, place, tree, warnings)
}

/// The host, with systemd's version where a CPU quota makes it matter.
fn host<'a>(place: &'a Place, settings: &Settings, systemd: &Systemd) -> Result<Cow<'a, Host>, LaunchError> {
    let mut host = place.host_for(settings);
    let cpus = settings.get(KnobId::Cpus);
    let text = cpus.text().filter(|_| cpus.value.is_some());
    let rounds = text.is_some_and(|text| unit::rounded(&text, unit::ROUNDS).is_some());
    if rounds && host.systemd_version.is_none() {
        host.to_mut().systemd_version = Some(systemd.version()?);
    }
    Ok(host)
}

/// The settings that are to hold.
fn held<'a>(settings: &'a Settings, receipt: &'a Receipt) -> impl Iterator<Item = &'a Setting> {
    session_plan::limits(settings).filter(|setting| {
        receipt
            .entries
            .iter()
            .any(|e| e.knob == setting.knob.id && e.outcome.is_written())
    })
}

/// Whether a limit is on the leaf: systemd has no property for it that can be changed, or the pin would count.
fn is_on_leaf(setting: &Setting) -> bool {
    matches!(setting.knob.id, KnobId::OomGroup | KnobId::Pids)
}

fn properties(
    name: &SessionName,
    settings: &Settings,
    identity: &Identity,
    receipt: &Receipt,
    host: &Host,
) -> Vec<Property> {
    let command = crate::text::escape(&identity.command.join(" "));
    let command: String = command.chars().take(80).collect();
    let mut all = vec![
        Property::text("Description", format!("cgmgr session {name}: {command}")),
        Property::text("Slice", WORKLOADS_SLICE),
        Property::switch("Delegate", true),
        // Said always: the manager's defaults are others' to choose (DefaultOOMPolicy=, DefaultTasksMax=).
        Property::text("OOMPolicy", "continue"),
        Property::text("CollectMode", "inactive-or-failed"),
        Property::switch("SendSIGHUP", true),
        Property::number("TimeoutStopUSec", STOP_USEC),
    ];
    let mut tasks = u64::MAX;
    for setting in held(settings, receipt) {
        if setting.knob.id == KnobId::Pids {
            // One more for the pin; the leaf has the very number.
            tasks = setting
                .text()
                .and_then(|text| text.parse::<u64>().ok())
                .map_or(u64::MAX, |pids| pids + 1);
            continue;
        }
        all.extend(unit::of_setting(
            setting,
            host.systemd_version.unwrap_or_default(),
        ));
    }
    all.push(Property::number("TasksMax", tasks));
    all
}

/// What systemd said is not what counts: it answers before it writes, and goes on where the kernel refuses.
fn read_back(
    group: &Group,
    settings: &Settings,
    host: &Host,
    receipt: &mut Receipt,
) -> Result<(), LaunchError> {
    let expected = receipt.clone();
    for setting in held(settings, &expected) {
        let (Some(file), Some(wanted)) = (setting.knob.file, setting.text()) else {
            continue;
        };
        let found = group.get(file)?.unwrap_or_default();
        let found = found.lines().next().unwrap_or("");
        let foretold = predict(setting, host, Backend::Scope, &[]);
        let outcome = of_read_back(setting, &foretold, &wanted, found, host.machine.page_size);
        if matches!(outcome, Outcome::NotEnforced { .. }) {
            let error = KernelError::new(Doing::ReadBack, group.file(file), Errno::INVAL)
                .with_value(&wanted)
                .with_detail(format!("systemd was asked for it, and it holds {found}"));
            return Err(error.into());
        }
        receipt.note(setting, outcome);
    }
    Ok(())
}

/// What makes a unit's name one that was never used: systemd knows a name for as long as anything refers to its unit.
pub(super) fn random() -> u32 {
    let mut bytes = [0u8; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => std::process::id(),
    }
}
