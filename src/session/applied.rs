//! The limits of the two slices, as the kernel has them and as the last record of a change by cgmgr has them.

use super::records::now_usec;
use crate::host::Base;
use crate::kernel::Tree;
use crate::limits::{KNOBS, Knob, Part};
use crate::path::GroupPath;
use crate::record::{Applied, Fact, Record};
use crate::store::Store;
use std::collections::BTreeMap;
use std::io;

/// The knobs of the slices that are control files, each with its slice.
pub fn knobs(base: &Base) -> impl Iterator<Item = (&'static Knob, &'static str, &GroupPath)> {
    KNOBS.iter().filter_map(move |knob| {
        let slice = match knob.part {
            Part::Session => return None,
            Part::Agent => &base.agent,
            Part::Workloads => &base.workloads,
        };
        Some((knob, knob.file?, slice))
    })
}

/// What the control files of the slices hold, the first line of each, by knob. What is not there, or not to be read, is left
/// out.
pub fn limits(tree: &Tree, base: &Base) -> BTreeMap<String, String> {
    let groups = [&base.agent, &base.workloads].map(|slice| (slice, tree.find(slice).ok().flatten()));
    let text = |(knob, file, slice): (&'static Knob, &str, &GroupPath)| {
        let (_, group) = groups.iter().find(|(of, _)| *of == slice)?;
        let text = group.as_ref()?.get(file).ok()??;
        Some((knob.key.to_owned(), text.lines().next()?.to_owned()))
    };
    let mut limits = BTreeMap::new();
    for (key, line) in knobs(base).filter_map(text) {
        limits.insert(key, line);
    }
    limits
}

/// The last record of a change since the machine was booted: nothing that `apply` makes is there after that.
///
/// # Errors
///
/// The store cannot be read.
pub fn last(store: &Store) -> io::Result<Option<Applied>> {
    Ok(of_records(store.read()?, booted_usec()))
}

/// The same of these records, the oldest first.
pub fn of_records(records: impl Iterator<Item = Record>, booted_usec: u64) -> Option<Applied> {
    let mut last = None;
    for record in records {
        last = of_record(&record, booted_usec).cloned().or(last);
    }
    last
}

/// The change that a record tells of, where it was made since then.
pub fn of_record(record: &Record, booted_usec: u64) -> Option<&Applied> {
    match &record.fact {
        Fact::Applied(applied) if record.time_usec >= booted_usec => Some(applied),
        _ => None,
    }
}

/// When the machine was booted, in microseconds since 1970, by the clock as it is set now.
pub fn booted_usec() -> u64 {
    let up = u64::try_from(rustix::system::sysinfo().uptime).unwrap_or(0);
    now_usec().saturating_sub(up.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(time_usec: u64, changes: u64) -> Record {
        Record {
            time_usec,
            session: None,
            id: None,
            role: None,
            fact: Fact::Applied(Applied {
                changes,
                ..Applied::default()
            }),
        }
    }

    #[test]
    fn the_last_one_of_this_boot_counts() {
        let all = [applied(10, 1), applied(20, 2), applied(30, 3)];
        let changes = |booted| of_records(all.clone().into_iter(), booted).map(|applied| applied.changes);
        assert_eq!(changes(15), Some(3));
        assert_eq!(changes(31), None);
        let pressure = Record {
            fact: Fact::Pressure(crate::record::Pressure::default()),
            ..applied(40, 0)
        };
        let with_others = all[..2].iter().cloned().chain([pressure]);
        assert_eq!(of_records(with_others, 0).map(|applied| applied.changes), Some(2));
    }
}
