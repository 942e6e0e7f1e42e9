//! nice, oom_score_adj, open files, user, descriptors and environment of the command, before its first instruction. C, D and
//! L are the rows of `coder.rs`.

use std::fs;
use std::os::unix::process::CommandExt;

use serde_json::{Value, json};

use crate::cgmgr::{Live, finish, payload, report, run_command, run_payload};
use crate::lab::{Lab, read};

fn facts(options: &[&str], environment: &[(&str, &str)]) -> (Value, String) {
    let mut command = run_command(options, &["facts"]);
    command.envs(environment.iter().copied());
    let done = finish(&mut command).expect(0);
    (done.json(), done.err)
}

/// A caller with this oom_score_adj and nice value.
fn facts_as(score: i32, nice: i32, options: &[&str], environment: &[(&str, &str)]) -> (Value, String) {
    let mut command = run_command(options, &["facts"]);
    command.envs(environment.iter().copied());
    let text = score.to_string();
    // SAFETY: opening, writing and setpriority(2) in the child, which has one thread.
    unsafe {
        command.pre_exec(move || {
            fs::write("/proc/self/oom_score_adj", &text)?;
            match libc::setpriority(libc::PRIO_PROCESS, 0, nice) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let done = finish(&mut command).expect(0);
    (done.json(), done.err)
}

/// C9, L6.
#[test]
fn the_score_is_derived_from_the_callers() {
    let _lab = Lab::new();
    for (own, expected) in [
        (-900, 0),
        (-1, 0),
        (0, 998),
        (500, 998),
        (997, 998),
        (998, 1000),
        (1000, 1000),
    ] {
        let (facts, _) = facts_as(own, 0, &[], &[]);
        assert_eq!(facts["oom_score_adj"], expected, "the caller's is {own}");
    }
}

/// C10, and not L4.
#[test]
fn the_nice_value_is_derived_from_the_callers() {
    let _lab = Lab::new();
    for (own, expected) in [(0, 5), (-20, -15), (3, 8), (14, 19), (15, 19), (19, 19)] {
        let (facts, _) = facts_as(0, own, &[], &[]);
        assert_eq!(facts["nice"], expected, "the caller's is {own}");
    }
}

#[test]
fn what_is_declared_comes_before_what_is_derived() {
    let lab = Lab::new();
    let role = lab.file(
        "p.role.toml",
        "[runtime.limits]\nnice = \"+3\"\noom_score_adj = 321\nnofile = 2222\n",
    );
    let (facts, _) = facts_as(0, 2, &["--role", &role], &[]);
    assert_eq!(facts["nice"], 5, "relative to the caller's");
    assert_eq!(facts["oom_score_adj"], 321);
    assert_eq!(facts["nofile"], json!([2222, 2222]));
    let flags = [
        "--role",
        &role,
        "--nice=-7",
        "--oom-score-adj",
        "-5",
        "--nofile",
        "333",
    ];
    let (facts, _) = facts_as(0, 2, &flags, &[]);
    assert_eq!(
        (&facts["nice"], &facts["oom_score_adj"], &facts["nofile"]),
        (&json!(-5), &json!(-5), &json!([333, 333])),
        "a nice value with a sign is relative to the caller's 2"
    );
    let (facts, _) = facts_as(0, 2, &["--role", &role, "--nice", "7"], &[]);
    assert_eq!(facts["nice"], 7, "one without is not");
}

/// C1, not L1; D1.
#[test]
fn coders_variables_count_when_the_management_is_on() {
    let _lab = Lab::new();
    let numbers = [("CODER_PROC_OOM_SCORE", "111"), ("CODER_PROC_NICE_SCORE", "7")];
    let (off, _) = facts_as(0, 0, &[], &numbers);
    assert_eq!((&off["oom_score_adj"], &off["nice"]), (&998.into(), &5.into()));
    // Its presence enables it, whatever the value.
    for value in ["1", "0", "", "false"] {
        let mut all = vec![("CODER_PROC_PRIO_MGMT", value)];
        all.extend(numbers);
        let (on, _) = facts_as(0, 0, &[], &all);
        assert_eq!(
            (&on["oom_score_adj"], &on["nice"]),
            (&111.into(), &7.into()),
            "{value:?}"
        );
    }
}

/// C2 to C4, D5, L8: where Coder takes the default and says nothing, it is said.
#[test]
fn a_bad_number_of_coders_is_named_and_the_default_used() {
    let _lab = Lab::new();
    for (name, value) in [
        ("CODER_PROC_OOM_SCORE", "1001"),
        ("CODER_PROC_OOM_SCORE", "12x"),
        ("CODER_PROC_NICE_SCORE", "20"),
        ("CODER_PROC_NICE_SCORE", "1.5"),
    ] {
        let (facts, err) = facts_as(0, 0, &[], &[("CODER_PROC_PRIO_MGMT", "1"), (name, value)]);
        assert_eq!(
            (&facts["oom_score_adj"], &facts["nice"]),
            (&998.into(), &5.into()),
            "{name}={value}"
        );
        assert!(
            err.contains("cgmgr: warning: ") && err.contains(name) && err.contains(value),
            "{err}"
        );
    }
}

/// C17, D4: these names, and none that only begins so.
#[test]
fn exactly_three_variables_are_taken_away_and_one_is_added() {
    let _lab = Lab::new();
    let given = [
        ("CODER_PROC_PRIO_MGMT", "1"),
        ("CODER_PROC_OOM_SCORE", "10"),
        ("CODER_PROC_NICE_SCORE", "10"),
        ("CODER_PROC_OTHER", "kept"),
        ("CODER_AGENT_TOKEN", "kept"),
        ("XCODER_PROC_OOM_SCORE", "kept"),
    ];
    let (facts, _) = facts(&["--name", "envy"], &given);
    let env = facts["env"].as_object().expect("variables");
    for name in [
        "CODER_PROC_PRIO_MGMT",
        "CODER_PROC_OOM_SCORE",
        "CODER_PROC_NICE_SCORE",
    ] {
        assert!(!env.contains_key(name), "{name} reached the session");
    }
    for name in ["CODER_PROC_OTHER", "CODER_AGENT_TOKEN", "XCODER_PROC_OOM_SCORE"] {
        assert_eq!(env[name], "kept");
    }
    assert_eq!(env["CGMGR_SESSION"], "envy");
    // Everything else is the caller's, no more and no less.
    let mut expected: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    expected.extend(
        [
            "CODER_PROC_OTHER",
            "CODER_AGENT_TOKEN",
            "XCODER_PROC_OOM_SCORE",
            "CGMGR_SESSION",
        ]
        .map(str::to_owned),
    );
    expected.retain(|name| {
        ![
            "CGMGR_CGROUP_ROOT",
            "CGMGR_BACKEND",
            "CGMGR_RUNTIME_DIR",
            "CGMGR_LOG",
        ]
        .contains(&name.as_str())
    });
    expected.sort();
    expected.dedup();
    let mut found: Vec<String> = env.keys().cloned().collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn inherited_descriptors_pass_and_cgmgrs_own_do_not() {
    let lab = Lab::new();
    let jobs = lab.file("jobs", "");
    let opened = fs::File::open(&jobs).expect("a file");
    let run = |options: &[&str]| {
        let mut command = run_command(options, &["fds"]);
        let raw = std::os::fd::AsRawFd::as_raw_fd(&opened);
        // SAFETY: dup2(2) in the child; the copy is not close-on-exec, as make's jobserver is.
        unsafe {
            command.pre_exec(move || match libc::dup2(raw, 17) {
                17 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        finish(&mut command).expect(0)
    };
    let mine: Vec<String> = {
        let mut command = std::process::Command::new(payload());
        command.arg("fds").stdin(std::process::Stdio::null());
        let direct = finish(&mut command).expect(0);
        direct
            .out
            .lines()
            .filter_map(|l| Some(l.split(' ').next()?.to_owned()))
            .collect()
    };
    let numbers = |out: &str| -> Vec<String> {
        out.lines()
            .filter_map(|l| Some(l.split(' ').next()?.to_owned()))
            .collect()
    };
    let passed = run(&[]);
    let mut expected = mine.clone();
    expected.push("17".into());
    assert_eq!(numbers(&passed.out), expected, "{passed:#?}");
    assert!(passed.out.contains(&format!("17 {jobs}")), "{passed:#?}");
    assert!(!passed.out.contains("cgroup"), "{passed:#?}");
    let closed = run(&["--close-fds"]);
    assert_eq!(numbers(&closed.out), ["0", "1", "2"], "{closed:#?}");
}

#[test]
fn makes_jobserver_works_through_run() {
    let lab = Lab::new();
    let makefile = lab.file(
        "Makefile",
        "all:\n\t+@cgmgr run --quiet -- $(MAKE) --no-print-directory -f inner.mk all\n",
    );
    let tally = lab.path("done");
    lab.file("inner.mk", &format!("all: a b c\na b c:\n\t@echo $@ >>{tally}\n"));
    let folder = std::path::Path::new(&makefile)
        .parent()
        .expect("a folder")
        .to_owned();
    let mut make = std::process::Command::new("make");
    make.args(["-j2", "-f", "Makefile"])
        .current_dir(folder)
        .stdin(std::process::Stdio::null());
    let done = finish(&mut make).expect(0);
    done.says_nothing_of("jobserver");
    let mut built: Vec<String> = read(&tally).lines().map(str::to_owned).collect();
    built.sort();
    assert_eq!(built, ["a", "b", "c"]);
}

#[test]
fn the_mask_and_dispositions_of_signals_are_the_callers() {
    let _lab = Lab::new();
    let (facts, _) = facts(&[], &[]);
    let mut direct = std::process::Command::new(payload());
    direct.arg("facts").stdin(std::process::Stdio::null());
    let direct = finish(&mut direct).expect(0).json();
    assert_eq!(facts["blocked"], direct["blocked"]);
    assert_eq!(facts["ignored"], direct["ignored"]);
    assert_eq!(
        facts["pgid"],
        rustix::process::getpgrp().as_raw_nonzero().get(),
        "no group of its own"
    );
}

#[test]
fn a_user_gets_his_ids_his_home_and_no_say_over_his_limits() {
    let lab = Lab::new();
    crate::people::coder();
    let file = lab.path("report");
    let (facts, _) = facts(
        &["--user", "coder", "--memory-max", "100MiB", "--report", &file],
        &[],
    );
    assert_eq!(facts["uid"], json!(["1000", "1000", "1000", "1000"]));
    assert_eq!(facts["gid"], json!(["1000", "1000", "1000", "1000"]));
    assert_eq!(facts["groups"], json!(["1000"]), "root's groups are gone");
    for (name, value) in [("HOME", "/home/coder"), ("USER", "coder"), ("LOGNAME", "coder")] {
        assert_eq!(facts["env"][name], value);
    }
    assert_eq!(report(&file)["promise"], "boundary");
    let script = format!(
        "g=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); for f in memory.max memory.high pids.max cgroup.procs; do \
         {0} write $g/$f max; done; {0} write /sys/fs/cgroup/cgroup.procs $$",
        payload()
    );
    let words = [
        "run",
        "--user",
        "coder",
        "--memory-max",
        "100MiB",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let done = crate::cgmgr::cgmgr(&words).expect(0);
    assert_eq!(done.out, "errno 13\n".repeat(5), "{done:#?}");
}

#[test]
fn a_root_command_is_told_to_be_bookkeeping() {
    let lab = Lab::new();
    let file = lab.path("report");
    let script = format!(
        "g=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); {} write $g/memory.max max",
        payload()
    );
    let done = crate::cgmgr::run_shell(&["--memory-max", "100MiB", "--report", &file], &script).expect(0);
    // The promise is no more than what is so: this command did raise its limit.
    assert_eq!(done.out, "done\n");
    assert_eq!(report(&file)["promise"], "bookkeeping");
}

#[test]
fn a_run_inside_a_session_stays_in_it() {
    let lab = Lab::new();
    let file = lab.path("report");
    let words = [
        "run",
        "--name",
        "outer",
        "--memory-max",
        "200MiB",
        "--",
        "cgmgr",
        "run",
        "--name",
        "inner",
        "--memory-max",
        "300MiB",
        "--report",
        &file,
        "--",
        &payload(),
        "facts",
    ];
    let mut command = crate::cgmgr::command(words);
    let bin = crate::lab::must("CGMGR_BIN");
    let folder = std::path::Path::new(&bin)
        .parent()
        .expect("a folder")
        .display()
        .to_string();
    command.env(
        "PATH",
        format!("{folder}:{}", std::env::var("PATH").expect("PATH")),
    );
    let done = finish(&mut command).expect(0);
    done.says("already inside session outer");
    let facts = done.json();
    assert!(
        facts["cgroup"]
            .as_str()
            .expect("a group")
            .ends_with("/cgmgr-outer"),
        "{facts}"
    );
    assert_eq!(facts["files"]["memory.max"], (200 << 20).to_string());
}

#[test]
fn a_storm_of_forks_ends_at_pids() {
    let lab = Lab::new();
    let file = lab.path("report");
    let done = run_payload(&["--pids", "30", "--report", &file], &["storm"]).expect(0);
    let word = done.out.trim().to_owned();
    let count = word
        .strip_prefix("forked ")
        .and_then(|r| r.strip_suffix(" errno 11"));
    let count: u32 = count
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{done:#?}"));
    // The command itself is the thirtieth; a spawn may need a task for a moment.
    assert!((27..=29).contains(&count), "{count}");
    let told = report(&file);
    assert!(
        told["usage"]["pids_refused"].as_u64().is_some_and(|n| n >= 1),
        "{told:#}"
    );
}

#[test]
fn a_hold_is_charged_to_its_own_group() {
    let lab = Lab::new();
    let live = Live::hold("charged", &["--memory-max", "200MiB"], 50);
    let current: u64 = read(&format!("{}/memory.current", live.group()))
        .parse()
        .expect("a number");
    assert!((50 << 20..200 << 20).contains(&current), "{current}");
    live.end().expect(0);
    drop(lab);
}
