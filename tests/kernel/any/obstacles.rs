//! Things of somebody else in the way, and groups that somebody else takes away: a session then runs, or nothing is
//! started, nothing is left, and the error says what is where and what to do.

use std::fs;
use std::process::{Child, Command, Stdio};

use super::together::clear;
use crate::cgmgr::{Done, Live, cgmgr, command, finish, report, run_payload, until};
use crate::lab::{Lab, MOUNT, children, is_systemd, must, path_of, procs, read, sessions, workloads, write};

/// A process of somebody else's in a group of his.
struct Stranger(Child);

impl Stranger {
    fn in_group(group: &str) -> Stranger {
        let child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        write(&format!("{group}/cgroup.procs"), &child.id().to_string());
        Stranger(child)
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("a look").is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// A group of somebody else's outside of anything of cgmgr's. It goes with everything in it.
struct Elsewhere {
    path: String,
    controllers: String,
}

impl Elsewhere {
    fn new(name: &str) -> Elsewhere {
        let control = format!("{MOUNT}/cgroup.subtree_control");
        let controllers = read(&control);
        write(&control, "+cpu +io +memory +pids");
        let path = format!("{MOUNT}/{name}");
        fs::create_dir(&path).expect("a group");
        Elsewhere { path, controllers }
    }

    fn group(&self, below: &str) -> String {
        let path = format!("{}/{below}", self.path);
        fs::create_dir(&path).expect("a group");
        path
    }

    /// Everything that cgmgr could change: the groups below with their types, controllers and processes.
    fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        state_of(&self.path, &mut state);
        state
    }
}

fn state_of(group: &str, state: &mut Vec<String>) {
    let file = |name: &str| fs::read_to_string(format!("{group}/{name}")).unwrap_or_default();
    let mut mark = [0_u8; 16];
    let marked = rustix::fs::getxattr(group, "user.cgmgr.made", &mut mark).is_ok();
    let [kind, control, procs] = ["cgroup.type", "cgroup.subtree_control", "cgroup.procs"].map(file);
    state.push(format!("{group} {kind:?} {control:?} {procs:?} {marked}"));
    for child in children(group) {
        state_of(&format!("{group}/{child}"), state);
    }
}

fn remove_tree(group: &str) {
    for child in children(group) {
        remove_tree(&format!("{group}/{child}"));
    }
    let _ = fs::remove_dir(group);
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = fs::write(format!("{}/cgroup.kill", self.path), "1");
        for _ in 0..200 {
            remove_tree(&self.path);
            if !fs::exists(&self.path).unwrap_or(true) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        for name in ["cpu", "io", "memory", "pids"] {
            if !self.controllers.split(' ').any(|had| had == name) {
                let _ = fs::write(format!("{MOUNT}/cgroup.subtree_control"), format!("-{name}"));
            }
        }
    }
}

/// `cgmgr run` with these options, of a command that leaves a file: it must be refused, and not have run.
#[track_caller]
fn refused(lab: &Lab, options: &[&str]) -> Done {
    let (file, marker) = (lab.path("refused-report"), lab.path("refused-marker"));
    let mut command = command(["run", "--report", &file]);
    let done = finish(command.args(options).args(["--", "touch", &marker]));
    assert_eq!(done.status, 125, "{done:#?}");
    clear(&done);
    assert!(
        !fs::exists(&marker).expect("a look"),
        "the command ran: {done:#?}"
    );
    let told = report(&file);
    assert_eq!(told["started_command"], false, "{told:#}");
    done
}

fn signal(pid: i32, signal: &str) {
    finish(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()])).expect(0);
}

