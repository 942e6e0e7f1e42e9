//! Who a session is: the mark that cgmgr leaves on its group, so that the truth about it lives where the session does.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest command line kept, in bytes: an attribute must stay well below 64 KiB.
const COMMAND_MAX: usize = 1024;

/// A session's identity, kept as JSON in the attribute `user.cgmgr.session` of its group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The role's name; `None` where only flags gave limits.
    pub role: Option<String>,
    /// The role's file, as it was named.
    pub role_file: Option<String>,
    /// Limits given by flags: knob and text. They hold over what the role says, now and when it is applied again.
    #[serde(default)]
    pub overrides: Vec<(String, String)>,
    /// What was declared, by knob: the kernel's text.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
    /// Knobs that are not enforced.
    #[serde(default)]
    pub unconfined: Vec<String>,
    /// The command and its arguments, cut to about 1 KiB.
    #[serde(default)]
    pub command: Vec<String>,
    /// The user the command runs as.
    pub uid: u32,
    /// The cgmgr process in charge.
    pub supervisor: i32,
    /// When that process started, in ticks since boot: with the pid it names one process.
    #[serde(default)]
    pub supervisor_start: Option<u64>,
    /// When it began: seconds since 1970.
    pub started: u64,
}

impl Identity {
    /// The attribute's name behind `user.cgmgr.`.
    pub const KEY: &'static str = "session";

    /// The command line, cut so that the attribute stays small.
    pub fn cut_command(command: &[String]) -> Vec<String> {
        let mut left = COMMAND_MAX;
        let mut kept = Vec::new();
        for word in command {
            if word.len() > left {
                kept.push("…".to_owned());
                break;
            }
            left -= word.len();
            kept.push(word.clone());
        }
        kept
    }

    /// The attribute's text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The identity in an attribute's text, if it is one.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let identity = Identity {
            role: Some("rust".into()),
            command: Identity::cut_command(&["a".into(), "x".repeat(5000)]),
            overrides: vec![("memory_max".into(), "8GiB".into())],
            ..Identity::default()
        };
        assert_eq!(identity.command, ["a", "…"]);
        assert_eq!(Identity::from_text(&identity.to_text()), Some(identity));
        assert_eq!(Identity::from_text("{"), None);
    }
}
