//! Amounts of memory: bytes, or a share of the machine.

use std::fmt;
use std::str::FromStr;

use super::decimal::{Decimal, FEW_DECIMALS, overflow};
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
        if self.0 == 0 {
            return "0".into();
        }
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
        let hundredfold = self.0.times(total).map_or(0, |(share, _)| share);
        u64::try_from(hundredfold / 100).unwrap_or(total)
    }

    /// Nothing of it.
    pub(super) fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    pub(super) fn new(number: Decimal) -> Result<Percent, GrammarError> {
        if number.decimals() > FEW_DECIMALS {
            return Err(GrammarError::new(
                ErrorKind::TooPrecise,
                format!("more than {FEW_DECIMALS} digits after the point of a percentage"),
                "round it",
            ));
        }
        if number
            .times(1)
            .is_none_or(|(whole, exact)| whole > 100 || (whole == 100 && !exact))
        {
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
        let bytes = number
            .times(factor)
            .and_then(|(bytes, _)| u64::try_from(bytes).ok());
        match bytes {
            Some(bytes) if bytes < CEILING => Ok(Size::Bytes(Bytes(bytes))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ErrorKind::*;

    const K: u64 = 1 << 10;
    const M: u64 = 1 << 20;
    const G: u64 = 1 << 30;
    const T: u64 = 1 << 40;
    const P: u64 = 1 << 50;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("4096", 4096),
            ("1B", 1),
            ("1 b", 1),
            ("2K", 2 * K),
            ("2k", 2 * K),
            ("2Ki", 2 * K),
            ("2KiB", 2 * K),
            ("2kib", 2 * K),
            ("2KIB", 2 * K),
            ("2KB", 2_000),
            ("2kb", 2_000),
            ("3M", 3 * M),
            ("3Mi", 3 * M),
            ("3MiB", 3 * M),
            ("3MB", 3_000_000),
            ("12 GiB", 12 * G),
            ("12GiB", 12 * G),
            ("12    GiB", 12 * G),
            ("12\tGiB", 12 * G),
            (" 12 GiB ", 12 * G),
            ("12G", 12 * G),
            ("12 g", 12 * G),
            ("12 GB", 12_000_000_000),
            ("1T", T),
            ("1TiB", T),
            ("1TB", 1_000_000_000_000),
            ("1P", P),
            ("1PiB", P),
            ("1PB", 1_000_000_000_000_000),
            ("1.5 GiB", G + G / 2),
            ("0.5K", 512),
            ("0.1 GiB", 107_374_182),
            ("1.9999", 1),
            ("0.001 KB", 1),
            ("0.0009 KB", 0),
            ("007", 7),
            ("1.50000000000000000000000000000000000000 KiB", 1536),
            ("0.9999999999999999999999 PiB", P - 1),
            ("8191.9999 PiB", 9_223_371_924_264_785_123),
            ("9223372036854775807", (1 << 63) - 1),
        ] {
            assert_eq!(text.parse(), Ok(Size::Bytes(Bytes(bytes))), "{text:?}");
        }
        for text in ["max", "MAX", "Max", " max "] {
            assert_eq!(text.parse(), Ok(Size::Max), "{text:?}");
        }
    }

    #[test]
    fn no_sizes() {
        for (text, kind) in [
            ("", Empty),
            ("   ", Empty),
            ("-1", Negative),
            ("-1 GiB", Negative),
            ("-0", Negative),
            ("+1G", Sign),
            ("1e3", Exponent),
            ("1E3", Exponent),
            ("1.5e+9", Exponent),
            ("1e-3 G", Exponent),
            ("1_000", Separator),
            ("1,5 GiB", Separator),
            ("1'000", Separator),
            ("१ GiB", NonAscii),
            ("1 ГБ", NonAscii),
            ("1\u{a0}GiB", NonAscii),
            ("infinity", NotFinite),
            ("Infinity", NotFinite),
            ("inf", NotFinite),
            ("nan", NotFinite),
            ("unlimited", NotFinite),
            ("8192 PiB", Overflow),
            ("9223372036854775808", Overflow),
            ("18446744073709551615", Overflow),
            ("18446744073709551616", Overflow),
            ("99999999999999999999999999999999999999999999999999 P", Overflow),
            ("18446744073709551615 PiB", Overflow),
            ("0.99999999999999999999999 PiB", TooPrecise),
            ("1 E", UnknownUnit),
            ("1 EiB", UnknownUnit),
            ("16 GX", UnknownUnit),
            ("1 iB", UnknownUnit),
            ("1 Gib it", UnknownUnit),
            ("1 GiBs", UnknownUnit),
            ("1 bytes", UnknownUnit),
            ("1 G G", UnknownUnit),
            ("1 2", UnknownUnit),
            ("1 %%", UnknownUnit),
            ("1 max", UnknownUnit),
            ("0x1000", UnknownUnit),
            ("101%", ErrorKind::Percent),
            ("100.000000001%", ErrorKind::Percent),
            ("12.3456789012%", TooPrecise),
            (".5G", NotANumber),
            ("5.G", NotANumber),
            ("1.2.3", NotANumber),
            (".", NotANumber),
            ("GiB", NotANumber),
            ("%", NotANumber),
            ("maximum", NotANumber),
            ("(1)", NotANumber),
            ("1\0", UnknownUnit),
        ] {
            let error = text.parse::<Size>().expect_err(text);
            assert_eq!(error.kind(), kind, "{text:?}: {error}");
            assert!(!error.help().is_empty());
        }
    }

    #[test]
    fn percentages() {
        for (text, total, bytes) in [
            ("80%", 100, 80),
            ("80 %", 1000, 800),
            ("100%", u64::MAX, u64::MAX),
            ("12.5%", 2 << 30, 256 << 20),
            ("33.3%", 10, 3),
            ("0%", 10, 0),
            ("99.999999999%", u64::MAX, 18_446_744_073_525_084_174),
        ] {
            let size: Size = text.parse().expect(text);
            assert_eq!(size.on(total), Max::At(Bytes(bytes)), "{text} of {total}");
        }
    }

    #[test]
    fn human() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1 B"),
            (1023, "1023 B"),
            (K, "1 KiB"),
            (1536 * M, "1.5 GiB"),
            (16 * G, "16 GiB"),
            (16 * G + 1, "16.0 GiB"),
            (13_851_690_000, "12.9 GiB"),
            (256 * M, "256 MiB"),
        ] {
            assert_eq!(Bytes(bytes).human(), text);
        }
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let mut bytes = 1u64;
        // Above that it is EiB, which is for reading alone.
        while bytes < P * 1000 {
            assert_eq!(Bytes(bytes).to_string().parse(), Ok(Size::Bytes(Bytes(bytes))));
            for near in [bytes - 1, bytes, bytes + 1] {
                let human = Bytes(near).human();
                let Ok(Size::Bytes(Bytes(read))) = human.parse() else {
                    panic!("{human}")
                };
                assert!(read.abs_diff(near) <= near / 16, "{near} is not {human}");
            }
            bytes = bytes * 3 - bytes / 7;
        }
    }

    #[test]
    fn pages() {
        assert_eq!(Bytes(33_554_433).rounded_to_page(4096), Bytes(33_554_432));
        assert_eq!(Bytes(65_537).rounded_to_page(65_536), Bytes(65_536));
    }
}
