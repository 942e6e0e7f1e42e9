//! Sessions that are sampled: what the library reads is what the files say, what is gone is gone, and a session that stands
//! still is told from one that gets on.

use std::path::Path;
use std::time::{Duration, Instant};

use cgmgr::kernel::Tree;
use cgmgr::kernel::sample::Fields;
use cgmgr::kernel::sampler::Sampler;
use cgmgr::limits::Max;
use cgmgr::path::GroupPath;
use cgmgr::record::fold::{Pace, fold};
use cgmgr::record::watchdog::{LOOK_EVERY, Watchdog};
use cgmgr::record::{Fact, Stall};

use crate::cgmgr::{Live, cgmgr, command, until};
use crate::lab::{Lab, MOUNT, counter, path_of, read};

/// A sampler of the group in this directory.
pub fn sampler(directory: &str) -> Sampler {
    let tree = Tree::open(MOUNT).expect("cgroup v2");
    let path = directory.strip_prefix(MOUNT).and_then(GroupPath::new);
    let group = tree.group(&path.expect("below the mount")).expect("a group");
    Sampler::new(group).expect("its id")
}

#[test]
fn a_sample_says_what_the_files_say() {
    let _lab = Lab::new();
    let limits = ["--memory-high", "80MiB", "--memory-max", "100MiB", "--pids", "40"];
    let live = Live::hold("read", &limits, 30);
    let mut sampler = sampler(&live.group());
    let sample = sampler.sample(Fields::ALL).expect("it is there");
    let file = |name: &str| format!("{}/{name}", live.group());
    assert_eq!(sample.memory_high, Some(Max::At(80 << 20)));
    assert_eq!(sample.memory_max, Some(Max::At(100 << 20)));
    assert_eq!((sample.pids, sample.pids_max), (Some(1), Some(Max::At(40))));
    assert_eq!((sample.populated, sample.frozen), (Some(true), Some(false)));
    // It holds still, but for what the kernel does behind its back.
    let current = counter(&file("memory.current"), "");
    assert!(sample.memory_current.expect("a number").abs_diff(current) < 4 << 20);
    assert!(sample.memory_peak >= sample.memory_current, "{sample:?}");
    assert_eq!(sample.memory_swap_current, Some(0));
    let stat = sample.memory_stat.expect("memory.stat");
    assert!(stat.anon >= 30 << 20 && stat.anon.abs_diff(counter(&file("memory.stat"), "anon")) < 4 << 20);
    assert!(stat.kernel > 0, "{stat:?}");
    let cpu = counter(&file("cpu.stat"), "usage_usec");
    assert!((1..=cpu).contains(&sample.cpu_usage_usec.expect("a number")));
    assert_eq!(sample.memory_events.expect("events").oom_kill, Some(0));
    assert_eq!(sample.forks_refused(), Some(0));
    assert!(sample.memory_full.is_some() && sample.memory_some.is_some());

    let few = sampler.sample(Fields::CURRENT).expect("it is there");
    assert!(few.memory_current.is_some() && few.memory_max.is_none() && few.memory_stat.is_none());
    live.end().expect(0);
    assert_eq!(sampler.sample(Fields::ALL), None, "the group is gone");
    assert_eq!(sampler.sample(Fields::CURRENT), None);

    let again = Live::hold("read", &limits, 1);
    assert_eq!(sampler.sample(Fields::ALL), None, "another group has its name");
    assert_ne!(self::sampler(&again.group()).id(), sampler.id());
    again.end().expect(0);
}

#[test]
fn what_was_counted_is_told_once() {
    let _lab = Lab::new();
    let live = Live::start("forks", &["--pids", "5"], &["bomb"]);
    let group = path_of("forks");
    until("a fork is refused", || {
        Path::new(&format!("{group}/pids.events")).exists()
            && counter(&format!("{group}/pids.events"), "max") > 0
    });
    let mut sampler = sampler(&group);
    let mut pace = Pace::default();
    let mut told = 0;
    let mut last = 0;
    let since = Instant::now();
    for _ in 0..20 {
        let sample = sampler.sample(Fields::FOLDED).expect("it is there");
        last = sample.forks_refused().expect("pids.events");
        let folded = fold(&mut pace, &sample, since.elapsed());
        told += refused(&folded.facts);
    }
    assert!(told > 0, "the first is told at once");
    assert_eq!(told + refused(&pace.flush()), last);
    cgmgr(&["kill", "forks"]).expect(0);
    live.wait();
}

fn refused(facts: &[Fact]) -> u64 {
    let rise = |fact: &Fact| match fact {
        Fact::PidsHit(count) => {
            assert_eq!(count.limit, Some(5), "{count:?}");
            count.rise
        }
        other => panic!("{other:?}"),
    };
    facts.iter().map(rise).sum()
}

/// Looks at a session as the daemon does, at most so often. Returns the stall, if there was one.
fn watch(sampler: &mut Sampler, looks: usize) -> Option<Stall> {
    let mut watchdog = Watchdog::default();
    let since = Instant::now();
    for _ in 0..looks {
        let sample = sampler.sample(Fields::STALL).expect("it is there");
        if let Some(stall) = watchdog.look(&sample, since.elapsed()) {
            return Some(stall);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    None
}

#[test]
fn a_session_that_stands_still_over_its_high_is_told() {
    let _lab = Lab::new();
    let mut live = Live::start(
        "stuck",
        &["--memory-high", "20MiB", "--memory-max", "200MiB"],
        &["hog", "150"],
    );
    live.hear("hog ");
    let mut sampler = sampler(&live.group());
    let events = format!("{}/memory.events", live.group());
    until("it is over memory.high", || counter(&events, "high") > 0);
    let stall = watch(&mut sampler, 20).unwrap_or_else(|| {
        panic!(
            "no stall: {}{}",
            read(&events),
            read(&format!("{}/memory.pressure", live.group()))
        )
    });
    assert_eq!(stall.limit, 20 << 20);
    assert!(
        stall.current > 19 << 20 && stall.full_percent >= 20.0,
        "{stall:?}"
    );
    assert!(
        Duration::from_micros(stall.for_usec) >= Duration::from_secs(6),
        "{stall:?}"
    );
    println!("{stall:?}");
    cgmgr(&["kill", "stuck"]).expect(0);
    live.wait();
}

#[test]
fn one_whose_page_cache_is_taken_back_gets_on() {
    let _lab = Lab::new();
    // What is in tmpfs is no page cache that could be taken back.
    let file = "/var/tmp/cgmgr-sampled";
    std::fs::File::create(file)
        .and_then(|made| made.set_len(200 << 20))
        .expect("a file");
    let script = format!("while :; do md5sum {file} > /dev/null; done");
    let mut run = command(["run", "--name", "reader", "--memory-high", "20MiB"]);
    run.args(["--memory-max", "200MiB", "--", "sh", "-c", &script]);
    let live = Live::of("reader", &mut run);
    let events = format!("{}/memory.events", live.group());
    until("it is over memory.high", || {
        Path::new(&events).exists() && counter(&events, "high") > 0
    });
    let mut sampler = sampler(&live.group());
    let before = counter(&events, "high");
    let stall = watch(&mut sampler, 10);
    let rose = counter(&events, "high") - before;
    let pressure = read(&format!("{}/memory.pressure", live.group()));
    println!("high rose by {rose}; {pressure}");
    assert!(
        stall.is_none() && rose > 0,
        "{stall:?}, high rose by {rose}\n{pressure}"
    );
    cgmgr(&["kill", "reader"]).expect(0);
    live.wait();
    std::fs::remove_file(file).expect("a file of ours");
}
