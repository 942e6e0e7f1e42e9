//! Figures of repeated measurements: medians with their spread.

use std::time::Duration;

/// Measurements of one thing.
#[derive(Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// Adds a measurement.
    pub fn add(&mut self, took: Duration) {
        let at = self.0.partition_point(|d| *d <= took);
        self.0.insert(at, took);
    }

    /// The value below which this part (0 to 1) of the measurements lies, in milliseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1) as f64;
        self.0
            .get((last * part).round() as usize)
            .map_or(f64::NAN, |d| d.as_secs_f64() * 1000.0)
    }

    /// The median, in milliseconds.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Median and quartiles: `12.3 (11.9 – 13.0)`.
    pub fn shown(&self) -> String {
        format!(
            "{:8.2} ({:.2} – {:.2})",
            self.median(),
            self.quantile(0.25),
            self.quantile(0.75)
        )
    }
}
