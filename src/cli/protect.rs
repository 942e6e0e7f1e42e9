//! `protect`: becomes an agent that is protected, or protects one that runs.
//!
//! Exit status with a command: its own, for it is this very process by then; 125, 126 and 127 as `run` has them. With
//! `--pid`: 0 where the process is protected, even if not in every way (that is said), 1 where it is not, 2 for a slip of the pen.

use super::adopt::pid;
use super::args::{Global, ProtectArgs};
use super::context::{self, CommandError, print_json};
use super::roles;
use super::run::{open_report, session_name};
use crate::path::SessionName;
use crate::plan::receipt::Entry;
use crate::role::{Overrides, Role};
use crate::session::launch::{LaunchError, Place};
use crate::session::protect::{self, Protection, Request, Whom};
use serde_json::{Value as Json, json};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// `cgmgr protect`: the exit status.
pub fn protect(args: &ProtectArgs, global: &Global) -> u8 {
    match &args.pid {
        Some(text) => running(text, args, global).unwrap_or_else(|error| failed(&error, args.json)),
        None => become_agent(args, global),
    }
}

/// What was read and checked before anything is done.
struct Ready {
    place: Place,
    role: Role,
    name: Option<SessionName>,
}

fn prepare(args: &ProtectArgs, global: &Global) -> Result<Ready, CommandError> {
    let name = args.name.as_ref().map(session_name).transpose()?;
    let place = context::place(global)?;
    let none = Overrides::default();
    let (role, warnings) = match &args.role {
        Some(path) => roles::read(path, &none, &place.host, global)?,
        None => roles::of_flags(&none, &place.host, global)?,
    };
    roles::log(&warnings);
    Ok(Ready { place, role, name })
}

fn request(ready: &Ready, whom: Whom, argv: Vec<OsString>) -> Request<'_> {
    let program = argv
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .unwrap_or_default();
    Request {
        settings: &ready.role.settings,
        whom,
        name: ready.name.clone(),
        stem: SessionName::from_text(&program.to_string_lossy()),
        argv,
    }
}

fn become_agent(args: &ProtectArgs, global: &Global) -> u8 {
    let mut file = None;
    let error = match args.report.as_deref().map(open_report).transpose() {
        Ok(opened) => {
            file = opened;
            match prepare(args, global) {
                Ok(ready) => protect::protect_and_exec(
                    &request(&ready, Whom::This, args.command.clone()),
                    &ready.place,
                    &|done| told(done, args, file.as_ref()),
                ),
                Err(error) => error.into(),
            }
        }
        Err(error) => error,
    };
    context::say_error(&CommandError {
        status: error.kind.status(),
        message: error.message.clone(),
        help: error.help.clone(),
    });
    if let Some(file) = &file {
        write(file, &failure_json(&error));
    }
    error.kind.status()
}

/// Says what came of the protection, as long as there is somebody to say it.
fn told(done: &Protection, args: &ProtectArgs, file: Option<&File>) -> Result<(), LaunchError> {
    if args.require_limits
        && let Some(error) = protect::not_all(done)
    {
        return Err(error);
    }
    if !args.quiet {
        warn(done);
    }
    if let Some(file) = file {
        write(file, &to_json(done));
    }
    Ok(())
}

fn write(mut file: &File, value: &Json) {
    // Over what was written before an agent that could not be executed.
    let written = io::Seek::rewind(&mut file)
        .and_then(|()| file.set_len(0))
        .and_then(|()| file.write_all(format!("{value:#}\n").as_bytes()));
    if let Err(error) = written {
        context::say(format_args!("error: cannot write the report: {error}"));
    }
}

fn running(text: &str, args: &ProtectArgs, global: &Global) -> Result<u8, CommandError> {
    let pid = pid(text)?;
    let ready = prepare(args, global)?;
    let whom = Whom::other(pid)?;
    let argv = whom.command_line();
    let done = protect::protect(&request(&ready, whom, argv), &ready.place)?;
    if args.json {
        print_json(&to_json(&done))?;
        return Ok(0);
    }
    if !args.quiet {
        say(&done)?;
        done.notes.iter().for_each(context::warn);
    }
    Ok(0)
}

fn failed(error: &CommandError, as_json: bool) -> u8 {
    if !as_json {
        context::say_error(error);
    } else if let Err(error) = print_json(&context::error_json(error)) {
        context::say_error(&error);
    }
    error.status
}

fn say(done: &Protection) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let where_it_is = match &done.group {
        Some(group) if done.already => format!("is in {group}, and was before"),
        Some(group) => format!("is in {group}"),
        None => "has no group of its own".to_owned(),
    };
    writeln!(out, "pid {} {where_it_is}", done.pid)?;
    for entry in &done.receipt.entries {
        writeln!(out, "  {entry}")?;
    }
    Ok(())
}

/// What is not as declared, and what else is to be known.
fn warn(done: &Protection) {
    for Entry { knob, outcome, .. } in done.receipt.unconfined() {
        // Told in words of its own.
        if !knob.knob().is_on_process() {
            context::warn(format_args!("{} is {outcome}", knob.knob().key));
        }
    }
    done.notes.iter().for_each(context::warn);
}

fn failure_json(error: &LaunchError) -> Json {
    json!({
        "pid": null,
        "group": null,
        "status": error.kind.status(),
        "error": error.message,
        "help": error.help,
    })
}

fn to_json(done: &Protection) -> Json {
    json!({
        "pid": done.pid,
        "group": done.group.as_ref().map(|group| group.as_str()),
        "already": done.already,
        "left_behind": done.left_behind,
        "receipt": done.receipt.to_json(),
        "notes": done.notes,
        "error": null,
    })
}
