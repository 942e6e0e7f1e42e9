//! Several of cgmgr at once, and many one after the other: each ends in success or in a clear error, and nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::fates::say;
use crate::cgmgr::{Done, PATIENCE, cgmgr, report};
use crate::lab::{Lab, full, is_systemd, read, session_groups, sessions, workloads};

/// Runs the same number of things at once, each with its own number.
fn at_once<T: Send>(count: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || run(n))).collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    })
}

/// A failure says what, and what to do about it.
#[track_caller]
pub fn clear(done: &Done) {
    assert!([1, 125].contains(&done.status), "{done:#?}");
    done.says("cgmgr: error: ")
        .says("help: ")
        .says_nothing_of("could not undo");
}

/// Whether `plan` finds nothing to do for a role.
fn holds(role: &str) -> bool {
    let plan = cgmgr(&["plan", role, "--json"]).expect(0).json();
    plan["steps"].as_array().is_some_and(Vec::is_empty)
}

/// What is in the directory of locks and records.
fn runtime_files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for scope in fs::read_dir("/run/cgmgr").into_iter().flatten().flatten() {
        for file in fs::read_dir(scope.path()).into_iter().flatten().flatten() {
            found.insert(file.path().display().to_string());
        }
    }
    found
}

#[test]
fn two_applies_of_one_role_at_once_both_succeed() {
    let lab = Lab::new();
    let role = lab.file(
        "r.role.toml",
        "[agent]\nmemory_low = \"32 MiB\"\n[workloads]\nmemory_max = \"700 MiB\"\npids = 3000\n",
    );
    for round in 0..if full() { 30 } else { 3 } {
        for done in at_once(2, |_| cgmgr(&["apply", &role])) {
            assert_eq!(done.status, 0, "round {round}: {done:#?}");
        }
        assert!(holds(&role), "round {round}: {:#?}", cgmgr(&["plan", &role]));
        cgmgr(&["down"]).expect(0);
    }
}

#[test]
fn two_applies_of_different_roles_at_once_end_as_one_of_them() {
    let lab = Lab::new();
    let role = |name: &str, n: usize| {
        let text = format!(
            "[agent]\ncpu_weight = {n}00\nmemory_low = \"{n}0 MiB\"\n[workloads]\nmemory_max = \"{n}00 MiB\"\n\
             pids = {n}000\ncpus = \"0.{n}\"\n"
        );
        lab.file(&format!("{name}.role.toml"), &text)
    };
    let roles = [role("a", 7), role("b", 8)];
    for round in 0..if full() { 30 } else { 3 } {
        let done = at_once(2, |n| cgmgr(&["apply", &roles[n]]));
        done.iter().filter(|d| d.status != 0).for_each(clear);
        let succeeded: Vec<bool> = done.iter().map(|d| d.status == 0).collect();
        let held: Vec<bool> = roles.iter().map(|r| holds(r)).collect();
        let told = format!("round {round}: {done:#?}\n{:#?}", cgmgr(&["plan", &roles[0]]));
        assert!(succeeded.contains(&true), "{told}");
        assert!(
            (0..2).any(|n| held[n] && succeeded[n]),
            "what is in force is neither: {held:?} {told}"
        );
    }
}

