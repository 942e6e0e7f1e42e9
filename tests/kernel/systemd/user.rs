//! A user's own systemd, asked from outside of its subtree: what it makes, moves and refuses.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Command;

use cgmgr::kernel::process::{group_of, own_group};
use cgmgr::kernel::sys::{self, Child, HeldError, Spawned};
use cgmgr::systemd::{BusError, Manager, Property, Reason, Systemd, Value};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::io::Errno;

use crate::cgmgr::{finish, until};
use crate::lab::{MOUNT, read, variable, write};
use crate::people::{UserManager, as_coder, coder, coders, coders_in_his_scope};

const SCOPE: &str = "lab-held.scope";

fn his() -> Systemd {
    Systemd::of(Manager::User)
}

fn sleeper() -> Child {
    let words = ["sleep", "1000"].map(|word| CString::new(word).expect("no zero in it"));
    Child {
        candidates: vec![c"/bin/sleep".into()],
        argv: words.into(),
        ..Child::default()
    }
}

/// What makes a scope one of cgmgr's kind, and more.
fn delegated(more: &[Property]) -> Vec<Property> {
    let mut all = vec![
        Property::switch("Delegate", true),
        Property::text("CollectMode", "inactive-or-failed"),
    ];
    all.extend_from_slice(more);
    all
}

/// Has a scope made of one process.
fn make(systemd: Systemd, more: &[Property], pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), BusError> {
    systemd.start_transient(SCOPE, &delegated(more), &[(pid, pidfd)])
}

/// A process that becomes a command once it is in a scope of its own.
fn start(more: &[Property]) -> Spawned {
    let started = sys::spawn_held(&sleeper(), None, |pid, pidfd| make(his(), more, pid, pidfd));
    started.unwrap_or_else(|error| panic!("{error:?}"))
}

