//! What a user must know about a session's end, in words. Pure.
#![deny(clippy::disallowed_methods)]

use super::account::Ended;
use super::verdict::{Cause, Exit, Oom};
use crate::plan::receipt::Receipt;
use crate::record::words::{self, Filled, held};
use crate::text::{bytes, count, duration_us};

/// What the words are about.
pub struct About<'a> {
    /// The session's name.
    pub session: &'a str,
    /// Who of it this is about, where that is not all of it: a command that entered.
    pub who: Option<&'a str>,
    /// Where its memory_max was declared: `runtime.limits.memory_max in rust.role.toml`, `--memory-max`.
    pub memory_max_from: &'a str,
    /// What it was declared to be there, in bytes; `None`: no limit.
    pub memory_max: Option<u64>,
}

impl About<'_> {
    /// The session, or who of it.
    fn subject(&self) -> String {
        match self.who {
            Some(who) => format!("{}: {who}", self.session),
            None => self.session.to_owned(),
        }
    }
}

/// No page of any machine is larger: the kernel rounds limits down to pages.
const LARGEST_PAGE: u64 = 64 << 10;

/// Whether the limit that was hit is another one than was declared: somebody has set it while the session ran.
fn was_changed(about: &About<'_>, hit: u64) -> bool {
    about
        .memory_max
        .is_none_or(|declared| hit > declared || declared - hit >= LARGEST_PAGE)
}

/// An OOM kill while the session goes on.
pub fn oom_goes_on(about: &About<'_>, oom: &Oom) -> String {
    format!(
        "{}: {}; the session goes on. {}",
        about.session,
        subject(oom),
        // Who else is in it nobody has looked for.
        advice(about, oom, u64::MAX)
    )
}

/// The OOM kills of a session that has ended.
pub fn oom_at_end(about: &About<'_>, ended: &Ended, oom: &Oom) -> String {
    let session = about.subject();
    let what = limit_reached(oom);
    let peak = ended.usage.memory_peak.map(|p| format!("peak {}", bytes(p)));
    let victim = match (oom.victims.first(), oom.kills) {
        (Some(victim), _) => Some(held(victim)),
        (None, 0) => None,
        (None, _) => Some("victim unknown".into()),
    };
    let details: Vec<String> = peak.into_iter().chain(victim).collect();
    let details = if details.is_empty() {
        String::new()
    } else {
        format!(" ({})", details.join(", "))
    };
    let subject = if oom.took_command || oom.whole_group {
        format!("{session} was OOM-killed")
    } else {
        format!("{session}: {}", processes_killed(oom))
    };
    let whole = if oom.whole_group && oom.kills > 1 {
        format!(
            " The kernel killed the whole group, {}.",
            count(oom.kills, "process", "processes")
        )
    } else {
        String::new()
    };
    // There were at most as many processes as tasks.
    let tasks = ended.usage.pids_peak.unwrap_or(u64::MAX);
    format!("{subject}: {what}{details}.{whole} {}", advice(about, oom, tasks))
}

fn subject(oom: &Oom) -> String {
    match oom.victims.first() {
        Some(victim) => format!("{} was OOM-killed: {}", held(victim), limit_reached(oom)),
        None => format!("{}: {}", processes_killed(oom), limit_reached(oom)),
    }
}

fn processes_killed(oom: &Oom) -> String {
    format!("{} OOM-killed", count(oom.kills, "process was", "processes were"))
}

fn limit_reached(oom: &Oom) -> String {
    words::limit_reached(&oom.hit())
}

/// `processes` is how many there may have been.
fn advice(about: &About<'_>, oom: &Oom, processes: u64) -> String {
    let filled = Filled::of(
        oom.limit,
        oom.victims.first().map(|v| v.rss).into_iter(),
        processes,
    );
    match oom.limit {
        Some(hit) if oom.cause == Cause::Session && was_changed(about, hit) => {
            words::advice_of_set_limit(about.session, filled)
        }
        _ => words::advice(&oom.hit(), about.memory_max_from, filled),
    }
}

