//! Payloads that make groups below the one they are in, and fill them.

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};

use super::processes::{again, wait_ready};
use super::{say, take};

/// The directory of the group that this process is in.
pub fn own() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").expect("/proc");
    let group = text.lines().find_map(|line| line.strip_prefix("0::"));
    format!("/sys/fs/cgroup{}", group.expect("a group").trim_end_matches('/'))
}

fn make(path: &str) -> String {
    fs::create_dir(path).unwrap_or_else(|error| panic!("cannot make {path}: {error}"));
    path.to_owned()
}

fn put(path: &str, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {text} to {path}: {error}"));
}

/// A process in `group` that holds a MiB as long as this one lives.
fn holder(group: &str) -> Child {
    let mut child = again(&["hold", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    wait_ready(&mut child);
    put(&format!("{group}/cgroup.procs"), &child.id().to_string());
    child
}

fn until_input_ends() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A chain of groups, one in the other, with a process in each; holds until its standard input ends.
pub fn chain(depth: usize) {
    let (mut group, mut holders) = (own(), Vec::new());
    for _ in 0..depth {
        group = make(&format!("{group}/deeper"));
        holders.push(holder(&group));
    }
    say(&format!("ready {}", std::process::id()));
    until_input_ends();
}

/// Goes into `b/c` below its group, beside an empty `b/d`, and holds there until its standard input ends.
pub fn deep() {
    let group = make(&format!("{}/b", own()));
    make(&format!("{group}/d"));
    let c = make(&format!("{group}/c"));
    put(&format!("{c}/cgroup.procs"), "0");
    say(&format!("ready {}", std::process::id()));
    until_input_ends();
}

/// Two processes in one group below its own and itself in another, memory counted for each; then it takes too much.
pub fn family() {
    let top = own();
    let (leaf, inner) = (make(&format!("{top}/leaf")), make(&format!("{top}/inner")));
    put(&format!("{leaf}/cgroup.procs"), "0");
    put(&format!("{top}/cgroup.subtree_control"), "+memory");
    let holders = vec![holder(&inner), holder(&inner)];
    say("family");
    take_all(holders);
}

/// One process that the OOM killer may not take, one that it may; then it takes too much.
pub fn spared() {
    let spared = std::process::Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sleep");
    put(&format!("/proc/{}/oom_score_adj", spared.id()), "-1000");
    let holder = holder(&own());
    say(&format!("spared {}", spared.id()));
    take_all(vec![spared, holder]);
}

/// Takes memory until somebody stops it, while others hold theirs.
fn take_all(others: Vec<Child>) {
    let mut held = Vec::new();
    for _ in 0..4096 {
        held.push(take(1));
    }
    say("survived");
    for mut child in others {
        let _ = child.kill();
        let _ = child.wait();
    }
}
