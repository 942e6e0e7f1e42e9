//! Folding samples: whatever a session's counters do and however often they are looked at, each rise is told once.

use cgmgr::kernel::sample::{MemoryEvents, Sample};
use cgmgr::limits::Max;
use cgmgr::record::fold::{AT_MOST_EVERY, Folded, Pace, SETTLES_IN, Told, fold};
use cgmgr::record::{Count, Fact, OomKill};
use proptest::prelude::*;
use std::time::Duration;

use super::usual;

/// How far each counter rises until the next look, in how many milliseconds, and what the look sees.
#[derive(Debug, Clone)]
struct Step {
    max: u64,
    high: u64,
    pids: u64,
    kills: u64,
    after_ms: u64,
    frozen: Option<bool>,
    /// A look that reads nothing of this kind: [memory, pids].
    blind: [bool; 2],
}

fn rise() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0u64), 2 => 1u64..5, 1 => any::<u32>().prop_map(u64::from)]
}

fn step() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![0u64..50, 900u64..3000, 30_000u64..200_000];
    let kills = prop_oneof![5 => Just(0u64), 1 => 1u64..4];
    let blind = prop_oneof![3 => Just([false, false]), 1 => any::<[bool; 2]>()];
    (rise(), rise(), rise(), kills, pause, any::<Option<bool>>(), blind).prop_map(
        |(max, high, pids, kills, after_ms, frozen, blind)| Step {
            max,
            high,
            pids,
            kills,
            after_ms,
            frozen,
            blind,
        },
    )
}

/// Counters as the kernel has them.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    max: u64,
    high: u64,
    pids: u64,
    kills: u64,
}

impl Counters {
    fn sample(&self, step: &Step) -> Sample {
        let events = MemoryEvents {
            high: Some(self.high),
            max: Some(self.max),
            oom_kill: Some(self.kills),
            ..MemoryEvents::default()
        };
        let [no_memory, no_pids] = step.blind;
        Sample {
            id: 1,
            memory_events: (!no_memory).then_some(events),
            memory_events_local: (!no_memory).then_some(events),
            memory_max: Some(Max::At(5)),
            pids_events_max: (!no_pids).then_some(self.pids),
            frozen: step.frozen,
            ..Sample::default()
        }
    }
}

fn rises(facts: &[Fact], of: fn(&Fact) -> Option<Count>) -> u64 {
    facts.iter().filter_map(of).map(|count| count.rise).sum()
}

fn max(fact: &Fact) -> Option<Count> {
    match fact {
        Fact::MaxHit(count) => Some(*count),
        _ => None,
    }
}

fn high(fact: &Fact) -> Option<Count> {
    match fact {
        Fact::Throttled(count) => Some(*count),
        _ => None,
    }
}

fn pids(fact: &Fact) -> Option<Count> {
    match fact {
        Fact::PidsHit(count) => Some(*count),
        _ => None,
    }
}

/// Folds all of `steps`; each result with its time.
fn fold_all(counters: &mut Counters, pace: &mut Pace, steps: &[Step]) -> Vec<(Duration, Folded)> {
    let mut now = Duration::ZERO;
    let one = |step: &Step| {
        counters.max += step.max;
        counters.high += step.high;
        counters.pids += step.pids;
        counters.kills += step.kills;
        now += Duration::from_millis(step.after_ms);
        (now, fold(pace, &counters.sample(step), now))
    };
    steps.iter().map(one).collect()
}

proptest! {
    #![proptest_config(usual())]

    /// What is told, and what the flush at the end tells, is what was counted beyond what was recorded before; also where
    /// the daemon was restarted in between, and only the records tell the new one what the old one knew.
    #[test]
    fn every_rise_is_told_once(
        steps in proptest::collection::vec(step(), 1..40),
        restart_at in 0usize..40,
    ) {
        let mut counters = Counters::default();
        let (before, after) = steps.split_at(restart_at.min(steps.len()));
        // A last look sees everything.
        let last = Step { max: 0, high: 0, pids: 0, kills: 0, after_ms: 0, frozen: None, blind: [false; 2] };

        let mut facts = Vec::new();
        let mut kills = 0;
        let mut told = Told::default();
        for (lives, steps) in [before.to_vec(), [after, &[last]].concat()].iter().enumerate() {
            let mut pace = Pace::new(told);
            for (_, folded) in fold_all(&mut counters, &mut pace, steps) {
                if folded.kills > 0 {
                    let oom = OomKill { kills: folded.kills, total: folded.total_kills, ..OomKill::default() };
                    told.take(&Fact::OomKill(Box::new(oom)));
                }
                folded.facts.iter().for_each(|fact| told.take(fact));
                kills += folded.kills;
                facts.extend(folded.facts);
            }
            // The first daemon is killed: nothing is flushed.
            if lives == 1 {
                facts.extend(pace.flush());
                prop_assert_eq!(pace.due(), None);
                prop_assert_eq!(pace.flush(), vec![]);
            }
        }
        prop_assert_eq!(rises(&facts, high), counters.high);
        prop_assert_eq!(rises(&facts, pids), counters.pids);
        prop_assert_eq!(kills, counters.kills);
        // What an OOM kill came of is told with the kill.
        prop_assert!(rises(&facts, max) <= counters.max);
        if counters.kills == 0 {
            prop_assert_eq!(rises(&facts, max), counters.max);
        }
        for fact in &facts {
            for count in [max(fact), high(fact), pids(fact)].into_iter().flatten() {
                prop_assert!(count.rise > 0 && count.rise <= count.total, "{count:?}");
            }
        }
    }

    /// No more than one record of a kind in a minute, and none later than it is due.
    #[test]
    fn records_keep_their_pace(steps in proptest::collection::vec(step(), 1..60)) {
        let mut counters = Counters::default();
        let mut pace = Pace::default();
        let folded = fold_all(&mut counters, &mut pace, &steps);
        for of in [max, high, pids] {
            let at: Vec<Duration> = folded
                .iter()
                .filter(|(_, folded)| folded.facts.iter().any(|fact| of(fact).is_some()))
                .map(|(now, _)| *now)
                .collect();
            prop_assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= AT_MOST_EVERY), "{at:?}");
        }
        let now = folded.last().expect("a step").0;
        if let Some(due) = pace.due() {
            prop_assert!(due > now && due <= now + AT_MOST_EVERY.max(SETTLES_IN), "{due:?} at {now:?}");
            let quiet = Step { max: 0, high: 0, pids: 0, kills: 0, after_ms: 0, frozen: None, blind: [false; 2] };
            let waited = fold(&mut pace, &counters.sample(&quiet), due);
            let told = waited.facts.iter().any(|fact| !matches!(fact, Fact::Frozen(_)));
            // A kill that only this look saw takes the hits of memory.max with it.
            prop_assert!(told || waited.kills > 0, "{waited:?}");
        }
    }
}