#[test]
fn fifty_launches_at_once_from_nothing() {
    let lab = Lab::new();
    cgmgr(&["down"]).expect(0);
    let before = runtime_files();
    let go = lab.path("go");
    let markers: Vec<String> = (0..50).map(|n| lab.path(&format!("marker-{n}"))).collect();
    let results = std::thread::scope(|scope| {
        // All are alive at once: none ends before each has begun, or has failed to.
        scope.spawn(|| {
            let begun = Instant::now();
            let all = || markers.iter().all(|marker| fs::exists(marker).expect("a look"));
            while !all() && begun.elapsed() < 2 * PATIENCE {
                std::thread::sleep(Duration::from_millis(50));
            }
            fs::write(&go, "").expect("a file");
        });
        at_once(50, |n| {
            let file = lab.path(&format!("report-{n}"));
            let script = format!("touch {}; while ! [ -e {go} ]; do sleep 0.2; done", markers[n]);
            let options = ["run", "--memory-max", "32MiB", "--report", &file];
            let done = cgmgr(&[&options[..], &["--", "sh", "-c", &script]].concat());
            (done, report(&file))
        })
    });
    let mut names = BTreeSet::new();
    for (done, told) in &results {
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{done:#?}");
        assert!(names.insert(told["session"].to_string()), "twice: {told:#}");
    }
    assert_eq!(session_groups(), [""; 0]);
    assert_eq!(runtime_files(), before);
}

#[test]
fn fifty_launches_of_one_name_at_once_are_one_at_a_time() {
    let lab = Lab::new();
    let inside = lab.path("inside");
    // Two at a time would meet: a directory can be made by one only.
    let script = format!("mkdir {inside} || exit 99; echo ran; rmdir {inside}");
    let results = at_once(50, |_| {
        cgmgr(&["run", "--name", "only", "--", "sh", "-c", &script])
    });
    let ran = results.iter().filter(|done| done.status == 0).count();
    for done in &results {
        match done.status {
            0 => assert_eq!(done.out, "ran\n", "{done:#?}"),
            _ => {
                clear(done);
                assert_eq!(done.out, "", "{done:#?}");
                done.says("session name only is in use");
            }
        }
    }
    assert!(ran >= 1);
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn a_thousand_launches_in_a_row_leave_nothing() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let groups = || {
        let stat = read(&format!("{}/cgroup.stat", workloads()));
        stat.lines()
            .find(|l| l.starts_with("nr_descendants "))
            .map(str::to_owned)
    };
    let before = (groups(), runtime_files());
    let count = if full() { 1000 } else { 100 };
    for n in 0..count {
        if n % 200 == 199 {
            say(&format!("{} of {count} launches", n + 1));
        }
        let status = (n % 126).to_string();
        let done = cgmgr(&[
            "run",
            "--memory-max",
            "64MiB",
            "--",
            "sh",
            "-c",
            &format!("exit {status}"),
        ]);
        assert_eq!(
            (done.status.to_string(), done.err.as_str()),
            (status, ""),
            "launch {n}: {done:#?}"
        );
    }
    assert_eq!(session_groups(), [""; 0]);
    assert_eq!((groups(), runtime_files()), before);
    drop(lab);
}

#[test]
fn down_during_launches() {
    let lab = Lab::new();
    let (over, launched, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let ended = AtomicUsize::new(0);
    let rounds = if full() { 200 } else { 20 };
    let (lab_ref, over_ref) = (&lab, &over);
    std::thread::scope(|scope| {
        let (launched, refused, ended) = (&launched, &refused, &ended);
        for thread in 0..3 {
            scope.spawn(move || {
                for n in 0_u64.. {
                    if over_ref.load(Ordering::SeqCst) {
                        return;
                    }
                    let path = |what: &str| lab_ref.path(&format!("{what}-{thread}-{n}"));
                    let (file, marker) = (path("report"), path("marker"));
                    let script = format!("echo ran >{marker}; exit 7");
                    let done = cgmgr(&[
                        "run",
                        "--memory-max",
                        "64MiB",
                        "--report",
                        &file,
                        "--",
                        "sh",
                        "-c",
                        &script,
                    ]);
                    let told = report(&file);
                    let ran = fs::exists(&marker).expect("a look");
                    match done.status {
                        7 => assert!(ran, "{done:#?}"),
                        // `down --kill` ended it; it may not have come far.
                        137 => {
                            done.says_nothing_of("OOM");
                            ended.fetch_add(1, Ordering::SeqCst);
                        }
                        125 => {
                            clear(&done);
                            assert!(!ran && told["started_command"] == false, "{done:#?}\n{told:#}");
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => panic!("{done:#?}"),
                    }
                    if done.status != 125 {
                        assert_eq!(told["started_command"], true, "{done:#?}\n{told:#}");
                    }
                    launched.fetch_add(1, Ordering::SeqCst);
                    let _ = (fs::remove_file(file), fs::remove_file(marker));
                    // Now and then nothing is being launched, and `down` gets its way.
                    std::thread::sleep(Duration::from_millis(40 * (n % 7)));
                }
            });
        }
        let downs = std::panic::catch_unwind(|| {
            let (mut done, mut refused) = (0, 0);
            for round in 0..rounds {
                let words: &[&str] = if round % 2 == 0 {
                    &["down", "--kill"]
                } else {
                    &["down"]
                };
                let down = cgmgr(words);
                match down.status {
                    0 => done += 1,
                    _ => {
                        clear(&down);
                        refused += 1;
                    }
                }
            }
            (done, refused)
        });
        over.store(true, Ordering::SeqCst);
        match downs {
            Ok((done, refused)) => say(&format!("down: {done} done, {refused} refused")),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    say(&format!(
        "launches: {launched:?}, of which {refused:?} refused and {ended:?} ended by `down --kill`"
    ));
    assert!(launched.load(Ordering::SeqCst) > 0);
    cgmgr(&["down", "--kill"]).expect(0);
    assert_eq!(session_groups(), [""; 0]);
    assert!(is_systemd() || !fs::exists(sessions()).expect("a look"));
}
