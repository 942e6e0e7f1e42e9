//! agent.slice itself, made where it is missing. What is there stays as it is: only `apply` changes slices.

use super::scope;
use crate::backend::slices;
use crate::host::Base;
use crate::kernel::{Tree, survey};
use crate::limits::Settings;
use crate::path::GroupPath;
use crate::plan::apply;
use crate::plan::step::Step;
use crate::session::failure::LaunchError;
use crate::session::place::Place;
use crate::session::prepare;

/// Makes it, and where workloads.slice is missing too that as well, as these settings say.
pub(super) fn ready(
    settings: &Settings,
    place: &Place,
    tree: &Tree,
    base: &Base,
    notes: &mut Vec<String>,
) -> Result<(), LaunchError> {
    if tree.find(&base.agent)?.is_some() {
        return Ok(());
    }
    if base.is_users() {
        return scope::make_slice_of_user(settings, base);
    }
    if !base.slices_are_systemds() {
        prepare::ready_parent(settings, place, tree, base, notes)?;
    }
    let _alone = place.alone()?;
    // Made by that, or by another one meanwhile.
    if tree.find(&base.agent)?.is_some() {
        return Ok(());
    }
    let mut found = survey::survey(tree, base, &|name| place.registry.is_attended(name))?;
    slices::look(&mut found, base).map_err(|e| LaunchError::new(e.to_string(), e.help))?;
    // An installed one comes with what is in it, as its files say.
    if found
        .units
        .get(&base.agent)
        .is_some_and(|unit| unit.is_in_a_file())
    {
        return Ok(());
    }
    let wanted = apply::Wanted {
        role: "",
        settings,
        session_settings: &|_| settings.clone(),
        force: false,
    };
    let mut plan = apply::plan(&wanted, &place.host, base, &found);
    if tree.find(&base.workloads)?.is_some() {
        plan.steps.retain(|step| is_about(step, &base.agent));
        plan.refusals.clear();
    }
    prepare::carry_out(&plan, place, tree, notes)
}

/// Whether a step makes or changes this slice.
fn is_about(step: &Step, slice: &GroupPath) -> bool {
    match step {
        Step::MakeGroup { group } | Step::Write { group, .. } => group == slice,
        Step::StartTransient { unit, .. } => Some(unit.as_str()) == slice.name(),
        _ => false,
    }
}
