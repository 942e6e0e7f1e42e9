//! `cargo xtask bench`: measures cgmgr, its peers and the bare floor side by side in one boot of a guest.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::distro::{Distro, Mode};
use crate::guest::Guest;
use crate::payload::Payload;
use crate::{cache, cargo, glibc, say, shell, survive};

/// What `cargo xtask bench` is told.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

/// What can be measured.
#[derive(clap::Subcommand)]
enum What {
    /// From the request for a launch until its command has ended and its group is gone
    Launch(Speed),
    /// From the request to end a session until its last process, and its group, are gone
    Kill(Speed),
    /// What watching costs: a sample of a thousand sessions, from an OOM kill to the line that tells of it, an idle daemon
    Observe(Speed),
    /// The last two of these only
    Daemon(Speed),
    /// What an agent survives, with cgmgr and without: eight attacks, without swap and with it, five ways side by side
    Survive(survive::Arguments),
}

/// How speed is measured.
#[derive(clap::Args)]
struct Speed {
    /// Debian 12 (Linux 6.1, systemd 252) or 13 (Linux 6.12, systemd 257)
    #[arg(long, value_enum, default_value = "13")]
    distro: Distro,
    /// What is PID 1; without systemd there is no systemd-run to compare with
    #[arg(long, value_enum, default_value = "systemd")]
    mode: Mode,
    /// How often each way is measured
    #[arg(long, default_value_t = 40)]
    rounds: u32,
    /// In a guest with one processor whose clock counts instructions: figures repeat to about one per cent, however busy
    /// this machine is
    #[arg(long)]
    counted: bool,
}

/// Measures what it is told.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Launch(speed) => measure("launch", speed),
        What::Kill(speed) => measure("kill", speed),
        What::Observe(speed) => measure("observe", speed),
        What::Daemon(speed) => measure("daemon", speed),
        What::Survive(arguments) => survive::run(arguments),
    }
}

/// Boots, measures, prints.
fn measure(what: &str, arguments: &Speed) -> Result<ExitCode> {
    let mut payload = Payload::default();
    let distro = arguments.distro;
    glibc::add_program(&mut payload, "usr/local/bin/cgmgr", &cargo::cgmgr(true)?, distro)?;
    glibc::add_program(&mut payload, "lab/bench", &cargo::bench_binary("bench")?, distro)?;
    glibc::add_program(&mut payload, "lab/floor", &compiled("floor")?, distro)?;
    let deadline = Duration::from_secs(3600);
    let guest = Guest {
        counted: arguments.counted,
        deadline,
        silence: deadline,
        ..Guest::new(distro, arguments.mode)
    };
    let counted = if guest.counted { " by counting" } else { "" };
    say::say(format!("booting {} to measure {what}{counted}", guest.name()));
    let script = format!("exec /lab/bench {what} {}", arguments.rounds);
    let outcome = guest.run(payload, &script, |line| println!("{line}"))?;
    Ok(shell::exit_code(outcome.status))
}

/// Compiles one of the C programs in `benches`.
pub fn compiled(name: &str) -> Result<PathBuf> {
    let folder = cache::subdir(&cache::dir()?, name)?;
    let program = folder.join(name);
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-Werror", "-o"])
        .arg(&program)
        .arg(cargo::root().join(format!("benches/{name}.c")))
        .status()
        .context("cannot run cc: install a C compiler")?;
    if !status.success() {
        bail!("benches/{name}.c does not compile");
    }
    Ok(program)
}
