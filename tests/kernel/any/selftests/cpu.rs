//! test_cpu.c: a session's share of CPU time, by its own clock.

use crate::cgmgr::{cgmgr, run_payload};
use crate::lab::{Lab, close, full};

/// Thousandths of a CPU that a session with a busy thread got, as its own group counted them: over five seconds as in the
/// kernel's test, or two, which are twenty periods of cpu.max.
#[track_caller]
fn share(options: &[&str]) -> u64 {
    let seconds = if full() { "5" } else { "2" };
    let done = run_payload(options, &["burn", "1", seconds]).expect(0);
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

/// Fails unless it is a fifth of a CPU, as near as the kernel's test wants it. An emulated machine may get less of its
/// host, and gives less then: half of it will do.
#[track_caller]
fn a_fifth(thousandths: u64, of: &[&str]) {
    let near = close(thousandths, 200, 10) || (100..200).contains(&thousandths);
    assert!(near, "{of:?}: {thousandths} thousandths");
}

/// The kernel: a group with cpu.max uses so much CPU time of each period, and no more (within ten percent).
///
/// Here the limit is `--cpus 0.2`. Without one the same command uses more than three times as much, so that it is the
/// limit that holds it.
#[test]
fn cpucg_max() {
    let _lab = Lab::new();
    let options = ["--cpus", "0.2"];
    a_fifth(share(&options), &options);
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
        a_fifth(share(options), options);
    }
}
