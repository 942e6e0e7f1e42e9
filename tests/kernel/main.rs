//! Tests that need a real kernel with cgroup v2; `cargo xtask test` runs them in its guests.
//!
//! The module a test is in says where it runs: `systemd`, `bare`, `hybrid` or `engines` in guests of that mode, `any` in
//! systemd and in bare guests. One test runs at a time.

mod any;
mod bare;
mod campaign;
mod cgmgr;
mod engines;
mod escape;
mod first_fork;
mod hybrid;
mod lab;
mod people;
mod pty;
mod readback;
mod scoped;
mod strangers;
mod systemd;
mod tracer;
