//! `protect` where systemd places processes: units say where their main process is, and users have a systemd of their own.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::user_sessions::{REPORT, command, his, role};
use crate::cgmgr::{Done, finish, payload, report, until};
use crate::lab::{Lab, MOUNT, must};
use crate::people::{UserManager, coder, coders};

/// `WORDS` as a service of its own.
fn service(options: &[&str], words: &[&str]) -> Done {
    let mut run = Command::new("systemd-run");
    run.args(["--quiet", "--wait", "--pipe", "--collect"]);
    run.args(options).arg(must("CGMGR_BIN")).args(words);
    finish(&mut run)
}

#[test]
fn the_main_process_of_a_service_is_where_its_unit_says() {
    let _lab = Lab::new();
    let done = service(&["--unit", "cgmgr-test-one"], &["protect", "--", "true"]).expect(125);
    done.says("this process belongs to cgmgr-test-one.service");
    done.says("cgmgr install --protect cgmgr-test-one.service");
    // There it is already: what is left is its score.
    let done = service(
        &["--slice", "agent.slice"],
        &["protect", "--", &payload(), "facts"],
    )
    .expect(0);
    let facts = done.json();
    assert!(
        facts["cgroup"]
            .as_str()
            .is_some_and(|g| g.starts_with("/agent.slice/run-")),
        "{facts:#}"
    );
    assert_eq!(facts["oom_score_adj"], -900);
}

#[test]
fn a_user_with_a_delegated_service_has_agent_and_sessions_in_it() {
    let _lab = Lab::new();
    coder();
    let role = role(
        "[runtime.limits]\nmemory_max = \"64 MiB\"\n[agent]\nmemory_min = \"8 MiB\"\ncpu_weight = 500\n",
    );
    let script = format!(
        "cat /proc/self/cgroup; exec {} run --name kid --role {role} -- {} facts",
        must("CGMGR_BIN"),
        payload()
    );
    let options = [
        "--unit",
        "cgmgr-test-coder",
        "--uid=coder",
        "--property=Delegate=yes",
        "--property=MemoryMin=8M",
        "--property=OOMScoreAdjust=-500",
    ];
    let done = service(&options, &["protect", "--role", &role, "--", "sh", "-c", &script]).expect(0);
    let (agent, facts) = done.out.split_once('\n').expect("two lines");
    assert_eq!(
        agent, "0::/system.slice/cgmgr-test-coder.service/agent.slice",
        "{done:#?}"
    );
    let facts: Value = serde_json::from_str(facts).expect("JSON");
    assert_eq!(
        facts["cgroup"],
        "/system.slice/cgmgr-test-coder.service/workloads.slice/cgmgr-kid"
    );
    assert_eq!(facts["oom_score_adj"], 0);
    // The unit gave it a lower score than anybody but root may; -900 it may not have, and the memory of the slices above
    // is nobody's.
    done.says("failed to adjust oom score to -900");
    done.says("at most 0 B are protected from what is outside of /system.slice: its memory.min is 0 B");
}

/// The slice of agents in the tree of coder's own systemd.
fn slice() -> String {
    format!("{MOUNT}{}/agent.slice", UserManager::GROUP)
}

#[test]
fn a_user_protects_an_agent_by_his_own_systemd_as_far_as_that_goes() {
    let _his = UserManager::start();
    let role = role(
        "[runtime.limits]\nmemory_max = \"64 MiB\"\n[agent]\nmemory_min = \"8 MiB\"\ncpu_weight = 500\nnice = -5\n",
    );
    let script = format!(
        "cat /proc/self/cgroup {}/cpu.weight; exec {} run --name kid --role {role} -- {} facts",
        slice(),
        must("CGMGR_BIN"),
        payload()
    );
    for inside in [false, true] {
        let words = [
            "protect", "--role", &role, "--report", REPORT, "--", "sh", "-c", &script,
        ];
        let done = finish(&mut command(&words, inside)).expect(0);
        let lines: Vec<&str> = done.out.splitn(3, '\n').collect();
        let begin = format!("0::{}/agent.slice/cgmgr-agent-sh-", UserManager::GROUP);
        assert!(
            lines[0].starts_with(&begin) && lines[0].ends_with(".scope"),
            "{done:#?}"
        );
        assert_eq!(lines[1], "500", "{done:#?}");
        let facts: Value = serde_json::from_str(lines[2]).expect("JSON");
        let group = facts["cgroup"].as_str().expect("a group");
        let workloads = format!("{}/workloads.slice/cgmgr-kid-", UserManager::GROUP);
        assert!(group.starts_with(&workloads), "{group}");
        assert_eq!(facts["nice"], 5, "his agent kept its own, which is 0");
        let told = report(REPORT);
        let state = |knob: &str| {
            let entries = told["receipt"].as_array().expect("a receipt");
            let entry = entries.iter().find(|e| e["knob"] == knob).expect("declared");
            entry["state"].clone()
        };
        assert_eq!(state("agent.memory_min"), json!("enforced"), "{told:#}");
        assert_eq!(state("agent.cpu_weight"), json!("enforced"), "{told:#}");
        assert_eq!(state("agent.nice"), json!("not_enforced"), "{told:#}");
        done.says("failed to adjust niceness to -5");
        done.says("failed to adjust oom score to -900");
        // Nobody above gives him any.
        done.says("at most 0 B are protected from what is outside of /user.slice");
    }
    // What his own systemd started is where its unit says.
    let cgmgr = must("CGMGR_BIN");
    let service = [
        "systemd-run",
        "--user",
        "--quiet",
        "--wait",
        "--pipe",
        "--unit=his",
        "--collect",
    ];
    let words = [&service[..], &[cgmgr.as_str(), "protect", "--", "true"]].concat();
    let done = finish(&mut coders(words)).expect(125);
    done.says("belongs to his.service")
        .says("systemctl --user edit his.service");
    until("his agents have gone", || {
        crate::lab::children(&slice()).is_empty()
    });
    his(&["down"]).expect(0);
    until("his slice is gone", || !fs::exists(slice()).unwrap_or(true));
}
