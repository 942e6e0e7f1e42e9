//! What is to be done, as a value: the ordered steps from what is to what should be, with their undo. Pure: host
//! facts and the current state come in, a [`Plan`] goes out; nothing here touches the machine.
//!
//! The same functions serve `plan` (printed), `apply` and `run` (carried out by a backend), so what is shown is what
//! is done.
#![deny(clippy::disallowed_methods)]

pub mod apply;
pub mod down;
pub mod drift;
pub mod drop_in;
pub mod equal;
pub mod hierarchy;
pub mod identity;
pub mod live;
pub mod receipt;
pub mod session;
pub mod slices;
pub mod state;
pub mod step;
pub mod unit;

pub use step::{Plan, Step};
