//! The steps that make the machine as a role declares it: hierarchy, ceilings, protection, and the live sessions of
//! that role. Applied twice, the second plan is empty.

use super::drift;
use super::drop_in;
use super::equal::{number, same};
use super::hierarchy;
use super::receipt::{Backend, Outcome, predict};
use super::slices;
use super::state::{GroupState, SessionState, Survey};
use super::step::{Notice, Plan, Step};
use crate::host::{Base, Host};
use crate::limits::{KnobId, Part, Setting, Settings};
use crate::path::GroupPath;

/// Directory of cgmgr's own drop-ins for the slices of a systemd machine. Like everything else `apply` makes they are
/// gone after a reboot; `cgmgr install` is what stays.
const DROP_IN_DIR: &str = "/run/systemd/system";

/// Where cgmgr's drop-in for a systemd slice is.
pub fn drop_in_path(slice: &GroupPath) -> String {
    drop_in_of(slice.name().unwrap_or("?"))
}

/// The same for a slice named as systemd does.
pub fn drop_in_of(unit: &str) -> String {
    format!("{DROP_IN_DIR}/{unit}.d/50-cgmgr.conf")
}

/// The file beside a drop-in that is there as long as systemd has not carried out its last change.
pub fn unread_path(drop_in: &str) -> String {
    format!("{drop_in}.unread")
}

/// Whether systemd is yet to carry out a change of the slice's drop-in.
pub(super) fn is_unread(slice: &GroupPath, survey: &Survey) -> bool {
    survey.unread.contains(&drop_in_path(slice))
}

/// What to apply.
pub struct Wanted<'a> {
    /// The role's name: its live sessions are converged.
    pub role: &'a str,
    /// The role's settings.
    pub settings: &'a Settings,
    /// The settings of a live session of the role: the role's, below what its flags said at launch.
    pub session_settings: &'a dyn Fn(&SessionState) -> Settings,
    /// Lower a memory_max below what is in use, and overrule what somebody set with `systemctl set-property`.
    pub force: bool,
}

/// The plan. Everything that speaks against it is in its refusals.
pub fn plan(wanted: &Wanted<'_>, host: &Host, base: &Base, survey: &Survey) -> Plan {
    let mut plan = hierarchy::plan(base, survey);
    for (part, group) in [(Part::Agent, &base.agent), (Part::Workloads, &base.workloads)] {
        let settings: Vec<&Setting> = wanted
            .settings
            .part(part)
            .filter(|s| s.knob.file.is_some())
            .collect();
        let state = survey.group(group);
        if base.slices_are_systemds() {
            slices::converge(&mut plan, &settings, group, host, survey, wanted.force);
        } else {
            plan.steps.extend(writes(&settings, group, state, host));
        }
        if part == Part::Workloads
            && let Some(state) = state
        {
            refuse_kill(&mut plan, &settings, group, state, None, wanted.force);
        }
    }
    shield_of_ancestors(&mut plan, wanted, base, survey);
    reload(&mut plan, base, survey);
    plan.steps.extend(sweep(survey));
    for session in survey.sessions.iter().filter(|s| is_live_of(s, wanted.role)) {
        let settings = (wanted.session_settings)(session);
        let settings: Vec<&Setting> = settings
            .part(Part::Session)
            .filter(|s| s.knob.file.is_some())
            .collect();
        let drift = match wanted.force {
            true => Vec::new(),
            false => drift::of_session(session, &settings, host.machine.page_size),
        };
        plan.warnings.extend(drift.iter().map(|d| d.notice.clone()));
        let is_left = |setting: &&Setting| drift.iter().any(|d| d.knob == setting.knob.id);
        let settings: Vec<&Setting> = settings.into_iter().filter(|s| !is_left(s)).collect();
        plan.steps
            .extend(writes(&settings, &session.group, Some(&session.state), host));
        let now = session.memory_current;
        refuse_kill(
            &mut plan,
            &settings,
            &session.group,
            &session.state,
            now,
            wanted.force,
        );
    }
    plan
}

/// Whether a session is alive and of the role.
pub fn is_live_of(session: &SessionState, role: &str) -> bool {
    let of_role = session
        .identity
        .as_ref()
        .is_some_and(|i| i.role.as_deref() == Some(role));
    of_role && (session.state.populated || session.attended)
}

/// Session groups that nobody is in and nobody attends: left behind by a cgmgr that was killed.
pub fn sweep(survey: &Survey) -> impl Iterator<Item = Step> {
    survey
        .sessions
        .iter()
        .filter(|s| !s.state.populated && !s.attended && !s.is_foreign())
        .map(|s| Step::RemoveGroup {
            group: s.group.clone(),
        })
}

