//! The kernel's files: a well-formed line is read as what it says, names that others chose included, and no text
//! makes a parser panic.

use cgmgr::kernel::counters::{Keyed, parse_limit, parse_pressure};
use cgmgr::kernel::kmsg::{Incident, OomLog, Victim};
use cgmgr::kernel::mounts::{CgroupMount, MountKind, own_group, parse_mountinfo, v1_controllers};
use cgmgr::kernel::probe::{parse_cpu_list, parse_kib};
use cgmgr::kernel::process::{Stat, line_of};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{magnitude, odd_char, odd_text, usual};

/// Up to `most` characters of a name that somebody chose. The kernel refuses newlines and NUL in a group's name.
fn chosen(most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(odd_char(), 0..=most)
        .prop_map(|chars| chars.into_iter().filter(|c| !"\0\n".contains(*c)).collect())
}

/// A group's path of such names.
fn group() -> impl Strategy<Value = String> {
    chosen(20).prop_map(|name| format!("/{name}"))
}

/// As the kernel writes a path in mountinfo (`seq_path_root` with `" \t\n\\"`).
fn octal(path: &str) -> String {
    let escape = |c: char| match c {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", c as u32),
        c => c.to_string(),
    };
    path.chars().map(escape).collect()
}

/// A line of mountinfo and the mount that it is.
fn mount() -> impl Strategy<Value = (String, CgroupMount)> {
    let options = subsequence(vec!["ro", "nsdelegate", "memory_recursiveprot", "memory"], 1..4);
    let optional = subsequence(
        vec!["shared:9", "master:3", "propagate_from:2", "unbindable"],
        0..4,
    );
    let point = prop_oneof![group(), "/[a \t\n\\\\]{1,9}"];
    (group(), point, any::<[bool; 2]>(), options, optional).prop_map(
        |(root, point, [v2, read_only], options, optional)| {
            let (kind, name) = if v2 {
                (MountKind::V2, "cgroup2")
            } else {
                (MountKind::V1, "cgroup")
            };
            let line = format!(
                "30 23 0:26 {} {} {},nosuid{} - {name} cgroup {}\n",
                octal(&root),
                octal(&point),
                if read_only { "ro" } else { "rw" },
                optional
                    .iter()
                    .map(|field| format!(" {field}"))
                    .collect::<String>(),
                options.join(","),
            );
            let mount = CgroupMount {
                point,
                root,
                kind,
                read_only: read_only || options.contains(&"ro"),
                options: options.into_iter().map(str::to_owned).collect(),
            };
            (line, mount)
        },
    )
}

/// Text that begins like one of the files, with numbers of any size, or any text.
fn mangled() -> impl Strategy<Value = String> {
    let words = vec![
        "Killed process ",
        " (",
        ") total-vm:",
        "kB, ",
        "anon-rss:",
        "file-rss:",
        "shmem-rss:",
        "oom_score_adj:",
        "oom-kill:constraint=",
        ",oom_memcg=",
        ",task_memcg=",
        ",task=",
        ",pid=",
        "Tasks in ",
        " are going to be killed due to memory.oom.group set",
        "0::",
        " (deleted)",
        " - ",
        "cgroup2",
        "cgroup",
        " ",
        "some ",
        "avg10=",
        "avg60=",
        "total=",
        "max",
        "low ",
        "\n",
        ":",
        ",",
        "-",
        "\\777",
        "\\04",
        "\\",
    ];
    let number = prop_oneof![
        magnitude().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        "[0-9]{1,30}",
    ];
    let piece = prop_oneof![
        5 => select(words).prop_map(str::to_owned),
        3 => number,
        1 => odd_char().prop_map(String::from),
    ];
    prop_oneof![
        1 => odd_text(),
        4 => proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat()),
    ]
}

