//! Text for people: escaping what others chose (names, comm, command lines) and numbers at a glance. Pure.
#![deny(clippy::disallowed_methods)]

use std::fmt::Write;

/// `text` with control characters, and everything else a terminal could act on, written as an escape. Names, comm and
/// command lines are chosen by others; printed as they are they could inject terminal commands.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Besides control characters: bidirectional overrides and invisible formatting reorder or hide text.
        let tricky = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || tricky {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A number of bytes for people, in binary units with one digit: `16.0 GiB`, `512 B`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0 of the smaller unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Microseconds for people: `1.2 s`, `340 ms`, `2 min 5 s`.
pub fn duration_us(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => format!("{} min {} s", us / 60_000_000, us % 60_000_000 / 1_000_000),
    }
}

/// `1 process`, `2 processes`.
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A moment for people, in UTC: `2026-11-23 05:33:21Z`. `usec` is in microseconds since 1970.
///
/// Written here and in [`moment`], and not with a library for dates: no time zone, no leap second and no locale is meant.
pub fn time(usec: u64) -> String {
    let seconds = usec / 1_000_000;
    let (year, month, day) = date(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// The date of a day since 1970 in the Gregorian calendar: years of 400 repeat, and begin in March, so that the day that
/// some years have more is the last one.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (from_march, day) = (month < 10, of_year - (153 * month + 2) / 5 + 1);
    let month = if from_march { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The day since 1970 of a date, if there is that date.
fn day(year: u64, month: u64, of_month: u64) -> Option<u64> {
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&of_month) {
        return None;
    }
    let (from, month_from_march) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let (era, of_era) = (from / 400, from % 400);
    let of_year = (153 * month_from_march + 2) / 5 + of_month - 1;
    let found = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    (date(found) == (year, month, of_month)).then_some(found)
}

/// The moment that a text means, in microseconds since 1970: `2026-11-23`, `2026-11-23 05:33`, `2026-11-23T05:33:21Z` (all
/// in UTC), `@1795412001`; or so long before `now`: `90s`, `10m`, `2h`, `7d`.
pub fn moment(text: &str, now: u64) -> Option<u64> {
    const SECOND: u64 = 1_000_000;
    let digits = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u64>().ok())?
    };
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        return digits(seconds)?.checked_mul(SECOND);
    }
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let ago = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, seconds)));
    if let Some((number, seconds)) = ago {
        let ago = digits(number)?.checked_mul(*seconds)?.checked_mul(SECOND)?;
        return Some(now.saturating_sub(ago));
    }
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let date: Vec<u64> = date.split('-').map(digits).collect::<Option<_>>()?;
    let clock = clock.strip_suffix('Z').unwrap_or(clock);
    let clock: Vec<u64> = clock.split(':').map(digits).collect::<Option<_>>()?;
    let [year, month, of_month] = date[..] else {
        return None;
    };
    let (hour, minute, second) = match clock[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some((day(year, month, of_month)? * 86_400 + hour * 3600 + minute * 60 + second) * SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_could_act_on_is_escaped() {
        assert_eq!(escape("a\x1b[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(escape("\u{202e}x\u{9b}"), "\\u{202e}x\\u{9b}");
        assert_eq!(escape("rustc äöü"), "rustc äöü");
    }

    #[test]
    fn numbers_at_a_glance() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(17_179_869_184), "16.0 GiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration_us(999), "999 µs");
        assert_eq!(duration_us(1_500_000), "1.5 s");
        assert_eq!(duration_us(125_000_000), "2 min 5 s");
        assert_eq!(count(1, "process", "processes"), "1 process");
    }

    #[test]
    fn moments_are_written_and_read() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_795_412_001, "2026-11-23 05:33:21Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"),
        ] {
            assert_eq!(time(seconds * 1_000_000), text);
            assert_eq!(moment(text, 0), Some(seconds * 1_000_000));
        }
        let now = 1_795_412_001_000_000;
        assert_eq!(moment("@5", now), Some(5_000_000));
        assert_eq!(moment("90s", now), Some(now - 90_000_000));
        assert_eq!(moment("2h", now), Some(now - 7_200_000_000));
        assert_eq!(moment("2026-11-23", now), Some(1_795_392_000_000_000));
        assert_eq!(moment("2026-11-23T05:33", now), Some(1_795_411_980_000_000));
        for wrong in [
            "",
            "x",
            "-5m",
            "2100-02-29",
            "2026-13-01",
            "2026-11-23 24:00",
            "1969-12-31",
            "5",
            "+5s",
            "@-1",
        ] {
            assert_eq!(moment(wrong, now), None, "{wrong}");
        }
    }
}
