//! Puts this very process into agent.slice, where its memory is protected from what sessions do.
//!
//! It goes into the slice itself and not into a leaf of its own: of a process that is killed nothing is left there then,
//! and the slice's protection is its own in full.

use super::failure::LaunchError;
use super::place::Place;
use super::prepare::ready_parent;
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::process;
use crate::limits::{KnobId, Part, Settings};
use crate::path::GroupPath;
use crate::plan::equal::same;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// The group that this process is in now.
    pub group: GroupPath,
    /// It was there before.
    pub already: bool,
    /// Memory that this process held before, in bytes. It stays charged to the group that it was in.
    pub left_behind: Option<u64>,
    /// What is in force there, by knob, as the kernel has it.
    pub in_force: Vec<(KnobId, String)>,
    /// What its user should know.
    pub notes: Vec<String>,
}

/// Moves this process, and no child of it, into agent.slice, which is made from `settings` if it is missing.
///
/// # Errors
///
/// The slices are systemd's, there is no place for groups, or this process is in a session. Nothing was done then.
pub fn protect(place: &Place, settings: &Settings) -> Result<Protection, LaunchError> {
    let (Some((tree, base)), Some(own)) = (place.base(), place.own_group()) else {
        let none = place.host.base.as_ref().err();
        return Err(LaunchError {
            help: none.map(|none| none.fix.clone()),
            ..LaunchError::new(
                format!(
                    "this process cannot be protected: {}",
                    none.map_or("the process backend has no cgroup", |none| none.why.as_str())
                ),
                "",
            )
        });
    };
    let already = base.agent.contains(&own);
    if !already {
        refuse(place, &own)?;
    }
    let mut notes = Vec::new();
    let mut left_behind = None;
    if !already {
        ready_parent(settings, place, tree, base, &mut notes)?;
        left_behind = process::rss(std::process::id() as i32, place.host.machine.page_size);
        let agent = tree.group(&base.agent)?;
        agent.write("cgroup.procs", "0").map_err(|error| KernelError {
            doing: Doing::Move,
            ..error
        })?;
        notes.push(format!(
            "memory that it held before stays charged to {own}, which is not protected: only what it takes from now on is"
        ));
    }
    let group = place.own_group().unwrap_or_else(|| base.agent.clone());
    let agent = tree.group(&base.agent)?;
    let mut in_force = Vec::new();
    for setting in settings.part(Part::Agent) {
        let knob = setting.knob;
        let wanted = setting.text().filter(|_| setting.value.is_some());
        let Some(file) = knob.file else {
            if wanted.is_some() {
                notes.push(format!("{} is not in this version", knob.key));
            }
            continue;
        };
        match (agent.get(file)?, wanted) {
            (Some(found), wanted) => {
                let found = found.lines().next().unwrap_or_default().to_owned();
                if let Some(wanted) = wanted
                    && !same(knob, &wanted, &found, place.host.machine.page_size)
                {
                    notes.push(format!(
                        "{} is {found} and not {wanted}: only `cgmgr apply` changes what is there",
                        knob.key
                    ));
                }
                in_force.push((knob.id, found));
            }
            (None, Some(_)) => notes.push(format!(
                "{} is not enforced: {} has no {file}",
                knob.key,
                agent.path()
            )),
            (None, None) => {}
        }
    }
    let nothing = |id: KnobId| in_force.iter().all(|(knob, found)| *knob != id || found == "0");
    if nothing(KnobId::AgentMemoryMin) && nothing(KnobId::AgentMemoryLow) {
        notes.push(format!(
            "no memory is protected: {} has neither memory_min nor memory_low",
            base.agent
        ));
    }
    Ok(Protection {
        group,
        already,
        left_behind,
        in_force,
        notes,
    })
}

/// Why this process cannot be moved.
fn refuse(place: &Place, own: &GroupPath) -> Result<(), LaunchError> {
    if let Some(session) = place.session_of(own) {
        return Err(LaunchError::new(
            format!("this process is in session {session}, whose limits it may not leave"),
            "start it outside of sessions",
        ));
    }
    let systemds = place.base().is_some_and(|(_, base)| base.slices_are_systemds());
    if !systemds {
        return Ok(());
    }
    let unit = own.ancestors().find_map(|path| {
        let name = path.name()?;
        name.ends_with(".service").then(|| name.to_owned())
    });
    Err(LaunchError::new(
        format!(
            "agent.slice is systemd's, and so is {own}, where this process is: systemd alone may move it"
        ),
        match unit {
            Some(unit) => format!(
                "`systemctl edit {unit}`, with the lines [Service] and Slice=agent.slice, then restart it"
            ),
            None => "run it as a service with Slice=agent.slice in its [Service]".into(),
        },
    ))
}
