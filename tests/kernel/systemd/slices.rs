//! A stock systemd machine: sessions in the delegated scope, slices that are systemd's.

use std::fs;
use std::process::Command;

use crate::cgmgr::{Live, cgmgr, finish, run_payload, until};
use crate::lab::{Lab, MOUNT, children, example, examples, read, session_groups, sessions, workloads};
use crate::readback::{compare_slices, knobs, of_session, steps};

fn systemctl(words: &[&str]) -> crate::cgmgr::Done {
    finish(Command::new("systemctl").args(words))
}

#[test]
fn the_units_are_in_place_and_a_second_install_changes_nothing() {
    let _lab = Lab::new();
    let done = cgmgr(&["install", "--minimal", "--json"]).expect(0);
    assert_eq!(
        done.json()["changed"].as_array().map(Vec::len),
        Some(0),
        "{done:#?}"
    );
    assert_eq!(systemctl(&["is-active", "cgmgr-sessions.scope"]).out, "active\n");
    let unit = sessions();
    let mut value = [0_u8; 16];
    let length = rustix::fs::getxattr(&unit, "user.delegate", &mut value).expect("an attribute");
    assert_eq!(&value[..length], b"1");
    let enabled = read(&format!("{unit}/cgroup.subtree_control"));
    for controller in ["cpu", "memory", "pids"] {
        assert!(
            enabled.split(' ').any(|c| c == controller),
            "{controller} in {enabled}"
        );
    }
    assert_eq!(
        read(&format!("{unit}/cgroup.procs")),
        "",
        "no process in an inner group"
    );
    assert_eq!(read(&format!("{unit}/cgroup.type")), "domain");
}

#[test]
fn a_session_survives_reload_and_reexec_and_its_limits_too() {
    let _lab = Lab::new();
    let options = [
        "--memory-max",
        "123MiB",
        "--memory-high",
        "100MiB",
        "--pids",
        "77",
        "--cpus",
        "1.2345",
        "--oom-group",
    ];
    let live = Live::hold("steady", &options, 0);
    let files = [
        "memory.max",
        "memory.high",
        "memory.swap.max",
        "memory.oom.group",
        "pids.max",
        "cpu.max",
        "cpu.weight",
    ];
    let look = || files.map(|f| read(&format!("{}/{f}", live.group())));
    let before = look();
    assert_eq!(before[0], (123 << 20).to_string());
    assert_eq!(
        before[5], "123450 100000",
        "not rounded by systemd: the group is cgmgr's"
    );
    for words in [
        ["daemon-reload"].as_slice(),
        &["daemon-reexec"],
        &["restart", "dbus.service"],
        // It does not come back to a bus that was restarted, and without it no user's manager starts.
        &["restart", "systemd-logind.service"],
    ] {
        systemctl(words);
        until("systemd answers", || {
            systemctl(&["is-active", "cgmgr-sessions.scope"]).out == "active\n"
        });
        assert_eq!(look(), before, "{words:?}");
    }
    live.end().expect(0);
}

#[test]
fn apply_sets_the_slices_through_systemd_and_down_takes_it_back() {
    for role in examples() {
        let lab = Lab::new();
        let role = role.display().to_string();
        let before: Vec<String> = ["memory.max", "pids.max"]
            .iter()
            .map(|f| read(&format!("{}/{f}", workloads())))
            .collect();
        cgmgr(&["apply", &role]).expect(0);
        compare_slices(&role);
        assert_eq!(
            steps(&cgmgr(&["plan", &role, "--json"]).expect(0)),
            [""; 0],
            "{role}"
        );
        cgmgr(&["down"]).expect(0);
        let after: Vec<String> = ["memory.max", "pids.max"]
            .iter()
            .map(|f| read(&format!("{}/{f}", workloads())))
            .collect();
        assert_eq!(after, before, "{role}");
        for slice in ["agent", "workloads"] {
            assert!(
                !fs::exists(format!("/run/systemd/system/{slice}.slice.d/50-cgmgr.conf")).expect("a look")
            );
        }
        drop(lab);
    }
}

