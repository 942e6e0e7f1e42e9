//! What systemd refused, or why it could not be asked. May not do I/O.
#![deny(clippy::disallowed_methods)]

use std::fmt;

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is no manager to ask: no socket, or nobody behind it.
    Unreachable,
    /// It did not answer, or did not finish, in time.
    TimedOut,
    /// The caller may not (polkit wants an administrator).
    Denied,
    /// A unit of that name is loaded already.
    UnitExists,
    /// There is no such unit.
    NoSuchUnit,
    /// This version of systemd does not know, or does not let set, a property.
    Property,
    /// The job was queued, and did not end in `done`.
    JobFailed,
    /// Anything else.
    Refused,
}

/// A request to systemd that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusError {
    /// Why, for programs.
    pub reason: Reason,
    /// What was asked, of whom, and the answer.
    pub message: String,
    /// One line of remedy.
    pub help: String,
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BusError {}

impl Reason {
    /// What a D-Bus error's name means here (systemd's src/libsystemd/sd-bus/bus-common-errors.h).
    pub(super) fn of_name(name: &str) -> Self {
        match name {
            "org.freedesktop.systemd1.UnitExists" => Self::UnitExists,
            "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.DBus.Error.UnknownObject" => {
                Self::NoSuchUnit
            }
            "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
            | "org.freedesktop.DBus.Error.AccessDenied"
            | "org.freedesktop.DBus.Error.AuthFailed" => Self::Denied,
            "org.freedesktop.DBus.Error.PropertyReadOnly" | "org.freedesktop.DBus.Error.UnknownProperty" => {
                Self::Property
            }
            "org.freedesktop.DBus.Error.ServiceUnknown"
            | "org.freedesktop.DBus.Error.NameHasNoOwner"
            | "org.freedesktop.DBus.Error.Disconnected"
            | "org.freedesktop.DBus.Error.NoServer" => Self::Unreachable,
            "org.freedesktop.DBus.Error.NoReply"
            | "org.freedesktop.DBus.Error.Timeout"
            | "org.freedesktop.DBus.Error.TimedOut" => Self::TimedOut,
            _ => Self::Refused,
        }
    }

    /// The remedy.
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Unreachable => "is systemd PID 1, and D-Bus up? `systemctl is-system-running` shows it",
            Self::TimedOut => {
                "systemd is busy or hangs: `systemctl list-jobs` shows what it waits for; try again"
            }
            Self::Denied => "run as root",
            Self::UnitExists => "choose another name, or stop that unit first: systemctl stop UNIT",
            Self::NoSuchUnit => "`cgmgr status` lists what there is",
            Self::Property => "this version of systemd cannot do that; `systemctl --version` shows it",
            Self::JobFailed | Self::Refused => {
                "`systemctl status UNIT` and `journalctl -b` show what systemd said"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_meanings() {
        for (name, reason) in [
            ("org.freedesktop.systemd1.UnitExists", Reason::UnitExists),
            (
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
                Reason::Denied,
            ),
            (
                "org.freedesktop.systemd1.TransactionIsDestructive",
                Reason::Refused,
            ),
        ] {
            assert_eq!(Reason::of_name(name), reason);
        }
    }
}
