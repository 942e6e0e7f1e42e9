//! The kernel's own selftests (tools/testing/selftests/cgroup) once more, through the command line: what the kernel
//! promises of groups, cgmgr has to pass on for sessions.
//!
//! Each test has the name of the kernel's without its `test_` (and `cgcore_`), and says what that one asserts and how
//! it is said here. Those that need a group beside systemd's are in `bare::selftests`.

mod cpu;
mod freezer;
mod hierarchy;
mod kill;
mod memory;
mod pids;

use serde_json::Value;

use crate::cgmgr::cgmgr;

/// A session as `status` tells it.
#[track_caller]
fn status(session: &str) -> Value {
    let done = cgmgr(&["status", session, "--json"]).expect(0);
    let json = done.json();
    let sessions = json["sessions"].as_array().map_or(0, Vec::len);
    assert_eq!(sessions, 1, "{json:#}");
    json["sessions"][0].clone()
}

/// The number behind the first of these words of a line.
#[track_caller]
fn number(text: &str) -> u64 {
    let word = text.split(' ').next().unwrap_or_default();
    word.parse().unwrap_or_else(|_| panic!("no number: {text}"))
}
