//! The steps that make the two parts and enable controllers on the way down.

use super::path::GroupPath;
use super::state::{GroupState, Survey};
use super::step::{Notice, Plan, Step};
use crate::host::{Base, BaseKind, SUPERVISOR};
use crate::limits::Controller;

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
    let empty = GroupState::default();
    let at_base = survey.group(&base.group).unwrap_or(&empty);
    let missing = missing(base, at_base);
    if base.kind == BaseKind::SessionsUnit {
        plan.extend(empty_out(base, at_base, &missing));
        enable(&mut plan, &base.group, at_base, missing);
        return plan;
    }
    if base.kind != BaseKind::Root {
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
    if missing.is_empty() {
        return plan;
    }
    if !is_domain(state) {
        plan.refusals.push(threaded(&base.group, state));
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
