//! The properties of `cgmgr translate --to systemd-run ROLE`, and the files of `--to systemd-unit`.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use cgmgr::limits::{Engine, KnobId, Part};

use super::held::Sleeper;
use super::roles::{ODD, Role, Wrong};
use crate::cgmgr::{Done, cgmgr, finish};
use crate::lab::{Lab, MOUNT, must, read};

fn systemctl(words: &[&str]) -> Done {
    finish(Command::new("systemctl").args(words))
}

/// Starts a transient service with these options, and returns its name: another one each time, for systemd still has the one
/// before when it has just been stopped.
fn start(options: &[&str], sleeper: &Sleeper) -> String {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let unit = format!("theirs-{}.service", STARTED.fetch_add(1, Ordering::Relaxed));
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--collect", "--unit", &unit]);
    finish(command.args(options).args(sleeper.words())).expect(0);
    unit
}

#[test]
fn a_transient_service_is_held_to_what_a_session_is() {
    let lab = Lab::new();
    let mut wrong = Wrong::default();
    for role in Role::all(&lab) {
        let said = role.to(Engine::SystemdRun, &[]);
        let sleeper = Sleeper::new();
        let unit = start(&said.words(), &sleeper);
        let theirs = sleeper.held();
        systemctl(&["stop", &unit]).expect(0);
        // What is told is where a nice value counts from, which is 0 here too, and what a reload does.
        wrong.compare(&role, &said, &theirs, |case| match (case.id, case.loss) {
            (KnobId::Nice | KnobId::Cpus, Some(_)) => Some(case.ours.to_owned()),
            _ => None,
        });
    }
}

/// The loss that is told of such a quota is one, before the version that is named.
#[test]
fn a_reload_takes_the_fraction_of_a_per_cent_before_systemd_257() {
    let lab = Lab::new();
    let role = Role::own(&lab, ODD);
    let said = role.to(Engine::SystemdRun, &[]);
    assert!(said.loss("cpus").is_some_and(|why| why.contains("before 257")));
    let sleeper = Sleeper::new();
    let unit = start(&said.words(), &sleeper);
    let before = sleeper.held();
    systemctl(&["daemon-reload"]).expect(0);
    let after = sleeper.held();
    systemctl(&["stop", &unit]).expect(0);
    let old = must("CGMGR_LAB_DISTRO") == "12";
    let [before, after] = [&before, &after].map(|held| held.knob(KnobId::Cpus).to_owned());
    assert_eq!(before, "123450 100000");
    assert_eq!(after, if old { "123000 100000" } else { "123450 100000" });
}

/// The files of a translation: place and content.
fn files(text: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("# "), files.last_mut()) {
            (Some(place), _) => files.push((place.to_owned(), String::new())),
            (None, Some((_, content))) => content.push_str(&format!("{line}\n")),
            (None, None) => panic!("{line} is in no file"),
        }
    }
    files
}

/// The control files of a slice, by the knobs of its part.
fn slices(role: &Role) -> Vec<(String, String)> {
    let parts = [(Part::Agent, "agent.slice"), (Part::Workloads, "workloads.slice")];
    let mut found = Vec::new();
    for (part, slice) in parts {
        for setting in role.settings.part(part) {
            let (Some(file), Some(_)) = (setting.knob.file, &setting.value) else {
                continue;
            };
            let text = read(&format!("{MOUNT}/{slice}/{file}"));
            found.push((
                setting.knob.key.to_owned(),
                text.lines().next().unwrap_or_default().to_owned(),
            ));
        }
    }
    found
}

#[test]
fn a_service_and_slices_of_unit_files_are_held_to_what_apply_and_a_session_are() {
    for name in ["rust", "agent"] {
        let (role, applied) = {
            let _lab = Lab::new();
            let role = Role::example(name);
            cgmgr(&["apply", &role.path]).expect(0);
            let applied = slices(&role);
            (role, applied)
        };
        cgmgr(&["uninstall"]).expect(0);
        let said = role.to(Engine::SystemdUnit, &[]);
        let files = files(said.text());
        let place = &files[0].0;
        let (service, _) = place.split_once(".d/").expect("a drop-in");
        let sleeper = Sleeper::new();
        let mut written = vec![service.to_owned()];
        let command = sleeper.words().join(" ");
        fs::write(service, format!("[Service]\nExecStart=/bin/{command}\n")).expect("a unit");
        for (place, content) in &files {
            let (folder, _) = place.rsplit_once('/').expect("a folder");
            fs::create_dir_all(folder).expect("a folder");
            fs::write(place, content).expect("a file");
            written.push(place.clone());
        }
        systemctl(&["daemon-reload"]).expect(0);
        let unit = service.rsplit('/').next().unwrap_or_default();
        systemctl(&["start", unit, "agent.slice", "workloads.slice"]).expect(0);
        let theirs = sleeper.held();
        let group = read(&format!("{MOUNT}/{}/cgroup.procs", slice_of(&role, unit)));
        let in_units = slices(&role);
        systemctl(&["stop", unit, "agent.slice", "workloads.slice"]).expect(0);
        for place in &written {
            fs::remove_file(place).expect("it was written");
        }
        let _ = fs::remove_dir(format!("{service}.d"));
        systemctl(&["daemon-reload"]).expect(0);

        let mut wrong = Wrong::default();
        wrong.compare(&role, &said, &theirs, |case| match (case.id, case.loss) {
            (KnobId::Nice, Some(_)) => Some(case.ours.to_owned()),
            _ => None,
        });
        wrong.unless(!group.is_empty(), || format!("{unit} is in another slice"));
        wrong.unless(in_units == applied, || {
            format!("{name}: with units {in_units:?}, after apply {applied:?}")
        });
    }
}

/// Where the service is to be: below the ceiling, where the role has one.
fn slice_of(role: &Role, unit: &str) -> String {
    let has_ceiling = role
        .settings
        .part(Part::Workloads)
        .any(|setting| setting.value.is_some() && setting.knob.file.is_some());
    let slice = if has_ceiling {
        "workloads.slice"
    } else {
        "system.slice"
    };
    format!("{slice}/{unit}")
}
