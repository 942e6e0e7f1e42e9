//! Every knob reads back from the kernel as `explain` said, for every example.

use serde_json::json;

use crate::cgmgr::{Live, cgmgr, report, run_payload};
use crate::lab::{Lab, examples, read};
use crate::readback::{compare, entry, knob, knobs, of_session};

#[test]
fn every_sessions_knob_of_every_example_reads_back_as_explained() {
    let lab = Lab::new();
    for role in examples() {
        let role = role.display().to_string();
        let announced = knobs(&role);
        let file = lab.path("report");
        let mut live = Live::start("probe", &["--role", &role, "--report", &file], &["hold"]);
        let pid = live.hear("ready ");
        let files = announced
            .iter()
            .filter(|k| of_session(k) && k["file"].is_string());
        let expected = files.clone().count();
        assert!(expected >= 8, "{role}: explain names {expected} files");
        assert_eq!(compare(&live.group(), files, &role), expected);
        if let Some(nofile) = knob(&announced, "nofile")["value"].as_str() {
            let limits = read(&format!("/proc/{pid}/limits"));
            let line = limits
                .lines()
                .find_map(|l| l.strip_prefix("Max open files"))
                .expect("a line");
            let words: Vec<&str> = line.split_whitespace().take(2).collect();
            assert_eq!(words, [nofile, nofile], "{role}");
        }
        let stat = read(&format!("/proc/{pid}/stat"));
        let nice = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(16))
            .expect("a nice value");
        // One with a sign is relative to the caller's, which is 0; without one it is derived, 5 above.
        let announced_nice = knob(&announced, "nice");
        let value = announced_nice["value"]
            .as_str()
            .map(|v| v.trim_start_matches('+'));
        assert!(value.is_some() || announced_nice["origin"] == "derived", "{role}");
        assert_eq!(value.unwrap_or("5"), nice, "{role}");
        // Without one of its own a role's is derived from the caller's at launch, and explain says so.
        let score = read(&format!("/proc/{pid}/oom_score_adj"));
        let announced_score = knob(&announced, "oom_score_adj");
        match announced_score["value"].as_str() {
            Some(value) => assert_eq!(value, score, "{role}"),
            None => assert_eq!(
                (&announced_score["origin"], score.as_str()),
                (&json!("derived"), "998"),
                "{role}"
            ),
        }
        live.end().expect(0);
        let told = report(&file);
        for knob in announced
            .iter()
            .filter(|k| of_session(k) && k["value"].is_string() && k["origin"] == "role")
        {
            let name = knob["knob"].as_str().expect("a name");
            assert!(
                entry(&told["receipt"], name).is_some(),
                "{role}: no receipt for {name}: {told:#}"
            );
        }
    }
}

#[test]
fn odd_sizes_are_rounded_to_pages_and_the_receipt_says_so() {
    let lab = Lab::new();
    let file = lab.path("report");
    let options = [
        "--memory-max",
        "100000001",
        "--memory-high",
        "90000001",
        "--report",
        &file,
    ];
    let done = run_payload(&options, &["facts"]).expect(0);
    assert_eq!(
        done.json()["files"]["memory.max"],
        (100_000_001 / 4096 * 4096).to_string()
    );
    let told = report(&file);
    for name in ["memory_max", "memory_high"] {
        let entry = entry(&told["receipt"], name).expect("an entry");
        assert_eq!(entry["state"], "rounded", "{told:#}");
    }
}

#[test]
fn a_flag_comes_before_the_role_and_explain_shows_it() {
    let lab = Lab::new();
    let role = lab.file(
        "f.role.toml",
        "[runtime.limits]\nmemory_max = \"300 MiB\"\npids = 70\n",
    );
    let done = cgmgr(&["explain", &role, "--json", "--memory-max", "200MiB"]).expect(0);
    let list = done.json();
    let list = list.as_array().expect("an array");
    assert_eq!(knob(list, "memory_max")["value"], (200 << 20).to_string());
    assert_eq!(knob(list, "memory_max")["origin"], "flag");
    assert_eq!(knob(list, "pids")["origin"], "role");
    let live = Live::hold("flag", &["--role", &role, "--memory-max", "200MiB"], 0);
    let compared = compare(&live.group(), list.iter().filter(|k| of_session(k)), "flag");
    assert!(compared > 0, "nothing was compared");
    live.end().expect(0);
}

#[test]
fn fractions_of_a_cpu_are_exact() {
    let _lab = Lab::new();
    for (cpus, text) in [
        ("1.2345", "123450 100000"),
        ("0.01", "1000 100000"),
        ("250%", "250000 100000"),
        ("max", "max 100000"),
    ] {
        let done = run_payload(&["--cpus", cpus], &["facts"]).expect(0);
        assert_eq!(done.json()["files"]["cpu.max"], text, "{cpus}");
    }
}

#[test]
fn what_can_be_held_satisfies_require_limits() {
    let lab = Lab::new();
    let role = lab.file(
        "whole.role.toml",
        "[runtime.limits]\nmemory_max = \"100 MiB\"\ncpus = 1\npids = 50\nnofile = 512\nnice = 3\noom_score_adj = 500\n",
    );
    run_payload(&["--role", &role, "--require-limits"], &["facts"]).expect(0);
}

#[test]
fn what_this_kernel_lacks_is_in_the_receipt_and_fails_require_limits() {
    let lab = Lab::new();
    let file = lab.path("report");
    let marker = lab.path("marker");
    // The guests' kernels have no iocost on any device: io.weight is there all the same, or is not; nothing in between.
    let done = run_payload(
        &[
            "--backend",
            "process",
            "--memory-max",
            "100MiB",
            "--report",
            &file,
        ],
        &["facts"],
    )
    .expect(0);
    done.says("cgmgr: warning: ").says("memory_max");
    let told = report(&file);
    assert_eq!(told["backend"], "process");
    assert_eq!(
        entry(&told["receipt"], "memory_max").expect("an entry")["state"],
        "not_enforced",
        "{told:#}"
    );
    let words = [
        "run",
        "--backend",
        "process",
        "--memory-max",
        "100MiB",
        "--require-limits",
        "--report",
        &file,
        "--",
        "touch",
        &marker,
    ];
    cgmgr(&words).expect(3).says("memory_max");
    assert!(!std::fs::exists(&marker).expect("a look"), "the command ran");
    let told = report(&file);
    assert_eq!(
        (&told["started_command"], &told["status"]),
        (&json!(false), &json!(3))
    );
}

/// The largest amount that can be written is what the kernel calls `max`.
#[test]
fn the_last_page_that_the_kernel_can_count_to_is_held_as_max() {
    let lab = Lab::new();
    let file = lab.path("report");
    let done = run_payload(
        &["--memory-max", "9223372036854771712", "--report", &file],
        &["facts"],
    )
    .expect(0);
    assert_eq!(done.json()["files"]["memory.max"], "max");
    let told = report(&file);
    let entry = entry(&told["receipt"], "memory_max").expect("an entry");
    assert_eq!(
        (&entry["state"], &entry["detail"]),
        (&json!("rounded"), &json!("max")),
        "{told:#}"
    );
}
