//! `plan` and `apply`: what is to be done, shown or done.

use super::args::{ApplyArgs, Global};
use super::context::{self, CommandError, Outcome, print_json, warn_notice};
use super::roles;
use crate::backend::cgroupfs::{Cgroupfs, Written};
use crate::backend::slices;
use crate::host::{Base, Host};
use crate::kernel::error::KernelError;
use crate::kernel::{Group, Tree, disks, survey};
use crate::limits::{KnobId, Part, Setting, Settings};
use crate::path::{GroupPath, SessionName};
use crate::plan::apply::{Wanted, is_live_of, plan as plan_apply};
use crate::plan::drift::of_session as of_scope;
use crate::plan::receipt::{
    Backend, Entry, Outcome as Held, Receipt, depends_on_version, of_read_back, predict,
};
use crate::plan::slices::{Drift, drift, foretell};
use crate::plan::state::{SessionState, Survey};
use crate::plan::{Plan, Step};
use crate::record::{Applied, Fact};
use crate::role::{HostPolicy, Overrides, Role};
use crate::session::applied;
use crate::session::launch::Place;
use crate::session::records::{self, of_machine};
use crate::store::Store;
use serde_json::{Value as Json, json};
use std::borrow::Cow;
use std::io::{self, Write};

/// Where sessions are made, with the disks: a role may declare weights for three parts.
fn place(global: &Global) -> Result<Place, CommandError> {
    let mut place = context::place(global)?;
    if place.base().is_some_and(|(_, base)| base.is_users()) {
        return Err(CommandError::failed(
            "the slices of a user's own systemd are not set by cgmgr: [agent] and [workloads] hold on the machine's only",
            "as root: `cgmgr apply`; or for all sessions of yours together: systemctl --user set-property workloads.slice MemoryMax=8G",
        ));
    }
    place.host.disks = Some(disks::disks(&place.host.hierarchy));
    Ok(place)
}

/// `cgmgr plan` and `cgmgr apply --dry-run`.
pub fn plan(args: &ApplyArgs, global: &Global) -> Outcome {
    let place = place(global)?;
    let work = Work::of(args, global, &place)?;
    let (tree, base) = work.at;
    if args.json {
        print_json(&plan_json(&work.plan, &place, tree, base))?;
    } else {
        print_plan(&work.plan, tree.mount())?;
    }
    Ok(u8::from(!work.plan.refusals.is_empty()))
}

/// `cgmgr apply`.
pub fn apply(args: &ApplyArgs, global: &Global) -> Outcome {
    let place = place(global)?;
    let _alone = place.alone()?;
    let work = Work::of(args, global, &place)?;
    let (tree, base) = work.at;
    let json = args.json;
    if !work.plan.refusals.is_empty() {
        if json {
            print_json(&plan_json(&work.plan, &place, tree, base))?;
        }
        return Err(refused(&work.plan));
    }
    if !json {
        work.plan.warnings.iter().for_each(warn_notice);
    }
    carry_out(&work.plan.steps, &place, tree)?;
    record_apply(&work, args, &place);
    place.registry.sweep();
    let after = look(&place, tree, base)?;
    let receipts = receipts(&work, &work.sessions(&after, &place), base, &after);
    if json {
        let mut value = plan_json(&work.plan, &place, tree, base);
        value["changed"] = json!(work.plan.steps.len());
        value["receipt"] = receipts
            .iter()
            .flat_map(|(group, receipt)| {
                receipt.entries.iter().map(move |entry| {
                    let mut json = entry.to_json();
                    json["group"] = json!(group.as_str());
                    json
                })
            })
            .collect();
        print_json(&value)?;
    } else {
        print_receipts(&receipts, &work.plan)?;
    }
    held_or_failed(&receipts, &after, &place, &work)
}

