//! CPU time per period.

use std::fmt;
use std::str::FromStr;

use super::decimal::{Decimal, overflow};
use super::error::{ErrorKind, GrammarError};
use super::max::Max;

/// The period of every quota that is written, in µs: the kernel's default.
pub const PERIOD_US: u64 = 100_000;

/// Quotas are whole multiples of this, in µs. It is what a person can write (0.0001 CPUs, 0.01%).
const RESOLUTION_US: u64 = 10;

/// The kernel refuses less (`min_cfs_quota_period`), in µs.
const LEAST_US: u64 = 1_000;

/// The kernel refuses this and more (`max_cfs_runtime`), in µs.
const TOO_MUCH_US: u64 = 1 << 44;

/// CPU time per [`PERIOD_US`], for all processes of a group together. 100 000 µs is one CPU. At least 1 000 µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuQuota {
    quota_us: u64,
}

impl CpuQuota {
    /// A quota of `quota_us` µs per period; an error outside 1 000 µs to 2^44 µs, which the kernel refuses.
    pub fn from_us(quota_us: u64) -> Result<CpuQuota, GrammarError> {
        if quota_us == 0 {
            return Err(GrammarError::new(
                ErrorKind::Zero,
                "no CPU time at all would stop every process",
                "write at least 0.01, or \"max\" for no limit",
            ));
        }
        if quota_us < LEAST_US {
            return Err(GrammarError::new(
                ErrorKind::TooSmall,
                format!("below the kernel's minimum of {LEAST_US} µs in {PERIOD_US} µs"),
                "write at least 0.01 (\"1%\" of a CPU)",
            ));
        }
        if quota_us >= TOO_MUCH_US {
            return Err(overflow());
        }
        Ok(CpuQuota { quota_us })
    }

    /// As many whole CPUs.
    pub fn from_cpus(cpus: u32) -> Result<CpuQuota, GrammarError> {
        CpuQuota::from_us(u64::from(cpus) * PERIOD_US)
    }

    /// µs per period.
    pub fn quota_us(self) -> u64 {
        self.quota_us
    }

    /// The least number of whole CPUs that can use this quota up.
    pub fn ceil(self) -> u64 {
        self.quota_us.div_ceil(PERIOD_US)
    }

    /// Reads `3`, `3.0`, `300%` or `max`.
    pub fn parse(text: &str) -> Result<Max<CpuQuota>, GrammarError> {
        if text.trim_matches([' ', '\t']).eq_ignore_ascii_case("max") {
            return Ok(Max::Max);
        }
        text.parse().map(Max::At)
    }
}

/// A number of CPUs, or of hundredths of a CPU with `%`.
impl FromStr for CpuQuota {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<CpuQuota, GrammarError> {
        let (number, unit) = Decimal::split(text)?;
        let steps_per_one = match unit {
            "" => PERIOD_US / RESOLUTION_US,
            "%" => PERIOD_US / RESOLUTION_US / 100,
            _ => {
                return Err(GrammarError::new(
                    ErrorKind::UnknownUnit,
                    format!("unknown unit {unit:?}"),
                    "write a number of CPUs such as 1.5, or a percentage of one CPU such as \"150%\"",
                ));
            }
        };
        let (steps, exact) = number.times(steps_per_one).ok_or_else(overflow)?;
        let quota = u64::try_from(steps)
            .ok()
            .and_then(|steps| steps.checked_mul(RESOLUTION_US));
        let quota = quota.ok_or_else(overflow)?;
        if !exact && quota >= LEAST_US {
            return Err(GrammarError::new(
                ErrorKind::TooPrecise,
                format!("finer than the resolution of {RESOLUTION_US} µs in {PERIOD_US} µs (0.0001 CPUs)"),
                format!("write {}", CpuQuota { quota_us: quota }),
            ));
        }
        if quota == 0 && !number.is_zero() {
            return CpuQuota::from_us(1);
        }
        CpuQuota::from_us(quota)
    }
}

/// The number of CPUs, exactly: `3`, `1.2345`.
impl fmt::Display for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.quota_us / PERIOD_US, self.quota_us % PERIOD_US);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{rest:05}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ErrorKind::*;

    #[test]
    fn quotas() {
        for (text, quota_us) in [
            ("3", 300_000),
            ("3.0", 300_000),
            ("300%", 300_000),
            ("300 %", 300_000),
            ("0.5", 50_000),
            ("50%", 50_000),
            ("1.2345", 123_450),
            ("1.23450", 123_450),
            ("123.45%", 123_450),
            ("0.01", 1_000),
            ("1%", 1_000),
            ("7.5", 750_000),
            (" 2 ", 200_000),
            ("175921860", 17_592_186_000_000),
        ] {
            assert_eq!(text.parse(), Ok(CpuQuota { quota_us }), "{text:?}");
        }
        assert_eq!(CpuQuota::parse("max"), Ok(Max::Max));
        assert_eq!(
            CpuQuota::parse("3.0"),
            Ok(Max::At(CpuQuota { quota_us: 300_000 }))
        );
    }

    #[test]
    fn no_quotas() {
        for (text, kind) in [
            ("", Empty),
            ("0", Zero),
            ("0.0", Zero),
            ("0%", Zero),
            ("0.00", Zero),
            ("0.009", TooSmall),
            ("0.0099", TooSmall),
            ("0.000001", TooSmall),
            ("0.99%", TooSmall),
            ("1.23456", TooPrecise),
            ("123.456%", TooPrecise),
            ("0.3333333333333333", TooPrecise),
            ("-1", Negative),
            ("-0.5", Negative),
            ("+2", Sign),
            ("nan", NotFinite),
            ("NaN", NotFinite),
            ("inf", NotFinite),
            ("infinity", NotFinite),
            ("1e1", Exponent),
            ("1_0", Separator),
            ("1,5", Separator),
            ("２", NonAscii),
            ("3 cpus", UnknownUnit),
            ("300m", UnknownUnit),
            ("three", NotANumber),
            ("1.", NotANumber),
            (".5", NotANumber),
            ("175921861", Overflow),
            ("99999999999999999999999999", Overflow),
            ("18446744073709551615", Overflow),
        ] {
            let error = CpuQuota::parse(text).expect_err(text);
            assert_eq!(error.kind(), kind, "{text:?}: {error}");
        }
    }

    #[test]
    fn below_the_minimum_names_it() {
        let error = CpuQuota::parse("0.005").expect_err("500 µs");
        assert_eq!(
            error.message(),
            "below the kernel's minimum of 1000 µs in 100000 µs"
        );
        let error = CpuQuota::parse("1.23456").expect_err("123456 µs");
        assert_eq!(
            error.message(),
            "finer than the resolution of 10 µs in 100000 µs (0.0001 CPUs)"
        );
        assert_eq!(error.help(), "write 1.2345");
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let mut quota_us = LEAST_US;
        while quota_us < TOO_MUCH_US {
            let quota = CpuQuota { quota_us };
            assert_eq!(quota.to_string().parse(), Ok(quota));
            quota_us = (quota_us + quota_us / 3) / RESOLUTION_US * RESOLUTION_US + RESOLUTION_US;
        }
    }

    #[test]
    fn whole_cpus() {
        for (quota_us, cpus) in [(1_000, 1), (100_000, 1), (100_001, 2), (300_000, 3)] {
            assert_eq!(CpuQuota { quota_us }.ceil(), cpus);
        }
    }
}
