//! Files of other programs and the host's policy, as the command shows them. Names begin with the row of the table of
//! the predecessors' behaviours that is kept.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `cgmgr` without rights to cgroups, in a directory of this test's own with these files in it.
fn cgmgr(test: &str, files: &[(&str, &str)], words: &[&str]) -> Output {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join("dialects")
        .join(test);
    std::fs::create_dir_all(&directory).expect("a directory for the test");
    for (name, text) in files {
        std::fs::write(directory.join(name), text).expect("a file for the test");
    }
    Command::new(env!("CARGO_BIN_EXE_cgmgr"))
        .args(words)
        .current_dir(directory)
        .env("CGMGR_BACKEND", "process")
        .env("NO_COLOR", "1")
        .env_remove("CGMGR_HOST_POLICY")
        .output()
        .expect("cgmgr runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The row of a knob in what `explain --json` prints.
fn row(output: &Output, knob: &str) -> Value {
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let row = rows.into_iter().find(|row| row["knob"] == knob);
    row.unwrap_or_else(|| panic!("no {knob}"))
}

/// An example's file, what its dialect is called for programs and for people, and values of it.
type Example = (
    &'static str,
    &'static str,
    &'static str,
    [(&'static str, &'static str); 4],
);

/// The example of each dialect.
const EXAMPLES: [Example; 3] = [
    (
        "jackin-manifest",
        "jackin-manifest",
        "jackin's role manifest, [runtime.limits]",
        [
            ("memory_high", "12884901888"),
            ("memory_max", "17179869184"),
            ("cpus", "300000 100000"),
            ("nofile", "16384"),
        ],
    ),
    (
        "jackin-grants",
        "jackin-grants",
        "jackin's [docker.grants]",
        [
            ("memory_high", "5368709120"),
            ("memory_max", "6442450944"),
            ("pids", "1024"),
            ("nofile", "2048"),
        ],
    ),
    (
        "multicode",
        "multicode",
        "multicode's [isolation]",
        [
            ("memory_high", "6442450944"),
            ("memory_max", "8589934592"),
            ("cpus", "300000 100000"),
            ("memory_swap_max", "0"),
        ],
    ),
];

#[test]
fn j1_j2_j3_j4_u1_u8_each_dialect_passes_check_explain_and_run() {
    for (file, name, title, values) in EXAMPLES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{file}.role.toml"));
        let path = path.to_str().expect("a path in UTF-8");
        let checked = cgmgr("examples", &[], &["check", path]);
        assert!(checked.status.success(), "{checked:?}");
        assert!(
            text(&checked.stdout).ends_with(&format!(", {title})\n")),
            "{checked:?}"
        );
        let checked = cgmgr("examples", &[], &["check", "--json", path]);
        let report: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
        assert_eq!(report[0]["dialect"], name);
        let shown = cgmgr("examples", &[], &["explain", path]);
        assert!(text(&shown.stdout).contains(&format!("\n{title}\n")), "{shown:?}");
        let explained = cgmgr("examples", &[], &["explain", "--json", path]);
        for (knob, value) in values {
            let row = row(&explained, knob);
            assert_eq!(row["value"], value, "{row}");
            let declared = row["origin"] == "role";
            assert_eq!(row["dialect"].as_str(), declared.then_some(name), "{row}");
        }
        // What holds without rights holds; the rest is one warning each.
        let nofile = row(&explained, "nofile")["value"].as_str().map(str::to_owned);
        let ran = cgmgr(
            "examples",
            &[],
            &["run", "--role", path, "--", "sh", "-c", "ulimit -n"],
        );
        assert!(ran.status.success(), "{ran:?}");
        if let Some(nofile) = nofile {
            assert_eq!(text(&ran.stdout).trim(), nofile, "{ran:?}");
        }
        assert!(text(&ran.stderr).contains("memory_max"), "{ran:?}");
    }
}

#[test]
fn j6_j7_explain_says_which_profile_a_value_is_from() {
    let config = (
        "config.toml",
        "[docker]\nprofile = \"hardened\"\n[docker.grants]\npids = 64\nmemory = \"32G\"\n",
    );
    let explained = cgmgr("profile", &[config], &["explain", "--json", "config.toml"]);
    let pids = row(&explained, "pids");
    assert_eq!(
        (&pids["value"], &pids["source"]),
        (&"2048".into(), &"config.toml:2".into())
    );
    assert_eq!(pids["note"], "docker.profile = hardened");
    assert_eq!(row(&explained, "memory_max")["source"], "config.toml:5");
    assert!(
        text(&explained.stderr).contains("grants only widen a profile"),
        "{explained:?}"
    );
}

#[test]
fn j9_u4_nothing_starts_under_a_file_with_mistakes_and_all_are_told() {
    let bad = [
        ("grants.toml", "[docker.grants]\nmemory = \"12 GiB\"\npids = 0\n"),
        (
            "multicode.toml",
            "[isolation]\nmemory-max = \"-5 GiB\"\ncpu = \"three\"\n",
        ),
        (
            "two.toml",
            "[isolation]\ncpu = \"50%\"\n[docker.grants]\npids = 0\n",
        ),
    ];
    for (file, _) in bad {
        for (command, status) in [("check", 2), ("explain", 2), ("plan", 2), ("apply", 2)] {
            let output = cgmgr("mistakes", &bad, &[command, file]);
            assert_eq!(output.status.code(), Some(status), "{output:?}");
            assert_eq!(
                text(&output.stderr).matches("error: ").count(),
                2 + usize::from(command == "plan" || command == "apply"),
                "{output:?}"
            );
        }
        let output = cgmgr(
            "mistakes",
            &bad,
            &["run", "--role", file, "--", "echo", "started"],
        );
        assert_eq!(
            (output.status.code(), text(&output.stdout).as_str()),
            (Some(125), ""),
            "{output:?}"
        );
    }
}

const ROLE: (&str, &str) = (
    "a.role.toml",
    "[runtime.limits]\nmemory_max = \"16 GiB\"\nnofile = 512\noom_score_adj = 998\n",
);

#[test]
fn a_launch_is_within_the_hosts_policy_and_says_what_that_took() {
    let files = [
        ROLE,
        (
            "host.toml",
            "[limits]\nmemory_max = \"1 GiB\"\nnofile = 256\nnice = 12\n[workloads]\npids = 1000\n",
        ),
    ];
    let script = "ulimit -n; ulimit -Hn; nice; cat /proc/self/oom_score_adj";
    let command = [
        "--role",
        "a.role.toml",
        "--nofile",
        "400",
        "--",
        "sh",
        "-c",
        script,
    ];
    let words = |options: &[&'static str]| -> Vec<&'static str> {
        let mut words = options.to_vec();
        words.extend(command);
        words
    };
    let ran = cgmgr(
        "launch",
        &files,
        &words(&["run", "--host-policy", "host.toml", "--report", "report"]),
    );
    assert!(ran.status.success(), "{ran:?}");
    let own_nice = text(&Command::new("nice").output().expect("nice runs").stdout);
    let own_nice: i32 = own_nice.trim().parse().expect("a number");
    let nice = (own_nice + 5).clamp(12, 19);
    assert_eq!(text(&ran.stdout), format!("256\n256\n{nice}\n998\n"), "{ran:?}");
    for line in [
        "cgmgr: warning: memory_max = 16 GiB (a.role.toml:2) is above the host's 1 GiB (host.toml:2): here it is 1 GiB",
        "cgmgr: warning: nofile = 400 (--nofile) is above the host's 256 (host.toml:3): here it is 256",
    ] {
        assert!(text(&ran.stderr).lines().any(|said| said == line), "{ran:?}");
    }
    let report = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dialects/launch/report");
    let report = std::fs::read_to_string(report).expect("a report");
    assert!(report.contains("is above the host's 1 GiB"), "{report}");
    let quiet = cgmgr(
        "launch",
        &files,
        &words(&["run", "--quiet", "--host-policy", "host.toml"]),
    );
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
    // Without a policy nothing is taken.
    let none = cgmgr("launch", &[], &words(&["run", "--quiet"]));
    assert!(text(&none.stdout).starts_with("400\n"), "{none:?}");

    let explained = cgmgr(
        "launch",
        &files,
        &["explain", "--json", "--host-policy", "host.toml", "a.role.toml"],
    );
    let max = row(&explained, "memory_max");
    assert_eq!(
        (&max["origin"], &max["source"], &max["value"]),
        (&"host policy".into(), &"host.toml:2".into(), &"1073741824".into())
    );
    assert_eq!(max["note"], "instead of 16 GiB of a.role.toml:2");
    let pids = row(&explained, "workloads.pids");
    assert_eq!(
        (&pids["origin"], &pids["value"]),
        (&"host policy".into(), &"1000".into())
    );
}

#[test]
fn a_policy_that_cannot_be_read_stops_every_command_that_uses_limits() {
    let files = [
        ROLE,
        ("wrong.toml", "[limits]\nmemory_max = \"16 GX\"\n"),
        ("unknown.toml", "[limit]\npids = 64\n"),
    ];
    for policy in ["wrong.toml", "unknown.toml", "none.toml", ".", "/dev/null"] {
        for command in ["check", "explain", "plan", "apply"] {
            let output = cgmgr(
                "stops",
                &files,
                &[command, "--host-policy", policy, "a.role.toml"],
            );
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(output.stdout.is_empty(), "{output:?}");
            assert!(text(&output.stderr).contains(policy), "{output:?}");
        }
        for role in [&["--role", "a.role.toml"][..], &[]] {
            let words = [
                &["run", "--host-policy", policy],
                role,
                &["--", "echo", "started"],
            ]
            .concat();
            let output = cgmgr("stops", &files, &words);
            assert_eq!(
                (output.status.code(), text(&output.stdout).as_str()),
                (Some(125), ""),
                "{output:?}"
            );
        }
    }
    let output = cgmgr("stops", &files, &["check", "--host-policy", "wrong.toml"]);
    assert!(
        text(&output.stderr)
            .starts_with("error: limits.memory_max = \"16 GX\": unknown unit \"GX\"\n --> wrong.toml:2:14"),
        "{output:?}"
    );
}

#[test]
fn check_validates_a_policy_alone() {
    let files = [(
        "host.toml",
        "[limits]\nmemory_max = \"50%\"\npids = 64\n[agent]\ncpu_weight = 1000\n",
    )];
    let output = cgmgr("alone", &files, &["check", "--host-policy", "host.toml"]);
    assert_eq!(text(&output.stdout), "ok: host.toml (host policy, 3 knobs)\n");
    let output = cgmgr(
        "alone",
        &files,
        &["check", "--host-policy", "host.toml", "--json"],
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report[0]["ok"], &report[0]["file"]),
        (&true.into(), &"host.toml".into())
    );
    let output = cgmgr("alone", &files, &["check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nothing to check"), "{output:?}");
}
