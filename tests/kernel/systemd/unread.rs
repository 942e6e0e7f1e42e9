//! Killed between the change of a drop-in and systemd's reading it: the files say what is declared, the kernel does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::cgmgr::{Done, cgmgr, command, finish};
use crate::lab::{Lab, read, workloads};

/// Runs cgmgr where `systemctl` kills whoever calls it.
fn killed(lab: &Lab, words: &[&str]) -> Done {
    let fake = lab.file("systemctl", "#!/bin/sh\nkill -KILL $PPID\n");
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    let path = format!(
        "{}:{}",
        fake.trim_end_matches("/systemctl"),
        crate::lab::must("PATH")
    );
    finish(command(words).env("PATH", path))
}

fn ceiling() -> String {
    read(&format!("{}/memory.max", workloads()))
}

fn nothing_left() {
    for slice in ["agent", "workloads"] {
        let folder = format!("/run/systemd/system/{slice}.slice.d");
        let left: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn what_systemd_was_not_told_of_the_next_apply_and_down_tell_it() {
    let lab = Lab::new();
    let before = ceiling();
    let wanted = (400 << 20).to_string();
    let role = lab.file("w.role.toml", "[workloads]\nmemory_max = \"400 MiB\"\n");
    let open = lab.file("o.role.toml", "[agent]\ncpu_weight = 200\n");

    assert_eq!(killed(&lab, &["apply", &role]).status, 137);
    assert_eq!(ceiling(), before);
    cgmgr(&["apply", &role]).expect(0);
    assert_eq!(ceiling(), wanted);
    assert!(
        cgmgr(&["plan", &role]).expect(0).out.contains("nothing to do"),
        "a second `apply` has something to do"
    );

    // A drop-in that went is no trace of what the kernel still holds.
    assert_eq!(killed(&lab, &["apply", &open]).status, 137);
    assert_eq!(ceiling(), wanted);
    cgmgr(&["apply", &open]).expect(0);
    assert_eq!(ceiling(), before);

    cgmgr(&["apply", &role]).expect(0);
    assert_eq!(killed(&lab, &["down"]).status, 137);
    assert_eq!(ceiling(), wanted);
    cgmgr(&["down"]).expect(0);
    assert_eq!(ceiling(), before);
    nothing_left();

    // Killed where there was nothing yet, and then given up: `down` leaves nothing either.
    assert_eq!(killed(&lab, &["apply", &role]).status, 137);
    cgmgr(&["down"]).expect(0);
    assert_eq!(ceiling(), before);
    nothing_left();
}
