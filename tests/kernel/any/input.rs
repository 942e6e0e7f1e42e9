//! Roles that are no roles.

use std::fs;
use std::process::Command;

use crate::cgmgr::{cgmgr, finish};
use crate::lab::Lab;

/// `check` calls it invalid, `run` does not start anything.
#[track_caller]
fn refused(lab: &Lab, role: &str, word: &str) {
    let marker = lab.path("marker");
    let check = cgmgr(&["check", role]).expect(2);
    check.says(word);
    let run = cgmgr(&["run", "--role", role, "--", "touch", &marker]).expect(125);
    run.says(word);
    assert!(!fs::exists(&marker).expect("a look"), "{role} ran the command");
}

#[test]
fn a_directory() {
    let lab = Lab::bare();
    refused(&lab, "/tmp", "/tmp");
}

#[test]
fn a_file_that_is_not_there() {
    let lab = Lab::bare();
    refused(&lab, "/nowhere/at-all.toml", "/nowhere/at-all.toml");
}

#[test]
fn a_fifo_does_not_hang() {
    let lab = Lab::bare();
    let fifo = lab.path("fifo");
    finish(Command::new("mkfifo").arg(&fifo)).expect(0);
    // timeout(1) ends what hangs with status 124, which is none of ours.
    let bin = crate::lab::must("CGMGR_BIN");
    let done = finish(Command::new("timeout").args(["60", &bin, "check", &fifo])).expect(2);
    done.says(&fifo);
    finish(Command::new("timeout").args(["60", &bin, "run", "--role", &fifo, "--", "true"])).expect(125);
}

#[test]
fn two_hundred_megabytes() {
    let lab = Lab::bare();
    let big = lab.path("big.role.toml");
    let file = fs::File::create(&big).expect("a file");
    file.set_len(200 << 20).expect("a sparse file");
    refused(&lab, &big, "big.role.toml");
}

#[test]
fn a_device_without_end() {
    let lab = Lab::bare();
    refused(&lab, "/dev/zero", "/dev/zero");
}

#[test]
fn bytes_that_are_no_text() {
    let lab = Lab::bare();
    let role = lab.path("latin.role.toml");
    fs::write(&role, b"[role]\nname = \"caf\xe9\"\n").expect("a file");
    refused(&lab, &role, "UTF-8");
}

#[test]
fn a_terminals_escape_sequences_stay_text() {
    let lab = Lab::bare();
    let role = lab.path("esc.role.toml");
    fs::write(&role, b"[runtime.limits]\n\"\x1b[31mred\" = 1\n").expect("a file");
    let done = cgmgr(&["check", &role]).expect(2);
    assert!(!done.err.contains('\x1b'), "{done:#?}");
    let odd = lab.path("a\x1b[31mb.role.toml");
    fs::write(&odd, b"nonsense = 1\n").expect("a file");
    let done = cgmgr(&["check", &odd]);
    assert!(
        !done.err.contains('\x1b') && !done.out.contains('\x1b'),
        "{done:#?}"
    );
}