/// The writes that bring a group's control files to what is declared. A group that exists is brought back to the
/// kernel's default where nothing is declared; a new one has the defaults.
fn writes(settings: &[&Setting], group: &GroupPath, state: Option<&GroupState>, host: &Host) -> Vec<Step> {
    let mut writes = Vec::new();
    let by = Backend::of_group(group);
    for setting in settings {
        let knob = setting.knob;
        let Some(text) = setting.text() else { continue };
        let file = knob.file.unwrap_or_default();
        let foretold = predict(setting, host, by, &[]);
        let before = match state {
            Some(state) => match state.files.get(file) {
                Some(found) if same(knob, &text, found, host.machine.page_size) => continue,
                Some(found) if matches!(&foretold, Outcome::Rounded { to } if to == found) => continue,
                // A controller that is yet to be enabled brings the file along with the kernel's default in it.
                found => found.cloned().or_else(|| knob.kernel_default.map(str::to_owned)),
            },
            None => None,
        };
        let declared = setting.value.is_some();
        if !declared && before.as_deref().is_none_or(|b| Some(b) == knob.kernel_default) {
            continue;
        }
        if declared && !foretold.is_written() {
            continue;
        }
        writes.push(Step::Write {
            group: group.clone(),
            knob: knob.id,
            value: text,
            before,
        });
    }
    order(&mut writes);
    writes
}

/// Two dependent writes: when memory.max rises it is written before memory.high, when it falls after it, so that the
/// kernel can reclaim to the lower high before it would have to kill (mm/memcontrol.c, memory_max_write).
pub(super) fn order(writes: &mut [Step]) {
    let at =
        |id: [KnobId; 2]| move |step: &Step| matches!(step, Step::Write { knob, .. } if id.contains(knob));
    let high = writes
        .iter()
        .position(at([KnobId::MemoryHigh, KnobId::WorkloadsMemoryHigh]));
    let max = writes
        .iter()
        .position(at([KnobId::MemoryMax, KnobId::WorkloadsMemoryMax]));
    let (Some(high), Some(max)) = (high, max) else {
        return;
    };
    if rises(&writes[max]) != (max < high) {
        writes.swap(high, max);
    }
}

fn rises(step: &Step) -> bool {
    let Step::Write {
        value,
        before: Some(before),
        ..
    } = step
    else {
        return false;
    };
    number(value) > number(before)
}

/// A memory.max below what is in use makes the kernel kill at once: only on the user's word.
fn refuse_kill(
    plan: &mut Plan,
    settings: &[&Setting],
    group: &GroupPath,
    state: &GroupState,
    current: Option<u64>,
    force: bool,
) {
    let current = current.or_else(|| {
        state
            .files
            .get("memory.current")
            .and_then(|t| t.trim().parse().ok())
    });
    let max = settings.iter().find(|s| s.knob.file == Some("memory.max"));
    let (Some(current), Some(max)) = (current, max) else {
        return;
    };
    let Some(wanted) = max.text().and_then(|t| t.parse::<u64>().ok()) else {
        return;
    };
    if wanted < current && !force {
        plan.refusals.push(Notice::new(
            format!(
                "{} {} is below what {group} uses now ({}): the kernel would kill at once",
                max.knob.key,
                crate::text::bytes(wanted),
                crate::text::bytes(current)
            ),
            "raise it, end something, or say --force",
        ));
    }
}

/// memory.min of a group protects no more than its ancestors let through.
fn shield_of_ancestors(plan: &mut Plan, wanted: &Wanted<'_>, base: &Base, survey: &Survey) {
    if base.group.is_root() || base.slices_are_systemds() {
        return;
    }
    let Some(above) = survey.group(&base.group) else {
        return;
    };
    for id in [KnobId::AgentMemoryMin, KnobId::AgentMemoryLow] {
        let setting = wanted.settings.get(id);
        let number = |text: Option<String>| text.and_then(|t| t.trim().parse::<u64>().ok()).unwrap_or(0);
        let declared = setting.value.as_ref().map_or(0, |_| number(setting.text()));
        let given = number(setting.knob.file.and_then(|f| above.files.get(f)).cloned());
        if declared > given {
            plan.warnings.push(Notice::new(
                format!(
                    "{} {} protects at most {}: {} of {} lets no more through",
                    setting.knob.key,
                    crate::text::bytes(declared),
                    crate::text::bytes(given),
                    setting.knob.file.unwrap_or_default(),
                    base.group
                ),
                "set it there too; that group belongs to whoever delegated it",
            ));
        }
    }
}

/// Brings the drop-in of a slice with a unit file to what is declared.
pub(super) fn drop_in(plan: &mut Plan, settings: &[&Setting], slice: &GroupPath, survey: &Survey) {
    let path = drop_in_path(slice);
    let text = drop_in_text(settings);
    let before = survey.drop_ins.get(&path).cloned();
    if before != text {
        plan.steps.push(Step::DropIn { path, text, before });
    }
}

/// The text of a drop-in with these settings; `None` where none is declared.
pub fn drop_in_text(settings: &[&Setting]) -> Option<String> {
    let lines = drop_in::slice_lines(settings)?;
    Some(format!(
        "# Written by `cgmgr apply`, removed by `cgmgr down`.\n[Slice]\n{lines}"
    ))
}

fn reload(plan: &mut Plan, base: &Base, survey: &Survey) {
    let changed = |slice: &GroupPath| {
        let path = drop_in_path(slice);
        plan.steps
            .iter()
            .any(|s| matches!(s, Step::DropIn { path: p, .. } if *p == path))
    };
    let units: Vec<String> = [&base.agent, &base.workloads]
        .into_iter()
        .filter(|slice| changed(slice) || is_unread(slice, survey))
        .filter_map(|slice| slice.name().map(str::to_owned))
        .collect();
    if !units.is_empty() {
        plan.steps.push(Step::Reload { units });
    }
}
