//! The example roles, and what `check` and `explain` say about them and about files that are no roles.

use std::path::{Path, PathBuf};

use cgmgr::cli::check::{Context, check};
use cgmgr::cli::explain::explain;
use cgmgr::files;
use cgmgr::host::{Machine, Tasks};
use cgmgr::limits::{KNOBS, Setting};
use cgmgr::role::Overrides;

const GIB: u64 = 1 << 30;

/// From a tiny virtual machine to a large server.
fn machines() -> [Machine; 4] {
    let machine = |gib: u64, swap: u64, cpus: u32| Machine {
        mem_total: gib * GIB,
        swap_total: swap * GIB,
        page_size: 4096,
        cpus,
        tasks: Tasks::Known(u64::min(if cpus > 8 { 4_194_304 } else { 32_768 }, gib * 7_500)),
    };
    [
        machine(1, 0, 1),
        machine(2, 0, 2),
        machine(32, 8, 8),
        machine(1024, 0, 256),
    ]
}

/// Every role of examples/. Tests run in the package's directory.
pub(crate) fn examples() -> Vec<PathBuf> {
    let files = std::fs::read_dir("examples").expect("the examples are beside Cargo.toml");
    let mut files: Vec<_> = files
        .map(|file| file.expect("a directory entry").path())
        .filter(|path| path.to_string_lossy().ends_with(".role.toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    files
}

/// Runs a command and returns its status, its output and its messages.
fn run(
    machine: &Machine,
    command: impl FnOnce(&mut Context<'_>) -> std::io::Result<u8>,
) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut context = Context {
        machine,
        env: &|_| None,
        policy: None,
        colour: false,
        out: &mut out,
        err: &mut err,
    };
    let status = command(&mut context).expect("writing to memory");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status, text(out), text(err))
}

fn effect(setting: &Setting) -> String {
    format!("effect of {}", setting.knob.key)
}

#[test]
fn every_example_is_good_on_every_machine() {
    for path in examples() {
        assert!(path.to_string_lossy().ends_with(".role.toml"), "{path:?}");
        for machine in machines() {
            let resolved = files::resolve(&path, &machine, &Overrides::default(), &|_| None);
            let (role, _) = resolved
                .expect("readable")
                .unwrap_or_else(|errors| panic!("{path:?} {errors:?}"));
            assert!(role.declared() > 0, "{path:?}");
        }
    }
}

#[test]
fn examples_fit_a_machine_of_ordinary_size() {
    let machine = &machines()[2];
    for path in examples() {
        let resolved = files::resolve(&path, machine, &Overrides::default(), &|_| None);
        let (_, warnings) = resolved.expect("readable").expect("good");
        // Only the soft limit of a build, which is there to show it, is worth a word.
        let odd = |message: &str| !message.contains("with memory_swap_max = 0");
        assert!(
            !warnings.iter().any(|warning| odd(&warning.message)),
            "{path:?}: {warnings:?}"
        );
    }
}

#[test]
fn check_says_what_is_good() {
    let (status, out, err) = run(&machines()[3], |context| {
        check(&["examples/minimal.role.toml".into()], false, context)
    });
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(out, "ok: examples/minimal.role.toml (role minimal, 1 limit)\n");
}

#[test]
fn check_goes_on_after_a_bad_file() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let bad = dir.join("check-bad.role.toml");
    std::fs::write(&bad, "[runtime.limits]\npids = 0\ncpus = 0\n").expect("a file");
    let files = [
        bad,
        dir.join("check-none.role.toml"),
        "examples/node.role.toml".into(),
    ];
    let (status, out, err) = run(&machines()[3], |context| check(&files, false, context));
    assert_eq!(status, 2);
    assert_eq!(out, "ok: examples/node.role.toml (role node, 7 limits)\n");
    assert_eq!(err.matches("error: ").count(), 3, "{err}");
    assert!(
        err.contains("error: there is no such file") && err.contains("check-none.role.toml"),
        "{err}"
    );

    let (status, out, err) = run(&machines()[3], |context| check(&files, true, context));
    assert_eq!((status, err.as_str()), (2, ""));
    let reports: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let found: Vec<_> = reports.as_array().expect("an array").iter().collect();
    let ok: Vec<_> = found
        .iter()
        .map(|report| report["ok"].as_bool().expect("ok"))
        .collect();
    assert_eq!(ok, [false, false, true]);
    assert_eq!(found[0]["diagnostics"][0]["line"], 2);
    assert_eq!(found[0]["diagnostics"].as_array().map(Vec::len), Some(2));
    assert_eq!(found[2]["role"], "node");

    let (status, _, _) = run(&machines()[3], |context| check(&files[1..], false, context));
    assert_eq!(status, 2);
}

