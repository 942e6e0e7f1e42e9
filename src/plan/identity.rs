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
    /// Those knobs of the overrides that were set while the session ran (`cgmgr set`), in the order of the first time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_live: Vec<String>,
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
    /// The user who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<u32>,
    /// The nice value that the command was to get, declared or derived; `None` where cgmgr did not start it.
    #[serde(default)]
    pub nice: Option<i32>,
    /// The oom_score_adj that the command was to get, likewise.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
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

    /// Takes over what `cgmgr set` put in force: it holds over the role like a flag of the launch, of which it takes the
    /// place. `typed` is the text as the knob's grammar has it, `text` the kernel's; `falls_short`: the kernel holds it
    /// and nothing acts on it.
    pub fn set(&mut self, key: &str, typed: &str, text: &str, falls_short: bool) {
        match self.overrides.iter_mut().find(|(known, _)| known == key) {
            Some((_, before)) => *before = typed.to_owned(),
            None => self.overrides.push((key.to_owned(), typed.to_owned())),
        }
        if !self.set_live.iter().any(|known| known == key) {
            self.set_live.push(key.to_owned());
        }
        self.limits.insert(key.to_owned(), text.to_owned());
        self.unconfined.retain(|known| known != key);
        if falls_short {
            self.unconfined.push(key.to_owned());
        }
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

    #[test]
    fn what_is_set_live_takes_the_place_of_the_flag() {
        let mut identity = Identity {
            overrides: vec![("memory_max".into(), "8GiB".into()), ("pids".into(), "9".into())],
            unconfined: vec!["cpus".into()],
            ..Identity::default()
        };
        identity.set("memory_max", "50%", "4096", false);
        identity.set("cpus", "2", "200000 100000", false);
        identity.set("cpus", "max", "max 100000", false);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            identity.overrides,
            [pair("memory_max", "50%"), pair("pids", "9"), pair("cpus", "max")]
        );
        assert_eq!(identity.set_live, ["memory_max", "cpus"]);
        assert_eq!(identity.limits["cpus"], "max 100000");
        assert!(identity.unconfined.is_empty());
        identity.set("io_weight", "50", "default 50", true);
        assert_eq!(identity.unconfined, ["io_weight"]);
        assert_eq!(Identity::from_text(&identity.to_text()), Some(identity));
    }
}
