//! From samples of a session to facts: what counters say that no record has told of yet. Pure.
//!
//! Facts come from counters, never from wake-ups: the kernel puts several events into one notification (one per file and
//! 10 ms). So samples may be taken as often, or as seldom, as one likes, and nothing is counted twice or lost.

use super::{Count, Fact, Frozen};
use crate::kernel::sample::Sample;
use crate::limits::Max;
use std::time::Duration;

/// While something goes on, one record of its kind in this time tells of it.
pub const AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// A session that reaches memory.max is either given room or killed in the same breath: which of the two is only known
/// after this time.
pub const SETTLES_IN: Duration = Duration::from_secs(2);

/// Totals that records tell of already: all zero for a session that is watched from its beginning on, or of which nothing
/// was ever recorded. A daemon that starts again takes them from the last record of each kind (`total`), and says nothing
/// twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Of `max_hit`.
    pub max: u64,
    /// Of `throttled`.
    pub high: u64,
    /// Of `pids_hit`.
    pub pids: u64,
    /// Of `oom_kill`.
    pub kills: u64,
    /// What the last `frozen` said; `false` where there was none, for that is how a session begins.
    pub frozen: bool,
    /// Its `started` is among the records: so is all else that was recorded of it.
    pub is_whole: bool,
    /// A `stalled` said that memory.high was lifted: that it is not what was declared is cgmgr's own doing.
    pub lifted: bool,
}

impl Told {
    /// Of a session that began before the oldest record that is kept: what no record tells of may have been told, and is
    /// taken as it is counted now.
    pub fn or_counted(&mut self, sample: &Sample) {
        let all = sample.memory_events.unwrap_or_default();
        let own = sample.memory_events_local.unwrap_or_default();
        for (told, counted) in [
            (&mut self.max, own.max),
            (&mut self.high, own.high),
            (&mut self.pids, sample.forks_refused()),
            (&mut self.kills, all.oom_kill),
        ] {
            if *told == 0 {
                *told = counted.unwrap_or(0);
            }
        }
    }

    /// Takes over what a record of the session says. Records are given the oldest first.
    pub fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::MaxHit(count) => self.max = count.total,
            Fact::Throttled(count) => self.high = count.total,
            Fact::PidsHit(count) => self.pids = count.total,
            Fact::OomKill(oom) => self.kills = oom.total,
            Fact::Frozen(state) => self.frozen = state.frozen,
            Fact::Started(_) => self.is_whole = true,
            Fact::Stalled(stall) => self.lifted |= stall.was_lifted(),
            _ => {}
        }
    }
}

/// What a sample says that is new.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folded {
    /// To be recorded.
    pub facts: Vec<Fact>,
    /// OOM kills since the last sample. Whose limit it was, and who, takes more to know (`crate::session::verdict`).
    pub kills: u64,
    /// OOM kills since the session began.
    pub total_kills: u64,
}

/// What was told of one session, and what is to be told.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    id: Option<u64>,
    max: Meter,
    high: Meter,
    pids: Meter,
    kills: u64,
    frozen: bool,
}

/// A counter of the kernel's, and what of it is still to be told.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    /// Its last value.
    total: u64,
    /// Rises that are to be told.
    untold: u64,
    /// Rises of which it is too early to say what they were, and since when they are.
    fresh: u64,
    fresh_since: Duration,
    /// When it was last told.
    told: Option<Duration>,
    limit: Option<u64>,
    current: Option<u64>,
}

impl Meter {
    fn from(total: u64) -> Self {
        Self {
            total,
            ..Self::default()
        }
    }

    /// How far it rose to `value`; 0 where that is not known.
    fn rise(&mut self, value: Option<u64>) -> u64 {
        let value = value.unwrap_or(self.total);
        let rise = value.saturating_sub(self.total);
        self.total = self.total.max(value);
        rise
    }

