//! No process of a session is ever outside its group, from its first instruction on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cgmgr::{cgmgr, finish, report, run_command};
use crate::first_fork;
use crate::lab::{Lab, MOUNT, full, is_systemd, read, sessions, write};

#[test]
fn a_child_forked_in_the_first_instruction_is_inside() {
    let lab = Lab::new();
    let program = first_fork::program(&lab);
    let runs = if full() { 1000 } else { 60 };
    for run in 0..runs {
        let done = cgmgr(&["run", "--quiet", "--name", "fork", "--", &program]).expect(0);
        let seen: Vec<&str> = done.out.lines().collect();
        let group = format!("0::{}", crate::lab::path_of("fork").trim_start_matches(MOUNT));
        assert_eq!(seen, [group.as_str(); 4], "run {run}: {done:#?}");
    }
}

#[test]
fn the_same_look_catches_a_late_attach() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let program = first_fork::program(&lab);
    let group = format!("{}/late-attach", sessions());
    fs::create_dir_all(&group).expect("a group");
    let (mut escaped, mut seen) = (0, 0);
    for _ in 0..40 {
        let child = Command::new(&program)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        // Too late, on purpose: it has run already. It may even have ended.
        let _ = fs::write(format!("{group}/cgroup.procs"), child.id().to_string());
        let output = child.wait_with_output().expect("a child");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        seen += text.lines().count();
        escaped += text
            .lines()
            .filter(|line| !line.ends_with("/late-attach"))
            .count();
        if escaped > 0 {
            break;
        }
    }
    fs::remove_dir(&group).expect("an empty group");
    assert!(seen > 0, "nothing was looked at");
    assert!(
        escaped > 0,
        "of {seen} processes attached late none was seen outside: the look is blind"
    );
}

#[test]
fn the_first_process_is_cloned_into_the_group_and_the_limits_are_there() {
    let lab = Lab::new();
    let file = lab.path("report");
    let options = [
        "--name",
        "early",
        "--memory-max",
        "200MiB",
        "--memory-high",
        "150MiB",
        "--pids",
        "40",
        "--cpus",
        "1.5",
        "--cpu-weight",
        "77",
        "--report",
        &file,
    ];
    let done = finish(&mut run_command(&options, &["facts"])).expect(0);
    let facts: Value = done.json();
    assert_eq!(
        format!("{MOUNT}{}", facts["cgroup"].as_str().expect("a group")),
        crate::lab::path_of("early")
    );
    let expected: BTreeMap<&str, String> = BTreeMap::from([
        ("memory.max", (200 << 20).to_string()),
        ("memory.high", (150 << 20).to_string()),
        ("pids.max", "40".into()),
        ("cpu.max", "150000 100000".into()),
        ("cpu.weight", "77".into()),
        // Nobody else is in the group: its supervisor is outside.
        ("cgroup.procs", facts["pid"].to_string()),
    ]);
    for (name, value) in expected {
        assert_eq!(facts["files"][name], value, "{name}");
    }
    let report = report(&file);
    assert_eq!(report["placed_by"], "clone3");
    assert_eq!(report["pid"], facts["pid"]);
}

#[test]
fn the_supervisor_is_outside_the_group() {
    let lab = Lab::new();
    let live = crate::cgmgr::Live::hold("apart", &[], 0);
    let supervisor = read(&format!("/proc/{}/cgroup", live.pid()));
    assert!(!supervisor.contains("cgmgr-apart"), "{supervisor}");
    assert_eq!(
        supervisor,
        read("/proc/self/cgroup"),
        "it stays where its caller is"
    );
    assert_eq!(crate::lab::procs(&live.group()).len(), 1);
    live.end().expect(0);
    drop(lab);
}

#[test]
fn a_launch_that_cannot_be_placed_runs_nothing_and_leaves_nothing() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let marker = lab.path("marker");
    // No more groups below the sessions' parent: mkdir fails with EAGAIN.
    let limit = format!("{}/cgroup.max.descendants", sessions());
    let groups: usize = read(&format!("{}/cgroup.stat", sessions()))
        .lines()
        .find_map(|l| l.strip_prefix("nr_descendants "))
        .and_then(|n| n.parse().ok())
        .expect("a count");
    write(&limit, &groups.to_string());
    let file = lab.path("report");
    let done = cgmgr(&["run", "--name", "full", "--report", &file, "--", "touch", &marker]);
    write(&limit, "max");
    let done = done.expect(125);
    done.says("cgmgr: error: ").says("cgmgr-full").says("help: ");
    let report = report(&file);
    assert_eq!(report["started_command"], false);
    assert!(!fs::exists(&marker).expect("a look"), "the command ran");
    assert!(
        !fs::exists(crate::lab::path_of("full")).expect("a look"),
        "a group is left"
    );
}

#[test]
fn a_clone_that_pids_max_refuses_leaves_nothing() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let marker = lab.path("marker");
    let limit = format!("{}/pids.max", sessions());
    let before = read(&limit);
    write(&limit, "0");
    let done = cgmgr(&["run", "--name", "nopids", "--", "touch", &marker]);
    write(&limit, &before);
    let done = done.expect(125);
    done.says("cgmgr: error: ").says("help: ").says("pids");
    assert!(!fs::exists(&marker).expect("a look"), "the command ran");
    assert!(
        !fs::exists(crate::lab::path_of("nopids")).expect("a look"),
        "a group is left"
    );
    drop(lab);
}

#[test]
fn a_group_that_already_has_a_session_name_but_not_our_mark_is_not_taken() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let foreign = crate::lab::path_of("foreign");
    fs::create_dir(&foreign).expect("a group");
    let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("sleep");
    write(&format!("{foreign}/cgroup.procs"), &sleeper.id().to_string());
    let done = cgmgr(&["run", "--name", "foreign", "--", "true"]);
    let survives = sleeper.try_wait().expect("a look").is_none();
    sleeper.kill().expect("SIGKILL");
    sleeper.wait().expect("a child");
    crate::cgmgr::until("the foreign group is gone", || {
        fs::remove_dir(&foreign).is_ok() || !fs::exists(&foreign).expect("a look")
    });
    done.expect(125).says("in use");
    assert!(survives, "a foreign process was killed");
    drop(lab);
}

#[test]
fn the_first_fork_program_is_what_it_says() {
    let lab = Lab::new();
    let program = first_fork::program(&lab);
    let mode = fs::metadata(&program).expect("a file").permissions().mode();
    assert_eq!(mode & 0o111, 0o111);
    let done = finish(&mut Command::new(&program)).expect(0);
    let here = read("/proc/self/cgroup");
    assert_eq!(done.out.lines().collect::<Vec<_>>(), [here.as_str(); 4]);
    assert!(is_systemd() || here == "0::/", "{here}");
}
