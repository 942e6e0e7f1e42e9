//! Things of somebody else in the way: a session then runs, or nothing is started, nothing is left, and the error says
//! what is where and what to do.

use std::fs;

use super::together::clear;
use crate::cgmgr::{Done, cgmgr, command, finish, report, run_payload, until};
use crate::lab::{Lab, MOUNT, is_systemd, path_of, read, sessions, workloads, write};
use crate::strangers::{Elsewhere, Stranger};

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
