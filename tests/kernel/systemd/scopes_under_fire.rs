//! Scopes while systemd, the bus or the machine has trouble: a launch succeeds or says clearly why not, in bounded time,
//! and nothing is left of it either way.

use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::campaign::tell;
use crate::cgmgr::{Done, cgmgr, finish, report, until};
use crate::lab::{MOUNT, full, path_of, sessions, workloads, write};
use crate::scoped::{Scopes, find_unit, hold, run, scoped, systemctl};

/// Runs `one` for each number below `count`, so many at a time.
fn at_a_time<T: Send>(threads: usize, count: usize, one: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    let done = one(number);
                    all.lock().expect("no panic").push(done);
                }
            });
        }
    });
    all.into_inner().expect("no panic")
}

/// That a launch has told why it failed, where it did, and what can be done about it.
#[track_caller]
fn ran_or_told(done: &Done) -> bool {
    if done.status == 0 {
        return true;
    }
    assert_eq!(done.status, 125, "{done:#?}");
    done.says("cgmgr: error: ")
        .says("  help: ")
        .says("systemd did not start cgmgr-");
    false
}

#[test]
fn a_thousand_scopes_half_of_them_oom_killed_are_told_truly_and_leave_nothing() {
    let scopes = Scopes::new();
    let count = if full() { 1000 } else { 50 };
    let begun = Instant::now();
    let wrong: Vec<String> = at_a_time(10, count, |number| {
        let (name, file) = (format!("s{number}"), scopes.lab.path(&format!("report-{number}")));
        let options = [
            "--name",
            &name,
            "--memory-max",
            "8MiB",
            "--oom-score-adj",
            "0",
            "--report",
            &file,
        ];
        let (words, status): (&[&str], i32) = match number % 4 {
            0 | 2 => (&["hog", "32"], 137),
            1 => (&["exit", "0"], 0),
            _ => (&["exit", "137"], 137),
        };
        let done = finish(&mut run(&options, words));
        if number % 100 == 99 {
            tell(&format!("{} of {count} scopes begun", number + 1));
        }
        let told = report(&file);
        let oom = &told["oom"];
        let killed = number % 2 == 0;
        let truth = match killed {
            true => {
                oom["level"] == "session"
                    && oom["limit"] == 8 << 20
                    && oom["kills"] == 1
                    && oom["took_command"] == true
                    && done
                        .err
                        .contains(&format!("{name} was OOM-killed: memory_max 8.0 MiB reached"))
            }
            false => oom.is_null() && !done.err.contains("OOM"),
        };
        (!truth || done.status != status || told["status"] != status)
            .then(|| format!("{name} {words:?}: {done:#?}\n{told:#}"))
    })
    .into_iter()
    .flatten()
    .collect();
    tell(&format!(
        "{count} scopes took {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    scopes.nothing_left();
    tell(&format!(
        "and were gone after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
}

#[test]
fn fifty_launches_at_once_all_get_their_scope() {
    let scopes = Scopes::new();
    let done = at_a_time(50, 50, |number| {
        let pids = (20 + number).to_string();
        let done = finish(&mut run(&["--pids", &pids], &["facts"]));
        (pids, done)
    });
    for (pids, done) in done {
        let facts = done.expect(0).json();
        assert_eq!(facts["files"]["pids.max"], json!(pids));
    }
    scopes.nothing_left();
}

/// PID 1, frozen until this goes.
struct Frozen;

impl Frozen {
    const FREEZE: &str = "init.scope/cgroup.freeze";

    fn new() -> Frozen {
        let frozen = Frozen;
        write(&format!("{MOUNT}/{}", Frozen::FREEZE), "1");
        let events = format!("{MOUNT}/init.scope/cgroup.events");
        until("PID 1 is frozen", || {
            fs::read_to_string(&events).is_ok_and(|e| e.contains("frozen 1"))
        });
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(format!("{MOUNT}/{}", Frozen::FREEZE), "0");
    }
}

#[test]
fn systemd_frozen_for_five_seconds_makes_a_launch_wait() {
    let scopes = Scopes::new();
    for before in [0, 60, 250] {
        let done = std::thread::scope(|scope| {
            let launches =
                scope.spawn(|| at_a_time(4, 4, |_| finish(&mut run(&["--memory-max", "20MiB"], &["facts"]))));
            // Frozen before it is asked, and while it does what it was asked.
            sleep(Duration::from_millis(before));
            let frozen = Frozen::new();
            sleep(Duration::from_secs(5));
            drop(frozen);
            launches.join().expect("no panic")
        });
        let ran = done.iter().filter(|done| ran_or_told(done)).count();
        assert_eq!(ran, 4, "five seconds are less than the deadline: {done:#?}");
        if before == 0 {
            for done in &done {
                done.says("still waiting for systemd to start cgmgr-");
            }
        }
        scopes.nothing_left();
    }
}

#[test]
fn systemd_frozen_for_longer_than_the_deadline_fails_the_launch_and_nothing_comes_of_it_later() {
    let scopes = Scopes::new();
    let frozen = Frozen::new();
    let done = finish(&mut run(&[], &["facts"])).expect(125);
    done.says("no answer within 30 s").says("  help: ");
    let told = done.err.matches("still waiting").count();
    assert!((5..=14).contains(&told), "a line every other second: {done:#?}");
    // A live one's limit is as hard to change.
    drop(frozen);
    scopes.nothing_left();
    finish(&mut run(&[], &["facts"])).expect(0);
    scopes.nothing_left();
}

/// The bus as it was, whatever a test has done to it.
struct Bus;

impl Bus {
    const UNITS: [&str; 2] = ["dbus.socket", "dbus.service"];

    fn stop() {
        systemctl(&["stop", Bus::UNITS[1], Bus::UNITS[0]]);
    }

    fn start() {
        for unit in Bus::UNITS {
            until("the bus starts", || systemctl(&["start", unit]).status == 0);
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        Bus::start();
        // It does not come back to a bus that was restarted, and without it no user's manager starts.
        systemctl(&["restart", "systemd-logind.service"]);
        // What could not do without it.
        systemctl(&["reset-failed"]);
    }
}

/// The same command where the manager's own socket cannot be reached, so that there is only the bus.
fn by_bus(command: &Command) -> Command {
    let script = "mount --bind /dev/null /run/systemd/private && exec \"$0\" \"$@\"";
    let mut hidden = Command::new("unshare");
    hidden
        .args(["--mount", "sh", "-c", script])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => hidden.env(name, value),
            None => hidden.env_remove(name),
        };
    }
    hidden
}

/// Launches while the bus goes and comes.
fn launches_while_it_restarts(command: impl Fn() -> Command + Sync) -> Vec<Done> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                Bus::stop();
                sleep(Duration::from_millis(300));
                Bus::start();
                sleep(Duration::from_millis(700));
            }
        });
        let done = at_a_time(4, 16, |_| finish(&mut command()));
        over.store(true, Ordering::SeqCst);
        done
    })
}

