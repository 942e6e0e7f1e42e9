//! `cargo xtask guest`: boots a guest once for one command, the developer's daily tool.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::distro::{Distro, Mode};
use crate::guest::Guest;
use crate::payload::Payload;
use crate::{cargo, glibc, say};

/// What `cargo xtask guest` is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// Debian 12 (Linux 6.1, systemd 252) or 13 (Linux 6.12, systemd 257)
    #[arg(long, value_enum, default_value = "13")]
    distro: Distro,
    /// What is PID 1, and which cgroup version has the controllers
    #[arg(long, value_enum, default_value = "systemd")]
    mode: Mode,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    memory: u32,
    /// Give it a GiB of swap
    #[arg(long)]
    swap: bool,
    /// Processors: 2, or 8 where the mode is engines
    #[arg(long)]
    cpus: Option<u32>,
    /// One processor, and a clock that counts instructions
    #[arg(long)]
    counted: bool,
    /// Seconds that the command may take; one that prints nothing may take as long
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    deadline: u64,
    /// A file or folder to have in /lab
    #[arg(long, value_name = "PATH", num_args = 1..)]
    with: Vec<PathBuf>,
    /// Where to put what the command leaves in /lab/out
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Take the release build of cgmgr
    #[arg(long)]
    release: bool,
    /// Do not build cgmgr, and boot without it
    #[arg(long)]
    without_cgmgr: bool,
    /// A script to run instead of a command
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "command",
        required_unless_present = "command"
    )]
    script: Option<PathBuf>,
    /// The command; a single word with spaces is run by the shell
    #[arg(last = true)]
    command: Vec<String>,
}

/// Boots, runs, passes the exit status on.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut payload = Payload::default();
    if !arguments.without_cgmgr {
        let cgmgr = cargo::cgmgr(arguments.release)?;
        glibc::add_program(&mut payload, "usr/local/bin/cgmgr", &cgmgr, arguments.distro)?;
    }
    for path in &arguments.with {
        let name = path
            .file_name()
            .with_context(|| format!("{} has no file name", path.display()))?;
        payload.copy(&format!("lab/{}", name.to_string_lossy()), path)?;
    }
    let script = match &arguments.script {
        Some(file) => {
            let content = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            payload.bytes("lab/script", &content, 0o755)?;
            let start = if content.starts_with(b"#!") {
                "exec"
            } else {
                "exec bash"
            };
            format!("{start} /lab/script")
        }
        None => match arguments.command.as_slice() {
            [line] => format!("exec bash -c {}", quote(line)),
            words => format!(
                "exec {}",
                words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ")
            ),
        },
    };
    let deadline = Duration::from_secs(arguments.deadline);
    let guest = Guest {
        memory_mib: arguments.memory,
        swap: arguments.swap,
        cpus: arguments.cpus.unwrap_or(arguments.mode.cpus()),
        counted: arguments.counted,
        deadline,
        silence: deadline,
        out: arguments.out.clone(),
        ..Guest::new(arguments.distro, arguments.mode)
    };
    say::say(format!("booting {}", guest.name()));
    let outcome = guest.run(payload, &script, |line| println!("{line}"))?;
    say::say(format!(
        "exit status {}, booted in {:.1} s, {:.1} s in all",
        outcome.status,
        outcome.boot.as_secs_f32(),
        outcome.total.as_secs_f32()
    ));
    Ok(exit_code(outcome.status))
}

/// A status as this program's own.
pub fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

/// A word that the shell takes as it is.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn quoting_survives_quotes() {
        assert_eq!(super::quote("it's"), r"'it'\''s'");
    }
}
