//! `cgmgr freeze` and `cgmgr thaw`: whole trees, and what does not freeze.

use super::args::{FreezeArgs, Global};
use super::context::{self, CommandError, Outcome, print_json};
use super::end::{foreign, is_foreign};
use super::look::{Found, Look, look};
use crate::kernel::process;
use crate::path::GroupPath;
use crate::session::freeze::{self, Frozen};
use crate::text::{count, duration_us, escape};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::time::Duration;

/// Runs either command. Every session is tried, also behind one that fails.
pub fn freeze(args: &FreezeArgs, frozen: bool, global: &Global) -> Outcome {
    let look = look(global)?;
    let mut status = 0;
    let mut results = Vec::new();
    let mut unsaid = Ok(());
    for name in &args.sessions {
        let shown = escape(&name.to_string_lossy());
        let done = one(&look, name, frozen, args.timeout);
        let failure = match &done {
            Ok(result) => in_the_way(&shown, result, frozen, args.timeout),
            Err(error) => Some(error.clone()),
        };
        status |= u8::from(failure.is_some());
        if args.json {
            results.push(to_json(&shown, done.as_ref().ok(), failure.as_ref()));
            continue;
        }
        match (&done, &failure) {
            (_, Some(error)) => context::say_error(error),
            // That nobody reads it is no reason to leave the next session as it is.
            (Ok(result), None) => {
                unsaid = unsaid.and(writeln!(io::stdout(), "{}", line(&shown, result, frozen)));
            }
            (Err(_), None) => {}
        }
        if let Ok(Frozen {
            at_terminal: Some(pid),
            ..
        }) = &done
        {
            context::warn(format_args!(
                "{shown} holds its terminal ({}): nothing typed there is read, and Ctrl-C does not end it, until `cgmgr \
                 thaw {shown}`",
                process::describe(*pid)
            ));
        }
    }
    if args.json {
        print_json(&Json::Array(results))?;
    }
    match unsaid {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(status),
    }
}

fn one(look: &Look, typed: &OsStr, frozen: bool, timeout: Duration) -> Result<Frozen, CommandError> {
    let word = if frozen { "frozen" } else { "thawed" };
    let (name, found) = look.find(typed)?;
    match (found, &look.tree) {
        (Found::Group { group, registry, .. }, _) if is_foreign(&group, &name, registry.as_ref())? => {
            Err(foreign(&group, "what is in that group is its maker's"))
        }
        (Found::Group { path, .. }, _) if frozen && is_inside(&path) => Err(CommandError::failed(
            format!(
                "this command runs inside session {name}: it would freeze itself, and who is to thaw it?"
            ),
            "say it from outside of the session",
        )),
        (Found::Group { group, path, .. }, Some(tree)) => {
            Ok(freeze::set(tree, (&group, &path), frozen, timeout)?)
        }
        (Found::Process { .. }, _) => Err(CommandError::failed(
            format!(
                "session {name} cannot be {word}: it has no group (process backend), so its tree cannot be held"
            ),
            "`cgmgr doctor` says what is missing for the cgroupfs backend",
        )),
        (Found::Recorded { .. } | Found::Group { .. }, _) => Err(CommandError::failed(
            format!("session {name} has ended, or is about to begin or to end"),
            "`cgmgr status` lists the sessions",
        )),
    }
}

fn is_inside(path: &GroupPath) -> bool {
    let own = process::own_group().as_deref().and_then(GroupPath::new);
    own.is_some_and(|own| path.contains(&own))
}

fn line(name: &str, result: &Frozen, frozen: bool) -> String {
    let all = count(result.processes as u64, "process", "processes");
    match (frozen, result.already) {
        (true, false) => format!("{name} frozen ({all})"),
        (true, true) => format!("{name} was frozen already ({all})"),
        (false, false) => format!("{name} thawed ({all})"),
        (false, true) => format!("{name} was not frozen ({all})"),
    }
}

/// Why a session is not as it was to be.
fn in_the_way(name: &str, result: &Frozen, frozen: bool, timeout: Duration) -> Option<CommandError> {
    if result.done {
        return None;
    }
    if let Some(above) = &result.above {
        return Some(CommandError::failed(
            format!("{name} is still frozen: {above}, a group above it, is"),
            format!("whoever froze {above} thaws it: its cgroup.freeze holds 1"),
        ));
    }
    let after = duration_us(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX));
    let who: Vec<String> = result
        .left
        .iter()
        .map(|(pid, comm, state)| format!("pid {pid} ({comm}, state {state})"))
        .collect();
    let who = match who.is_empty() {
        true => String::new(),
        false => format!(": {}", who.join(", ")),
    };
    Some(if frozen {
        CommandError::failed(
            format!("{name} is not wholly frozen after {after}{who}"),
            format!(
                "what is in an uninterruptible sleep (state D) freezes when it leaves it; `cgmgr thaw {name}` takes it back"
            ),
        )
    } else {
        CommandError::failed(
            format!("{name} is not thawed after {after}"),
            "did somebody freeze it again? `cgmgr status` shows it",
        )
    })
}

fn to_json(name: &str, result: Option<&Frozen>, error: Option<&CommandError>) -> Json {
    json!({
        "session": name,
        "done": result.is_some_and(|r| r.done),
        "already": result.map(|r| r.already),
        "processes": result.map(|r| r.processes),
        "not_frozen": result.map(|r| {
            let one = |(pid, comm, state): &(i32, String, char)| json!({ "pid": pid, "comm": comm, "state": state });
            r.left.iter().map(one).collect::<Vec<_>>()
        }),
        "frozen_above": result.and_then(|r| r.above.as_ref()).map(|above| above.as_str()),
        "at_terminal": result.and_then(|r| r.at_terminal),
        "error": error.map(|e| &e.message),
        "help": error.and_then(|e| e.help.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let mut result = Frozen {
            done: true,
            processes: 3,
            ..Frozen::default()
        };
        assert_eq!(line("a", &result, true), "a frozen (3 processes)");
        result.already = true;
        assert_eq!(line("a", &result, false), "a was not frozen (3 processes)");
        assert!(in_the_way("a", &result, true, Duration::ZERO).is_none());
        result.done = false;
        result.left = vec![(7, "dd".into(), 'D')];
        let error = in_the_way("a", &result, true, Duration::from_secs(10)).unwrap();
        assert_eq!(
            error.message,
            "a is not wholly frozen after 10.0 s: pid 7 (dd, state D)"
        );
        result.above = GroupPath::new("/w");
        let error = in_the_way("a", &result, false, Duration::ZERO).unwrap();
        assert!(error.message.contains("/w, a group above"), "{error:?}");
    }
}