#[test]
fn the_bus_is_not_needed() {
    let scopes = Scopes::new();
    let _bus = Bus;
    for done in launches_while_it_restarts(|| run(&["--pids", "20"], &["facts"])) {
        assert_eq!(done.expect(0).json()["files"]["pids.max"], "20");
    }
    scopes.nothing_left();
    Bus::stop();
    let live = hold("without", &["--memory-max", "50MiB"], 1);
    cgmgr(&["set", "without", "memory_max=60MiB"]).expect(0);
    live.end().expect(0);
    scopes.nothing_left();
}

#[test]
fn where_only_the_bus_is_left_it_is_used_and_may_come_and_go() {
    let scopes = Scopes::new();
    let bus = Bus;
    let command = || by_bus(&run(&["--pids", "20"], &["facts"]));
    assert_eq!(finish(&mut command()).expect(0).json()["files"]["pids.max"], "20");
    let done = launches_while_it_restarts(command);
    let ran = done.iter().filter(|done| ran_or_told(done)).count();
    tell(&format!(
        "{ran} of {} launches got over a restart of the bus",
        done.len()
    ));
    assert!(ran > 0, "{done:#?}");
    drop(bus);
    scopes.nothing_left();
    // Away for good it is told in bounded time.
    let bus = Bus;
    Bus::stop();
    let done = finish(&mut command()).expect(125);
    assert!(!ran_or_told(&done));
    done.says("cannot be reached");
    drop(bus);
    scopes.nothing_left();
}

