//! Live control: limits that change while a session runs, sessions that stand still, and what a session is told of its
//! own limits.

mod allowance;
mod freeze;
mod relimit;
