//! `cgmgr status` as text: a tree in at most 100 columns. Pure.

use crate::host::AGENT_SLICE;
use crate::session::view::{AgentView, PartView, SessionView, State, Use};
use crate::text::{bytes, count, duration_us, escape};

/// Widest line.
const COLUMNS: usize = 100;
/// Blocks of a bar.
const BAR: u64 = 10;
/// Percent of time from which waiting is worth a word.
const NOTICEABLE: f64 = 5.0;

/// What is shown.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    /// Where cgroup v2 is mounted.
    pub mount: Option<String>,
    /// cgmgr's base in the hierarchy.
    pub base: Option<String>,
    /// What kind of place that is.
    pub place: Option<&'static str>,
    /// The backend in force.
    pub backend: &'static str,
    /// How the hierarchies are set up.
    pub hierarchy: &'static str,
    /// Why this process has no base of its own.
    pub why_no_base: Option<String>,
    /// Seconds since 1970.
    pub now: u64,
    /// CPUs of the machine.
    pub cpus: u32,
    /// agent.slice.
    pub agent: Option<PartView>,
    /// What is protected in it.
    pub agents: Vec<AgentView>,
    /// workloads.slice.
    pub workloads: Option<PartView>,
    /// The sessions, by name.
    pub sessions: Vec<SessionView>,
    /// Leave out everything that is not a session.
    pub only_sessions: bool,
}

/// The text, with a newline at its end.
pub fn render(overview: &Overview) -> String {
    let mut out = Lines::default();
    if overview.only_sessions {
        for session in &overview.sessions {
            block(&mut out, "", "", &session_lines(session, overview));
        }
        return out.0;
    }
    heading(&mut out, overview);
    let blocks = |sessions: Vec<&SessionView>| -> Vec<Vec<String>> {
        sessions.into_iter().map(|s| session_lines(s, overview)).collect()
    };
    let mut top: Vec<(Vec<String>, Vec<Vec<String>>)> = Vec::new();
    if let Some(agent) = &overview.agent {
        let agents = overview.agents.iter().map(|agent| vec![agent_line(agent)]);
        top.push((part_lines("agent.slice", agent), agents.collect()));
    }
    let (grouped, apart): (Vec<&SessionView>, Vec<&SessionView>) =
        overview.sessions.iter().partition(|s| s.group.is_some());
    if let Some(workloads) = &overview.workloads {
        top.push((part_lines("workloads.slice", workloads), blocks(grouped)));
    }
    let (running, ended): (Vec<&SessionView>, Vec<&SessionView>) =
        apart.into_iter().partition(|s| s.state != State::Ended);
    if !running.is_empty() {
        top.push((vec!["without a group (process backend)".into()], blocks(running)));
    }
    if !ended.is_empty() {
        top.push((
            vec!["ended; `cgmgr wait` returns the status".into()],
            blocks(ended),
        ));
    }
    let last_top = top.len().saturating_sub(1);
    for (i, (lines, inside)) in top.iter().enumerate() {
        let (branch, stem) = if i == last_top {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        block(&mut out, branch, stem, lines);
        for (j, lines) in inside.iter().enumerate() {
            let (inner, below) = if j + 1 == inside.len() {
                ("└── ", "    ")
            } else {
                ("├── ", "│   ")
            };
            block(
                &mut out,
                &format!("{stem}{inner}"),
                &format!("{stem}{below}"),
                lines,
            );
        }
    }
    if overview.sessions.is_empty() {
        out.push("no sessions");
    }
    out.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn push(&mut self, line: &str) {
        self.0.push_str(&cut(line, COLUMNS));
        self.0.push('\n');
    }
}

/// At most `width` characters of `line`; what is cut off is marked.
fn cut(line: &str, width: usize) -> String {
    let line = line.trim_end();
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width - 1).chain(['…']).collect()
}

/// The first line behind `branch`, all others behind `stem`.
fn block(out: &mut Lines, branch: &str, stem: &str, lines: &[String]) {
    for (i, line) in lines.iter().enumerate() {
        out.push(&format!("{}{line}", if i == 0 { branch } else { stem }));
    }
}

