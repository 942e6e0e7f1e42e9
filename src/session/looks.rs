//! When to look, after an OOM kill, whether the session goes on. Pure: times are since the session began.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// How long the command may live on after an OOM kill before that is told as a session that goes on.
const AFTER: Duration = Duration::from_millis(250);
/// A pause as long as this is not made for the victim's name only.
const FOR_A_NAME: Duration = Duration::from_secs(1);
/// The longest pause between two looks.
const AT_MOST: Duration = Duration::from_secs(60);

/// Looks after the OOM kills of one session.
///
/// Who was killed may take long to die, and may still look alive, or dying, when it is looked at: a look that does not
/// show a session that goes on is followed by another, after twice the time.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// OOM kills that were told.
    told: u64,
    next: Option<Duration>,
    pause: Duration,
}

impl Looks {
    /// There were `kills` so far. Whether that is news.
    pub(super) fn notice(&mut self, kills: u64, now: Duration) -> bool {
        let news = kills > self.told && self.next.is_none();
        if news {
            self.pause = AFTER;
            self.next = Some(now + AFTER);
        }
        news
    }

    /// When to look; `None` where there is nothing to look for.
    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next.is_some_and(|at| now >= at)
    }

    /// Whether another look may still give the name of a victim that the kernel log does not tell yet: it lags behind the
    /// counters, and on a busy machine a quarter of a second is not long.
    pub(super) fn may_give_a_name(&self) -> bool {
        self.pause < FOR_A_NAME
    }

    /// The session goes on after `kills`, which has been told.
    pub(super) fn told(&mut self, kills: u64) {
        self.told = kills;
        self.next = None;
    }

    /// Nothing was to be told yet.
    pub(super) fn unclear(&mut self, now: Duration) {
        self.pause = (2 * self.pause).min(AT_MOST);
        self.next = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_looked_at_until_it_is_told() {
        let at = Duration::from_millis;
        let start = at(0);
        let mut looks = Looks::default();
        assert!(!looks.notice(0, start) && !looks.is_due(at(1_000_000)));
        assert!(looks.notice(1, start));
        assert!(!looks.notice(2, at(10)), "the look that is due will see both");
        assert!(!looks.is_due(at(249)) && looks.is_due(at(250)));
        assert!(looks.may_give_a_name());
        looks.unclear(at(250));
        assert_eq!(looks.next(), Some(at(750)));
        assert!(looks.may_give_a_name());
        looks.unclear(at(750));
        assert_eq!(looks.next(), Some(at(1750)));
        assert!(!looks.may_give_a_name());
        for _ in 0..20 {
            looks.unclear(at(750));
        }
        assert_eq!(looks.next(), Some(at(60_750)));
        looks.told(2);
        assert!(looks.next().is_none() && !looks.notice(2, at(800)));
        assert!(looks.notice(3, at(800)));
        assert_eq!(looks.next(), Some(at(1050)));
    }
}
