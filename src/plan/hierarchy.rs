//! The steps that make the two parts and enable controllers on the way down.

use super::state::{GroupState, Survey};
use super::step::{Notice, Plan, Step};
use crate::host::{Base, BaseKind, SUPERVISOR};
use crate::limits::Controller;
use crate::path::GroupPath;

/// Controllers that sessions use. cpuset is left alone: no knob needs it.
const WANTED: [Controller; 4] = [
    Controller::Cpu,
    Controller::Io,
    Controller::Memory,
    Controller::Pids,
];

/// The controllers that a base offers of those that sessions use.
pub fn wanted(base: &Base) -> Vec<Controller> {
    WANTED
        .into_iter()
        .filter(|c| base.controllers.contains(c))
        .collect()
}

/// Makes the hierarchy as far as it is missing. Where it is complete the plan is empty.
pub fn plan(base: &Base, survey: &Survey) -> Plan {
    let mut plan = Plan::default();
    // systemd makes what there is, and enables what it takes.
    if base.scope_manager().is_some() {
        return plan;
    }
    let empty = GroupState::default();
    let at_base = survey.group(&base.group).unwrap_or(&empty);
    let missing = missing(base, at_base);
    if matches!(base.kind, BaseKind::SessionsUnit(_)) {
        // Whoever makes the scope anew enables its controllers.
        if survey.group(&base.group).is_none() {
            return plan;
        }
        plan.extend(empty_out(base, at_base, &missing));
        enable(&mut plan, &base.group, at_base, missing);
        return plan;
    }
    if base.kind != BaseKind::Root {
        let supervisor = base.group.join(SUPERVISOR);
        // Made by a cgmgr that was killed before it could mark it, and so before it moved anything there.
        if survey
            .group(&supervisor)
            .is_some_and(|s| s.made.is_none() && !s.populated && s.children.is_empty())
        {
            plan.steps.push(Step::MakeGroup { group: supervisor });
        }
        plan.extend(empty_out(base, at_base, &missing));
    }
    enable(&mut plan, &base.group, at_base, missing);
    for slice in [&base.agent, &base.workloads] {
        make_slice(&mut plan, slice, survey);
    }
    let workloads = survey.group(&base.workloads).unwrap_or(&empty);
    if !is_domain(workloads) {
        plan.refusals.push(threaded(&base.workloads, workloads));
    }
    let missing_below = self::missing(base, workloads);
    if !missing_below.is_empty() && !workloads.procs.is_empty() {
        plan.refusals.push(in_the_way(&base.workloads, &workloads.procs));
    }
    enable(&mut plan, &base.workloads, workloads, missing_below);
    plan
}

fn missing(base: &Base, state: &GroupState) -> Vec<Controller> {
    wanted(base)
        .into_iter()
        .filter(|c| !state.enabled.iter().any(|e| e == c.name()))
        .collect()
}

fn enable(plan: &mut Plan, group: &GroupPath, state: &GroupState, controllers: Vec<Controller>) {
    if !controllers.is_empty() {
        let remembered = state.enabled_by_us.clone();
        plan.steps.push(Step::Enable {
            group: group.clone(),
            controllers,
            remembered,
        });
    }
}

/// A group other than the true root must hold no process when controllers are enabled for its children. Enabling only
/// cpu, pids or cpuset would *succeed* and make it threaded, which is why its own processes are moved first.
fn empty_out(base: &Base, state: &GroupState, missing: &[Controller]) -> Plan {
    let mut plan = Plan::default();
    if !is_domain(state) {
        plan.refusals.push(threaded(&base.group, state));
    }
    if missing.is_empty() {
        return plan;
    }
    if !state.procs.is_empty() {
        let to = base.group.join(SUPERVISOR);
        if !state.children.iter().any(|c| c == SUPERVISOR) {
            plan.steps.push(Step::MakeGroup { group: to.clone() });
        }
        plan.steps.push(Step::MoveAll {
            from: base.group.clone(),
            to,
        });
    }
    plan
}

/// The true root has no type; every other group that cgmgr uses must be an ordinary one.
fn is_domain(state: &GroupState) -> bool {
    matches!(state.kind.as_str(), "" | "domain")
}

fn make_slice(plan: &mut Plan, slice: &GroupPath, survey: &Survey) {
    match survey.group(slice) {
        None => plan.steps.push(Step::MakeGroup { group: slice.clone() }),
        Some(state) if state.is_ours() => {}
        // Made by a cgmgr that was killed before it could mark it, or by nobody who uses it.
        Some(state) if !state.populated && state.children.is_empty() => {
            plan.steps.push(Step::MakeGroup { group: slice.clone() });
        }
        Some(state) => {
            let who: Vec<String> = state
                .procs
                .iter()
                .map(|(pid, comm)| format!("pid {pid} ({comm})"))
                .collect();
            let who = if who.is_empty() {
                "groups of somebody else".to_owned()
            } else {
                who.join(", ")
            };
            plan.refusals.push(Notice::new(
                format!("{slice} exists, was not made by cgmgr, and is in use: {who}"),
                "remove or rename it, or name another base with --cgroup-root",
            ));
        }
    }
}

fn threaded(group: &GroupPath, state: &GroupState) -> Notice {
    Notice::new(
        format!(
            "{group} is of type `{}`: cgmgr works with ordinary (domain) groups only",
            state.kind
        ),
        "a threaded group cannot be turned back: remove it, or name another base with --cgroup-root",
    )
}

fn in_the_way(group: &GroupPath, procs: &[(i32, String)]) -> Notice {
    let who: Vec<String> = procs
        .iter()
        .take(8)
        .map(|(pid, comm)| format!("pid {pid} ({comm})"))
        .collect();
    Notice::new(
        format!(
            "processes sit in {group}, which must hold groups only: {}",
            who.join(", ")
        ),
        "end them, or move them into a leaf group",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::state::MADE_BY_ANCHOR;

    fn at(path: &str) -> GroupPath {
        GroupPath::new(path).unwrap()
    }

    fn steps(leaf: GroupState) -> Vec<Step> {
        let base = Base::below(BaseKind::Delegated, at("/d"), vec![Controller::Memory]);
        let mut survey = Survey::default();
        let state = GroupState {
            kind: "domain".into(),
            procs: vec![(7, "sh".into())],
            children: vec![SUPERVISOR.into()],
            ..GroupState::default()
        };
        survey.groups.insert(at("/d"), state);
        survey.groups.insert(at("/d").join(SUPERVISOR), leaf);
        plan(&base, &survey).steps
    }

    #[test]
    fn a_leaf_left_unmarked_is_marked_before_it_is_used() {
        let make = Step::MakeGroup {
            group: at("/d").join(SUPERVISOR),
        };
        let unmarked = steps(GroupState::default());
        assert_eq!(unmarked[0], make);
        assert!(matches!(unmarked[1], Step::MoveAll { .. }));
        // Somebody is in it: it is his, and `down` must not take it away.
        let in_use = GroupState {
            populated: true,
            ..GroupState::default()
        };
        for made in ["1", MADE_BY_ANCHOR] {
            let marked = GroupState {
                made: Some(made.into()),
                ..GroupState::default()
            };
            assert!(!steps(marked).contains(&make));
        }
        assert!(!steps(in_use).contains(&make));
    }
}
