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
}
