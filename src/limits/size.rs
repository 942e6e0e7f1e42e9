//! Amounts of memory: bytes, or a share of the machine.

use std::fmt;
use std::str::FromStr;

use super::decimal::{Decimal, overflow};
use super::error::{ErrorKind, GrammarError};
use super::max::Max;

/// The least that `memory_high` and `memory_max` may be: 1 MiB. The kernel rounds a limit down to pages, so that 4095
/// becomes 0, which means "kill everything"; and no program runs in a handful of pages.
pub const MEMORY_FLOOR: Bytes = Bytes(1 << 20);

/// The kernel counts pages in a signed long, so that its largest limit is below 2^63 bytes.
const CEILING: u64 = 1 << 63;

/// A number of bytes. `Display` is exact (`12884901888`); [`human`](Bytes::human) is for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

impl Bytes {
    /// For reading: `16 GiB` where that is exact, `12.9 GiB` or `16.0 GiB` where it is rounded.
    pub fn human(self) -> String {
        let text = format!("{:.1}", bytesize::ByteSize::b(self.0).display().iec());
        match text.split_once(".0 ") {
            Some((number, unit)) if self.is_exactly(number, unit) => format!("{number} {unit}"),
            _ => text,
        }
    }

    fn is_exactly(self, number: &str, unit: &str) -> bool {
        format!("{number}{unit}").parse() == Ok(Size::Bytes(self))
    }

    /// Down to a whole page, as the kernel does it. `page_size` is in bytes.
    pub fn rounded_to_page(self, page_size: u64) -> Bytes {
        Bytes(self.0 - self.0 % page_size.max(1))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A share of what the machine has: 0 to 100 per cent, held exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(Decimal);

impl Percent {
    /// This share of `total`, rounded down.
    pub fn of(self, total: u64) -> u64 {
        // A percentage has at most 22 decimals, so that 100 × 10^22 × 2^64 could pass 128 bits: `times` says so, and
        // the share is then taken from the total in hundredths, which is exact to a byte for every real machine.
        match self.0.times(total) {
            Some((hundredfold, _)) => hundredfold / 100,
            None => self
                .0
                .times(total / 100)
                .map_or(total, |(share, _)| share.min(total)),
        }
    }

    /// Nothing of it.
    pub(super) fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    pub(super) fn new(number: Decimal) -> Result<Percent, GrammarError> {
        let over = match number.times(1) {
            Some((whole, exact)) => whole > 100 || (whole == 100 && !exact),
            None => true,
        };
        if over {
            return Err(GrammarError::new(
                ErrorKind::Percent,
                "more than 100% of what the machine has",
                "write at most \"100%\", or \"max\" for no limit",
            ));
        }
        Ok(Percent(number))
    }
}

/// A size as somebody wrote it, before the machine is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// An absolute amount.
    Bytes(Bytes),
    /// A share of the machine's memory.
    Percent(Percent),
    /// No limit, explicitly.
    Max,
}

impl Size {
    /// What it is on a machine with `mem_total` bytes of memory.
    pub fn on(self, mem_total: u64) -> Max<Bytes> {
        match self {
            Size::Bytes(bytes) => Max::At(bytes),
            Size::Percent(percent) => Max::At(Bytes(percent.of(mem_total))),
            Size::Max => Max::Max,
        }
    }
}

/// Number, optional spaces, optional unit. `K M G T P`, `Ki …` and `KiB …` are binary, as in systemd and docker;
/// `KB MB GB TB PB` are decimal; no unit, or `B`, is bytes; `%` is a share of the memory; `max` is no limit. The case
/// of a unit does not matter; fractions round down to a byte.
impl FromStr for Size {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<Size, GrammarError> {
        if text.trim_matches([' ', '\t']).eq_ignore_ascii_case("max") {
            return Ok(Size::Max);
        }
        let (number, unit) = Decimal::split(text)?;
        if unit == "%" {
            return Percent::new(number).map(Size::Percent);
        }
        let Some(factor) = factor(unit) else {
            return Err(GrammarError::new(
                ErrorKind::UnknownUnit,
                format!("unknown unit {unit:?}"),
                "use KiB, MiB, GiB, TiB or PiB (K, M, G, T and P are the same), KB, MB, GB, TB or PB (decimal), or %",
            ));
        };
        match number.times(factor) {
            Some((bytes, _)) if bytes < CEILING => Ok(Size::Bytes(Bytes(bytes))),
            _ => Err(overflow()),
        }
    }
}

/// Bytes per unit.
fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if matches!(unit.as_str(), "" | "b") {
        return Some(1);
    }
    let power = "kmgtp".find(unit.chars().next()?)? as u32 + 1;
    match &unit[1..] {
        "" | "i" | "ib" => Some(1024u64.pow(power)),
        "b" => Some(1000u64.pow(power)),
        _ => None,
    }
}
