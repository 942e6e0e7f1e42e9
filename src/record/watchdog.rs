//! Tells a session that is over memory.high and makes no progress from one that is merely slowed down. Pure.
//!
//! memory.high never kills: without swap, a session that needs more than it may have is slowed down until it stands still,
//! and stays so for good. Its counters then say three things at once, for as long as it lasts: it holds what memory.high
//! allows or more, `high` of memory.events rises, and there is much time in which not one of its tasks could go on
//! (memory.pressure, `full`).
//!
//! What has its page cache taken back has all three too, and gets on. Measured on Linux 6.12 with 20 MiB allowed: one
//! program that reads a file over and over holds 19.8 to 20.3 MiB, with `full` at 17 % at most, two hold 20.5 at most, with up
//! to 33 %. One that stands still holds 23 to 26 MiB, for nothing can be taken back, and `full` is at 32 to 99 %. So a little
//! `full` is enough where more is held than allowed, and much of it is wanted where what is allowed is kept to.

use super::{Stall, StallAction};
use crate::kernel::sample::Sample;
use crate::limits::Max;
use std::collections::VecDeque;
use std::time::Duration;

/// How often a session is to be looked at while its `high` rises.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// For how long all must hold. With [`LOOK_EVERY`] a stall is told 6 to 8 seconds after its begin.
const WINDOW: Duration = Duration::from_secs(6);

/// A task that stalls sleeps for up to two seconds before it counts the next time (`MEMCG_MAX_HIGH_DELAY_JIFFIES` in
/// mm/memcontrol.c), so that `high` need not rise in every two.
const RISES_WITHIN: Duration = Duration::from_secs(5);

/// In this share of the window no task could go on, where nothing was found that could be taken back.
const FULL_SHARE: f64 = 0.2;

/// The same where memory.high is kept to: it is taken back as fast as it is needed again, at a crawl.
const FULL_SHARE_AT_LIMIT: f64 = 0.6;

/// A stall that is over for so long has ended, and the next one is told as another.
const OVER_AFTER: Duration = Duration::from_secs(60);

/// What is held may be short of the limit by as much: the larger of the largest page and 1 %.
fn short_of(limit: u64) -> u64 {
    limit.saturating_sub((64 << 10).max(limit / 100))
}

/// From here on taking memory back has failed: a twentieth above the limit.
fn beyond(limit: u64) -> u64 {
    limit.saturating_add(limit / 20)
}

/// One look at a session over its memory.high.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    high: u64,
    full_usec: u64,
}

/// Watches one session.
#[derive(Debug, Clone, Default)]
pub struct Watchdog {
    id: u64,
    /// The looks of the last [`WINDOW`], the oldest first, at all of which it was over memory.high. Empty: it was not.
    looks: VecDeque<Look>,
    /// When `high` last rose.
    rose: Duration,
    /// When it last stalled.
    stalled: Option<Duration>,
}

impl Watchdog {
    /// Whether it is to be looked at again in [`LOOK_EVERY`], whatever happens until then.
    pub fn is_awake(&self) -> bool {
        !self.looks.is_empty()
    }

