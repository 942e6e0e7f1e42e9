//! Options of Apple's `container run`: multicode's mapping, whole CPUs and memory, and what is lost of it. The syntax is
//! all that is checked: it needs macOS.

use super::docker::line;
use super::sheet::Sheet;
use crate::limits::{KnobId, Max, PERIOD_US};

const MIB: u64 = 1 << 20;

/// The options in one line; no value of them needs quotes.
pub(super) fn options(sheet: &mut Sheet<'_>) -> String {
    sheet.note("only the syntax is checked: nothing of Apple's container was run");
    let mut values = Vec::new();
    if let Some(quota) = sheet.quota(KnobId::Cpus) {
        values.push((KnobId::Cpus, quota.ceil().to_string()));
        if quota.quota_us() % PERIOD_US != 0 {
            let why = format!("a virtual machine has whole CPUs: it has {}", quota.ceil());
            sheet.lose(KnobId::Cpus, &why, "declare a whole number");
        }
    }
    let max = sheet.memory(KnobId::MemoryMax).and_then(Max::at);
    let high = sheet.memory(KnobId::MemoryHigh).and_then(Max::at);
    if let Some(bytes) = max.or(high) {
        values.push((KnobId::MemoryMax, bytes.to_string()));
        if max.is_some() && bytes % MIB != 0 {
            sheet.lose(
                KnobId::MemoryMax,
                "a virtual machine has whole MiB",
                "declare whole MiB",
            );
        }
    }
    match max {
        Some(_) => {}
        None if high.is_some() => {
            sheet.note("memory_high is the size of the machine, a hard limit, as multicode has it")
        }
        None => sheet.note("without memory_max the machine has 1 GiB"),
    }
    if let Some(Max::At(files)) = sheet.count(KnobId::Nofile) {
        values.push((KnobId::Nofile, format!("{files}:{files}")));
    }
    line(&values, sheet.engine)
}
