//! `cargo xtask test`: the native tests, then the kernel tests in guests of every kind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::distro::{Disk, Distro, Mode};
use crate::guest::Guest;
use crate::libtest::Tally;
use crate::payload::Payload;
use crate::{cargo, demo, dist, fuzz, glibc, image, say, shell};

/// The longest that the tests of one guest may take: a third of it on a machine that has nothing else to do.
const DEADLINE: Duration = Duration::from_secs(55 * 60);

/// The longest that the tests of one guest may take in full: campaigns of thousands of sessions, emulated.
const FULL_DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// What `cargo xtask test` is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run the long campaigns in full, the tests marked as ignored, and the fuzz targets
    #[arg(long)]
    full: bool,
    /// Run the kernel tests on this machine instead of in guests; needs root and cgroup v2
    #[arg(long)]
    host: bool,
    /// Only guests of this distribution
    #[arg(long, value_enum)]
    distro: Option<Distro>,
    /// Only guests of this mode
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Boot one guest at a time
    #[arg(long)]
    serial: bool,
}

impl Arguments {
    fn distros(&self) -> Vec<Distro> {
        Distro::ALL
            .into_iter()
            .filter(|d| self.distro.is_none_or(|only| only == *d))
            .collect()
    }
}

/// Runs everything and closes with the line `N passed, N failed`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.host {
        host_mode()?;
    }
    let mut total = native(arguments)?;
    match kernel(arguments) {
        Ok(tally) => total += tally,
        Err(error) => {
            eprintln!("error: {error:#}");
            total.failed += 1;
        }
    }
    if arguments.full && arguments.filter.is_none() {
        total += fuzzed();
    }
    if total.ran() == 0 {
        say::say("no test was run");
        total.failed += 1;
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A campaign of each fuzz target, counted as one test each.
fn fuzzed() -> Tally {
    let mut tally = Tally::default();
    let campaigns = || -> Result<Vec<bool>> {
        let folder = fuzz::build()?;
        let targets = fuzz::targets()?;
        targets
            .iter()
            .map(|target| fuzz::campaign(&folder, target, fuzz::SECONDS))
            .collect()
    };
    match campaigns() {
        Ok(results) => {
            tally.passed = results.iter().filter(|clean| **clean).count() as u32;
            tally.failed = results.len() as u32 - tally.passed;
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            tally.failed = 1;
        }
    }
    tally
}

/// What the kernel tests need, built.
struct Built {
    kernel: PathBuf,
    payload: PathBuf,
    embed: PathBuf,
    embed_agent: PathBuf,
    cgmgr: PathBuf,
    /// The Debian package, where a test that is to run installs it.
    deb: Option<Vec<u8>>,
}

/// Where the tests of the Debian package are: they install it, for which a developer's own machine is not the place.
fn is_of_the_package(test: &str) -> bool {
    test.starts_with("any::package::")
}

/// The kernel tests, wherever they are to be run.
fn kernel(arguments: &Arguments) -> Result<Tally> {
    let mut built = Built {
        kernel: cargo::test_binary("kernel")?,
        payload: cargo::test_binary("payload")?,
        embed: cargo::example("embed")?,
        embed_agent: cargo::example("embed_agent")?,
        cgmgr: cargo::cgmgr(false)?,
        deb: None,
    };
    let mut tests = list(&built.kernel)?;
    if arguments.host {
        let all = tests.len();
        tests.retain(|test| {
            !is_of_the_package(test) && !test.starts_with("engines::") && !REBOOT.contains(&test.as_str())
        });
        say::say(format!(
            "{} tests, of the Debian package, of a reboot and of other engines, only run in guests",
            all - tests.len()
        ));
        return on_host(&built, &tests, arguments);
    }
    let modes = || {
        Mode::ALL
            .into_iter()
            .filter(|m| arguments.mode.is_none_or(|only| only == *m))
    };
    if modes().any(|mode| {
        select(&tests, mode, arguments)
            .iter()
            .any(|test| is_of_the_package(test))
    }) {
        built.deb = Some(dist::deb()?);
    }
    let mut disks: Vec<Disk> = modes()
        .filter(|mode| !select(&tests, *mode, arguments).is_empty())
        .map(Mode::disk)
        .collect();
    disks.dedup();
    image::ensure_all(&arguments.distros(), &disks)?;
    in_guests(arguments, &built, &tests)
}

/// `cargo test` on this machine.
fn native(arguments: &Arguments) -> Result<Tally> {
    say::say("native tests");
    let mut command = cargo::command();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command.args(cargo::TESTED).arg("--");
    command.args(&arguments.filter);
    if arguments.full {
        command.arg("--include-ignored");
    }
    let tally = count(&mut command, "native")?;
    say::say(format!(
        "native: {} passed, {} failed",
        tally.passed, tally.failed
    ));
    Ok(tally)
}

/// Runs a command that prints as libtest does. A failure that no test accounts for counts as one.
fn count(command: &mut Command, name: &str) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the {name} tests"))?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("it has a standard output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        say::say(format!("{name}: {status}, with no failed test to account for it"));
        tally.failed += 1;
    }
    Ok(tally)
}

