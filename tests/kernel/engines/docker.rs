//! `docker run $(cgmgr translate --to docker ROLE)`.

use std::fs;
use std::process::Command;
use std::sync::Once;

use cgmgr::limits::{Engine, KnobId, Value};
use cgmgr::translate::weights;

use super::held::{Held, Sleeper};
use super::oci::root;
use super::roles::{ALONE, Case, EVERYTHING, LITTLE, ODD, Role, Said, Wrong};
use crate::cgmgr::{Done, finish};
use crate::lab::{Lab, must};

/// The image, imported from one file.
pub const IMAGE: &str = "localhost/lab:latest";

/// Nothing here needs a network, and this kernel has no bridges to filter.
const DAEMON: &str = r#"{ "bridge": "none", "iptables": false, "ip6tables": false }"#;

static READY: Once = Once::new();

/// Docker's daemon, and the image in it.
pub fn ready() {
    READY.call_once(|| {
        fs::create_dir_all("/etc/docker").expect("a folder");
        fs::write("/etc/docker/daemon.json", DAEMON).expect("a file");
        let started = finish(Command::new("systemctl").args(["start", "docker.service"]));
        if started.status != 0 {
            let journal = Command::new("journalctl")
                .args(["-n", "60", "--no-pager"])
                .output();
            panic!("{started:#?}\n{journal:?}");
        }
        let root = root("/var/tmp/docker-image");
        import("docker", &root);
    });
}

/// An image of a root, in an engine that imports archives.
pub fn import(engine: &str, root: &str) {
    let script = format!("set -o pipefail; tar -C {root} -c . | {engine} import - {IMAGE}");
    finish(Command::new("bash").args(["-c", &script])).expect(0);
}

fn docker(words: &[&str]) -> Done {
    finish(Command::new("docker").args(words))
}

/// What a container with these options is held to, and what after systemd has read its units anew.
fn through(options: &[&str]) -> [Held; 2] {
    ready();
    let sleeper = Sleeper::new();
    let mut words = vec!["run", "--detach", "--name", "theirs", "--network", "none"];
    words.extend(options);
    words.push(IMAGE);
    words.extend(sleeper.words());
    let started = docker(&words).expect(0);
    // It says so where it leaves a limit away.
    started.says_nothing_of("discarded");
    let held = sleeper.held();
    finish(Command::new("systemctl").arg("daemon-reload")).expect(0);
    let later = sleeper.held();
    docker(&["rm", "--force", "theirs"]).expect(0);
    [held, later]
}

/// What docker and runc do instead, for compose too.
pub fn instead(case: &Case<'_>) -> Option<String> {
    let weight = |value: &Value| match value {
        Value::Weight(weight) => weight.get(),
        _ => panic!("{value:?} is no weight"),
    };
    // Docker says nothing of it to systemd.
    if case.id == KnobId::Pids && case.declared.and_then(Value::count).is_none() {
        let told = case.loss.is_some() || case.said.notes("without pids");
        assert!(told, "nothing is said of DefaultTasksMax");
        let show = ["show", "--property=DefaultTasksMax", "--value"];
        let default = finish(Command::new("systemctl").args(show)).expect(0);
        return Some(default.out.trim().to_owned());
    }
    let why = case.loss?;
    let found = match (case.id, case.declared?) {
        // Docker refuses so little.
        (KnobId::MemoryMax | KnobId::MemorySwapMax, _) => "max".to_owned(),
        (KnobId::MemoryHigh, _) => "max".to_owned(),
        (KnobId::OomGroup | KnobId::Nice, _) => "0".to_owned(),
        // Both distributions have a runc that is older than 1.3.2.
        (KnobId::CpuWeight, value) => weights::old_weight_of(weights::shares_of(weight(value))).to_string(),
        (KnobId::IoWeight, value) => format!("default {}", weights::io_of(weights::blkio_of(weight(value)))),
        _ => return None,
    };
    if let KnobId::CpuWeight | KnobId::IoWeight = case.id {
        let number = found.trim_start_matches("default ");
        let told = why.split([' ', ',']).any(|word| word == number);
        assert!(told, "{number} is not in: {why}");
    }
    Some(found)
}

/// What becomes of a soft limit there: so much is protected.
pub fn protects(wrong: &mut Wrong, role: &Role, theirs: &Held) {
    let expected = match role.settings.value(KnobId::MemoryHigh) {
        Some(Value::Memory(max)) if max.at().is_some() => role.ours.knob(KnobId::MemoryHigh),
        _ => "0",
    };
    let found = theirs.file("memory.low");
    wrong.unless(found == expected, || {
        format!("{}: memory.low is {found}, and was to be {expected}", role.path)
    });
}

/// What systemd makes of a container's limits when it reads its units anew: nothing, or, on Debian 12, what is told.
fn reloaded(held: &Held, said: &Said) -> Held {
    let mut later = held.clone();
    if must("CGMGR_LAB_DISTRO") != "12" {
        return later;
    }
    let mut undo = |id: KnobId, value: &str, told: &str| {
        assert!(said.notes(told), "nothing is said of `{told}`");
        later = later.clone().with(id, value);
    };
    if held.knob(KnobId::MemorySwapMax) == "0" {
        undo(
            KnobId::MemorySwapMax,
            "max",
            "daemon-reload` undoes memory_swap_max = 0",
        );
    }
    if held.knob(KnobId::IoWeight) != "default 100" {
        undo(KnobId::IoWeight, "default 100", "io_weight");
    }
    let quota = held
        .knob(KnobId::Cpus)
        .split_once(' ')
        .and_then(|(quota, _)| quota.parse::<u64>().ok());
    if let Some(quota) = quota.filter(|quota| quota % 1_000 != 0) {
        let whole = format!("{} 100000", quota.next_multiple_of(1_000));
        undo(KnobId::Cpus, &whole, "the fraction of a per cent of cpus");
    }
    later
}

#[test]
fn a_container_is_held_to_what_a_session_is_but_for_what_is_lost() {
    let lab = Lab::new();
    let mut wrong = Wrong::default();
    let roles = ["rust", "ci-small", "batch-background"].map(Role::example);
    let own = [EVERYTHING, ODD, ALONE, LITTLE].map(|own| Role::own(&lab, own));
    for role in roles.iter().chain(&own) {
        let said = role.to(Engine::Docker, &[]);
        let [theirs, later] = through(&said.words());
        wrong.compare(role, &said, &theirs, instead);
        protects(&mut wrong, role, &theirs);
        let expected = reloaded(&theirs, &said);
        wrong.unless(expected == later, || {
            format!("{}: a reload made {later:?} of {theirs:?}", role.path)
        });
    }
}

#[test]
fn what_is_lost_cannot_be_said_to_docker() {
    ready();
    let refuses = |option: &str, why: &str| {
        let words = ["run", "--rm", "--network", "none", option, IMAGE, "true"];
        docker(&words).expect(125).says(why);
    };
    for option in [
        "--memory-high=64m",
        "--cgroup-conf=memory.high=67108864",
        "--cgroup-conf=memory.oom.group=1",
        "--oom-group=1",
        "--nice=5",
        "--cpu-weight=250",
        "--io-weight=40",
    ] {
        refuses(option, "unknown flag");
    }
    refuses("--memory=5242880", "6MB");
    refuses("--cpus=9", "8");
}
