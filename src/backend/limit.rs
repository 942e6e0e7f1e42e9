//! Sets one limit of a session that lives, by whoever may: in the control file, or, where the session is a scope of
//! systemd's, as a property of the unit, for what is written behind its back is undone.

use super::failure::StepError;
use crate::host::Manager;
use crate::kernel::Group;
use crate::kernel::deadline::Within;
use crate::limits::KnobId;
use crate::path::GroupPath;
use crate::plan::unit;
use crate::systemd::{BusError, Reason, Systemd, bus};
use std::time::Duration;

/// Whether the knob's control file is systemd's to write.
pub fn is_systemds(group: &Group, knob: KnobId) -> bool {
    knob.knob().file.is_some_and(|file| group.is_on_scope(file))
}

/// The systemd that keeps a session's scope, and the scope's name.
pub fn scope_of(path: &GroupPath) -> Option<(Systemd, String)> {
    let scope = path.scope()?;
    Some((Systemd::of(Manager::of(&scope)), scope.name()?.to_owned()))
}

/// Writes a limit. What is in force then is for the caller to read.
///
/// # Errors
///
/// The kernel or systemd refuses.
pub fn write(group: &Group, path: &GroupPath, knob: KnobId, value: &str) -> Result<(), StepError> {
    if is_systemds(group, knob) {
        return Ok(ask(path, knob, value, bus::DEADLINE)?);
    }
    Ok(group.write(knob.knob().file.unwrap_or_default(), value)?)
}

/// The same where a lower value can take long, for the kernel takes memory back for it; cut off after `deadline`. It is
/// systemd that waits where the limit is one of its units.
///
/// # Errors
///
/// The kernel or systemd refuses.
pub fn write_within(
    group: &Group,
    path: &GroupPath,
    knob: KnobId,
    value: &str,
    deadline: Duration,
) -> Result<Within, StepError> {
    if !is_systemds(group, knob) {
        return Ok(group.write_within(knob.knob().file.unwrap_or_default(), value, deadline)?);
    }
    match ask(path, knob, value, deadline) {
        Err(e) if e.reason == Reason::TimedOut => Ok(Within::Late),
        other => Ok(other.map(|()| Within::Done)?),
    }
}

fn ask(path: &GroupPath, knob: KnobId, value: &str, deadline: Duration) -> Result<(), BusError> {
    let knob = knob.knob();
    let (Some((systemd, unit)), Some(name), Some(file)) = (scope_of(path), knob.systemd, knob.file) else {
        return Err(BusError {
            reason: Reason::Property,
            message: format!("systemd has no property for {}", knob.key),
            help: "end the session, and start it with the other limit".into(),
        });
    };
    let systemd = systemd.within(deadline);
    // Only what one of them rounds makes a difference between versions.
    let version = match unit::rounded(value, unit::ROUNDS) {
        Some(_) if file == "cpu.max" => systemd.version()?,
        _ => unit::ROUNDS,
    };
    let property = unit::of_text(name, file, value, version);
    systemd.set_properties(&unit, property.as_slice())
}
