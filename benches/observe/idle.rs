//! What the daemon costs while nothing happens, with a hundred sessions alive, and systemd-oomd beside it.

use crate::launch::goal;
use crate::live::{Library, private_kib};
use crate::machine;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SESSIONS: usize = 100;

/// For how long it is watched.
const WATCHED: Duration = Duration::from_secs(30);

/// `cgmgr daemon`, in the foreground.
pub struct Daemon(Child);

impl Daemon {
    /// Starts it, and lets it settle.
    pub fn start() -> Result<Daemon, String> {
        let child = Command::new("cgmgr")
            .arg("daemon")
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("cgmgr daemon: {e}"))?;
        let mut daemon = Daemon(child);
        std::thread::sleep(Duration::from_secs(3));
        match daemon.0.try_wait() {
            Ok(None) => Ok(daemon),
            other => Err(format!("cgmgr daemon did not stay: {other:?}")),
        }
    }

    /// Ends it.
    pub fn end(mut self) -> Result<(), String> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(|e| e.to_string())?;
        self.0.wait().map(drop).map_err(|e| e.to_string())
    }
}

/// What a process has used.
struct Used {
    wakeups: u64,
    cpu: Duration,
}

/// All threads of a process together.
fn used(pid: u32) -> Result<Used, String> {
    let mut used = Used {
        wakeups: 0,
        cpu: Duration::ZERO,
    };
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks)
        .map_err(|e| format!("{tasks}: {e}"))?
        .flatten()
    {
        let text = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = text("status");
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        used.wakeups += line
            .and_then(|l| l.trim().parse::<u64>().ok())
            .ok_or("no switches")?;
        let ran = text("schedstat").split(' ').next().and_then(|n| n.parse().ok());
        used.cpu += Duration::from_nanos(ran.ok_or("no schedstat")?);
    }
    Ok(used)
}

/// Watches a process that should have nothing to do. Returns its private memory in MiB, wakeups a second and CPU time
/// a second in milliseconds.
fn watch(pid: u32) -> Result<[f64; 3], String> {
    std::thread::sleep(Duration::from_secs(5));
    let (before, since) = (used(pid)?, Instant::now());
    std::thread::sleep(WATCHED);
    let (after, seconds) = (used(pid)?, since.elapsed().as_secs_f64());
    Ok([
        private_kib(pid) as f64 / 1024.0,
        (after.wakeups - before.wakeups) as f64 / seconds,
        (after.cpu - before.cpu).as_secs_f64() * 1000.0 / seconds,
    ])
}

fn show(name: &str, [memory, wakeups, cpu]: [f64; 3]) {
    println!(
        "  {name:16} private memory {memory:6.2} MiB, wakeups {wakeups:6.2} a second, CPU {cpu:7.3} ms a second"
    );
}

/// Measures both.
pub fn bench() -> Result<(), String> {
    let library = Library::new()?;
    let sessions: Vec<_> = (0..SESSIONS).map(|_| library.hold()).collect::<Result<_, _>>()?;
    let daemon = Daemon::start()?;
    println!(
        "\nidle beside {SESSIONS} live sessions, for {} s",
        WATCHED.as_secs()
    );
    let ours = watch(daemon.0.id())?;
    show("cgmgr daemon", ours);
    goal("MiB of private memory", ours[0], "at most", 4.0);
    goal("wakeups a second", ours[1], "at most", 1.0);
    daemon.end()?;
    if machine::is_systemd() {
        machine::run(Command::new("systemctl").args(["start", "systemd-oomd"]))?;
        let shown = Command::new("systemctl")
            .args(["show", "-P", "MainPID", "systemd-oomd"])
            .output()
            .map_err(|e| format!("systemctl: {e}"))?;
        let pid = String::from_utf8_lossy(&shown.stdout).trim().parse();
        let theirs = watch(pid.map_err(|e| format!("systemd-oomd's pid: {e}"))?)?;
        show("systemd-oomd", theirs);
        println!("  CPU of cgmgr / of systemd-oomd: {:.2}", ours[2] / theirs[2]);
        machine::run(Command::new("systemctl").args(["stop", "systemd-oomd"]))?;
    }
    sessions.into_iter().try_for_each(crate::live::Live::end)
}
