//! The same role gives the same kernel values whoever writes them: cgmgr below the delegated unit, systemd for a scope of
//! cgmgr's, and systemd-run. Where systemd rounds, that was said before anything was started.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::any::dialects::{JACKIN, MULTICODE};
use crate::cgmgr::{Live, cgmgr, finish, payload, report, until};
use crate::lab::{examples, path_of, read, variable, workloads};
use crate::readback::{entry, knob, knobs, of_session};
use crate::scoped::{FILES, Scopes, file_of, scoped, start, top_of};

/// A manifest of jackin's.
const MANIFEST: &str = r#"
version = "v1alpha2"
dockerfile = "Dockerfile"

[harness]
name = "claude"

[runtime.limits]
memory_max = "512 MiB"
memory_high = "400 MiB"
cpus = "0.5"
pids = 200
nofile = 1024

[runtime.limits.oom]
group = true
"#;

/// Every knob with a control file, and numbers that something rounds: to pages, and to whole percents.
const ODD: &str = r#"
[runtime.limits]
memory_max = "123456789"
memory_high = "100000001"
memory_swap_max = "5000001"
cpus = 1.2345
cpu_weight = 57
io_weight = 33
pids = 77

[runtime.limits.oom]
group = true
"#;

/// The least that there is of it, and nothing else.
const LEAST: &str = "[runtime.limits]\ncpus = 0.01\n";
const NOTHING: &str = "[runtime.limits]\n";

/// The first line of a control file: per-device lines follow the default's.
fn first(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next().unwrap_or("").to_owned())
}

fn version() -> u32 {
    let said = finish(Command::new("systemctl").arg("--version"));
    let number = said.out.split(' ').nth(1).and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("{said:#?}"))
}

/// What systemd-run is told for a knob, from what `explain` says of it.
fn property(knob: &Value) -> Option<String> {
    let (name, value) = (knob["systemd_property"].as_str()?, knob["value"].as_str()?);
    let value = match (knob["file"].as_str()?, value) {
        ("memory.oom.group", "1") => "kill".into(),
        ("memory.oom.group", _) => "continue".into(),
        ("cpu.max", value) => match value.split_once(' ')? {
            ("max", _) => return None,
            (quota, _) => {
                let quota: u64 = quota.parse().ok()?;
                // Per 100 ms, in µs: two digits of a percent behind the point.
                format!("{}.{:02}%", quota / 1000, quota % 1000 / 10)
            }
        },
        (_, "max") => "infinity".into(),
        (_, value) => value.strip_prefix("default ").unwrap_or(value).to_owned(),
    };
    Some(format!("--property={name}={value}"))
}

/// The same limits through systemd-run: the values of its scope's files.
fn through_systemd_run(announced: &[Value]) -> Vec<Option<String>> {
    let mut command = Command::new("systemd-run");
    command.args([
        "--quiet",
        "--scope",
        "--collect",
        "--slice=workloads.slice",
        "--unit=peer",
    ]);
    command.args(announced.iter().filter(|k| of_session(k)).filter_map(property));
    command.arg("--").arg(payload()).arg("hold");
    let mut live = Live::of("peer", &mut command);
    live.hear("ready ");
    let group = format!("{}/peer.scope", workloads());
    let found = FILES.map(|file| first(&format!("{group}/{file}")));
    live.end().expect(0);
    until("systemd has forgotten it", || !fs::exists(&group).unwrap_or(true));
    found.into()
}

