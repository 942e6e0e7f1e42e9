//! The command line. Only this module prints, and only `main.rs` exits.

pub mod adopt;
pub mod apply;
pub mod args;
pub mod check;
pub mod commands;
pub mod context;
pub mod daemon;
pub mod doctor;
pub mod down;
pub mod end;
pub mod enter;
pub mod events;
pub mod explain;
pub mod forget;
pub mod freeze;
pub mod history;
pub mod import;
pub mod install;
pub mod limit_flags;
pub mod limits;
mod log;
pub mod look;
pub mod oom;
pub mod protect;
pub mod records;
pub mod report;
pub mod roles;
pub mod run;
pub mod schema;
pub mod set;
pub mod status;
pub mod status_text;
pub mod translate;
pub mod wait;

use crate::session::end::How;
use args::Cli;
use clap::Subcommand;
use commands::Command;
use context::Outcome;
use std::ffi::OsString;

/// Runs the command line `args` (the program's name first) and returns the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    log::to_stderr();
    let cli = match Cli::read(&args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return match error.exit_code() {
                0 => 0,
                // Every failure of `run`, `enter` and `protect` before a command starts is 125, so that it is told from the
                // command's own 2.
                _ if runs_a_command(&args) => 125,
                _ => 2,
            };
        }
    };
    match dispatch(&cli) {
        Ok(status) => status,
        Err(error) if error.is_reader_gone() => 0,
        Err(error) => {
            context::say_error(&error);
            error.status
        }
    }
}

/// Whether what was typed runs a command of the user's, as far as that can be told of a line that is not understood.
fn runs_a_command(args: &[OsString]) -> bool {
    let known = |arg: &&OsString| arg.to_str().is_some_and(Command::has_subcommand);
    args.iter()
        .skip(1)
        .find(known)
        .is_some_and(|name| match name.to_str() {
            Some("protect") => !args.iter().any(|arg| arg.to_string_lossy().starts_with("--pid")),
            name => matches!(name, Some("run" | "enter")),
        })
}

fn dispatch(cli: &Cli) -> Outcome {
    match &cli.command {
        Command::Run(args) => Ok(run::run(args, &cli.global)),
        other => carry_out(other, &cli.global),
    }
}

/// Apart from a launch, which is not to have the text of all others mapped around its own.
#[inline(never)]
fn carry_out(command: &Command, global: &args::Global) -> Outcome {
    match command {
        Command::Check(args) => roles::check(args, global),
        Command::Explain(args) => roles::explain(args, global),
        Command::Plan(args) => apply::plan(args, global),
        Command::Apply(args) if args.dry_run => apply::plan(args, global),
        Command::Apply(args) => apply::apply(args, global),
        Command::Run(args) => Ok(run::run(args, global)),
        Command::Down(args) => down::down(args, global),
        Command::Status(args) => status::status(args, global),
        Command::Kill(args) => end::end(args, How::Kill, global),
        Command::Stop(args) => end::end(args, How::Stop, global),
        Command::Wait(args) => wait::wait(args, global),
        Command::Install(args) => install::install(args, global),
        Command::Uninstall(args) => install::uninstall(args),
        Command::Anchor(args) => install::anchor(args),
        Command::Schema(_) => schema::schema(),
        Command::Doctor(args) => doctor::doctor(args, global),
        Command::Set(args) => set::set(args, global),
        Command::Freeze(args) => freeze::freeze(args, true, global),
        Command::Thaw(args) => freeze::freeze(args, false, global),
        Command::Limits(args) => limits::limits(args),
        Command::Enter(args) => Ok(enter::enter(args, global)),
        Command::Adopt(args) => adopt::adopt(args, global),
        Command::Protect(args) => Ok(protect::protect(args, global)),
        Command::Daemon(args) => daemon::daemon(args, global),
        Command::Events(args) => events::events(args, global),
        Command::Oom(args) => oom::oom(args, global),
        Command::History(args) => history::history(args, global),
        Command::Forget(args) => forget::forget(args, global),
        Command::Import(args) => import::import(args, global),
        Command::Translate(args) => translate::translate(args, global),
    }
}
