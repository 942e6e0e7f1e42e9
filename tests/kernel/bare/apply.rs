//! `plan`, `apply` and `down` where the slices are cgmgr's own.

use std::fs;
use std::process::Command;

use crate::cgmgr::{Live, cgmgr, report};
use crate::lab::{Lab, MOUNT, children, example, examples, read, workloads, write};
use crate::readback::{compare, knobs, steps};

fn agent() -> String {
    format!("{MOUNT}/agent.slice")
}

/// Takes away the controllers that an earlier test left enabled, so that `apply` has something to enable.
fn without_controllers() {
    let control = format!("{MOUNT}/cgroup.subtree_control");
    let off: Vec<String> = read(&control)
        .split_whitespace()
        .map(|c| format!("-{c}"))
        .collect();
    if !off.is_empty() {
        write(&control, &off.join(" "));
    }
    assert_eq!(read(&control), "");
}

#[test]
fn applied_twice_the_second_plan_is_empty_for_every_example() {
    for role in examples() {
        let lab = Lab::new();
        let role = role.display().to_string();
        let first = cgmgr(&["plan", &role, "--json"]).expect(0);
        assert!(!steps(&first).is_empty(), "{role}");
        let applied = cgmgr(&["apply", &role, "--json"]).expect(0);
        assert_eq!(steps(&applied), steps(&first), "apply does what plan said");
        assert_eq!(applied.json()["changed"], steps(&first).len());
        let second = cgmgr(&["plan", &role, "--json"]).expect(0);
        assert_eq!(steps(&second), [""; 0], "{role}");
        let again = cgmgr(&["apply", &role, "--json"]).expect(0);
        assert_eq!(again.json()["changed"], 0);
        drop(lab);
    }
}

#[test]
fn the_slices_hold_what_explain_announced() {
    for role in examples() {
        let lab = Lab::new();
        let role = role.display().to_string();
        cgmgr(&["apply", &role]).expect(0);
        let announced = knobs(&role);
        let mut compared = 0;
        for (table, group) in [("agent.", agent()), ("workloads.", workloads())] {
            let of_table = announced
                .iter()
                .filter(|k| k["knob"].as_str().expect("a name").starts_with(table));
            compared += compare(&group, of_table, &role);
        }
        assert!(compared >= 4, "{role}: only {compared} files");
        drop(lab);
    }
}

#[test]
fn rounding_by_the_kernel_counts_as_equal() {
    let lab = Lab::new();
    let role = lab.file(
        "odd.role.toml",
        "[runtime.limits]\nmemory_max = \"100000001\"\nmemory_high = \"90000001\"\n\
         [agent]\nmemory_low = \"50000001\"\n[workloads]\nmemory_max = \"700000001\"\n",
    );
    cgmgr(&["apply", &role]).expect(0);
    let live = Live::hold("odd", &["--role", &role], 0);
    let plan = cgmgr(&["plan", &role, "--json"]).expect(0);
    assert_eq!(steps(&plan), [""; 0]);
    assert_eq!(read(&format!("{}/memory.max", workloads())), "699998208");
    live.end().expect(0);
}

#[test]
fn a_plan_changes_nothing_and_shows_each_undo() {
    without_controllers();
    let lab = Lab::new();
    let before = (children(MOUNT), read(&format!("{MOUNT}/cgroup.subtree_control")));
    let role = example("rust");
    let plan = cgmgr(&["plan", &role, "--json"]).expect(0);
    let text = cgmgr(&["plan", &role]).expect(0);
    let dry = cgmgr(&["apply", "--dry-run", &role]).expect(0);
    assert_eq!(text.out, dry.out);
    assert_eq!(
        before,
        (children(MOUNT), read(&format!("{MOUNT}/cgroup.subtree_control")))
    );
    let json = plan.json();
    assert_eq!(
        (&json["backend"], &json["base"]),
        (&"cgroupfs".into(), &"/".into())
    );
    assert_eq!(json["mount"], MOUNT);
    for step in steps(&plan) {
        let path = step["path"].as_str().expect("a path");
        assert!(path.starts_with(MOUNT), "{step}");
        assert!(text.out.contains(path), "{path} in {}", text.out);
        if step["step"] == "mkdir" {
            assert_eq!(step["undo"]["step"], "rmdir", "{step}");
            assert_eq!(step["undo"]["path"], step["path"], "{step}");
        }
    }
    assert!(text.out.contains("undo: "), "{}", text.out);
    drop(lab);
}