/// Puts on record what became of the slices, where that is another than was on record: an `apply` may have been killed before it
/// could tell of what it had done.
fn record_apply(work: &Work<'_>, args: &ApplyArgs, place: &Place) {
    let Some(store) = &place.store else { return };
    let (tree, base) = work.at;
    let limits = applied::limits(tree, base);
    let changes = work.plan.steps.len();
    let is_known = || match applied::last(store) {
        Ok(Some(last)) => last.limits.is_empty() || last.limits == limits,
        Ok(None) | Err(_) => true,
    };
    if changes > 0 || !is_known() {
        let role = &work.role;
        let ceiling = role.settings.value(KnobId::WorkloadsMemoryMax);
        let ceiling = ceiling.and_then(|value| value.bytes()).map(|limit| limit.0);
        let fact = Applied {
            file: Some(args.role.to_string_lossy().into_owned()),
            changes: changes as u64,
            limits,
            ceiling,
            ceiling_from: ceiling.map(|_| role.where_to_change(KnobId::WorkloadsMemoryMax)),
        };
        record(store, Some(&role.name), fact);
    }
}

/// The same after changes that were not those of a role. Where nothing is on record there is nothing to be put right: who takes
/// everything away makes no directory for that.
pub fn record_changes(store: &Store, changes: usize) {
    if changes > 0 && store.directory().path().exists() {
        record(store, None, Applied::of(changes));
    }
}

/// Puts on record that cgmgr itself has changed the slices: it was not somebody else.
fn record(store: &Store, role: Option<&str>, applied: Applied) {
    if let Err(error) = of_machine(store, role, Fact::Applied(applied)) {
        context::warn(format_args!("what was changed cannot be recorded: {error}"));
    }
}

/// What this host was said to hold, and does not: systemd accepts a value and may write another, or none.
fn held_or_failed(
    receipts: &[(GroupPath, Receipt)],
    after: &Survey,
    place: &Place,
    work: &Work<'_>,
) -> Outcome {
    let (tree, base) = work.at;
    let mut missed = Vec::new();
    for (group, receipt) in receipts {
        // A session that ended while it was read held nothing any more.
        if base.session_of(group).is_some() && has_ended(tree, group, after)? {
            continue;
        }
        for entry in &receipt.entries {
            if let Held::NotEnforced { why } = &entry.outcome
                && foretold_enforced(entry, place)
                && !work
                    .left
                    .iter()
                    .any(|d| d.slice == *group && d.knob == entry.knob)
            {
                missed.push(format!("{} of {group} ({why})", entry.knob.knob().key));
            }
        }
    }
    if missed.is_empty() {
        return Ok(0);
    }
    Err(CommandError::failed(
        format!("not everything took effect: {}", missed.join(", ")),
        "`cgmgr doctor` shows what is in the way",
    ))
}

/// Whether a session is over that was there `after`. Its name may have been taken by another one since.
fn has_ended(tree: &Tree, group: &GroupPath, after: &Survey) -> Result<bool, KernelError> {
    let Some(found) = tree.find(group)? else {
        return Ok(true);
    };
    let then = after.sessions.iter().find(|s| s.group == *group);
    Ok(then.is_none_or(|session| session.identity != survey::identity(&found)))
}

fn foretold_enforced(entry: &Entry, place: &Place) -> bool {
    let knob = entry.knob.knob();
    let available = |base: &Base| knob.controller.is_none_or(|c| base.controllers.contains(&c));
    knob.in_this_version && knob.file.is_some() && place.host.base.as_ref().is_ok_and(available)
}

/// Everything a plan is made from, and the plan.
struct Work<'a> {
    role: Role,
    /// What the host allows, over the flags that a session was launched with too.
    policy: Option<HostPolicy>,
    at: (&'a Tree, &'a Base),
    plan: Plan,
    /// The host, with what decides what becomes of the limits.
    host: Cow<'a, Host>,
    /// What the plan was made from.
    found: Survey,
    /// What somebody else set since, and is left so.
    left: Vec<Drift>,
}

