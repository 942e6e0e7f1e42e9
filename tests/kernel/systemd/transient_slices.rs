//! The slices where they have no unit file, since cgmgr is not installed: made by request, and gone with `down`. And what
//! holds of both kinds: an administrator's value, and who writes to the tree.

use std::fs;
use std::process::{Child, Command};

use crate::cgmgr::{Done, cgmgr, finish, until};
use crate::lab::{Lab, MOUNT, examples, must, read, workloads};
use crate::readback::{compare_slices, entry, steps};

/// A machine on which cgmgr is not installed, until the test is over.
struct Bare {
    lab: Lab,
}

impl Bare {
    fn new() -> Bare {
        let lab = Lab::new();
        cgmgr(&["uninstall"]).expect(0);
        Bare { lab }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        cgmgr(&["down", "--kill"]);
        let installed = cgmgr(&["install", "--minimal"]);
        assert!(
            installed.status == 0 || std::thread::panicking(),
            "{installed:#?}"
        );
    }
}

fn systemctl(words: &[&str]) -> Done {
    finish(Command::new("systemctl").args(words))
}

/// What systemd may keep of a unit, by path and content.
fn on_disk() -> Vec<String> {
    let mut found = Vec::new();
    for folder in [
        "/run/systemd/transient",
        "/run/systemd/system",
        "/run/systemd/system.control",
        "/etc/systemd",
    ] {
        let files = finish(Command::new("find").args([folder, "-path", "*.slice*", "-print"])).out;
        found.extend(files.lines().map(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            format!("{path}: {text}")
        }));
    }
    found.sort();
    found
}

const FILES: [&str; 8] = [
    "memory.max",
    "memory.high",
    "memory.min",
    "memory.low",
    "pids.max",
    "cpu.max",
    "cpu.weight",
    "io.weight",
];

/// Every control file of both slices.
fn look() -> Vec<String> {
    let slices = ["agent.slice", "workloads.slice"];
    let all = slices
        .iter()
        .flat_map(|slice| FILES.map(|file| format!("{MOUNT}/{slice}/{file}")));
    all.map(|path| format!("{path}: {}", fs::read_to_string(&path).unwrap_or_default()))
        .collect()
}

fn reload_and_reexec() {
    for word in ["daemon-reload", "daemon-reexec"] {
        systemctl(&[word]);
        until("systemd answers", || {
            systemctl(&["is-active", "init.scope"]).out == "active\n"
        });
    }
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", &format!("--property={name}"), unit])
        .out
        .trim_end()
        .to_owned()
}

fn scope_in_workloads(name: &str) -> Child {
    let mut scope = Command::new("systemd-run");
    let unit = format!("--unit={name}");
    scope.args([
        "--quiet",
        "--scope",
        "--slice=workloads.slice",
        &unit,
        "sleep",
        "1000",
    ]);
    let child = scope.spawn().expect("systemd-run");
    let group = format!("{}/{name}.scope", workloads());
    until("the scope runs", || fs::exists(&group).expect("a look"));
    child
}

#[test]
fn every_role_is_applied_to_slices_in_no_file_and_nothing_is_left() {
    let bare = Bare::new();
    let (disk, files, root) = (
        on_disk(),
        look(),
        read(&format!("{MOUNT}/cgroup.subtree_control")),
    );
    for role in examples() {
        let role = role.display().to_string();
        cgmgr(&["apply", &role]).expect(0);
        compare_slices(&role);
        assert_eq!(
            steps(&cgmgr(&["plan", &role, "--json"]).expect(0)),
            [""; 0],
            "{role}"
        );
        cgmgr(&["down"]).expect(0);
        assert_eq!((on_disk(), look()), (disk.clone(), files.clone()), "{role}");
        assert_eq!(read(&format!("{MOUNT}/cgroup.subtree_control")), root, "{role}");
    }
    drop(bare);
}

