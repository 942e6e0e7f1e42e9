//! A reboot: what `install` wrote holds before anybody logs in, and sessions get the values that they got before.
//!
//! `cargo xtask test` runs `before` when all other tests of a machine have run, boots it again and runs `after`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::install::{all, property};
use crate::cgmgr::{Live, cgmgr, command, until};
use crate::lab::{Lab, MOUNT, examples, path_of, procs, read, workloads};
use crate::scoped::{contents, find_unit, main_of, scoped, systemctl, top_of};

const KEPT: &str = "/var/lib/cgmgr-lab/reboot.json";
const ROLE: &str = "/var/lib/cgmgr-lab/machine.role.toml";
const AGENT: &str = "/etc/systemd/system/guinea.service";

/// Not a round number among them: what is only kept to the per cent differs.
const MACHINE: &str = "[agent]\nmemory_min = \"100 MiB\"\n\
    [workloads]\nmemory_max = \"900 MiB\"\nmemory_high = \"800 MiB\"\npids = 3000\ncpus = 1.2345\n\
    [runtime.limits]\nmemory_max = \"64 MiB\"\nmemory_high = \"60 MiB\"\npids = 77\ncpus = 0.2345\n\
    cpu_weight = 123\n[runtime.limits.oom]\ngroup = true\n";

type Files = BTreeMap<String, String>;

/// What is to be the same after a reboot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    boot: String,
    configuration: Files,
    slices: BTreeMap<String, Files>,
    sessions: BTreeMap<String, Files>,
}

/// The control files of a group and of those below it, by their names in it.
fn files(group: &str) -> Files {
    let inside = |path: String| path.trim_start_matches(group).to_owned();
    let contents = contents(group);
    contents.into_iter().map(|(p, text)| (inside(p), text)).collect()
}

/// Of both slices, with nobody's session in them.
fn slices() -> BTreeMap<String, Files> {
    let slices = [workloads(), format!("{MOUNT}/agent.slice")].map(|slice| {
        let files = files(&slice);
        assert!(files.len() > 20, "{files:#?}");
        (slice, files)
    });
    slices.into()
}

/// The control files of a session with each role, in both of the ways to have it.
fn sessions() -> BTreeMap<String, Files> {
    let mut sessions = BTreeMap::new();
    let roles = examples().into_iter().map(|role| role.display().to_string());
    // A percentage is one of what this boot's kernel leaves of the memory, which differs by some pages.
    let of_memory = |line: &str| line.starts_with("memory") && line.contains('%');
    let roles = roles.filter(|role| !read(role).lines().any(of_memory));
    for role in roles.chain([ROLE.to_owned()]) {
        let options = ["run", "--role", &role, "--name", "it", "--", "sleep", "100000"];
        let live = |command: &mut Command, look: &dyn Fn() -> Option<[String; 2]>| {
            let live = Live::of("it", command);
            let populated = |main: String| fs::read_to_string(main + "/cgroup.events");
            until("it runs", || {
                look().is_some_and(|[_, main]| {
                    populated(main).is_ok_and(|events| events.contains("populated 1"))
                })
            });
            let [top, _] = look().expect("it is there");
            let files = files(&top);
            assert!(files.len() > 10, "{files:#?}");
            cgmgr(&["kill", "it"]).expect(0);
            live.wait();
            files
        };
        let delegated = live(&mut command(options), &|| Some([path_of("it"), path_of("it")]));
        let scope = live(&mut scoped(options), &|| {
            find_unit("it").map(|_| [top_of("it"), main_of("it")])
        });
        sessions.insert(format!("{role}, in the sessions' scope"), delegated);
        sessions.insert(format!("{role}, in a scope of its own"), scope);
    }
    sessions
}

fn boot() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

fn agents_group() -> String {
    property("guinea.service", "ControlGroup")
}

#[test]
fn before() {
    cgmgr(&["down", "--kill"]);
    cgmgr(&["uninstall"]).expect(0);
    fs::create_dir_all("/var/lib/cgmgr-lab").expect("a folder");
    fs::write(ROLE, MACHINE).expect("a file");
    let unit = "[Service]\nExecStart=sleep 100000\n[Install]\nWantedBy=multi-user.target\n";
    fs::write(AGENT, unit).expect("a file");
    systemctl(&["daemon-reload"]).expect(0);
    systemctl(&["enable", "guinea"]).expect(0);
    let configuration = all("/etc/systemd").into_iter().collect();
    cgmgr(&["install", "--role", ROLE, "--protect", "guinea"]).expect(0);
    systemctl(&["restart", "guinea"]).expect(0);
    assert_eq!(agents_group(), "/agent.slice/guinea.service");
    let slices = slices();
    let kept = Kept {
        boot: boot(),
        configuration,
        slices,
        sessions: sessions(),
    };
    let text = serde_json::to_string(&kept).expect("text");
    fs::write(KEPT, text).expect("a file");
}

#[test]
fn after() {
    // As the boot left it: no command of cgmgr's comes first, and nobody has logged in.
    let slices = slices();
    assert_eq!(agents_group(), "/agent.slice/guinea.service");
    let pid = procs(&format!("{MOUNT}/agent.slice/guinea.service"))[0];
    assert_eq!(read(&format!("/proc/{pid}/oom_score_adj")), "-900");
    assert!(!Path::new("/run/user/1000").exists());
    let begun = |unit: &str| -> u64 {
        let shown = property(unit, "ActiveEnterTimestampMonotonic");
        shown.parse().expect("microseconds")
    };
    let [ours, logins] = ["cgmgr-sessions.service", "systemd-user-sessions.service"].map(begun);
    assert!(0 < ours && ours <= logins, "{ours} {logins}");

    let kept: Kept = serde_json::from_str(&read(KEPT)).expect("what was kept");
    assert_ne!(boot(), kept.boot);
    assert_eq!(slices, kept.slices);
    let lab = Lab::new();
    cgmgr(&["doctor"]).expect(0);
    let sessions = sessions();
    assert!(sessions.len() > 10, "{:?}", sessions.keys());
    assert!(sessions.keys().eq(kept.sessions.keys()));
    for (name, files) in &sessions {
        assert_eq!(files, &kept.sessions[name], "{name}");
    }
    drop(lab);
    cgmgr(&["uninstall"]).expect(0);
    assert_eq!(
        all("/etc/systemd").into_iter().collect::<Files>(),
        kept.configuration
    );
    systemctl(&["disable", "--now", "guinea"]).expect(0);
    fs::remove_file(AGENT).expect("removed");
    systemctl(&["daemon-reload"]).expect(0);
}
