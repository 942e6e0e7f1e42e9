//! The steps that change the limits of one session while it runs (`cgmgr set`).

use super::apply::order;
use super::equal::{number, same};
use super::state::GroupState;
use super::step::{Notice, Plan, Step};
use crate::limits::{Knob, KnobId, Setting};
use crate::path::GroupPath;
use crate::text::{bytes, count};

/// What of a session's memory matters to a change of its limits, in bytes. `None` is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryNow {
    /// `memory.current`.
    pub current: Option<u64>,
    /// What the kernel can take back without a kill: file cache and reclaimable slab.
    pub reclaimable: Option<u64>,
    /// Whether something can be swapped out: the machine has swap.
    pub swap: bool,
    /// The smallest memory.max of the groups above, and whose it is.
    pub ceiling: Option<(u64, GroupPath)>,
}

/// A live session.
pub struct Session<'a> {
    /// Its group.
    pub group: &'a GroupPath,
    /// What its control files hold.
    pub state: &'a GroupState,
    /// Its memory.
    pub memory: &'a MemoryNow,
}

/// The plan for the settings in `asked`, each with a value. Everything that speaks against it is in its refusals; a
/// knob that holds what is asked for already needs no step.
///
/// `force`: lower memory_max below what is in use, which may kill.
pub fn plan(asked: &[Setting], session: &Session<'_>, page_size: u64, force: bool) -> Plan {
    let mut plan = Plan::default();
    for setting in asked {
        let (knob, Some(text)) = (setting.knob, setting.text()) else {
            continue;
        };
        let Some(file) = knob.file else {
            plan.refusals.push(not_live(knob));
            continue;
        };
        match session.state.files.get(file) {
            None => plan.refusals.push(Notice::new(
                format!("{} cannot be changed: {} has no {file}", knob.key, session.group),
                "the controller is not enabled for this session, or the kernel is too old; `cgmgr doctor` says which",
            )),
            Some(found) if same(knob, &text, found, page_size) => {}
            Some(found) => plan.steps.push(Step::Write {
                group: session.group.clone(),
                knob: knob.id,
                value: text,
                before: Some(found.clone()),
            }),
        }
    }
    order(&mut plan.steps);
    high_and_max(&mut plan, asked, session);
    below_use(&mut plan, session, force);
    for setting in asked {
        worth_knowing(&mut plan, setting, session);
    }
    plan
}

/// Why a knob cannot change while a session runs.
pub fn not_live(knob: &Knob) -> Notice {
    match knob.id {
        KnobId::Nofile => Notice::new(
            "nofile cannot be changed while the session runs: each process got its limit when it began, and passes it on",
            "start the session again with --nofile; one process is changed by `prlimit --nofile --pid PID`",
        ),
        KnobId::Nice => Notice::new(
            "nice cannot be changed while the session runs: each process got its value when it began, and passes it on",
            "set cpu_weight, which counts between sessions; one process is changed by `renice`",
        ),
        KnobId::OomScoreAdj => Notice::new(
            "oom_score_adj cannot be changed while the session runs: each process got its value when it began, and passes \
             it on",
            "start the session again with --oom-score-adj; one process is changed by `choom --pid PID`",
        ),
        KnobId::OomPreserveState | KnobId::OomNotify | KnobId::Stall => Notice::new(
            format!(
                "{} cannot be changed while the session runs: it is cgmgr's own, and was noted when the session began",
                knob.key
            ),
            format!("start the session again with --{}", knob.key.replace('_', "-")),
        ),
        _ => Notice::new(
            format!("{} is not in this version: nothing enforces it yet", knob.key),
            "leave it out",
        ),
    }
}

fn held(session: &Session<'_>, id: KnobId) -> Option<u64> {
    session.state.files.get(id.knob().file?).map(|text| number(text))
}

/// Reclaim that would begin above the point of the kill never begins (the kernel takes such a pair).
fn high_and_max(plan: &mut Plan, asked: &[Setting], session: &Session<'_>) {
    let asked = |id: KnobId| {
        let setting = asked.iter().find(|s| s.knob.id == id)?;
        setting.text().map(|text| number(&text))
    };
    let in_force = |id| held(session, id).unwrap_or(u64::MAX);
    let high = asked(KnobId::MemoryHigh);
    let max = asked(KnobId::MemoryMax);
    let (high_then, max_then) = (
        high.unwrap_or_else(|| in_force(KnobId::MemoryHigh)),
        max.unwrap_or_else(|| in_force(KnobId::MemoryMax)),
    );
    if high_then == u64::MAX || high_then <= max_then {
        return;
    }
    match high {
        Some(high) => plan.refusals.push(Notice::new(
            format!(
                "memory_high {} is above memory_max {}{}: it would have no effect",
                bytes(high),
                bytes(max_then),
                if max.is_some() { "" } else { ", which is in force" }
            ),
            "lower memory_high, or set memory_max too",
        )),
        // As where a flag goes before a role: who lowers the one need not think of the other.
        None if max.is_some() => plan.warnings.push(Notice::new(
            format!(
                "memory_high {} is above memory_max {} now: it has no effect",
                bytes(high_then),
                bytes(max_then)
            ),
            "set memory_high too, if memory is to be taken back before",
        )),
        None => {}
    }
}