/// What a session of this role finds by each way, compared.
#[track_caller]
fn compare(scopes: &Scopes, role: &str) {
    let what = format!("{role} with systemd {}", version());
    let below_unit = knobs(role);
    let mut explain = scoped(["explain", role, "--json"]);
    let foretold = finish(&mut explain).expect(0).json();
    let foretold = foretold.as_array().expect("an array");

    let mut live = Live::start("plain", &["--role", role], &["hold"]);
    live.hear("ready ");
    let delegated = FILES.map(|file| first(&format!("{}/{file}", path_of("plain"))));
    live.end().expect(0);

    let file = scopes.lab.path("report");
    let mut live = start("scoped", &["--role", role, "--report", &file], &["hold"]);
    live.hear("ready ");
    let scope = FILES.map(|file| first(&file_of("scoped", file)));
    // One more for the pin, and nobody is killed together with it.
    let tasks = read(&format!("{}/pids.max", top_of("scoped")));
    assert_eq!(
        read(&format!("{}/memory.oom.group", top_of("scoped"))),
        "0",
        "{what}"
    );
    live.end().expect(0);
    let receipt = report(&file)["receipt"].clone();
    let pids = scope[FILES.iter().position(|f| *f == "pids.max").expect("it is one")].clone();
    let one_more = pids
        .and_then(|p| p.parse::<u64>().ok())
        .map(|p| (p + 1).to_string());
    assert_eq!(tasks, one_more.unwrap_or("max".into()), "{what}");

    let peer = through_systemd_run(foretold);
    for (at, file) in FILES.iter().enumerate() {
        let row = foretold
            .iter()
            .find(|k| of_session(k) && k["file"] == *file)
            .unwrap_or_else(|| panic!("no knob for {file}"));
        let name = row["knob"].as_str().expect("a name");
        assert_eq!(row["value"], knob(&below_unit, name)["value"], "{what}: {name}");
        let effect = row["effect"].as_str().expect("a word");
        if row["value"].is_string() && row["origin"] == "role" {
            let told = entry(&receipt, name).unwrap_or_else(|| panic!("{what}: {name} not in {receipt:#}"));
            if let Some(to) = effect.strip_prefix("rounded to ") {
                assert_eq!(
                    (&told["state"], &told["detail"]),
                    (&"rounded".into(), &to.into()),
                    "{what}"
                );
            }
        }
        if scope[at] != delegated[at] {
            let said = format!("rounded to {}", scope[at].as_deref().unwrap_or("nothing"));
            assert_eq!(
                effect, said,
                "{what}: {file} was {:?} below the unit",
                delegated[at]
            );
            assert!((*file, version() < 257) == ("cpu.max", true), "{what}: {file}");
        }
        // Of a scope systemd 252 takes an OOMPolicy, and does not write it.
        let unwritten = *file == "memory.oom.group" && version() < 253;
        if !unwritten {
            assert!(
                peer[at] == scope[at] || peer[at] == delegated[at],
                "{what}: {file} of systemd-run is {:?}, ours {:?} and {:?}",
                peer[at],
                scope[at],
                delegated[at]
            );
        }
    }
}

#[test]
fn every_example_holds_the_same_however_it_is_run() {
    let scopes = Scopes::new();
    for role in examples() {
        compare(&scopes, &role.display().to_string());
    }
    scopes.nothing_left();
}

#[test]
fn every_dialect_holds_the_same_however_it_is_run() {
    let scopes = Scopes::new();
    for (name, text) in [
        ("manifest.toml", MANIFEST),
        ("jackin.toml", JACKIN),
        ("multicode.toml", MULTICODE),
        ("odd.role.toml", ODD),
        ("least.role.toml", LEAST),
        ("nothing.role.toml", NOTHING),
    ] {
        let role = scopes.lab.file(name, text);
        compare(&scopes, &role);
    }
    scopes.nothing_left();
}

#[test]
fn what_systemd_rounds_is_said_before_by_explain_plan_and_apply() {
    let scopes = Scopes::new();
    let role = scopes
        .lab
        .file("r.role.toml", "[runtime.limits]\ncpus = 1.2345\n");
    let to = match version() {
        ..257 => "124000 100000",
        _ => "123450 100000",
    };
    let rounds = to.starts_with("124");
    let explained = finish(&mut scoped(["explain", &role, "--json"])).expect(0).json();
    let row = knob(explained.as_array().expect("an array"), "cpus").clone();
    let said = if rounds {
        format!("rounded to {to}")
    } else {
        "enforced".into()
    };
    assert_eq!(row["effect"], said.as_str());
    // Below the delegated unit the group is cgmgr's.
    assert_eq!(knob(&knobs(&role), "cpus")["effect"], "enforced");

    // A live session of the role is brought along, once.
    let other = scopes.lab.file(
        "other.role.toml",
        "[role]\nname = \"r\"\n[runtime.limits]\ncpus = 2\n",
    );
    let mut live = start("followed", &["--role", &other], &["hold"]);
    live.hear("ready ");
    assert_eq!(read(&file_of("followed", "cpu.max")), "200000 100000");
    let apply = |words: &[&str]| {
        finish(&mut scoped([words, &[&role, "--json"]].concat()))
            .expect(0)
            .json()
    };
    assert_eq!(apply(&["plan"])["steps"].as_array().map(Vec::len), Some(1));
    let applied = apply(&["apply"]);
    assert_eq!(read(&file_of("followed", "cpu.max")), to);
    let entry = entry(&applied["receipt"], "cpus").expect("an entry").clone();
    assert_eq!(
        entry["state"],
        if rounds { "rounded" } else { "enforced" },
        "{applied:#}"
    );
    assert_eq!(apply(&["plan"])["steps"].as_array().map(Vec::len), Some(0));
    live.end().expect(0);
    cgmgr(&["down"]).expect(0);
    assert!(variable("CGMGR_LAB_SYSTEMD").is_none_or(|v| v == version().to_string()));
    scopes.nothing_left();
}
