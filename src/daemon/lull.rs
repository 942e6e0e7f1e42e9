//! What tells of every launch is heard a while after it, all that came meanwhile together.
//!
//! A launch makes a directory, writes two records and removes the directory. Woken each time, the daemon would take as
//! much time as the launch itself, and look at sessions that are over before it has looked. Nothing is lost by the wait:
//! counters and records stay, and a kill in a session that is watched wakes the daemon at once.

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// From the first thing that happened until all are looked at: too short to be noticed, and most commands of an agent
/// are over by then.
const LULL: Duration = Duration::from_millis(100);
/// So many times as long as the last look took, if that is longer: a look at very many sessions takes long.
const OF_THE_LAST: u32 = 20;
/// The longest: one look that took long, on a machine that was standing still, is not to make it deaf for minutes.
const AT_MOST: Duration = Duration::from_secs(2);

/// Descriptors of an epoll instance that are deaf for a while once one of them has told of something.
#[derive(Debug, Default)]
pub(super) struct Lull {
    until: Option<Instant>,
    took: Duration,
}

impl Lull {
    /// Something has happened at one of `sources`: none of them wakes anybody until the lull is over.
    ///
    /// # Errors
    ///
    /// As `epoll_ctl(2)`; then they wake as before.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        epoll: &OwnedFd,
        sources: &[(BorrowedFd<'_>, u64)],
    ) -> Result<(), Errno> {
        if self.until.is_none() {
            let lull = self.took.saturating_mul(OF_THE_LAST).clamp(LULL, AT_MOST);
            self.until = Some(now + lull);
            listen(epoll, sources, EventFlags::empty())?;
        }
        Ok(())
    }

    /// When what has happened is to be looked at.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether it is time; the sources wake again from here on.
    ///
    /// # Errors
    ///
    /// As `epoll_ctl(2)`.
    pub(super) fn is_over(
        &mut self,
        now: Instant,
        epoll: &OwnedFd,
        sources: &[(BorrowedFd<'_>, u64)],
    ) -> Result<bool, Errno> {
        let over = self.until.is_some_and(|until| until <= now);
        if over {
            // Where that fails it is tried again.
            self.until = Some(now + LULL);
            listen(epoll, sources, EventFlags::IN)?;
            self.until = None;
        }
        Ok(over)
    }

    /// The look took so long.
    pub(super) fn took(&mut self, took: Duration) {
        self.took = took;
    }
}

fn listen(epoll: &OwnedFd, sources: &[(BorrowedFd<'_>, u64)], what: EventFlags) -> Result<(), Errno> {
    let mut modified = sources
        .iter()
        .map(|(source, token)| epoll::modify(epoll, source, EventData::new_u64(*token), what));
    modified.try_for_each(|one| one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::Timespec;
    use rustix::event::epoll::{CreateFlags, Event};
    use rustix::fd::AsFd;

    fn heard(epoll: &OwnedFd) -> usize {
        let mut events: Vec<Event> = Vec::with_capacity(4);
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&at_once)).unwrap()
    }

    #[test]
    fn it_is_deaf_until_it_is_over_and_for_longer_after_a_long_look() {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let (source, tells) = rustix::pipe::pipe().unwrap();
        let sources = [(source.as_fd(), 7)];
        epoll::add(&epoll, &source, EventData::new_u64(7), EventFlags::IN).unwrap();
        rustix::io::write(&tells, b"x").unwrap();
        assert_eq!(heard(&epoll), 1);

        let (mut lull, now) = (Lull::default(), Instant::now());
        assert!(!lull.is_over(now, &epoll, &sources).unwrap(), "nothing has begun");
        lull.begin(now, &epoll, &sources).unwrap();
        assert_eq!((heard(&epoll), lull.until()), (0, Some(now + LULL)));
        // What happens meanwhile puts nothing off.
        lull.begin(now + LULL / 2, &epoll, &sources).unwrap();
        assert!(!lull.is_over(now + LULL / 2, &epoll, &sources).unwrap());
        assert!(lull.is_over(now + LULL, &epoll, &sources).unwrap());
        assert_eq!((heard(&epoll), lull.until()), (1, None));

        for (took, lasts) in [(LULL / 10, LULL * 2), (LULL * 300, AT_MOST)] {
            lull.took(took);
            lull.begin(now, &epoll, &sources).unwrap();
            assert_eq!(lull.until(), Some(now + lasts));
            assert!(lull.is_over(now + lasts, &epoll, &sources).unwrap());
        }
    }
}
