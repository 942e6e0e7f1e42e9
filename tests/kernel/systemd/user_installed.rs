//! Sessions without root where `cgmgr install --user` has made a place for them: groups in the delegated scope of the
//! user's own systemd, which he makes himself, wherever he is.

use std::path::Path;
use std::process::{Command, Stdio};

use super::user_sessions::{REPORT, command, his, hold, role, run, states, workloads};
use crate::cgmgr::{finish, payload, report, until};
use crate::lab::{MOUNT, children, must, procs, read};
use crate::people::{UserManager, coders};

/// The user's systemd, with cgmgr's units.
struct Installed(UserManager);

impl Installed {
    fn new() -> Installed {
        let manager = UserManager::start();
        his(&["install", "--user"]).expect(0);
        assert_eq!(procs(&leaf()).len(), 1);
        Installed(manager)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        his(&["down", "--kill"]);
        let done = his(&["uninstall", "--user"]);
        if !std::thread::panicking() {
            done.expect(0);
            assert!(!Path::new(&scope()).exists());
        }
        let _ = std::fs::remove_dir_all("/home/coder/.config");
    }
}

fn scope() -> String {
    format!("{}/cgmgr-sessions.scope", workloads())
}

fn leaf() -> String {
    format!("{}/supervisor", scope())
}

fn group(session: &str) -> String {
    format!("{}/cgmgr-{session}", scope())
}

#[track_caller]
fn nothing_is_left() {
    until("the scope holds its anchor only", || {
        children(&scope()) == ["supervisor"]
    });
}

fn kill_anchor() {
    let anchor = procs(&leaf())[0].to_string();
    finish(Command::new("kill").args(["-KILL", &anchor])).expect(0);
    until("the anchor is gone", || {
        std::fs::read_to_string(leaf() + "/cgroup.procs").map_or(true, |text| text.is_empty())
    });
}

#[test]
fn sessions_are_in_his_scope_from_outside_and_from_inside() {
    let installed = Installed::new();
    let role = role(
        "[runtime.limits]\nmemory_max = \"80 MiB\"\nmemory_high = \"70 MiB\"\npids = 40\ncpus = 1.2345\n\
         cpu_weight = 33\nnice = 5\n[runtime.limits.oom]\ngroup = true\n",
    );
    for inside in [false, true] {
        let live = hold("lim", &["--role", &role, "--report", REPORT], inside);
        let main = group("lim");
        let has = |file: &str| read(&format!("{main}/{file}"));
        for (file, value) in [
            ("memory.max", "83886080"),
            ("memory.high", "73400320"),
            ("cpu.max", "123450 100000"),
            ("cpu.weight", "33"),
            ("pids.max", "40"),
            ("memory.oom.group", "1"),
        ] {
            assert_eq!(has(file), value, "{file}");
        }
        assert_eq!(procs(&main).len(), 1);
        for from_inside in [false, true] {
            let shown = finish(&mut command(&["status", "lim", "--json"], from_inside)).expect(0);
            assert_eq!(shown.json()["sessions"][0]["memory"]["max"], 80 << 20);
            let mut enter = command(&["enter", "lim", "--", &payload(), "facts"], from_inside);
            let facts = finish(&mut enter).expect(0).json();
            assert_eq!(facts["cgroup"], main.trim_start_matches(MOUNT), "{facts:#}");
        }
        his(&["set", "lim", "pids=50"]).expect(0);
        assert_eq!(has("pids.max"), "50");
        his(&["freeze", "lim"]).expect(0);
        assert!(has("cgroup.events").contains("frozen 1"));
        his(&["thaw", "lim"]).expect(0);
        // Somebody lives in the scope, so it stays.
        his(&["uninstall", "--user"]).expect(1).says("lim");
        live.end().expect(0).says_nothing_of("not enforced");
        let told = report(REPORT);
        assert_eq!(told["backend"], "cgroupfs", "{told:#}");
        assert_eq!(told["promise"], "bookkeeping");
        assert_eq!(told["placed_by"], if inside { "clone3" } else { "move" });
        let states = states(&told);
        assert!(states.iter().all(|(_, state)| state == "enforced"), "{states:?}");
        nothing_is_left();
    }
    let done = run(&["--memory-max", "16MiB", "--report", REPORT], &["hog", "60"]).expect(137);
    done.says("memory_max 16.0 MiB reached");
    assert_eq!(report(REPORT)["oom"]["level"], "session");
    nothing_is_left();
    for (end, status) in [("stop", 143), ("kill", 137)] {
        let live = hold("live", &[], false);
        his(&[end, "live"]).expect(0);
        live.wait().expect(status);
        nothing_is_left();
    }
    his(&["doctor"]).expect(0);
    drop(installed);
}