#[test]
fn values_of_slices_in_no_file_survive_reload_and_reexec_and_change_live() {
    let bare = Bare::new();
    let role = |text: &str| bare.lab.file("w.role.toml", &format!("[workloads]\n{text}"));
    let first = role("memory_max = \"1000 MiB\"\npids = 3000\ncpus = \"1.2345\"\n");
    let shown = cgmgr(&["plan", &first]).expect(0);
    assert!(
        shown.out.contains("StartTransientUnit workloads.slice"),
        "{shown:#?}"
    );
    assert!(shown.out.contains("MemoryMax=1048576000"), "{shown:#?}");
    let done = cgmgr(&["apply", &first, "--json"]).expect(0).json();
    let said = entry(&done["receipt"], "workloads.cpus")
        .expect("an entry")
        .clone();
    let version = systemctl(&["show", "--value", "--property=Version"]).out;
    let quota = match version.trim_start_matches('v').starts_with("252") {
        // It remembers whole percents, and that was said beforehand.
        true => {
            shown.says("rounded to 124000 100000");
            assert_eq!(
                (&said["state"], &said["detail"]),
                (&"rounded".into(), &"124000 100000".into())
            );
            "124000 100000"
        }
        false => {
            shown.says_nothing_of("rounded");
            assert_eq!(said["state"], "enforced");
            "123450 100000"
        }
    };
    assert_eq!(read(&format!("{}/cpu.max", workloads())), quota);
    assert_eq!(
        read(&format!("{}/memory.max", workloads())),
        (1000 << 20).to_string()
    );
    assert_eq!(read(&format!("{}/pids.max", workloads())), "3000");
    let before = look();
    reload_and_reexec();
    assert_eq!(look(), before);
    assert_eq!(steps(&cgmgr(&["plan", &first, "--json"]).expect(0)), [""; 0]);

    // Another value, and one that is no longer declared.
    let second = role("memory_max = \"800 MiB\"\ncpus = \"1.2345\"\n");
    let planned = steps(&cgmgr(&["plan", &second, "--json"]).expect(0));
    assert_eq!(planned.len(), 1, "{planned:#?}");
    assert_eq!(
        (&planned[0]["step"], &planned[0]["undo"]["step"]),
        (&"set".into(), &"set".into())
    );
    cgmgr(&["apply", &second]).expect(0);
    assert_eq!(
        read(&format!("{}/memory.max", workloads())),
        (800 << 20).to_string()
    );
    assert_eq!(read(&format!("{}/pids.max", workloads())), "max");
    assert_eq!(read(&format!("{}/cpu.max", workloads())), quota);
    let before = look();
    reload_and_reexec();
    assert_eq!(look(), before);
    assert_eq!(steps(&cgmgr(&["plan", &second, "--json"]).expect(0)), [""; 0]);
    cgmgr(&["down"]).expect(0);

    // systemd was reloaded meanwhile: it must not look for the file of the request for ever.
    let mut scope = scope_in_workloads("afterwards");
    systemctl(&["stop", "afterwards.scope"]);
    scope.wait().expect("a child");
    systemctl(&["stop", "workloads.slice"]);
    drop(bare);
}

#[test]
fn a_slice_that_others_use_is_taken_over_and_given_back() {
    let bare = Bare::new();
    let disk = on_disk();
    let mut scope = scope_in_workloads("somebody");
    let before = look();
    let role = bare.lab.file(
        "w.role.toml",
        "[workloads]\nmemory_max = \"900 MiB\"\npids = 2000\n",
    );
    for _ in 0..2 {
        cgmgr(&["apply", &role]).expect(0);
        assert_eq!(
            read(&format!("{}/memory.max", workloads())),
            (900 << 20).to_string()
        );
        assert_eq!(steps(&cgmgr(&["plan", &role, "--json"]).expect(0)), [""; 0]);
        let down = cgmgr(&["down"]).expect(0);
        down.says("workloads.slice stays").says("somebody.scope");
        assert_eq!(look(), before);
        assert_eq!(property("workloads.slice", "ActiveState"), "active");
        assert!(
            scope.try_wait().expect("a look").is_none(),
            "somebody else's scope is gone"
        );
        assert_eq!(steps(&cgmgr(&["down", "--dry-run", "--json"]).expect(0)), [""; 0]);
    }
    systemctl(&["stop", "somebody.scope"]);
    scope.wait().expect("a child");
    systemctl(&["stop", "workloads.slice"]);
    assert_eq!(on_disk(), disk);
    drop(bare);
}

