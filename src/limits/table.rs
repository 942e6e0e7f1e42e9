//! The knob table: one row per limit. Flat, and the only place where a knob's meaning is written down.
//!
//! Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst, systemd.resource-control(5), systemd.exec(5), the
//! OCI runtime specification (config.md, config-linux.md), docker-run(1), podman-run(1), podman-systemd.unit(5), the Compose
//! specification, the Kubernetes API reference, sbatch(1), Nomad's job specification, and the help of Apple's `container`.

use super::engine::Engine;
use super::knob::{Kind, Knob, KnobId, Part};
use crate::host::Controller;

/// `PID_MAX_LIMIT` of a 64-bit kernel: pids.max takes no more.
const MOST_TASKS: u64 = 4_194_304;

const SESSION_PIDS: Kind = Kind::Count {
    least: 1,
    most: MOST_TASKS,
    max: true,
    percent: false,
    zero: "with 0 the session could not start a single process",
    ceiling: "the kernel has no more tasks than that",
};

const WORKLOADS_PIDS: Kind = Kind::Count {
    least: 1,
    most: MOST_TASKS,
    max: true,
    percent: true,
    zero: "with 0 no session could start a single process",
    ceiling: "the kernel has no more tasks than that",
};

/// The kernel's own ceiling of fs.nr_open (`sysctl_nr_open_max` on 64-bit).
const NOFILE: Kind = Kind::Count {
    least: 1,
    most: 2_147_483_584,
    max: false,
    percent: false,
    zero: "with 0 a process could not open anything",
    ceiling: "the kernel's fs.nr_open cannot be higher",
};

