//! Users of the machine.

use std::process::Command;

use crate::cgmgr::finish;
use crate::lab::read;

/// The user `coder` with uid and gid 1000 and no other group: made where the machine does not have him.
pub fn coder() {
    if read("/etc/passwd")
        .lines()
        .any(|line| line.starts_with("coder:x:1000:1000:"))
    {
        return;
    }
    let mut add = Command::new("useradd");
    add.args([
        "--uid",
        "1000",
        "--user-group",
        "--create-home",
        "--shell",
        "/bin/bash",
        "coder",
    ]);
    finish(&mut add).expect(0);
}
