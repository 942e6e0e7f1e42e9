//! `cgmgr kill` and `cgmgr stop`: end sessions, whole trees, and say what did not end.

use super::args::{Global, SessionArgs};
use super::context::{self, CommandError, Outcome, print_json};
use super::look::look;
use crate::session::end::{End, How, PUT_AWAY};
use crate::text::count;
use crate::workspace::control;
use serde_json::{Value as Json, json};
use std::io::{self, Write};

/// Runs either command. Every session is tried, also behind one that fails.
pub fn end(args: &SessionArgs, how: How, global: &Global) -> Outcome {
    let look = look(global)?;
    let mut status = 0;
    let mut results = Vec::new();
    let mut unsaid = Ok(());
    for name in &args.sessions {
        let shown = crate::text::escape(&name.to_string_lossy());
        let mut progress = |text: &str| context::say(format_args!("{shown}: {text}"));
        match control::end(&look, name, how, PUT_AWAY, &mut progress).map_err(CommandError::from) {
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
