//! QEMU as a child process: its command line, its output as it comes, and the watch kept over it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::image::last_lines;
use crate::{accel, cache};

/// A machine to start.
#[derive(Clone)]
pub struct Machine {
    /// How the processor is had: `kvm` or `tcg,thread=multi`.
    pub accel: String,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// Words for the kernel's command line.
    pub arguments: String,
    /// Raw disks, in order; the flag says that writes are thrown away.
    pub disks: Vec<(PathBuf, bool)>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Whether it may reboot; otherwise that is its end, and so is a panic.
    pub reboots: bool,
    /// Whether it is spoken to: its second serial port takes [`Running::write`], and a monitor listens at
    /// [`Machine::monitor`]. Writes to any disk are thrown away then, for a snapshot has to hold all of them.
    pub attended: bool,
    /// A folder for what QEMU writes.
    pub dir: PathBuf,
}

/// A machine that runs. Dropping it ends it.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    dir: PathBuf,
    begun: Instant,
    last_sign: Instant,
    console_length: u64,
}

/// What happened while [`Running::next`] waited.
pub enum Event {
    /// Something was written to the second serial port.
    Output(Vec<u8>),
    /// Nothing yet.
    Quiet,
    /// The machine is off.
    Off,
}

impl Machine {
    /// Where an attended machine listens for QEMU's own protocol.
    pub fn monitor(&self) -> PathBuf {
        self.dir.join("monitor")
    }

    /// Starts it. The kernel has the first serial port, the payload the second.
    pub fn start(&self) -> Result<Running> {
        let mut command = Command::new("setpriv");
        // Whatever ends this program ends QEMU too.
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-M", "q35"]);
        // Where instructions are counted, one that fills memory byte by byte is counted for each byte, and the kernel clears
        // and copies all its pages by it unless it is told that there are better ways.
        command.args([
            "-cpu",
            if self.attended {
                "max,erms=off,fsrm=off"
            } else {
                "max"
            },
        ]);
        if !self.reboots {
            command.arg("-no-reboot");
        }
        if self.accel == accel::COUNTED {
            // Two nanoseconds each; idle time passes at once.
            command.args(["-icount", "shift=1,sleep=off"]);
        }
        command.args([
            "-accel",
            &self.accel,
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &self.memory_mib.to_string(),
        ]);
        command
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs);
        command
            .arg("-append")
            .arg(format!("console=ttyS0 panic=-1 {}", self.arguments));
        command
            .arg("-chardev")
            .arg(format!("file,id=console,path={}", console(&self.dir).display()));
        command.args([
            "-serial",
            "chardev:console",
            "-chardev",
            "stdio,id=payload,signal=off",
        ]);
        command.args(["-serial", "chardev:payload"]);
        if self.attended {
            let socket = self.monitor();
            command
                .arg("-qmp")
                .arg(format!("unix:{},server=on,wait=off", socket.display()));
        }
        for (disk, throwaway) in &self.disks {
            let snapshot = if *throwaway || self.attended { "on" } else { "off" };
            command.arg("-drive").arg(format!(
                "file={},if=virtio,format=raw,snapshot={snapshot}",
                disk.display()
            ));
        }
        File::create(console(&self.dir))?;
        let mut child = command
            .env("TMPDIR", &self.dir)
            .stdin(if self.attended {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(File::create(complaints(&self.dir))?)
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        let input = child.stdin.take();
        let mut pipe = child.stdout.take().context("the child has a standard output")?;
        let (send, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let now = Instant::now();
        Ok(Running {
            child,
            input,
            output,
            dir: self.dir.clone(),
            begun: now,
            last_sign: now,
            console_length: 0,
        })
    }
}

impl Running {
    /// Waits up to a quarter of a second for something to happen.
    pub fn next(&mut self) -> Result<Event> {
        match self.output.recv_timeout(Duration::from_millis(250)) {
            Ok(bytes) => {
                self.last_sign = Instant::now();
                Ok(Event::Output(bytes))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(Event::Off),
            Err(RecvTimeoutError::Timeout) => {
                let length = fs::metadata(console(&self.dir)).map_or(0, |m| m.len());
                if length != self.console_length {
                    self.console_length = length;
                    self.last_sign = Instant::now();
                }
                Ok(Event::Quiet)
            }
        }
    }

    /// Writes to the second serial port of an attended machine.
    pub fn write(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("nobody speaks to this machine")?;
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .context("QEMU takes no more input")
    }

    /// How long it has run.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// How long neither serial port has said anything.
    pub fn silence(&self) -> Duration {
        self.last_sign.elapsed()
    }

    /// Waits for QEMU to be gone, at most `patience`, then ends it; `None` if it had to be ended.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(None)
    }

    /// What QEMU itself complained of.
    pub fn complaints(&self) -> String {
        fs::read_to_string(complaints(&self.dir))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// All that the kernel wrote to the first serial port.
    pub fn console(&self) -> String {
        let bytes = fs::read(console(&self.dir)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn console(dir: &Path) -> PathBuf {
    dir.join("console.log")
}

fn complaints(dir: &Path) -> PathBuf {
    dir.join("qemu.err")
}

/// Whether a machine with hardware virtualisation comes alive here; the device node alone says nothing.
pub fn kvm_works(mut machine: Machine) -> Result<bool> {
    machine.accel = "kvm".into();
    machine.arguments = "cgmgr.lab=probe".into();
    machine.disks.clear();
    let mut running = machine.start()?;
    let mut seen = String::new();
    while running.age() < Duration::from_secs(40) {
        match running.next()? {
            Event::Output(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Event::Quiet if running.complaints().contains("KVM internal error") => return Ok(false),
            Event::Quiet => {}
            Event::Off => break,
        }
        if seen.contains("@@cgmgr-lab alive") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fails with the reason why a machine went off before its payload reported.
pub fn explain_end(running: &mut Running) -> Result<()> {
    let status = running.wait(Duration::from_secs(5))?;
    let console = running.console();
    let tail = last_lines(&console, 40);
    let complaints = running.complaints();
    if console.contains("Kernel panic") {
        bail!("the guest's kernel panicked; the end of its console:\n{tail}");
    }
    match status {
        _ if complaints.contains("KVM") => {
            let _ = fs::remove_file(cache::dir()?.join("accel"));
            bail!("hardware virtualisation failed: {complaints}\nhelp: run it again; it is tried anew")
        }
        Some(status) if !status.success() => {
            bail!("QEMU ended early ({status}) {complaints}\nthe end of the guest's console:\n{tail}")
        }
        _ => bail!("the guest went off before it reported an exit status; the end of its console:\n{tail}"),
    }
}
