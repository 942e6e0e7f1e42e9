//! Carries plans out. A backend never interprets a value: it writes what the plan says and reports what is there
//! afterwards.

pub mod anchor;
pub mod cgroupfs;
pub mod enact;
pub mod failure;
mod journal;
pub mod limit;
pub mod scope;
pub mod slices;
pub mod units;
