//! A subtree delegated to a user, and a cgroup namespace: sessions without root, or without the real root.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::cgmgr::{finish, payload};
use crate::escape::{attempts, told_once};
use crate::lab::{Lab, MOUNT, children, examples, must, read, write};
use crate::people::coder;
use crate::readback::{compare, knobs, of_session};

const BASE: &str = "/sys/fs/cgroup/given";

/// A group that belongs to the user coder as far as the kernel's rules of delegation want it, with a leaf for himself.
struct Given {
    /// What the root's children had before.
    controllers: String,
}

impl Given {
    fn new() -> Given {
        coder();
        let controllers = read(&format!("{MOUNT}/cgroup.subtree_control"));
        write(
            &format!("{MOUNT}/cgroup.subtree_control"),
            "+cpu +io +memory +pids",
        );
        fs::create_dir(BASE).expect("a group");
        fs::create_dir(format!("{BASE}/agent")).expect("a group");
        for group in ["", "/agent"] {
            for file in ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"] {
                let path = format!("{BASE}{group}{file}");
                std::os::unix::fs::chown(&path, Some(1000), Some(1000)).expect("chown");
            }
        }
        Given { controllers }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let _ = fs::write(format!("{BASE}/cgroup.kill"), "1");
        for _ in 0..200 {
            remove_tree(BASE);
            if !fs::exists(BASE).unwrap_or(true) {
                for name in ["cpu", "io", "memory", "pids"] {
                    if !self.controllers.split(' ').any(|had| had == name) {
                        let _ = fs::write(format!("{MOUNT}/cgroup.subtree_control"), format!("-{name}"));
                    }
                }
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(
            std::thread::panicking(),
            "{BASE} does not go: {:?}",
            children(BASE)
        );
    }
}

/// Removes a group and all below it, as far as they are empty.
pub fn remove_tree(group: &str) {
    for child in children(group) {
        remove_tree(&format!("{group}/{child}"));
    }
    let _ = fs::remove_dir(group);
}

/// A command of the user coder, inside his own group where `inside` says so.
fn as_coder(words: &[&str], inside: bool) -> Command {
    let enter = if inside {
        format!("echo $$ >{BASE}/agent/cgroup.procs; ")
    } else {
        String::new()
    };
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{enter}cd /home/coder; exec setpriv --reuid 1000 --regid 1000 --init-groups env HOME=/home/coder USER=coder XDG_RUNTIME_DIR=/run/coder \"$@\""), "sh"]);
    command.args(words).stdin(Stdio::null());
    let _ = fs::create_dir("/run/coder");
    std::os::unix::fs::chown("/run/coder", Some(1000), Some(1000)).expect("chown");
    command
}

