//! From an OOM kill to the line that tells of it: `cgmgr events --follow --json` beside `dmesg -w`, on the same kills.
//!
//! The kernel stamps its line when it has killed. Its clock is set against the one that readers look at by lines that are
//! written into its log for that.

use crate::figures::Sample;
use crate::launch::goal;
use nix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const KILLS: usize = 50;

/// How long a line is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel's own limit: it tells of a file's changes once in this time (`CGROUP_FILE_NOTIFY_MIN_INTV`).
const WINDOW_MS: f64 = 10.0;

fn now() -> Result<Duration, String> {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .map_err(|e| e.to_string())
}

/// A program whose lines are taken with the time at which they came.
struct Follower {
    name: &'static str,
    child: Child,
    lines: Receiver<(Duration, String)>,
}

impl Follower {
    fn start(name: &'static str, command: &mut Command) -> Result<Follower, String> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{command:?}: {e}"))?;
        let out = child.stdout.take().ok_or("no pipe")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Ok(at) = now()
                    && send.send((at, line)).is_err()
                {
                    return;
                }
            }
        });
        Ok(Follower { name, child, lines })
    }

    /// The first line that is as wanted, and when it came.
    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Result<Duration, String> {
        let until = now()? + PATIENCE;
        loop {
            let left = until.saturating_sub(now()?);
            let (at, line) = self
                .lines
                .recv_timeout(left)
                .map_err(|e| format!("{} did not tell of a kill: {e}", self.name))?;
            if wanted(&line) {
                return Ok(at);
            }
        }
    }

    fn end(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel's log, by its own device.
struct Log(File);

impl Log {
    fn open() -> Result<Log, String> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .map_err(|e| format!("/dev/kmsg: {e}"))?;
        file.seek(SeekFrom::End(0))
            .map_err(|e| format!("/dev/kmsg: {e}"))?;
        Ok(Log(file))
    }

    /// When the next line with `text` was written, by the kernel's clock.
    fn stamp(&mut self, text: &str) -> Result<Duration, String> {
        let mut record = [0; 8192];
        loop {
            let size = self
                .0
                .read(&mut record)
                .map_err(|e| format!("no line with {text:?}: {e}"))?;
            let record = String::from_utf8_lossy(&record[..size]);
            if let Some((head, said)) = record.split_once(';')
                && said.contains(text)
            {
                let stamp = head.split(',').nth(2).and_then(|stamp| stamp.parse().ok());
                return stamp
                    .map(Duration::from_micros)
                    .ok_or_else(|| format!("odd line: {record}"));
            }
        }
    }

    /// How far the readers' clock is ahead of the kernel's, in seconds, at this moment.
    fn offset(&mut self) -> Result<f64, String> {
        let before = now()?;
        self.0
            .write_all(b"cgmgr-bench: what time is it\n")
            .map_err(|e| format!("/dev/kmsg: {e}"))?;
        let after = now()?;
        let stamp = self.stamp("cgmgr-bench: what time is it")?;
        Ok((before + after).as_secs_f64() / 2.0 - stamp.as_secs_f64())
    }
}

/// A payload that needs more memory than it may have.
pub fn hog() -> Result<(), String> {
    let mut held = Vec::new();
    loop {
        held.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

/// Measures kill after kill.
pub fn bench() -> Result<(), String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let daemon = super::idle::Daemon::start()?;
    let events = Follower::start(
        "cgmgr events",
        Command::new("cgmgr").args(["events", "--follow", "--json"]),
    )?;
    // What is written into a pipe is otherwise kept back until there is more of it.
    let dmesg = Follower::start("dmesg", Command::new("stdbuf").args(["-oL", "dmesg", "-W"]))?;
    std::thread::sleep(Duration::from_secs(3));
    let mut log = Log::open()?;
    let (mut told, mut shown) = (Sample::default(), Sample::default());
    let mut later = Vec::new();
    for number in 0..KILLS {
        let offset = log.offset()?;
        let name = format!("late-{number}");
        let mut run = Command::new("cgmgr");
        run.args(["run", "-q", "--name", &name, "--memory-max", "16MiB", "--"]);
        run.arg(&own).arg("observe-hog");
        let status = run
            .stdin(Stdio::null())
            .status()
            .map_err(|e| format!("cgmgr run: {e}"))?;
        if status.code() != Some(137) {
            return Err(format!("{name} was not killed: {status}"));
        }
        let is_it = |line: &str| line.contains("\"oom_kill\"") && line.contains(&format!("\"{name}\""));
        let told_at = events.wait_for(is_it)?;
        let shown_at = dmesg.wait_for(|line| line.contains("Killed process"))?;
        let killed_at = log.stamp("Killed process")?.as_secs_f64() + offset;
        for (sample, at) in [(&mut told, told_at), (&mut shown, shown_at)] {
            sample.add(Duration::from_secs_f64((at.as_secs_f64() - killed_at).max(0.0)));
        }
        later.push((told_at.as_secs_f64() - shown_at.as_secs_f64()) * 1000.0);
    }
    later.sort_by(f64::total_cmp);
    println!("\nfrom an OOM kill to the line at its reader, {KILLS} kills: milliseconds, median (quartiles)");
    println!("  cgmgr events --follow --json     {}", told.shown());
    println!("  dmesg -w                         {}", shown.shown());
    println!(
        "  cgmgr after dmesg, on the same kill: median {:.2}, at least {:.2}, at most {:.2}",
        later[KILLS / 2],
        later[0],
        later[KILLS - 1]
    );
    goal(
        "milliseconds after dmesg, median",
        later[KILLS / 2],
        "at most",
        WINDOW_MS,
    );
    events.end();
    dmesg.end();
    daemon.end()
}
