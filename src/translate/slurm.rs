//! `#SBATCH` lines, the head of a batch script.
//!
//! What they hold is the cluster's to say: without ConstrainRAMSpace and ConstrainCores in cgroup.conf they only count in
//! the queue. Sources: sbatch(1), cgroup.conf(5).

use super::sheet::Sheet;
use crate::limits::{KnobId, Max, PERIOD_US};

/// What Slurm counts memory in; less is rounded up there.
const MIB: u64 = 1 << 20;

/// The least that a job is held to where cgroup.conf does not say another MinRAMSpace.
const LEAST: u64 = 30 * MIB;

pub(super) fn lines(sheet: &mut Sheet<'_>) -> String {
    let mut text = format!("#!/bin/sh\n#SBATCH --job-name={}\n", sheet.name());
    let mut push = |name: Option<&str>, value: &str| {
        text.push_str(&format!("#SBATCH {}={value}\n", name.unwrap_or_default()));
    };
    let name = |id: KnobId| id.knob().at(crate::limits::Engine::Slurm);
    if let Some(bytes) = sheet.memory(KnobId::MemoryMax).and_then(Max::at) {
        push(name(KnobId::MemoryMax), &memory(bytes));
        if bytes < LEAST {
            sheet.lose(
                KnobId::MemoryMax,
                "a job is held to no less than 30 MiB",
                "MinRAMSpace in cgroup.conf, for the whole cluster",
            );
        } else if bytes % MIB != 0 {
            sheet.lose(
                KnobId::MemoryMax,
                "memory is counted in MiB: it is rounded down",
                "declare whole MiB",
            );
        }
    } else {
        sheet.note("without memory_max a job has what the cluster gives, or all of the node's (DefMemPerNode, DefMemPerCPU)");
    }
    if let Some(quota) = sheet.quota(KnobId::Cpus) {
        push(name(KnobId::Cpus), &quota.ceil().to_string());
        let why = format!(
            "{} whole CPUs are the job's own, and none of others",
            quota.ceil()
        );
        let whole = quota.quota_us() % PERIOD_US == 0;
        let instead = if whole {
            "nothing: it is the same amount, on fixed CPUs"
        } else {
            "declare a whole number"
        };
        sheet.lose(KnobId::Cpus, &why, instead);
    } else {
        sheet.note("without cpus a job has one CPU");
    }
    if let Some(group) = sheet.oom_group() {
        push(name(KnobId::OomGroup), if group { "1" } else { "0" });
        sheet.note("--oom-kill-step is known from Slurm 24.05 on: older ones refuse the script");
    }
    sheet.note(
        "memory and CPUs hold with ConstrainRAMSpace=yes and ConstrainCores=yes in the cluster's cgroup.conf",
    );
    text
}

/// The largest unit of Slurm's, all of them binary, that it is whole in.
fn memory(bytes: u64) -> String {
    let mib = (bytes / MIB).max(1);
    match mib % 1024 {
        0 => format!("{}G", mib / 1024),
        _ => format!("{mib}M"),
    }
}
