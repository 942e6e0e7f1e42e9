//! What was observed is brought to people: an entry in the journal, a line on the session's terminals, the operator's own
//! program, a notification on the desktop.
//!
//! Each of them may be broken, hang, or not be there, and a notice must not: every way has a time limit, what fails is told
//! to whoever asked, and the others go on. Where a way is not there at all (no journal, no desktop) that is no failure.

mod desktop;
pub mod fields;
mod hook;
mod terminal;

use crate::record::Record;
use crate::systemd::journal;

/// Which ways a notice takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct How {
    /// Whether there is to be an entry in the journal.
    pub journal: bool,
    /// The operator's program and its arguments; empty: none.
    pub hook: Vec<String>,
    /// Processes whose controlling terminals get a line; each terminal one only.
    pub terminals: Vec<i32>,
    /// The user whose desktop is told.
    pub desktop: Option<u32>,
}

/// Tells people of a record; `sentence` is what they read. Returns what went wrong, one text each, to be logged.
///
/// It is for a process that was made for it: it may take 15 seconds, and where the desktop is another user's, this process is
/// that user's afterwards, for good.
pub fn tell(record: &Record, sentence: &str, how: &How) -> Vec<String> {
    let mut failures = Vec::new();
    if how.journal {
        let fields = fields::of(record, sentence);
        let entry = journal::encode(fields.iter().map(|(name, value)| (*name, value.as_str())));
        if let Err(error) = journal::send(&entry) {
            failures.push(format!(
                "the journal at {} takes nothing: {error}",
                journal::SOCKET
            ));
        }
    }
    failures.extend(terminal::write(&how.terminals, sentence));
    if !how.hook.is_empty() {
        failures.extend(hook::run(&how.hook, record, hook::TIME).err());
    }
    // Last of all, for the process may be another user's after it.
    if let Some(uid) = how.desktop {
        failures.extend(desktop::show(uid, record, sentence).err());
    }
    failures
}
