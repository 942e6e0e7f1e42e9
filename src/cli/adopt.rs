//! `adopt`: moves processes that run already into a session of their own, and says who got away.
//!
//! Exit status 0 means that everything that was named, or found, is in the session or has ended; 1 that something lives
//! outside of it, or that there is no session; 2 that what was typed cannot be meant.

use super::args::{AdoptArgs, Global};
use super::context::{self, CommandError, Outcome, print_json};
use super::{roles, run};
use crate::session::adopt::{self, Adopted, Adoption};
use crate::session::launch::LaunchError;
use crate::session::linger::linger;
use crate::text::count;
use serde_json::{Value as Json, json};
use std::io::{self, Write};

/// `cgmgr adopt`.
pub fn adopt(args: &AdoptArgs, global: &Global) -> Outcome {
    let adopted = match prepare(args, global) {
        Ok(adopted) => adopted,
        Err(failure) => {
            if args.json {
                print_json(&failure.to_json())?;
            } else {
                failure.mistakes.iter().for_each(context::say_error);
            }
            return Ok(failure.status);
        }
    };
    let status = u8::from(!adopted.0.escaped.is_empty());
    let said = if args.json {
        print_json(&to_json(&adopted.0))
    } else {
        say(&adopted.0)
    };
    let (Adopted { left, .. }, place) = adopted;
    if let Err(message) = linger(left, &place, None) {
        context::warn(message);
    }
    said.map(|()| status)
}

/// Why there is no session.
struct Failure {
    status: u8,
    mistakes: Vec<CommandError>,
}

impl Failure {
    fn to_json(&self) -> Json {
        json!({
            "session": null,
            "error": self.mistakes.first().map(|m| &m.message),
            "errors": self.mistakes.iter().map(context::error_json).collect::<Vec<_>>(),
        })
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self {
            status: error.status,
            mistakes: vec![error],
        }
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        CommandError::from(error).into()
    }
}

fn prepare(args: &AdoptArgs, global: &Global) -> Result<(Adopted, crate::session::launch::Place), Failure> {
    let name = args.name.as_ref().map(run::session_name).transpose()?;
    let mut mistakes = Vec::new();
    let mut number = |text: &String| match pid(text) {
        Ok(pid) => Some(pid),
        Err(error) => {
            mistakes.push(error);
            None
        }
    };
    let pids: Vec<i32> = args.processes.iter().filter_map(&mut number).collect();
    let children_of = args.children_of.as_ref().and_then(&mut number);
    if !mistakes.is_empty() {
        return Err(Failure { status: 2, mistakes });
    }
    let place = context::place(global)?;
    let overrides = args.limits.overrides();
    let (role, warnings) = match &args.role {
        Some(path) => roles::read(path, &overrides, &place.host, global)?,
        None => roles::of_flags(&overrides, &place.host, global)?,
    };
    roles::log(&warnings);
    let given = args.limits.given();
    let adoption = Adoption {
        name,
        role: args.role.as_ref().map(|_| role.name.clone()),
        role_file: args.role.as_ref().map(|p| p.to_string_lossy().into_owned()),
        settings: &role.settings,
        overrides: given
            .iter()
            .map(|(id, text, _)| (id.knob().key.to_owned(), (*text).to_owned()))
            .collect(),
        pids,
        children_of,
        force: args.force,
    };
    match adopt::adopt(&adoption, &place) {
        Ok(adopted) => Ok((adopted, place)),
        Err(errors) => Err(Failure {
            status: 1,
            mistakes: errors.into_iter().map(CommandError::from).collect(),
        }),
    }
}

/// A pid as it was typed. The kernel takes 0 for whoever writes it: it never gets that from here.
pub fn pid(text: &str) -> Result<i32, CommandError> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(CommandError::usage(
            format!("`{}` is not a pid", crate::text::escape(text)),
            "a pid is a whole number from 1 on; `ps -e` lists them",
        )),
    }
}

fn say(adopted: &Adopted) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let moved = count(adopted.moved.len() as u64, "process", "processes");
    let ended = match adopted.ended {
        0 => String::new(),
        n => format!(" ({n} more ended before that)"),
    };
    writeln!(out, "{}: {moved} adopted{ended}", adopted.left.name)?;
    for entry in &adopted.receipt.entries {
        writeln!(out, "  {entry}")?;
    }
    drop(out);
    adopted.warnings.iter().for_each(context::warn);
    for escaped in &adopted.escaped {
        context::warn(format_args!(
            "outside the session: pid {} ({}): {}",
            escaped.pid, escaped.comm, escaped.why
        ));
    }
    Ok(())
}

fn to_json(adopted: &Adopted) -> Json {
    json!({
        "session": adopted.left.name.as_str(),
        "role": adopted.left.entry.role,
        "backend": adopted.left.entry.backend,
        "group": adopted.group.as_str(),
        "promise": adopted.promise.name(),
        "moved": adopted.moved.iter().map(|m| json!({ "pid": m.pid, "comm": m.comm, "from": m.from.as_str() })).collect::<Vec<_>>(),
        "ended": adopted.ended,
        "escaped": adopted.escaped.iter().map(|e| json!({ "pid": e.pid, "comm": e.comm, "why": e.why })).collect::<Vec<_>>(),
        "receipt": adopted.receipt.to_json(),
        "warnings": adopted.warnings,
        "error": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_a_number_from_one_on() {
        assert_eq!(pid("4121").unwrap(), 4121);
        for text in ["0", "", "-5", "+ 5", "4121x", "99999999999", "\x1b[31m"] {
            let error = pid(text).unwrap_err();
            assert_eq!(error.status, 2);
            assert!(!error.message.contains('\x1b'), "{}", error.message);
        }
    }
}