#[test]
fn a_group_removed_at_any_moment_of_a_launch_starts_nothing() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let group = path_of("robbed");
    let marked = || rustix::fs::getxattr(group.as_str(), "user.cgmgr.session", &mut [0_u8; 4096]).is_ok();
    let limited = || {
        let max = fs::read_to_string(format!("{group}/memory.max"));
        max.is_ok_and(|text| text.trim_end() == (48 << 20).to_string())
    };
    let there = || fs::exists(&group).expect("a look");
    let moments: [(&str, &dyn Fn() -> bool); 3] =
        [("fsetxattr", &there), ("pwrite64", &marked), ("clone3", &limited)];
    for (call, reached) in moments {
        let (file, marker) = (lab.path("report"), lab.path("marker"));
        let launch = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"])
            .arg(format!("inject={call}:delay_enter=3000000:when=1"))
            .arg(must("CGMGR_BIN"))
            .args([
                "run",
                "--name",
                "robbed",
                "--memory-max",
                "48MiB",
                "--report",
                &file,
                "--",
                "touch",
                &marker,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace");
        until(&format!("{call} is reached"), reached);
        fs::remove_dir(&group).expect("an empty group");
        let output = launch.wait_with_output().expect("a child");
        let done = Done {
            status: crate::cgmgr::shell_status(output.status),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert_eq!(done.status, 125, "at {call}: {done:#?}");
        clear(&done);
        done.says(&group);
        assert!(
            !fs::exists(&marker).expect("a look"),
            "at {call}: the command ran"
        );
        assert_eq!(report(&file)["started_command"], false, "at {call}");
        assert!(!there(), "at {call}: a group is left");
    }
}

#[test]
fn a_live_sessions_group_cannot_be_removed_and_goes_on() {
    let _lab = Lab::new();
    let live = Live::hold("held", &["--memory-max", "64MiB"], 1);
    let error = fs::remove_dir(live.group()).expect_err("the kernel keeps it");
    assert_eq!(error.raw_os_error(), Some(libc_ebusy()));
    live.end().expect(0);
}

fn libc_ebusy() -> i32 {
    rustix::io::Errno::BUSY.raw_os_error()
}

#[test]
fn a_session_that_was_moved_out_of_its_group_ends_as_its_command_does() {
    let lab = Lab::new();
    // The controllers are cgmgr's to switch off again: it switches them on.
    cgmgr(&["run", "--", "true"]).expect(0);
    let elsewhere = Elsewhere::new("lab-elsewhere");
    let file = lab.path("report");
    let live = Live::hold("moved", &["--memory-max", "64MiB", "--report", &file], 1);
    let leaf = elsewhere.group("leaf");
    for pid in procs(&live.group()) {
        write(&format!("{leaf}/cgroup.procs"), &pid.to_string());
    }
    until("its group can be removed", || {
        fs::remove_dir(live.group()).is_ok()
    });
    let done = live.end().expect(0);
    done.says("its group was removed by somebody else");
    assert_eq!(report(&file)["oom"], "unknown");
}

#[test]
fn a_group_removed_before_the_end_is_accounted_for_leaves_the_verdict_unknown() {
    let lab = Lab::new();
    let file = lab.path("report");
    let live = Live::hold("vanished", &["--memory-max", "64MiB", "--report", &file], 1);
    signal(live.pid(), "STOP");
    signal(procs(&live.group())[0], "TERM");
    until("its group can be removed", || {
        fs::remove_dir(live.group()).is_ok()
    });
    let cgmgr = live.pid();
    signal(cgmgr, "CONT");
    let done = live.wait().expect(143);
    done.says("whether it was OOM-killed is not known");
    assert_eq!(report(&file)["oom"], "unknown");
    run_payload(&["--name", "vanished"], &["facts"]).expect(0);
}

#[test]
fn processes_of_somebody_else_under_a_sessions_name_are_nobodys_to_kill() {
    let _lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let theirs = path_of("theirs");
    fs::create_dir(&theirs).expect("a group");
    let mut stranger = Stranger::in_group(&theirs);
    let mut done = Vec::new();
    for words in [
        ["kill", "theirs"].as_slice(),
        &["stop", "theirs"],
        &["down", "--kill"],
        &["down"],
    ] {
        let told = cgmgr(words);
        assert!(stranger.lives(), "{words:?} killed it: {told:#?}");
        assert!(
            fs::exists(&theirs).expect("a look"),
            "{words:?} took its group: {told:#?}"
        );
        done.push(told);
    }
    for told in done {
        // Where systemd has the slices, `down` has nothing to take away that the group is in.
        if told.status != 0 || !is_systemd() {
            clear(&told);
        }
        told.says("theirs");
    }
    drop(stranger);
    until("the group goes", || fs::remove_dir(&theirs).is_ok());
}

#[test]
fn groups_of_somebody_else_under_a_sessions_name_stay() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let theirs = path_of("nest");
    fs::create_dir_all(format!("{theirs}/inner")).expect("groups");
    let there = || fs::exists(format!("{theirs}/inner")).expect("a look");
    // Another launch sweeps; so do `apply` and `down`.
    run_payload(&["--name", "other"], &["facts"]).expect(0);
    assert!(there(), "a launch swept it");
    let refusal = refused(&lab, &["--name", "nest"]);
    refusal.says(&theirs);
    assert!(there(), "a launch of the name took it");
    let role = lab.file("r.role.toml", "[workloads]\nmemory_max = \"700 MiB\"\n");
    cgmgr(&["apply", &role]).expect(0);
    assert!(there(), "apply swept it");
    cgmgr(&["down", "--kill"]);
    assert!(there(), "down took it");
    fs::remove_dir(format!("{theirs}/inner")).expect("an empty group");
    fs::remove_dir(&theirs).expect("an empty group");
}

#[test]
fn slices_of_somebody_else_are_named_and_left_alone() {
    let lab = Lab::new();
    for slice in ["workloads.slice", "agent.slice"] {
        for inhabited in [true, false] {
            let base = Elsewhere::new("lab-base");
            let group = base.group(slice);
            let mut stranger = match inhabited {
                true => Some(Stranger::in_group(&group)),
                false => {
                    fs::create_dir(format!("{group}/inner")).expect("a group");
                    None
                }
            };
            let before = base.state();
            let done = refused(&lab, &["--cgroup-root", "/lab-base", "--memory-max", "64MiB"]);
            done.says(slice).says("was not made by cgmgr");
            let role = lab.file("r.role.toml", "[workloads]\nmemory_max = \"700 MiB\"\n");
            let applied = cgmgr(&["--cgroup-root", "/lab-base", "apply", &role]).expect(1);
            clear(&applied);
            applied.says(slice);
            assert_eq!(base.state(), before, "{done:#?}");
            assert!(stranger.as_mut().is_none_or(Stranger::lives));
        }
    }
}

/// Makes what is in the way below a group.
type Shape<'a> = &'a dyn Fn(&Elsewhere);

#[test]
fn a_threaded_group_in_the_way_is_named() {
    let lab = Lab::new();
    let threaded = |group: &str| write(&format!("{group}/cgroup.type"), "threaded");
    let shapes: [(&str, &str, Shape); 5] = [
        ("/lab-base", "threaded", &|base| threaded(&base.path)),
        ("/lab-base", "domain threaded", &|base| threaded(&base.group("x"))),
        ("/lab-base", "domain threaded", &|base| {
            threaded(&base.group("workloads.slice"));
        }),
        ("/lab-base", "domain threaded", &|base| {
            threaded(&base.group("agent.slice"))
        }),
        ("/lab-base/in", "domain invalid", &|base| {
            threaded(&base.path);
            base.group("in");
        }),
    ];
    for (root, kind, make) in shapes {
        let base = Elsewhere::new("lab-base");
        make(&base);
        let before = base.state();
        let done = refused(
            &lab,
            &["--cgroup-root", root, "--memory-max", "64MiB", "--pids", "50"],
        );
        done.says(kind).says(root);
        let role = lab.file("r.role.toml", "[workloads]\npids = 700\n");
        let applied = cgmgr(&["--cgroup-root", root, "apply", &role]).expect(1);
        clear(&applied);
        applied.says(kind);
        assert_eq!(base.state(), before, "{root} {kind}: {done:#?}");
    }
}

#[test]
fn a_limit_on_groups_is_named_with_its_value() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let mut above = vec![sessions(), workloads(), MOUNT.to_owned()];
    above.dedup();
    for group in above {
        let levels = sessions()[group.len()..].matches('/').count();
        let count = read(&format!("{group}/cgroup.stat"));
        let count = count.lines().find_map(|l| l.strip_prefix("nr_descendants "));
        let count = count.expect("a count").to_owned();
        for (file, value) in [
            ("cgroup.max.descendants", count),
            ("cgroup.max.depth", levels.to_string()),
        ] {
            let limit = format!("{group}/{file}");
            let before = read(&limit);
            write(&limit, &value);
            let done = std::panic::catch_unwind(|| refused(&lab, &["--name", "one-more"]));
            write(&limit, &before);
            let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.says(&limit).says(&format!("is {value}")).says("help: raise");
            assert!(
                !fs::exists(path_of("one-more")).expect("a look"),
                "a group is left"
            );
        }
    }
    run_payload(&["--name", "one-more"], &["facts"]).expect(0);
}

