//! Makes everything that a session needs before its first process, and takes it back when the launch fails.

use super::child;
use super::command;
use super::failure::{FailureKind, LaunchError};
use super::launch::Request;
use super::place::Place;
use super::promise;
use super::registry::Lock;
use super::reserve::{Beside, reserve};
use super::scoped;
use crate::backend::anchor;
use crate::backend::cgroupfs::Cgroupfs;
use crate::backend::scope::Pin;
use crate::host::{Base, sessions_scope};
use crate::kernel::sys::{self, Child};
use crate::kernel::{Group, Tree, process, survey};
use crate::limits::{Part, Priorities, Settings};
use crate::order;
use crate::path::{GroupPath, SessionName};
use crate::plan::Plan;
use crate::plan::apply;
use crate::plan::equal::same;
use crate::plan::hierarchy;
use crate::plan::identity::Identity;
use crate::plan::receipt::{Backend, Outcome, Promise, Receipt, of_read_back, predict};
use crate::plan::session as session_plan;
use std::time::{SystemTime, UNIX_EPOCH};

/// A session that is ready for its first process.
pub(super) struct Prepared<'a> {
    pub(super) name: SessionName,
    /// When it begins, in seconds since 1970, as its group's mark has it.
    pub(super) started: u64,
    pub(super) lock: Option<Lock>,
    pub(super) group: Option<(Group, GroupPath)>,
    pub(super) fs: Option<Cgroupfs<'a>>,
    /// What holds its scope open, where it is one.
    pub(super) pin: Option<Pin>,
    pub(super) receipt: Receipt,
    pub(super) promise: Promise,
    pub(super) warnings: Vec<String>,
}

/// Who is to live in the group of a session.
pub(super) enum Tenant {
    /// The command of the request, which is to get these priorities.
    Command(Option<Priorities>),
    /// Processes that run already: whose they are.
    Running(sys::Identity),
}

impl Tenant {
    /// Whose processes these are; `None` for the caller's.
    pub(super) fn user<'a>(&'a self, request: &'a Request<'_>) -> Option<&'a sys::Identity> {
        match self {
            Self::Command(_) => request.user.as_ref().map(|user| &user.identity),
            Self::Running(owner) => Some(owner),
        }
    }

    /// What cannot be set for processes that run already is not enforced.
    pub(super) fn limit(&self, receipt: &mut Receipt) {
        let Self::Running(_) = self else { return };
        for entry in &mut receipt.entries {
            if entry.knob.knob().is_on_process() {
                entry.outcome = Outcome::NotEnforced {
                    why: "it is set before a command is executed, and these processes run already".into(),
                };
            }
        }
    }
}

/// The user who asks for a session: behind sudo it is not root.
pub(super) fn creator() -> u32 {
    let uid = rustix::process::getuid();
    let behind_sudo = || std::env::var("SUDO_UID").ok()?.parse().ok();
    match uid.is_root() {
        true => behind_sudo().unwrap_or(0),
        false => uid.as_raw(),
    }
}

/// Who the session is: what its group is marked with.
pub(super) fn identity(request: &Request<'_>, place: &Place, tenant: &Tenant, receipt: &Receipt) -> Identity {
    let priorities = match tenant {
        Tenant::Command(priorities) => *priorities,
        Tenant::Running(_) => None,
    };
    Identity {
        role: request.role.clone(),
        role_file: request.role_file.clone(),
        overrides: request.overrides.clone(),
        set_live: Vec::new(),
        limits: order::map(
            receipt
                .entries
                .iter()
                .map(|e| (e.knob.knob().key.to_owned(), e.requested.clone())),
        ),
        unconfined: receipt
            .unconfined()
            .map(|e| e.knob.knob().key.to_owned())
            .collect(),
        command: command::shown(&request.argv),
        uid: tenant.user(request).map_or(place.host.euid, |user| user.uid),
        creator: Some(creator()),
        nice: priorities.map(|p| p.nice),
        oom_score_adj: priorities.map(|p| p.oom_score_adj),
        supervisor: std::process::id() as i32,
        supervisor_start: process::own_start_time(),
        started: now(),
    }
}

