//! Killed between the change of a drop-in and systemd's reading it: the files say what is declared, the kernel does not.

use std::fs;

use crate::cgmgr::{cgmgr, command};
use crate::lab::{Lab, read, workloads};
use crate::tracer::{Fault, trace};

/// Runs cgmgr, and kills it where it turns to systemd with a drop-in changed.
fn killed(words: &[&str]) -> i32 {
    let mut changed = false;
    let traced = trace(
        &mut command(words),
        None,
        &mut |call| {
            let changes = ["rename", "unlink"].contains(&call.name.as_str());
            changed |= changes && call.about.contains("50-cgmgr.conf");
            (changed && call.name == "connect").then_some(Fault::Kill)
        },
        &|| true,
    );
    assert!(traced.hit.is_some(), "{words:?} did not turn to systemd");
    traced.status
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

    assert_eq!(killed(&["apply", &role]), 137);
    assert_eq!(ceiling(), before);
    cgmgr(&["apply", &role]).expect(0);
    assert_eq!(ceiling(), wanted);
    assert!(
        cgmgr(&["plan", &role]).expect(0).out.contains("nothing to do"),
        "a second `apply` has something to do"
    );

    // A drop-in that went is no trace of what the kernel still holds.
    assert_eq!(killed(&["apply", &open]), 137);
    assert_eq!(ceiling(), wanted);
    cgmgr(&["apply", &open]).expect(0);
    assert_eq!(ceiling(), before);

    cgmgr(&["apply", &role]).expect(0);
    assert_eq!(killed(&["down"]), 137);
    assert_eq!(ceiling(), wanted);
    cgmgr(&["down"]).expect(0);
    assert_eq!(ceiling(), before);
    nothing_left();

    // Killed where there was nothing yet, and then given up: `down` leaves nothing either.
    assert_eq!(killed(&["apply", &role]), 137);
    cgmgr(&["down"]).expect(0);
    assert_eq!(ceiling(), before);
    nothing_left();
}
