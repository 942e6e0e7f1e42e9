//! One machine that is put back after every attack: booted once, its state kept, taken up again for each run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::monitor::Monitor;
use crate::cache::Scratch;
use crate::distro::{Distro, Mode};
use crate::guest::{Guest, Lines};
use crate::image::last_lines;
use crate::payload::Payload;
use crate::qemu::{Event, Running};
use crate::{cache, cargo, glibc};

/// A line that is for us.
const MARK: &str = "@@survive ";
/// The machine says something every second of its own. Under emulation such a second takes up to ten of ours when it is busy.
const SILENCE: Duration = Duration::from_secs(90);
/// From power on until it waits for orders.
const BOOT: Duration = Duration::from_secs(300);
/// Until a way is ready.
const PREPARE: Duration = Duration::from_secs(600);

const MEMORY_MIB: u32 = 1024;

/// The state after the boot, and the one from which each run of a way starts.
const BOOTED: &str = "booted";
const PREPARED: &str = "prepared";

/// A machine.
pub struct Arena {
    running: Running,
    monitor: Monitor,
    lines: Lines,
    _scratch: Scratch,
}

/// How a run ended.
pub enum End {
    /// With a result, told from inside.
    Result(Value),
    /// With silence: its last sign of life is the text.
    Hang(String),
}

impl Arena {
    /// Boots it.
    pub fn boot(distro: Distro, programs: &Programs) -> Result<Arena> {
        let guest = Guest {
            memory_mib: MEMORY_MIB,
            counted: true,
            ..Guest::new(distro, Mode::Systemd)
        };
        let scratch = cache::scratch(&cache::subdir(&cache::dir()?, "runs")?)?;
        let mut machine = guest.machine(
            scratch.path(),
            programs.payload(distro)?,
            "exec /lab/bench survive serve",
        )?;
        machine.attended = true;
        machine.arguments.push_str(" log_buf_len=4M");
        let running = machine.start()?;
        // The socket is there before the machine is.
        let begun = Instant::now();
        let monitor = loop {
            match Monitor::connect(&machine.monitor()) {
                Ok(monitor) => break monitor,
                Err(error) if begun.elapsed() > Duration::from_secs(20) => {
                    return Err(error.context(running.complaints()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let mut arena = Arena {
            running,
            monitor,
            lines: Lines::default(),
            _scratch: scratch,
        };
        arena.expect("ready", BOOT)?;
        arena.monitor.keep(BOOTED)?;
        Ok(arena)
    }

    /// Has it made ready for a way, and keeps that.
    pub fn prepare(&mut self, way: &str, swap: &str) -> Result<()> {
        self.go_back(BOOTED)?;
        self.running.write(&format!("prepare {way} {swap}"))?;
        self.expect("prepared", PREPARE)?;
        self.monitor.keep(PREPARED)
    }

    /// One attack, from the state that was kept.
    pub fn attack(&mut self, number: usize, attack: &str, seconds: u32, seed: u64) -> Result<End> {
        self.go_back(PREPARED)?;
        self.running
            .write(&format!("run {number} {attack} {seconds} {seed}"))?;
        let result = format!("{number} result ");
        let mut last = String::new();
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE {
            // A line of the run before may still have been on its way.
            let Some(line) = self.line()? else { continue };
            if let Some(text) = line.strip_prefix(&result) {
                let result = serde_json::from_str(text).with_context(|| format!("odd result {text}"))?;
                return Ok(End::Result(result));
            }
            if line.starts_with(&format!("{number} ")) {
                (last, heard) = (line, Instant::now());
            } else if let Some(error) = line.strip_prefix("error ") {
                bail!("inside the guest: {error}");
            }
        }
        Ok(End::Hang(last))
    }

    fn go_back(&mut self, name: &str) -> Result<()> {
        self.monitor.go_back(name)?;
        self.lines = Lines::default();
        Ok(())
    }

    /// Waits for this line.
    fn expect(&mut self, wanted: &str, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            match self.line()? {
                Some(line) if line == wanted => return Ok(()),
                Some(line) if line.starts_with("error ") => bail!("inside the guest: {line}"),
                _ => {}
            }
        }
        bail!(
            "the guest did not say {wanted:?} within {} s; the end of its console:\n{}",
            patience.as_secs(),
            last_lines(&self.running.console(), 30)
        )
    }

    /// The next line that is for us, if one comes soon.
    fn line(&mut self) -> Result<Option<String>> {
        loop {
            while let Some(line) = self.lines.next() {
                if let Some((_, line)) = line.split_once(MARK) {
                    return Ok(Some(line.to_owned()));
                }
            }
            match self.running.next()? {
                Event::Output(bytes) => self.lines.take(&bytes),
                Event::Quiet => return Ok(None),
                Event::Off => bail!("QEMU ended: {}", self.running.complaints()),
            }
        }
    }
}

/// What goes into the machine, built.
pub struct Programs {
    cgmgr: PathBuf,
    bench: PathBuf,
}

impl Programs {
    /// Builds them.
    pub fn build() -> Result<Programs> {
        Ok(Programs {
            cgmgr: cargo::cgmgr(true)?,
            bench: cargo::bench_binary("bench")?,
        })
    }

    fn payload(&self, distro: Distro) -> Result<Payload> {
        let mut payload = Payload::default();
        glibc::add_program(&mut payload, "usr/local/bin/cgmgr", &self.cgmgr, distro)?;
        glibc::add_program(&mut payload, "lab/bench", &self.bench, distro)?;
        Ok(payload)
    }
}
