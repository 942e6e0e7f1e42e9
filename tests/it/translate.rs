//! Translations: every example in every form beside what was looked at and kept, losses that are true, the predecessors'
//! own words, and documents that an independent reader takes. `CGMGR_REWRITE=1 cargo test translate` writes the kept ones anew.

use std::path::{Path, PathBuf};

use cgmgr::files;
use cgmgr::host::{Machine, Tasks};
use cgmgr::limits::{Engine, KNOBS, Knob, Origin, Part, Settings};
use cgmgr::role::{Overrides, Role};
use cgmgr::translate::{Options, Translation, translate};
use oci_spec::runtime::{LinuxSchedulerPolicy, PosixRlimitType, Spec};
use serde_json::{Value as Json, json};

use crate::roles::examples;

/// The machine that percentages of the kept translations are of.
fn machine() -> Machine {
    Machine {
        mem_total: 64 << 30,
        swap_total: 0,
        page_size: 4096,
        cpus: 16,
        tasks: Tasks::Known(500_000),
    }
}

fn role(path: &Path) -> Role {
    let resolved = files::resolve(path, &machine(), &Overrides::default(), &|_| None);
    let (role, _) = resolved.expect("a file").expect("a role");
    role
}

fn role_of(name: &str, text: &str) -> Role {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("translate");
    std::fs::create_dir_all(&directory).expect("a directory for the test");
    let path = directory.join(format!("{name}.role.toml"));
    std::fs::write(&path, text).expect("a file for the test");
    role(&path)
}

fn to(engine: Engine, role: &Role) -> Translation {
    translate(&role.name, &role.settings, engine, Options::default()).expect("nothing to merge with")
}

/// All that a translation says.
fn shown(translation: &Translation) -> String {
    let mut text = format!("=== {} ===\n{}", translation.engine.name(), translation.text);
    for loss in &translation.losses {
        text.push_str(&format!(
            "lost: {} = {}\n    {}\n    {}\n",
            loss.knob, loss.value, loss.why, loss.instead
        ));
    }
    for note in &translation.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

#[test]
fn every_example_in_every_form_is_as_it_was_kept() {
    let mut differ = Vec::new();
    for path in examples() {
        let role = role(&path);
        let text: String = Engine::ALL.map(|engine| shown(&to(engine, &role))).join("\n");
        let file = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .replace(".role.toml", ".txt");
        let kept = Path::new("tests/translations").join(file);
        if std::env::var_os("CGMGR_REWRITE").is_some() {
            std::fs::write(&kept, &text).expect("tests/translations is there");
        }
        let known = std::fs::read_to_string(&kept).unwrap_or_default();
        for (line, (now, then)) in text
            .lines()
            .zip(known.lines().chain(std::iter::repeat("")))
            .enumerate()
        {
            if now != then {
                differ.push(format!(
                    "{}:{}:\n  now  {now}\n  then {then}",
                    kept.display(),
                    line + 1
                ));
                break;
            }
        }
        if text.len() < known.len() {
            differ.push(format!("{} has more than is said now", kept.display()));
        }
    }
    assert!(
        differ.is_empty(),
        "{}\nlook at what differs; if it is right: CGMGR_REWRITE=1 cargo test translate",
        differ.join("\n")
    );
}

#[test]
fn texts_end_with_a_newline_and_are_the_same_every_time() {
    for path in examples() {
        let role = role(&path);
        for engine in Engine::ALL {
            let first = to(engine, &role);
            assert!(
                first.text.is_empty() || first.text.ends_with('\n'),
                "{}",
                engine.name()
            );
            assert_eq!(first, to(engine, &role));
        }
    }
}

#[test]
fn what_goes_into_a_command_line_needs_no_quotes() {
    for path in examples() {
        let role = role(&path);
        for engine in [
            Engine::Docker,
            Engine::Podman,
            Engine::SystemdRun,
            Engine::AppleContainer,
        ] {
            let text = to(engine, &role).text;
            let odd = text
                .trim_end()
                .chars()
                .find(|c| !c.is_ascii_alphanumeric() && !" -=.:%_".contains(*c));
            assert_eq!(odd, None, "{text}");
        }
    }
}

/// A value of a knob that nobody has by default.
fn unusual(knob: &Knob) -> &'static str {
    match knob.name() {
        "memory_high" => "512 MiB",
        "memory_max" | "memory_min" | "memory_low" => "1 GiB",
        "memory_swap_max" => "2 GiB",
        "cpus" => "2",
        "cpu_weight" | "io_weight" => "200",
        "pids" => "300",
        "nofile" => "400",
        "nice" => "5",
        "oom_score_adj" => "600",
        "admission" => "warn",
        "stall" => "kill",
        _ => "true",
    }
}