/// The memory_max that the plan would lower below what is in use: the value, and the use.
pub fn lowered_below_use(plan: &Plan, current: Option<u64>) -> Option<(u64, u64)> {
    let max = plan.steps.iter().find_map(|step| match step {
        Step::Write {
            knob: KnobId::MemoryMax,
            value,
            ..
        } => Some(number(value)),
        _ => None,
    })?;
    let current = current?;
    (max < current).then_some((max, current))
}

fn below_use(plan: &mut Plan, session: &Session<'_>, force: bool) {
    let Some((max, current)) = lowered_below_use(plan, session.memory.current) else {
        return;
    };
    let what = format!(
        "memory_max {} is below what the session uses now ({}): {}",
        bytes(max),
        bytes(current),
        prospect(session, max, current)
    );
    if force {
        plan.warnings.push(Notice::plain(what));
    } else {
        plan.refusals.push(Notice::new(
            what,
            "raise it, let the session give something back, or say --force",
        ));
    }
}

/// What the kernel would do.
fn prospect(session: &Session<'_>, max: u64, current: u64) -> String {
    let excess = current - max;
    let swap = session.memory.swap && held(session, KnobId::MemorySwapMax) != Some(0);
    let group = session.state.files.get("memory.oom.group").map(|t| t.trim()) == Some("1");
    let kill = if group {
        "kill the whole session"
    } else {
        "kill processes of it"
    };
    match session.memory.reclaimable {
        None => format!("the kernel would take back what it can, and {kill} for the rest"),
        Some(cache) if cache >= excess => {
            format!(
                "the kernel would take {} of file cache back for it",
                bytes(excess)
            )
        }
        Some(cache) if swap => format!(
            "{} of it is file cache; the kernel would swap out the rest as far as there is room, and else {kill}",
            bytes(cache)
        ),
        Some(cache) => format!(
            "only {} of it is file cache that can be taken back, so the kernel would {kill}",
            bytes(cache)
        ),
    }
}

