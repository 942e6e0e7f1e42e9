//! How long it takes to end a session that does not want to, from the command to the last process and to the group's
//! removal.

use crate::figures::Sample;
use crate::machine::{self, ROLE_FILE};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many processes a session has.
const PROCESSES: usize = 1000;

/// What is in the session that is ended.
const SHAPES: [&str; 3] = ["flat", "groups", "bomb"];

/// Measures `cgmgr kill` beside a bare write to `cgroup.kill`, in turn.
pub fn bench(rounds: usize) -> Result<(), String> {
    machine::make_ready()?;
    println!("ending a session: milliseconds from the command, median (quartiles)");
    for shape in SHAPES {
        let mut ours = [Sample::default(), Sample::default()];
        let mut bare = [Sample::default(), Sample::default()];
        for _ in 0..rounds {
            add(&mut bare, kill_bare(shape)?);
            add(&mut ours, kill_ours(shape)?);
        }
        let title = match shape {
            "flat" => "1000 processes in one group",
            "groups" => "1000 processes in 16 groups",
            _ => "a fork bomb of up to 1000",
        };
        println!("  {title}");
        for (at, what) in ["populated 0", "directory gone"].into_iter().enumerate() {
            println!(
                "    {what:15} echo 1 > cgroup.kill {}  cgmgr kill {}  ratio {:.2}",
                bare[at].shown(),
                ours[at].shown(),
                ours[at].median() / bare[at].median()
            );
        }
    }
    Ok(())
}

fn add(samples: &mut [Sample; 2], took: [Duration; 2]) {
    for (sample, took) in samples.iter_mut().zip(took) {
        sample.add(took);
    }
}

/// The payload: as many processes as `count` says, in the shape that is asked for; `file` appears when all are there.
pub fn hold(shape: &str, count: usize, file: &str) -> Result<(), String> {
    let group = own_group()?;
    match shape {
        "flat" => {
            for _ in 1..count {
                fork_and_sleep(None)?;
            }
        }
        "groups" => {
            let groups: Vec<String> = (0..16).map(|n| format!("{group}/g{n}")).collect();
            for path in &groups {
                fs::create_dir(path).map_err(|e| format!("{path}: {e}"))?;
            }
            for n in 1..count {
                fork_and_sleep(Some(&groups[n % groups.len()]))?;
            }
        }
        _ => {
            // Everything forks as long as pids.max lets it.
            fs::write(file, "").map_err(|e| e.to_string())?;
            bomb();
        }
    }
    fs::write(file, "").map_err(|e| e.to_string())?;
    loop {
        std::thread::park();
    }
}

fn own_group() -> Result<String, String> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
    let path = text.trim().strip_prefix("0::").ok_or("no cgroup v2")?;
    Ok(format!("/sys/fs/cgroup{path}"))
}

#[allow(unsafe_code)]
fn fork_and_sleep(group: Option<&str>) -> Result<(), String> {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
        0 => {
            if let Some(group) = group {
                let _ = fs::write(format!("{group}/cgroup.procs"), "0");
            }
            loop {
                std::thread::park();
            }
        }
        _ => Ok(()),
    }
}

#[allow(unsafe_code)]
fn bomb() -> ! {
    loop {
        // SAFETY: this process has one thread, and so have its children.
        if unsafe { libc::fork() } < 0 {
            std::thread::yield_now();
        }
    }
}

fn processes(group: &str) -> usize {
    let in_one =
        |path: &Path| fs::read_to_string(path.join("cgroup.procs")).map_or(0, |text| text.lines().count());
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    below
        .filter(|e| e.path().is_dir())
        .map(|e| in_one(&e.path()))
        .sum::<usize>()
        + in_one(Path::new(group))
}

/// Waits until the payload is complete: all are asleep, or the bomb is at its limit.
fn wait_until_complete(group: &str, file: &str, shape: &str) -> Result<(), String> {
    let since = Instant::now();
    let wanted = if shape == "bomb" {
        PROCESSES * 9 / 10
    } else {
        PROCESSES
    };
    while !Path::new(file).exists() || processes(group) < wanted {
        if since.elapsed() > Duration::from_secs(120) {
            return Err(format!("{shape}: only {} processes", processes(group)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = fs::remove_file(file);
    Ok(())
}

/// Follows a group from now on: when it was empty, when it was gone. The bare way removes it itself.
fn follow(group: &str, since: Instant, remove: bool) -> Result<[Duration; 2], String> {
    let events = format!("{group}/cgroup.events");
    let mut empty = None;
    loop {
        match fs::read_to_string(&events) {
            Ok(text) if text.contains("populated 1") => {}
            _ => {
                empty.get_or_insert(since.elapsed());
            }
        }
        if remove && empty.is_some() {
            for child in fs::read_dir(group).into_iter().flatten().flatten() {
                if child.path().is_dir() {
                    let _ = fs::remove_dir(child.path());
                }
            }
            let _ = fs::remove_dir(group);
        }
        if let Some(empty) = empty
            && !Path::new(group).exists()
        {
            return Ok([empty, since.elapsed()]);
        }
        if since.elapsed() > Duration::from_secs(120) {
            return Err(format!("{group} is still there"));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn start(command: &mut Command) -> Result<Child, String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("{command:?}: {e}"))
}

fn own_words(shape: &str, file: &str) -> Result<Vec<String>, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    Ok(vec![
        own.to_string_lossy().into_owned(),
        "hold".into(),
        shape.into(),
        PROCESSES.to_string(),
        file.into(),
    ])
}

fn kill_bare(shape: &str) -> Result<[Duration; 2], String> {
    let (group, file) = (format!("{}/bare", machine::parent()), "/tmp/bench.ready");
    fs::create_dir(&group).map_err(|e| format!("{group}: {e}"))?;
    fs::write(format!("{group}/pids.max"), PROCESSES.to_string()).map_err(|e| e.to_string())?;
    let script = format!("echo 0 > {group}/cgroup.procs && exec \"$@\"");
    let mut payload = start(
        Command::new("/bin/sh")
            .args(["-c", &script, "sh"])
            .args(own_words(shape, file)?),
    )?;
    wait_until_complete(&group, file, shape)?;
    let since = Instant::now();
    let script = format!("echo 1 > {group}/cgroup.kill");
    let mut command = start(Command::new("/bin/sh").args(["-c", &script]))?;
    let took = follow(&group, since, true)?;
    command.wait().map_err(|e| e.to_string())?;
    payload.wait().map_err(|e| e.to_string())?;
    Ok(took)
}

fn kill_ours(shape: &str) -> Result<[Duration; 2], String> {
    let (group, file) = (format!("{}/cgmgr-victim", machine::parent()), "/tmp/bench.ready");
    let pids = format!("--pids={PROCESSES}");
    let mut session = start(
        Command::new("/usr/local/bin/cgmgr")
            .args([
                "run",
                "-q",
                "--name",
                "victim",
                "--role",
                ROLE_FILE,
                &pids,
                "--memory-max=max",
                "--memory-high=max",
                "--",
            ])
            .args(own_words(shape, file)?),
    )?;
    wait_until_complete(&group, file, shape)?;
    let since = Instant::now();
    let mut command = start(Command::new("/usr/local/bin/cgmgr").args(["kill", "victim"]))?;
    let took = follow(&group, since, false)?;
    let status = command.wait().map_err(|e| e.to_string())?;
    session.wait().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("cgmgr kill: {status}"));
    }
    Ok(took)
}
