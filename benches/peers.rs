//! The other ways to run a command under the same five limits.

use crate::machine::{self, run_bare};
use std::fs;
use std::process::Command;

const BUNDLE: &str = "/tmp/bench.bundle";

/// `systemd-run --scope`. OOMPolicy is a property of scopes since systemd 253; before, the limit is left out.
pub fn systemd_run() -> Result<(), String> {
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--scope", "--collect", "--slice=workloads.slice"]);
    for property in ["MemoryHigh=64M", "MemoryMax=96M", "CPUQuota=200%", "TasksMax=64"] {
        command.args(["-p", property]);
    }
    if std::env::var("CGMGR_LAB_SYSTEMD").is_ok_and(|v| v != "252") {
        command.args(["-p", "OOMPolicy=kill"]);
    }
    run_bare(command.arg("/bin/true"))
}

/// The four commands of cgroup-tools.
pub fn cgexec(name: &str) -> Result<(), String> {
    let group = format!("{}/{name}", machine::parent_group().trim_start_matches('/'));
    let both = format!("cpu,memory,pids:{group}");
    run_bare(Command::new("cgcreate").args(["-g", &both]))?;
    let mut set = Command::new("cgset");
    for setting in [
        "memory.high=67108864",
        "memory.max=100663296",
        "cpu.max=200000 100000",
        "pids.max=64",
        "memory.oom.group=1",
    ] {
        set.args(["-r", setting]);
    }
    run_bare(set.arg(&group))?;
    run_bare(Command::new("cgexec").args(["-g", &both, "/bin/true"]))?;
    run_bare(Command::new("cgdelete").args(["-g", &both]))
}

/// Writes the bundle that crun runs: the machine's own root, no namespace that can be left out.
pub fn make_bundle(name: &str) -> Result<(), String> {
    let group = machine::parent_group();
    let config = format!(
        r#"{{"ociVersion": "1.0.2",
 "process": {{"terminal": false, "user": {{"uid": 0, "gid": 0}}, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/"}},
 "root": {{"path": "{BUNDLE}/rootfs", "readonly": false}},
 "mounts": [],
 "linux": {{"cgroupsPath": "{group}/{name}", "namespaces": [{{"type": "mount"}}],
  "resources": {{"memory": {{"limit": 100663296}}, "cpu": {{"quota": 200000, "period": 100000}}, "pids": {{"limit": 64}},
   "unified": {{"memory.high": "67108864", "memory.oom.group": "1"}}}}}}}}"#
    );
    let rootfs = format!("{BUNDLE}/rootfs");
    fs::create_dir_all(&rootfs).map_err(|e| format!("cannot make {rootfs}: {e}"))?;
    machine::run(Command::new("mount").args(["--bind", "/", &rootfs]))?;
    fs::write(format!("{BUNDLE}/config.json"), config).map_err(|e| format!("cannot write the bundle: {e}"))
}

/// `crun run`, writing cgroupfs itself.
pub fn crun(name: &str) -> Result<(), String> {
    run_bare(Command::new("crun").args(["--cgroup-manager=cgroupfs", "run", "--bundle", BUNDLE, name]))
}
