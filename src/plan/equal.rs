//! When what the kernel holds is what was asked for: it rounds memory to pages and prints some files its own way.

use crate::limits::{Kind, Knob};

/// How the kernel's value stands to the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Exactly it.
    Exact,
    /// It, rounded as the kernel always rounds (memory down to whole pages).
    Rounded,
    /// Another value.
    Other,
}

/// A control file's number; no number at all (`max`) is above every one.
pub fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(u64::MAX)
}

/// The kernel counts pages in a signed long.
const MOST: u64 = i64::MAX as u64;

/// Compares the text a control file holds with the text that was, or would be, written to it.
pub fn held(knob: &Knob, wanted: &str, found: &str, page_size: u64) -> Held {
    let found = found.lines().next().unwrap_or("").trim();
    if wanted == found {
        return Held::Exact;
    }
    match knob.kind {
        Kind::MemoryLimit | Kind::Swap | Kind::Protection => {
            let number = |text: &str| text.parse::<u64>().ok();
            match (number(wanted), number(found)) {
                (Some(w), Some(f)) if page_size > 0 && w / page_size * page_size == f => Held::Rounded,
                // The last page that the kernel can count to is its `max` (PAGE_COUNTER_MAX in page_counter.h).
                (Some(w), None) if found == "max" && w / page_size.max(1) >= MOST / page_size.max(1) => {
                    Held::Rounded
                }
                _ => Held::Other,
            }
        }
        // Some kernels print io.weight's default without the word.
        Kind::Weight if wanted.strip_prefix("default ") == Some(found) => Held::Exact,
        _ => Held::Other,
    }
}

/// Whether the file holds what is wanted.
pub fn same(knob: &Knob, wanted: &str, found: &str, page_size: u64) -> bool {
    held(knob, wanted, found, page_size) != Held::Other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::KnobId;

    #[test]
    fn pages_and_weights() {
        let max = KnobId::MemoryMax.knob();
        assert_eq!(held(max, "33554433", "33554432", 4096), Held::Rounded);
        assert_eq!(held(max, "33554433", "33554432", 65536), Held::Rounded);
        assert_eq!(held(max, "33558528", "33554432", 4096), Held::Other);
        assert_eq!(held(max, "max", "max\n", 4096), Held::Exact);
        assert_eq!(held(max, "max", "4096", 4096), Held::Other);
        assert_eq!(held(max, "9223372036854771712", "max", 4096), Held::Rounded);
        assert_eq!(held(max, "9223372036854767616", "max", 4096), Held::Other);
        let io = KnobId::IoWeight.knob();
        assert!(same(io, "default 100", "default 100\n8:0 50", 4096));
        assert!(!same(io, "default 100", "default 200", 4096));
        assert!(same(KnobId::Cpus.knob(), "300000 100000", "300000 100000", 4096));
        assert!(!same(KnobId::Cpus.knob(), "300000 100000", "300000 50000", 4096));
    }
}
