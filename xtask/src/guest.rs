//! One boot of a guest: the payload goes in, its output comes out line by line, and its exit status last.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::distro::{Distro, Mode};
use crate::image::{self, last_lines};
use crate::payload::Payload;
use crate::qemu::{self, Event, Machine};
use crate::{accel, cache, initramfs, packages};

const RUN_PAYLOAD: &str = include_str!("../guest/run-payload");
const BARE_INIT: &str = include_str!("../guest/bare-init");
const SERVICE: &str = include_str!("../guest/cgmgr-lab.service");

/// A line of the guest's own, not of its payload, begins so.
const MARK: &str = "@@cgmgr-lab ";

/// From power on to the payload's first line; a boot takes 20 s under emulation on an idle machine.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);

/// What may come back in `/lab/out`.
const OUT_MIB: u64 = 512;
const SWAP_MIB: u64 = 1024;

/// A machine to boot once.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The distribution.
    pub distro: Distro,
    /// What runs as PID 1.
    pub mode: Mode,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Whether it has a GiB of swap.
    pub swap: bool,
    /// Processors.
    pub cpus: u32,
    /// The longest that the payload may take.
    pub deadline: Duration,
    /// The longest that both serial ports may be silent once the payload runs.
    pub silence: Duration,
    /// Its clock counts instructions, two nanoseconds each, and it has one processor: figures repeat to about one per
    /// cent however busy this machine is.
    pub counted: bool,
    /// Whether its payload may have it booted again ([`Guest::run`]); otherwise that is its end.
    pub reboots: bool,
    /// Where the files of `/lab/out` are put.
    pub out: Option<PathBuf>,
}

/// How a boot ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The exit status of `/lab/run`.
    pub status: i32,
    /// From the start of QEMU to the payload's start.
    pub boot: Duration,
    /// From the start of QEMU to the exit status.
    pub total: Duration,
}

impl Guest {
    /// A guest as the tests have it.
    pub fn new(distro: Distro, mode: Mode) -> Guest {
        Guest {
            distro,
            mode,
            memory_mib: 2048,
            swap: false,
            cpus: mode.cpus(),
            deadline: Duration::from_secs(1800),
            silence: Duration::from_secs(240),
            counted: false,
            reboots: false,
            out: None,
        }
    }

    /// `debian13 systemd`, for messages.
    pub fn name(&self) -> String {
        format!("debian{} {}", self.distro.number(), self.mode.name())
    }

    /// Boots, runs `script` with bash in `/lab`, hands each line that it prints to `on_line`, powers off. Where the script
    /// leaves a file `/lab/again`, the machine boots once more with all that is on its disk, and the script runs again.
    pub fn run(&self, payload: Payload, script: &str, mut on_line: impl FnMut(&str)) -> Result<Outcome> {
        let scratch = cache::scratch(&cache::subdir(&cache::dir()?, "runs")?)?;
        let dir = scratch.path();
        let machine = self.machine(dir, payload, script)?;
        let outcome = self.watch(&machine, &mut on_line);
        self.keep_console(dir)?;
        let outcome = outcome?;
        self.fetch_out(&dir.join("out.raw"))?;
        Ok(outcome)
    }

    /// All that a boot needs, in the folder `dir`.
    pub fn machine(&self, dir: &Path, mut payload: Payload, script: &str) -> Result<Machine> {
        packages::ensure()?;
        let image = image::ensure(self.distro, self.mode.disk())?;
        self.add_own_files(&mut payload, script)?;
        payload.write(&dir.join("payload.tar"))?;
        blank_disk(dir, "out.raw", OUT_MIB)?;
        initramfs::write(&image, &dir.join("initramfs"))?;
        let mut machine = Machine {
            accel: String::new(),
            kernel: image.kernel(),
            initramfs: dir.join("initramfs"),
            arguments: format!(
                "cgmgr.lab={} loglevel=5 mitigations=off nowatchdog systemd.show_status=no{}",
                self.mode.layout(),
                self.mode.words()
            ),
            disks: vec![
                (image.disk(), true),
                (dir.join("payload.tar"), true),
                (dir.join("out.raw"), false),
            ],
            memory_mib: self.memory_mib,
            cpus: if self.counted { 1 } else { self.cpus },
            reboots: self.reboots,
            attended: false,
            dir: dir.to_owned(),
        };
        if self.swap {
            blank_disk(dir, "swap.raw", SWAP_MIB)?;
            machine.disks.push((dir.join("swap.raw"), false));
        }
        machine.accel = if self.counted {
            accel::COUNTED.into()
        } else {
            accel::choose(&machine)?
        };
        Ok(machine)
    }