fn heading(out: &mut Lines, overview: &Overview) {
    let mount = overview.mount.as_deref().map_or_else(String::new, escape);
    match (&overview.base, overview.place) {
        (Some(base), Some(place)) => {
            let base = if base == "/" { "" } else { base };
            out.push(&format!("{mount}{}: {place}", escape(base)));
        }
        _ => out.push(&format!(
            "{} backend: limits are not held by groups",
            overview.backend
        )),
    }
    if let Some(why) = &overview.why_no_base {
        out.push(&format!("({})", escape(why)));
    }
}

fn part_lines(name: &str, part: &PartView) -> Vec<String> {
    let usage = &part.usage;
    let mut words = vec![format!("{name:<16} {}", memory(usage))];
    let shields: Vec<String> = [("min", usage.memory.min), ("low", usage.memory.low)]
        .into_iter()
        .filter_map(|(name, n)| Some(format!("{name} {}", bytes(n?))))
        .collect();
    if !shields.is_empty() {
        words.push(format!("protected: {}", shields.join(", ")));
    }
    words.extend(cpu(usage));
    words.extend(pids(usage));
    words.extend(killed(usage));
    let mut lines = flow(&words, &format!("{:16} ", ""));
    if let Some(stalls) = stalls(usage) {
        lines.push(stalls);
    }
    lines
}

fn agent_line(agent: &AgentView) -> String {
    let unit = agent.group.rsplit('/').next().unwrap_or_default();
    let group = match unit {
        AGENT_SLICE => String::new(),
        unit => format!("{}  ", escape(unit)),
    };
    let score = agent
        .oom_score_adj
        .map_or_else(String::new, |score| format!("  oom_score_adj {score}"));
    let others = match agent.processes {
        0 | 1 => String::new(),
        n => format!("  {}", crate::text::count(n as u64, "process", "processes")),
    };
    format!("{group}{} pid {}{score}{others}", agent.comm, agent.pid)
}

/// The words on as few lines as they fit, all but the first behind `indent`.
fn flow(words: &[String], indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            // The branches of the tree take eight columns.
            Some(line) if line.chars().count() + 2 + word.chars().count() <= COLUMNS - 8 => {
                line.push_str("  ");
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{indent}{word}")),
            None => lines.push(word.clone()),
        }
    }
    lines
}

fn session_lines(session: &SessionView, overview: &Overview) -> Vec<String> {
    let mut head = vec![session.name.clone(), state(session)];
    if let Some(started) = session.started.filter(|_| session.state != State::Ended) {
        head.push(age(overview.now.saturating_sub(started)));
    }
    if let Some(role) = &session.role {
        head.push(format!("role {}", escape(role)));
    }
    if let Some(uid) = session.uid {
        head.push(format!("uid {uid}"));
    }
    let command: Vec<String> = session.command.iter().map(|w| escape(w)).collect();
    head.push(command.join(" "));
    let mut lines = vec![head.join("  ")];
    if session.state == State::Ended {
        return lines;
    }
    let usage = &session.usage;
    let mut words = Vec::new();
    if session.group.is_some() {
        words.push(memory(usage));
    }
    words.extend(cpu(usage));
    words.extend(pids(usage));
    words.extend(killed(usage));
    lines.extend(flow(&words, ""));
    if let (Some(from), Some(max)) = (&usage.memory.effective_from, usage.memory.max) {
        lines.push(format!(
            "memory is limited by {}; its own max is {}",
            escape(from),
            bytes(max)
        ));
    }
    if !session.unconfined.is_empty() {
        let knobs: Vec<String> = session.unconfined.iter().map(|k| escape(k)).collect();
        lines.push(format!("unconfined: {}", knobs.join(", ")));
    }
    if !session.set_live.is_empty() {
        let knobs: Vec<String> = session.set_live.iter().map(|k| escape(k)).collect();
        lines.push(format!("set while it runs: {}", knobs.join(", ")));
    }
    lines.extend(stalls(usage));
    lines
}

fn state(session: &SessionView) -> String {
    match (session.state, session.status) {
        (State::Ended, Some(status)) => format!("ended, status {status}"),
        (state, _) => state.name().to_owned(),
    }
}

