//! Moments on the clock that all processes of the machine share.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A moment: nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub u64);

impl At {
    /// This moment.
    pub fn now() -> At {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has this clock");
        At(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    }

    /// Reads what [`At::text`] wrote.
    pub fn parse(text: &str) -> Result<At, String> {
        text.parse().map(At).map_err(super::at(text))
    }

    /// For a command line.
    pub fn text(self) -> String {
        self.0.to_string()
    }

    /// So much later.
    pub fn after(self, time: Duration) -> At {
        At(self.0 + time.as_nanos() as u64)
    }

    /// The time from an earlier moment to this one; nothing from a later one.
    pub fn since(self, earlier: At) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whether it is over.
    pub fn is_past(self) -> bool {
        At::now() >= self
    }

    /// Sleeps until then.
    pub fn wait(self) {
        std::thread::sleep(self.since(At::now()));
    }
}
