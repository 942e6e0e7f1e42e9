//! The Debian package, as a user has it: installed, used, upgraded, removed and purged. Afterwards nothing is left, and
//! nobody's session was ended by it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cgmgr::{Done, Live, cgmgr, finish, payload, until};
use crate::lab::{Lab, MOUNT, children, example, is_systemd, must, path_of, procs, read, write};

/// The program of the package; the lab's own is /usr/local/bin/cgmgr.
const PROGRAM: &str = "/usr/bin/cgmgr";

/// What dpkg, systemd, mount and the programs that they start keep for themselves.
const NOT_OURS: [&str; 8] = [
    "/var/lib/dpkg",
    "/var/log",
    "/var/cache",
    "/run/log",
    "/run/systemd",
    "/run/dbus",
    "/run/mount",
    "/run/user",
];

/// What of /run/systemd is looked at all the same: units and drop-ins.
const OURS_ALL_THE_SAME: [&str; 2] = ["/run/systemd/system", "/run/systemd/transient"];

/// Every path that an installation could leave something at, and the groups at the top.
fn all_paths() -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = children(MOUNT)
        .into_iter()
        .map(|g| format!("{MOUNT}/{g}"))
        .collect();
    let mut folders: Vec<String> = ["/etc", "/usr", "/var", "/run", "/opt", "/root"]
        .map(str::to_owned)
        .into();
    folders.extend(OURS_ALL_THE_SAME.map(str::to_owned));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path().to_string_lossy().into_owned();
            if NOT_OURS.contains(&path.as_str()) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path.clone());
            }
            paths.insert(path);
        }
    }
    assert!(paths.len() > 1000, "only {} paths", paths.len());
    paths
}

/// A machine without cgmgr's units, groups and package, but with the lab's own program; and what is there.
fn clean() -> (Lab, BTreeSet<String>) {
    cgmgr(&["down", "--kill"]).expect(0);
    cgmgr(&["uninstall"]).expect(0);
    // Runtime directories of bases that earlier tests made and removed: `down` knows the one in force.
    let _ = fs::remove_dir_all("/run/cgmgr");
    // Records of what earlier tests did.
    let _ = fs::remove_dir_all("/var/lib/cgmgr");
    let lab = Lab::bare();
    let paths = all_paths();
    let ours = |path: &&String| path.contains("cgmgr") && !path.contains("cgmgr-lab");
    let ours: Vec<_> = paths.iter().filter(ours).collect();
    assert_eq!(ours, ["/usr/local/bin/cgmgr"]);
    (lab, paths)
}

#[track_caller]
fn nothing_is_left(before: &BTreeSet<String>) {
    let after = all_paths();
    let left: Vec<_> = after.difference(before).collect();
    let gone: Vec<_> = before.difference(&after).collect();
    assert_eq!(
        (left, gone),
        (Vec::new(), Vec::new()),
        "(what is left, what is gone)"
    );
}

fn dpkg(words: &[&str]) -> Done {
    // The lab's images leave documentation out of what is installed.
    let mut command = Command::new("dpkg");
    command.args([
        "--path-include=/usr/share/doc/*",
        "--path-include=/usr/share/man/*",
    ]);
    finish(command.args(words))
}

fn program(words: &[&str]) -> Done {
    finish(Command::new(PROGRAM).args(words))
}

fn install() {
    dpkg(&["--install", &must("CGMGR_DEB")])
        .expect(0)
        .says_nothing_of("cgmgr:");
    if is_systemd() {
        program(&["install", "--minimal"]).expect(0);
    }
}

/// A session that the program of the package started.
fn live(name: &str) -> Live {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--name", name, "--memory-max", "64MiB", "--"]);
    let mut live = Live::of(name, command.args([&payload(), "hold", "0"]));
    live.hear("ready ");
    live
}

#[track_caller]
fn is_limited_and_alive(live: &mut Live) {
    assert_eq!(
        read(&format!("{}/memory.max", live.group())),
        (64 << 20).to_string()
    );
    assert_ne!(procs(&live.group()), [0; 0]);
    assert!(
        live.cgmgr.try_wait().expect("a child").is_none(),
        "its supervisor has ended"
    );
}