    /// Keeps the limit and what is used of it, where a sample has them.
    fn see(&mut self, limit: Option<Max<u64>>, current: Option<u64>) {
        if let Some(limit) = limit {
            self.limit = limit.at();
        }
        self.current = current.or(self.current);
    }

    /// When it is to be told, if there is something.
    fn due(&self) -> Option<Duration> {
        let earliest = self.told.map_or(Duration::ZERO, |at| at + AT_MOST_EVERY);
        match (self.untold, self.fresh) {
            (0, 0) => None,
            (0, _) => Some(earliest.max(self.fresh_since + SETTLES_IN)),
            _ => Some(earliest),
        }
    }

    fn settle(&mut self, now: Duration) {
        if self.fresh > 0 && now >= self.fresh_since + SETTLES_IN {
            self.untold += std::mem::take(&mut self.fresh);
        }
    }

    /// What is to be told, if it is time.
    fn tell(&mut self, now: Duration) -> Option<Count> {
        let is_time = self.told.is_none_or(|at| now >= at + AT_MOST_EVERY);
        if self.untold == 0 || !is_time {
            return None;
        }
        self.told = Some(now);
        Some(self.count())
    }

    fn count(&mut self) -> Count {
        Count {
            // What is fresh is the next one's.
            total: self.total - self.fresh,
            rise: std::mem::take(&mut self.untold),
            limit: self.limit,
            current: self.current,
        }
    }
}

impl Pace {
    /// For a session of which `told` is recorded already.
    pub fn new(told: Told) -> Self {
        Self {
            id: None,
            max: Meter::from(told.max),
            high: Meter::from(told.high),
            pids: Meter::from(told.pids),
            kills: told.kills,
            frozen: told.frozen,
        }
    }

    /// When [`fold`] is next to be given a sample although nothing happens, because something waits to be told.
    pub fn due(&self) -> Option<Duration> {
        [self.max, self.high, self.pids]
            .iter()
            .filter_map(Meter::due)
            .min()
    }

