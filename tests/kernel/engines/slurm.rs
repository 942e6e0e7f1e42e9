//! The batch script that `cgmgr translate --to slurm ROLE` begins, in a cluster of one machine that constrains memory, swap and
//! cores as the translation's notes say.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Once;

use cgmgr::kernel::probe;
use cgmgr::limits::{Engine, KnobId, Value};

use super::held::{Held, Sleeper};
use super::roles::{Case, OWN, Role, Said, Wrong};
use crate::cgmgr::{Done, finish, until};
use crate::lab::{Lab, must};

/// It says that the machine has the memory that the examples ask for.
const SLURM: &str = "ClusterName=lab
SlurmctldHost=cgmgr-lab(127.0.0.1)
AuthType=auth/munge
CredType=cred/munge
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=5
NodeName=cgmgr-lab NodeAddr=127.0.0.1 CPUs=8 RealMemory=32768 State=UNKNOWN
PartitionName=lab Nodes=ALL Default=YES State=UP
";

const CGROUP: &str = "CgroupPlugin=cgroup/v2
ConstrainCores=yes
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
AllowedSwapSpace=0
";

/// Open files of whoever submits.
const FILES: &str = "777";

/// Bytes of a MiB, in which Slurm counts.
const MIB: u64 = 1 << 20;

/// What slurm.conf says that the machine has.
const NODE: u64 = 32_768 * MIB;

static READY: Once = Once::new();