/// Every knob, in the order of [`KnobId`].
pub static KNOBS: &[Knob] = &[
    Knob {
        id: KnobId::MemoryHigh,
        part: Part::Session,
        key: "memory_high",
        path: "runtime.limits.memory_high",
        kind: Kind::MemoryLimit,
        file: Some("memory.high"),
        controller: Some(Controller::Memory),
        since: "4.5",
        kernel_default: Some("max"),
        absent: "max",
        systemd: Some("MemoryHigh"),
        elsewhere: &[
            (Engine::Docker, "--memory-reservation"),
            (Engine::Podman, "--cgroup-conf memory.high"),
            (Engine::Compose, "mem_reservation"),
            (Engine::Quadlet, "PodmanArgs=--cgroup-conf memory.high"),
            (Engine::Oci, "linux.resources.unified[\"memory.high\"]"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "Above this the kernel takes memory back and slows the session down; it never kills.",
    },
    Knob {
        id: KnobId::MemoryMax,
        part: Part::Session,
        key: "memory_max",
        path: "runtime.limits.memory_max",
        kind: Kind::MemoryLimit,
        file: Some("memory.max"),
        controller: Some(Controller::Memory),
        since: "4.5",
        kernel_default: Some("max"),
        absent: "max",
        systemd: Some("MemoryMax"),
        elsewhere: &[
            (Engine::Docker, "--memory"),
            (Engine::Podman, "--memory"),
            (Engine::Compose, "mem_limit"),
            (Engine::Quadlet, "PodmanArgs=--memory"),
            (Engine::Oci, "linux.resources.memory.limit"),
            (Engine::Kubernetes, "resources.limits.memory"),
            (Engine::Nomad, "resources.memory"),
            (Engine::Slurm, "--mem"),
            (Engine::AppleContainer, "--memory"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "The session cannot hold more than this: what cannot be taken back is OOM-killed.",
    },
    Knob {
        id: KnobId::MemorySwapMax,
        part: Part::Session,
        key: "memory_swap_max",
        path: "runtime.limits.memory_swap_max",
        kind: Kind::Swap,
        file: Some("memory.swap.max"),
        controller: Some(Controller::Memory),
        since: "4.5",
        kernel_default: Some("max"),
        absent: "max",
        systemd: Some("MemorySwapMax"),
        elsewhere: &[
            (Engine::Docker, "--memory-swap"),
            (Engine::Podman, "--memory-swap"),
            (Engine::Compose, "memswap_limit"),
            (Engine::Quadlet, "PodmanArgs=--memory-swap"),
            (Engine::Oci, "linux.resources.memory.swap"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "The session cannot hold more swap than this, beside its memory; 0 unless given where memory_max is set.",
    },
    Knob {
        id: KnobId::Cpus,
        part: Part::Session,
        key: "cpus",
        path: "runtime.limits.cpus",
        kind: Kind::Cpu,
        file: Some("cpu.max"),
        controller: Some(Controller::Cpu),
        since: "4.15",
        kernel_default: Some("max 100000"),
        absent: "max",
        systemd: Some("CPUQuota"),
        elsewhere: &[
            (Engine::Docker, "--cpus"),
            (Engine::Podman, "--cpus"),
            (Engine::Compose, "cpus"),
            (Engine::Quadlet, "PodmanArgs=--cpus"),
            (Engine::Oci, "linux.resources.cpu.quota"),
            (Engine::Kubernetes, "resources.limits.cpu"),
            (Engine::Nomad, "resources.cores"),
            (Engine::Slurm, "--cpus-per-task"),
            (Engine::AppleContainer, "--cpus"),
        ],
        stand_in: Some("CPU affinity"),
        in_this_version: true,
        doc: "All processes of the session together get at most as much CPU time as so many CPUs.",
    },
    Knob {
        id: KnobId::CpuWeight,
        part: Part::Session,
        key: "cpu_weight",
        path: "runtime.limits.cpu_weight",
        kind: Kind::Weight,
        file: Some("cpu.weight"),
        controller: Some(Controller::Cpu),
        since: "4.15",
        kernel_default: Some("100"),
        absent: "100",
        systemd: Some("CPUWeight"),
        elsewhere: &[
            (Engine::Docker, "--cpu-shares"),
            (Engine::Podman, "--cgroup-conf cpu.weight"),
            (Engine::Compose, "cpu_shares"),
            (Engine::Quadlet, "CPUWeight"),
            (Engine::Oci, "linux.resources.unified[\"cpu.weight\"]"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "The session's share of CPU time beside other sessions when all want it.",
    },
    Knob {
        id: KnobId::IoWeight,
        part: Part::Session,
        key: "io_weight",
        path: "runtime.limits.io_weight",
        kind: Kind::Weight,
        file: Some("io.weight"),
        controller: Some(Controller::Io),
        since: "4.5",
        kernel_default: Some("default 100"),
        absent: "100",
        systemd: Some("IOWeight"),
        elsewhere: &[
            (Engine::Docker, "--blkio-weight"),
            (Engine::Podman, "--cgroup-conf io.weight"),
            (Engine::Compose, "blkio_config.weight"),
            (Engine::Quadlet, "IOWeight"),
            (Engine::Oci, "linux.resources.unified[\"io.weight\"]"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "The session's share of disk time beside other sessions; it needs iocost or BFQ on the device.",
    },
    Knob {
        id: KnobId::Pids,
        part: Part::Session,
        key: "pids",
        path: "runtime.limits.pids",
        kind: SESSION_PIDS,
        file: Some("pids.max"),
        controller: Some(Controller::Pids),
        since: "4.5",
        kernel_default: Some("max"),
        absent: "max",
        systemd: Some("TasksMax"),
        elsewhere: &[
            (Engine::Docker, "--pids-limit"),
            (Engine::Podman, "--pids-limit"),
            (Engine::Compose, "pids_limit"),
            (Engine::Quadlet, "PidsLimit"),
            (Engine::Oci, "linux.resources.pids.limit"),
            (Engine::Nomad, "config.pids_limit"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "The session cannot have more tasks (processes and threads) than this: fork fails with EAGAIN.",
    },
    Knob {
        id: KnobId::Nofile,
        part: Part::Session,
        key: "nofile",
        path: "runtime.limits.nofile",
        kind: NOFILE,
        file: None,
        controller: None,
        since: "any",
        kernel_default: None,
        absent: "inherited",
        systemd: Some("LimitNOFILE"),
        elsewhere: &[
            (Engine::Docker, "--ulimit nofile"),
            (Engine::Podman, "--ulimit nofile"),
            (Engine::Compose, "ulimits.nofile"),
            (Engine::Quadlet, "Ulimit=nofile"),
            (Engine::Oci, "process.rlimits[RLIMIT_NOFILE]"),
            (Engine::Nomad, "config.ulimit.nofile"),
            (Engine::AppleContainer, "--ulimit nofile"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "A process of the session cannot open more files than this; soft and hard limit, set before exec.",
    },
    Knob {
        id: KnobId::Nice,
        part: Part::Session,
        key: "nice",
        path: "runtime.limits.nice",
        kind: Kind::Nice { relative: true },
        file: None,
        controller: None,
        since: "any",
        kernel_default: None,
        absent: "agent's + 5",
        systemd: Some("Nice"),
        elsewhere: &[(Engine::Quadlet, "Nice"), (Engine::Oci, "process.scheduler.nice")],
        stand_in: None,
        in_this_version: true,
        doc: "The nice value of the session's first process; it acts inside the session once the cpu controller is on.",
    },
    Knob {
        id: KnobId::OomScoreAdj,
        part: Part::Session,
        key: "oom_score_adj",
        path: "runtime.limits.oom_score_adj",
        kind: Kind::OomScoreAdj,
        file: None,
        controller: None,
        since: "2.6.36",
        kernel_default: None,
        absent: "from agent's",
        systemd: Some("OOMScoreAdjust"),
        elsewhere: &[
            (Engine::Docker, "--oom-score-adj"),
            (Engine::Podman, "--oom-score-adj"),
            (Engine::Compose, "oom_score_adj"),
            (Engine::Quadlet, "PodmanArgs=--oom-score-adj"),
            (Engine::Oci, "process.oomScoreAdj"),
            (Engine::Nomad, "config.oom_score_adj"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "How early the kernel picks a process of the session when it has to kill one; advisory.",
    },
    Knob {
        id: KnobId::OomGroup,
        part: Part::Session,
        key: "oom_group",
        path: "runtime.limits.oom.group",
        kind: Kind::Switch,
        file: Some("memory.oom.group"),
        controller: Some(Controller::Memory),
        since: "4.19",
        kernel_default: Some("0"),
        absent: "false",
        systemd: Some("OOMPolicy"),
        elsewhere: &[
            (Engine::Podman, "--cgroup-conf memory.oom.group"),
            (Engine::Quadlet, "PodmanArgs=--cgroup-conf memory.oom.group"),
            (Engine::Oci, "linux.resources.unified[\"memory.oom.group\"]"),
            (Engine::Slurm, "--oom-kill-step"),
        ],
        stand_in: None,
        in_this_version: true,
        doc: "An OOM kill takes the whole session instead of one process of it.",
    },
    Knob {
        id: KnobId::OomPreserveState,
        part: Part::Session,
        key: "oom_preserve_state",
        path: "runtime.limits.oom.preserve_state",
        kind: Kind::Switch,
        file: None,
        controller: None,
        since: "any",
        kernel_default: None,
        absent: "true",
        systemd: None,
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "After an OOM kill the full record is kept and the name is blocked until it is forgotten.",
    },
    Knob {
        id: KnobId::OomNotify,
        part: Part::Session,
        key: "oom_notify",
        path: "runtime.limits.oom.notify",
        kind: Kind::Switch,
        file: None,
        controller: None,
        since: "any",
        kernel_default: None,
        absent: "true",
        systemd: None,
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "An OOM kill is brought to the user's attention.",
    },
    Knob {
        id: KnobId::Stall,
        part: Part::Session,
        key: "stall",
        path: "runtime.limits.stall",
        kind: Kind::Stall,
        file: None,
        controller: None,
        since: "any",
        kernel_default: None,
        absent: "record",
        systemd: None,
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "What is done about a session that is over memory_high and makes no progress: record, lift or kill.",
    },
    Knob {
        id: KnobId::AgentMemoryMin,
        part: Part::Agent,
        key: "agent.memory_min",
        path: "agent.memory_min",
        kind: Kind::Protection,
        file: Some("memory.min"),
        controller: Some(Controller::Memory),
        since: "4.18",
        kernel_default: Some("0"),
        absent: "0",
        systemd: Some("MemoryMin"),
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "Memory that is never taken back from the agent, whatever the workloads do.",
    },
    Knob {
        id: KnobId::AgentMemoryLow,
        part: Part::Agent,
        key: "agent.memory_low",
        path: "agent.memory_low",
        kind: Kind::Protection,
        file: Some("memory.low"),
        controller: Some(Controller::Memory),
        since: "4.5",
        kernel_default: Some("0"),
        absent: "0",
        systemd: Some("MemoryLow"),
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "Memory that is taken back from the agent only when nothing else is left to take.",
    },
    Knob {
        id: KnobId::AgentCpuWeight,
        part: Part::Agent,
        key: "agent.cpu_weight",
        path: "agent.cpu_weight",
        kind: Kind::Weight,
        file: Some("cpu.weight"),
        controller: Some(Controller::Cpu),
        since: "4.15",
        kernel_default: Some("100"),
        absent: "100",
        systemd: Some("CPUWeight"),
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "The agent's share of CPU time beside all workloads together.",
    },
    Knob {
        id: KnobId::AgentIoWeight,
        part: Part::Agent,
        key: "agent.io_weight",
        path: "agent.io_weight",
        kind: Kind::Weight,
        file: Some("io.weight"),
        controller: Some(Controller::Io),
        since: "4.5",
        kernel_default: Some("default 100"),
        absent: "100",
        systemd: Some("IOWeight"),
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "The agent's share of disk time beside all workloads together; it needs iocost or BFQ on the device.",
    },
    Knob {
        id: KnobId::AgentOomScoreAdj,
        part: Part::Agent,
        key: "agent.oom_score_adj",
        path: "agent.oom_score_adj",
        kind: Kind::OomScoreAdj,
        file: None,
        controller: None,
        since: "2.6.36",
        kernel_default: None,
        absent: "-900",
        systemd: Some("OOMScoreAdjust"),
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "How late the kernel picks the agent when the whole machine is out of memory.",
    },
    Knob {
        id: KnobId::AgentNice,
        part: Part::Agent,
        key: "agent.nice",
        path: "agent.nice",
        kind: Kind::Nice { relative: false },
        file: None,
        controller: None,
        since: "any",
        kernel_default: None,
        absent: "inherited",
        systemd: Some("Nice"),
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "The nice value of the agent.",
    },
    Knob {
        id: KnobId::WorkloadsMemoryHigh,
        part: Part::Workloads,
        key: "workloads.memory_high",
        path: "workloads.memory_high",
        kind: Kind::MemoryLimit,
        file: Some("memory.high"),
        controller: Some(Controller::Memory),
        since: "4.5",
        kernel_default: Some("max"),
        absent: "max",
        systemd: Some("MemoryHigh"),
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "Above this, over all sessions together, the kernel takes memory back and slows them down.",
    },
    Knob {
        id: KnobId::WorkloadsMemoryMax,
        part: Part::Workloads,
        key: "workloads.memory_max",
        path: "workloads.memory_max",
        kind: Kind::MemoryLimit,
        file: Some("memory.max"),
        controller: Some(Controller::Memory),
        since: "4.5",
        kernel_default: Some("max"),
        absent: "max",
        systemd: Some("MemoryMax"),
        elsewhere: &[(Engine::Kubernetes, "ResourceQuota limits.memory")],
        stand_in: None,
        in_this_version: true,
        doc: "All sessions together cannot hold more than this; what is left of the machine keeps the agent alive.",
    },
    Knob {
        id: KnobId::WorkloadsCpus,
        part: Part::Workloads,
        key: "workloads.cpus",
        path: "workloads.cpus",
        kind: Kind::Cpu,
        file: Some("cpu.max"),
        controller: Some(Controller::Cpu),
        since: "4.15",
        kernel_default: Some("max 100000"),
        absent: "max",
        systemd: Some("CPUQuota"),
        elsewhere: &[(Engine::Kubernetes, "ResourceQuota limits.cpu")],
        stand_in: None,
        in_this_version: true,
        doc: "All sessions together get at most as much CPU time as so many CPUs.",
    },
    Knob {
        id: KnobId::WorkloadsPids,
        part: Part::Workloads,
        key: "workloads.pids",
        path: "workloads.pids",
        kind: WORKLOADS_PIDS,
        file: Some("pids.max"),
        controller: Some(Controller::Pids),
        since: "4.5",
        kernel_default: Some("max"),
        absent: "max",
        systemd: Some("TasksMax"),
        elsewhere: &[],
        stand_in: None,
        in_this_version: true,
        doc: "All sessions together cannot have more tasks (processes and threads) than this.",
    },
    Knob {
        id: KnobId::WorkloadsAdmission,
        part: Part::Workloads,
        key: "workloads.admission",
        path: "workloads.admission",
        kind: Kind::Admission,
        file: None,
        controller: None,
        since: "any",
        kernel_default: None,
        absent: "off",
        systemd: None,
        elsewhere: &[],
        stand_in: None,
        in_this_version: false,
        doc: "What happens to a launch that the machine has no room for.",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_are_where_their_id_says() {
        for (row, knob) in KNOBS.iter().enumerate() {
            assert_eq!(knob.id as usize, row, "{}", knob.key);
            assert_eq!(KnobId::from_key(knob.key), Some(knob.id));
            assert!(std::ptr::eq(knob.id.knob(), knob));
        }
        assert_eq!(KNOBS.len(), KnobId::WorkloadsAdmission as usize + 1);
    }

    #[test]
    fn keys_and_paths_are_unique() {
        let keys: HashSet<_> = KNOBS.iter().map(|knob| knob.key).collect();
        let paths: HashSet<_> = KNOBS.iter().map(|knob| knob.path).collect();
        assert_eq!((keys.len(), paths.len()), (KNOBS.len(), KNOBS.len()));
        for knob in KNOBS {
            assert!(
                knob.key
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.'),
                "{}: a key is lower-case with underscores",
                knob.key
            );
        }
    }

    #[test]
    fn a_file_belongs_to_its_controller_and_has_a_default() {
        for knob in KNOBS {
            assert_eq!(knob.file.is_some(), knob.controller.is_some(), "{}", knob.key);
            assert_eq!(knob.file.is_some(), knob.kernel_default.is_some(), "{}", knob.key);
            if let (Some(file), Some(controller)) = (knob.file, knob.controller) {
                assert!(
                    file.starts_with(&format!("{controller}.")),
                    "{}: {file}",
                    knob.key
                );
            }
        }
    }

    #[test]
    fn one_file_is_written_once_in_a_part() {
        let files: Vec<_> = KNOBS
            .iter()
            .filter_map(|knob| Some((knob.part, knob.file?)))
            .collect();
        assert_eq!(files.iter().collect::<HashSet<_>>().len(), files.len());
    }

    #[test]
    fn paths_are_in_the_tables_of_their_part() {
        for knob in KNOBS {
            let table = match knob.part {
                Part::Session if knob.key.starts_with("oom_") && knob.id != KnobId::OomScoreAdj => {
                    "runtime.limits.oom"
                }
                Part::Session => "runtime.limits",
                Part::Agent => "agent",
                Part::Workloads => "workloads",
            };
            assert_eq!(knob.table(), table, "{}", knob.key);
        }
    }

    #[test]
    fn parts_are_together_and_in_order() {
        let parts: Vec<_> = KNOBS.iter().map(|knob| knob.part).collect();
        assert!(parts.is_sorted());
    }

    #[test]
    fn prose_is_a_sentence_and_since_is_a_version() {
        for knob in KNOBS {
            assert!(
                knob.doc.ends_with('.') && knob.doc.len() < 120,
                "{}: {}",
                knob.key,
                knob.doc
            );
            let version =
                knob.since == "any" || knob.since.split('.').all(|part| part.parse::<u32>().is_ok());
            assert!(version, "{}: {}", knob.key, knob.since);
        }
    }

    #[test]
    fn every_knob_on_the_kernel_or_the_process_has_a_systemd_property() {
        for knob in KNOBS {
            let real = knob.file.is_some() || knob.is_on_process();
            assert_eq!(knob.systemd.is_some(), real, "{}", knob.key);
            let in_this_version = knob.id != KnobId::WorkloadsAdmission;
            assert_eq!(knob.in_this_version, in_this_version, "{}", knob.key);
        }
    }
}
