//! `cgmgr limits`: what the session that the caller is in may use, what it uses, and how many jobs fit. Needs no rights.

use super::args::LimitsArgs;
use super::context::{Outcome, print_json};
use crate::session::allowance::{self, Allowance, Bound, Jobs, Waits};
use crate::text::{bytes, escape};
use serde_json::json;
use std::io::{self, Write};

/// Runs the command.
pub fn limits(args: &LimitsArgs) -> Outcome {
    let own = allowance::own();
    let jobs = own.jobs(args.memory_per_job);
    let mut out = io::stdout().lock();
    if args.jobs {
        writeln!(out, "{}", jobs.fit)?;
    } else if args.json {
        let mut value = json!(own);
        value["suggested_jobs"] = json!(jobs.fit);
        value["jobs"] = json!(jobs);
        drop(out);
        print_json(&value)?;
    } else {
        out.write_all(render(&own, &jobs).as_bytes())?;
    }
    Ok(0)
}

fn render(own: &Allowance, jobs: &Jobs) -> String {
    let mut lines = vec![heading(own), memory(own)];
    lines.extend(swap(own));
    lines.push(cpu(own));
    lines.extend(pids(own));
    lines.extend(waits(own));
    if let Some(kills) = own.memory.oom_kills.filter(|kills| *kills > 0) {
        lines.push(format!("OOM kills so far: {kills}"));
    }
    let by_memory = match jobs.by_memory {
        Some(n) => format!(", {n} by memory at {} each", bytes(jobs.memory_per_job)),
        None => String::new(),
    };
    lines.push(format!(
        "jobs in parallel: {} ({} by CPU{by_memory})",
        jobs.fit, jobs.by_cpu
    ));
    for what in &own.unreadable {
        lines.push(format!("not known: {}", escape(what)));
    }
    lines.join("\n") + "\n"
}

fn heading(own: &Allowance) -> String {
    let group = own
        .group
        .as_deref()
        .map_or("no group that can be seen".to_owned(), escape);
    match (own.in_session, &own.session, &own.role) {
        (false, ..) => format!("not in a session of cgmgr's; these are the limits of {group}"),
        (true, None, _) => format!("in a session, {group}"),
        (true, Some(name), None) => format!("session {name}, {group}"),
        (true, Some(name), Some(role)) => format!("session {name} of role {}, {group}", escape(role)),
    }
}

fn of(bound: &Bound) -> String {
    format!("{} ({})", bytes(bound.value), escape(&bound.from))
}

fn memory(own: &Allowance) -> String {
    let memory = &own.memory;
    let mut words = Vec::new();
    if let (Some(used), Some(current)) = (memory.working_set, memory.current) {
        words.push(format!(
            "{} in use, {} with file cache",
            bytes(used),
            bytes(current)
        ));
    }
    words.extend(memory.max.as_ref().map(|max| format!("at most {}", of(max))));
    words.extend(
        memory
            .high
            .as_ref()
            .map(|high| format!("slowed down above {}", of(high))),
    );
    words.extend(memory.headroom.as_ref().map(|left| format!("{} left", of(left))));
    format!("memory: {}", said(words))
}

fn swap(own: &Allowance) -> Option<String> {
    let used = own.memory.swap_current.filter(|used| *used > 0);
    let used = used.map(|used| format!("{} in use", bytes(used)));
    let max = own.memory.swap_max.as_ref();
    let max = max.map(|max| format!("at most {}", of(max)));
    let words: Vec<String> = used.into_iter().chain(max).collect();
    (!words.is_empty()).then(|| format!("swap: {}", words.join(", ")))
}

fn cpu(own: &Allowance) -> String {
    let mut words = Vec::new();
    if let Some(cpus) = &own.cpu.cpus {
        let shown = format!("{:.2}", cpus.value);
        words.push(format!(
            "at most {} CPUs ({})",
            shown.trim_end_matches('0').trim_end_matches('.'),
            escape(&cpus.from)
        ));
    }
    if let Some(share) = own.cpu.throttled_share.filter(|share| *share > 0.0) {
        words.push(format!("held back in {:.0} % of its periods", share * 100.0));
    }
    format!("cpu: {}", said(words))
}