/// Settings with these knobs.
fn with(knobs: &[&'static Knob]) -> Settings {
    let mut settings = Settings::none();
    for knob in knobs {
        let value = knob.parse(unusual(knob), &machine()).expect("a value");
        settings.set(knob.id, value, Origin::Flag("--x".into()));
    }
    settings
}

fn text_of(engine: Engine, knobs: &[&'static Knob]) -> Translation {
    translate("x", &with(knobs), engine, Options::default()).expect("nothing to merge with")
}

/// A knob that is lost as a whole is not in the text; one that has a name there is, and where that is not exact both.
#[test]
fn losses_are_true() {
    let memory = cgmgr::limits::KnobId::MemoryMax.knob();
    for engine in Engine::ALL {
        for knob in KNOBS {
            // The kubelet's own value is true: `what_holds_anyway_is_no_loss` has the other one.
            if (engine, knob.key) == (Engine::Kubernetes, "oom_group") {
                continue;
            }
            // Docker counts swap and memory together; for Apple's container a soft limit alone is the machine's size.
            let beside: &[&'static Knob] = if matches!(knob.key, "memory_swap_max" | "memory_high") {
                &[memory]
            } else {
                &[]
            };
            let alone = text_of(engine, beside);
            let both: Vec<&'static Knob> = beside.iter().copied().chain([knob]).collect();
            let said = text_of(engine, &both);
            let lost: Vec<&str> = said.losses.iter().map(|loss| loss.knob.as_str()).collect();
            let what = format!("{} --to {}", knob.key, engine.name());
            let own_key = lost.contains(&knob.key);
            let part = knob.part.to_string();
            let placed = match (engine, knob.part) {
                (_, Part::Session) => knob.at(engine).is_some(),
                (Engine::SystemdUnit, _) => knob.at(engine).is_some() && !knob.is_on_process(),
                (Engine::Kubernetes, _) => knob.at(engine).is_some(),
                _ => false,
            };
            if placed {
                assert_ne!(said.text, alone.text, "{what}: nothing is said");
                assert!(!lost.contains(&part.as_str()), "{what}: {lost:?}");
            } else {
                assert_eq!(said.text, alone.text, "{what}: it is said, and told as lost");
                assert!(
                    own_key || lost.contains(&part.as_str()),
                    "{what}: it is lost without a word"
                );
            }
            for loss in &said.losses {
                assert!(
                    !loss.why.is_empty() && !loss.instead.is_empty() && !loss.value.is_empty(),
                    "{loss:?}"
                );
            }
        }
    }
}

/// What a program has by itself need not be said, and is no loss.
#[test]
fn what_holds_anyway_is_no_loss() {
    let text = "[runtime.limits]\nmemory_high = \"max\"\nmemory_max = \"max\"\ncpus = \"max\"\npids = \"max\"\ncpu_weight = 100\n\
                io_weight = 100\n[runtime.limits.oom]\ngroup = false\n";
    let role = role_of("defaults", text);
    for engine in Engine::ALL {
        let losses = to(engine, &role).losses;
        let expected = match engine {
            // The kubelet switches memory.oom.group on, and docker leaves the number of tasks to systemd.
            Engine::Kubernetes | Engine::Docker | Engine::Compose => 1,
            _ => 0,
        };
        assert_eq!(losses.len(), expected, "{}: {losses:?}", engine.name());
    }
}

/// jackin's docker_profile.rs has these flags in this order (predecessors J13, profiles J4).
#[test]
fn j4_j13_jackins_flags_come_out_as_jackin_writes_them() {
    let profiles = [
        (
            "locked",
            "--memory 4294967296 --memory-reservation 3221225472 --cpus 2 --pids-limit 512 --ulimit nofile=2048:2048",
        ),
        (
            "hardened",
            "--memory 17179869184 --memory-reservation 12884901888 --cpus 4 --pids-limit 2048 --ulimit nofile=8192:8192",
        ),
        (
            "standard",
            "--memory 17179869184 --memory-reservation 12884901888 --cpus 4 --pids-limit 2048 --ulimit nofile=8192:8192",
        ),
        ("compat", ""),
    ];
    for (profile, flags) in profiles {
        let role = role_of(profile, &format!("[docker]\nprofile = \"{profile}\"\n"));
        let text = to(Engine::Docker, &role).text;
        let words: Vec<&str> = text.split_whitespace().collect();
        // jackin leaves swap open, and docker then allows as much as memory; a role's memory_max is without swap.
        let swap = words.iter().position(|word| *word == "--memory-swap");
        let rest: Vec<&str> = match swap {
            Some(at) => {
                assert_eq!(words[at + 1], words[1], "{text}");
                [&words[..at], &words[at + 2..]].concat()
            }
            None => words,
        };
        assert_eq!(rest.join(" "), flags, "{profile}");
    }
    let widened = role(Path::new("examples/jackin-grants.role.toml"));
    assert_eq!(
        to(Engine::Docker, &widened).text,
        "--memory 6442450944 --memory-reservation 5368709120 --memory-swap 6442450944 --cpus 2.5 --pids-limit 1024 \
         --ulimit nofile=2048:2048\n"
    );
}

/// multicode's runtime.rs has these arguments of systemd-run in this order (predecessors U8), and for Apple's container
/// these (U14, U15).
#[test]
fn u8_u14_multicodes_arguments_come_out_as_multicode_writes_them() {
    let rows = [
        (
            "memory-high = \"6 GiB\"\nmemory-max = \"8 GiB\"\ncpu = \"300%\"\n",
            "-p MemoryHigh=6442450944 -p MemoryMax=8589934592 -p MemorySwapMax=0 -p CPUQuota=300% ",
            "--cpus 3 --memory 8589934592\n",
        ),
        (
            "memory-high = \"12 GB\"\n",
            "-p MemoryHigh=12000000000 ",
            "--memory 12000000000\n",
        ),
        (
            "memory-max = \"512 MiB\"\n",
            "-p MemoryMax=536870912 -p MemorySwapMax=0 ",
            "--memory 536870912\n",
        ),
        ("cpu = \"150%\"\n", "-p CPUQuota=150% ", "--cpus 2\n"),
    ];
    for (text, systemd_run, apple) in rows {
        let role = role_of("multicode", &format!("[isolation]\n{text}"));
        let said = to(Engine::SystemdRun, &role).text;
        // What follows is what multicode leaves to systemd's defaults.
        assert_eq!(
            said,
            format!("{systemd_run}-p TasksMax=infinity -p OOMPolicy=continue\n")
        );
        assert_eq!(to(Engine::AppleContainer, &role).text, apple);
    }
}

/// A config.json as `runc spec` makes one, with other limits in it.
fn config() -> Json {
    let mut config = serde_json::to_value(Spec::default()).expect("JSON");
    config["linux"]["resources"] = json!({
        "devices": [{ "allow": false, "access": "rwm" }],
        "memory": { "limit": 1, "swap": 2, "swappiness": 10 },
        "cpu": { "shares": 512, "cpus": "0-1" },
        "unified": { "pids.max": "7", "memory.low": "5" },
    });
    config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
    ]);
    config
}