/// Processes that live on after the command.
pub fn left_over(about: &About<'_>, left: &[(i32, String)], has_group: bool) -> String {
    let names: Vec<String> = left
        .iter()
        .take(5)
        .map(|(pid, comm)| format!("{comm} (pid {pid})"))
        .collect();
    let more = if left.len() > 5 {
        format!(" and {} more", left.len() - 5)
    } else {
        String::new()
    };
    let session = about.session;
    let what = count(left.len() as u64, "process lives", "processes live");
    let help = if has_group {
        format!("`cgmgr kill {session}` ends them, --kill-leftover does so by itself.")
    } else {
        "Without a group cgmgr does not watch them any further.".into()
    };
    format!(
        "{session}: the command has ended and {what} on: {}{more}. {help}",
        names.join(", ")
    )
}

/// What must be said about a session's end, whoever asks.
pub fn story(about: &About<'_>, ended: &Ended) -> Vec<String> {
    let session = about.session;
    let mut story = Vec::new();
    if let Some(oom) = &ended.oom {
        story.push(oom_at_end(about, ended, oom));
    }
    if ended.oom_unknown {
        story.push(format!(
            "{session}: its group was removed by somebody else: whether it was OOM-killed is not known"
        ));
    }
    story.extend(ended.warnings.iter().map(|w| format!("{session}: {w}")));
    story
}

/// One line with what a session used (`--summary`).
pub fn summary(about: &About<'_>, ended: &Ended) -> String {
    let usage = &ended.usage;
    let how = match ended.exit {
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
        Exit::Unknown => "ended, how is not known".into(),
    };
    let mut parts = vec![how, format!("took {}", duration_us(usage.wall_usec))];
    parts.extend(usage.cpu_usec.map(|us| format!("CPU {}", duration_us(us))));
    let held_back = usage.cpu_throttled_usec.filter(|us| *us > 0);
    parts.extend(held_back.map(|us| format!("held back by cpu.max for {}", duration_us(us))));
    parts.extend(usage.memory_peak.map(|b| format!("memory peak {}", bytes(b))));
    let slowed = usage.memory_high_events.filter(|n| *n > 0);
    parts.extend(slowed.map(|n| format!("over memory_high {}", count(n, "time", "times"))));
    parts.extend(
        usage
            .pids_peak
            .map(|n| format!("at most {}", count(n, "task", "tasks"))),
    );
    let refused = usage.pids_refused.filter(|n| *n > 0);
    parts.extend(refused.map(|n| format!("{} refused by pids", count(n, "fork", "forks"))));
    format!("{}: {}", about.session, parts.join(", "))
}

