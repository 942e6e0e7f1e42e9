//! `cgmgr status`: the parts and the sessions, use against limit. Never writes, never sweeps.

use super::args::{Global, StatusArgs};
use super::context::{CommandError, Outcome, print_json};
use super::look::{Look, look};
use super::status_text::{Overview, render};
use crate::session::view::{self, SessionView};
use serde_json::{Value as Json, json};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs the command.
pub fn status(args: &StatusArgs, global: &Global) -> Outcome {
    let look = look(global)?;
    let mut overview = overview(&look)?;
    if let Some(name) = &args.session {
        let wanted = name.to_string_lossy();
        if !overview.sessions.iter().any(|s| s.name == wanted) {
            // Its group may be about to be made or removed; then there is a record, and nothing to show.
            let (name, _) = look.find(name)?;
            return Err(CommandError::failed(
                format!("session {name} begins or ends just now"),
                "ask again",
            ));
        }
        overview.sessions.retain(|s| s.name == wanted);
        overview.only_sessions = true;
    }
    if args.json {
        print_json(&to_json(&overview))?;
    } else {
        io::stdout().lock().write_all(render(&overview).as_bytes())?;
    }
    Ok(0)
}

fn overview(look: &Look) -> Result<Overview, CommandError> {
    let mut sessions: Vec<SessionView> = Vec::new();
    let (mut agent, mut workloads) = (None, None);
    let mut agents = Vec::new();
    if let (Some(tree), Some(base)) = (&look.tree, &look.base) {
        agent = view::part(tree, &base.agent)?;
        agents = view::agents(tree, &base.agent)?;
        workloads = view::part(tree, &base.workloads)?;
        sessions = view::sessions(tree, base, look.registry.as_ref())?;
        if let Some(elsewhere) = &look.elsewhere {
            sessions.extend(view::sessions(tree, elsewhere, None)?);
        }
    }
    if let Some(registry) = &look.process {
        sessions.extend(view::process_sessions(registry));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Overview {
        mount: look.host.hierarchy.mount().map(|m| m.point.clone()),
        base: look.base.as_ref().map(|b| b.group.to_string()),
        place: look.base.as_ref().map(|b| b.kind.describe()),
        backend: look.backend.name(),
        hierarchy: look.host.hierarchy.label(),
        why_no_base: look.host.base.as_ref().err().map(|none| none.why.clone()),
        now: now.map_or(0, |d| d.as_secs()),
        cpus: look.host.machine.cpus,
        agent,
        agents,
        workloads,
        sessions,
        only_sessions: false,
    })
}

fn to_json(overview: &Overview) -> Json {
    json!({
        "mount": overview.mount,
        "base": overview.base,
        "backend": overview.backend,
        "hierarchy": overview.hierarchy,
        "agent": overview.agent,
        "agents": overview.agents,
        "workloads": overview.workloads,
        "sessions": overview.sessions,
    })
}
