//! What a knob is. The rows are in [`KNOBS`]; a knob's meaning exists there and nowhere else.

use std::fmt;

use super::engine::Engine;
use super::table::KNOBS;
use crate::host::Controller;

/// Every knob, in the order of the table. `id as usize` is the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each row of the table documents its knob")]
pub enum KnobId {
    MemoryHigh,
    MemoryMax,
    MemorySwapMax,
    Cpus,
    CpuWeight,
    IoWeight,
    Pids,
    Nofile,
    Nice,
    OomScoreAdj,
    OomGroup,
    OomPreserveState,
    OomNotify,
    Stall,
    AgentMemoryMin,
    AgentMemoryLow,
    AgentCpuWeight,
    AgentIoWeight,
    AgentOomScoreAdj,
    AgentNice,
    WorkloadsMemoryHigh,
    WorkloadsMemoryMax,
    WorkloadsCpus,
    WorkloadsPids,
    WorkloadsAdmission,
}

impl KnobId {
    /// The row of this knob.
    pub fn knob(self) -> &'static Knob {
        &KNOBS[self as usize]
    }

    /// The knob that users call `key`, e.g. `memory_max` or `workloads.memory_max`.
    pub fn from_key(key: &str) -> Option<KnobId> {
        KNOBS.iter().find(|knob| knob.key == key).map(|knob| knob.id)
    }
}

/// What a knob applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// One session.
    Session,
    /// `agent.slice`: what must survive.
    Agent,
    /// `workloads.slice`: all sessions together.
    Workloads,
}

impl Part {
    /// All parts, in the order of the table.
    pub const ALL: [Part; 3] = [Part::Session, Part::Agent, Part::Workloads];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Session => "session",
            Part::Agent => "agent",
            Part::Workloads => "workloads",
        })
    }
}

/// What kind of value a knob takes, and in which range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A memory limit: at least 1 MiB, a percentage of the machine's memory, or `max`.
    MemoryLimit,
    /// An amount of swap: from 0, a percentage of the machine's memory, or `max`.
    Swap,
    /// Memory that is protected: from 0, or a percentage of the machine's memory.
    Protection,
    /// CPUs per time, or `max`.
    Cpu,
    /// 1 to 10000.
    Weight,
    /// A whole number.
    Count {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
        /// Whether `max` is a value.
        max: bool,
        /// Whether a percentage of what the machine can hold is a value.
        percent: bool,
        /// Why zero is refused.
        zero: &'static str,
        /// Why there is no more than the most.
        ceiling: &'static str,
    },
    /// `true` or `false`.
    Switch,
    /// -20 to 19, and with a sign relative to the process that launches if `relative`.
    Nice {
        /// Whether a relative value is one.
        relative: bool,
    },
    /// -1000 to 1000.
    OomScoreAdj,
    /// `off`, `warn`, `queue` or `refuse`.
    Admission,
    /// `record`, `lift` or `kill`.
    Stall,
}

/// One row of the table: a limit, and everything that is known about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Knob {
    /// Which one.
    pub id: KnobId,
    /// What it applies to.
    pub part: Part,
    /// The name that users see, e.g. `memory_max`, `oom_group`, `agent.memory_min`.
    pub key: &'static str,
    /// Where it is in a role file, e.g. `runtime.limits.oom.group`.
    pub path: &'static str,
    /// The values that it takes.
    pub kind: Kind,
    /// The kernel's file in the cgroup's directory; None where it is set on the process, or is cgmgr's own.
    pub file: Option<&'static str>,
    /// The controller that the file belongs to.
    pub controller: Option<Controller>,
    /// The first kernel that has it, e.g. `4.19`; `any` where every kernel has it.
    pub since: &'static str,
    /// What the kernel's file holds when nobody has written it. None where there is no file.
    pub kernel_default: Option<&'static str>,
    /// What is in force when it is absent, in words for people.
    pub absent: &'static str,
    /// The systemd property, as in unit files (systemd.resource-control(5), systemd.exec(5)).
    pub systemd: Option<&'static str>,
    /// What other programs call it, where they have it: an option, a key or a field. Whether it means exactly the same
    /// there is for the translation to say.
    pub elsewhere: &'static [(Engine, &'static str)],
    /// What is done instead where there is no right to a cgroup; None where nothing is, or where no cgroup is needed.
    pub stand_in: Option<&'static str>,
    /// False: it is read and checked, and nothing enforces it yet.
    pub in_this_version: bool,
    /// One sentence.
    pub doc: &'static str,
}

impl Knob {
    /// Where in a role file the table of this knob is, e.g. `runtime.limits.oom`.
    pub fn table(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// The key inside its table, e.g. `group`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// What another program calls it; None: it cannot be said there. Those of systemd's are its property.
    pub fn at(&self, engine: Engine) -> Option<&'static str> {
        match engine {
            Engine::SystemdRun | Engine::SystemdUnit => self.systemd,
            _ => {
                let mut names = self.elsewhere.iter();
                names.find(|(known, _)| *known == engine).map(|(_, name)| *name)
            }
        }
    }

    /// Whether it is set on the process itself before exec, and needs no cgroup: nofile, nice, oom_score_adj.
    pub fn is_on_process(&self) -> bool {
        matches!(
            self.id,
            KnobId::Nofile
                | KnobId::Nice
                | KnobId::OomScoreAdj
                | KnobId::AgentNice
                | KnobId::AgentOomScoreAdj
        )
    }
}
