//! An independent reader says the same: what cgmgr set is read back by the crate cgroups-rs, by plain files, and is what
//! that crate sets itself when it is given the same limits.

use std::fs;

use cgmgr::interop;
use cgmgr::limits::{KnobId, Origin, Settings};
use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, Controller, MaxValue, Resources, hierarchies};

use crate::cgmgr::cgmgr;
use crate::lab::{Lab, MOUNT, path_of, read, sessions};

/// A way to set every knob that a group has: knob, what is typed, what the kernel's file then says.
type Way = [(&'static str, &'static str, &'static str); 8];

const NUMBERS: Way = [
    ("memory_high", "96MiB", "100663296"),
    ("memory_max", "128MiB", "134217728"),
    ("memory_swap_max", "16MiB", "16777216"),
    ("cpus", "1.2345", "123450 100000"),
    ("cpu_weight", "250", "250"),
    ("io_weight", "40", "default 40"),
    ("pids", "77", "77"),
    ("oom_group", "true", "1"),
];
const NOTHING: Way = [
    ("memory_high", "max", "max"),
    ("memory_max", "max", "max"),
    ("memory_swap_max", "max", "max"),
    ("cpus", "max", "max 100000"),
    ("cpu_weight", "100", "100"),
    ("io_weight", "100", "default 100"),
    ("pids", "max", "max"),
    ("oom_group", "false", "0"),
];
const EDGES: Way = [
    ("memory_high", "1MiB", "1048576"),
    ("memory_max", "8191PiB", "9222246136947933184"),
    ("memory_swap_max", "0", "0"),
    ("cpus", "0.01", "1000 100000"),
    ("cpu_weight", "10000", "10000"),
    ("io_weight", "1", "default 1"),
    ("pids", "4194304", "4194304"),
    ("oom_group", "true", "1"),
];

fn file_of(key: &str) -> &'static str {
    let knob = KnobId::from_key(key).expect("a knob").knob();
    knob.file.expect("a control file")
}

/// The limits of a group as cgroups-rs reads them.
fn by_cgroups_rs(path: &str) -> Resources {
    let group = Cgroup::load(hierarchies::auto(), path);
    let memory: &MemController = group.controller_of().expect("memory");
    let cpu: &CpuController = group.controller_of().expect("cpu");
    let pids: &PidController = group.controller_of().expect("pids");
    let number = |max: Option<MaxValue>| match max {
        Some(MaxValue::Value(n)) => n,
        _ => -1,
    };
    let limits = memory.get_mem().expect("limits of memory");
    let mut found = Resources::default();
    found.memory.memory_hard_limit = Some(number(limits.max));
    found.memory.memory_swap_limit = Some(memory.memswap().limit_in_bytes);
    let high = match limits.high {
        Some(MaxValue::Value(n)) => n.to_string(),
        _ => "max".to_owned(),
    };
    found.memory.attrs.insert("memory.high".into(), high);
    found.cpu.shares = Some(cpu.shares().expect("a weight"));
    found.cpu.quota = Some(cpu.cfs_quota().expect("a quota"));
    found.cpu.period = Some(cpu.cfs_period().expect("a period"));
    found.pid.maximum_number_of_processes = Some(pids.get_pid_max().expect("a number"));
    found
}

/// The same from cgmgr's settings, less what that crate cannot read.
fn readable(mut wanted: Resources) -> Resources {
    wanted.memory.attrs.remove("memory.oom.group");
    wanted.blkio.attrs.clear();
    // It takes a swap limit that is not a number for 0.
    if wanted.memory.memory_swap_limit == Some(-1) {
        wanted.memory.memory_swap_limit = Some(0);
    }
    wanted
}

fn settings(way: &Way) -> Settings {
    let machine = cgmgr::kernel::probe::machine();
    let mut settings = Settings::none();
    for (key, text, _) in way {
        let knob = KnobId::from_key(key).expect("a knob").knob();
        let value = knob.parse(text, &machine).expect("a value");
        settings.set(knob.id, value, Origin::Default);
    }
    settings
}

#[test]
fn every_knob_that_a_group_has_reads_back_the_same_through_cgroups_rs_and_plain_files() {
    let _lab = Lab::new();
    for way in [NUMBERS, NOTHING, EDGES] {
        let mut flags: Vec<String> = Vec::new();
        for (key, text, _) in &way {
            flags.push(format!("--{}={}", key.replace('_', "-"), text));
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut words = vec!["run", "--detach", "--name", "seen"];
        words.extend(&flags);
        words.extend(["--", "sleep", "1000"]);
        cgmgr(&words).expect(0);
        let group = path_of("seen");
        for (key, _, held) in &way {
            assert_eq!(read(&format!("{group}/{}", file_of(key))), *held, "{key}");
        }
        let (wanted, losses) = interop::to_resources(&settings(&way));
        assert_eq!(losses, [""; 0]);
        let path = group.trim_start_matches(MOUNT).trim_start_matches('/');
        assert_eq!(by_cgroups_rs(path), readable(wanted), "{way:?}");
        cgmgr(&["kill", "seen"]).expect(0);
    }
}

/// The crate, told the same limits, writes the same files: so the conversion means what it says.
#[test]
fn cgroups_rs_given_the_same_limits_writes_the_same_files() {
    let _lab = Lab::new();
    // A session keeps the controllers on.
    cgmgr(&["run", "--detach", "--name", "keeper", "--", "sleep", "1000"]).expect(0);
    let path = format!("{}/lab-oracle", sessions());
    for way in [NUMBERS, NOTHING, EDGES] {
        fs::create_dir(&path).expect("a group");
        let (resources, _) = interop::to_resources(&settings(&way));
        let group = Cgroup::load(
            hierarchies::auto(),
            path.trim_start_matches(MOUNT).trim_start_matches('/'),
        );
        let memory: &MemController = group.controller_of().expect("memory");
        let cpu: &CpuController = group.controller_of().expect("cpu");
        let pids: &PidController = group.controller_of().expect("pids");
        let io: &BlkIoController = group.controller_of().expect("io");
        memory.apply(&resources).expect("memory");
        cpu.apply(&resources).expect("cpu");
        pids.apply(&resources).expect("pids");
        io.apply(&resources).expect("io");
        let found: Vec<(&str, String)> = way
            .iter()
            .map(|(key, ..)| (*key, read(&format!("{path}/{}", file_of(key)))))
            .collect();
        fs::remove_dir(&path).expect("an empty group goes");
        let wanted: Vec<(&str, String)> = way
            .iter()
            .map(|(key, _, held)| (*key, (*held).to_owned()))
            .collect();
        assert_eq!(found, wanted);
    }
    cgmgr(&["kill", "keeper"]).expect(0);
}
