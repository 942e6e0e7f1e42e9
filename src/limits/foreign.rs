//! Sizes as the files of other programs write them: jackin's `[docker.grants]` and multicode's `[isolation]`.

use super::decimal::{Decimal, overflow};
use super::error::{ErrorKind, GrammarError};
use super::size::{Bytes, MEMORY_FLOOR, Size};

const GRANT_HELP: &str = "write a size such as \"512M\", \"4G\" or \"32G\"";

impl Size {
    /// Reads a size of jackin's `[docker.grants]`: a whole number and `K`, `M`, `G` or `T`, with or without a `B`, in any
    /// case, all of them binary; without a unit it is bytes. There are no fractions, no percentages, no `iB` and no
    /// `max`; the error says how to write the same amount. At least 1 MiB, below 8 EiB.
    pub fn parse_grant(text: &str) -> Result<Size, GrammarError> {
        let (number, unit) = Decimal::split(text.trim()).map_err(|error| error.with_help(GRANT_HELP))?;
        let letter = unit.get(..1).unwrap_or_default().to_ascii_uppercase();
        let power = "KMGT".find(&letter).filter(|_| !unit.is_empty());
        let factor = match (
            power,
            unit.get(1..).unwrap_or_default().to_ascii_uppercase().as_str(),
        ) {
            (None, "") if unit.is_empty() => 1,
            (Some(power), "" | "B") => 1024u64.pow(power as u32 + 1),
            (Some(power), "I" | "IB") => {
                let bytes = number.times(1024u64.pow(power as u32 + 1));
                let same = bytes.and_then(|(bytes, _)| u64::try_from(bytes).ok());
                let same = same.map_or_else(
                    || GRANT_HELP.to_owned(),
                    |bytes| format!("write \"{}\": K, M, G and T are binary here", grant_text(bytes)),
                );
                return Err(GrammarError::new(
                    ErrorKind::UnknownUnit,
                    format!("{unit:?} is no unit of [docker.grants]"),
                    same,
                ));
            }
            _ => {
                return Err(GrammarError::new(
                    ErrorKind::UnknownUnit,
                    format!("unknown unit {unit:?}"),
                    "use K, M, G or T (KB, MB, GB and TB are the same: all are binary here)",
                ));
            }
        };
        let bytes = number
            .times(factor)
            .and_then(|(bytes, _)| u64::try_from(bytes).ok());
        let Some(bytes) = bytes.filter(|bytes| *bytes < 1 << 63) else {
            return Err(overflow().with_help("write less than 8 EiB"));
        };
        if number.integer().is_none() {
            return Err(GrammarError::new(
                ErrorKind::NotANumber,
                "a fraction, and [docker.grants] has whole numbers only",
                format!("write \"{}\"", grant_text(bytes)),
            ));
        }
        if bytes < MEMORY_FLOOR.0 {
            return Err(GrammarError::new(
                if bytes == 0 {
                    ErrorKind::Zero
                } else {
                    ErrorKind::TooSmall
                },
                "no process could run in less than 1 MiB",
                "write at least \"1M\"; a number without a unit is bytes",
            ));
        }
        Ok(Size::Bytes(Bytes(bytes)))
    }

    /// Reads a size of multicode's `[isolation]`: what a role file takes, and the units as words (`12 gibibytes`), which
    /// its parser knows too. Blank is None: no limit.
    pub fn parse_isolation(text: &str) -> Result<Option<Size>, GrammarError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let word = text.len() - text.bytes().rev().take_while(u8::is_ascii_alphabetic).count();
        let (number, unit) = text.split_at(word);
        let unit = unit.to_ascii_lowercase();
        let short = match unit.strip_suffix('s').unwrap_or(&unit) {
            "byte" => "B",
            "kilobyte" => "KB",
            "megabyte" => "MB",
            "gigabyte" => "GB",
            "terabyte" => "TB",
            "petabyte" => "PB",
            "kibibyte" => "KiB",
            "mebibyte" => "MiB",
            "gibibyte" => "GiB",
            "tebibyte" => "TiB",
            "pebibyte" => "PiB",
            _ => return text.parse().map(Some),
        };
        format!("{number}{short}").parse().map(Some)
    }
}