impl<'a> Work<'a> {
    fn of(args: &ApplyArgs, global: &Global, place: &'a Place) -> Result<Self, CommandError> {
        let (role, warnings) = roles::read(&args.role, &Overrides::default(), &place.host, global)?;
        let policy = roles::policy(&place.host.machine, global)?;
        if !args.json {
            roles::show(&warnings, global);
        }
        let at = place.base().ok_or_else(|| match &place.host.base {
            Err(none) => CommandError::failed(
                format!("there is nothing to apply limits to: {}", none.why),
                &none.fix,
            ),
            Ok(_) => CommandError::failed(
                "the process backend keeps no groups: there is nothing to apply limits to",
                "leave --backend process out",
            ),
        })?;
        let found = look(place, at.0, at.1)?;
        let of_session = |session: &SessionState| session_settings(&role, session, place, policy.as_ref());
        let host = host(&role, &found, &of_session, &place.host);
        let wanted = Wanted {
            role: &role.name,
            settings: &role.settings,
            session_settings: &of_session,
            force: args.force,
        };
        let plan = plan_apply(&wanted, &host, at.1, &found);
        let mut left = Vec::new();
        if !args.force {
            left = drift(&role.settings, &host, at.1, &found);
            for session in found.sessions.iter().filter(|s| is_live_of(s, &role.name)) {
                let settings = of_session(session);
                let settings: Vec<&Setting> = settings.part(Part::Session).collect();
                left.extend(of_scope(session, &settings, host.machine.page_size));
            }
        }
        Ok(Self {
            role,
            policy,
            at,
            plan,
            host,
            found,
            left,
        })
    }

    /// The live sessions that the plan was about. One that was launched meanwhile has the limits of its launch.
    fn sessions(&self, after: &Survey, place: &Place) -> Vec<(GroupPath, Settings)> {
        let planned = |s: &SessionState| {
            let mut before = self.found.sessions.iter();
            before.any(|b| b.group == s.group && b.identity == s.identity && is_live_of(b, &self.role.name))
        };
        let live = after.sessions.iter().filter(|s| is_live_of(s, &self.role.name));
        let live = live.filter(|s| planned(s));
        let settings = |s: &SessionState| session_settings(&self.role, s, place, self.policy.as_ref());
        live.map(|s| (s.group.clone(), settings(s))).collect()
    }
}

/// The host, with systemd's version where what becomes of a live session's limit depends on it.
fn host<'a>(
    role: &Role,
    found: &Survey,
    of_session: &dyn Fn(&SessionState) -> Settings,
    host: &'a Host,
) -> Cow<'a, Host> {
    let mut live = found.sessions.iter().filter(|s| is_live_of(s, &role.name));
    let sessions = live.any(|session| {
        let by = Backend::of_group(&session.group);
        let settings = of_session(session);
        settings.part(Part::Session).any(|s| depends_on_version(s, by))
    });
    match sessions {
        true => Cow::Owned(roles::versioned(host)),
        false => Cow::Borrowed(host),
    }
}

fn session_settings(
    role: &Role,
    session: &SessionState,
    place: &Place,
    policy: Option<&HostPolicy>,
) -> Settings {
    let overrides = session.identity.as_ref().map_or(&[][..], |i| &i.overrides);
    roles::with_overrides(&role.settings, overrides, &place.host.machine, policy)
}

/// The hierarchy as it is.
pub fn look(place: &Place, tree: &Tree, base: &Base) -> Result<Survey, CommandError> {
    let mut found = survey::survey(tree, base, &|name| place.registry.is_attended(name))?;
    slices::look(&mut found, base).map_err(|e| CommandError::failed(&e, &e.help))?;
    Ok(found)
}

/// Carries steps out with this place's locks; returns what control files held afterwards.
pub fn carry_out(steps: &[Step], place: &Place, tree: &Tree) -> Result<Vec<Written>, CommandError> {
    let guard = |name: &SessionName| place.take_charge(name);
    let tell = |text: &str| context::say(text);
    let bury = |name: &SessionName, group: &Group| records::bury(place.store.as_ref(), name, group);
    let mut backend = Cgroupfs::new(tree, place.host.machine.page_size, &guard)
        .telling(&tell)
        .burying(&bury);
    backend.carry_out(steps)?;
    Ok(backend.written)
}

/// The error that says why a plan must not be carried out; further reasons are told first.
pub fn refused(plan: &Plan) -> CommandError {
    let (last, first) = plan.refusals.split_last().expect("a refused plan has a refusal");
    for refusal in first {
        context::say_error(&CommandError {
            status: 1,
            message: refusal.message.clone(),
            help: refusal.help.clone(),
        });
    }
    CommandError {
        status: 1,
        message: last.message.clone(),
        help: last.help.clone(),
    }
}