/// The names of all kernel tests.
fn list(binary: &Path) -> Result<Vec<String>> {
    let output = Command::new(binary)
        .args(["--list", "--format", "terse"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// The tests that are for a mode: those in its own module and, where cgroup v2 is all that matters, those in `any`.
fn select(tests: &[String], mode: Mode, arguments: &Arguments) -> Vec<String> {
    let of = |name: &str, module: &str| {
        name.strip_prefix(module)
            .is_some_and(|rest| rest.starts_with("::"))
    };
    let wanted = |name: &&String| {
        (of(name, mode.name()) || (matches!(mode, Mode::Systemd | Mode::Bare) && of(name, "any")))
            && arguments.filter.as_ref().is_none_or(|part| name.contains(part))
    };
    let mut names: Vec<String> = tests.iter().filter(wanted).cloned().collect();
    // One without the other has nothing to do, or nothing to look at.
    if REBOOT.iter().any(|name| names.iter().any(|n| n == name)) {
        names.retain(|name| !REBOOT.contains(&name.as_str()));
        names.extend(REBOOT.map(str::to_owned));
    }
    names
}

/// Boots every guest that is asked for, the two distributions side by side.
fn in_guests(arguments: &Arguments, built: &Built, tests: &[String]) -> Result<Tally> {
    let total = Mutex::new(Tally::default());
    let boot_all = |distro: Distro| {
        for mode in Mode::ALL {
            if arguments.mode.is_some_and(|only| only != mode) {
                continue;
            }
            let mut guest = Guest::new(distro, mode);
            guest.reboots = mode == Mode::Systemd;
            guest.deadline = if arguments.full { FULL_DEADLINE } else { DEADLINE };
            let names = select(tests, mode, arguments);
            if names.is_empty() && arguments.filter.is_some() {
                continue;
            }
            let tally = in_guest(&guest, arguments, built, &names).unwrap_or_else(|error| {
                say::say(format!("{}: {error:#}", guest.name()));
                Tally {
                    failed: 1,
                    ..Tally::default()
                }
            });
            if let Ok(mut total) = total.lock() {
                *total += tally;
            }
        }
    };
    if arguments.serial {
        arguments.distros().into_iter().for_each(boot_all);
    } else {
        std::thread::scope(|scope| {
            for distro in arguments.distros() {
                scope.spawn(move || boot_all(distro));
            }
        });
    }
    total.into_inner().ok().context("a guest's thread panicked")
}

/// The tests of what a reboot leaves: one prepares it, when all others have run, and one looks afterwards.
const REBOOT: [&str; 2] = ["systemd::reboot::before", "systemd::reboot::after"];

/// What a guest runs, and how many suites that makes.
fn script(names: &[String], full: bool) -> (String, u32) {
    let (full, ignored) = if full {
        ("CGMGR_FULL=1 ", " --include-ignored")
    } else {
        ("", "")
    };
    let suite = |names: &[&str]| {
        let words: Vec<String> = names.iter().map(|n| shell::quote(n)).collect();
        format!(
            "{full}CGMGR_PAYLOAD=/lab/payload CGMGR_EMBED=/lab/embed \
             CGMGR_EMBED_AGENT=/lab/embed_agent CGMGR_DEB=/lab/cgmgr.deb /lab/kernel --test-threads=1{ignored} --exact {}",
            words.join(" ")
        )
    };
    let names = names.iter().map(String::as_str);
    let (reboot, others): (Vec<_>, Vec<_>) = names.partition(|name| REBOOT.contains(name));
    if reboot.is_empty() {
        return (suite(&others), 1);
    }
    let [before, after] = REBOOT.map(|name| suite(&[name]));
    let first = if others.is_empty() {
        vec![before]
    } else {
        vec![suite(&others), before]
    };
    let script = format!(
        "kept=/var/lib/cgmgr-lab/status\n\
         if [ ! -e $kept ]; then\n\
         status=0\n{} || status=$?\n\
         mkdir -p \"${{kept%/*}}\" && echo $status >$kept && touch /lab/again\nexit\n\
         fi\n\
         status=$(cat $kept)\n{after} || status=$?\nexit $status",
        first.join(" || status=$?\n")
    );
    (script, first.len() as u32 + 1)
}

/// One machine: the named tests, one at a time.
fn in_guest(guest: &Guest, arguments: &Arguments, built: &Built, names: &[String]) -> Result<Tally> {
    let name = guest.name();
    if names.is_empty() {
        bail!("no test is for this mode; a mode that compares nothing has failed");
    }
    say::say(format!("booting {name} for {} tests", names.len()));
    let mut payload = Payload::default();
    glibc::add_program(&mut payload, "usr/local/bin/cgmgr", &built.cgmgr, guest.distro)?;
    glibc::add_program(&mut payload, "lab/kernel", &built.kernel, guest.distro)?;
    glibc::add_program(&mut payload, "lab/payload", &built.payload, guest.distro)?;
    glibc::add_program(&mut payload, "lab/embed", &built.embed, guest.distro)?;
    glibc::add_program(&mut payload, "lab/embed_agent", &built.embed_agent, guest.distro)?;
    demo::add_trees(&mut payload)?;
    if let Some(deb) = &built.deb {
        payload.bytes("lab/cgmgr.deb", deb, 0o644)?;
    }
    let (script, suites) = script(names, arguments.full);
    let mut tally = Tally::default();
    let outcome = guest.run(payload, &script, |line| {
        println!("{name} | {line}");
        tally.read(line);
    });
    // What had passed before a guest died stays counted by nobody: the suite has no result.
    let outcome = outcome?;
    if tally.suites != suites || tally.ran() + tally.ignored != names.len() as u32 || tally.ran() == 0 {
        bail!(
            "the suite did not run to its end: {} of {} tests ran, exit status {}",
            tally.ran(),
            names.len(),
            outcome.status
        );
    }
    if outcome.status != 0 && tally.failed == 0 {
        bail!(
            "exit status {} with no failed test to account for it",
            outcome.status
        );
    }
    say::say(format!(
        "{name}: {} passed, {} failed, {} ignored; booted in {:.0} s, {:.0} s in all",
        tally.passed,
        tally.failed,
        tally.ignored,
        outcome.boot.as_secs_f32(),
        outcome.total.as_secs_f32()
    ));
    if tally.failed > 0 {
        say::say(format!(
            "{name}: its kernel's messages are in {}",
            guest.console()?.display()
        ));
    }
    Ok(tally)
}

/// The kernel tests on this machine.
fn on_host(built: &Built, tests: &[String], arguments: &Arguments) -> Result<Tally> {
    let mode = host_mode()?;
    let names = select(tests, mode, arguments);
    if names.is_empty() && arguments.filter.is_some() {
        return Ok(Tally::default());
    }
    if names.is_empty() {
        bail!("no test is for this machine's mode, {}", mode.name());
    }
    let mut command = Command::new(&built.kernel);
    command.arg("--test-threads=1").arg("--exact").args(names);
    if arguments.full {
        command.arg("--include-ignored");
        command.env("CGMGR_FULL", "1");
    }
    command.env("CGMGR_LAB_MODE", mode.name());
    command.env("CGMGR_BIN", &built.cgmgr);
    command.env("CGMGR_PAYLOAD", &built.payload);
    command.env("CGMGR_EMBED", &built.embed);
    command.env("CGMGR_EMBED_AGENT", &built.embed_agent);
    command.env("CGMGR_EXAMPLES", cargo::root().join("examples"));
    command.env("CGMGR_SYSTEMD", cargo::root().join("systemd"));
    count(&mut command, "kernel")
}

/// Which mode this machine is in, or what it lacks to run kernel tests itself.
pub fn host_mode() -> Result<Mode> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root (you are not)".to_owned());
    }
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if controllers.is_empty() {
        missing.push("cgroup v2 at /sys/fs/cgroup (it is a v1 or hybrid layout, or not mounted)".to_owned());
    }
    for controller in ["memory", "cpu", "pids"] {
        if !controllers.is_empty() && !controllers.split_whitespace().any(|c| c == controller) {
            missing.push(format!(
                "the {controller} controller in /sys/fs/cgroup/cgroup.controllers"
            ));
        }
    }
    if !missing.is_empty() {
        bail!(
            "this machine lacks:\n  {}\nhelp: leave out --host to use a guest",
            missing.join("\n  ")
        );
    }
    Ok(if Path::new("/run/systemd/system").is_dir() {
        Mode::Systemd
    } else {
        Mode::Bare
    })
}