/// Makes everything that a session needs before its first process: its name, its group, its limits.
pub(super) fn prepare<'a>(
    request: &Request<'_>,
    place: &'a Place,
) -> Result<(Prepared<'a>, Child), LaunchError> {
    let own = place.own_group();
    let nested = own.as_ref().and_then(|own| place.session_of(own));
    let mut told = Vec::new();
    let priorities = child::priorities(request.settings, &mut told);
    let mut prepared = match &nested {
        Some(outer) => inside(request, place, outer),
        None => match place.base() {
            Some((tree, base)) => in_group(request, place, tree, base, &Tenant::Command(priorities))?,
            None => without_group(request, place)?,
        },
    };
    prepared.warnings.append(&mut told);
    if request.require_limits && prepared.receipt.unconfined().next().is_some() {
        let what: Vec<String> = prepared
            .receipt
            .unconfined()
            .map(|e| format!("{} ({})", e.knob.knob().key, e.outcome))
            .collect();
        prepared.undo();
        return Err(LaunchError {
            kind: FailureKind::Unenforceable,
            message: format!(
                "not everything declared can be enforced here: {}",
                what.join(", ")
            ),
            help: Some(
                "`cgmgr doctor` says what is missing; without --require-limits the command would run".into(),
            ),
        });
    }
    match child::lay_out(request, place, own.as_ref(), priorities, &mut prepared) {
        Ok(child) => Ok((prepared, child)),
        Err(message) => {
            prepared.undo();
            Err(LaunchError::new(message, "give a command that can be executed"))
        }
    }
}

impl Prepared<'_> {
    /// Takes back everything that was made for this session.
    pub(super) fn undo(&mut self) {
        self.group = None;
        let pin = self.pin.take();
        if let Some(fs) = &mut self.fs {
            for left in fs.roll_back() {
                tracing::error!("could not undo: {left}");
            }
        }
        // Last: with it the scope goes.
        drop(pin);
    }
}

/// Makes the group of a session with its mark and its limits.
pub(super) fn in_group<'a>(
    request: &Request<'_>,
    place: &'a Place,
    tree: &'a Tree,
    base: &Base,
    tenant: &Tenant,
) -> Result<Prepared<'a>, LaunchError> {
    if let Some(manager) = base.scope_manager() {
        return scoped::in_scope(request, place, tree, base, manager, tenant);
    }
    // This launch holds the session's lock itself: undoing needs no further one.
    let mut fs = Cgroupfs::new(tree, place.host.machine.page_size, &|_| Some(Box::new(())));
    let mut warnings = Vec::new();
    let parent = ready_parent(request.settings, place, tree, base, &mut warnings)?;
    let (name, lock) = reserve(request, place, &Beside::Below(&parent))?;
    let mut lacking: Vec<&str> = Vec::new();
    let expected = session_plan::limits(request.settings)
        .filter(|s| s.value.is_some() && s.knob.controller.is_none_or(|c| base.controllers.contains(&c)));
    for file in expected.filter_map(|s| s.knob.file) {
        if !place.has_file(&parent, file)? {
            lacking.push(file);
        }
    }
    let host = place.host_for(request.settings);
    let mut receipt = session_plan::forecast(request.settings, &host, Backend::Cgroupfs, &lacking);
    tenant.limit(&mut receipt);
    let user = tenant.user(request);
    let identity = identity(request, place, tenant, &receipt);
    let path = base.sessions.join(&name.directory());
    fs.keep(base.sessions.clone(), parent);
    let plan = session_plan::plan(request.settings, &identity, &path, &receipt);
    fs.carry_out(&plan.steps)?;
    for written in &fs.written {
        let setting = request.settings.get(written.knob);
        let foretold = predict(setting, &host, Backend::Cgroupfs, &lacking);
        let (wanted, found) = (&written.wanted, &written.found);
        receipt.note(
            setting,
            of_read_back(setting, &foretold, wanted, found, host.machine.page_size),
        );
    }
    let group = fs.take(&path)?;
    let promise = promise::of(tree, &path, user, place.host.euid);
    Ok(Prepared {
        name,
        started: identity.started,
        lock: Some(lock),
        group: Some((group, path)),
        fs: Some(fs),
        pin: None,
        receipt,
        promise,
        warnings,
    })
}

/// The parent of session groups, made if it is missing: from the role, whose `[agent]` and `[workloads]` then hold.
pub(super) fn ready_parent(
    settings: &Settings,
    place: &Place,
    tree: &Tree,
    base: &Base,
    warnings: &mut Vec<String>,
) -> Result<Group, LaunchError> {
    // One elsewhere was named, and is whoever's who made it.
    let is_systemds = base.group == sessions_scope() || base.is_users();
    let mut parent = tree.find(&base.sessions)?;
    if is_systemds && !anchor::holds(parent.as_ref())? {
        anchored(place, tree, base, warnings)?;
        parent = tree.find(&base.sessions)?;
    }
    if let Some(parent) = parent {
        let enabled = parent.get("cgroup.subtree_control")?.unwrap_or_default();
        let missing = |c: &crate::limits::Controller| !enabled.split(' ').any(|e| e == c.name());
        if !hierarchy::wanted(base).iter().any(missing) {
            differing_ceiling(settings, place, tree, base, warnings);
            return Ok(parent);
        }
    }
    let _alone = place.alone()?;
    let found = survey::survey(tree, base, &|name| place.registry.is_attended(name))?;
    let wanted = apply::Wanted {
        role: "",
        settings,
        session_settings: &|_| settings.clone(),
        force: false,
    };
    let plan = if base.slices_are_systemds() {
        hierarchy::plan(base, &found)
    } else {
        apply::plan(&wanted, &place.host, base, &found)
    };
    carry_out(&plan, place, tree, warnings)?;
    Ok(tree.group(&base.sessions)?)
}

