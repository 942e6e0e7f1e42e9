//! The config.json of `cgmgr translate --to oci --merge config.json ROLE`, run by crun and by runc.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use cgmgr::limits::{Engine, KnobId};
use serde_json::{Value as Json, json};

use super::held::{Held, Sleeper};
use super::roles::{Case, EVERYTHING, ODD, Role, Said, Wrong};
use crate::cgmgr::finish;
use crate::lab::{Lab, must, read};

/// A root file system with one program in it.
pub fn root(path: &str) -> String {
    fs::create_dir_all(format!("{path}/bin")).expect("a folder");
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).is_file());
    fs::copy(busybox.expect("busybox"), format!("{path}/bin/busybox")).expect("a copy");
    for name in ["sleep", "true"] {
        let _ = symlink("busybox", format!("{path}/bin/{name}"));
    }
    path.to_owned()
}

/// A bundle whose config.json the runtime itself wrote, but for what is to run.
fn bundle(runtime: &str, folder: &str, sleeper: &Sleeper, by_systemd: bool) -> String {
    let _ = fs::remove_dir_all(folder);
    root(&format!("{folder}/rootfs"));
    finish(Command::new(runtime).arg("spec").current_dir(folder)).expect(0);
    let path = format!("{folder}/config.json");
    let mut config: Json = serde_json::from_str(&read(&path)).expect("JSON");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(sleeper.words());
    config["linux"]["cgroupsPath"] = json!(if by_systemd {
        "system.slice:lab:theirs"
    } else {
        "/lab-theirs"
    });
    fs::write(&path, config.to_string()).expect("a file");
    path
}

/// What is held, and what was said for it.
fn through(runtime: &str, options: &[&str], lab: &Lab, role: &Role) -> (Said, Held) {
    let folder = lab.path("bundle");
    let sleeper = Sleeper::new();
    let config = bundle(runtime, &folder, &sleeper, !options.is_empty());
    let said = role.to(Engine::Oci, &["--merge", &config]);
    fs::write(&config, said.text()).expect("a file");
    let errors = lab.path("errors");
    let mut command = Command::new(runtime);
    command
        .args(options)
        .args(["run", "--detach", "theirs"])
        .current_dir(&folder);
    // It hands down what it has: a pipe would be held open for as long as the container lives.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&errors).expect("a file"));
    let status = command.status().expect("a runtime");
    assert!(status.success(), "{runtime} {}: {}", role.path, read(&errors));
    let held = sleeper.held();
    finish(Command::new(runtime).args(["delete", "--force", "theirs"])).expect(0);
    sleeper.is_over();
    (said, held)
}

/// What crun 1.8, which is Debian 12's, makes of a scope of systemd's: its limits are those of a group inside.
pub fn inside_a_scope(case: &Case<'_>) -> Option<String> {
    if must("CGMGR_LAB_DISTRO") != "12" {
        return None;
    }
    match case.id {
        KnobId::Pids => {
            let show = ["show", "--property=DefaultTasksMax", "--value"];
            let default = finish(Command::new("systemctl").args(show)).expect(0);
            let default: u64 = default.out.trim().parse().expect("a number");
            let wanted = case.ours.parse().unwrap_or(u64::MAX);
            Some(default.min(wanted).to_string())
        }
        KnobId::IoWeight => Some("default 100".to_owned()),
        _ => None,
    }
}

/// Whether a runtime reads `process.scheduler`: runc from 1.2 on, crun from 1.9 on.
fn reads_nice(runtime: &str) -> bool {
    runtime == "crun" && must("CGMGR_LAB_DISTRO") != "12"
}

/// The nice value is where the note says that it is.
fn compare(
    wrong: &mut Wrong,
    role: &Role,
    runtime: &str,
    (said, theirs): (Said, Held),
    instead: impl Fn(&Case<'_>) -> Option<String>,
) {
    wrong.compare(role, &said, &theirs, |case| match (case.id, case.declared) {
        (KnobId::Nice, Some(_)) if reads_nice(runtime) => Some(case.ours.to_owned()),
        (KnobId::Nice, Some(_)) => {
            assert!(
                case.said.notes("crun from 1.9"),
                "nothing is said of old runtimes"
            );
            Some("0".to_owned())
        }
        _ => instead(case),
    });
}

#[test]
fn crun_holds_every_role_as_a_session_is_held() {
    let lab = Lab::new();
    let mut wrong = Wrong::default();
    for role in Role::all(&lab) {
        let found = through("crun", &[], &lab, &role);
        compare(&mut wrong, &role, "crun", found, |_| None);
    }
}

#[test]
fn so_do_crun_through_systemd_and_runc() {
    let lab = Lab::new();
    let mut wrong = Wrong::default();
    for role in [
        Role::example("rust"),
        Role::own(&lab, EVERYTHING),
        Role::own(&lab, ODD),
    ] {
        let found = through("crun", &["--systemd-cgroup"], &lab, &role);
        compare(&mut wrong, &role, "crun", found, inside_a_scope);
        let found = through("runc", &[], &lab, &role);
        compare(&mut wrong, &role, "runc", found, |_| None);
    }
}
