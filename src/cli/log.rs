//! The log on standard error, at the level that CGMGR_LOG names (error, warn, info, debug, trace); default: warn.
//!
//! One line for each event: its level, its message, its fields. There are no spans.

use crate::text::escape;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Starts logging.
pub fn to_stderr() {
    let level = std::env::var("CGMGR_LOG")
        .ok()
        .and_then(|l| l.parse().ok())
        .unwrap_or(Level::WARN);
    let _ = tracing::subscriber::set_global_default(Stderr { level });
}

struct Stderr {
    level: Level,
}

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{:>5}", event.metadata().level().as_str()));
        event.record(&mut line);
        line.0.push('\n');
        // Where nobody listens there is nobody to tell.
        let _ = io::stderr().write_all(line.0.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What of an event is shown so far.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        let _ = match field.name() {
            // A message may have lines, but nothing else that a terminal acts on.
            "message" => write!(
                self.0,
                " {}",
                value.split('\n').map(escape).collect::<Vec<_>>().join("\n")
            ),
            name => write!(self.0, " {name}={value}"),
        };
    }
}