/// What is in force, read from the kernel, for both parts and each live session of the role.
fn receipts(
    work: &Work<'_>,
    sessions: &[(GroupPath, Settings)],
    base: &Base,
    after: &Survey,
) -> Vec<(GroupPath, Receipt)> {
    let mut all = Vec::new();
    for (part, group) in [(Part::Agent, &base.agent), (Part::Workloads, &base.workloads)] {
        let files = after.group(group).map(|s| &s.files);
        let foretell = |setting: &Setting, foretold| foretell(setting, foretold, group, after);
        all.push((
            group.clone(),
            receipt(
                &work.role.settings,
                part,
                files,
                (&work.host, Backend::Cgroupfs),
                &foretell,
            ),
        ));
    }
    for (group, settings) in sessions {
        let files = after
            .sessions
            .iter()
            .find(|s| s.group == *group)
            .map(|s| &s.state.files);
        let by = Backend::of_group(group);
        let as_it_is = |_: &Setting, foretold| foretold;
        all.push((
            group.clone(),
            receipt(settings, Part::Session, files, (&work.host, by), &as_it_is),
        ));
    }
    all
}

fn receipt(
    settings: &Settings,
    part: Part,
    files: Option<&std::collections::BTreeMap<&'static str, String>>,
    (host, by): (&Host, Backend),
    foretell: &dyn Fn(&Setting, Held) -> Held,
) -> Receipt {
    let mut receipt = Receipt::default();
    for setting in settings.part(part) {
        let foretold = foretell(setting, predict(setting, host, by, &[]));
        let found = setting.knob.file.and_then(|f| files?.get(f));
        let outcome = match (foretold, setting.knob.file, found, setting.text()) {
            (foretold, Some(_), Some(found), Some(wanted)) if foretold.is_written() => {
                of_read_back(setting, &foretold, &wanted, found, host.machine.page_size)
            }
            (foretold, Some(file), None, _) if foretold.is_written() => Held::NotEnforced {
                why: format!("there is no {file}"),
            },
            // Set on each process as it starts: nothing that `apply` could do.
            (Held::Enforced, None, _, _) => continue,
            (other, ..) => other,
        };
        receipt.note(setting, outcome);
    }
    receipt
}

fn print_receipts(receipts: &[(GroupPath, Receipt)], plan: &Plan) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match plan.steps.len() {
        0 => writeln!(out, "everything is as declared: nothing changed")?,
        n => writeln!(out, "done: {}", crate::text::count(n as u64, "step", "steps"))?,
    }
    for (group, receipt) in receipts.iter().filter(|(_, r)| !r.entries.is_empty()) {
        writeln!(out, "{group}")?;
        for entry in &receipt.entries {
            writeln!(out, "  {entry}")?;
        }
    }
    Ok(())
}

/// A plan with where it applies.
pub fn plan_json(plan: &Plan, place: &Place, tree: &Tree, base: &Base) -> Json {
    let mut value = plan.to_json(tree.mount());
    value["backend"] = json!(place.backend.name());
    value["mount"] = json!(tree.mount());
    value["base"] = json!(base.group.as_str());
    value
}

/// A plan for people: each step with its undo.
pub fn print_plan(plan: &Plan, mount: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    if plan.is_empty() {
        writeln!(out, "nothing to do: everything is as declared")?;
    }
    for step in &plan.steps {
        writeln!(out, "{}", step.line(mount))?;
        match step.undo() {
            Some(undo) => writeln!(out, "    undo: {}", undo.line(mount))?,
            None if matches!(step, Step::Kill { .. }) => {
                writeln!(out, "    no undo: what is dead stays dead")?
            }
            None if matches!(step, Step::RemoveGroup { .. }) => writeln!(out, "    no undo")?,
            None => writeln!(out, "    undo: goes with its group")?,
        }
    }
    drop(out);
    plan.warnings.iter().for_each(warn_notice);
    for refusal in &plan.refusals {
        context::say_error(&CommandError {
            status: 1,
            message: refusal.message.clone(),
            help: refusal.help.clone(),
        });
    }
    Ok(())
}
