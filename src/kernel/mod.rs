//! The kernel's edge: the only place that opens anything under the cgroup mount or /proc.
//!
//! Everything above it is handed plain values ([`crate::host`]) or asks for one named operation. Operations fail with
//! [`error::KernelError`], which says what was tried, where, with which value, and what to do about it.

pub mod base;
pub mod counters;
pub mod deadline;
pub mod disks;
pub mod error;
pub mod group;
pub mod held;
pub mod kmsg;
pub mod manager;
pub mod mounts;
pub mod pressure;
pub mod priority;
pub mod probe;
pub mod process;
pub mod sample;
pub mod sampler;
pub mod survey;
pub mod sys;
pub mod terminal;

pub use error::KernelError;
pub use group::{Group, Tree};