#[test]
fn down_takes_away_exactly_what_was_made() {
    without_controllers();
    let lab = Lab::new();
    let before = children(MOUNT);
    cgmgr(&["apply", &example("rust")]).expect(0);
    assert!(children(MOUNT).contains(&"workloads.slice".to_owned()));
    assert_ne!(read(&format!("{MOUNT}/cgroup.subtree_control")), "");
    let shown = cgmgr(&["down", "--dry-run", "--json"]).expect(0);
    assert!(
        children(MOUNT).contains(&"workloads.slice".to_owned()),
        "a dry run removed it"
    );
    let done = cgmgr(&["down", "--json"]).expect(0);
    assert_eq!(steps(&done), steps(&shown));
    assert_eq!(children(MOUNT), before);
    assert_eq!(read(&format!("{MOUNT}/cgroup.subtree_control")), "");
    assert_eq!(steps(&cgmgr(&["down", "--json"]).expect(0)), [""; 0]);
    drop(lab);
}

#[test]
fn controllers_that_somebody_else_enabled_stay() {
    without_controllers();
    let lab = Lab::new();
    let control = format!("{MOUNT}/cgroup.subtree_control");
    write(&control, "+pids");
    cgmgr(&["apply", &example("rust")]).expect(0);
    assert!(read(&control).contains("memory"));
    cgmgr(&["down"]).expect(0);
    assert_eq!(read(&control), "pids");
    write(&control, "-pids");
    drop(lab);
}

#[test]
fn down_refuses_while_a_session_lives_and_kills_when_told() {
    let lab = Lab::new();
    let mut live = Live::hold("alive", &[], 0);
    let refused = cgmgr(&["down"]).expect(1);
    refused.says("alive").says("still running").says("help: ");
    assert!(live.cgmgr.try_wait().expect("a look").is_none());
    assert!(fs::exists(live.group()).expect("a look"));
    let group = live.group();
    cgmgr(&["down", "--kill"]).expect(0);
    assert!(!fs::exists(group).expect("a look"));
    assert!(!fs::exists(workloads()).expect("a look"));
    let done = live.wait().expect(137);
    done.says_nothing_of("OOM");
    drop(lab);
}

#[test]
fn a_foreign_group_survives_down_and_is_named() {
    let lab = Lab::new();
    cgmgr(&["apply", &example("minimal")]).expect(0);
    let foreign = format!("{}/somebody-elses", workloads());
    fs::create_dir(&foreign).expect("a group");
    let done = cgmgr(&["down", "--kill"]);
    let survived = fs::exists(&foreign).expect("a look");
    let _ = fs::remove_dir(&foreign);
    assert!(survived, "{done:#?}");
    done.says("somebody-elses");
    cgmgr(&["down"]).expect(0);
    drop(lab);
}

#[test]
fn a_foreign_group_with_a_sessions_prefix_but_populated_survives() {
    let lab = Lab::new();
    cgmgr(&["apply", &example("minimal")]).expect(0);
    let foreign = format!("{}/cgmgr-foreign", workloads());
    fs::create_dir(&foreign).expect("a group");
    let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("sleep");
    write(&format!("{foreign}/cgroup.procs"), &sleeper.id().to_string());
    let applied = cgmgr(&["apply", &example("minimal")]);
    let survives = sleeper.try_wait().expect("a look").is_none();
    sleeper.kill().expect("SIGKILL");
    sleeper.wait().expect("a child");
    crate::cgmgr::until("it is gone", || {
        fs::remove_dir(&foreign).is_ok() || !fs::exists(&foreign).expect("a look")
    });
    applied.expect(0);
    assert!(survives, "apply killed a process of somebody else");
    drop(lab);
}

#[test]
fn a_slice_that_is_in_use_and_not_ours_is_refused() {
    let lab = Lab::new();
    fs::create_dir(agent()).expect("a group");
    let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("sleep");
    write(&format!("{}/cgroup.procs", agent()), &sleeper.id().to_string());
    let done = cgmgr(&["apply", &example("rust")]);
    let made = fs::exists(workloads()).expect("a look");
    let survives = sleeper.try_wait().expect("a look").is_none();
    sleeper.kill().expect("SIGKILL");
    sleeper.wait().expect("a child");
    crate::cgmgr::until("it is gone", || fs::remove_dir(agent()).is_ok());
    done.expect(1).says("agent.slice").says("help: ");
    assert!(survives && !made, "refused, yet changed");
    drop(lab);
}

#[test]
fn debris_of_a_killed_cgmgr_is_swept() {
    let lab = Lab::new();
    cgmgr(&["apply", &example("minimal")]).expect(0);
    let mut live = Live::hold("debris", &[], 0);
    live.cgmgr.kill().expect("SIGKILL");
    let group = live.group();
    drop(live);
    let empty = || read(&format!("{group}/cgroup.events")).contains("populated 0");
    crate::cgmgr::until("the session is empty", empty);
    let plan = cgmgr(&["plan", &example("minimal"), "--json"]).expect(0);
    assert!(
        steps(&plan)
            .iter()
            .any(|s| s["step"] == "rmdir" && s["path"] == group.as_str()),
        "{plan:#?}"
    );
    cgmgr(&["apply", &example("minimal")]).expect(0);
    assert!(!fs::exists(&group).expect("a look"));
    drop(lab);
}

