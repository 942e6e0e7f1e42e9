//! `cgmgr translate`: a role in the words of another program on standard output; what is lost on standard error.

use super::args::{Global, TranslateArgs};
use super::context::{CommandError, Outcome, help, print_json, say, warn};
use super::roles;
use crate::kernel::probe;
use crate::limits::{Engine, Size};
use crate::text::escape;
use crate::translate::{Options, Translation, translate as translated};
use serde_json::{Value as Json, json};
use std::io::{self, Write};
use std::path::Path;

/// `cgmgr translate`.
pub fn translate(args: &TranslateArgs, global: &Global) -> Outcome {
    let mut machine = probe::machine();
    if let Some(text) = &args.memory_total {
        machine.mem_total = match text.parse() {
            Ok(Size::Bytes(bytes)) => bytes.0,
            Ok(_) => {
                return Err(CommandError::usage(
                    "--memory-total is no amount",
                    "write e.g. 64GiB",
                ));
            }
            Err(error) => {
                let message = format!("--memory-total {:?}: {error}", escape(text));
                return Err(CommandError::usage(message, error.help()));
            }
        };
    }
    let options = Options {
        image: image(args.image.as_deref())?,
        merge: match &args.merge {
            None => None,
            Some(_) if args.to != Engine::Oci => {
                let help = "leave it out, or translate --to oci";
                return Err(CommandError::usage("--merge is for a config.json", help));
            }
            Some(path) => Some(config(path, global)?),
        },
    };
    let (role, warnings) = roles::read_on(&args.role, &args.limits.overrides(), &machine, global)?;
    roles::log(&warnings);
    let translation = translated(&role.name, &role.settings, args.to, options).map_err(|why| {
        let path = args.merge.as_deref().unwrap_or(Path::new("")).to_string_lossy();
        CommandError::usage(
            format!("{}: {why}", escape(&path)),
            "is it a config.json of the OCI runtime specification?",
        )
    })?;
    let refused = args.require_limits && !translation.losses.is_empty();
    if args.json {
        print_json(&report(translation))?;
    } else {
        tell(&translation);
        if !refused {
            let mut out = io::stdout().lock();
            out.write_all(translation.text.as_bytes())?;
            out.flush()?;
        }
    }
    Ok(if refused { 3 } else { 0 })
}

/// A name of an image, which needs no quotes anywhere.
fn image(name: Option<&str>) -> Result<Option<String>, CommandError> {
    let Some(name) = name else { return Ok(None) };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/:@-".contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(plain) {
        return Err(CommandError::usage(
            format!("--image `{}` is no name of an image", escape(name)),
            "write e.g. docker.io/library/debian:13",
        ));
    }
    Ok(Some(name.to_owned()))
}

fn config(path: &Path, global: &Global) -> Result<Json, CommandError> {
    let source = roles::source(path, global)?;
    serde_json::from_str(&source.text).map_err(|error| {
        CommandError::usage(
            format!("{}: not JSON: {error}", escape(&path.to_string_lossy())),
            "name a config.json of the OCI runtime specification, e.g. of `crun spec`",
        )
    })
}

/// Losses and notes, on standard error.
fn tell(translation: &Translation) {
    for loss in &translation.losses {
        // A part is lost as a whole, and its value is a list.
        let what = match loss.knob.as_str() {
            part @ ("agent" | "workloads") => format!("[{part}] {}", loss.value),
            knob => format!("{knob} = {}", loss.value),
        };
        warn(format_args!("{what}: {}", loss.why));
        help(Some(&loss.instead));
    }
    for note in &translation.notes {
        say(format_args!("note: {}", escape(note)));
    }
}

fn report(translation: Translation) -> Json {
    let mut report = json!({
        "to": translation.engine.name(),
        "text": translation.text,
        "losses": translation.losses,
        "notes": translation.notes,
    });
    if let Some(document) = translation.document {
        report["document"] = document;
    }
    report
}
