//! The kernel's files with any content: whatever the parsers make of it is in the text, and they never panic.
#![no_main]

use cgmgr::kernel::counters::{Keyed, parse_limit, parse_pressure};
use cgmgr::kernel::kmsg::OomLog;
use cgmgr::kernel::mounts::{own_group, parse_mountinfo, v1_controllers};
use cgmgr::kernel::probe::{parse_cpu_list, parse_kib};
use cgmgr::kernel::process::{Stat, line_of};
use cgmgr::kernel::sample::{Fields, MemoryEvents, Sample, Split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for mount in parse_mountinfo(text) {
        assert!(!mount.options.is_empty());
    }
    assert!(own_group(text).is_none_or(|group| text.contains(&group)));
    assert!(
        v1_controllers(text)
            .iter()
            .all(|name| !name.is_empty() && text.contains(name))
    );
    let keyed = Keyed::parse(text);
    assert_eq!(keyed.rise(&keyed, "oom_kill"), keyed.get("oom_kill").map(|_| 0));
    parse_limit(text);
    parse_pressure(text, "some");
    parse_pressure(text, "full");
    of_samples(text);
    let mut log = OomLog::default();
    for line in text.lines() {
        log.add(line);
    }
    log.add_record(text.as_bytes());
    for victim in &log.victims {
        assert!(victim.anon <= victim.rss && !victim.comm.contains(char::is_control));
    }
    if let Some(stat) = Stat::parse(text) {
        assert!(text.contains(stat.state) && !stat.state.is_whitespace());
    }
    for key in ["Tgid", "ShdPnd", "MemTotal"] {
        let line = line_of(text, key);
        assert!(line.is_none_or(|line| line.trim() == line && !line.contains('\n')));
        assert!(
            line.and_then(parse_kib)
                .is_none_or(|bytes| bytes % 1024 == 0 || bytes == u64::MAX)
        );
    }
    // A list repeats what it likes: a long one would only fill the memory.
    if text.len() < 256 {
        assert!(parse_cpu_list(text).iter().all(|cpu| *cpu < 65_536));
    }
});

/// Each file of a sample with this content: every number is in the text.
fn of_samples(text: &str) {
    let is_there = |value: Option<u64>| value.is_none_or(|value| text.contains(&value.to_string()));
    let mut sample = Sample::default();
    for file in Fields::ALL.files() {
        assert!(sample.take(file, text));
    }
    let limits = [sample.memory_high, sample.memory_max, sample.pids_max];
    let numbers = [
        sample.memory_current,
        sample.memory_peak,
        sample.pids,
        sample.forks_refused(),
        sample.cpu_usage_usec,
    ];
    assert!(
        limits
            .iter()
            .all(|limit| is_there(limit.and_then(|limit| limit.at())))
    );
    assert!(numbers.into_iter().all(is_there));
    let events = MemoryEvents::parse(text);
    assert!(
        [events.low, events.high, events.max, events.oom, events.oom_kill]
            .into_iter()
            .all(is_there)
    );
    // The leaf's and the scope's: never less than one of them, however large.
    let both = events.plus(events);
    assert!(both.oom_kill >= events.oom_kill && both.high >= events.high);
    let split = Split::parse(text);
    let own = [split.anon, split.file, split.shmem, split.sock];
    assert!(own.into_iter().all(|value| value == 0 || is_there(Some(value))));
}
