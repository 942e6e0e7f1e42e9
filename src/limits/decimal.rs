//! Decimal numbers read exactly, in integers: a limit must not change on its way through a float.

use super::error::{ErrorKind, GrammarError};

/// With more digits than this after the point, a product with 10^15 bytes would not fit into 128 bits.
const MOST_DECIMALS: usize = 22;

/// With so many digits after the point, a product with any 64-bit number fits into 128 bits.
pub(super) const FEW_DECIMALS: u32 = 9;

/// A number that is not negative: `int` + `frac` / 10^`decimals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    int: u64,
    frac: u128,
    decimals: u32,
}

impl Decimal {
    /// Splits `text` into its number and what follows it. The number is digits, and optionally a point and digits.
    /// Everything that looks like a number to other programs and is none here gets its own error.
    pub(super) fn split(text: &str) -> Result<(Decimal, &str), GrammarError> {
        let fail = |kind, message: String, help: &str| Err(GrammarError::new(kind, message, help));
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return fail(
                ErrorKind::Empty,
                "the value is empty".into(),
                "give a value, or leave the key out",
            );
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii()) {
            let message = format!("{odd:?} is not an ASCII character");
            return fail(ErrorKind::NonAscii, message, "write digits 0-9 and a plain unit");
        }
        if text.starts_with('-') {
            return fail(
                ErrorKind::Negative,
                "a limit cannot be negative".into(),
                "write \"max\" for no limit, or leave the key out",
            );
        }
        if text.starts_with('+') {
            return fail(
                ErrorKind::Sign,
                "a sign has no meaning here".into(),
                "leave the sign out",
            );
        }
        if is_unbounded_word(text) {
            let message = "there is no such amount".to_string();
            return fail(ErrorKind::NotFinite, message, "write \"max\" for no limit");
        }
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        if rest.starts_with(['_', ',', '\'']) {
            let message = format!("{:?} between digits", &rest[..1]);
            return fail(
                ErrorKind::Separator,
                message,
                "write the digits together, with a point for fractions",
            );
        }
        if is_exponent(rest) {
            let message = "exponents are not understood".to_string();
            return fail(
                ErrorKind::Exponent,
                message,
                "write the number out, or use a larger unit",
            );
        }
        let (int, frac) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(int) || !digits(frac) {
            let message = "not a number".to_string();
            return fail(
                ErrorKind::NotANumber,
                message,
                "write digits, with a digit on each side of a point",
            );
        }
        let Ok(int) = int.parse::<u64>() else {
            return Err(overflow());
        };
        let frac = frac.trim_end_matches('0');
        if frac.len() > MOST_DECIMALS {
            let message = format!("more than {MOST_DECIMALS} digits after the point");
            return fail(ErrorKind::TooPrecise, message, "round it");
        }
        // At most 22 digits always fit into 128 bits.
        let value = frac.bytes().fold(0u128, |sum, b| sum * 10 + u128::from(b - b'0'));
        Ok((
            Decimal {
                int,
                frac: value,
                decimals: frac.len() as u32,
            },
            rest.trim_start_matches([' ', '\t']),
        ))
    }

    /// `self` × `unit`, rounded down, and whether that was exact. None: more than fits. It fits for every `unit` up to
    /// 2^50, and for every other one as well with at most [`FEW_DECIMALS`].
    pub(super) fn times(self, unit: u64) -> Option<(u128, bool)> {
        let scale = 10u128.pow(self.decimals);
        let part = self.frac.checked_mul(u128::from(unit))?;
        Some((
            u128::from(self.int) * u128::from(unit) + part / scale,
            part % scale == 0,
        ))
    }

    /// How many digits there are after the point, without zeros at the end.
    pub(super) fn decimals(self) -> u32 {
        self.decimals
    }

    pub(super) fn is_zero(self) -> bool {
        self.int == 0 && self.frac == 0
    }

    /// The integer that it is, if it is one.
    pub(super) fn integer(self) -> Option<u64> {
        (self.frac == 0).then_some(self.int)
    }
}

/// More than can be held.
pub(super) fn overflow() -> GrammarError {
    GrammarError::new(
        ErrorKind::Overflow,
        "larger than any machine",
        "write a smaller amount, or \"max\" for no limit",
    )
}

/// Words that other programs take for "no limit". A typo must never lift a limit, so there is one word for it: `max`.
fn is_unbounded_word(text: &str) -> bool {
    ["infinity", "infinite", "inf", "nan", "unlimited", "none"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

/// `e3`, `E+3`, and no unit that begins with an E.
fn is_exponent(rest: &str) -> bool {
    let mut chars = rest.bytes();
    matches!(chars.next(), Some(b'e' | b'E')) && matches!(chars.next(), Some(b'0'..=b'9' | b'+' | b'-'))
}
