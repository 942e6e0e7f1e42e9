//! test_cpu.c: a session's share of CPU time, by its own clock.

use crate::cgmgr::{cgmgr, run_payload};
use crate::lab::{Lab, close};

/// Thousandths of a CPU that a session of two busy threads got over five seconds, as its own group counted them.
#[track_caller]
fn share(options: &[&str]) -> u64 {
    let done = run_payload(options, &["burn", "2", "5"]).expect(0);
    let numbers: Vec<u64> = done
        .out
        .strip_prefix("burnt ")
        .into_iter()
        .flat_map(|rest| rest.split_whitespace())
        .filter_map(|word| word.parse().ok())
        .collect();
    let [used, wall] = numbers[..] else {
        panic!("{done:#?}")
    };
    used * 1000 / wall
}

/// The kernel: a group with cpu.max uses so much CPU time of each period, and no more (within ten percent).
///
/// Here the limit is `--cpus 0.2`. Without one the same command uses more than three times as much, so that it is the
/// limit that holds it.
#[test]
fn cpucg_max() {
    let _lab = Lab::new();
    let limited = share(&["--cpus", "0.2"]);
    assert!(close(limited, 200, 10), "{limited} thousandths");
    let free = share(&[]);
    assert!(free > 600, "{free} thousandths");
}

/// The kernel: a group without a limit below one with cpu.max uses so much and no more.
///
/// Here the limit is the ceiling over all sessions (`[workloads]`), and the session has none, or a greater one.
#[test]
fn cpucg_max_nested() {
    let lab = Lab::new();
    let role = lab.file("ceiling.role.toml", "[workloads]\ncpus = 0.2\n");
    cgmgr(&["apply", &role]).expect(0);
    for options in [&[][..], &["--cpus", "1.5"]] {
        let limited = share(options);
        assert!(close(limited, 200, 10), "{options:?}: {limited} thousandths");
    }
}