#[test]
fn the_slices_values_survive_a_reload() {
    let lab = Lab::new();
    let role = lab.file(
        "w.role.toml",
        "[workloads]\nmemory_max = \"1000 MiB\"\npids = 3000\ncpus = \"1.2345\"\n",
    );
    let done = cgmgr(&["apply", &role, "--json"]).expect(0);
    let look = || ["memory.max", "pids.max", "cpu.max"].map(|f| read(&format!("{}/{f}", workloads())));
    let before = look();
    assert_eq!(before[0], (1000 << 20).to_string());
    assert_eq!(before[1], "3000");
    // Below 257 systemd rounds up to a whole percent; the receipt then says so.
    let receipt = done.json()["receipt"].clone();
    let entry = crate::readback::entry(&receipt, "workloads.cpus")
        .expect("an entry")
        .clone();
    match before[2].as_str() {
        "123450 100000" => assert_eq!(entry["state"], "enforced"),
        "124000 100000" | "123000 100000" => assert_eq!(entry["state"], "rounded", "{entry}"),
        other => panic!("cpu.max is {other}"),
    }
    systemctl(&["daemon-reload"]);
    assert_eq!(look(), before);
    assert_eq!(steps(&cgmgr(&["plan", &role, "--json"]).expect(0)), [""; 0]);
}

#[test]
fn a_foreign_scope_beside_the_unit_is_left_alone() {
    let lab = Lab::new();
    let mut scope = Command::new("systemd-run");
    scope.args([
        "--quiet",
        "--scope",
        "--slice=workloads.slice",
        "--unit=somebody",
        "sleep",
        "1000",
    ]);
    let mut child = scope.spawn().expect("systemd-run");
    let group = format!("{}/somebody.scope", workloads());
    until("the scope runs", || fs::exists(&group).expect("a look"));
    run_payload(&[], &["facts"]).expect(0);
    cgmgr(&["down", "--kill"]);
    let survives = child.try_wait().expect("a look").is_none();
    systemctl(&["stop", "somebody.scope"]);
    child.wait().expect("a child");
    assert!(survives, "down killed somebody else's scope");
    drop(lab);
}

#[test]
fn uninstall_takes_away_what_install_made() {
    let lab = Lab::new();
    let live = Live::hold("last", &[], 0);
    let refused = cgmgr(&["uninstall"]);
    assert_ne!(refused.status, 0, "{refused:#?}");
    refused.says("last");
    live.end().expect(0);
    cgmgr(&["uninstall"]).expect(0);
    assert!(!fs::exists(sessions()).expect("a look"));
    let units = systemctl(&["list-unit-files", "--no-legend", "cgmgr-sessions*"]);
    assert_eq!(units.out, "");
    // systemd makes the group of each session then.
    let options = ["--memory-max", "99MiB", "--require-limits"];
    let without = run_payload(&options, &["facts"]).expect(0).json();
    let group = without["cgroup"].as_str().expect("a group");
    assert!(group.ends_with(".scope/main"), "{without:#}");
    cgmgr(&["down"]).expect(0);
    cgmgr(&["install", "--minimal"]).expect(0);
    assert_eq!(session_groups(), [""; 0]);
    let placed = run_payload(&["--memory-max", "99MiB"], &["facts"])
        .expect(0)
        .json();
    assert_eq!(placed["files"]["memory.max"], (99 << 20).to_string());
    drop(lab);
}

#[test]
fn install_into_an_image_writes_files_only() {
    let lab = Lab::new();
    let image = lab.path("image");
    fs::create_dir_all(format!("{image}/etc")).expect("a folder");
    cgmgr(&["install", "--minimal", "--root", &image]).expect(0);
    let found = finish(Command::new("find").args([&image, "-name", "cgmgr-sessions.service", "-type", "f"]));
    assert_eq!(found.out.lines().count(), 1, "{found:#?}");
}

#[test]
fn groups_that_are_systemds_are_as_they_were() {
    let _lab = Lab::new();
    let before = children(MOUNT);
    run_payload(&["--role", &example("rust")], &["facts"]).expect(0);
    cgmgr(&["apply", &example("rust")]).expect(0);
    cgmgr(&["down"]).expect(0);
    let others = |names: Vec<String>| {
        names
            .into_iter()
            .filter(|n| !n.ends_with(".mount"))
            .collect::<Vec<_>>()
    };
    assert_eq!(others(children(MOUNT)), others(before));
    let announced = knobs(&example("rust"));
    assert!(announced.iter().any(of_session));
    assert_eq!(systemctl(&["is-failed", "cgmgr-sessions.scope"]).out, "active\n");
}
