//! All runs of one way under one attack, added up.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Record;

/// A difference to the idle machine that is none: the gaps of two idle machines differ as much.
const AS_IDLE: f64 = 1.25;
/// Two ways that differ by no more are as good as each other.
const ALIKE: f64 = 1.15;

/// A cell of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// How many runs.
    pub runs: usize,
    /// In how many of them the agent died.
    pub died: usize,
    /// In how many the machine hung.
    pub hung: usize,
    /// In how many somebody was killed who had not attacked.
    pub outside: usize,
    /// Who, and in how many runs.
    pub victims: BTreeMap<String, usize>,
    /// The median of the runs' medians, over the idle machine's.
    pub p50: f64,
    /// The median of the runs' p99, over the idle machine's.
    pub p99: f64,
    /// The worst run's p99, over the idle machine's.
    pub p99_worst: f64,
    /// The longest gap of all runs, in milliseconds.
    pub longest: f64,
    /// The longest time until the machine answered again, in seconds.
    pub answered: f64,
}

impl Cell {
    /// Adds runs up.
    pub fn of(records: &[&Record]) -> Cell {
        let mut victims = BTreeMap::new();
        for name in records
            .iter()
            .flat_map(|record| BTreeSet::from_iter(record.outside()))
        {
            *victims.entry(name).or_default() += 1;
        }
        let all = |what: &dyn Fn(&Record) -> f64| -> Vec<f64> {
            records.iter().map(|record| what(record)).collect()
        };
        let count = |what: &dyn Fn(&Record) -> bool| records.iter().filter(|record| what(record)).count();
        Cell {
            runs: records.len(),
            died: count(&|record| record.died().is_some()),
            hung: count(&Record::hung),
            outside: count(&|record| !record.outside().is_empty()),
            victims,
            p50: median(all(&|record| record.ratio("p50"))),
            p99: median(all(&|record| record.ratio("p99"))),
            p99_worst: worst(&all(&|record| record.ratio("p99"))),
            longest: worst(&all(&Record::longest)),
            answered: worst(&all(&Record::answered)),
        }
    }

    /// What of the goal it misses.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let of = |count: usize, what: &str| {
            (count > 0).then(|| format!("{what} in {count} of {} runs", self.runs))
        };
        missed.extend(of(self.hung, "the machine hung"));
        missed.extend(of(self.died, "the agent died"));
        missed.extend(of(self.outside, "somebody outside was killed"));
        if self.p99_worst > 3.0 {
            missed.push(format!(
                "p99 {} times idle in the worst run, {} in the middle one",
                times(self.p99_worst),
                times(self.p99)
            ));
        }
        missed
    }

    /// In what it is worse than the same attack another way.
    pub fn worse_than(&self, other: &Cell) -> Vec<String> {
        let share = |count: usize, cell: &Cell| count as f64 / cell.runs.max(1) as f64;
        let mut worse = Vec::new();
        for (what, mine, theirs) in [
            ("hangs", self.hung, other.hung),
            ("dead agents", self.died, other.died),
            ("kills outside", self.outside, other.outside),
        ] {
            if share(mine, self) > share(theirs, other) {
                worse.push(format!(
                    "{what}: {mine} of {} runs beside {theirs} of {}",
                    self.runs, other.runs
                ));
            }
        }
        if self.p99 > AS_IDLE && self.p99 > other.p99 * ALIKE {
            worse.push(format!(
                "p99: {} times idle beside {}",
                times(self.p99),
                times(other.p99)
            ));
        }
        worse
    }

    /// In one line: what it would be about if it were good, and what was not.
    pub fn short(&self) -> String {
        if self.runs == 0 {
            return "–".into();
        }
        let mut text = times(self.p99);
        for (mark, count) in [
            ("hang", self.hung),
            ("dead", self.died),
            ("others killed", self.outside),
        ] {
            if count > 0 {
                text.push_str(&format!(", {mark} {count}/{}", self.runs));
            }
        }
        text
    }
}

/// A ratio with as many digits as say something.
pub fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio.is_infinite() => "∞".into(),
        ratio if ratio < 10.0 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.0}"),
    }
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(result: serde_json::Value) -> Record {
        Record::new("cgmgr", "hog", "none", 0, Some(result))
    }

    fn good(p99: f64) -> Record {
        record(json!({
            "idle": {"p50_ms": 10.0, "p99_ms": 10.0, "longest_ms": 11.0},
            "under": {"p50_ms": 10.0, "p99_ms": p99, "longest_ms": 40.0},
            "agent_died_ms": null, "bystander_alive": true, "killed_outside": [],
            "program_answers_ms": 20, "agent_answers_ms": 100,
        }))
    }

    #[test]
    fn a_good_run_misses_nothing() {
        let (first, second) = (good(12.0), good(20.0));
        let cell = Cell::of(&[&first, &second]);
        assert_eq!(cell.missed(), Vec::<String>::new());
        assert_eq!((cell.p99_worst, cell.longest, cell.answered), (2.0, 40.0, 0.1));
    }

    #[test]
    fn a_hang_a_dead_agent_and_a_slow_one_are_missed() {
        let hang = Record::new("cgmgr", "hog", "none", 1, None);
        let dead = record(json!({
            "idle": {"p99_ms": 10.0}, "under": {"p99_ms": 10.0, "longest_ms": 10.0},
            "agent_died_ms": 400, "bystander_alive": false, "killed_outside": ["agent"],
            "program_answers_ms": 20, "agent_answers_ms": null,
        }));
        let cell = Cell::of(&[&hang, &dead, &good(31.0)]);
        assert_eq!((cell.hung, cell.died, cell.outside), (1, 1, 1));
        assert_eq!(cell.victims.keys().collect::<Vec<_>>(), ["agent", "bystander"]);
        assert_eq!(cell.missed().len(), 4);
        assert!(cell.p99_worst.is_infinite() && cell.answered.is_infinite());
    }

    #[test]
    fn what_is_as_idle_is_not_worse_than_what_is_idle() {
        let (idle, nearly, slow) = (good(10.0), good(12.0), good(29.0));
        let [idle, nearly, slow] = [&idle, &nearly, &slow].map(|record| Cell::of(&[record]));
        assert!(nearly.worse_than(&idle).is_empty());
        assert_eq!(slow.worse_than(&idle).len(), 1);
        assert!(idle.worse_than(&slow).is_empty());
    }
}
