//! `cargo xtask demo`: the demonstration, in a guest or on this machine.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::distro::{Distro, Mode};
use crate::guest::Guest;
use crate::payload::Payload;
use crate::{cargo, glibc, say, shell, test};

/// What `cargo xtask demo` is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run it on this machine instead of in a guest
    #[arg(long)]
    host: bool,
}

/// Runs `xtask/demo/demo.sh`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let script = cargo::root().join("xtask/demo/demo.sh");
    let cgmgr = cargo::cgmgr(false)?;
    if arguments.host {
        test::host_mode()?;
        let bin = cgmgr.parent().context("a binary is in a folder")?;
        let status = Command::new(&script)
            .env(
                "PATH",
                format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()),
            )
            .env("CGMGR_BIN", &cgmgr)
            .env("CGMGR_EXAMPLES", cargo::root().join("examples"))
            .status()
            .with_context(|| format!("cannot run {}", script.display()))?;
        return Ok(shell::exit_code(status.code().unwrap_or(1)));
    }
    let mut payload = Payload::default();
    glibc::add_program(&mut payload, "usr/local/bin/cgmgr", &cgmgr, Distro::Debian13)?;
    payload.copy("lab/demo", &cargo::root().join("xtask/demo"))?;
    add_trees(&mut payload)?;
    let guest = Guest::new(Distro::Debian13, Mode::Systemd);
    say::say(format!("booting {} for the demonstration", guest.name()));
    let outcome = guest.run(payload, "exec bash /lab/demo/demo.sh", |line| println!("{line}"))?;
    if outcome.status != 0 {
        bail!("the demonstration ended with exit status {}", outcome.status);
    }
    Ok(ExitCode::SUCCESS)
}

/// What of the project tests and demonstration read.
pub fn add_trees(payload: &mut Payload) -> Result<()> {
    for name in ["examples", "systemd"] {
        let tree = cargo::root().join(name);
        if Path::new(&tree).is_dir() {
            payload.copy(&format!("lab/{name}"), &tree)?;
        }
    }
    payload.copy("lab/README.md", &cargo::root().join("README.md"))
}
