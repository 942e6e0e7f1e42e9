//! Properties of systemd's units: what a limit is called there, and the value that it takes.
//!
//! Sources: systemd.resource-control(5), org.freedesktop.systemd1(5).

use crate::limits::Setting;

/// A property's value, by its D-Bus type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `b`.
    Bool(bool),
    /// `t`. `u64::MAX` is infinity.
    U64(u64),
    /// `s`.
    Text(String),
    /// `as`.
    Texts(Vec<String>),
}

impl Value {
    /// The value for people, as `systemctl show` prints it.
    pub fn shown(&self) -> String {
        match self {
            Self::Bool(true) => "yes".into(),
            Self::Bool(false) => "no".into(),
            Self::U64(u64::MAX) => "infinity".into(),
            Self::U64(n) => n.to_string(),
            Self::Text(text) => text.clone(),
            Self::Texts(texts) => texts.join(" "),
        }
    }
}

/// A property and the value it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
}

impl Property {
    /// `name` = `value`.
    pub fn new(name: &'static str, value: Value) -> Self {
        Self { name, value }
    }

    /// A switch.
    pub fn switch(name: &'static str, on: bool) -> Self {
        Self::new(name, Value::Bool(on))
    }

    /// A text.
    pub fn text(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Value::Text(text.into()))
    }

    /// A number.
    pub fn number(name: &'static str, number: u64) -> Self {
        Self::new(name, Value::U64(number))
    }

    /// `NAME=VALUE`, for people.
    pub fn line(&self) -> String {
        format!("{}={}", self.name, self.value.shown())
    }
}

/// What of a session in a scope is on the group of the scope, which systemd writes, and not on the leaf with its processes.
pub fn is_of_unit(file: &str) -> bool {
    const MEMORY: [&str; 9] = [
        "memory.min",
        "memory.low",
        "memory.high",
        "memory.max",
        "memory.swap.max",
        "memory.current",
        "memory.peak",
        "memory.swap.current",
        "memory.events",
    ];
    file.starts_with("cpu.") || file == "io.weight" || MEMORY.contains(&file)
}

/// The CPU quota's period of everything that cgmgr sets, in µs; systemd's default too.
const PERIOD: u64 = 100_000;

/// What systemd is asked for a setting that has a control file. `None` where systemd has no property for it.
///
/// `systemd` is the manager's version: before 257 a CPU quota is rounded up to a whole percent, since systemd forgets the
/// rest at its next reload (runc#4622; measured with 252: 123456 became 123000).
pub fn of_setting(setting: &Setting, systemd: u32) -> Option<Property> {
    let name = setting.knob.systemd?;
    let text = setting.text()?;
    of_text(name, setting.knob.file?, &text, systemd)
}

/// The same for a property that is known by its name in unit files, with the kernel's text for `file`.
pub fn of_text(name: &'static str, file: &str, text: &str, systemd: u32) -> Option<Property> {
    let number = |text: &str| match text {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    };
    match file {
        // No property of a unit that lives: OOMPolicy is said when it is made, and what counts is a leaf's file.
        "memory.oom.group" => None,
        "cpu.max" => {
            let (quota, _period) = text.split_once(' ')?;
            let per_second = match number(quota)? {
                u64::MAX => u64::MAX,
                quota => quota_per_second(quota, systemd),
            };
            Some(Property::number("CPUQuotaPerSecUSec", per_second))
        }
        _ => {
            let value = number(text.strip_prefix("default ").unwrap_or(text))?;
            Some(Property::number(name, value))
        }
    }
}

/// A quota per 100 ms, in µs, as systemd takes it: per second, in µs.
fn quota_per_second(quota: u64, systemd: u32) -> u64 {
    /// One percent of a CPU, in µs per second.
    const PERCENT: u64 = 10_000;
    let per_second = quota.saturating_mul(1_000_000 / PERIOD);
    if systemd >= EXACT_QUOTA {
        return per_second;
    }
    per_second.div_ceil(PERCENT).max(1) * PERCENT
}

/// A version that rounds: what this one leaves as it is, every version does.
pub const ROUNDS: u32 = 252;

/// The first version of systemd that keeps a CPU quota as it was set.
const EXACT_QUOTA: u32 = 257;

/// The kernel's text of a `cpu.max` once systemd has set it, where that differs from what was declared.
pub fn rounded(text: &str, systemd: u32) -> Option<String> {
    let (quota, period) = text.split_once(' ')?;
    let quota: u64 = quota.parse().ok()?;
    let rounded = quota_per_second(quota, systemd) / (1_000_000 / PERIOD);
    (rounded != quota).then(|| format!("{rounded} {period}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str, text: &str, systemd: u32) -> Option<u64> {
        match of_text("X", file, text, systemd)?.value {
            Value::U64(n) => Some(n),
            _ => None,
        }
    }

    #[test]
    fn the_kernels_texts_become_systemds_numbers() {
        assert_eq!(of("memory.max", "max", 252), Some(u64::MAX));
        assert_eq!(of("memory.swap.max", "0", 252), Some(0));
        assert_eq!(of("io.weight", "default 50", 252), Some(50));
        assert_eq!(of("pids.max", "4096", 252), Some(4096));
        assert_eq!(of("memory.oom.group", "1", 252), None);
        assert_eq!(of("cpu.max", "max 100000", 252), Some(u64::MAX));
    }

    #[test]
    fn a_quota_is_rounded_up_to_what_systemd_remembers() {
        // runc#4622's vector, and one below one percent.
        assert_eq!(of("cpu.max", "123456 100000", 252), Some(1_240_000));
        assert_eq!(of("cpu.max", "123456 100000", 257), Some(1_234_560));
        assert_eq!(of("cpu.max", "1000 100000", 252), Some(10_000));
        assert_eq!(of("cpu.max", "200000 100000", 252), Some(2_000_000));
        assert_eq!(rounded("123450 100000", 252).as_deref(), Some("124000 100000"));
        assert_eq!(rounded("123450 100000", 257), None);
        assert_eq!(rounded("200000 100000", 252), None);
        assert_eq!(rounded("max 100000", 252), None);
    }
}