#[test]
fn installed_used_upgraded_and_purged_it_leaves_nothing() {
    let (_lab, before) = clean();
    install();
    let version = format!("cgmgr {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(program(&["--version"]).expect(0).out, version);
    let files = finish(Command::new("dpkg").args(["--listfiles", "cgmgr"]))
        .expect(0)
        .out;
    for path in files.lines() {
        assert!(Path::new(path).exists(), "{path} is not there");
    }
    for path in [
        "/usr/lib/systemd/catalog/cgmgr.catalog",
        "/usr/share/man/man1/cgmgr.1.gz",
        "/usr/share/man/man1/cgmgr-run.1.gz",
        "/usr/share/man/man5/cgmgr-role.toml.5.gz",
        "/usr/share/bash-completion/completions/cgmgr",
        "/usr/share/zsh/vendor-completions/_cgmgr",
        "/usr/share/fish/vendor_completions.d/cgmgr.fish",
        "/usr/share/doc/cgmgr/examples/rust.role.toml",
        "/usr/share/doc/cgmgr/copyright",
    ] {
        assert!(files.lines().any(|line| line == path), "{path} is not in {files}");
    }
    let schema = read("/usr/share/cgmgr/role.schema.json");
    assert_eq!(program(&["schema"]).expect(0).out.trim_end(), schema);

    program(&["apply", &example("workspace")]).expect(0);
    let mut kept = live("kept");
    is_limited_and_alive(&mut kept);
    // The same version again is to dpkg what a newer one is.
    dpkg(&["--install", &must("CGMGR_DEB")])
        .expect(0)
        .says_nothing_of("cgmgr:");
    is_limited_and_alive(&mut kept);
    assert!(program(&["status"]).expect(0).out.contains("kept"));
    kept.end().expect(0);
    program(&["run", "--pids", "50", "--", "sh", "-c", "exit 7"]).expect(7);

    dpkg(&["--purge", "cgmgr"]).expect(0).says_nothing_of("cgmgr:");
    nothing_is_left(&before);
}

/// As many as live while the package is upgraded.
const MANY: usize = 100;

#[test]
fn an_upgrade_leaves_a_hundred_sessions_their_limits_and_verdicts() {
    let (lab, before) = clean();
    install();
    let name = |n: usize| format!("s{n}");
    let pipe = lab.path("pipe");
    finish(Command::new("mkfifo").arg(&pipe)).expect(0);
    // Every tenth will want more than it may have.
    let greedy = format!("read line <{pipe}; exec {} hog 40", payload());
    for n in 0..MANY {
        let (name, pids) = (name(n), (20 + n).to_string());
        let mut words = vec![
            "run",
            "--detach",
            "--name",
            &name,
            "--memory-max",
            "16MiB",
            "--pids",
            &pids,
            "--",
        ];
        if n % 10 == 0 {
            words.extend(["sh", "-c", &greedy]);
        } else {
            words.extend(["sleep", "100000"]);
        }
        program(&words).expect(0);
    }
    let look = |n: usize| {
        let group = path_of(&name(n));
        let file = |f: &str| read(&format!("{group}/{f}"));
        (procs(&group), file("memory.max"), file("pids.max"))
    };
    let live: Vec<_> = (0..MANY).map(look).collect();
    for (n, (procs, memory, pids)) in live.iter().enumerate() {
        assert_eq!(
            (procs.len(), memory.as_str(), pids.as_str()),
            (1, "16777216", (20 + n).to_string().as_str())
        );
    }
    dpkg(&["--install", &must("CGMGR_DEB")])
        .expect(0)
        .says_nothing_of("cgmgr:");
    assert_eq!((0..MANY).map(look).collect::<Vec<_>>(), live);
    write(&pipe, "");
    for n in (0..MANY).step_by(10) {
        program(&["wait", &name(n)])
            .expect(137)
            .says("memory_max 16.0 MiB");
    }
    for n in (0..MANY).filter(|n| n % 10 != 0) {
        assert_eq!(look(n), live[n]);
    }
    program(&["run", "--pids", "50", "--", "sh", "-c", "exit 7"]).expect(7);
    program(&["down", "--kill"]).expect(0);
    dpkg(&["--purge", "cgmgr"]).expect(0).says_nothing_of("cgmgr:");
    nothing_is_left(&before);
}

#[test]
fn sessions_that_run_when_it_is_removed_go_on_and_the_user_is_told_how_to_end_them() {
    let (_lab, before) = clean();
    install();
    let mut kept = live("kept");
    let done = dpkg(&["--remove", "cgmgr"]).expect(0);
    done.says("sessions that run go on").says("kept");
    assert!(!Path::new(PROGRAM).exists());
    is_limited_and_alive(&mut kept);
    // What it says is how they end.
    done.says(&(path_of("NAME") + "/cgroup.kill"));
    if is_systemd() {
        done.says("systemctl stop cgmgr-sessions.scope")
            .says("once it is stopped: dpkg --purge cgmgr");
        finish(Command::new("systemctl").args(["stop", "cgmgr-sessions.scope"])).expect(0);
    } else {
        write(&(path_of("kept") + "/cgroup.kill"), "1");
    }
    assert!(kept.wait().status >= 128);
    until("the session's group is gone", || {
        !Path::new(&path_of("kept")).exists()
    });
    dpkg(&["--purge", "cgmgr"]).expect(0).says_nothing_of("cgmgr:");
    if !is_systemd() {
        // The groups of both parts stay until the next boot, or until this.
        cgmgr(&["down"]).expect(0);
    }
    nothing_is_left(&before);
}

#[test]
fn in_a_chroot_the_machine_around_it_is_left_alone() {
    let (lab, before) = clean();
    let root = lab.path("root");
    fs::create_dir(&root).expect("a folder");
    let deb = must("CGMGR_DEB");
    let mut outer = {
        install();
        live("outer")
    };
    // A system of its own over the machine's files, with the machine's kernel in sight, as image builders have it.
    let script = format!(
        "set -e; modprobe overlay; mount -t tmpfs tmpfs {root}; mkdir {root}/upper {root}/work {root}/all; \
         mount -t overlay overlay -o lowerdir=/,upperdir={root}/upper,workdir={root}/work {root}/all; cd {root}/all; \
         mount --rbind /proc proc; mount --rbind /sys sys; mount --rbind /dev dev; \
         mkdir -p lab tmp; cp {deb} cgmgr.deb; \
         chroot . dpkg --install /cgmgr.deb; chroot . dpkg --purge cgmgr; \
         test ! -e usr/bin/cgmgr; test ! -e etc/systemd/system/cgmgr-sessions.service"
    );
    let done =
        finish(Command::new("unshare").args(["--mount", "--propagation", "private", "bash", "-c", &script]));
    done.expect(0).says_nothing_of("cgmgr:");
    assert!(Path::new(PROGRAM).exists());
    is_limited_and_alive(&mut outer);
    outer.end().expect(0);
    dpkg(&["--purge", "cgmgr"]).expect(0).says_nothing_of("cgmgr:");
    nothing_is_left(&before);
}