    /// The scripts that start the payload, and the payload's own environment.
    fn add_own_files(&self, payload: &mut Payload, script: &str) -> Result<()> {
        payload.bytes("usr/lib/cgmgr-lab/run-payload", RUN_PAYLOAD.as_bytes(), 0o755)?;
        payload.bytes("usr/lib/cgmgr-lab/init", BARE_INIT.as_bytes(), 0o755)?;
        payload.bytes("etc/systemd/system/cgmgr-lab.service", SERVICE.as_bytes(), 0o644)?;
        payload.link(
            "etc/systemd/system/multi-user.target.wants/cgmgr-lab.service",
            "/etc/systemd/system/cgmgr-lab.service",
        )?;
        payload.dir("lab", 0o755)?;
        payload.dir("lab/out", 0o1777)?;
        let (mode, distro) = (self.mode.name(), self.distro);
        let run = format!(
            "#!/bin/bash\n\
             export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             export HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 RUST_BACKTRACE=1\n\
             export CGMGR_LAB_MODE={mode} CGMGR_LAB_DISTRO={} CGMGR_LAB_KERNEL={} CGMGR_LAB_SYSTEMD={}\n\
             export CGMGR_BIN=/usr/local/bin/cgmgr CGMGR_EXAMPLES=/lab/examples CGMGR_SYSTEMD=/lab/systemd\n\
             {script}\n",
            distro.number(),
            distro.kernel(),
            distro.systemd(),
        );
        payload.bytes("lab/run", run.as_bytes(), 0o755)
    }

    /// Follows a boot to its end, or ends it when it takes too long.
    fn watch(&self, machine: &Machine, on_line: &mut impl FnMut(&str)) -> Result<Outcome> {
        let mut running = machine.start()?;
        let mut lines = Lines::default();
        let mut started = None;
        loop {
            match running.next()? {
                Event::Output(bytes) => lines.take(&bytes),
                Event::Quiet => {}
                Event::Off => break,
            }
            while let Some(line) = lines.next() {
                // The payload's last line may have had no end of its own.
                let (text, mark) = match line.split_once(MARK) {
                    Some((text, mark)) => (text, Some(mark)),
                    None => (line.as_str(), None),
                };
                if mark.is_none() || !text.is_empty() {
                    on_line(text);
                }
                match mark.map(|mark| mark.split_once(' ')) {
                    None => {}
                    Some(None) => started = started.or(Some(running.age())),
                    Some(Some((_, status))) => {
                        let status = status
                            .parse()
                            .with_context(|| format!("odd exit status {status}"))?;
                        let total = running.age();
                        running.wait(Duration::from_secs(10))?;
                        return Ok(Outcome {
                            status,
                            boot: started.unwrap_or(total),
                            total,
                        });
                    }
                }
            }
            let reason = match started {
                None if running.age() > BOOT_DEADLINE => {
                    format!("did not start its payload within {} s", BOOT_DEADLINE.as_secs())
                }
                Some(_) if running.silence() > self.silence => {
                    format!("has been silent for {} s", self.silence.as_secs())
                }
                Some(start) if running.age() > start + self.deadline => {
                    format!("was not done within {} s", self.deadline.as_secs())
                }
                _ => continue,
            };
            bail!(
                "the guest ({}) {reason} and was ended; its last, unfinished line: {:?}; \
                 the end of its console:\n{}",
                self.name(),
                lines.rest(),
                last_lines(&running.console(), 40)
            );
        }
        qemu::explain_end(&mut running)?;
        unreachable!("explain_end always fails")
    }

    /// Keeps what the kernel said where [`Guest::console`] tells, for whoever wonders afterwards.
    fn keep_console(&self, dir: &Path) -> Result<()> {
        let _ = fs::copy(dir.join("console.log"), self.console()?);
        Ok(())
    }

    /// Where the last boot of such a guest left what its kernel said.
    pub fn console(&self) -> Result<PathBuf> {
        let consoles = cache::subdir(&cache::dir()?, "consoles")?;
        Ok(consoles.join(format!("{}.log", self.name().replace(' ', "-"))))
    }

    /// Unpacks the third disk, if anything was written to it.
    fn fetch_out(&self, disk: &Path) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        let mut archive = tar::Archive::new(File::open(disk)?);
        archive.set_preserve_permissions(true);
        archive
            .unpack(out)
            .with_context(|| format!("cannot unpack /lab/out into {}", out.display()))
    }
}

fn blank_disk(dir: &Path, name: &str, mib: u64) -> Result<()> {
    File::create(dir.join(name))?.set_len(mib << 20)?;
    Ok(())
}

/// Puts lines together from the pieces that a serial port delivers.
#[derive(Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Adds a piece.
    pub fn take(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// The next whole line, without its end.
    pub fn next(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.0.drain(..=end).collect();
        Some(
            String::from_utf8_lossy(&line)
                .trim_end_matches(['\n', '\r'])
                .to_owned(),
        )
    }

    /// What has come of a line that is not whole yet.
    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn a_letter_may_come_in_two_pieces() {
        let mut lines = Lines::default();
        lines.take(b"caf\xc3");
        assert_eq!(lines.next(), None);
        lines.take(b"\xa9\r\nrest");
        assert_eq!(lines.next().as_deref(), Some("caf\u{e9}"));
        assert_eq!(lines.rest(), "rest");
    }
}
