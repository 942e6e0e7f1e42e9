//! Limits as types, and the one table that says what each of them means. Pure: text and numbers in, values out; no
//! file is opened, no clock or environment is read.
//!
//! [`KNOBS`] is the table: one row per limit. [`Declared`] is what somebody wrote, before the machine is known
//! (`"80%"`); [`Value`] is what it means on one [machine](crate::host::Machine); [`Settings`] is a [`Value`] or its
//! absence for every knob, with where it came from.
#![deny(clippy::disallowed_methods)]

mod cpu;
mod decimal;
mod engine;
mod error;
mod foreign;
mod knob;
mod max;
mod number;
mod parse;
mod priority;
mod setting;
mod size;
mod stall;
mod table;
mod value;

pub use crate::host::Controller;
pub use cpu::{CpuQuota, PERIOD_US};
pub use engine::Engine;
pub use error::{ErrorKind, GrammarError};
pub(crate) use foreign::grant_text;
pub use knob::{Kind, Knob, KnobId, Part};
pub use max::Max;
pub use number::{Admission, Count, Nice, OomScoreAdj, Weight};
pub use parse::{Declared, Scalar};
pub use priority::{CoderEnv, PROTECTED_SCORE, Priorities};
pub use setting::{Origin, Setting, Settings};
pub use size::{Bytes, MEMORY_FLOOR, Percent, Size};
pub use stall::StallAction;
pub use table::KNOBS;
pub use value::Value;