    /// Looks at the session: at the first rise of `high`, and then every [`LOOK_EVERY`] as long as it is awake. Looks in
    /// between do no harm. `now` is the time since any fixed moment, and never goes back.
    ///
    /// Returns a stall once, until it was over for a minute. Where the kernel keeps no pressure (`psi=0`) there is none:
    /// that a session is over its limit does not say that it stands still.
    pub fn look(&mut self, sample: &Sample, now: Duration) -> Option<Stall> {
        if self.id != sample.id {
            *self = Self {
                id: sample.id,
                ..Self::default()
            };
        }
        let own = sample.memory_events_local.unwrap_or_default();
        let (Some(Max::At(limit)), Some(current), Some(high), Some(full)) = (
            sample.memory_high,
            sample.memory_current,
            own.high,
            sample.memory_full,
        ) else {
            self.looks.clear();
            return None;
        };
        if current < short_of(limit) {
            self.looks.clear();
            return None;
        }
        let look = Look {
            at: now,
            high,
            full_usec: full.total_usec,
        };
        let Some(last) = self.looks.back() else {
            self.rose = now;
            self.looks.push_back(look);
            return None;
        };
        if high > last.high {
            self.rose = now;
        }
        if now.saturating_sub(self.rose) >= RISES_WITHIN {
            self.looks.clear();
            return None;
        }
        // Those in between are left out, so that no more are kept than are needed.
        if now.saturating_sub(last.at) >= LOOK_EVERY / 2 {
            self.looks.push_back(look);
        }
        // The shortest window that is long enough.
        while self.looks.get(1).is_some_and(|next| now >= next.at + WINDOW) {
            self.looks.pop_front();
        }
        let first = *self.looks.front()?;
        let window = now.saturating_sub(first.at);
        let stood = Duration::from_micros(full.total_usec.saturating_sub(first.full_usec));
        let share = match current >= beyond(limit) {
            true => FULL_SHARE,
            false => FULL_SHARE_AT_LIMIT,
        };
        if window < WINDOW || stood < window.mul_f64(share) {
            return None;
        }
        let before = self.stalled.replace(now);
        if before.is_some_and(|before| now.saturating_sub(before) < OVER_AFTER) {
            return None;
        }
        Some(Stall {
            limit,
            current,
            for_usec: window.as_micros() as u64,
            // Pressure is summed up over the CPUs, each at a moment of its own.
            full_percent: (stood.as_secs_f64() / window.as_secs_f64() * 100.0).min(100.0),
            action: StallAction::Record,
            error: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::counters::Pressure;
    use crate::kernel::sample::MemoryEvents;

    const MIB: u64 = 1 << 20;
    const NEVER: [u64; 0] = [];
    const S: fn(u64) -> Duration = Duration::from_secs;

    fn sample(current: u64, high: u64, full_ms: u64) -> Sample {
        Sample {
            id: 1,
            memory_current: Some(current),
            memory_high: Some(Max::At(20 * MIB)),
            memory_events_local: Some(MemoryEvents {
                high: Some(high),
                ..MemoryEvents::default()
            }),
            memory_full: Some(Pressure {
                total_usec: full_ms * 1000,
                ..Pressure::default()
            }),
            ..Sample::default()
        }
    }

    /// The times, in seconds, at which a stall is told to who looks every two seconds.
    fn told(watchdog: &mut Watchdog, from: u64, to: u64, at: impl Fn(u64) -> Sample) -> Vec<u64> {
        let is_told = |now: &u64| watchdog.look(&at(*now), S(*now)).is_some();
        (from..=to).step_by(2).filter(is_told).collect()
    }

    #[test]
    fn a_session_that_stands_still_is_told_within_ten_seconds_and_once() {
        let mut watchdog = Watchdog::default();
        // 23 MiB of 20, as it was measured: `full` is 36 % of the time.
        let stuck = |now: u64| sample(23 * MIB, 8 * now, 360 * now);
        assert_eq!(told(&mut watchdog, 0, 100, stuck), [6]);
        assert!(watchdog.is_awake());
        let mut stall = Watchdog::default();
        for now in [0, 2, 4] {
            assert_eq!(stall.look(&stuck(now), S(now)), None);
        }
        let stall = stall.look(&stuck(6), S(6)).unwrap();
        assert_eq!(
            (stall.limit, stall.current, stall.for_usec),
            (20 * MIB, 23 * MIB, 6_000_000)
        );
        assert!((stall.full_percent - 36.0).abs() < 0.01, "{}", stall.full_percent);
    }

    #[test]
    fn one_task_that_sleeps_two_seconds_at_a_time_stalls_too() {
        // `high` rises at 0, 3, 6, 9 …: between 4 and 6 it does, between 6 and 8 it does not.
        let sleepy = |now: u64| sample(20 * MIB - 4096, now / 3, 950 * now);
        assert_eq!(told(&mut Watchdog::default(), 0, 60, sleepy), [6]);
    }

    #[test]
    fn it_is_told_again_when_it_was_over_for_a_minute() {
        let mut watchdog = Watchdog::default();
        let stuck = |now: u64| sample(23 * MIB, now, 400 * now);
        let fine = |_| sample(10 * MIB, 20, 8000);
        assert_eq!(told(&mut watchdog, 0, 20, stuck), [6]);
        assert_eq!(told(&mut watchdog, 22, 40, fine), NEVER);
        assert!(!watchdog.is_awake());
        assert_eq!(
            told(&mut watchdog, 42, 60, stuck),
            NEVER,
            "it was over for half a minute"
        );
        assert_eq!(told(&mut watchdog, 62, 110, fine), NEVER);
        assert_eq!(told(&mut watchdog, 130, 140, stuck), [136]);
    }

    #[test]
    fn a_build_whose_page_cache_is_reclaimed_gets_on() {
        // At its limit all the time, and `high` rises a thousand times a second; but some task goes on nearly always.
        let build = |now: u64| sample(20 * MIB, 1000 * now, 120 * now);
        assert_eq!(told(&mut Watchdog::default(), 0, 600, build), NEVER);
    }

    #[test]
    fn two_that_read_files_in_turn_get_on() {
        // As it was measured: current, `high` since the last look, percent of `full` since then.
        let looks = [
            (21_192_704, 41, 0),
            (20_635_648, 335, 14),
            (21_483_520, 540, 33),
            (21_262_336, 653, 26),
            (21_262_336, 537, 33),
            (21_200_896, 450, 9),
            (21_463_040, 100, 1),
        ];
        let (mut high, mut full) = (0, 0);
        let mut watchdog = Watchdog::default();
        for (at, (current, rise, percent)) in (0..).step_by(2).zip(looks) {
            high += rise;
            full += 20 * percent;
            assert_eq!(watchdog.look(&sample(current, high, full), S(at)), None);
        }
    }

    #[test]
    fn a_stall_after_a_long_while_of_progress_is_told_as_soon() {
        let mut watchdog = Watchdog::default();
        let turns = |now: u64| sample(21 * MIB, 10 * now, 50 * now + 400 * now.saturating_sub(600));
        let at = told(&mut watchdog, 0, 700, turns);
        assert!(matches!(at[..], [at] if at > 600 && at <= 610), "{at:?}");
    }

    #[test]
    fn a_short_peak_is_none() {
        let peak = |now: u64| match now {
            0..=4 => sample(23 * MIB, 10 * now, 500 * now),
            _ => sample(15 * MIB, 40, 2000),
        };
        let mut watchdog = Watchdog::default();
        assert_eq!(told(&mut watchdog, 0, 60, peak), NEVER);
        assert!(!watchdog.is_awake());
    }

    #[test]
    fn one_that_is_over_and_asks_for_nothing_more_is_none() {
        let mut watchdog = Watchdog::default();
        // What was full before does not count either.
        let idle = |_| sample(23 * MIB, 900, 90_000);
        assert_eq!(told(&mut watchdog, 0, 60, idle), NEVER);
        assert!(watchdog.look(&idle(0), S(61)).is_none());
    }

    #[test]
    fn looks_at_every_wake_up_do_no_harm() {
        let mut watchdog = Watchdog::default();
        let mut at = Vec::new();
        for ms in (0..20_000).step_by(10) {
            let stuck = sample(23 * MIB, ms / 100, ms * 36 / 100);
            if watchdog.look(&stuck, Duration::from_millis(ms)).is_some() {
                at.push(ms);
            }
        }
        assert!(matches!(at[..], [ms] if (6000..8000).contains(&ms)), "{at:?}");
        assert!(watchdog.looks.len() < 10, "{}", watchdog.looks.len());
    }

    #[test]
    fn without_pressure_or_limit_nothing_is_said() {
        let stuck = |now: u64| sample(23 * MIB, now, 400 * now);
        let no_pressure = |now| Sample {
            memory_full: None,
            ..stuck(now)
        };
        assert_eq!(told(&mut Watchdog::default(), 0, 30, no_pressure), NEVER);
        let lifted = |now| Sample {
            memory_high: Some(Max::Max),
            ..stuck(now)
        };
        assert_eq!(told(&mut Watchdog::default(), 0, 30, lifted), NEVER);
    }
}