fn run<'a>(options: &[&'a str], words: &[&'a str]) -> Vec<String> {
    let mut all = vec![must("CGMGR_BIN"), "run".into()];
    all.extend(options.iter().map(|s| s.to_string()));
    all.extend(["--".into(), payload()]);
    all.extend(words.iter().map(|s| s.to_string()));
    all
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn a_user_in_his_own_subtree_runs_sessions_without_root() {
    let lab = Lab::new();
    let given = Given::new();
    let report = "/run/coder/report.json";
    let words = run(
        &[
            "--name",
            "mine",
            "--memory-max",
            "80MiB",
            "--pids",
            "40",
            "--report",
            report,
        ],
        &["facts"],
    );
    let done = finish(&mut as_coder(&strs(&words), true)).expect(0);
    let facts = done.json();
    assert_eq!(facts["cgroup"], "/given/workloads.slice/cgmgr-mine", "{done:#?}");
    assert_eq!(facts["files"]["memory.max"], (80 << 20).to_string());
    assert_eq!(facts["files"]["pids.max"], "40");
    assert_eq!(facts["uid"], json!(["1000", "1000", "1000", "1000"]));
    let told = crate::cgmgr::report(report);
    assert_eq!(told["placed_by"], "clone3");
    // He owns the files and could raise his own limits: no boundary.
    assert_eq!(told["promise"], "bookkeeping");
    drop(given);
    drop(lab);
}

#[test]
fn a_users_agent_is_protected_in_his_own_subtree_and_its_sessions_are_not() {
    let lab = Lab::new();
    let given = Given::new();
    // What is given to him protects as much of his agent as he likes.
    write(&format!("{BASE}/memory.min"), "16777216");
    let role = "/run/coder/agent.role.toml";
    let _ = as_coder(&[], true);
    let text = "[runtime.limits]\nmemory_max = \"64 MiB\"\n[agent]\nmemory_min = \"8 MiB\"\nmemory_low = \"9 MiB\"\ncpu_weight = 500\n";
    fs::write(role, text).expect("a role");
    let cgmgr = must("CGMGR_BIN");
    let script = format!(
        "cat /proc/self/cgroup {BASE}/agent.slice/memory.min {BASE}/agent.slice/cpu.weight; \
         exec {cgmgr} run --name kid --role {role} -- {} facts",
        payload()
    );
    let words = [&cgmgr, "protect", "--role", role, "--", "sh", "-c", &script];
    let done = finish(&mut as_coder(&words, true)).expect(0);
    let lines: Vec<&str> = done.out.splitn(4, '\n').collect();
    assert_eq!(
        lines[..3],
        ["0::/given/agent.slice", "8388608", "500"],
        "{done:#?}"
    );
    let facts: serde_json::Value = serde_json::from_str(lines[3]).expect("JSON");
    assert_eq!(facts["cgroup"], "/given/workloads.slice/cgmgr-kid");
    assert_eq!(facts["files"]["memory.max"], (64 << 20).to_string());
    assert_eq!(facts["oom_score_adj"], 998, "his agent's is 0");
    done.says_nothing_of("agent.memory_min");
    done.says("of the 9.0 MiB of agent.memory_low at most 0 B are protected from what is outside of /given");
    done.says("failed to adjust oom score to -900");
    // From elsewhere it is not his to enter.
    let done = finish(&mut as_coder(&words, false)).expect(0);
    assert!(done.out.starts_with("0::/\n"), "{done:#?}");
    done.says("agent.memory_min is not enforced");
    drop(given);
    drop(lab);
}

#[test]
fn in_a_users_own_subtree_he_gets_out_and_no_boundary_is_promised() {
    let lab = Lab::new();
    let given = Given::new();
    let report = lab.path("report");
    // Root starts it for him, and the session's group is root's; but what is above it is his.
    let options = [
        "--cgroup-root",
        "/given",
        "--user",
        "coder",
        "--name",
        "mine",
        "--memory-max",
        "80MiB",
        "--report",
        &report,
    ];
    let done = crate::cgmgr::run_payload(&options, &["escape"]).expect(0);
    let tried = attempts(&done);
    let out: Vec<&str> = tried
        .iter()
        .filter(|a| a.done && a.class == "move")
        .map(|a| a.what.as_str())
        .collect();
    let agent = format!("{BASE}/agent/cgroup.procs");
    assert!(out.contains(&agent.as_str()), "{}", told_once(&done));
    assert_eq!(crate::cgmgr::report(&report)["promise"], "bookkeeping", "{out:?}");
    finish(&mut crate::cgmgr::command(["down", "--cgroup-root", "/given"])).expect(0);
    drop(given);
    drop(lab);
}

#[test]
fn a_user_outside_his_subtree_gets_the_process_backend_or_is_told() {
    let lab = Lab::new();
    let given = Given::new();
    let report = "/run/coder/report.json";
    let words = run(
        &["--name", "out", "--memory-max", "80MiB", "--report", report],
        &["facts"],
    );
    let done = finish(&mut as_coder(&strs(&words), false)).expect(0);
    done.says("cgmgr: warning: ").says("memory_max");
    let told = crate::cgmgr::report(report);
    assert_eq!(
        (&told["backend"], &told["promise"]),
        (&json!("process"), &json!("none"))
    );
    assert_eq!(done.json()["cgroup"], "/");
    drop(given);
    drop(lab);
}

#[test]
fn root_may_name_a_group_for_everything() {
    let lab = Lab::new();
    let given = Given::new();
    for role in examples() {
        let role = role.display().to_string();
        let mut command = crate::cgmgr::run_command(
            &["--cgroup-root", "/given", "--name", "probe", "--role", &role],
            &["hold"],
        );
        let mut live = crate::cgmgr::Live::of("probe", &mut command);
        live.hear("ready ");
        let group = format!("{BASE}/workloads.slice/cgmgr-probe");
        let announced = knobs(&role);
        let compared = compare(&group, announced.iter().filter(|k| of_session(k)), &role);
        assert!(compared >= 8, "{role}: {compared}");
        live.end().expect(0);
        assert!(!fs::exists(&group).expect("a look"));
    }
    finish(&mut crate::cgmgr::command(["down", "--cgroup-root", "/given"])).expect(0);
    assert_eq!(children(BASE), ["agent"], "down left or took too much");
    drop(given);
    drop(lab);
}

#[test]
fn processes_in_the_base_are_moved_out_of_the_way_and_back() {
    let lab = Lab::new();
    let given = Given::new();
    let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("sleep");
    write(&format!("{BASE}/cgroup.procs"), &sleeper.id().to_string());
    let done = finish(&mut crate::cgmgr::run_command(
        &["--cgroup-root", "/given", "--memory-max", "64MiB"],
        &["facts"],
    ));
    let moved = read(&format!("/proc/{}/cgroup", sleeper.id()));
    let down = finish(&mut crate::cgmgr::command(["down", "--cgroup-root", "/given"]));
    let back = read(&format!("/proc/{}/cgroup", sleeper.id()));
    sleeper.kill().expect("SIGKILL");
    sleeper.wait().expect("a child");
    assert_eq!(
        done.expect(0).json()["files"]["memory.max"],
        (64 << 20).to_string()
    );
    assert_eq!(moved, "0::/given/supervisor");
    down.expect(0);
    assert_eq!(back, "0::/given");
    drop(given);
    drop(lab);
}

#[test]
fn in_a_cgroup_namespace_the_namespaces_root_is_the_base() {
    let lab = Lab::new();
    let given = Given::new();
    write(&format!("{BASE}/cgroup.subtree_control"), "+cpu +memory +pids");
    // As a container has it: its own group as the root of a namespace and of a mount.
    let script = format!(
        "echo $$ >{BASE}/agent/cgroup.procs; exec unshare --cgroup --mount sh -c 'umount {MOUNT}; \
         mount -t cgroup2 none {MOUNT} && exec {} run --name boxed --memory-max 70MiB --pids 33 -- {} facts'",
        must("CGMGR_BIN"),
        payload()
    );
    let done = finish(Command::new("sh").args(["-c", &script]).stdin(Stdio::null())).expect(0);
    let facts = done.json();
    assert_eq!(facts["cgroup"], "/workloads.slice/cgmgr-boxed", "{done:#?}");
    assert_eq!(
        (&facts["files"]["memory.max"], &facts["files"]["pids.max"]),
        (&json!((70 << 20).to_string()), &json!("33"))
    );
    assert!(
        children(&format!("{BASE}/agent/workloads.slice")).is_empty(),
        "a session's group is left"
    );
    drop(given);
    drop(lab);
}

#[test]
fn a_read_only_hierarchy_is_no_error() {
    let lab = Lab::new();
    let script = format!(
        "exec unshare --mount sh -c 'mount -o remount,bind,ro {MOUNT}; exec {} run --memory-max 70MiB -- sh -c \"exit 7\"'",
        must("CGMGR_BIN")
    );
    let done = finish(Command::new("sh").args(["-c", &script]).stdin(Stdio::null())).expect(7);
    done.says("cgmgr: warning: ").says("memory_max");
    drop(lab);
}

#[test]
fn only_pids_and_cpu_do_not_make_the_hierarchy_threaded() {
    let lab = Lab::new();
    let given = Given::new();
    let mut sleeper: Child = Command::new("sleep").arg("1000").spawn().expect("sleep");
    write(&format!("{BASE}/cgroup.procs"), &sleeper.id().to_string());
    let done = finish(&mut crate::cgmgr::run_command(
        &["--cgroup-root", "/given", "--pids", "20", "--cpus", "1"],
        &["facts"],
    ));
    let kind = read(&format!("{BASE}/cgroup.type"));
    sleeper.kill().expect("SIGKILL");
    sleeper.wait().expect("a child");
    done.expect(0);
    assert_eq!(kind, "domain");
    drop(given);
    drop(lab);
}
