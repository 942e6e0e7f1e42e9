//! `cgmgr import`: a role file of what another program was told, on standard output; what is not in it on standard error
//! too.

use super::args::{Global, ImportArgs};
use super::context::{CommandError, Outcome, print_json, warn};
use super::roles;
use crate::files;
use crate::import::{Form, Refused, import as imported};
use crate::kernel::probe;
use crate::text::escape;
use serde_json::json;
use std::io::{self, Write};

/// `cgmgr import`.
pub fn import(args: &ImportArgs, global: &Global) -> Outcome {
    let source = roles::source(&args.file, global)?;
    let path = escape(&args.file.to_string_lossy());
    let form = args.from.unwrap_or_else(|| Form::of(&source.text));
    if args.service.is_some() && form != Form::Compose {
        return Err(CommandError::usage(
            format!(
                "--service is for a Compose file, and {path} is read as {}",
                form.name()
            ),
            "leave it out, or say --from compose",
        ));
    }
    let machine = probe::machine();
    let made = files::with_inputs(&machine, |inputs| {
        imported(source, form, args.service.as_deref(), inputs)
    });
    let made = made.map_err(|refused| match refused {
        Refused::Mistakes(mistakes) => {
            roles::show(&mistakes, global);
            roles::invalid(&format!("{path} is not valid"))
        }
        Refused::Because(message, help) => {
            CommandError::usage(format!("{path}: {}", escape(&message)), escape(&help))
        }
    })?;
    roles::show(&made.warnings, global);
    if args.json {
        print_json(&json!({
            "from": made.form.name(),
            "text": made.text,
            "limits": made.limits,
            "left": made.left,
        }))?;
        return Ok(0);
    }
    for left in &made.left {
        warn(format_args!("not taken over: {}: {}", left.what, left.why));
    }
    if made.limits == 0 {
        warn(format_args!(
            "no limits were found in {path}, which was read as {}",
            made.form.name()
        ));
    }
    let mut out = io::stdout().lock();
    out.write_all(made.text.as_bytes())?;
    out.flush()?;
    Ok(0)
}