fn worth_knowing(plan: &mut Plan, setting: &Setting, session: &Session<'_>) {
    let Some(value) = &setting.value else { return };
    match setting.knob.id {
        KnobId::MemoryMax => {
            if let (Some(max), Some((ceiling, from))) = (value.bytes(), &session.memory.ceiling)
                && max.0 > *ceiling
            {
                plan.warnings.push(Notice::new(
                    format!(
                        "memory_max {} is above that of {from}: effectively it is {}",
                        bytes(max.0),
                        bytes(*ceiling)
                    ),
                    "`cgmgr apply` of a role with a higher [workloads] memory_max raises that",
                ));
            }
        }
        // memory.high never kills: without swap a session above it can crawl for hours.
        KnobId::MemoryHigh => {
            let swap = session.memory.swap && held(session, KnobId::MemorySwapMax) != Some(0);
            if value.bytes().is_some() && !swap {
                plan.warnings.push(Notice::new(
                    "memory_high without swap: a session above it can slow to a crawl instead of being killed",
                    "`cgmgr status` shows what it waits for; memory_high=max lifts it",
                ));
            }
        }
        KnobId::Pids => {
            let current = session.state.files.get("pids.current").map(|text| number(text));
            if let (Some(most), Some(current)) = (value.count(), current)
                && most < current
            {
                plan.warnings.push(Notice::plain(format!(
                    "pids {most} is below the {} that the session has: none is killed, and fork fails until fewer are left",
                    count(current, "task", "tasks")
                )));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Machine;
    use crate::limits::{Origin, Settings};

    const MIB: u64 = 1 << 20;

    fn asked(all: &[(KnobId, &str)]) -> Vec<Setting> {
        let machine = Machine::plain(1024 * MIB);
        let mut settings = Settings::none();
        for (id, text) in all {
            let value = id.knob().parse(text, &machine).unwrap();
            settings.set(*id, value, Origin::Flag("set".into()));
        }
        all.iter().map(|(id, _)| settings.get(*id).clone()).collect()
    }

    fn planned(
        all: &[(KnobId, &str)],
        files: &[(&'static str, &str)],
        memory: &MemoryNow,
        force: bool,
    ) -> Plan {
        let state = GroupState {
            files: files.iter().map(|(f, t)| (*f, (*t).to_owned())).collect(),
            ..GroupState::default()
        };
        let session = Session {
            group: &GroupPath::new("/w/cgmgr-a").unwrap(),
            state: &state,
            memory,
        };
        plan(&asked(all), &session, 4096, force)
    }

    fn knobs(plan: &Plan) -> Vec<KnobId> {
        plan.steps
            .iter()
            .filter_map(|s| match s {
                Step::Write { knob, .. } => Some(*knob),
                _ => None,
            })
            .collect()
    }

    fn refused(plan: &Plan) -> String {
        plan.refusals
            .iter()
            .map(|r| r.message.clone())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn using(current: u64, reclaimable: u64) -> MemoryNow {
        MemoryNow {
            current: Some(current),
            reclaimable: Some(reclaimable),
            ..MemoryNow::default()
        }
    }

    /// K-28.
    #[test]
    fn the_order_of_high_and_max_depends_on_the_way() {
        use KnobId::{MemoryHigh, MemoryMax};
        let files = [("memory.high", "104857600"), ("memory.max", "209715200")];
        let up = planned(
            &[(MemoryHigh, "300M"), (MemoryMax, "400M")],
            &files,
            &MemoryNow::default(),
            false,
        );
        assert_eq!(knobs(&up), [MemoryMax, MemoryHigh]);
        let down = planned(
            &[(MemoryMax, "40M"), (MemoryHigh, "30M")],
            &files,
            &MemoryNow::default(),
            false,
        );
        assert_eq!(knobs(&down), [MemoryHigh, MemoryMax]);
        let same = planned(&[(MemoryMax, "200M")], &files, &MemoryNow::default(), false);
        assert!(same.is_empty() && same.refusals.is_empty());
    }

    #[test]
    fn a_max_below_use_is_refused_with_what_would_happen() {
        let ask = [(KnobId::MemoryMax, "64M")];
        let files = [("memory.max", "max"), ("memory.oom.group", "1")];
        let plan = planned(&ask, &files, &using(100 * MIB, 10 * MIB), false);
        let said = refused(&plan);
        for word in ["64.0 MiB", "100.0 MiB", "only 10.0 MiB", "kill the whole session"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let forced = planned(&ask, &files, &using(100 * MIB, 10 * MIB), true);
        assert!(forced.refusals.is_empty() && forced.warnings.len() == 1);
        let cache = planned(&ask, &files, &using(100 * MIB, 40 * MIB), false);
        assert!(
            refused(&cache).contains("take 36.0 MiB of file cache back"),
            "{}",
            refused(&cache)
        );
        let enough = planned(&ask, &files, &using(64 * MIB, 0), false);
        assert!(enough.refusals.is_empty() && enough.warnings.is_empty());
    }

    /// K-27: the kernel takes a high above max.
    #[test]
    fn high_is_compared_with_what_is_in_force() {
        let files = [("memory.high", "52428800"), ("memory.max", "104857600")];
        let none = MemoryNow::default();
        let high = planned(&[(KnobId::MemoryHigh, "200M")], &files, &none, false);
        assert!(
            refused(&high).contains("100.0 MiB, which is in force"),
            "{}",
            refused(&high)
        );
        let max = planned(&[(KnobId::MemoryMax, "20M")], &files, &none, false);
        assert!(max.refusals.is_empty() && max.warnings[0].message.contains("no effect"));
        let both = planned(
            &[(KnobId::MemoryHigh, "3M"), (KnobId::MemoryMax, "2M")],
            &files,
            &none,
            false,
        );
        assert!(
            refused(&both).contains("memory_max 2.0 MiB:"),
            "{}",
            refused(&both)
        );
        let lifted = planned(&[(KnobId::MemoryHigh, "max")], &files, &none, false);
        assert!(lifted.refusals.is_empty() && lifted.steps.len() == 1);
    }

    #[test]
    fn all_that_speaks_against_it_is_told_at_once() {
        let ask = [
            (KnobId::Nofile, "5"),
            (KnobId::Nice, "5"),
            (KnobId::OomScoreAdj, "5"),
            (KnobId::Cpus, "1"),
            (KnobId::OomNotify, "true"),
        ];
        let plan = planned(&ask, &[], &MemoryNow::default(), true);
        assert_eq!(plan.refusals.len(), 5, "{:#?}", plan.refusals);
        assert!(plan.refusals.iter().all(|r| r.help.is_some()) && plan.steps.is_empty());
        assert!(refused(&plan).contains("has no cpu.max"));
    }

    #[test]
    fn what_a_user_should_know_is_told() {
        let memory = MemoryNow {
            ceiling: Some((50 * MIB, GroupPath::new("/w").unwrap())),
            ..MemoryNow::default()
        };
        let files = [
            ("memory.max", "max"),
            ("memory.high", "max"),
            ("pids.max", "max"),
            ("pids.current", "12"),
        ];
        let ask = [
            (KnobId::MemoryMax, "64M"),
            (KnobId::MemoryHigh, "10M"),
            (KnobId::Pids, "3"),
        ];
        let plan = planned(&ask, &files, &memory, false);
        let said: Vec<&str> = plan.warnings.iter().map(|w| w.message.as_str()).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(
            said[0].contains("above that of /w: effectively it is 50.0 MiB"),
            "{said:?}"
        );
        assert!(said[2].contains("below the 12 tasks"), "{said:?}");
    }
}
