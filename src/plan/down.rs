//! The steps that take away exactly what cgmgr made, and nothing else.

use super::apply::{drop_in_path, is_unread};
use super::slices;
use super::state::{GroupState, Survey};
use super::step::{Notice, Plan, Step};
use crate::host::{Base, SUPERVISOR};
use crate::limits::Controller;
use crate::path::{GroupPath, SessionName};

/// The plan. Sessions that still run are a reason against it unless `kill`.
pub fn plan(base: &Base, survey: &Survey, kill: bool) -> Plan {
    let mut plan = Plan::default();
    let mut removed = Vec::new();
    for session in survey.sessions.iter().filter(|s| s.is_foreign()) {
        plan.warnings.push(Notice::plain(format!(
            "{} was not made by cgmgr: left alone",
            session.group
        )));
    }
    for session in survey.sessions.iter().filter(|s| !s.is_foreign()) {
        if session.state.populated || session.attended {
            if !kill {
                plan.refusals.push(Notice::new(
                    format!("session {} is still running", session.name),
                    format!("`cgmgr stop {}` first, or `cgmgr down --kill`", session.name),
                ));
            }
            plan.steps.push(Step::Kill {
                group: session.group.clone(),
            });
        }
        plan.steps.push(Step::RemoveGroup {
            group: session.group.clone(),
        });
        // The scope around a leaf goes with it.
        let outermost = session.group.scope().unwrap_or_else(|| session.group.clone());
        removed.extend(outermost.name().map(str::to_owned));
    }
    if base.slices_are_systemds() {
        drop_ins(&mut plan, base, survey);
        slices::take_back(&mut plan, &base.workloads, survey, &removed);
        slices::take_back(&mut plan, &base.agent, survey, &[]);
    } else {
        slice(&mut plan, &base.workloads, survey, &removed);
        slice(&mut plan, &base.agent, survey, &[]);
    }
    if plan.refusals.is_empty() {
        base_itself(&mut plan, base, survey);
    }
    plan
}

fn slice(plan: &mut Plan, group: &GroupPath, survey: &Survey, removed: &[String]) {
    let Some(state) = survey.group(group) else { return };
    if !state.is_ours() {
        if state.populated || !state.children.is_empty() {
            plan.warnings.push(Notice::plain(format!(
                "{group} was not made by cgmgr: left alone"
            )));
        }
        return;
    }
    let foreign: Vec<&String> = state.children.iter().filter(|c| !removed.contains(c)).collect();
    if !state.procs.is_empty() {
        let who: Vec<String> = state
            .procs
            .iter()
            .take(8)
            .map(|(pid, comm)| format!("pid {pid} ({comm})"))
            .collect();
        plan.refusals.push(Notice::new(
            format!("{group} still holds {}", who.join(", ")),
            "end them or move them elsewhere; `down` never kills what is outside a session",
        ));
    } else if let Some(begun) = foreign.iter().find(|n| is_new_session(survey, n)) {
        plan.refusals.push(Notice::new(
            format!("{group}/{begun} has just come: a session is being started"),
            "say it again, when nothing starts sessions any more",
        ));
    } else if !foreign.is_empty() {
        let names: Vec<&str> = foreign.iter().map(|n| n.as_str()).collect();
        plan.refusals.push(Notice::new(
            format!(
                "{group} holds groups that cgmgr did not make: {}",
                names.join(", ")
            ),
            "remove them first; `down` never touches what is not cgmgr's",
        ));
    } else {
        plan.steps.push(Step::RemoveGroup { group: group.clone() });
    }
}

/// Whether a directory is a session's that was not there yet when the sessions were looked at.
fn is_new_session(survey: &Survey, directory: &str) -> bool {
    let known = |name: &SessionName| survey.sessions.iter().any(|s| s.name == *name);
    SessionName::of_directory(directory).is_some_and(|name| !known(&name))
}

fn drop_ins(plan: &mut Plan, base: &Base, survey: &Survey) {
    let mut units = Vec::new();
    for slice in [&base.agent, &base.workloads] {
        let path = drop_in_path(slice);
        let found = survey.drop_ins.get(&path);
        if let Some(before) = found {
            plan.steps.push(Step::DropIn {
                path,
                text: None,
                before: Some(before.clone()),
            });
        }
        if found.is_some() || is_unread(slice, survey) {
            units.extend(slice.name().map(str::to_owned));
        }
    }
    if !units.is_empty() {
        plan.steps.push(Step::Reload { units });
    }
}

/// Takes back the controllers that cgmgr enabled in the base, and lets the processes back in that it had moved away.
fn base_itself(plan: &mut Plan, base: &Base, survey: &Survey) {
    let Some(state) = survey.group(&base.group) else {
        return;
    };
    let ours = state.enabled_by_us.as_deref().unwrap_or("");
    // Whatever seems to be on: the mark goes with this step, and with it all knowledge of them.
    let controllers: Vec<Controller> = Controller::ALL
        .into_iter()
        .filter(|c| ours.split(' ').any(|name| name == c.name()))
        .collect();
    if !controllers.is_empty() {
        plan.steps.push(Step::Disable {
            group: base.group.clone(),
            controllers,
        });
    }
    if state.enabled_by_us.is_some() {
        plan.steps.push(Step::Unmark {
            group: base.group.clone(),
        });
    }
    let supervisor = base.group.join(SUPERVISOR);
    if survey.group(&supervisor).is_some_and(GroupState::is_ours) {
        plan.steps.push(Step::MoveAll {
            from: supervisor.clone(),
            to: base.group.clone(),
        });
        plan.steps.push(Step::RemoveGroup { group: supervisor });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::BaseKind;

    #[test]
    fn what_is_marked_is_switched_off_whatever_seems_to_be_on() {
        let base = Base::below(BaseKind::Root, GroupPath::root(), Controller::ALL.to_vec());
        let mut survey = Survey::default();
        let unread = GroupState {
            enabled_by_us: Some("cpu memory".into()),
            ..GroupState::default()
        };
        survey.groups.insert(base.group.clone(), unread);
        let group = base.group.clone();
        assert_eq!(
            plan(&base, &survey, false).steps,
            [
                Step::Disable {
                    group: group.clone(),
                    controllers: vec![Controller::Cpu, Controller::Memory],
                },
                Step::Unmark { group },
            ]
        );
    }
}