#[test]
fn an_obstacle_in_the_runtime_directory_is_named() {
    let lab = Lab::new();
    let refused_with = |directory: &str, what: &str| {
        let marker = lab.path("marker");
        let mut run = command(["run", "--name", "blocked", "--", "touch", &marker]);
        let done = finish(run.env("CGMGR_RUNTIME_DIR", directory)).expect(125);
        clear(&done);
        done.says(what);
        assert!(!fs::exists(&marker).expect("a look"), "the command ran");
        assert!(
            !fs::exists(path_of("blocked")).expect("a look"),
            "a group is left"
        );
    };
    let file = lab.file("runtime-file", "");
    refused_with(&file, &file);
    let missing = lab.path("not/there");
    refused_with(&missing, &missing);
    let open = lab.path("runtime-open");
    fs::create_dir(&open).expect("a folder");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a mode");
    refused_with(&open, &open);
    // A folder, and a link, where the session's lock is to be.
    let private = lab.path("runtime");
    let mut run = command(["run", "--", "true"]);
    finish(run.env("CGMGR_RUNTIME_DIR", &private)).expect(0);
    let scope = fs::read_dir(&private)
        .expect("a folder")
        .flatten()
        .next()
        .expect("a scope")
        .path();
    let lock = scope.join("blocked.lock");
    fs::create_dir(&lock).expect("a folder");
    refused_with(&private, "blocked.lock");
    fs::remove_dir(&lock).expect("a folder");
    std::os::unix::fs::symlink("/dev/null", &lock).expect("a link");
    refused_with(&private, "blocked.lock");
}
