//! What a knob is set to on one machine.

use super::cpu::{CpuQuota, PERIOD_US};
use super::knob::{Knob, KnobId};
use super::max::Max;
use super::number::{Admission, Nice, OomScoreAdj, Weight};
use super::size::Bytes;
use super::stall::StallAction;

/// A value of a knob, with every percentage resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// An amount of memory or swap.
    Memory(Max<Bytes>),
    /// CPU time per period.
    Cpu(Max<CpuQuota>),
    /// A weight.
    Weight(Weight),
    /// A number of tasks or files.
    Count(Max<u64>),
    /// On or off.
    Switch(bool),
    /// A nice value.
    Nice(Nice),
    /// An adjustment of the OOM score.
    OomScoreAdj(OomScoreAdj),
    /// An admission policy.
    Admission(Admission),
    /// What is done about a stall.
    Stall(StallAction),
}

impl Value {
    /// The exact text for the knob's kernel file, without a newline: `12884901888`, `300000 100000`, `default 100`.
    /// For a knob without a file, the plain value: `16384`, `+5`, `true`.
    ///
    /// Both fields of cpu.max are always there, since a lone quota would keep the period that somebody else set.
    pub fn kernel_text(&self, knob: &Knob) -> String {
        match self {
            Value::Memory(memory) => memory.to_string(),
            Value::Cpu(Max::Max) => format!("max {PERIOD_US}"),
            Value::Cpu(Max::At(quota)) => format!("{} {PERIOD_US}", quota.quota_us()),
            Value::Weight(weight) if matches!(knob.id, KnobId::IoWeight | KnobId::AgentIoWeight) => {
                format!("default {weight}")
            }
            Value::Weight(weight) => weight.to_string(),
            Value::Count(count) => count.to_string(),
            Value::Switch(on) if knob.file.is_some() => u8::from(*on).to_string(),
            Value::Switch(on) => on.to_string(),
            Value::Nice(nice) => nice.to_string(),
            Value::OomScoreAdj(score) => score.to_string(),
            Value::Admission(admission) => admission.to_string(),
            Value::Stall(action) => action.to_string(),
        }
    }

    /// For reading: `12 GiB`, `3 CPUs`, `100`, `true`, `max`.
    pub fn human(&self) -> String {
        match self {
            Value::Memory(Max::At(bytes)) => bytes.human(),
            Value::Memory(Max::Max) | Value::Cpu(Max::Max) => "max".into(),
            Value::Cpu(Max::At(quota)) if quota.quota_us() == PERIOD_US => "1 CPU".into(),
            Value::Cpu(Max::At(quota)) => format!("{quota} CPUs"),
            Value::Weight(weight) => weight.to_string(),
            Value::Count(count) => count.to_string(),
            Value::Switch(on) => on.to_string(),
            Value::Nice(nice) => nice.to_string(),
            Value::OomScoreAdj(score) => score.to_string(),
            Value::Admission(admission) => admission.to_string(),
            Value::Stall(action) => action.to_string(),
        }
    }

    /// The amount of memory, where it is one and not `max`.
    pub fn bytes(&self) -> Option<Bytes> {
        match self {
            Value::Memory(memory) => memory.at(),
            _ => None,
        }
    }

    /// The CPU time, where it is one and not `max`.
    pub fn quota(&self) -> Option<CpuQuota> {
        match self {
            Value::Cpu(quota) => quota.at(),
            _ => None,
        }
    }

    /// The count, where it is one and not `max`.
    pub fn count(&self) -> Option<u64> {
        match self {
            Value::Count(count) => count.at(),
            _ => None,
        }
    }
}