fn pids(own: &Allowance) -> Option<String> {
    let now = own.pids.current.map(|now| format!("{now} now"));
    let max = own.pids.max.as_ref();
    let max = max.map(|max| format!("at most {} ({})", max.value, escape(&max.from)));
    let words: Vec<String> = now.into_iter().chain(max).collect();
    (!words.is_empty()).then(|| format!("pids: {}", words.join(", ")))
}

fn waits(own: &Allowance) -> Option<String> {
    let pressure = &own.pressure;
    let all = [
        ("memory", pressure.memory),
        ("cpu", pressure.cpu),
        ("io", pressure.io),
    ];
    let words: Vec<String> = all
        .into_iter()
        .filter_map(|(what, waits)| Some(format!("{what} {}", percent(waits?))))
        .collect();
    (!words.is_empty()).then(|| format!("waits (some/all of the last 10 s): {}", words.join(", ")))
}

fn percent(waits: Waits) -> String {
    let full = waits
        .full_avg10
        .map_or("?".to_owned(), |full| format!("{full:.0}"));
    format!("{:.0}/{full} %", waits.some_avg10)
}

fn said(words: Vec<String>) -> String {
    match words.is_empty() {
        true => "not known here".to_owned(),
        false => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::allowance::{Cpu, Cpus, Memory, Pids, Pressure};

    #[test]
    fn what_is_known_is_shown_and_what_is_not_is_said() {
        let bound = |value, from: &str| {
            Some(Bound {
                value,
                from: from.into(),
            })
        };
        let own = Allowance {
            in_session: true,
            session: Some("dev".into()),
            role: Some("rust".into()),
            group: Some("/w/cgmgr-dev".into()),
            memory: Memory {
                current: Some(300 << 20),
                working_set: Some(200 << 20),
                max: bound(1 << 30, "/w"),
                headroom: bound(512 << 20, "/w"),
                swap_max: bound(0, "/w/cgmgr-dev"),
                oom_kills: Some(2),
                ..Memory::default()
            },
            cpu: Cpu {
                cpus: Some(Cpus {
                    value: 1.5,
                    from: "/w/cgmgr-dev".into(),
                }),
                throttled_share: Some(0.25),
                ..Cpu::default()
            },
            pids: Pids {
                current: Some(3),
                max: bound(64, "/w/cgmgr-dev"),
                ..Pids::default()
            },
            pressure: Pressure {
                memory: Some(Waits {
                    some_avg10: 12.4,
                    full_avg10: Some(3.0),
                }),
                ..Pressure::default()
            },
            unreadable: vec!["\x1b".into()],
        };
        let expected = "\
session dev of role rust, /w/cgmgr-dev
memory: 200.0 MiB in use, 300.0 MiB with file cache, at most 1.0 GiB (/w), 512.0 MiB (/w) left
swap: at most 0 B (/w/cgmgr-dev)
cpu: at most 1.5 CPUs (/w/cgmgr-dev), held back in 25 % of its periods
pids: 3 now, at most 64 (/w/cgmgr-dev)
waits (some/all of the last 10 s): memory 12/3 %
OOM kills so far: 2
jobs in parallel: 2 (2 by CPU, 2 by memory at 256.0 MiB each)
not known: \\u{1b}
";
        assert_eq!(render(&own, &own.jobs(256 << 20)), expected);
        let nothing = Allowance::default();
        let text = render(&nothing, &nothing.jobs(1 << 30));
        assert!(
            text.starts_with("not in a session of cgmgr's; these are the limits of no group"),
            "{text}"
        );
        assert!(
            text.contains("memory: not known here\ncpu: not known here\n"),
            "{text}"
        );
        assert!(text.contains("jobs in parallel: 1 (1 by CPU)"), "{text}");
    }
}
