//! The whole machine runs out of memory: whoever is killed is told so, and no limit is blamed for it.
//!
//! Few sessions at once, and by themselves: the kernel takes whom it likes from the whole machine. Who it is to take has
//! the highest score, and these tests with the cgmgr processes they start cannot be taken.

use std::process::{Child, Command};

use serde_json::Value;

use super::fates::{read_witness, say};
use crate::cgmgr::{Done, Live, cgmgr, report, run_payload};
use crate::lab::{Lab, full, session_groups};

/// What one session leaves to all others, in MiB: to fill the rest each time would take long.
const LEFT: u64 = 400;
/// More than that.
const MORE_THAN_THERE_IS: &str = "1200";

/// These tests' own score, put back at the end.
struct Unkillable(String);

impl Unkillable {
    fn now() -> Unkillable {
        let before = crate::lab::read("/proc/self/oom_score_adj");
        crate::lab::write("/proc/self/oom_score_adj", "-1000");
        Unkillable(before)
    }
}

impl Drop for Unkillable {
    fn drop(&mut self) {
        crate::lab::write("/proc/self/oom_score_adj", &self.0);
    }
}

/// Small processes outside of every session that the kernel may take at the very last: while the victim is still on its
/// way out and somebody else needs a page, it would otherwise find nobody, and panic.
struct Spares(Vec<Child>);

impl Spares {
    fn now() -> Spares {
        let spare = |_| {
            let child = Command::new("sleep").arg("infinity").spawn().expect("sleep");
            crate::lab::write(&format!("/proc/{}/oom_score_adj", child.id()), "-900");
            child
        };
        Spares((0..20).map(spare).collect())
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        let mut taken = 0;
        for spare in &mut self.0 {
            taken += usize::from(matches!(spare.try_wait(), Ok(Some(_))));
            let _ = spare.kill();
            let _ = spare.wait();
        }
        if taken > 0 {
            say(&format!("{taken} spare processes were taken as well"));
        }
    }
}

/// What the kernel could still give, in MiB.
fn available() -> u64 {
    let info = crate::lab::read("/proc/meminfo");
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a number") / 1024
}

/// The verdict says that the machine ran out of memory, blames no limit, and names nobody else than this one.
#[track_caller]
fn global(told: &Value, done: &Done, witness: Option<(i64, String)>) {
    let oom = &told["oom"];
    assert_eq!(oom["level"], "global", "{told:#}\n{done:#?}");
    assert!(oom["limit"].is_null() && oom["group"].is_null(), "{oom:#}");
    done.says("the machine ran out of memory")
        .says_nothing_of(" reached");
    let victim = &oom["victim"];
    if victim.is_null() {
        return say("a victim of the whole machine is unknown");
    }
    let (pid, comm) = witness.expect("it took memory, so it had left its pid");
    assert_eq!(
        (&victim["pid"], &victim["comm"]),
        (&pid.into(), &comm.into()),
        "{oom:#}"
    );
}

#[test]
fn whoever_dies_of_the_machines_memory_is_told_so_and_no_limit_is_blamed() {
    let lab = Lab::new();
    let role = lab.file(
        "open.role.toml",
        "[workloads]\nmemory_high = \"max\"\nmemory_max = \"max\"\n",
    );
    cgmgr(&["apply", &role]).expect(0);
    let unkillable = Unkillable::now();
    let spares = Spares::now();
    let filling = available().saturating_sub(LEFT) as usize;
    let filled = Live::hold("filling", &["--oom-score-adj", "-1000"], filling);
    for round in 0..if full() { 10 } else { 1 } {
        let path = |what: &str| lab.path(&format!("{what}-{round}"));
        without_limit(&path("report"), &path("alone"));
        far_below_its_own_limit(&path);
        a_grandchild(&path("report"), &path("grandchild"));
        a_whole_group(&path("report"), &path("group"));
        say(&format!(
            "round {round}: five sessions that died of the machine's memory"
        ));
    }
    filled.end().expect(0).says_nothing_of("OOM");
    assert_eq!(session_groups(), [""; 0]);
    drop((spares, unkillable));
}

fn without_limit(file: &str, witness: &str) {
    let options = ["--name", "hog", "--oom-score-adj", "1000", "--report", file];
    let done = run_payload(&options, &["witness", witness, "hog", MORE_THAN_THERE_IS]).expect(137);
    let told = report(file);
    global(&told, &done, read_witness(witness));
    let oom = &told["oom"];
    assert_eq!(
        (&oom["kills"], &oom["took_command"]),
        (&1.into(), &true.into()),
        "{oom:#}"
    );
    done.says("hog was OOM-killed");
}

/// One that uses little of what it may is taken first, for another one that takes all there is.
fn far_below_its_own_limit(path: &dyn Fn(&str) -> String) {
    let bystander = Live::hold(
        "bystander",
        &["--oom-score-adj", "-1000", "--memory-max", "64MiB"],
        16,
    );
    let (poor_report, poor) = (path("poor-report"), path("poor"));
    let limited = [
        "--memory-max",
        "256MiB",
        "--oom-score-adj",
        "1000",
        "--report",
        &poor_report,
    ];
    let mut limited = Live::start("poor", &limited, &["witness", &poor, "hold", "32"]);
    limited.hear("ready ");
    let (file, witness) = (path("report"), path("rich"));
    let options = ["--name", "rich", "--oom-score-adj", "0", "--report", &file];
    let done = run_payload(&options, &["witness", &witness, "hog", MORE_THAN_THERE_IS]).expect(137);
    global(&report(&file), &done, read_witness(&witness));
    let done = limited.wait().expect(137);
    global(&report(&poor_report), &done, read_witness(&poor));
    done.says("poor was OOM-killed");
    bystander.end().expect(0).says_nothing_of("OOM");
}

fn a_grandchild(file: &str, witness: &str) {
    let options = ["--name", "kin", "--oom-score-adj", "1000", "--report", file];
    let words = ["parent", "5", "witness", witness, "hog", MORE_THAN_THERE_IS];
    let done = run_payload(&options, &words).expect(5);
    let told = report(file);
    global(&told, &done, read_witness(witness));
    let oom = &told["oom"];
    assert_eq!(
        (&oom["kills"], &oom["took_command"]),
        (&1.into(), &false.into()),
        "{oom:#}"
    );
    done.says_nothing_of("kin was OOM-killed");
}

fn a_whole_group(file: &str, witness: &str) {
    let options = [
        "--name",
        "all",
        "--oom-group",
        "--oom-score-adj",
        "1000",
        "--report",
        file,
    ];
    let done = run_payload(&options, &["witness", witness, "crowd", "3", "4"]).expect(137);
    let told = report(file);
    global(&told, &done, read_witness(witness));
    let oom = &told["oom"];
    assert_eq!(
        (&oom["kills"], &oom["whole_group"]),
        (&3.into(), &true.into()),
        "{oom:#}"
    );
    done.says("The kernel killed the whole group, 3 processes.");
}