/// Everything that a command changes below the mount of cgroups: call, path, and what it is about.
fn changes(scopes: &Scopes, command: &Command) -> Vec<(String, String)> {
    let log = scopes.lab.path("strace");
    let mut strace = Command::new("strace");
    strace.args([
        "--follow-forks",
        "--decode-fds=path",
        "--string-limit=4096",
        "--output",
        &log,
    ]);
    strace.arg("--trace=open,openat,openat2,creat,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,\
                setxattr,fsetxattr,lsetxattr,removexattr,fremovexattr,chmod,fchmod,fchmodat,chown,fchown,fchownat");
    strace.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    finish(&mut strace).expect(0);
    let text = fs::read_to_string(&log).expect("strace's log");
    let changes = text.lines().filter_map(|line| {
        let (call, rest) = line.split_once('(')?;
        let call = call.rsplit(' ').next()?.to_owned();
        if call.starts_with("open") && !["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|f| rest.contains(f)) {
            return None;
        }
        // The directory or file by its descriptor, and a name below it.
        let at = rest
            .split_once('<')
            .and_then(|(_, at)| at.split_once('>'))
            .map(|(at, _)| at);
        let name = rest
            .split_once('"')
            .and_then(|(_, name)| name.split_once('"'))
            .map(|(name, _)| name);
        let path = match (at, name) {
            (_, Some(name)) if name.starts_with('/') => name.to_owned(),
            (Some(at), Some(_)) if call.starts_with('f') => at.to_owned(),
            (Some(at), Some(name)) => format!("{at}/{name}"),
            (Some(at), None) => at.to_owned(),
            (None, name) => name.unwrap_or_default().to_owned(),
        };
        path.starts_with(MOUNT).then_some((call, path))
    });
    changes.collect()
}

#[test]
fn nothing_is_written_or_made_outside_of_what_is_delegated() {
    let scopes = Scopes::new();
    let limits = [
        "--memory-max",
        "64MiB",
        "--pids",
        "50",
        "--cpus",
        "1.5",
        "--cpu-weight",
        "50",
        "--oom-group",
    ];
    let own = |path: &str, unit: &str| path.strip_prefix(&format!("{unit}/")).map(str::to_owned);

    // A scope: in the leaves whatever is needed, on its own group the controllers for them and nothing else.
    let mut run_scope = scoped(["run", "--name", "watched"]);
    run_scope.args(limits).args(["--", "true"]);
    let found = changes(&scopes, &run_scope);
    assert!(
        found
            .iter()
            .any(|(call, path)| call.starts_with("mkdir") && path.ends_with("/main")),
        "{found:#?}"
    );
    let is_scopes = |path: &str| {
        let below = own(path, &workloads())?;
        let (unit, rest) = below.split_once('/')?;
        let leaf = rest.starts_with("main") || rest.starts_with("pin");
        let ours = unit.starts_with("cgmgr-watched-") && unit.ends_with(".scope");
        (ours && (leaf || rest == "cgroup.subtree_control")).then_some(())
    };
    let outside: Vec<_> = found
        .iter()
        .filter(|(_, path)| is_scopes(path).is_none())
        .collect();
    assert!(outside.is_empty(), "{outside:#?}");

    // And what is done to one that lives.
    let live = hold("watched", &limits, 1);
    for words in [
        [
            "set",
            "watched",
            "memory_max=80MiB",
            "pids=60",
            "cpus=1.2345",
            "oom_group=false",
        ]
        .as_slice(),
        &["freeze", "watched"],
        &["thaw", "watched"],
        &["enter", "watched", "--", "true"],
        &["status"],
        &["kill", "watched"],
    ] {
        let found = changes(&scopes, &scoped(words));
        let outside: Vec<_> = found
            .iter()
            .filter(|(_, path)| is_scopes(path).is_none())
            .collect();
        assert!(outside.is_empty(), "{words:?}: {outside:#?}");
    }
    live.wait().expect(137);
    scopes.nothing_left();

    // Below the delegated unit: its own group is its too, but for the limits on it.
    let mut run_below = crate::cgmgr::command(["run", "--name", "watched"]);
    run_below.args(limits).args(["--", "true"]);
    let found = changes(&scopes, &run_below);
    assert!(
        found
            .iter()
            .any(|(_, path)| *path == format!("{}/memory.max", path_of("watched"))),
        "{found:#?}"
    );
    let outside: Vec<_> = found
        .iter()
        .filter(|(_, path)| {
            let below = own(path, &sessions());
            !below.is_some_and(|b| b.starts_with("cgmgr-watched") || b.starts_with("cgroup."))
        })
        .collect();
    assert!(outside.is_empty(), "{outside:#?}");
    assert_eq!(find_unit("watched"), None);
}
