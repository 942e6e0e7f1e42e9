//! `adopt`: running processes get limits of their own, and whoever got away is told.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::libc::EBUSY;
use serde_json::Value;

use crate::cgmgr::{Done, cgmgr, command, payload, until};
use crate::lab::{Lab, MOUNT, path_of, procs, read, session_groups, write};
use crate::people::coder;
use crate::tracer::{Fault, trace};

/// A process that cgmgr did not start. It goes with the test.
struct Stray {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Stray {
    fn start(program: &str, words: &[&str]) -> Stray {
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Stray { child, out }
    }

    fn sleep() -> Stray {
        Stray::start("sleep", &["1000"])
    }

    fn shell(script: &str) -> Stray {
        Stray::start("sh", &["-c", script])
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        self.end();
    }
}

fn kill(pid: &str) {
    let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a pid"));
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

/// The group of a process, as a directory.
fn group_of(pid: &str) -> String {
    let text = read(&format!("/proc/{pid}/cgroup"));
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .expect("a group");
    format!("{MOUNT}{}", path.trim_end_matches('/'))
}

fn pids_of(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|one| one["pid"].to_string()).collect()
}

/// Ends a session, and sees it go.
#[track_caller]
fn put_away(session: &str) {
    cgmgr(&["kill", session]).expect(0);
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn processes_get_limits_and_a_session_like_any_other() {
    let lab = Lab::new();
    let role = lab.file(
        "late.role.toml",
        "[runtime.limits]\nmemory_max = \"100 MiB\"\npids = 64\nnofile = 512\n",
    );
    let (one, two) = (Stray::sleep(), Stray::sleep());
    let before = group_of(&one.pid());
    let done = cgmgr(&[
        "adopt",
        "--role",
        &role,
        "--cpus",
        "1.5",
        "--name",
        "late",
        &one.pid(),
        &two.pid(),
    ]);
    let done = done.expect(0);
    assert!(done.out.starts_with("late: 2 processes adopted\n"), "{done:#?}");
    for words in [
        "memory_max 104857600 enforced",
        "pids 64 enforced",
        "cpus 150000 100000 enforced",
        "nofile 512 not enforced: it is set before a command is executed, and these processes run already",
    ] {
        let said = done
            .out
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(said.into_iter().any(|line| line == words), "{words}: {done:#?}");
    }
    done.says("stays charged to");
    let group = path_of("late");
    assert_eq!(
        [group_of(&one.pid()), group_of(&two.pid())],
        [group.clone(), group.clone()]
    );
    assert_eq!(read(&format!("{group}/memory.max")), "104857600");
    assert_eq!(read(&format!("{group}/pids.max")), "64");

    let status = cgmgr(&["status", "late", "--json"]).expect(0).json();
    let session = &status["sessions"][0];
    assert_eq!(
        (&session["state"], &session["role"]),
        (&"running".into(), &"late".into())
    );
    assert_eq!(session["command"], serde_json::json!(["sleep", "1000"]));
    assert_eq!(session["unconfined"], serde_json::json!(["nofile"]));
    assert_eq!(session["uid"], 0);
    // Whoever enters is told what is not known of it, and gets what is.
    let inside = cgmgr(&[
        "enter",
        "late",
        "--",
        "sh",
        "-c",
        "ulimit -n; cat /proc/self/cgroup",
    ])
    .expect(0);
    assert!(
        inside.out.starts_with("512\n") && inside.out.ends_with("/cgmgr-late\n"),
        "{inside:#?}"
    );
    inside.says("not known");
    // An adopted one is not adopted again, nor is a name taken twice.
    cgmgr(&["adopt", &one.pid()])
        .expect(1)
        .says("in session late already");
    let three = Stray::sleep();
    cgmgr(&["adopt", "--name", "late", &three.pid()])
        .expect(1)
        .says("in use");
    assert_eq!(group_of(&three.pid()), before);
    put_away("late");
}

#[test]
fn the_group_goes_when_the_last_of_them_has_ended() {
    let lab = Lab::new();
    let mut stray = Stray::sleep();
    let json = cgmgr(&["adopt", "--json", "--memory-max", "64MiB", &stray.pid()])
        .expect(0)
        .json();
    assert_eq!(json["session"], "sleep-1");
    assert_eq!(json["moved"][0]["comm"], "sleep");
    assert_eq!(
        format!("{MOUNT}{}", json["group"].as_str().expect("a group")),
        path_of("sleep-1")
    );
    assert_eq!(json["receipt"][0]["state"], "enforced", "{json:#}");
    assert_eq!(
        (&json["escaped"], &json["promise"]),
        (&serde_json::json!([]), &"bookkeeping".into())
    );
    stray.end();
    until("the group is removed", || session_groups().is_empty());
    cgmgr(&["wait", "sleep-1"]).expect(1);
    drop(lab);
}

#[test]
fn memory_that_was_taken_before_stays_where_it_was() {
    let lab = Lab::new();
    let mut holder = Stray::start(&payload(), &["hold", "60"]);
    assert!(holder.hear().starts_with("ready "));
    let done = cgmgr(&["adopt", "--name", "full", "--memory-max", "32MiB", &holder.pid()]).expect(0);
    done.says("stays charged to /")
        .says("that is more than memory_max 32.0 MiB");
    assert!(crate::lab::counter(&format!("{}/memory.current", path_of("full")), "") < 32 << 20);
    assert_eq!(procs(&path_of("full")).len(), 1, "it was not killed for it");
    put_away("full");
    drop(lab);
}

#[test]
fn an_oom_kill_among_them_is_kept_for_wait() {
    let lab = Lab::new();
    let mut hog = Stray::start(&payload(), &["later", "hog", "200"]);
    cgmgr(&["adopt", "--name", "fat", "--memory-max", "48MiB", &hog.pid()]).expect(0);
    drop(hog.child.stdin.take());
    let done = cgmgr(&["wait", "fat"]).expect(125);
    done.says("fat: 1 process was OOM-killed");
    until("the group is removed", || session_groups().is_empty());
    drop(lab);
}

/// L10 of `coder.rs` too: what ends meanwhile is no failure.
#[test]
fn a_tree_that_forks_all_the_time_is_inside_in_the_end() {
    let lab = Lab::new();
    for run in 0..5 {
        let mut grove = Stray::start(&payload(), &["grove", "6"]);
        assert_eq!(grove.hear(), "ready");
        let root = grove.pid();
        let before = group_of(&root);
        let done = cgmgr(&["adopt", "--json", "--name", "grove", "--children-of", &root]).expect(0);
        let json = done.json();
        assert_eq!(json["escaped"], serde_json::json!([]), "run {run}: {json:#}");
        assert!(pids_of(&json["moved"]).len() >= 6, "run {run}: {json:#}");
        // The root itself is not one of its own descendants.
        assert_eq!(group_of(&root), before);
        let mut seen = 0;
        for _ in 0..5 {
            for pid in processes_like("grove 6") {
                let Ok(group) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else {
                    continue;
                };
                // One that has ended and is not yet waited for may show where it was or nothing.
                let inside = group.trim_end().ends_with("/cgmgr-grove") || is_zombie(&pid);
                assert!(pid == root || inside, "run {run}: {pid} is in {group}");
                seen += 1;
            }
        }
        assert!(seen > 60, "only {seen} were looked at");
        put_away("grove");
        drop(grove.child.stdin.take());
        grove.child.wait().expect("a child");
    }
    drop(lab);
}

fn is_zombie(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

/// Pids of processes whose command line ends so.
fn processes_like(words: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.filter(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.trim_end_matches('\0').replace('\0', " ").ends_with(words)
    })
    .collect()
}

#[test]
fn whoever_left_the_tree_before_is_told_and_not_moved() {
    let lab = Lab::new();
    let mut stray = Stray::shell("(sleep 2000 & echo $!); sleep 1000 & echo $!; wait");
    let (gone, there) = (stray.hear(), stray.hear());
    until("it is nobody's child here", || {
        !read(&format!("/proc/{gone}/stat")).contains(&format!(" {} ", stray.pid()))
    });
    let done = cgmgr(&["adopt", "--json", "--name", "tree", "--children-of", &stray.pid()]);
    let json = done.expect(1).json();
    assert_eq!(pids_of(&json["moved"]), [there.as_str()], "{json:#}");
    assert_eq!(pids_of(&json["escaped"]), [gone.as_str()], "{json:#}");
    assert_eq!(json["escaped"][0]["comm"], "sleep");
    assert!(
        json["escaped"][0]["why"]
            .as_str()
            .is_some_and(|why| why.contains("left the tree")),
        "{json:#}"
    );
    assert_eq!(group_of(&gone), group_of(&stray.pid()));
    // As it says.
    cgmgr(&["adopt", "--name", "late", &gone]).expect(0);
    assert_eq!(group_of(&gone), path_of("late"));
    kill(&gone);
    until("its group is removed", || session_groups() == ["cgmgr-tree"]);
    put_away("tree");
    drop(lab);
}

#[test]
fn children_of_named_ones_stay_and_are_told_of() {
    let lab = Lab::new();
    let mut stray = Stray::shell("sleep 1000 & echo $!; wait");
    let child = stray.hear();
    let before = group_of(&child);
    let done = cgmgr(&["adopt", "--name", "half", &stray.pid()]).expect(0);
    done.says("1 process that descends from pid")
        .says(&format!("--children-of {}", stray.pid()));
    assert_eq!(
        (group_of(&stray.pid()), group_of(&child)),
        (path_of("half"), before)
    );
    put_away("half");
    kill(&child);
    drop(lab);
}

#[test]
fn what_descends_and_is_in_a_session_already_stays_there() {
    let lab = Lab::new();
    let bin = crate::lab::must("CGMGR_BIN");
    let script = format!("{bin} run --name inner -- sleep 1000 & sleep 2000 & echo $!; wait");
    let mut stray = Stray::shell(&script);
    let outer = stray.hear();
    until("the session runs", || {
        fs::exists(path_of("inner")).expect("a look") && !procs(&path_of("inner")).is_empty()
    });
    let supervisor =
        cgmgr(&["status", "inner", "--json"]).expect(0).json()["sessions"][0]["supervisor"].to_string();
    let done = cgmgr(&["adopt", "--name", "rest", "--children-of", &stray.pid()]).expect(0);
    done.says("2 descendants are in other sessions, or in charge of one");
    assert_eq!(group_of(&outer), path_of("rest"));
    assert_eq!(
        group_of(&supervisor),
        group_of(&stray.pid()),
        "the messenger stays outside"
    );
    cgmgr(&["adopt", &supervisor])
        .expect(1)
        .says("in charge of session inner");
    cgmgr(&["kill", "inner", "rest"]).expect(0);
    drop(lab);
}

#[test]
fn every_mistake_is_told_and_nothing_is_moved() {
    let lab = Lab::new();
    let live = crate::cgmgr::Live::hold("taken", &[], 0);
    let taken = procs(&live.group())[0].to_string();
    let fine = Stray::sleep();
    let before = group_of(&fine.pid());
    // No pid is as high as this.
    let words = [
        "adopt",
        "--name",
        "none",
        &fine.pid(),
        "1",
        "2",
        "2147483647",
        &taken,
    ];
    let done = cgmgr(&words).expect(1);
    done.says("pid 1 (")
        .says("pid 2 (kthreadd) cannot be adopted: it is a kernel thread")
        .says("there is no process 2147483647")
        .says("in session taken already")
        .says("help: ");
    let json = cgmgr(&[&words[..], &["--json"]].concat()).expect(1).json();
    assert_eq!(json["errors"].as_array().map(Vec::len), Some(4), "{json:#}");
    assert_eq!(json["session"], Value::Null);
    let done = cgmgr(&["adopt", &fine.pid(), "0", "x1", "--children-of", "-"]).expect(2);
    done.says("`0` is not a pid")
        .says("`x1` is not a pid")
        .says("`-` is not a pid");
    cgmgr(&["adopt", &fine.pid(), "--memory-max", "12 GX"])
        .expect(2)
        .says("unknown unit");
    cgmgr(&["adopt", "--children-of", "1"])
        .expect(1)
        .says("the whole machine");
    cgmgr(&["adopt", "--children-of", &fine.pid()])
        .expect(1)
        .says("nothing descends from it");
    cgmgr(&["adopt"]).expect(2);
    cgmgr(&["adopt", "--backend", "process", &fine.pid()])
        .expect(1)
        .says("no groups");
    let bin = crate::lab::must("CGMGR_BIN");
    cgmgr(&["run", "--", &bin, "adopt", &fine.pid()])
        .expect(1)
        .says("inside session");
    assert_eq!(group_of(&fine.pid()), before);
    assert_eq!(session_groups(), ["cgmgr-taken"]);
    live.end().expect(0);
    drop(lab);
}

#[test]
fn an_agents_process_is_moved_only_by_force() {
    let lab = Lab::new();
    let role = lab.file("parts.role.toml", "[agent]\nmemory_low = \"16 MiB\"\n");
    cgmgr(&["apply", &role]).expect(0);
    let stray = Stray::sleep();
    let agent = format!("{MOUNT}/agent.slice");
    let inside = format!("{agent}/the-agent");
    fs::create_dir(&inside).expect("a group");
    write(&format!("{inside}/cgroup.procs"), &stray.pid());
    cgmgr(&["adopt", &stray.pid()])
        .expect(1)
        .says("a part of the agent")
        .says("--force");
    assert_eq!(group_of(&stray.pid()), inside);
    cgmgr(&["adopt", "--force", "--name", "freed", &stray.pid()]).expect(0);
    assert_eq!(group_of(&stray.pid()), path_of("freed"));
    until("the group is empty", || fs::remove_dir(&inside).is_ok());
    put_away("freed");
    drop(lab);
}

#[test]
fn a_users_processes_are_bound_and_are_entered_as_the_user() {
    let lab = Lab::new();
    coder();
    let stray = Stray::start(
        "setpriv",
        &[
            "--reuid",
            "1000",
            "--regid",
            "1000",
            "--init-groups",
            "sleep",
            "1000",
        ],
    );
    until("it is the user's", || {
        read(&format!("/proc/{}/comm", stray.pid())) == "sleep"
    });
    let json = cgmgr(&["adopt", "--json", "--name", "his", &stray.pid()])
        .expect(0)
        .json();
    assert_eq!(json["promise"], "boundary", "{json:#}");
    assert_eq!(cgmgr(&["enter", "his", "--", "id", "-u"]).expect(0).out, "1000\n");
    put_away("his");
    drop(lab);
}

#[test]
fn what_was_moved_is_moved_back_where_another_cannot_be() {
    let lab = Lab::new();
    cgmgr(&["run", "--", "true"]).expect(0);
    let mut tree = Stray::shell("while :; do sleep 0.05; done & echo $!; wait");
    let child = tree.hear();
    let other = Stray::sleep();
    let before = [group_of(&tree.pid()), group_of(&child), group_of(&other.pid())];
    let err = lab.path("err");
    let mut adopt = command(["adopt", "--name", "never", &tree.pid(), &child, &other.pid()]);
    adopt
        .stdout(Stdio::null())
        .stderr(File::create(&err).expect("a file"));
    // The third move is refused, and nothing else is.
    let refused = other.pid();
    let traced = trace(
        &mut adopt,
        None,
        &mut |call| {
            let it =
                call.about.ends_with("/cgmgr-never/cgroup.procs") && call.value.as_deref() == Some(&refused);
            it.then_some(Fault::Error(EBUSY))
        },
        &|| true,
    );
    assert!(traced.hit.is_some(), "there was no such move");
    let done = Done {
        status: traced.status,
        out: String::new(),
        err: read(&err),
    };
    done.says(&format!("pid {refused} (sleep) was not adopted"))
        .says("2 processes that had been moved were moved back");
    assert_eq!(done.status, 1);
    let after = [group_of(&tree.pid()), group_of(&child), group_of(&other.pid())];
    assert_eq!(after, before);
    assert_eq!(session_groups(), [""; 0]);
    kill(&child);
    drop(lab);
}
