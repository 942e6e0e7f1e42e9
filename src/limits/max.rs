//! A limit or, explicitly, none. Never a magic number for "no limit".

use std::fmt;

/// A limit, or `max`: no limit, as cgroup v2 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Max<T> {
    /// No limit, explicitly.
    Max,
    /// At most this.
    At(T),
}

impl<T> Max<T> {
    /// The limit, if there is one.
    pub fn at(self) -> Option<T> {
        match self {
            Max::Max => None,
            Max::At(limit) => Some(limit),
        }
    }
}

/// No limit is above every limit.
impl<T: Ord> Ord for Max<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match (self, other) {
            (Max::Max, Max::Max) => Equal,
            (Max::Max, Max::At(_)) => Greater,
            (Max::At(_), Max::Max) => Less,
            (Max::At(a), Max::At(b)) => a.cmp(b),
        }
    }
}

impl<T: Ord> PartialOrd for Max<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: fmt::Display> fmt::Display for Max<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Max::Max => f.write_str("max"),
            Max::At(limit) => limit.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Max::{At, Max};

    #[test]
    fn no_limit_is_above_every_limit() {
        assert!(Max > At(u64::MAX));
        assert!(At(1) < At(2));
        assert_eq!(Max::<u64>.min(At(3)), At(3));
    }

    #[test]
    fn prints_as_the_kernel_does() {
        assert_eq!(Max::<u64>.to_string(), "max");
        assert_eq!(At(42).to_string(), "42");
    }
}