proptest! {
    #![proptest_config(usual())]

    #[test]
    fn no_text_makes_a_parser_panic(text in mangled()) {
        for mount in parse_mountinfo(&text) {
            prop_assert!(!mount.options.is_empty());
        }
        prop_assert!(own_group(&text).is_none_or(|group| text.contains(&group)));
        prop_assert!(v1_controllers(&text).iter().all(|name| !name.is_empty() && text.contains(name)));
        let keyed = Keyed::parse(&text);
        prop_assert_eq!(keyed.rise(&keyed, "low"), keyed.get("low").map(|_| 0));
        parse_limit(&text);
        parse_pressure(&text, "some");
        let mut log = OomLog::default();
        log.add(&text);
        log.add(&text);
        prop_assert!(log.victims.len() + log.incidents.len() <= 2);
        for victim in &log.victims {
            prop_assert!(victim.anon <= victim.rss && !victim.comm.contains(char::is_control));
        }
        log.add_record(text.as_bytes());
        Stat::parse(&text);
        line_of(&text, "max").and_then(parse_kib);
        let cpus = parse_cpu_list(&text);
        prop_assert!(cpus.iter().all(|cpu| *cpu < 65_536));
    }

    #[test]
    fn a_victim_with_any_numbers(numbers in any::<[u64; 3]>(), pid: u32) {
        let [anon, file, shmem] = numbers;
        let mut log = OomLog::default();
        log.add(&format!("Killed process {pid} (p) total-vm:1kB, anon-rss:{anon}kB, file-rss:{file}kB, \
            shmem-rss:{shmem}kB, UID:0 pgtables:0kB oom_score_adj:0"));
        prop_assert_eq!(log.victims.len(), usize::from(i32::try_from(pid).is_ok()));
    }

    #[test]
    fn mounts_are_read_as_written(mounts in proptest::collection::vec(mount(), 0..4)) {
        let mut text = "22 1 0:20 / /proc rw - proc proc rw\n".to_owned();
        text.extend(mounts.iter().map(|(line, _)| line.as_str()));
        let expected: Vec<CgroupMount> = mounts.into_iter().map(|(_, mount)| mount).collect();
        prop_assert_eq!(parse_mountinfo(&text), expected);
    }

    #[test]
    fn the_own_group_is_read_as_written(group in group(), other in group(), deleted in any::<bool>(),
        v1 in subsequence(vec!["cpu", "cpuacct", "memory", "blkio", "pids"], 0..5)) {
        prop_assume!(!group.ends_with(" (deleted)"));
        let mut text = format!("9:name=systemd:{other}\n");
        for (n, controller) in v1.iter().enumerate() {
            text += &format!("{n}:{controller}:{other}\n");
        }
        text += &format!("0::{group}{}\n", if deleted { " (deleted)" } else { "" });
        prop_assert_eq!(own_group(&text), Some(group));
        prop_assert_eq!(v1_controllers(&text), v1);
    }

    #[test]
    fn counters_are_read_as_written(
        before in proptest::collection::btree_map("[a-z][a-z_.]{0,12}", magnitude(), 0..8),
        rises in proptest::collection::vec(0u64..1 << 40, 8)) {
        let text = |counters: &std::collections::BTreeMap<String, u64>| {
            counters.iter().map(|(key, value)| format!("{key} {value}\n")).collect::<String>()
        };
        let mut after = before.clone();
        for (value, rise) in after.values_mut().zip(&rises) {
            *value = value.saturating_add(*rise);
        }
        let (old, new) = (Keyed::parse(&text(&before)), Keyed::parse(&text(&after)));
        for (key, value) in &after {
            prop_assert_eq!(new.get(key), Some(*value));
            prop_assert_eq!(new.rise(&old, key), Some(value - before[key]));
        }
        prop_assert_eq!(new.is_empty(), after.is_empty());
    }

    #[test]
    fn limits_and_pressure_are_read_as_written(limit in magnitude(), shares in [0u32..=10_000, 0u32..=10_000],
        total in magnitude()) {
        prop_assert_eq!(parse_limit(&format!("{limit}\n")), Some(Some(limit)));
        let share = |n: u32| format!("{}.{:02}", n / 100, n % 100);
        let text = format!(
            "some avg10=99.99 avg60=99.99 avg300=99.99 total=1\nfull avg10={} avg60={} avg300=0.00 total={total}\n",
            share(shares[0]), share(shares[1]));
        let full = parse_pressure(&text, "full").expect("a line");
        prop_assert!((full.avg10 * 100.0 - f64::from(shares[0])).abs() < 1e-6);
        prop_assert!((full.avg60 * 100.0 - f64::from(shares[1])).abs() < 1e-6);
        prop_assert_eq!(full.total_usec, total);
    }

    #[test]
    fn a_victim_is_read_as_written(pid in 1i32.., comm in chosen(15), kib in [0u64..1 << 40, 0u64..1 << 40, 0u64..1 << 40],
        score in -1000i32..=1000) {
        let [anon, file, shmem] = kib;
        let mut log = OomLog::default();
        log.add(&format!("Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:9kB, anon-rss:{anon}kB, \
            file-rss:{file}kB, shmem-rss:{shmem}kB, UID:1000 pgtables:60kB oom_score_adj:{score}"));
        let victim = Victim {
            pid,
            comm: cgmgr::text::escape(&comm),
            rss: (anon + file + shmem) * 1024,
            anon: (anon + shmem) * 1024,
            oom_score_adj: Some(score),
            repeats: 0,
        };
        prop_assert_eq!(log.victims, [victim]);
    }

    #[test]
    fn a_record_is_its_message(pid in 1i32.., comm in chosen(15), prefix in "[0-9]{1,3},[0-9]{1,9},[0-9]{1,9},-(,caller=T1)?",
        more in proptest::collection::vec("[A-Z]{1,9}=[a-z:0-9;]{1,9}", 0..3)) {
        let message = format!("Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:9kB, anon-rss:4kB");
        let mut plain = OomLog::default();
        plain.add(message.lines().next().unwrap_or(""));
        let mut record = OomLog::default();
        let continued: String = more.iter().map(|line| format!(" {line}\n")).collect();
        record.add_record(format!("{prefix};{message}\n{continued}").as_bytes());
        prop_assert_eq!(record, plain);
    }

    #[test]
    fn a_stat_is_read_as_written(pid in 1i32.., comm in chosen(15), state in select(vec!['R', 'S', 'D', 'T', 't', 'Z', 'X']),
        parent: i32, tty: i32, in_front: bool, flags in magnitude(), start in magnitude()) {
        // A name may have everything that the text has, a whole stat included.
        let front = if in_front { 1 } else { -1 };
        let text = format!("{pid} ({comm}) {state} {parent} 1 1 {tty} {front} {flags} 0 0 0 0 2 1 0 0 25 5 1 0 {start} 26 40\n");
        let stat = Stat { state, parent, has_terminal: tty != 0, foreground: tty != 0 && in_front, flags, start };
        prop_assert_eq!(Stat::parse(&text), Some(stat));
    }

    #[test]
    fn lines_and_amounts_are_read_as_written(before in "[A-Z][a-z]{1,9}", kib in magnitude()) {
        prop_assume!(before != "MemTotal");
        let text = format!("{before}:\t1 kB\nMemTotal:  {kib} kB\nMemTotalAndMore: 3 kB\n");
        let bytes = line_of(&text, "MemTotal").and_then(parse_kib);
        prop_assert_eq!(bytes, Some(kib.saturating_mul(1024)));
        prop_assert_eq!(line_of(&text, "Mem"), None);
    }

    #[test]
    fn an_incident_is_read_as_written(pid in 1i32.., limited in proptest::option::of(group()), task in group(),
        comm in chosen(15)) {
        // What follows a group's name is recognized by its own name.
        let ends = |text: &str| text.contains(",task") || text.contains(",oom_memcg=");
        prop_assume!(!ends(&task) && !limited.as_deref().is_some_and(ends));
        let memcg = limited.as_ref().map_or(",global_oom".to_owned(), |group| format!(",oom_memcg={group}"));
        let mut log = OomLog::default();
        log.add(&format!("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0{memcg},\
            task_memcg={task},task={comm},pid={pid},uid=0"));
        prop_assert_eq!(log.incidents, [Incident { limited, task_group: task, pid }]);
    }

    #[test]
    fn a_process_that_is_named_again_is_one_victim(pid in 2i32.., times in 1u64..9) {
        let mut log = OomLog::default();
        for _ in 0..times {
            log.add(&format!("Memory cgroup out of memory: Killed process {pid} (p) total-vm:1kB"));
        }
        let named: Vec<_> = log.victims.iter().map(|victim| (victim.pid, victim.repeats)).collect();
        prop_assert_eq!(named, [(pid, times - 1)]);
    }

    #[test]
    fn cpus_are_read_as_written(ranges in proptest::collection::vec((1usize..9, 1usize..9), 0..9)) {
        let (mut next, mut cpus, mut parts) = (0, Vec::new(), Vec::new());
        for (gap, len) in ranges {
            let (first, last) = (next + gap, next + gap + len - 1);
            parts.push(if first == last { first.to_string() } else { format!("{first}-{last}") });
            cpus.extend(first..=last);
            next = last + 1;
        }
        prop_assert_eq!(parse_cpu_list(&parts.join(",")), cpus);
    }
}
