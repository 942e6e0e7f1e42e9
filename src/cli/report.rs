//! The report of a session for programs (`run --report`).

use crate::plan::receipt::Promise;
use crate::session::launch::{LaunchError, Running};
use crate::session::supervise::Ended;
use crate::session::verdict::{Exit, OomReport};
use serde_json::{Value as Json, json};

/// Everything about a session that has ended. `story` is what is told of it to people, a sentence or two each.
pub fn of_session(running: &Running, ended: &Ended, warnings: &[String], story: &[String]) -> Json {
    json!({
        "session": running.name.as_str(),
        "role": running.entry.role,
        "backend": running.entry.backend,
        "group": running.group.as_ref().map(|(_, path)| path.as_str()),
        "promise": running.promise.name(),
        "command": running.entry.command,
        "pid": running.spawned.pid,
        "placed_by": if running.group.is_none() { Json::Null } else if running.spawned.moved { json!("move") } else { json!("clone3") },
        "started": running.entry.started,
        "started_command": true,
        "status": ended.exit.status(),
        "exit": match ended.exit {
            Exit::Code(code) => json!({ "code": code }),
            Exit::Signal(signal) => json!({ "signal": signal }),
            Exit::Unknown => json!("unknown"),
        },
        "oom": match &ended.oom {
            _ if ended.oom_unknown => json!("unknown"),
            oom => json!(oom.as_ref().map(OomReport::from)),
        },
        "usage": ended.usage,
        "receipt": running.receipt.to_json(),
        "left": ended.left.iter().map(|(pid, comm)| json!({ "pid": pid, "comm": comm })).collect::<Vec<_>>(),
        "warnings": warnings,
        "story": story,
        "error": null,
    })
}

/// A session whose command was never started.
pub fn of_failure(error: &LaunchError) -> Json {
    json!({
        "session": null,
        "promise": Promise::None.name(),
        "started_command": false,
        "status": error.kind.status(),
        "exit": null,
        "oom": null,
        "error": error.message,
        "help": error.help,
    })
}
