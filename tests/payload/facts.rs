//! What a process finds about itself, and of the group that it is in, as JSON.

use std::fs;

use serde_json::{Value, json};

use super::say;

/// Everything, read before anything else is done.
pub fn print() {
    let fds = descriptors();
    let cgroup = read("/proc/self/cgroup");
    let group = cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("")
        .to_owned();
    let file = |name: &str| read(&format!("/sys/fs/cgroup{group}/{name}"));
    let files: Value = [
        "memory.max",
        "memory.high",
        "pids.max",
        "cpu.max",
        "cpu.weight",
        "cgroup.procs",
    ]
    .into_iter()
    .map(|name| (name.to_owned(), json!(file(name))))
    .collect::<serde_json::Map<_, _>>()
    .into();
    let env: serde_json::Map<_, _> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                json!(value.to_string_lossy()),
            )
        })
        .collect();
    let status = read("/proc/self/status");
    let line = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key));
        found.map(|rest| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let capabilities = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].map(line);
    let facts = json!({
        "pid": std::process::id(),
        "ppid": std::os::unix::process::parent_id(),
        "cgroup": group,
        "files": files,
        "oom_score_adj": read("/proc/self/oom_score_adj").parse::<i32>().ok(),
        "nice": stat_nice(),
        "nofile": nofile(),
        "uid": line("Uid:"),
        "gid": line("Gid:"),
        "groups": line("Groups:"),
        "cpus_allowed": line("Cpus_allowed_list:"),
        "blocked": line("SigBlk:"),
        "ignored": line("SigIgn:"),
        "capabilities": capabilities,
        "env": env,
        "fds": fds,
        "cwd": std::env::current_dir().ok(),
        "pgid": rustix::process::getpgrp().as_raw_nonzero().get(),
        "sid": rustix::process::getsid(None).ok().map(|s| s.as_raw_nonzero().get()),
    });
    say(&facts.to_string());
}

/// Records where it is and what limits it the moment it starts: a file that is there whole or not at all, of whose lines
/// the first is the group and each other a control file's content. Then it lives until the file `gate` is there, and
/// returns 7.
pub fn gate(record: &str, gate: &str) {
    let cgroup = read("/proc/self/cgroup");
    let group = cgroup.strip_prefix("0::").unwrap_or("");
    let file = |name: &str| read(&format!("/sys/fs/cgroup{group}/{name}"));
    let text = format!("{group}\n{}\n{}\n", file("memory.max"), file("pids.max"));
    let unfinished = format!("{record}.{}", std::process::id());
    fs::write(&unfinished, text).expect("a file");
    fs::rename(&unfinished, record).expect("a name");
    // A test that failed opens no gate.
    let begun = std::time::Instant::now();
    while !fs::exists(gate).unwrap_or(true) && begun.elapsed().as_secs() < 120 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::process::exit(7);
}

/// One line per open descriptor.
pub fn print_descriptors() {
    for (fd, target) in descriptors() {
        say(&format!("{fd} {target}"));
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// The 19th field of /proc/self/stat; the second may hold anything but ends with the last parenthesis.
fn stat_nice() -> Option<i32> {
    let stat = read("/proc/self/stat");
    stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok()
}

/// Soft and hard limit of open files.
fn nofile() -> Option<Vec<u64>> {
    let limits = read("/proc/self/limits");
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    Some(line.split_whitespace().filter_map(|w| w.parse().ok()).collect())
}

/// The open descriptors and what they are, but for the one that lists them.
fn descriptors() -> Vec<(i32, String)> {
    let names: Vec<i32> = fs::read_dir("/proc/self/fd")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let mut found: Vec<(i32, String)> = names
        .into_iter()
        .filter_map(|fd| {
            let target = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
            Some((fd, target.to_string_lossy().into_owned()))
        })
        .collect();
    found.sort();
    found
}
