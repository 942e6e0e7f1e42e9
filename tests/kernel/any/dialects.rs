//! Files of jackin and multicode, and the host's policy, as the kernel holds them. Names begin with the row of the table
//! of the predecessors' behaviours that is kept.

use crate::cgmgr::{Live, cgmgr};
use crate::lab::{Lab, read};
use crate::readback::{compare, knob, knobs, of_session};

/// The shape of `~/.config/jackin/config.toml`.
pub const JACKIN: &str = r#"
version = "v1alpha9"

[claude]
auth_forward = "sync"

[roles.builder]
git = "https://example.org/roles/builder.git"
trusted = true

[docker]
profile = "locked"

[docker.mounts.cache]
src = "/srv/cache"
dst = "/cache"

[docker.grants]
network = "allowlist"
allowed_hosts = ["registry.npmjs.org"]
memory = "6GB"
cpus = 2.5
pids = 64
sudo = false
"#;

/// The shape of multicode's `config.toml`.
pub const MULTICODE: &str = r#"
workspace-directory = "~/workspaces"
opencode = ["opencode"]

[agent]
provider = "codex"

[agent.codex]
commands = ["codex"]

[runtime]
backend = "systemd"

[isolation]
writable = ["~/.gradle", "$XDG_RUNTIME_DIR"]
inherit-env = ["HOME"]
memory-high = "96 MiB"
memory-max = "128 MB"
cpu = "150%"

[[tool]]
name = "bash"
"#;

/// The session runs, and its group has these values and all that `explain` says.
#[track_caller]
fn held(role: &str, options: &[&str], expected: &[(&str, &str)]) {
    let announced = match options {
        [] => knobs(role),
        more => {
            let words = [&["explain", "--json", role], more].concat();
            cgmgr(&words)
                .expect(0)
                .json()
                .as_array()
                .expect("an array")
                .clone()
        }
    };
    let options = [&["--role", role], options].concat();
    let mut live = Live::start("dialect", &options, &["hold"]);
    live.hear("ready ");
    for (file, value) in expected {
        assert_eq!(
            read(&format!("{}/{file}", live.group())),
            *value,
            "{role}: {file}"
        );
    }
    let files = announced
        .iter()
        .filter(|k| of_session(k) && k["file"].is_string());
    assert_eq!(compare(&live.group(), files.clone(), role), files.count());
    live.end().expect(0);
}

#[test]
fn j2_j4_j7_j8_j14_a_configuration_of_jackins_is_what_the_kernel_holds() {
    let lab = Lab::new();
    let role = lab.path("config.toml");
    std::fs::write(&role, JACKIN).expect("a file");
    cgmgr(&["check", &role]).expect(0);
    held(
        &role,
        &[],
        &[
            ("memory.max", "6442450944"),
            // The profile's still.
            ("memory.high", "3221225472"),
            ("memory.swap.max", "0"),
            ("cpu.max", "250000 100000"),
            // A grant below the profile's 512 changes nothing.
            ("pids.max", "512"),
        ],
    );
}

#[test]
fn u1_u3_u8_a_configuration_of_multicodes_is_what_the_kernel_holds() {
    let lab = Lab::new();
    let role = lab.path("config.toml");
    std::fs::write(&role, MULTICODE).expect("a file");
    cgmgr(&["check", &role]).expect(0);
    let page = rustix::param::page_size() as u64;
    held(
        &role,
        &[],
        &[
            ("memory.high", "100663296"),
            // Decimal, and down to a page.
            ("memory.max", &(128_000_000 / page * page).to_string()),
            ("memory.swap.max", "0"),
            ("cpu.max", "150000 100000"),
            ("pids.max", "max"),
        ],
    );
}

#[test]
fn the_hosts_policy_caps_what_the_kernel_holds() {
    let lab = Lab::new();
    let (role, host) = (lab.path("config.toml"), lab.path("host.toml"));
    std::fs::write(&role, JACKIN).expect("a file");
    let policy =
        "[limits]\nmemory_max = \"256 MiB\"\ncpus = \"50%\"\npids = 1000\nio_weight = 50\nnice = 7\n";
    std::fs::write(&host, policy).expect("a file");
    let expected = [
        ("memory.max", "268435456"),
        // Above the host's memory_max it would do nothing.
        ("memory.high", "max"),
        ("memory.swap.max", "0"),
        ("cpu.max", "50000 100000"),
        ("pids.max", "512"),
    ];
    held(&role, &["--host-policy", &host], &expected);
    let words = ["explain", &role, "--json", "--host-policy", &host];
    let done = cgmgr(&words).expect(0);
    done.says("memory_max = 6 GiB").says("here it is 256 MiB");
    let rows = done.json().as_array().expect("an array").clone();
    assert_eq!(knob(&rows, "memory_max")["origin"], "host policy");
    assert_eq!(knob(&rows, "pids")["origin"], "role");

    // Without a role, and over a flag.
    let options = ["--host-policy", &host, "--memory-max", "1 GiB", "--nice", "-5"];
    let mut live = Live::start("flags", &options, &["hold"]);
    let pid = live.hear("ready ");
    assert_eq!(read(&format!("{}/memory.max", live.group())), "268435456");
    assert_eq!(read(&format!("{}/pids.max", live.group())), "1000");
    let stat = read(&format!("/proc/{pid}/stat"));
    let nice = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(16));
    assert_eq!(nice, Some("7"));
    live.end()
        .expect(0)
        .says("memory_max = 1 GiB (--memory-max) is above the host's 256 MiB");
}
