//! Whether a session is at its memory.max, where an OOM kill may be next. Pure: times are since the session began.
//!
//! memory.events tells of a kill, but of a file's changes the kernel tells at most once in 10 ms (kernel/cgroup/cgroup.c,
//! CGROUP_FILE_NOTIFY_MIN_INTV), and a session at its limit changes it all the time: the kill waits its turn. The kernel's
//! log is not put off, and is listened to for as long.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// How long after it was last at its limit.
const AFTER: Duration = Duration::from_secs(1);

/// When it was at its limit.
#[derive(Debug, Default)]
pub(super) struct AtLimit {
    hits: u64,
    until: Option<Duration>,
}

impl AtLimit {
    /// It was there so often up to now (`max` of memory.events).
    pub(super) fn notice(&mut self, hits: u64, now: Duration) {
        if hits > self.hits {
            self.hits = hits;
            self.until = Some(now + AFTER);
        }
    }

    /// Whether it is there, or was a moment ago.
    pub(super) fn is_now(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_from_a_hit_on_and_for_a_second_after_the_last() {
        let at = Duration::from_millis;
        let mut limit = AtLimit::default();
        limit.notice(0, at(5));
        assert!(!limit.is_now(at(5)));
        limit.notice(3, at(10));
        assert!(limit.is_now(at(10)));
        limit.notice(3, at(900));
        assert!(limit.is_now(at(1009)) && !limit.is_now(at(1010)));
        limit.notice(4, at(1500));
        assert!(limit.is_now(at(2499)) && !limit.is_now(at(2500)));
    }
}