/// A cluster whose one node is idle.
fn ready() {
    READY.call_once(|| {
        fs::write("/etc/slurm/slurm.conf", SLURM).expect("a file");
        fs::write("/etc/slurm/cgroup.conf", CGROUP).expect("a file");
        // Its libraries find no address, not even this machine's, where there is none but 127.0.0.1.
        finish(Command::new("ip").args(["address", "replace", "192.0.2.1/32", "dev", "lo"])).expect(0);
        let units = ["munge.service", "slurmctld.service", "slurmd.service"];
        finish(Command::new("systemctl").arg("start").args(units)).expect(0);
        let begun = std::time::Instant::now();
        while run("sinfo", &["--noheader", "--format", "%T"]).out.trim() != "idle" {
            if begun.elapsed().as_secs() > 90 {
                let journal = run(
                    "journalctl",
                    &["--no-pager", "-n", "80", "-u", "slurmd", "-u", "slurmctld"],
                );
                panic!("no node: {:#?}\n{}", run("sinfo", &["-R"]), journal.out);
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    });
}

fn run(program: &str, words: &[&str]) -> Done {
    finish(Command::new(program).args(words))
}

/// Whether this Slurm is 24.05 or later: Debian 12 has 22.05, Debian 13 has 24.11.
fn is_new() -> bool {
    must("CGMGR_LAB_DISTRO") != "12"
}

/// The script without what this Slurm does not know; that it refuses it is [`old_ones_refuse_the_script_that_is_said_to`].
fn script(said: &Said) -> String {
    let known = |line: &&str| is_new() || !line.contains("--oom-kill-step");
    let lines: Vec<&str> = said.text().lines().filter(known).collect();
    lines.join("\n") + "\n"
}

/// Submits a script from where so many files may be open.
fn submit(path: &str) -> Done {
    let nofile = format!("--nofile={FILES}");
    let words = [
        nofile.as_str(),
        "sbatch",
        "--parsable",
        "--chdir=/tmp",
        "--output=/dev/null",
        path,
    ];
    run("prlimit", &words)
}

/// Ends all jobs, and waits until the node is free.
fn end(sleeper: &Sleeper) {
    run("scancel", &["--signal=KILL", "--full", "--user=root"]);
    run("scancel", &["--user=root"]).expect(0);
    sleeper.is_over();
    until("no job is left", || {
        run("squeue", &["--noheader"]).out.trim().is_empty()
    });
}

/// What the one process of a job is held to.
fn through(lab: &Lab, said: &Said) -> Held {
    ready();
    let sleeper = Sleeper::new();
    let command = sleeper.words().join(" ");
    let path = lab.file("job.sh", &format!("{}exec {command}\n", script(said)));
    submit(&path).expect(0);
    let held = sleeper.held();
    end(&sleeper);
    held
}

/// What Slurm does instead, and by itself where nothing is declared.
fn instead(case: &Case<'_>) -> Option<String> {
    let whole = case.theirs.knob(KnobId::MemoryMax).to_owned();
    match (case.id, case.declared) {
        (KnobId::MemoryMax, declared) => Some(memory(case, declared).to_string()),
        // Its one limit is both.
        (KnobId::MemoryHigh, _) => Some(whole),
        // The cluster's is 0, of which old versions make what memory has.
        (KnobId::MemorySwapMax, _) if !is_new() => {
            let told = case
                .loss
                .is_none_or(|_| case.said.instead("memory_swap_max").contains("22.05"));
            assert!(told, "nothing is said of old versions");
            Some(whole)
        }
        (KnobId::MemorySwapMax, _) => Some("0".to_owned()),
        // Whole CPUs of its own, one where nothing is said.
        (KnobId::Cpus, declared) => {
            let cpus = declared.and_then(Value::quota).map_or(1, |quota| quota.ceil());
            assert_eq!(
                count(case.theirs.file("cpuset.cpus.effective")),
                cpus,
                "{:?}",
                case.theirs
            );
            assert!(
                declared.is_some() || case.said.notes("without cpus"),
                "nothing is said of the one CPU"
            );
            Some("max 100000".to_owned())
        }
        (KnobId::CpuWeight, Some(_)) if case.loss.is_some() => Some("100".to_owned()),
        (KnobId::IoWeight, Some(_)) if case.loss.is_some() => Some("default 100".to_owned()),
        (KnobId::Pids, Some(_)) => Some("max".to_owned()),
        // The soft limit alone.
        (KnobId::Nofile, Some(_)) => {
            let (soft, _) = case.theirs.knob(KnobId::Nofile).split_once(':')?;
            assert_eq!(soft, FILES);
            Some(case.theirs.knob(KnobId::Nofile).to_owned())
        }
        (KnobId::Nice | KnobId::OomScoreAdj, Some(_)) => Some("0".to_owned()),
        (KnobId::OomGroup, Some(_)) if !is_new() => {
            assert!(case.said.notes("24.05"), "nothing is said of old versions");
            Some("0".to_owned())
        }
        _ => None,
    }
}

/// The memory of a job: what is declared in MiB, or the node's.
fn memory(case: &Case<'_>, declared: Option<&Value>) -> u64 {
    let declared = match declared {
        Some(Value::Memory(max)) => max.at().map(|bytes| bytes.0),
        _ => None,
    };
    let told = declared.is_some() || case.said.notes("without memory_max");
    assert!(told, "nothing is said of the cluster's default");
    let whole = declared.map(|bytes| (bytes / MIB * MIB).max(30 * MIB));
    let exact = whole == declared || case.loss.is_some() || declared.is_none();
    assert!(exact, "{declared:?} is rounded without a word");
    // Old versions go by the memory that the machine has, whatever slurm.conf says of it.
    let node = if is_new() {
        NODE
    } else {
        probe::machine().mem_total / MIB * MIB
    };
    whole.unwrap_or(NODE).min(node)
}

/// How many CPUs a list like `0-2,5` has.
fn count(list: &str) -> u64 {
    let one = |part: &str| -> u64 {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u64>().expect("a number");
        number(last) - number(first) + 1
    };
    list.split(',').map(one).sum()
}

#[test]
fn a_batch_job_is_held_to_what_a_session_is_but_for_what_is_lost() {
    let lab = Lab::new();
    let mut wrong = Wrong::default();
    let roles = ["rust", "ci-small", "multicode", "batch-background"].map(Role::example);
    let own = OWN.map(|own| Role::own(&lab, own));
    for role in roles.iter().chain(&own) {
        let said = role.to(Engine::Slurm, &[]);
        wrong.compare(role, &said, &through(&lab, &said), instead);
    }
}

#[test]
fn srun_takes_the_same_words() {
    let lab = Lab::new();
    ready();
    let mut wrong = Wrong::default();
    for name in ["rust", "ci-small"] {
        let role = Role::example(name);
        let said = role.to(Engine::Slurm, &[]);
        let text = script(&said);
        let options: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("#SBATCH "))
            .collect();
        let sleeper = Sleeper::new();
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={FILES}"))
            .arg("srun")
            .args(options)
            .args(sleeper.words());
        command.current_dir("/tmp");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut srun = command.spawn().expect("srun");
        let theirs = sleeper.held();
        end(&sleeper);
        srun.wait().expect("a child");
        wrong.compare(&role, &said, &theirs, instead);
    }
    drop(lab);
}

#[test]
fn old_ones_refuse_the_script_that_is_said_to() {
    let lab = Lab::new();
    ready();
    let role = Role::example("ci-small");
    let said = role.to(Engine::Slurm, &[]);
    assert!(said.text().contains("--oom-kill-step=1") && said.notes("24.05"));
    let path = lab.file("job.sh", &format!("{}true\n", said.text()));
    let done = submit(&path);
    if is_new() {
        done.expect(0);
        until("the job is over", || {
            run("squeue", &["--noheader"]).out.trim().is_empty()
        });
    } else {
        assert_ne!(done.status, 0, "{done:#?}");
        done.says("oom-kill-step");
    }
}

#[test]
fn what_is_lost_cannot_be_said_to_slurm() {
    let lab = Lab::new();
    ready();
    for option in [
        "--memory-high=64M",
        "--memory-swap=64M",
        "--mem-swap=64M",
        "--pids=77",
        "--pids-limit=77",
        "--nofile=512",
        "--oom-score-adj=500",
        "--cpu-weight=250",
        "--io-weight=40",
    ] {
        let path = lab.file("job.sh", &format!("#!/bin/sh\n#SBATCH {option}\ntrue\n"));
        let done = submit(&path);
        assert_ne!(done.status, 0, "{option}: {done:#?}");
        done.says(option.split('=').next().unwrap_or_default());
    }
    // This one it takes, and means the queue.
    let sleeper = Sleeper::new();
    let command = sleeper.words().join(" ");
    let path = lab.file(
        "job.sh",
        &format!("#!/bin/sh\n#SBATCH --nice=5\nexec {command}\n"),
    );
    submit(&path).expect(0);
    let nice = sleeper.held().knob(KnobId::Nice).to_owned();
    end(&sleeper);
    assert_eq!(nice, "0");
}