/// An amount in the largest unit of [`Size::parse_grant`] that holds it exactly: `16G`, `1536M`, `1000`.
pub(crate) fn grant_text(bytes: u64) -> String {
    let units = [("T", 1u64 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    let exact = units
        .iter()
        .find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    exact.map_or_else(
        || bytes.to_string(),
        |(name, unit)| format!("{}{name}", bytes / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ErrorKind::*;

    #[test]
    fn j2_grants_are_binary_whatever_they_are_called() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("4G", 4 << 30),
            ("4g", 4 << 30),
            ("4GB", 4 << 30),
            ("4gb", 4 << 30),
            (" 16 G ", 16 << 30),
            ("2048K", 2 << 20),
            ("2048kB", 2 << 20),
            ("2T", 2u64 << 40),
            ("1048576", 1 << 20),
            ("8388607T", 8_388_607 << 40),
        ] {
            assert_eq!(Size::parse_grant(text), Ok(Size::Bytes(Bytes(bytes))), "{text:?}");
        }
    }

    #[test]
    fn j10_j11_what_is_no_grant_has_its_remedy() {
        for (text, kind, help) in [
            (
                "12 GiB",
                UnknownUnit,
                "write \"12G\": K, M, G and T are binary here",
            ),
            (
                "1.5GiB",
                UnknownUnit,
                "write \"1536M\": K, M, G and T are binary here",
            ),
            ("1.5G", NotANumber, "write \"1536M\""),
            ("16 gigabytes", UnknownUnit, "use K, M, G or T"),
            ("4P", UnknownUnit, "use K, M, G or T"),
            ("4B", UnknownUnit, "use K, M, G or T"),
            ("80%", UnknownUnit, "use K, M, G or T"),
            ("", Empty, GRANT_HELP),
            ("max", NotANumber, GRANT_HELP),
            ("unlimited", NotFinite, GRANT_HELP),
            ("-1", Negative, GRANT_HELP),
            ("1e3", Exponent, GRANT_HELP),
            ("４G", NonAscii, GRANT_HELP),
            ("8388608T", Overflow, "write less than 8 EiB"),
            ("99999999999999999999", Overflow, GRANT_HELP),
            ("0", Zero, "write at least \"1M\""),
            ("512", TooSmall, "write at least \"1M\""),
        ] {
            let error = Size::parse_grant(text).expect_err(text);
            assert_eq!(error.kind(), kind, "{text:?}: {error}");
            assert!(error.help().starts_with(help), "{text:?}: {}", error.help());
        }
    }

    #[test]
    fn u2_u3_isolation_has_decimal_and_binary_units_words_and_blanks() {
        for (text, bytes) in [
            ("12 GiB", 12u64 << 30),
            ("12 GB", 12_000_000_000),
            ("12gb", 12_000_000_000),
            ("512MB", 512_000_000),
            ("1.5GB", 1_500_000_000),
            ("12 gibibytes", 12 << 30),
            ("12.5 Megabytes", 12_500_000),
            ("1048576", 1 << 20),
            ("1048576 bytes", 1 << 20),
        ] {
            assert_eq!(
                Size::parse_isolation(text),
                Ok(Some(Size::Bytes(Bytes(bytes)))),
                "{text:?}"
            );
        }
        for blank in ["", "  ", "\t\n"] {
            assert_eq!(Size::parse_isolation(blank), Ok(None));
        }
        for (text, kind) in [
            ("-5 GiB", Negative),
            ("５ GiB", NonAscii),
            ("12 GX", UnknownUnit),
            ("1e3 KiB", Exponent),
        ] {
            let error = Size::parse_isolation(text).expect_err(text);
            assert_eq!(error.kind(), kind, "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read() {
        for bytes in [1u64 << 20, 3 << 20, (1 << 20) + 1, 1 << 30, 7 << 40] {
            assert_eq!(
                Size::parse_grant(&grant_text(bytes)),
                Ok(Size::Bytes(Bytes(bytes)))
            );
        }
    }
}
