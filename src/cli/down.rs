//! `down`: takes away exactly what cgmgr made.

use super::apply::{carry_out, look, plan_json, print_plan, record_changes, refused};
use super::args::{DownArgs, Global};
use super::context::{self, CommandError, Outcome, print_json, warn_notice};
use crate::backend::slices;
use crate::host::NoBase;
use crate::kernel::{Tree, base};
use crate::plan::Plan;
use crate::plan::apply::drop_in_path;
use crate::plan::down::plan as plan_down;
use crate::session::launch::Place;
use crate::session::protect::take_back_slice_of_user;
use serde_json::json;
use std::io::{self, Write};

/// `cgmgr down`.
pub fn down(args: &DownArgs, global: &Global) -> Outcome {
    let place = context::place(global)?;
    let Some((tree, base)) = place.base() else {
        return match &place.host.base {
            Err(none) => without_base(args, &place, none),
            Ok(_) => Err(CommandError::usage(
                "the process backend makes no groups",
                "leave --backend process out",
            )),
        };
    };
    let _alone = place.alone()?;
    let plan = plan_down(base, &look(&place, tree, base)?, args.kill);
    if args.json {
        print_json(&plan_json(&plan, &place, tree, base))?;
    } else if args.dry_run {
        print_plan(&plan, tree.mount())?;
    }
    if args.dry_run {
        return Ok(u8::from(!plan.refusals.is_empty()));
    }
    if !plan.refusals.is_empty() {
        return Err(refused(&plan));
    }
    if !args.json {
        plan.warnings.iter().for_each(warn_notice);
    }
    carry_out(&plan.steps, &place, tree)?;
    if let Some(store) = &place.store {
        record_changes(store, plan.steps.len());
    }
    if base.slices_are_systemds() && !base.is_users() {
        for slice in [&base.agent, &base.workloads] {
            slices::sweep(&drop_in_path(slice));
        }
    }
    if base.is_users() {
        take_back_slice_of_user(tree, base)?;
    }
    place.registry.forget_ended();
    place.registry.remove_if_empty();
    if !args.json {
        match plan.steps.len() {
            0 => writeln!(io::stdout(), "nothing to do: cgmgr has made no groups here")?,
            n => writeln!(
                io::stdout(),
                "done: {}",
                crate::text::count(n as u64, "step", "steps")
            )?,
        }
    }
    Ok(0)
}

/// Where this process has no groups: sessions of the process backend leave nothing behind that could be taken away;
/// groups that somebody else keeps are not this user's to take.
fn without_base(args: &DownArgs, place: &Place, none: &NoBase) -> Outcome {
    let elsewhere = place
        .host
        .hierarchy
        .mount()
        .and_then(|m| Tree::open(&m.point).ok())
        .and_then(|t| base::readable(&t));
    if let Some(theirs) = elsewhere {
        return Err(CommandError::failed(
            format!(
                "the groups below {} are not this user's to take away: {}",
                theirs.group, none.why
            ),
            "run as root",
        ));
    }
    if !args.dry_run {
        place.registry.forget_ended();
        place.registry.remove_if_empty();
    }
    if args.json {
        let mut nothing = Plan::default().to_json("");
        nothing["backend"] = json!(place.backend.name());
        print_json(&nothing)?;
    } else {
        writeln!(io::stdout(), "nothing to do: cgmgr has made no groups here")?;
    }
    Ok(0)
}