#[test]
fn live_sessions_of_the_role_follow_it_and_others_do_not() {
    let lab = Lab::new();
    let role = lab.file(
        "r.role.toml",
        "[runtime.limits]\nmemory_high = \"200 MiB\"\nmemory_max = \"300 MiB\"\npids = 100\n",
    );
    let other = lab.file(
        "o.role.toml",
        "[runtime.limits]\nmemory_max = \"300 MiB\"\npids = 100\n",
    );
    let one = Live::hold("one", &["--role", &role], 0);
    let two = Live::hold("two", &["--role", &role, "--pids", "55"], 0);
    let not = Live::hold("not", &["--role", &other], 0);
    let value = |live: &Live, file: &str| read(&format!("{}/{file}", live.group()));
    let order = |done: &crate::cgmgr::Done| -> Vec<String> {
        let path = |s: &serde_json::Value| s["path"].as_str().expect("a path").to_owned();
        steps(done)
            .iter()
            .map(path)
            .filter(|p| p.contains("/cgmgr-one/memory."))
            .map(|p| p.rsplit_once('/').expect("a file").1.to_owned())
            .collect()
    };
    cgmgr(&["apply", &role]).expect(0);

    fs::write(
        &role,
        "[runtime.limits]\nmemory_high = \"400 MiB\"\nmemory_max = \"500 MiB\"\npids = 120\n",
    )
    .expect("a role");
    let raised = cgmgr(&["apply", &role, "--json"]).expect(0);
    assert_eq!(
        order(&raised),
        ["memory.max", "memory.high"],
        "raising: max first"
    );
    assert_eq!(value(&one, "memory.max"), (500 << 20).to_string());
    assert_eq!(value(&one, "memory.high"), (400 << 20).to_string());
    assert_eq!(
        (value(&one, "pids.max"), value(&two, "pids.max")),
        ("120".into(), "55".into()),
        "a flag's value stays"
    );
    assert_eq!(value(&two, "memory.max"), (500 << 20).to_string());
    assert_eq!(
        (value(&not, "memory.max"), value(&not, "pids.max")),
        ((300 << 20).to_string(), "100".into())
    );

    fs::write(
        &role,
        "[runtime.limits]\nmemory_high = \"100 MiB\"\nmemory_max = \"150 MiB\"\n",
    )
    .expect("a role");
    let lowered = cgmgr(&["apply", &role, "--json"]).expect(0);
    assert_eq!(
        order(&lowered),
        ["memory.high", "memory.max"],
        "lowering: high first"
    );
    assert_eq!(value(&one, "memory.max"), (150 << 20).to_string());
    assert_eq!(
        (value(&one, "pids.max"), value(&two, "pids.max")),
        ("max".into(), "55".into()),
        "what is no longer said is no longer limited"
    );
    assert_eq!(steps(&cgmgr(&["plan", &role, "--json"]).expect(0)), [""; 0]);
    for live in [one, two, not] {
        live.end().expect(0);
    }
}

#[test]
fn a_maximum_below_what_is_in_use_needs_force() {
    let lab = Lab::new();
    let role = lab.file("r.role.toml", "[runtime.limits]\nmemory_max = \"300 MiB\"\n");
    let file = lab.path("report");
    let live = Live::hold("big", &["--role", &role, "--report", &file], 150);
    cgmgr(&["apply", &role]).expect(0);
    fs::write(&role, "[runtime.limits]\nmemory_max = \"100 MiB\"\n").expect("a role");
    let refused = cgmgr(&["apply", &role]).expect(1);
    refused.says("memory_max").says("big").says("--force");
    assert_eq!(
        read(&format!("{}/memory.max", live.group())),
        (300 << 20).to_string(),
        "refused, yet changed"
    );
    assert_eq!(cgmgr(&["plan", &role]).status, 1);
    cgmgr(&["apply", "--force", &role]).expect(0);
    let done = live.wait().expect(137);
    done.says("OOM-killed");
    assert_eq!(report(&file)["oom"]["level"], "session");
}

#[test]
fn oom_group_on_a_slice_is_no_knob() {
    let lab = Lab::new();
    for table in ["workloads", "agent"] {
        let role = lab.file("s.role.toml", &format!("[{table}.oom]\ngroup = true\n"));
        cgmgr(&["check", &role]).expect(2);
    }
}

#[test]
fn apply_of_a_bad_role_changes_nothing() {
    let lab = Lab::new();
    let before = children(MOUNT);
    let role = lab.file(
        "bad.role.toml",
        "[workloads]\nmemory_max = \"1 GiB\"\npids = -1\n",
    );
    cgmgr(&["apply", &role]).expect(2).says("bad.role.toml:3:");
    assert_eq!(children(MOUNT), before);
}