/// Why a held process did not become the command; nothing of it may be left.
#[track_caller]
fn refused(place: impl FnOnce(i32, BorrowedFd<'_>) -> Result<(), BusError>) -> BusError {
    let mut held = 0;
    let started = sys::spawn_held(&sleeper(), None, |pid, pidfd| {
        held = pid;
        place(pid, pidfd)
    });
    let Err(HeldError::Place(error)) = started else {
        panic!("{started:?}")
    };
    let left = waitpid(Pid::from_raw(held), None);
    assert_eq!(left, Err(nix::errno::Errno::ECHILD), "{error}");
    error
}

#[track_caller]
fn was_terminated(spawned: &Spawned) {
    let pid = Pid::from_raw(spawned.pid);
    let ended = waitpid(pid, None).expect("a child");
    assert_eq!(ended, WaitStatus::Signaled(pid, Signal::SIGTERM, false));
}

#[test]
fn a_scope_of_his_takes_a_held_process_from_outside_with_its_limits() {
    let _manager = UserManager::start();
    let outside = own_group().expect("cgroup v2");
    let asked = |mut command: Command| finish(&mut command).expect(0).out;
    assert_eq!(
        asked(coders(["cat", "/proc/self/cgroup"])).trim(),
        format!("0::{outside}")
    );
    let inside = asked(coders_in_his_scope(&["cat", "/proc/self/cgroup"]));
    assert!(
        inside.starts_with(&format!("0::{}/", UserManager::GROUP)),
        "{inside}"
    );
    as_coder(|| {
        let version = his().version().expect("an answer");
        if let Some(expected) = variable("CGMGR_LAB_SYSTEMD") {
            assert_eq!(version.to_string(), expected);
        }
        let limits = [
            Property::number("MemoryMax", 64 << 20),
            Property::number("TasksMax", 33),
            Property::number("CPUQuotaPerSecUSec", 500_000),
        ];
        let spawned = start(&limits);
        assert_eq!(spawned.refusals, []);
        assert_eq!(read(&format!("/proc/{}/comm", spawned.pid)), "sleep");
        let unit = his().unit(SCOPE).expect("a unit");
        assert!(unit.is_active() && unit.transient, "{unit:?}");
        assert!(
            unit.group.starts_with(&format!("{}/", UserManager::GROUP)),
            "{unit:?}"
        );
        assert_eq!(group_of(spawned.pid).as_ref(), Some(&unit.group));
        let group = format!("{MOUNT}{}", unit.group);
        let has = |file: &str| read(&format!("{group}/{file}"));
        assert_eq!(has("memory.max"), (64 << 20).to_string());
        assert_eq!(has("pids.max"), "33");
        assert_eq!(has("cpu.max"), "50000 100000");

        let changed = [
            Property::number("MemoryMax", 80 << 20),
            Property::number("CPUWeight", 33),
        ];
        his().set_properties(SCOPE, &changed).expect("a live change");
        assert_eq!(has("memory.max"), (80 << 20).to_string());
        assert_eq!(has("cpu.weight"), "33");
        assert_eq!(has("pids.max"), "33");
        // What he was not given is taken, and does nothing.
        let io = [Property::number("IOWeight", 50)];
        his().set_properties(SCOPE, &io).expect("nothing is said");
        assert_eq!(has("cgroup.controllers"), "cpu memory pids");
        assert!(!Path::new(&format!("{group}/io.weight")).exists());

        his().stop(SCOPE).expect("it stops");
        was_terminated(&spawned);
        assert!(!Path::new(&group).exists());
        until("the unit is unloaded", || {
            his().unit(SCOPE).expect("an answer").load == "not-found"
        });
    });
}

#[test]
fn his_manager_moves_a_held_process_to_where_he_may_not_start_one() {
    let _manager = UserManager::start();
    as_coder(|| {
        let pin = start(&[]);
        let path = his().unit(SCOPE).expect("a unit").group;
        let group = format!("{MOUNT}{path}");
        for leaf in ["pin", "main"] {
            fs::create_dir(format!("{group}/{leaf}")).expect("a leaf of his own");
        }
        let main = fs::File::open(format!("{group}/main")).expect("a directory");
        let started = sys::spawn(&sleeper(), Some(main.as_fd()), None);
        assert_eq!(started.map(|s| s.pid), Err(Errno::ACCESS));

        his().attach(SCOPE, "/pin", &[pin.pid]).expect("it moves");
        assert_eq!(group_of(pin.pid), Some(format!("{path}/pin")));
        write(&format!("{group}/cgroup.subtree_control"), "+memory +pids");
        for (file, text) in [("memory.oom.group", "1"), ("pids.max", "7")] {
            let file = format!("{group}/main/{file}");
            write(&file, text);
            assert_eq!(read(&file), text);
        }

        let outside = own_group();
        let held = sys::spawn_held(&sleeper(), None, |pid, _| {
            assert_eq!(group_of(pid), outside);
            his().attach(SCOPE, "/main", &[pid])?;
            assert_eq!(group_of(pid), Some(format!("{path}/main")));
            assert_ne!(read(&format!("/proc/{pid}/comm")), "sleep");
            Ok::<_, BusError>(())
        });
        let held = held.expect("it moves");
        assert!(held.moved && held.refusals.is_empty(), "{held:?}");
        assert_eq!(group_of(held.pid), Some(format!("{path}/main")));
        assert_eq!(read(&format!("/proc/{}/comm", held.pid)), "sleep");

        let error = refused(|pid, _| his().attach(SCOPE, "/missing", &[pid]));
        assert!(error.message.contains("No such file"), "{error}");

        his().stop(SCOPE).expect("it stops");
        was_terminated(&pin);
        was_terminated(&held);
        assert!(!Path::new(&group).exists());
    });
}

#[test]
fn what_his_manager_or_the_machines_refuses_is_told_and_nothing_is_left() {
    let _manager = UserManager::start();
    let mut roots = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let pid = Pid::from_raw(roots.id() as i32);
    as_coder(|| {
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid.as_raw()).expect("a pid"),
            rustix::process::PidfdFlags::empty(),
        );
        let pidfd = pidfd.expect("a process");
        let error = his()
            .start_transient(SCOPE, &delegated(&[]), &[(pid.as_raw(), pidfd.as_fd())])
            .expect_err("it is root's");
        assert_eq!(error.reason, Reason::JobFailed, "{error}");
        assert_eq!(group_of(pid.as_raw()), own_group());
    });
    roots.kill().and_then(|()| roots.wait()).expect("a child");
    as_coder(|| {
        let unknown = [Property::switch("LabProperty", true)];
        let error = refused(|pid, pidfd| make(his(), &unknown, pid, pidfd));
        assert_eq!(error.reason, Reason::Property, "{error}");
        assert!(error.message.contains("LabProperty"), "{error}");
        let senseless = [Property::number("CPUWeight", 10_001)];
        let error = refused(|pid, pidfd| make(his(), &senseless, pid, pidfd));
        assert_eq!(error.reason, Reason::Refused, "{error}");
        let denied = refused(|pid, pidfd| make(Systemd::of(Manager::System), &[], pid, pidfd));
        assert_eq!(denied.reason, Reason::Denied, "{denied}");
        assert!(denied.help.contains("root"), "{denied:?}");
        let weight = [Property::number("CPUWeight", 7)];
        let denied = Systemd::of(Manager::System).set_properties("user.slice", &weight);
        assert_eq!(denied.map_err(|e| e.reason), Err(Reason::Denied));

        let spawned = start(&[]);
        let in_use = refused(|pid, pidfd| make(his(), &[], pid, pidfd));
        assert_eq!(in_use.reason, Reason::UnitExists, "{in_use}");
        assert!(in_use.message.contains(SCOPE), "{in_use}");
        let policy = [Property::new("OOMPolicy", Value::Text("kill".into()))];
        let late = his().set_properties(SCOPE, &policy);
        assert_eq!(late.map_err(|e| e.reason), Err(Reason::Property));
        // The one that has the name has none of it.
        assert!(his().unit(SCOPE).expect("a unit").is_active());
        his().stop(SCOPE).expect("it stops");
        was_terminated(&spawned);
    });
}

#[test]
fn the_process_itself_counts_and_not_its_number_where_the_manager_knows_such() {
    let _manager = UserManager::start();
    as_coder(|| {
        let by_number = his().version().expect("an answer") < 255;
        if by_number {
            // PID 1 is nobody's to give.
            refused(|_, pidfd| make(his(), &[], 1, pidfd));
            return;
        }
        let started = sys::spawn_held(&sleeper(), None, |_, pidfd| make(his(), &[], 1, pidfd));
        let spawned = started.expect("a scope");
        let group = his().unit(SCOPE).expect("a unit").group;
        assert_eq!(group_of(spawned.pid), Some(group));
        his().stop(SCOPE).expect("it stops");
        was_terminated(&spawned);
    });
}

#[test]
fn who_has_no_manager_is_told_how_to_get_one() {
    coder();
    let socket = "/run/user/1000/systemd/private";
    until("no other test's manager is there", || !Path::new(socket).exists());
    as_coder(|| {
        let error = his().version().expect_err("nobody is there");
        assert_eq!(error.reason, Reason::Unreachable, "{error}");
        assert!(error.message.starts_with("the user's systemd did not"), "{error}");
        assert!(error.help.contains("loginctl enable-linger"), "{error:?}");
    });
}
