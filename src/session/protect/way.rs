//! By which way a process gets into agent.slice, and who must not be moved there.

use super::{Request, Whom};
use crate::host::{Base, Manager};
use crate::kernel::held;
use crate::limits::{KnobId, PROTECTED_SCORE, Value};
use crate::path::GroupPath;
use crate::session::failure::LaunchError;
use crate::session::movable::{is_started_by_systemd, unit_of};
use crate::session::place::Place;

/// The way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// There are no groups here: only its priorities can be had.
    Nowhere,
    /// It is there.
    There,
    /// By a write to the slice's cgroup.procs.
    Write,
    /// systemd makes a scope for it in the slice.
    Scope(Manager),
}

/// Finds it.
///
/// # Errors
///
/// The process is in a session, is no program's, or is placed by the unit that it is the main process of.
pub(super) fn find(
    request: &Request<'_>,
    place: &Place,
    from: Option<&GroupPath>,
) -> Result<Way, LaunchError> {
    let who = request.whom.describe();
    if let Whom::Other(held) = &request.whom {
        let refused = |why: &str| {
            LaunchError::new(
                format!("{who} cannot be protected: {why}"),
                "name the process of the agent",
            )
        };
        if held.pid == 1 {
            return Err(refused(
                "it is the machine's first process, which the kernel never picks",
            ));
        }
        if held::is_kernel_thread(held.pid) {
            return Err(refused(
                "it is a kernel thread, which the kernel does not let be moved",
            ));
        }
    }
    let Some((_, base)) = place.base() else {
        return Ok(Way::Nowhere);
    };
    let Some(from) = from else {
        return Err(LaunchError::new(
            format!("{who} cannot be protected: its group cannot be seen from here"),
            "run cgmgr outside of this container",
        ));
    };
    if base.agent.contains(from) {
        return Ok(Way::There);
    }
    if let Some(session) = place.session_of(from) {
        return Err(LaunchError::new(
            format!("{who} is in session {session}, whose limits it may not leave"),
            "start it outside of sessions",
        ));
    }
    if !base.slices_are_systemds() {
        return Ok(Way::Write);
    }
    if let Some(unit) = unit_of(from)
        && is_of_service(request, base, from, unit)
    {
        return Err(of_service(request, base, &who, unit));
    }
    let manager = if base.is_users() {
        Manager::User
    } else {
        Manager::System
    };
    Ok(Way::Scope(manager))
}

/// Whether systemd would lose sight of the process: any process of a service's that is named, and of those that ask for
/// themselves the one that the service is there for. What a service has started may go its own way, if it asks to.
fn is_of_service(request: &Request<'_>, base: &Base, from: &GroupPath, unit: &str) -> bool {
    let service = unit.ends_with(".service") && !unit.starts_with("user@");
    match &request.whom {
        Whom::Other(_) => service || unit == "init.scope",
        // A user's own systemd does not let go of what is the machine's, nor the other way round.
        Whom::This => {
            let users = from.as_str().contains("/user@") == base.is_users();
            service && users && is_started_by_systemd(std::process::id() as i32)
        }
    }
}

/// The remedy for a service's process: its unit.
fn of_service(request: &Request<'_>, base: &Base, who: &str, unit: &str) -> LaunchError {
    let score = match request.settings.value(KnobId::AgentOomScoreAdj) {
        Some(Value::OomScoreAdj(score)) => score.get(),
        _ => PROTECTED_SCORE,
    };
    let unit = crate::text::escape(unit);
    let help = match base.is_users() {
        // Below their own score only root's units may be.
        true => format!(
            "`systemctl --user edit {unit}`, with the lines [Service] and Slice=agent.slice; then restart it"
        ),
        false => format!(
            "`cgmgr install --protect {unit}`, which writes the drop-in [Service] Slice=agent.slice OOMScoreAdjust={score}; \
             then `systemctl restart {unit}`"
        ),
    };
    LaunchError::new(
        format!(
            "{who} belongs to {unit}, and systemd would lose sight of it: it is the unit that says where it is"
        ),
        help,
    )
}
