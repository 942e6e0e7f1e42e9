//! `cgmgr kill` and `cgmgr stop`: end sessions, whole trees, and say what did not end.

use super::args::{Global, SessionArgs};
use super::context::{self, CommandError, Outcome, print_json};
use super::look::{Found, Look, look};
use crate::kernel::{Group, survey};
use crate::path::SessionName;
use crate::session::end::{self, End, How};
use crate::session::registry::Registry;
use crate::text::count;
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::io::{self, Write};

/// Runs either command. Every session is tried, also behind one that fails.
pub fn end(args: &SessionArgs, how: How, global: &Global) -> Outcome {
    let look = look(global)?;
    let mut status = 0;
    let mut results = Vec::new();
    let mut unsaid = Ok(());
    for name in &args.sessions {
        let shown = crate::text::escape(&name.to_string_lossy());
        match one(&look, name, how) {
            Ok(end) if args.json => results.push(to_json(&shown, Some(&end), None)),
            Ok(end) => {
                if let Some(note) = &end.note {
                    context::warn(format_args!("{shown}: {note}"));
                }
                // That nobody reads it is no reason to leave the next session alive.
                unsaid = unsaid.and(writeln!(io::stdout(), "{}", line(&shown, &end, how)));
            }
            Err(error) => {
                status = 1;
                if args.json {
                    results.push(to_json(&shown, None, Some(&error)));
                } else {
                    context::say_error(&error);
                }
            }
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

fn one(look: &Look, typed: &OsStr, how: How) -> Result<End, CommandError> {
    let (name, found) = look.find(typed)?;
    let mut progress = |text: &str| context::say(format_args!("{name}: {text}"));
    match (found, &look.tree) {
        (Found::Group { group, registry, .. }, _) if is_foreign(&group, &name, registry.as_ref())? => {
            Err(foreign(&group, "what is in that group is its maker's to end"))
        }
        (
            Found::Group {
                group,
                path,
                registry,
            },
            Some(tree),
        ) => Ok(end::group(
            tree,
            (&group, &path),
            &name,
            registry.as_ref(),
            how,
            &mut progress,
        )?),
        (Found::Recorded { record, .. }, _) if record.status.is_some() => Ok(End {
            note: Some("it had ended already".into()),
            ..End::default()
        }),
        (Found::Process { record, registry } | Found::Recorded { record, registry }, _) => {
            end::without_group(&name, &record, &registry, how, &mut progress).map_err(|message| {
                CommandError::failed(
                    format!("session {name}: {message}"),
                    "run it as the user whose session it is, or as root",
                )
            })
        }
        (Found::Group { .. }, None) => Err(CommandError::failed(
            format!("session {name} is gone"),
            "`cgmgr status` lists the sessions",
        )),
    }
}

/// Whether a group that is named like a session's is somebody else's.
pub fn is_foreign(
    group: &Group,
    name: &SessionName,
    registry: Option<&Registry>,
) -> Result<bool, CommandError> {
    Ok(survey::is_foreign(group)? && !registry.is_some_and(|r| r.is_attended(name)))
}

/// The error for such a group; `whose` says whose business it is.
pub fn foreign(group: &Group, whose: &str) -> CommandError {
    CommandError::failed(
        format!("{} was not made by cgmgr", group.path()),
        format!("`cgmgr status` lists the sessions; {whose}"),
    )
}

fn line(name: &str, end: &End, how: How) -> String {
    let all = count(end.processes as u64, "process", "processes");
    match (how, end.processes, end.killed) {
        (_, 0, _) => format!("{name} ended (no process was in it)"),
        (How::Stop, _, 0) => format!("{name} ended ({all})"),
        (How::Stop, _, killed) => {
            format!("{name} ended ({all}; {killed} did not heed SIGTERM and were killed)")
        }
        (How::Kill, _, _) => format!("{name} ended ({all} killed)"),
    }
}

fn to_json(name: &str, end: Option<&End>, error: Option<&CommandError>) -> Json {
    json!({
        "session": name,
        "ended": end.is_some(),
        "processes": end.map(|e| e.processes),
        "processes_killed": end.map(|e| e.killed),
        "note": end.and_then(|e| e.note.as_deref()),
        "error": error.map(|e| &e.message),
        "help": error.and_then(|e| e.help.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_end() {
        let end = End {
            processes: 3,
            killed: 1,
            note: None,
        };
        assert_eq!(line("a", &end, How::Kill), "a ended (3 processes killed)");
        assert_eq!(
            line("a", &end, How::Stop),
            "a ended (3 processes; 1 did not heed SIGTERM and were killed)"
        );
        assert_eq!(
            line("a", &End::default(), How::Stop),
            "a ended (no process was in it)"
        );
    }
}
