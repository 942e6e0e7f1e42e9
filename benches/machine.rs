//! The machine under measurement: made ready once, and what is on it.

use std::path::Path;
use std::process::{Command, Stdio};

const MOUNT: &str = "/sys/fs/cgroup";

/// The role whose limits are those of the floor.
const ROLE: &str = include_str!("launch.role.toml");

/// Where the role is.
pub const ROLE_FILE: &str = "/tmp/bench.role.toml";

/// Whether systemd runs this machine.
pub fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The directory that holds sessions, and everything that is measured beside them.
pub fn parent() -> String {
    format!("{MOUNT}{}", parent_group())
}

/// The same as a group's path in the hierarchy.
pub fn parent_group() -> &'static str {
    if is_systemd() {
        "/workloads.slice/cgmgr-sessions.scope"
    } else {
        "/workloads.slice"
    }
}

/// Writes the role, installs the sessions' unit where systemd wants one, and applies the role.
pub fn make_ready() -> Result<(), String> {
    std::fs::write(ROLE_FILE, ROLE).map_err(|e| format!("cannot write {ROLE_FILE}: {e}"))?;
    if is_systemd() {
        run(Command::new("cgmgr").args(["install", "--minimal"]))?;
    }
    run(Command::new("cgmgr").args(["apply", ROLE_FILE]))
}

/// Whether cgmgr has a command of this name.
pub fn has_command(name: &str) -> bool {
    run(Command::new("cgmgr").args([name, "--help"])).is_ok()
}

/// Runs a command to its end. A failure is an error that has what it said.
pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot start {command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Runs a command to its end with nothing captured: what is measured has no pipes of ours to fill.
pub fn run_bare(command: &mut Command) -> Result<(), String> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("cannot start {command:?}: {e}"))?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| format!("{command:?}: {status}"))
}