    /// What waits to be told, at once: the session is over, and its last sample was folded.
    pub fn flush(&mut self) -> Vec<Fact> {
        self.max.untold += std::mem::take(&mut self.max.fresh);
        let mut rest = |meter: fn(&mut Self) -> &mut Meter, fact: fn(Count) -> Fact| {
            let meter = meter(self);
            (meter.untold > 0).then(|| fact(meter.count()))
        };
        [
            rest(|pace| &mut pace.max, Fact::MaxHit),
            rest(|pace| &mut pace.high, Fact::Throttled),
            rest(|pace| &mut pace.pids, Fact::PidsHit),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What `sample` says that was not told yet. `now` is the time since any fixed moment, and never goes back.
///
/// The first of its kind is told at once, and then one record a minute while it goes on; what came meanwhile is in the
/// next one's `rise`. `max_hit` waits for [`SETTLES_IN`] to see whether an OOM kill comes of it: what a kill came of is
/// told with the kill, and by no `max_hit`.
///
/// What the session's first sample has counted already is told once, beyond what `pace` was made with; but where there was
/// an OOM kill, nobody can say any more which of the hits of memory.max it came of, and none of these is told. A sample of
/// another group, by its id, is taken for the first one of a session of which nothing was told: [`Pace::flush`] comes before it.
pub fn fold(pace: &mut Pace, sample: &Sample, now: Duration) -> Folded {
    if pace.id.is_some_and(|id| id != sample.id) {
        *pace = Pace::default();
    }
    let found = pace.id.replace(sample.id).is_none();
    let mut folded = Folded::default();
    let all = sample.memory_events.unwrap_or_default();
    let own = sample.memory_events_local.unwrap_or_default();

    let total = all.oom_kill.unwrap_or(pace.kills);
    folded.kills = total.saturating_sub(pace.kills);
    pace.kills = pace.kills.max(total);
    folded.total_kills = pace.kills;

    pace.max.see(sample.memory_max, sample.memory_current);
    let rise = pace.max.rise(own.max);
    if folded.kills > 0 || (found && pace.kills > 0) {
        pace.max.fresh = 0;
    } else {
        // Before what came just now, which may still end in a kill.
        pace.max.settle(now);
        if rise > 0 && pace.max.fresh == 0 {
            pace.max.fresh_since = now;
        }
        pace.max.fresh += rise;
    }
    pace.high.see(sample.memory_high, sample.memory_current);
    pace.high.untold += pace.high.rise(own.high);
    pace.pids.see(sample.pids_max, sample.pids);
    pace.pids.untold += pace.pids.rise(sample.forks_refused());

    folded.facts.extend(pace.max.tell(now).map(Fact::MaxHit));
    folded.facts.extend(pace.high.tell(now).map(Fact::Throttled));
    folded.facts.extend(pace.pids.tell(now).map(Fact::PidsHit));
    if let Some(frozen) = sample.frozen.filter(|frozen| *frozen != pace.frozen) {
        pace.frozen = frozen;
        folded.facts.push(Fact::Frozen(Frozen { frozen }));
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sample::MemoryEvents;

    const NOTHING: [(&str, u64, u64); 0] = [];
    const S: fn(u64) -> Duration = Duration::from_secs;

    fn sample(max: u64, high: u64, kills: u64) -> Sample {
        let events = MemoryEvents {
            high: Some(high),
            max: Some(max),
            oom_kill: Some(kills),
            ..MemoryEvents::default()
        };
        Sample {
            id: 7,
            memory_current: Some(900),
            memory_high: Some(Max::At(1000)),
            memory_max: Some(Max::Max),
            memory_events: Some(events),
            memory_events_local: Some(events),
            ..Sample::default()
        }
    }

    fn told(facts: &[Fact]) -> Vec<(&'static str, u64, u64)> {
        let one = |fact: &Fact| match fact {
            Fact::MaxHit(c) | Fact::Throttled(c) | Fact::PidsHit(c) => (fact.name(), c.rise, c.total),
            other => (other.name(), 0, 0),
        };
        facts.iter().map(one).collect()
    }

    #[test]
    fn of_what_is_no_longer_on_record_nothing_is_told_again() {
        let sample = Sample {
            memory_events: Some(MemoryEvents {
                oom_kill: Some(3),
                ..MemoryEvents::default()
            }),
            memory_events_local: Some(MemoryEvents {
                max: Some(70),
                high: Some(8),
                ..MemoryEvents::default()
            }),
            ..Sample::default()
        };
        let mut told = Told {
            high: 5,
            ..Told::default()
        };
        told.or_counted(&sample);
        assert_eq!(
            told,
            Told {
                max: 70,
                high: 5,
                kills: 3,
                ..Told::default()
            },
            "the last record of a kind knows what was told of it"
        );
        let folded = fold(&mut Pace::new(told), &sample, Duration::ZERO);
        assert_eq!(
            (folded.facts.len(), folded.kills, folded.total_kills),
            (1, 0, 3),
            "{folded:?}"
        );
    }

    #[test]
    fn the_first_at_once_then_one_a_minute() {
        let mut pace = Pace::default();
        let mut at = |high, now| told(&fold(&mut pace, &sample(0, high, 0), S(now)).facts);
        assert_eq!(at(0, 0), NOTHING);
        assert_eq!(at(3, 10), [("throttled", 3, 3)]);
        assert_eq!(at(5, 11), NOTHING);
        assert_eq!(at(9, 69), NOTHING);
        assert_eq!(at(9, 70), [("throttled", 6, 9)], "also where nothing came last");
        assert_eq!(at(9, 131), NOTHING);
        assert_eq!(at(10, 132), [("throttled", 1, 10)]);
        assert_eq!(at(12, 140), NOTHING);
        assert_eq!(pace.due(), Some(S(192)));
        assert_eq!(told(&pace.flush()), [("throttled", 2, 12)]);
        assert_eq!((pace.due(), pace.flush()), (None, vec![]));
    }

    #[test]
    fn a_count_has_the_limit_and_what_is_used_of_it() {
        let facts = fold(&mut Pace::default(), &sample(0, 1, 0), S(0)).facts;
        let count = Count {
            total: 1,
            rise: 1,
            limit: Some(1000),
            current: Some(900),
        };
        assert_eq!(facts, [Fact::Throttled(count)]);
    }

    #[test]
    fn a_limit_that_was_hit_waits_for_the_kill() {
        let mut pace = Pace::default();
        let mut at = |max, kills, now| {
            let folded = fold(&mut pace, &sample(max, 0, kills), S(now));
            (told(&folded.facts), folded.kills, pace.due())
        };
        // Reclaim made room.
        assert_eq!(at(4, 0, 10), (vec![], 0, Some(S(12))));
        assert_eq!(at(4, 0, 12), (vec![("max_hit", 4, 4)], 0, None));
        // It made room once more, and then not any longer.
        assert_eq!(at(6, 0, 30), (vec![], 0, Some(S(72))));
        assert_eq!(at(9, 0, 33), (vec![], 0, Some(S(72))));
        assert_eq!(at(11, 2, 34), (vec![], 2, Some(S(72))));
        assert_eq!(at(11, 2, 72), (vec![("max_hit", 2, 11)], 0, None));
    }

    #[test]
    fn what_a_session_had_counted_before_it_was_found_is_told_once() {
        let found = fold(&mut Pace::default(), &sample(0, 40, 3), S(5));
        assert_eq!(
            (told(&found.facts), found.kills),
            (vec![("throttled", 40, 40)], 3)
        );

        let mut recorded = Told::default();
        for fact in &found.facts {
            recorded.take(fact);
        }
        recorded.kills = found.total_kills;
        let again = fold(&mut Pace::new(recorded), &sample(0, 41, 3), S(0));
        assert_eq!((told(&again.facts), again.kills), (vec![("throttled", 1, 41)], 0));
        assert_eq!(again.total_kills, 3);
        let mut late = Pace::default();
        fold(&mut late, &sample(9, 0, 1), S(0));
        assert_eq!(told(&late.flush()), NOTHING, "which of the nine were the kill's?");
    }

    #[test]
    fn another_group_of_the_same_name_is_another() {
        let mut pace = Pace::default();
        fold(&mut pace, &sample(0, 40, 1), S(5));
        let other = Sample {
            id: 8,
            ..sample(0, 41, 1)
        };
        let folded = fold(&mut pace, &other, S(6));
        assert_eq!(
            (told(&folded.facts), folded.kills),
            (vec![("throttled", 41, 41)], 1)
        );
    }

    #[test]
    fn frozen_and_thawed_are_told_once_each() {
        let mut pace = Pace::default();
        let mut at = |frozen| {
            let sample = Sample {
                frozen,
                ..sample(0, 0, 0)
            };
            told(&fold(&mut pace, &sample, S(0)).facts).len()
        };
        assert_eq!([at(Some(false)), at(Some(true)), at(None)], [0, 1, 0]);
        assert_eq!([at(Some(true)), at(Some(false))], [0, 1]);
    }

    #[test]
    fn what_is_not_known_is_no_fall_to_zero() {
        let mut pace = Pace::default();
        fold(&mut pace, &sample(0, 5, 1), S(0));
        let nothing = Sample {
            id: 7,
            ..Sample::default()
        };
        assert_eq!(
            fold(&mut pace, &nothing, S(100)),
            Folded {
                total_kills: 1,
                ..Folded::default()
            }
        );
        let folded = fold(&mut pace, &sample(0, 6, 1), S(200));
        assert_eq!(
            (told(&folded.facts), folded.kills),
            (vec![("throttled", 1, 6)], 0)
        );
    }
}
