//! The kernel's counters as values: parsers for flat keyed files (memory.events, cgroup.events, cpu.stat,
//! pids.events), single values and pressure files. Absent is `None`, never zero. May not do I/O.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use crate::order;

/// A flat keyed file: `key value` lines (cgroup-v2.rst, "Format").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyed(BTreeMap<String, u64>);

impl Keyed {
    /// Reads `text`; lines that are not `key number` are passed over.
    pub fn parse(text: &str) -> Self {
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        Self(order::map(text.lines().filter_map(pair)))
    }

    /// The value of `key`, if the kernel gave one.
    pub fn get(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }

    /// Each key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(key, value)| (key.as_str(), *value))
    }

    /// How much `key` rose since `before`; `None` where either is unknown.
    pub fn rise(&self, before: &Self, key: &str) -> Option<u64> {
        Some(self.get(key)?.saturating_sub(before.get(key)?))
    }

    /// The sums of both.
    pub fn plus(mut self, other: &Self) -> Self {
        for (key, value) in &other.0 {
            let sum = self.0.entry(key.clone()).or_default();
            *sum = sum.saturating_add(*value);
        }
        self
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A single number, or `max`: `Some(None)` is "no limit", `None` is "not a number".
pub fn parse_limit(text: &str) -> Option<Option<u64>> {
    match text.trim() {
        "max" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// The shares of time that tasks were stalled, from one line (`some` or `full`) of a pressure file.
/// Percent of the last 10 s and 60 s, and the total in microseconds (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Pressure {
    /// Percent of the last ten seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Total stall time in microseconds.
    pub total_usec: u64,
}

/// The `kind` (`some` or `full`) line of a pressure file.
pub fn parse_pressure(text: &str, kind: &str) -> Option<Pressure> {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(kind)?.strip_prefix(' '))?;
    let field = |name: &str| {
        line.split(' ')
            .find_map(|f| f.strip_prefix(name)?.strip_prefix('='))
    };
    Some(Pressure {
        avg10: field("avg10")?.parse().ok()?,
        avg60: field("avg60")?.parse().ok()?,
        total_usec: field("total")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_keyed_file_and_its_rise() {
        let before = Keyed::parse("low 0\noom 1\noom_kill 1\n");
        let after = Keyed::parse("low 0\noom 4\noom_kill 3\nnew 1\n");
        assert_eq!(after.rise(&before, "oom_kill"), Some(2));
        assert_eq!(after.rise(&before, "new"), None, "absent is not zero");
        assert_eq!(Keyed::parse("garbage\n\nx y\n"), Keyed::default());
    }

    #[test]
    fn limits_and_pressure() {
        assert_eq!(parse_limit("max\n"), Some(None));
        assert_eq!(parse_limit("4096\n"), Some(Some(4096)));
        assert_eq!(parse_limit("x"), None);
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let some = parse_pressure(text, "some").unwrap();
        assert_eq!((some.avg10, some.total_usec), (1.5, 77));
        assert_eq!(parse_pressure(text, "full").unwrap().total_usec, 5);
        assert_eq!(parse_pressure("some avg10=x", "some"), None);
    }
}