#[test]
fn an_independent_reader_finds_the_limits_in_config_json() {
    let role = role(Path::new("examples/rust.role.toml"));
    // Made once: its lists come out of sets, in any order.
    let mut before = config();
    let options = Options {
        merge: Some(before.clone()),
        ..Options::default()
    };
    let merged = translate(&role.name, &role.settings, Engine::Oci, options).expect("a config.json");
    let spec: Spec = serde_json::from_str(&merged.text).expect("a Spec");
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().clone())
        .expect("resources");
    let memory = resources.memory().expect("memory");
    assert_eq!(
        (memory.limit(), memory.swap(), memory.swappiness()),
        (Some(16 << 30), Some(16 << 30), Some(10))
    );
    let cpu = resources.cpu().clone().expect("cpu");
    assert_eq!(
        (cpu.quota(), cpu.period(), cpu.shares()),
        (Some(300_000), Some(100_000), None)
    );
    assert_eq!(cpu.cpus().as_deref(), Some("0-1"));
    let pids = serde_json::to_value(resources.pids()).expect("JSON");
    assert_eq!(pids, json!({ "limit": 4096 }));
    let unified = resources.unified().clone().expect("unified");
    for (file, value) in [
        ("memory.high", "12884901888"),
        ("memory.oom.group", "1"),
        ("cpu.weight", "100"),
        ("io.weight", "100"),
        ("memory.low", "5"),
    ] {
        assert_eq!(unified.get(file).map(String::as_str), Some(value), "{file}");
    }
    // It said the same as pids.limit.
    assert_eq!(unified.get("pids.max"), None);
    let process = spec.process().clone().expect("process");
    assert_eq!(process.oom_score_adj(), Some(998));
    let scheduler = process.scheduler().clone().expect("scheduler");
    assert_eq!(
        (*scheduler.nice(), *scheduler.policy()),
        (Some(5), LinuxSchedulerPolicy::SchedOther)
    );
    let limits = process.rlimits().clone().expect("rlimits");
    let files: Vec<_> = limits
        .iter()
        .filter(|limit| limit.typ() == PosixRlimitType::RlimitNofile)
        .collect();
    assert_eq!(files.len(), 1);
    assert_eq!(
        (files[0].soft(), files[0].hard(), limits.len()),
        (16_384, 16_384, 2)
    );
    // The rest of the file is as it was.
    let mut after = merged.document.expect("a document");
    for config in [&mut before, &mut after] {
        config["linux"]["resources"] = Json::Null;
        for field in ["rlimits", "oomScoreAdj", "scheduler"] {
            config["process"][field] = Json::Null;
        }
        // oci-spec has them in sets, and writes these in any order.
        for set in config["process"]["capabilities"]
            .as_object_mut()
            .expect("sets")
            .values_mut()
        {
            set.as_array_mut().expect("a set").sort_by_key(Json::to_string);
        }
    }
    assert_eq!(before, after);
}

