//! Files of other programs as roles, as the commands show them.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `cgmgr` in a directory of this test's own with these files in it.
fn cgmgr(test: &str, files: &[(&str, &str)], words: &[&str]) -> Output {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join("import")
        .join(test);
    std::fs::create_dir_all(&directory).expect("a directory for the test");
    for (name, text) in files {
        std::fs::write(directory.join(name), text).expect("a file for the test");
    }
    Command::new(env!("CARGO_BIN_EXE_cgmgr"))
        .args(words)
        .current_dir(directory)
        .env("NO_COLOR", "1")
        .env_remove("CGMGR_HOST_POLICY")
        .output()
        .expect("cgmgr runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of a role that say a limit, without comments.
fn limits(role: &str) -> Vec<String> {
    let lines = role
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(" = "));
    let lines = lines.map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned());
    lines
        .filter(|line| !line.starts_with("version") && !line.starts_with("name"))
        .collect()
}

fn assert_imports(test: &str, file: (&str, &str), options: &[&str], expected: &[&str], left: &[&str]) {
    let words: Vec<&str> = ["import", file.0].iter().chain(options).copied().collect();
    let output = cgmgr(test, &[file], &words);
    assert!(output.status.success(), "{output:?}");
    let role = text(&output.stdout);
    assert_eq!(limits(&role), expected, "{role}");
    let err = text(&output.stderr);
    for what in left {
        let line = format!("cgmgr: warning: not taken over: {what}");
        assert!(err.lines().any(|said| said.starts_with(&line)), "{line}\n{err}");
        assert!(
            role.lines().any(|said| said.starts_with(&format!("#   {what}"))),
            "{role}"
        );
    }
    assert_eq!(err.matches("not taken over").count(), left.len(), "{err}");
    // What is written is a role.
    let checked = cgmgr(test, &[("made.role.toml", &role)], &["check", "made.role.toml"]);
    assert!(checked.status.success(), "{role}\n{checked:?}");
}

const COMPOSE: &str = "\
x-limits: &limits
  mem_limit: 1.5g
  ulimits: { nofile: 1024, nproc: 5 }
services:
  web:
    <<: *limits
    image: example
    cpus: '0.5'
    cpu_shares: 1024
    mem_swappiness: 10
    deploy:
      resources:
        limits: { pids: 100, cpus: '3', memory: 50M }
        reservations: { memory: 20M, devices: [] }
  db:
    mem_limit: ${MEM}
    memswap_limit: 5g
    cpu_quota: 50000
    blkio_config: { weight: 500, weight_device: [] }
    pids_limit: -1
    oom_kill_disable: true
  all:
    mem_limit: 1073741824
    memswap_limit: -1
    ulimits:
      nofile: { soft: 5, hard: 6 }
";

#[test]
fn a_compose_file() {
    assert_imports(
        "compose",
        ("compose.yaml", COMPOSE),
        &["--service", "web"],
        &[
            "memory_high = \"20 MiB\"",
            "memory_max = \"1536 MiB\"",
            // Nothing is said of it, and docker then allows as much as memory.
            "memory_swap_max = \"1536 MiB\"",
            "cpus = 0.5",
            "cpu_weight = 100",
            "pids = 100",
            "nofile = 1024",
        ],
        &[
            "services.web.deploy.resources.reservations.devices",
            "services.web.mem_swappiness = 10",
            "services.web.ulimits.nproc",
        ],
    );
    assert_imports(
        "compose",
        ("compose.yaml", COMPOSE),
        &["--service=db"],
        &["cpus = 0.5", "io_weight = 4950", "pids = \"max\""],
        &[
            "services.db.mem_limit = ${MEM}: it has a variable",
            "services.db.memswap_limit = 5g",
            "services.db.blkio_config.weight_device",
            "services.db.oom_kill_disable = true",
        ],
    );
    assert_imports(
        "compose",
        ("compose.yaml", COMPOSE),
        &["--service=all"],
        &["memory_max = \"1 GiB\"", "memory_swap_max = \"max\""],
        &["services.all.ulimits.nofile"],
    );
}

#[test]
fn numbers_that_toml_writes_in_another_way() {
    let text = "services:\n  a:\n    pids_limit: 050\n";
    assert_imports("numbers", ("compose.yaml", text), &[], &["pids = \"050\""], &[]);
}

