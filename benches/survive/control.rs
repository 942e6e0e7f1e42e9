//! Who looks on: does what it is told over the second serial port, and tells there what it saw.
//!
//! `prepare WAY SWAP` makes the machine ready; `run NUMBER ATTACK SECONDS SEED` has one attack. Each line of an answer begins
//! with `@@survive`. Whoever looks on is outside of what is attacked: its memory is locked, its score is -1000, and it comes
//! before everything else on the CPU; but it sleeps most of the time.

use super::beats::{Beats, Word};
use super::clock::At;
use super::kernel_log::KernelLog;
use super::way::Way;
use super::{DISK, RUN, agent, at, attack};
use crate::machine::run;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PORT: &str = "/dev/ttyS1";
/// How long the machine idles before an attack: what it is compared with.
const IDLE: Duration = Duration::from_secs(2);
/// How long after an attack the machine may take to answer again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The machine answers when so many heartbeats in a row were as on the idle machine, or nearly.
const STEADY: usize = 10;
const STEP: Duration = Duration::from_millis(50);

/// Serves until the machine is switched off.
pub fn serve() -> Result<(), String> {
    let port = File::open(PORT).map_err(at(PORT))?;
    fs::create_dir_all(RUN).map_err(at(RUN))?;
    fs::create_dir_all(DISK).map_err(at(DISK))?;
    attack::prepare()?;
    // What the kernel says goes to its log alone: a serial console would slow it down.
    fs::write("/proc/sys/kernel/printk", "1").map_err(at("printk"))?;
    say("ready");
    for line in BufReader::new(port).lines() {
        let line = line.map_err(at(PORT))?;
        let done = match *line.split_whitespace().collect::<Vec<_>>() {
            ["prepare", way, swap] => prepare(way.parse()?, swap == "zram"),
            ["run", number, name, seconds, seed] => {
                let (seconds, seed) = (crate::number(seconds) as u64, crate::number(seed) as u64);
                attack_once(number, name, Duration::from_secs(seconds), seed)
            }
            _ => Err(format!("odd order {line:?}")),
        };
        if let Err(error) = done {
            say(&format!("error {}", error.replace('\n', " | ")));
        }
    }
    Ok(())
}

/// Straight to the port: no other process has to live for it to arrive.
fn say(text: &str) {
    if let Ok(mut port) = File::options().write(true).open(PORT) {
        let _ = port.write_all(format!("@@survive {text}\n").as_bytes());
    }
}

fn prepare(way: Way, zram: bool) -> Result<(), String> {
    if zram {
        run(Command::new("modprobe").arg("zram"))?;
        fs::write("/sys/block/zram0/disksize", "512M").map_err(at("zram0"))?;
        run(Command::new("mkswap").arg("/dev/zram0"))?;
        run(Command::new("swapon").arg("/dev/zram0"))?;
    }
    let beats = Beats::make()?;
    let _ = fs::remove_file(agent::orders());
    run(Command::new("mkfifo").arg(agent::orders()))?;
    way.start_agent()?;
    until("the agent's heart beats", || beats.get(Word::Count) > 50)?;
    order("bystander")?;
    until("there is a bystander", || beats.get(Word::Bystander) != 0)?;
    look_on_undisturbed()?;
    // What all this has left to do is done before the snapshot.
    run(&mut Command::new("sync"))?;
    std::thread::sleep(Duration::from_secs(3));
    say("prepared");
    Ok(())
}

fn order(text: &str) -> Result<(), String> {
    let path = agent::orders();
    let mut pipe = File::options().write(true).open(&path).map_err(at(&path))?;
    writeln!(pipe, "{text}").map_err(at(&path))
}

fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let patience = At::now().after(Duration::from_secs(60));
    while !done() {
        if patience.is_past() {
            let complaints = fs::read_to_string(format!("{RUN}/complaints")).unwrap_or_default();
            return Err(format!("waited in vain until {what}: {complaints}"));
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

fn look_on_undisturbed() -> Result<(), String> {
    let parameters = libc::sched_param { sched_priority: 50 };
    // Threads and programs that it starts are as any other.
    // SAFETY: both only change how this process is treated; the parameters are there during the call.
    let (locked, first) = unsafe {
        (
            libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE),
            libc::sched_setscheduler(
                0,
                libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
                &raw const parameters,
            ),
        )
    };
    if locked != 0 || first != 0 {
        return Err(format!(
            "cannot look on undisturbed: {}",
            std::io::Error::last_os_error()
        ));
    }
    fs::write("/proc/self/oom_score_adj", "-1000").map_err(at("oom_score_adj"))
}

/// The time at which a program that was started last from outside had ended; 0 for none since it was asked.
static ANSWERED: AtomicU64 = AtomicU64::new(0);

fn attack_once(number: &str, name: &str, length: Duration, seed: u64) -> Result<(), String> {
    let beats = Beats::open()?;
    let mut log = KernelLog::open()?;
    let pid = Pid::from_raw(beats.get(Word::Agent) as i32).ok_or("there is no agent")?;
    let bystander = Pid::from_raw(beats.get(Word::Bystander) as i32).ok_or("there is no bystander")?;
    let agent = pidfd_open(pid, PidfdFlags::empty()).map_err(at("the agent"))?;
    let innocent = pidfd_open(bystander, PidfdFlags::empty()).map_err(at("the bystander"))?;
    let is_gone = |pidfd: &rustix::fd::OwnedFd| {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut wait = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    };
    say(&format!("{number} idle"));

    let first = beats.get(Word::Count) as usize;
    std::thread::sleep(IDLE);
    let idle = Gaps::of(&beats.from(first));
    let steady = Duration::from_secs_f64(idle.quantile(0.99) * 3.0 / 1000.0);
    // No two attacks begin at the same moment of a beat.
    std::thread::sleep(Duration::from_micros(seed % 10_000));

    let begun = At::now();
    let before = beats.get(Word::Count) as usize;
    let deadline = begun.after(length);
    order(&format!("attack {name} {}", deadline.text()))?;
    let (mut died, mut told, mut normal, mut free_least) = (None, 0, None, u64::MAX);
    std::thread::spawn(move || ask_whether_it_answers(deadline));
    loop {
        std::thread::sleep(STEP);
        log.read();
        free_least = free_least.min(available());
        let now = At::now();
        if died.is_none() && is_gone(&agent) {
            died = Some(now.since(begun).as_millis() as u64);
        }
        let second = now.since(begun).as_secs();
        if second > told {
            told = second;
            say(&format!(
                "{number} second {second} beats {}",
                beats.get(Word::Count)
            ));
        }
        if now < deadline {
            continue;
        }
        if normal.is_none() {
            normal = back_to_normal(&beats, deadline, steady);
        }
        let answered = ANSWERED.load(Ordering::Acquire) != 0;
        if (answered && (normal.is_some() || died.is_some())) || now.since(deadline) > PATIENCE {
            break;
        }
    }
    let end = At::now();
    let mut times = beats.from(before.saturating_sub(1));
    times.retain(|time| *time <= end);
    // A beat that belongs to the attack follows one that was before the attack's end.
    let last = times
        .iter()
        .position(|time| *time > deadline)
        .map_or(times.len(), |at| at + 1);
    times.truncate(last);
    let unfinished = times.last().is_none_or(|time| *time <= deadline);
    if unfinished {
        times.push(end);
    }
    let under = Gaps::of(&times);
    let killed = log.killed();
    let innocents: Vec<&str> = killed
        .iter()
        .copied()
        .filter(|name| !name.starts_with(attack::GUILTY))
        .collect();
    let since = |time: Option<At>| time.map(|time| time.since(deadline).as_millis() as u64);
    let answered = ANSWERED.load(Ordering::Acquire);
    let result = json!({
        "idle": idle.json(),
        "under": under.json(),
        "agent_died_ms": died,
        "bystander_alive": !is_gone(&innocent),
        "killed": killed.len(),
        "killed_outside": innocents,
        "kernel_log_lost": log.lost,
        "trouble": log.trouble,
        "program_answers_ms": since((answered != 0).then_some(At(answered))),
        "agent_answers_ms": since(normal),
        "sessions": beats.get(Word::Sessions),
        "sessions_refused": beats.get(Word::Refused),
        "probes": beats.get(Word::Probes),
        "available_least_kib": free_least,
        "complaints": complaints(),
    });
    say(&format!("{number} result {result}"));
    Ok(())
}

/// Once the attack is over, has programs started until one has ended: the machine answers whoever logs in.
fn ask_whether_it_answers(deadline: At) {
    deadline.wait();
    loop {
        let ended = Command::new("/bin/true").stdin(Stdio::null()).status();
        if ended.is_ok_and(|status| status.success()) {
            ANSWERED.store(At::now().0, Ordering::Release);
            return;
        }
        std::thread::sleep(STEP);
    }
}

/// The first of so many beats after the attack that came as they do on the idle machine.
fn back_to_normal(beats: &Beats, deadline: At, steady: Duration) -> Option<At> {
    let times = beats.from(0);
    let after = times.partition_point(|time| *time <= deadline);
    let times = &times[after..];
    let is_steady = |run: &&[At]| run.windows(2).all(|pair| pair[1].since(pair[0]) <= steady);
    times.windows(STEADY).find(is_steady).map(|run| run[0])
}

/// MemAvailable (proc(5)), in KiB.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(u64::MAX)
}

/// What sessions said on standard error, each line once.
fn complaints() -> Vec<String> {
    let text = fs::read_to_string(format!("{RUN}/complaints")).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    lines.truncate(8);
    lines
}

/// The times from one heartbeat to the next, in milliseconds, sorted.
struct Gaps(Vec<f64>);

impl Gaps {
    fn of(times: &[At]) -> Gaps {
        let mut gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| pair[1].since(pair[0]).as_secs_f64() * 1000.0)
            .collect();
        gaps.sort_by(f64::total_cmp);
        Gaps(gaps)
    }

    /// The smallest that this part (0 to 1) of them does not exceed.
    fn quantile(&self, part: f64) -> f64 {
        let rank = (self.0.len() as f64 * part).ceil() as usize;
        self.0
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::INFINITY)
    }

    fn json(&self) -> Value {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "gaps": self.0.len(),
            "p50_ms": rounded(self.quantile(0.5)),
            "p99_ms": rounded(self.quantile(0.99)),
            "longest_ms": rounded(self.quantile(1.0)),
        })
    }
}