#[test]
fn a_fragment_is_what_the_reader_takes_for_resources() {
    for path in examples() {
        let fragment = to(Engine::Oci, &role(&path)).document.expect("a document");
        if let Some(resources) = fragment.pointer("/linux/resources") {
            let read: oci_spec::runtime::LinuxResources = serde_json::from_value(resources.clone())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let written = serde_json::to_value(read).expect("JSON");
            assert_eq!(&written, resources, "{}: something is not read", path.display());
        }
    }
}

#[test]
fn what_is_no_config_json_is_refused() {
    let role = role(Path::new("examples/rust.role.toml"));
    for (config, what) in [
        (json!([]), "no JSON object"),
        (json!({ "linux": 5 }), "linux in it is no table"),
        (json!({ "process": { "rlimits": 5 } }), "no list"),
    ] {
        let options = Options {
            merge: Some(config),
            ..Options::default()
        };
        let why = translate(&role.name, &role.settings, Engine::Oci, options).expect_err(what);
        assert!(why.contains(what), "{why}");
    }
}

#[test]
fn a_name_that_is_none_elsewhere_is_made_one() {
    let role = role_of(
        "names",
        "[role]\nname = \"A:b_c.D\"\n[runtime.limits]\npids = 5\n",
    );
    for engine in [
        Engine::Compose,
        Engine::Kubernetes,
        Engine::Nomad,
        Engine::Quadlet,
    ] {
        let translation = to(engine, &role);
        assert!(translation.text.contains("a-b-c-d"), "{}", translation.text);
        assert!(
            translation.notes.iter().any(|note| note.contains("a-b-c-d")),
            "{:?}",
            translation.notes
        );
    }
}
