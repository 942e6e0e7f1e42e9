//! One confined run of a command, from its name's reservation to its group's removal.
//!
//! [`launch`] prepares the group and starts the command in it; [`supervise`] stays outside the group, keeps the
//! terminal right, and has [`account`] read the counters when it ends; [`verdict`] folds them into what happened; [`tell`] puts that
//! into words. The last two are pure. [`protect`] is for the agent that starts them.

pub mod account;
pub mod adopt;
pub mod allowance;
pub mod applied;
mod at_limit;
mod child;
pub mod command;
pub mod end;
pub mod enter;
pub mod failure;
pub mod freeze;
pub mod launch;
pub mod linger;
mod looks;
pub mod measure;
mod movable;
mod moving;
pub mod onlooker;
pub mod place;
mod placing;
mod prepare;
mod promise;
pub mod protect;
pub mod records;
pub mod registry;
pub mod relimit;
mod reserve;
mod scoped;
pub mod selftest;
pub mod signals;
pub mod supervise;
pub mod sweep;
pub mod tell;
pub mod terminal;
pub mod user;
pub mod verdict;
pub mod view;
