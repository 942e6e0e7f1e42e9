//! `cgmgr limits`: what a session may use, asked from inside.

use serde_json::Value;

use crate::cgmgr::{Done, cgmgr, command, finish};
use crate::lab::{Lab, must, path_of, sessions, workloads};
use crate::people::coder;

const MIB: u64 = 1 << 20;

/// `cgmgr limits WORDS` in a session of these options.
fn inside(options: &[&str], words: &[&str]) -> Done {
    let bin = must("CGMGR_BIN");
    let all = [&["run"], options, &["--", &bin, "limits"], words].concat();
    finish(&mut command(all)).expect(0)
}

/// A ceiling over all sessions that is lower than the sessions' own limit, and some that are not.
fn ceiling(lab: &Lab) {
    let role = lab.file(
        "ceiling.role.toml",
        "[runtime.limits]\nmemory_max = \"300 MiB\"\n[workloads]\nmemory_max = \"300 MiB\"\npids = 500\n",
    );
    cgmgr(&["apply", &role]).expect(0);
}

/// A group as it is named in the hierarchy.
fn group(path: &str) -> String {
    path.replace(crate::lab::MOUNT, "")
}

/// M8: the smallest limit from the session up to the root, not the first; M9 for the CPU; M7 for what is used.
#[track_caller]
fn told_truly(told: &Value) {
    let (above, own) = (group(&workloads()), group(&path_of("in")));
    assert_eq!(
        (&told["in_session"], &told["session"]),
        (&true.into(), &"in".into()),
        "{told:#}"
    );
    assert_eq!(told["group"], own.as_str());
    let memory = &told["memory"];
    assert_eq!(
        (&memory["max"]["value"], &memory["max"]["from"]),
        (&(300 * MIB).into(), &above.clone().into())
    );
    assert_eq!(memory["high"]["value"], 350 * MIB);
    assert_eq!(
        (&memory["swap_max"]["value"], &memory["swap_max"]["from"]),
        (&0.into(), &own.clone().into())
    );
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {told:#}"));
    assert!(
        number(&memory["working_set"]) <= number(&memory["current"]),
        "{told:#}"
    );
    let left = number(&memory["headroom"]["value"]);
    assert!(0 < left && left < 300 * MIB, "{told:#}");
    assert_eq!(
        (&told["cpu"]["cpus"]["value"], &told["cpu"]["cpus"]["from"]),
        (&0.5.into(), &own.clone().into())
    );
    assert_eq!(
        (&told["pids"]["max"]["value"], &told["pids"]["max"]["from"]),
        (&64.into(), &own.into())
    );
    assert_eq!(told["pids"]["current"], 1);
    assert_eq!(memory["oom_kills"], 0);
    for what in ["memory", "cpu", "io"] {
        assert!(told["pressure"][what]["some_avg10"].is_number(), "{told:#}");
    }
    assert_eq!(
        (&told["suggested_jobs"], &told["jobs"]["memory_per_job"]),
        (&1.into(), &(1024 * MIB).into())
    );
    assert_eq!(told["unreadable"].as_array().map(Vec::len), Some(0), "{told:#}");
}

const OPTIONS: [&str; 10] = [
    "--name",
    "in",
    "--memory-max",
    "400MiB",
    "--memory-high",
    "350MiB",
    "--pids",
    "64",
    "--cpus",
    "0.5",
];

#[test]
fn inside_the_smallest_limit_above_is_told() {
    let lab = Lab::new();
    ceiling(&lab);
    told_truly(&inside(&OPTIONS, &["--json"]).json());
    let text = inside(&OPTIONS, &[]).out;
    for word in [
        "session in, ",
        "at most 300.0 MiB (/workloads.slice)",
        "at most 0.5 CPUs",
        "jobs in parallel: 1 (",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_user_without_rights_is_told_the_same() {
    let lab = Lab::new();
    coder();
    ceiling(&lab);
    let options = [&OPTIONS[..], &["--user", "coder"]].concat();
    told_truly(&inside(&options, &["--json"]).json());
}

#[test]
fn as_many_jobs_as_fit() {
    let _lab = Lab::new();
    let jobs = |options: &[&str], words: &[&str]| -> u64 {
        let out = inside(options, &[&["--jobs"], words].concat()).out;
        out.trim_end()
            .parse()
            .unwrap_or_else(|_| panic!("not a number: {out:?}"))
    };
    let cpus = std::thread::available_parallelism().expect("CPUs").get() as u64;
    // By CPU: as many as there are, and as the quota has, what is begun counted whole.
    let small = ["--memory-per-job", "1MiB"];
    assert_eq!(jobs(&["--memory-max", "500MiB"], &small), cpus);
    assert_eq!(jobs(&["--memory-max", "500MiB", "--cpus", "0.3"], &small), 1);
    // By memory, and never none.
    assert_eq!(
        jobs(&["--memory-max", "500MiB"], &["--memory-per-job", "300MiB"]),
        1
    );
    assert_eq!(jobs(&["--memory-max", "100MiB"], &[]), 1);
}

#[test]
fn outside_of_a_session_it_says_so() {
    let _lab = Lab::new();
    let told = cgmgr(&["limits", "--json"]).expect(0).json();
    assert_eq!(
        (&told["in_session"], &told["session"]),
        (&false.into(), &Value::Null),
        "{told:#}"
    );
    assert_eq!(told["memory"]["max"]["from"], "the machine");
    assert!(told["suggested_jobs"].as_u64() >= Some(1), "{told:#}");
    let text = cgmgr(&["limits"]).expect(0).out;
    assert!(text.starts_with("not in a session of cgmgr's"), "{text}");
    cgmgr(&["limits", "--memory-per-job", "0"]).expect(2);
    cgmgr(&["limits", "--memory-per-job", "50%"])
        .expect(2)
        .says("512MiB");
}

/// A group that the session made below its own has limits of its own.
#[test]
fn in_a_group_below_the_sessions_it_is_still_the_session() {
    let _lab = Lab::new();
    let bin = must("CGMGR_BIN");
    let own = path_of("nest");
    let script =
        format!("mkdir {own}/inner && echo $$ >{own}/inner/cgroup.procs && exec {bin} limits --json");
    let all = [
        "run",
        "--name",
        "nest",
        "--memory-max",
        "200MiB",
        "--pids",
        "64",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let told = cgmgr(&all).expect(0).json();
    assert_eq!(
        (&told["in_session"], &told["session"]),
        (&true.into(), &"nest".into()),
        "{told:#}"
    );
    assert_eq!(told["group"], group(&format!("{own}/inner")).as_str());
    assert_eq!(told["memory"]["max"]["value"], 200 * MIB, "{told:#}");
    // Where the group itself has no such file, what it uses is not known: absent is not zero.
    assert_eq!(told["memory"]["current"], Value::Null, "{told:#}");
    assert!(sessions().contains("workloads.slice"));
}