/// `[####------] 4.2/16.0 GiB` against the limit that really holds.
fn memory(usage: &Use) -> String {
    let memory = &usage.memory;
    let Some(current) = memory.current else {
        return "memory not accounted".into();
    };
    let swap = match memory.swap_current {
        Some(n) if n > 0 => format!(" + {} swap", bytes(n)),
        _ => String::new(),
    };
    // Without a max of its own a session shares that of a group above.
    let shared = match (&memory.effective_from, memory.max) {
        (Some(from), None) => format!(" of {}", escape(from)),
        _ => String::new(),
    };
    let high = memory.high.map(|n| format!(", high {}", bytes(n)));
    match (memory.effective_max, high) {
        (Some(max), high) => format!(
            "{} {}{shared}{}{swap}",
            bar(current, max),
            ratio(current, max),
            high.unwrap_or_default()
        ),
        (None, Some(high)) => format!("{}{high}{swap}", bytes(current)),
        (None, None) => format!("{}, no limit{swap}", bytes(current)),
    }
}

fn bar(current: u64, max: u64) -> String {
    // Any use shows, and only a full one fills it.
    let filled = match current {
        0 => 0,
        _ if current >= max => BAR,
        _ => (u128::from(current) * u128::from(BAR) / u128::from(max.max(1))).clamp(1, u128::from(BAR) - 1)
            as u64,
    };
    let blocks = |n: u64, c: &str| c.repeat(usize::try_from(n).unwrap_or(0));
    format!("[{}{}]", blocks(filled, "#"), blocks(BAR - filled, "-"))
}

/// Two sizes with the unit once where it is the same.
fn ratio(current: u64, max: u64) -> String {
    let (a, b) = (bytes(current), bytes(max));
    match (a.split_once(' '), b.split_once(' ')) {
        (Some((n, unit)), Some((_, same))) if unit == same => format!("{n}/{b}"),
        _ => format!("{a} / {b}"),
    }
}

