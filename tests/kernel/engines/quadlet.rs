//! The `.container` file of `cgmgr translate --to quadlet ROLE`. Debian 12's podman 4.3 is older than its generator.

use std::fs;
use std::path::Path;
use std::process::Command;

use cgmgr::limits::Engine;

use super::docker::IMAGE;
use super::held::Sleeper;
use super::podman::ready;
use super::roles::{EVERYTHING, ODD, Role, Wrong};
use crate::cgmgr::{Done, cgmgr, finish};
use crate::lab::{Lab, examples, must};

/// The generator of units.
const GENERATOR: &str = "/usr/libexec/podman/quadlet";

/// Where it looks for files.
const FILES: &str = "/etc/containers/systemd";

/// Whether there is one. Where there should be, it has to be.
fn is_there() -> bool {
    let there = Path::new(GENERATOR).exists();
    assert_eq!(there, must("CGMGR_LAB_DISTRO") != "12");
    there
}

fn systemctl(words: &[&str]) -> Done {
    finish(Command::new("systemctl").args(words))
}

fn generated() -> Done {
    finish(Command::new(GENERATOR).arg("-dryrun"))
}

#[test]
fn a_container_of_the_generators_unit_is_held_to_what_a_session_is() {
    let lab = Lab::new();
    if !is_there() {
        return;
    }
    ready();
    let mut wrong = Wrong::default();
    for role in [
        Role::example("rust"),
        Role::own(&lab, EVERYTHING),
        Role::own(&lab, ODD),
    ] {
        let said = role.to(Engine::Quadlet, &["--image", IMAGE]);
        let sleeper = Sleeper::new();
        fs::create_dir_all(format!("{FILES}/theirs.container.d")).expect("a folder");
        fs::write(format!("{FILES}/theirs.container"), said.text()).expect("a file");
        let more = format!(
            "[Container]\nNetwork=none\nPull=never\nPodmanArgs=--stop-timeout 0\nExec={}\n",
            sleeper.words().join(" ")
        );
        fs::write(format!("{FILES}/theirs.container.d/lab.conf"), more).expect("a file");
        let unit = generated().expect(0);
        wrong.unless(unit.out.contains("podman run"), || format!("{unit:#?}"));
        wrong.unless(!unit.err.contains("unsupported"), || format!("{unit:#?}"));
        systemctl(&["daemon-reload"]).expect(0);
        systemctl(&["start", "theirs.service"]).expect(0);
        let theirs = sleeper.held();
        systemctl(&["stop", "theirs.service"]).expect(0);
        fs::remove_dir_all(FILES).expect("a folder");
        systemctl(&["daemon-reload"]).expect(0);
        // A nice value is the service's, and a relative one counts from systemd's.
        wrong.compare(&role, &said, &theirs, |case| {
            case.loss.map(|_| case.ours.to_owned())
        });
    }
}

#[test]
fn the_generator_takes_what_is_written_for_every_example() {
    if !is_there() {
        return;
    }
    let _lab = Lab::new();
    fs::create_dir_all(FILES).expect("a folder");
    let examples = examples();
    for (number, path) in examples.iter().enumerate() {
        let role = path.display().to_string();
        let said = cgmgr(&["translate", "--to", "quadlet", &role]).expect(0);
        fs::write(format!("{FILES}/{number}.container"), said.out).expect("a file");
    }
    let units = generated();
    fs::remove_dir_all(FILES).expect("a folder");
    let units = units.expect(0);
    assert_eq!(
        units.out.matches("ExecStart=").count(),
        examples.len(),
        "{units:#?}"
    );
}

/// Else it would say nothing that ours is taken.
#[test]
fn a_file_with_a_key_that_there_is_not_is_refused() {
    if !is_there() {
        return;
    }
    fs::create_dir_all(FILES).expect("a folder");
    fs::write(
        format!("{FILES}/wrong.container"),
        format!("[Container]\nImage={IMAGE}\nMemoryHigh=64M\n"),
    )
    .expect("a file");
    let done = generated();
    fs::remove_dir_all(FILES).expect("a folder");
    assert_ne!(done.status, 0, "{done:#?}");
    done.says("unsupported key 'MemoryHigh'");
}