/// An administrator's value after `apply`: told, left, and overruled only on demand.
fn drift(lab: &Lab) {
    let ceiling = || read(&format!("{}/memory.max", workloads()));
    let role = lab.file(
        "w.role.toml",
        "[workloads]\nmemory_max = \"900 MiB\"\npids = 2000\n",
    );
    let theirs = (700_u64 << 20).to_string();
    cgmgr(&["apply", &role]).expect(0);
    let set = systemctl(&["set-property", "--runtime", "workloads.slice", "MemoryMax=700M"]);
    assert_eq!((set.status, ceiling()), (0, theirs.clone()), "{set:#?}");
    cgmgr(&["plan", &role])
        .expect(0)
        .says("MemoryMax")
        .says("set-property")
        .says("--force");
    for _ in 0..2 {
        cgmgr(&["apply", &role])
            .expect(0)
            .says("MemoryMax")
            .says("set-property");
        assert_eq!(ceiling(), theirs);
        assert_eq!(read(&format!("{}/pids.max", workloads())), "2000");
        reload_and_reexec();
        assert_eq!(ceiling(), theirs);
    }
    assert_eq!(steps(&cgmgr(&["plan", &role, "--json"]).expect(0)), [""; 0]);
    cgmgr(&["apply", "--force", &role])
        .expect(0)
        .says_nothing_of("set-property");
    assert_eq!(ceiling(), (900 << 20).to_string());
    let again = cgmgr(&["plan", &role]).expect(0);
    again.says_nothing_of("set-property");
    assert!(again.out.contains("nothing to do"), "{again:#?}");
    reload_and_reexec();
    assert_eq!(ceiling(), (900 << 20).to_string());
}

#[test]
fn what_an_administrator_set_is_told_and_left_in_a_slice_of_cgmgrs() {
    let bare = Bare::new();
    let disk = on_disk();
    drift(&bare.lab);
    cgmgr(&["down"]).expect(0);
    assert_eq!(on_disk(), disk);
    drop(bare);
}

#[test]
fn what_an_administrator_set_is_told_and_left_in_an_installed_slice() {
    let lab = Lab::new();
    let (disk, files) = (on_disk(), look());
    drift(&lab);
    cgmgr(&["down"]).expect(0);
    // Theirs is as it was before `--force`.
    assert_eq!(
        read(&format!("{}/memory.max", workloads())),
        (700_u64 << 20).to_string()
    );
    fs::remove_dir_all("/run/systemd/system.control/workloads.slice.d").expect("what set-property made");
    let role = lab.file("w.role.toml", "[workloads]\npids = 2000\n");
    cgmgr(&["apply", &role]).expect(0);
    cgmgr(&["down"]).expect(0);
    let _ = fs::remove_dir("/run/systemd/system.control");
    assert_eq!(look(), files);
    assert_eq!(on_disk(), disk);
}

/// The calls of a command that change something in the tree outside of the delegated unit, of all that touch the tree.
fn changes(lab: &Lab, words: &[&str]) -> (Vec<String>, usize) {
    let file = lab.path("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-o", &file, "-e"]);
    strace.arg("trace=openat,write,writev,pwrite64,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,setxattr,fsetxattr,removexattr,fremovexattr,clone3");
    finish(strace.arg(must("CGMGR_BIN")).args(words)).expect(0);
    let calls = read(&file);
    let touching: Vec<&str> = calls.lines().filter(|l| l.contains(MOUNT)).collect();
    let changing = touching
        .iter()
        .filter(|l| {
            !l.contains("openat(") || l.contains("O_WRONLY") || l.contains("O_RDWR") || l.contains("O_CREAT")
        })
        .filter(|l| !l.contains("cgmgr-sessions.service"))
        .map(|l| (*l).to_owned());
    (changing.collect(), touching.len())
}

#[test]
fn nothing_is_written_to_the_tree_outside_of_the_delegated_unit() {
    let look_on = |lab: &Lab| {
        let text = "[agent]\nmemory_min = \"64 MiB\"\n[workloads]\nmemory_max = \"900 MiB\"\npids = 2000\n";
        let role = lab.file("w.role.toml", text);
        for words in [["apply", &role].as_slice(), &["down"]] {
            let (changing, touching) = changes(lab, words);
            assert_eq!(changing, [""; 0], "{words:?}");
            assert!(touching > 0, "the trace of {words:?} shows no look at the tree");
        }
    };
    look_on(&Lab::new());
    let bare = Bare::new();
    look_on(&bare.lab);
}