#[test]
fn a_launch_from_inside_asks_his_systemd_nothing() {
    let installed = Installed::new();
    let trace = "/tmp/users-launch.trace";
    let mut launch = command(&["run", "--pids", "20", "--", "true"], true);
    let program: Vec<String> = std::iter::once(launch.get_program())
        .chain(launch.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // What makes the scope around it is not looked at: only what comes after its `--`.
    let at = program
        .iter()
        .position(|word| word == "--")
        .expect("systemd-run --");
    let strace = ["strace", "-f", "-o", trace, "-e", "trace=connect,sendmsg,sendto"];
    let words: Vec<&str> = program[..=at]
        .iter()
        .map(String::as_str)
        .chain(strace)
        .chain(program[at + 1..].iter().map(String::as_str))
        .collect();
    launch = coders(words);
    finish(&mut launch).expect(0);
    let calls = read(trace);
    assert!(calls.contains("+++ exited with 0 +++"), "{calls}");
    // Whether somebody listens there is asked of the kernel; nothing is said to him.
    assert!(
        !calls.contains("sendmsg(") && !calls.contains("sendto("),
        "{calls}"
    );
    std::fs::remove_file(trace).expect("removed");
    drop(installed);
}

#[test]
fn an_anchor_that_died_is_replaced_and_a_scope_that_went_is_made_anew() {
    let installed = Installed::new();
    let live = hold("live", &["--memory-max", "80MiB"], false);
    kill_anchor();
    assert_eq!(procs(&group("live")).len(), 1);
    for inside in [false, true] {
        let mut launch = command(&["run", "--pids", "20", "--", "true"], inside);
        finish(&mut launch).expect(0).says_nothing_of("cgmgr:");
        assert_eq!(procs(&leaf()).len(), 1);
    }
    live.end().expect(0);
    for inside in [false, true] {
        kill_anchor();
        until("the scope is gone", || !Path::new(&scope()).exists());
        let mut launch = command(&["run", "--pids", "20", "--report", REPORT, "--", "true"], inside);
        finish(&mut launch).expect(0).says_nothing_of("cgmgr:");
        assert_eq!(report(REPORT)["backend"], "cgroupfs");
        assert_eq!(procs(&leaf()).len(), 1);
        nothing_is_left();
    }
    drop(installed);
}

#[test]
fn running_processes_are_adopted_from_outside() {
    let installed = Installed::new();
    let mut stray = coders(["sleep", "1000"])
        .stdout(Stdio::null())
        .spawn()
        .expect("sleep");
    let pid = stray.id().to_string();
    his(&["adopt", "--name", "taken", "--memory-max", "64MiB", &pid]).expect(0);
    assert_eq!(procs(&group("taken")), [stray.id() as i32]);
    assert_eq!(read(&(group("taken") + "/memory.max")), (64 << 20).to_string());
    his(&["kill", "taken"]).expect(0);
    stray.wait().expect("a child");
    drop(installed);
}

#[test]
fn an_agents_sessions_are_groups_in_the_delegated_scope() {
    let _installed = Installed::new();
    let role = role("[runtime.limits]\nmemory_max = \"64 MiB\"\n[agent]\nmemory_min = \"8 MiB\"\n");
    let script = format!(
        "cat /proc/self/cgroup; exec {} run --name kid -- cat /proc/self/cgroup /proc/self/oom_score_adj",
        must("CGMGR_BIN")
    );
    for inside in [false, true] {
        let words = [
            "protect", "--name", "his", "--role", &role, "--", "sh", "-c", &script,
        ];
        let done = finish(&mut command(&words, inside)).expect(0);
        let lines: Vec<&str> = done.out.lines().collect();
        let tree = UserManager::GROUP;
        assert_eq!(
            lines[..2],
            [
                format!("0::{tree}/agent.slice/cgmgr-agent-his.scope"),
                format!("0::{tree}/workloads.slice/cgmgr-sessions.scope/cgmgr-kid"),
            ],
            "{done:#?}"
        );
        // The manager's own processes have 100 or 200 (user@.service, OOMScoreAdjust=).
        assert!(
            lines[2].parse::<i32>().is_ok_and(|score| score > 200),
            "{done:#?}"
        );
    }
    nothing_is_left();
}
