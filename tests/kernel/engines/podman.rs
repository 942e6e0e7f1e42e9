//! `podman run $(cgmgr translate --to podman ROLE)`.

use std::process::Command;
use std::sync::Once;

use cgmgr::limits::{Engine, KnobId};

use super::docker::{IMAGE, import};
use super::held::{Held, Sleeper};
use super::oci::{inside_a_scope, root};
use super::roles::{ALONE, EVERYTHING, LITTLE, NOTHING, ODD, Role, Wrong};
use crate::cgmgr::{Done, finish};
use crate::lab::Lab;

static READY: Once = Once::new();

/// Podman, and the image in its store.
pub fn ready() {
    READY.call_once(|| import("podman", &root("/var/tmp/podman-image")));
}

fn podman(words: &[&str]) -> Done {
    finish(Command::new("podman").args(words))
}

/// What a container with these options is held to, and what after systemd has read its units anew.
fn through(options: &[&str]) -> [Held; 2] {
    ready();
    let sleeper = Sleeper::new();
    let mut words = vec!["run", "--detach", "--name", "theirs", "--network", "none"];
    words.extend(options);
    words.push(IMAGE);
    words.extend(sleeper.words());
    podman(&words).expect(0).says_nothing_of("discarded");
    let held = sleeper.held();
    finish(Command::new("systemctl").arg("daemon-reload")).expect(0);
    let later = sleeper.held();
    podman(&["rm", "--force", "--time", "0", "theirs"]).expect(0);
    [held, later]
}

#[test]
fn a_container_is_held_to_what_a_session_is_but_for_what_is_lost() {
    let lab = Lab::new();
    let mut wrong = Wrong::default();
    let roles = ["rust", "batch-background"].map(Role::example);
    let own = [EVERYTHING, ODD, ALONE, LITTLE, NOTHING].map(|own| Role::own(&lab, own));
    for role in roles.iter().chain(&own) {
        let said = role.to(Engine::Podman, &[]);
        let [theirs, later] = through(&said.words());
        wrong.unless(theirs == later, || {
            format!("{}: a reload made {later:?} of {theirs:?}", role.path)
        });
        wrong.compare(role, &said, &theirs, |case| match (case.id, case.loss) {
            (KnobId::Nice, Some(_)) => Some("0".to_owned()),
            _ => {
                assert!(case.said.notes("crun 1.8"), "nothing is said of old runtimes");
                inside_a_scope(case)
            }
        });
    }
}

#[test]
fn what_is_lost_cannot_be_said_to_podman() {
    ready();
    let words = ["run", "--rm", "--network", "none", "--nice=5", IMAGE, "true"];
    podman(&words).expect(125).says("unknown flag");
}
