//! `cgmgr forget`: gives the name of a session free that an OOM kill ended, and lets go of what was kept of it.

use super::args::{ForgetArgs, Global};
use super::context::{CommandError, Outcome};
use super::records::{place, store};
use super::run::session_name;

/// Runs the command.
pub fn forget(args: &ForgetArgs, _global: &Global) -> Outcome {
    let store = store()?;
    let kept = store.kept();
    let mut names = Vec::new();
    for typed in &args.sessions {
        names.push(session_name(typed)?);
    }
    if args.all {
        names = kept.names().map_err(place)?;
    }
    // All are looked for before the first one goes.
    let missing: Vec<&str> = names
        .iter()
        .filter(|name| !kept.has(name))
        .map(|name| name.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(CommandError::failed(
            format!("nothing is kept of {}", missing.join(", ")),
            "`cgmgr oom` lists the OOM kills on record, and which of them are kept",
        ));
    }
    for name in names {
        kept.forget(&name).map_err(|error| {
            CommandError::failed(
                format!("cannot forget {name}: {error}"),
                "make the directory writable",
            )
        })?;
    }
    Ok(0)
}
