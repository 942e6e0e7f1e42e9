//! The Compose file of `cgmgr translate --to compose ROLE`, beside another one.

use std::path::Path;
use std::process::Command;

use cgmgr::limits::Engine;

use super::docker::{IMAGE, instead, protects, ready};
use super::held::Sleeper;
use super::roles::{EVERYTHING, Role, Wrong};
use crate::cgmgr::{Done, cgmgr, finish};
use crate::lab::{Lab, examples};

/// Where Debian 13 has it, as a plugin of docker's; Debian 12 has a program of its own.
const PLUGIN: &str = "/usr/libexec/docker/cli-plugins/docker-compose";

fn compose(files: &[&str], words: &[&str]) -> Done {
    let mut command = if Path::new(PLUGIN).exists() {
        let mut command = Command::new("docker");
        command.arg("compose");
        command
    } else {
        Command::new("docker-compose")
    };
    command.args(["--project-name", "lab"]);
    for file in files {
        command.args(["--file", file]);
    }
    finish(command.args(words))
}

#[test]
fn a_service_is_held_to_what_a_session_is_but_for_what_is_lost() {
    let lab = Lab::new();
    ready();
    let mut wrong = Wrong::default();
    for role in [Role::example("rust"), Role::own(&lab, EVERYTHING)] {
        let said = role.to(Engine::Compose, &["--image", IMAGE]);
        let limits = lab.file("limits.yaml", said.text());
        let services = said.text().split_once("services:\n  ").expect("services").1;
        let (service, _) = services.split_once(':').expect("a name");
        let sleeper = Sleeper::new();
        let [name, seconds] = sleeper.words();
        let base = lab.file(
            "base.yaml",
            &format!(
                "services:\n  {service}:\n    image: {IMAGE}\n    network_mode: none\n    command: [{name}, '{seconds}']\n"
            ),
        );
        let files = [base.as_str(), &limits];
        compose(&files, &["up", "--detach"]).expect(0);
        let theirs = sleeper.held();
        compose(&files, &["kill"]).expect(0);
        compose(&files, &["rm", "--force"]).expect(0);
        wrong.compare(&role, &said, &theirs, instead);
        protects(&mut wrong, &role, &theirs);
    }
}

#[test]
fn compose_takes_what_is_written_for_every_example() {
    let lab = Lab::new();
    let files: Vec<String> = examples()
        .iter()
        .enumerate()
        .map(|(number, path)| {
            let role = path.display().to_string();
            let said = cgmgr(&["translate", "--to", "compose", &role]).expect(0);
            lab.file(&format!("{number}.yaml"), &said.out)
        })
        .collect();
    // Each has a service of its own: together they are one file.
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let services = compose(&files, &["config", "--services"]).expect(0);
    assert_eq!(services.out.lines().count(), files.len(), "{services:#?}");
    compose(&files, &["config", "--quiet"]).expect(0);
}

/// Else it would say nothing that ours is taken.
#[test]
fn a_file_with_a_key_that_there_is_not_is_refused() {
    let lab = Lab::new();
    for key in [
        "memory_high: 64m",
        "oom_group: true",
        "nice: 5",
        "cpu_weight: 250",
    ] {
        let text = format!("services:\n  x:\n    image: {IMAGE}\n    {key}\n");
        let file = lab.file("wrong.yaml", &text);
        let done = compose(&[&file], &["config", "--quiet"]);
        assert_ne!(done.status, 0, "{key}: {done:#?}");
        done.says(key.split(':').next().unwrap_or_default());
    }
}