fn cpu(usage: &Use) -> Option<String> {
    let cpu = &usage.cpu;
    let mut words = Vec::new();
    if let Some(used) = cpu.usage_usec {
        words.push(format!("cpu {}", duration_us(used)));
    }
    if let (Some(quota), Some(period)) = (cpu.quota_usec, cpu.period_usec) {
        let shown = format!("{:.2}", quota as f64 / period.max(1) as f64);
        words.push(format!(
            "at most {} CPUs",
            shown.trim_end_matches('0').trim_end_matches('.')
        ));
    }
    if let Some(held) = cpu.throttled_usec.filter(|n| *n > 0) {
        words.push(format!("throttled {}", duration_us(held)));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn pids(usage: &Use) -> Option<String> {
    let current = usage.pids.current?;
    Some(match usage.pids.max {
        Some(max) => format!("pids {current}/{max}"),
        None => format!("pids {current}"),
    })
}

fn killed(usage: &Use) -> Option<String> {
    usage
        .oom_kills
        .filter(|n| *n > 0)
        .map(|n| count(n, "OOM kill", "OOM kills"))
}

/// Who waits noticeably: the share of the last ten seconds.
fn stalls(usage: &Use) -> Option<String> {
    let all = [
        ("memory", usage.pressure.memory),
        ("cpu", usage.pressure.cpu),
        ("io", usage.pressure.io),
    ];
    let words: Vec<String> = all
        .into_iter()
        .filter_map(|(name, stall)| Some((name, stall?.avg10)))
        .filter(|(_, share)| *share >= NOTICEABLE)
        .map(|(name, share)| format!("{name} {share:.0} %"))
        .collect();
    (!words.is_empty()).then(|| format!("waits (of the last 10 s): {}", words.join(", ")))
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::counters::Pressure;
    use crate::session::view::{Cpu, Memory, Pids, Stalls};

    const GIB: u64 = 1 << 30;

    fn session(name: &str) -> SessionView {
        SessionView {
            name: name.into(),
            role: Some("rust".into()),
            group: Some(format!("/workloads.slice/cgmgr-{name}")),
            backend: "cgroupfs".into(),
            state: State::Running,
            status: None,
            command: vec!["cargo".into(), "build".into(), "\x1b[31m".into()],
            uid: Some(1000),
            supervisor: Some(7),
            started: Some(1_000),
            unconfined: vec!["io_weight".into()],
            set_live: vec!["memory_max".into()],
            usage: Use {
                memory: Memory {
                    current: Some(4 * GIB + GIB / 5),
                    max: Some(16 * GIB),
                    effective_max: Some(16 * GIB),
                    ..Memory::default()
                },
                cpu: Cpu {
                    usage_usec: Some(12_100_000),
                    throttled_usec: Some(3_000_000),
                    quota_usec: Some(300_000),
                    period_usec: Some(100_000),
                },
                pids: Pids {
                    current: Some(12),
                    max: Some(4096),
                },
                oom_kills: Some(1),
                pressure: Stalls {
                    memory: Some(Pressure {
                        avg10: 12.3,
                        ..Pressure::default()
                    }),
                    ..Stalls::default()
                },
            },
        }
    }

    fn overview(sessions: Vec<SessionView>) -> Overview {
        Overview {
            mount: Some("/sys/fs/cgroup".into()),
            base: Some("/".into()),
            place: Some("the root of the hierarchy"),
            backend: "cgroupfs",
            hierarchy: "unified",
            now: 1_300,
            cpus: 8,
            agent: Some(PartView::default()),
            agents: vec![
                AgentView {
                    group: "/agent.slice/cgmgr-agent-coder.scope".into(),
                    pid: 812,
                    comm: "coder".into(),
                    oom_score_adj: Some(-900),
                    processes: 3,
                },
                AgentView {
                    group: "/agent.slice".into(),
                    pid: 813,
                    comm: "other".into(),
                    oom_score_adj: None,
                    processes: 1,
                },
            ],
            workloads: Some(PartView::default()),
            sessions,
            ..Overview::default()
        }
    }

    #[test]
    fn a_tree_of_parts_and_sessions() {
        let text = render(&overview(vec![session("rust-1")]));
        let expected = "\
/sys/fs/cgroup: the root of the hierarchy
├── agent.slice      memory not accounted
│   ├── cgmgr-agent-coder.scope  coder pid 812  oom_score_adj -900  3 processes
│   └── other pid 813
└── workloads.slice  memory not accounted
    └── rust-1  running  5 min  role rust  uid 1000  cargo build \\u{1b}[31m
        [##--------] 4.2/16.0 GiB  cpu 12.1 s, at most 3 CPUs, throttled 3.0 s  pids 12/4096
        1 OOM kill
        unconfined: io_weight
        set while it runs: memory_max
        waits (of the last 10 s): memory 12 %
";
        let expected: String = expected.lines().map(|l| cut(l, COLUMNS) + "\n").collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn a_smaller_limit_above_is_the_one_shown() {
        let mut s = session("a");
        s.usage.memory.effective_max = Some(8 * GIB);
        s.usage.memory.effective_from = Some("/workloads.slice".into());
        let text = render(&overview(vec![s]));
        assert!(text.contains("[#####-----] 4.2/8.0 GiB"), "{text}");
        assert!(
            text.contains("memory is limited by /workloads.slice; its own max is 16.0 GiB"),
            "{text}"
        );
    }

    #[test]
    fn many_words_take_a_second_line() {
        let words: Vec<String> = (0..4).map(|i| format!("{i}{}", "x".repeat(40))).collect();
        let lines = flow(&words, "  ");
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with("  2x"));
        let mut s = session("a");
        s.usage.memory.max = None;
        s.usage.memory.effective_from = Some("/workloads.slice".into());
        assert!(render(&overview(vec![s])).contains("4.2/16.0 GiB of /workloads.slice"));
    }

    #[test]
    fn no_line_is_wider_than_100_columns() {
        let mut s = session(&"x".repeat(150));
        s.command = vec!["ä".repeat(500)];
        let text = render(&overview(vec![s; 1000]));
        assert!(text.lines().all(|l| l.chars().count() <= COLUMNS));
        assert!(text.lines().count() > 4000);
    }

    #[test]
    fn ended_and_groupless_sessions_stand_apart() {
        let mut ended = session("done");
        (ended.state, ended.status, ended.group) = (State::Ended, Some(3), None);
        let mut apart = session("p");
        (apart.group, apart.backend) = (None, "process".into());
        let text = render(&overview(vec![ended, apart]));
        assert!(text.contains("done  ended, status 3  role rust"), "{text}");
        assert!(text.contains("without a group (process backend)"), "{text}");
    }

    #[test]
    fn bars() {
        assert_eq!(bar(0, 10), "[----------]");
        assert_eq!(bar(1, 1000), "[#---------]");
        assert_eq!(bar(999, 1000), "[#########-]");
        assert_eq!(bar(5, 0), "[##########]");
        assert_eq!(ratio(500, GIB), "500 B / 1.0 GiB");
    }
}