/// One line per declared knob that does not hold.
pub fn unconfined(receipt: &Receipt) -> Vec<String> {
    receipt
        .unconfined()
        .map(|entry| format!("{} is {}", entry.knob.knob().key, entry.outcome))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::measure::Usage;
    use super::*;
    use crate::kernel::kmsg::Victim;
    use crate::path::GroupPath;

    fn about() -> About<'static> {
        About {
            session: "rust-3",
            who: None,
            memory_max_from: "runtime.limits.memory_max in rust.role.toml",
            memory_max: Some(16 << 30),
        }
    }

    fn ended(exit: Exit, oom: Oom) -> Ended {
        let usage = Usage {
            memory_peak: Some(16 << 30),
            ..Usage::default()
        };
        Ended {
            exit,
            oom: Some(oom),
            oom_unknown: false,
            counted_kills: 1,
            usage,
            left: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn oom(cause: Cause) -> Oom {
        let victim = Victim {
            pid: 4121,
            comm: "rustc".into(),
            rss: 10_522_669_875,
            oom_score_adj: None,
            anon: 10_522_669_875,
            repeats: 0,
        };
        Oom {
            cause,
            limit: Some(16 << 30),
            kills: 1,
            whole_group: false,
            victims: vec![victim],
            unseen: 0,
            took_command: false,
        }
    }

    #[test]
    fn the_designs_own_example() {
        let killed = Oom {
            took_command: true,
            ..oom(Cause::Session)
        };
        let ended = ended(Exit::Signal(9), killed);
        assert_eq!(
            oom_at_end(&about(), &ended, ended.oom.as_ref().unwrap()),
            "rust-3 was OOM-killed: memory_max 16.0 GiB reached (peak 16.0 GiB, rustc pid 4121 held 9.8 GiB). Raise \
             runtime.limits.memory_max in rust.role.toml or build with fewer jobs."
        );
    }

    #[test]
    fn one_program_that_needs_more_is_not_told_to_be_fewer() {
        let with = |rss: u64, tasks: Option<u64>| {
            let mut killed = oom(Cause::Session);
            killed.victims[0].rss = rss;
            let mut ended = ended(Exit::Signal(9), killed);
            ended.usage.pids_peak = tasks;
            let text = oom_at_end(&about(), &ended, ended.oom.as_ref().unwrap());
            text.split_once(" in rust.role.toml").unwrap().1.to_owned()
        };
        let alone = ": one program alone needs more than that.";
        assert_eq!(
            (with(15 << 30, None), with(15 << 30, Some(40))),
            (alone.into(), alone.into())
        );
        assert_eq!(with(1 << 20, Some(3)), ".");
        assert_eq!(with(1 << 20, Some(4)), " or build with fewer jobs.");
    }

    #[test]
    fn a_limit_that_was_set_meanwhile_is_not_the_roles_to_raise() {
        let with = |limit: u64| Oom {
            limit: Some(limit),
            ..oom(Cause::Session)
        };
        let set = oom_goes_on(&about(), &with(64 << 20));
        assert!(
            set.ends_with("raise it with `cgmgr set rust-3 memory_max=…`."),
            "{set}"
        );
        let mut odd = about();
        odd.memory_max = Some((16 << 30) + 4095);
        let rounded = oom_goes_on(&odd, &with(16 << 30));
        assert!(
            rounded.contains("Raise runtime.limits.memory_max in"),
            "{rounded}"
        );
    }

    #[test]
    fn an_unknown_victim_is_called_so() {
        let mut oom = oom(Cause::Above(GroupPath::new("/workloads.slice").unwrap()));
        oom.victims.clear();
        let ended = ended(Exit::Code(1), oom);
        assert_eq!(
            oom_at_end(&about(), &ended, ended.oom.as_ref().unwrap()),
            "rust-3: 1 process was OOM-killed: all sessions together reached the ceiling workloads.memory_max 16.0 GiB \
             (peak 16.0 GiB, victim unknown). Run fewer sessions at once, give each a lower memory_max, or raise \
             workloads.memory_max."
        );
    }

    #[test]
    fn a_whole_group_and_a_session_that_goes_on() {
        let mut whole = oom(Cause::Session);
        whole.whole_group = true;
        whole.kills = 64;
        let ended = ended(Exit::Code(137), whole);
        let text = oom_at_end(&about(), &ended, ended.oom.as_ref().unwrap());
        assert!(
            text.contains("The kernel killed the whole group, 64 processes."),
            "{text}"
        );
        let text = oom_goes_on(&about(), &oom(Cause::Session));
        assert!(text.starts_with(
            "rust-3: rustc pid 4121 held 9.8 GiB was OOM-killed: memory_max 16.0 GiB reached; the"
        ));
    }

    #[test]
    fn what_is_left_is_named() {
        let left: Vec<(i32, String)> = (1..=7).map(|n| (n, format!("p{n}"))).collect();
        assert!(left_over(&about(), &left, true).contains("7 processes live on: p1 (pid 1), p2 (pid 2)"));
        assert!(left_over(&about(), &left, true).contains("and 2 more"));
    }
}
