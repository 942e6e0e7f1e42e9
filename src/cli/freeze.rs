//! `cgmgr freeze` and `cgmgr thaw`: whole trees, and what does not freeze.

use super::args::{FreezeArgs, Global};
use super::context::{self, CommandError, Outcome, print_json};
use super::look::look;
use crate::kernel::process;
use crate::session::freeze::Frozen;
use crate::text::{count, escape};
use crate::workspace::control;
use serde_json::{Value as Json, json};
use std::io::{self, Write};

/// Runs either command. Every session is tried, also behind one that fails.
pub fn freeze(args: &FreezeArgs, frozen: bool, global: &Global) -> Outcome {
    let look = look(global)?;
    let mut status = 0;
    let mut results = Vec::new();
    let mut unsaid = Ok(());
    for name in &args.sessions {
        let shown = escape(&name.to_string_lossy());
        let done = control::freeze(&look, name, frozen, args.timeout).map_err(CommandError::from);
        let failure = match &done {
            Ok(result) => control::in_the_way(&shown, result, frozen, args.timeout).map(CommandError::from),
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

fn line(name: &str, result: &Frozen, frozen: bool) -> String {
    let all = count(result.processes as u64, "process", "processes");
    match (frozen, result.already) {
        (true, false) => format!("{name} frozen ({all})"),
        (true, true) => format!("{name} was frozen already ({all})"),
        (false, false) => format!("{name} thawed ({all})"),
        (false, true) => format!("{name} was not frozen ({all})"),
    }
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
    }
}
