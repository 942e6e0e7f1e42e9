//! The tables, in markdown, and what of the goal is missed.

use std::fmt::Write;

use super::cell::{Cell, times};
use super::record::Record;
use super::{Attack, Swap, Way};

/// Everything that was measured, as README and docs/survival.md have it.
pub struct Report<'a>(pub &'a [Record]);

impl Report<'_> {
    /// Without a swap: with and without together.
    fn cell(&self, way: Way, attack: Attack, swap: Option<Swap>) -> Cell {
        let is_of = |record: &&Record| {
            Swap::ALL
                .iter()
                .filter(|one| swap.is_none_or(|swap| swap == **one))
                .any(|swap| record.is_of(way.name(), attack.name(), swap.name()))
        };
        Cell::of(&self.0.iter().filter(is_of).collect::<Vec<_>>())
    }

    /// One line for each attack: p99 over the idle machine's, and what went wrong.
    pub fn short(&self) -> String {
        let mut text = String::from("| attack |");
        for way in Way::ALL {
            let _ = write!(text, " {} |", way.title());
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(Way::ALL.len()));
        text.push('\n');
        for attack in Attack::ALL {
            let _ = write!(text, "| {} |", attack.title());
            for way in Way::ALL {
                let _ = write!(text, " {} |", self.cell(way, attack, None).short());
            }
            text.push('\n');
        }
        text
    }

    /// One line for each cell.
    pub fn full(&self) -> String {
        let mut text = String::from(
            "| attack | swap | way | runs | agent died | hangs | others killed | p50 | p99 | worst p99 | longest gap, ms | \
             answers after, s |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for attack in Attack::ALL {
            for swap in Swap::ALL {
                for way in Way::ALL {
                    let cell = self.cell(way, attack, Some(swap));
                    if cell.runs == 0 {
                        continue;
                    }
                    let victims: Vec<String> = cell
                        .victims
                        .iter()
                        .map(|(name, count)| format!("{name} {count}"))
                        .collect();
                    let outside = match victims.join(", ") {
                        none if none.is_empty() => "0".to_owned(),
                        some => format!("{} ({some})", cell.outside),
                    };
                    let _ = writeln!(
                        text,
                        "| {} | {} | {} | {} | {} | {} | {outside} | {} | {} | {} | {} | {} |",
                        attack.title(),
                        swap.name(),
                        way.title(),
                        cell.runs,
                        cell.died,
                        cell.hung,
                        times(cell.p50),
                        times(cell.p99),
                        times(cell.p99_worst),
                        whole(cell.longest),
                        seconds(cell.answered),
                    );
                }
            }
        }
        text
    }

    /// The goal, for each cell of cgmgr.
    pub fn goal(&self) -> String {
        let (mut text, mut cells, mut runs, mut met) = (String::new(), 0, 0, 0);
        for attack in Attack::ALL {
            for swap in Swap::ALL {
                let ours = self.cell(Way::Cgmgr, attack, Some(swap));
                if ours.runs == 0 {
                    continue;
                }
                let mut missed = ours.missed();
                for way in Way::ALL.into_iter().filter(|way| *way != Way::Cgmgr) {
                    let theirs = self.cell(way, attack, Some(swap));
                    if theirs.runs > 0 {
                        missed.extend(
                            ours.worse_than(&theirs)
                                .into_iter()
                                .map(|what| format!("worse than {}, {what}", way.title())),
                        );
                    }
                }
                cells += 1;
                runs += ours.runs;
                met += usize::from(missed.is_empty());
                for what in missed {
                    let _ = writeln!(text, "- {}, swap {}: {what}", attack.title(), swap.name());
                }
            }
        }
        let head = format!("cgmgr: {met} of {cells} cells meet the goal, in {runs} runs.");
        if text.is_empty() {
            format!("{head}\n")
        } else {
            format!("{head} Missed:\n\n{text}")
        }
    }
}

fn whole(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.0}")
    } else {
        "∞".into()
    }
}

fn seconds(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.1}")
    } else {
        "never".into()
    }
}
