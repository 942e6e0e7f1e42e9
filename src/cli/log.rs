//! The log on standard error, at the level that CGMGR_LOG names (error, warn, info, debug, trace); default: warn.

use std::io;
use std::sync::OnceLock;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Starts logging.
pub fn to_stderr() {
    let level = std::env::var("CGMGR_LOG")
        .ok()
        .and_then(|l| l.parse().ok())
        .unwrap_or(Level::WARN);
    let _ = tracing::subscriber::set_global_default(Lazy {
        level,
        formatter: OnceLock::new(),
    });
}

/// A formatter that is made for the first line: most launches have none, and it takes tables that they would pay for.
struct Lazy {
    level: Level,
    formatter: OnceLock<Box<dyn Subscriber + Send + Sync>>,
}

impl Lazy {
    fn formatter(&self) -> &(dyn Subscriber + Send + Sync) {
        let made = self.formatter.get_or_init(|| {
            let formatter = tracing_subscriber::fmt()
                .with_max_level(self.level)
                .with_target(false)
                // Built without colours; asking for them would panic.
                .with_ansi(false)
                .with_writer(io::stderr)
                .without_time();
            Box::new(formatter.finish())
        });
        made.as_ref()
    }
}

impl Subscriber for Lazy {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.formatter().new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.formatter().record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.formatter().record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.formatter().event(event);
    }

    fn enter(&self, span: &Id) {
        self.formatter().enter(span);
    }

    fn exit(&self, span: &Id) {
        self.formatter().exit(span);
    }
}