/// Has systemd's scope of sessions made anew, or given a new anchor: without one it would go with the session that ends
/// last, even while another one is being launched.
fn anchored(place: &Place, tree: &Tree, base: &Base, warnings: &mut Vec<String>) -> Result<(), LaunchError> {
    let _alone = place.alone()?;
    // Another launch may have been faster.
    if anchor::holds(tree.find(&base.sessions)?.as_ref())? {
        return Ok(());
    }
    match anchor::renew(tree, &base.group) {
        Ok(()) => Ok(()),
        // Sessions live in it, so this one can.
        Err(error) if tree.find(&base.sessions)?.is_some() => {
            warnings.push(error.message);
            Ok(())
        }
        Err(error) => Err(LaunchError::new(error.message, error.help)),
    }
}

/// Carries a plan out for a launch: what speaks against it is the launch's error.
pub(super) fn carry_out(
    plan: &Plan,
    place: &Place,
    tree: &Tree,
    warnings: &mut Vec<String>,
) -> Result<(), LaunchError> {
    if let Some(refusal) = plan.refusals.first() {
        return Err(LaunchError {
            kind: FailureKind::Cgmgr,
            message: refusal.message.clone(),
            help: refusal.help.clone(),
        });
    }
    warnings.extend(plan.warnings.iter().map(|w| w.message.clone()));
    let guard = |name: &SessionName| place.take_charge(name);
    let mut fs = Cgroupfs::new(tree, place.host.machine.page_size, &guard);
    fs.carry_out(&plan.steps)?;
    Ok(())
}

/// Only `apply` changes slices; a role that declares another ceiling than the one in force is told so.
pub(super) fn differing_ceiling(
    settings: &Settings,
    place: &Place,
    tree: &Tree,
    base: &Base,
    warnings: &mut Vec<String>,
) {
    let declared: Vec<_> = settings
        .part(Part::Workloads)
        .filter(|s| s.value.is_some() && s.knob.file.is_some())
        .collect();
    if declared.is_empty() {
        return;
    }
    let Ok(workloads) = tree.group(&base.workloads) else {
        return;
    };
    let mut differing = Vec::new();
    for setting in declared {
        let file = setting.knob.file.unwrap_or_default();
        let Ok(Some(found)) = workloads.get(file) else {
            continue;
        };
        let wanted = setting.text().unwrap_or_default();
        if !same(setting.knob, &wanted, &found, place.host.machine.page_size) {
            let found = found.lines().next().unwrap_or_default().to_owned();
            differing.push(format!("{file} is {found} and not {wanted}"));
        }
    }
    if !differing.is_empty() {
        warnings.push(format!(
            "the ceiling in force is not the role's [workloads] ({}); `cgmgr apply` makes it so",
            differing.join(", ")
        ));
    }
}

fn without_group<'a>(request: &Request<'_>, place: &Place) -> Result<Prepared<'a>, LaunchError> {
    let (name, lock) = reserve(request, place, &Beside::Nothing)?;
    let receipt = session_plan::forecast(request.settings, &place.host, Backend::Process, &[]);
    let promise = Promise::None;
    Ok(Prepared {
        name,
        started: now(),
        lock: Some(lock),
        group: None,
        fs: None,
        pin: None,
        receipt,
        promise,
        warnings: Vec::new(),
    })
}

/// Inside a session the command stays in it: a session beside it would escape its limits.
fn inside<'a>(request: &Request<'_>, place: &Place, outer: &SessionName) -> Prepared<'a> {
    let mut receipt = session_plan::forecast(request.settings, &place.host, Backend::Process, &[]);
    for entry in &mut receipt.entries {
        if entry.knob.knob().file.is_some() {
            entry.outcome = Outcome::NotEnforced {
                why: format!("already inside session {outer}, whose limits hold"),
            };
        }
    }
    let warnings = vec![format!("already inside session {outer}: the command stays in it")];
    Prepared {
        name: outer.clone(),
        started: now(),
        lock: None,
        group: None,
        fs: None,
        pin: None,
        receipt,
        promise: Promise::None,
        warnings,
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