#[test]
fn explain_has_an_object_for_each_knob() {
    for path in examples() {
        for machine in machines() {
            let overrides = Overrides::default();
            let (status, out, _) = run(&machine, |context| {
                explain(&path, &overrides, true, &effect, context)
            });
            assert_eq!(status, 0);
            let rows: Vec<serde_json::Value> = serde_json::from_str(&out).expect("an array");
            assert_eq!(rows.len(), KNOBS.len());
            for (row, knob) in rows.iter().zip(KNOBS) {
                assert_eq!(row["knob"], knob.key);
                assert_eq!(row["effect"], format!("effect of {}", knob.key));
                assert_eq!(row["file"].as_str(), knob.file);
                assert_eq!(row["systemd_property"].as_str(), knob.systemd);
                assert!(knob.file.is_none() || row["value"].is_string(), "{row}");
            }
        }
    }
}

#[test]
fn explain_shows_the_exact_text() {
    let path = Path::new("examples/rust.role.toml");
    let overrides = Overrides::default();
    let (_, out, _) = run(&machines()[2], |context| {
        explain(path, &overrides, true, &effect, context)
    });
    let rows: Vec<serde_json::Value> = serde_json::from_str(&out).expect("an array");
    for (row, knob, value, human) in [
        (0, "memory_high", "12884901888", "12 GiB"),
        (1, "memory_max", "17179869184", "16 GiB"),
        (2, "memory_swap_max", "0", "0"),
        (3, "cpus", "300000 100000", "3 CPUs"),
        (5, "io_weight", "default 100", "100"),
        (8, "nice", "+5", "+5"),
        (10, "oom_group", "1", "true"),
        (21, "workloads.memory_max", "30923764531", "28.8 GiB"),
    ] {
        let row = &rows[row];
        assert_eq!(
            (&row["knob"], &row["value"], &row["human"]),
            (&knob.into(), &value.into(), &human.into())
        );
        assert_eq!(row["origin"], "role");
        assert!(
            row["source"]
                .as_str()
                .is_some_and(|source| source.starts_with("examples/rust.role.toml:"))
        );
    }
}

#[test]
fn explain_fits_a_terminal() {
    for path in examples() {
        let overrides = Overrides::default();
        let (_, out, _) = run(&machines()[2], |context| {
            explain(&path, &overrides, false, &effect, context)
        });
        for line in out.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert_eq!(
            out.contains("effect of workloads.cpus"),
            path.ends_with("rust.role.toml")
        );
    }
}

#[test]
fn explain_as_people_see_it() {
    let path = Path::new("examples/minimal.role.toml");
    let overrides = Overrides::default();
    let (status, out, err) = run(&machines()[3], |context| {
        explain(path, &overrides, false, &effect, context)
    });
    assert_eq!((status, err.as_str()), (0, ""));
    let expected = "\
role minimal (examples/minimal.role.toml)

each session
  KNOB                VALUE             FROM         KERNEL FILE              SYSTEMD
  memory_high         max (default)     default      memory.high = max        MemoryHigh
  memory_max          4 GiB             role line 3  memory.max = 4294967296  MemoryMax
      effect of memory_max
  memory_swap_max     0                 derived      memory.swap.max = 0      MemorySwapMax
      effect of memory_swap_max
      memory_max is set: 0 unless given
  cpus                max (default)     default      cpu.max = max 100000     CPUQuota
";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.contains(
        "  oom_group           false (default)   default      memory.oom.group = 0     OOMPolicy\n"
    ));
}

#[test]
fn explain_refuses_a_bad_role() {
    let overrides = Overrides::default();
    let (status, out, err) = run(&machines()[2], |context| {
        explain(Path::new("examples"), &overrides, true, &effect, context)
    });
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(
        err.starts_with("error: not a role file but a directory\n"),
        "{err}"
    );
}