#[test]
fn which_of_several_services_has_to_be_said() {
    let files = [("compose.yaml", COMPOSE)];
    let none = cgmgr("services", &files, &["import", "compose.yaml"]);
    assert_eq!(none.status.code(), Some(2));
    assert_eq!(
        text(&none.stderr),
        "cgmgr: error: compose.yaml: it has 3 services\n  help: name one with --service: web, db, all\n"
    );
    let wrong = cgmgr(
        "services",
        &files,
        &["import", "compose.yaml", "--service", "wbe"],
    );
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("it has web, db, all"), "{wrong:?}");
    let other = cgmgr(
        "services",
        &[("a.toml", "[isolation]\ncpu = \"50%\"\n")],
        &["import", "a.toml", "--service", "x"],
    );
    assert_eq!(other.status.code(), Some(2));
}

#[test]
fn a_file_that_would_fill_the_memory_is_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    let output = cgmgr("bomb", &[("c.yaml", &bomb)], &["import", "c.yaml"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("aliases of aliases"), "{output:?}");
    let deep = "[".repeat(5_000);
    let output = cgmgr(
        "bomb",
        &[("d.yaml", &deep)],
        &["import", "--from", "compose", "d.yaml"],
    );
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_systemd_unit() {
    let unit = "\
[Unit]
Description=x
[Service]
ExecStart=/bin/x --MemoryMax=1 \\
  # a comment
  MemoryMax=2
MemoryHigh=1.5G
MemoryMax=infinity
MemoryMax=2G
MemoryLow=1G
CPUQuota=20%
CPUQuota=
CPUWeight=200
TasksMax=10%
LimitNOFILE=4K
LimitNPROC=5
Nice=+5
OOMPolicy=stop
MemoryAccounting=yes
";
    assert_imports(
        "unit",
        ("build.service", unit),
        &[],
        &[
            "memory_high = \"1536 MiB\"",
            "memory_max = \"2 GiB\"",
            "memory_swap_max = \"max\"",
            "cpu_weight = 200",
            "nofile = 4096",
            "nice = 5",
        ],
        &[
            "MemoryLow=1G of build.service",
            "TasksMax=10% of build.service",
            "LimitNPROC=5 of build.service",
            "OOMPolicy=stop of build.service",
        ],
    );
    let cat = "\
# /etc/systemd/system/agent.slice
[Slice]
MemoryMin=256M
# /etc/systemd/system/coder.service.d/40-cgmgr.conf
[Service]
Slice=agent.slice
OOMScoreAdjust=-900
# /etc/systemd/system/workloads.slice
[Slice]
MemoryMax=85%
TasksMax=80%
";
    assert_imports(
        "cat",
        ("all.conf", cat),
        &[],
        &[
            "memory_min = \"256 MiB\"",
            "oom_score_adj = -900",
            "memory_max = \"85%\"",
            "pids = \"80%\"",
        ],
        &[],
    );
}

#[test]
fn a_config_json() {
    let config = r#"{ "hostname": "box", "process": { "rlimits": [
        { "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 } ] },
      "linux": { "resources": {
        "devices": [{ "allow": false }],
        "memory": { "limit": 1073741824, "reservation": 536870912, "swappiness": 5 },
        "cpu": { "quota": 25000, "period": 50000, "shares": 2000 },
        "blockIO": { "weight": 1000 },
        "pids": { "limit": -1 },
        "unified": { "memory.high": "805306368", "cpu.max": "300000 100000", "memory.low": "1" } } } }"#;
    assert_imports(
        "config",
        ("config.json", config),
        &[],
        &[
            "memory_high = \"768 MiB\"",
            "memory_max = \"1 GiB\"",
            "memory_swap_max = \"max\"",
            "cpus = 3",
            "cpu_weight = 170",
            "io_weight = 10000",
            "pids = \"max\"",
            "nofile = 1024",
        ],
        &[
            "linux.resources.memory.swappiness = 5",
            "linux.resources.unified[\"memory.low\"] = \"1\"",
            "process.rlimits: {\"hard\":0,\"soft\":0,\"type\":\"RLIMIT_CORE\"}",
        ],
    );
}

#[test]
fn files_of_jackin_and_multicode() {
    assert_imports(
        "jackin",
        (
            "config.toml",
            "[docker]\nprofile = \"locked\"\n[docker.grants]\nmemory = \"6GB\"\n",
        ),
        &[],
        &[
            "memory_high = \"3 GiB\"",
            "memory_max = \"6 GiB\"",
            "cpus = 2",
            "pids = 512",
            "nofile = 2048",
        ],
        &[],
    );
    assert_imports(
        "multicode",
        (
            "multicode.toml",
            "workspace-directory = \"~/x\"\n[isolation]\nmemory-max = \"8 GB\"\ncpu = \"150%\"\n",
        ),
        &[],
        &["memory_max = \"8 GB\"", "cpus = 1.5"],
        &[],
    );
    let wrong = cgmgr(
        "wrong",
        &[("a.toml", "[isolation]\nmemory-max = \"8 GX\"\ncpu = \"x\"\n")],
        &["import", "a.toml"],
    );
    assert_eq!(wrong.status.code(), Some(2));
    assert_eq!(text(&wrong.stderr).matches("error: ").count(), 3, "{wrong:?}");
}

#[test]
fn json_has_the_text_and_what_is_left() {
    let output = cgmgr(
        "json",
        &[("compose.yaml", COMPOSE)],
        &["import", "--json", "--service", "all", "compose.yaml"],
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["from"], &report["limits"]),
        (&"compose".into(), &2.into())
    );
    assert_eq!(report["left"][0]["what"], "services.all.ulimits.nofile");
    assert!(
        report["text"]
            .as_str()
            .is_some_and(|text| text.contains("memory_swap_max = \"max\""))
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn what_has_no_limits_says_so() {
    let output = cgmgr(
        "none",
        &[("a.service", "[Service]\nExecStart=x\n")],
        &["import", "a.service"],
    );
    assert_eq!(
        text(&output.stderr),
        "cgmgr: warning: no limits were found in a.service, which was read as systemd-unit\n"
    );
    for (name, text_of) in [("a.json", "{"), ("b.yaml", "a: [\n")] {
        let output = cgmgr("none", &[(name, text_of)], &["import", name]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("help: "), "{output:?}");
    }
}

const ROLE: (&str, &str) = (
    "r.role.toml",
    "[runtime.limits]\nmemory_max = \"50%\"\nmemory_high = \"1 GiB\"\n",
);

#[test]
fn translate_says_what_is_lost_and_can_refuse() {
    let words = [
        "translate",
        "--to",
        "docker",
        "--memory-total",
        "8GiB",
        "r.role.toml",
    ];
    let output = cgmgr("lost", &[ROLE], &words);
    assert!(output.status.success());
    assert_eq!(
        text(&output.stdout),
        "--memory 4294967296 --memory-reservation 1073741824 --memory-swap 4294967296\n"
    );
    assert!(
        text(&output.stderr)
            .starts_with("cgmgr: warning: memory_high = 1 GiB: on cgroup v2 docker's memory reservation"),
        "{output:?}"
    );
    let strict: Vec<&str> = words.iter().copied().chain(["--require-limits"]).collect();
    let refused = cgmgr("lost", &[ROLE], &strict);
    assert_eq!(
        (refused.status.code(), refused.stdout.len()),
        (Some(3), 0),
        "{refused:?}"
    );
    let podman: Vec<&str> = strict
        .iter()
        .map(|word| if *word == "docker" { "podman" } else { word })
        .collect();
    let whole = cgmgr("lost", &[ROLE], &podman);
    assert!(whole.status.success() && !whole.stdout.is_empty(), "{whole:?}");
    let json: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let output = cgmgr("lost", &[ROLE], &json);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["to"], &report["losses"][0]["knob"]),
        (&"docker".into(), &"memory_high".into())
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn translate_refuses_what_cannot_be_meant() {
    let words = |more: &[&'static str]| -> Vec<&'static str> {
        let mut words = vec!["translate", "r.role.toml"];
        words.extend(more);
        words
    };
    for (more, why) in [
        (vec!["--to", "oci", "--merge", "no.json"], "no such file"),
        (
            vec!["--to", "docker", "--merge", "r.role.toml"],
            "--merge is for a config.json",
        ),
        (vec!["--to", "oci", "--merge", "r.role.toml"], "not JSON"),
        (vec!["--to", "oci", "--merge", "list.json"], "no JSON object"),
        (
            vec!["--to", "compose", "--image", "a b"],
            "is no name of an image",
        ),
        (vec!["--to", "docker", "--memory-total", "8 GX"], "unknown unit"),
        (vec!["--to", "docker", "--memory-total", "50%"], "is no amount"),
        (vec!["--to", "lxc"], "possible values"),
    ] {
        let output = cgmgr("refused", &[ROLE, ("list.json", "[]")], &words(&more));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            output.stdout.is_empty() && text(&output.stderr).contains(why),
            "{output:?}"
        );
    }
}
