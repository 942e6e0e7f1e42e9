//! One machine's settings: a value or its absence for every knob, and where each came from.

use std::fmt;
use std::path::PathBuf;

use super::knob::{Knob, KnobId, Part};
use super::table::KNOBS;
use super::value::Value;

/// Where a value came from. The order of precedence is: host policy caps everything; below it a flag, then the role,
/// then what the role inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A command-line flag, e.g. `--memory-max`.
    Flag(String),
    /// The role file itself.
    Role {
        /// The path, as it was given.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A role file that the role extends.
    Inherited {
        /// The path, as it was found.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The operator's file.
    HostPolicy {
        /// The path.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// It follows from something else: the reason, e.g. `memory_max is set: 0 unless given`.
    Derived(String),
    /// Nobody declared it.
    Default,
}

impl Origin {
    /// One short word or two: `flag`, `role`, `inherited`, `host policy`, `derived`, `default`.
    pub fn label(&self) -> &'static str {
        match self {
            Origin::Flag(_) => "flag",
            Origin::Role { .. } => "role",
            Origin::Inherited { .. } => "inherited",
            Origin::HostPolicy { .. } => "host policy",
            Origin::Derived(_) => "derived",
            Origin::Default => "default",
        }
    }

    /// The place, if it is one: `rust.role.toml:7`, `--memory-max`.
    pub fn source(&self) -> Option<String> {
        match self {
            Origin::Flag(flag) => Some(flag.clone()),
            Origin::Role { file, line }
            | Origin::Inherited { file, line }
            | Origin::HostPolicy { file, line } => Some(format!("{}:{line}", file.display())),
            Origin::Derived(_) | Origin::Default => None,
        }
    }
}

/// `role (rust.role.toml:7)`, `derived (memory_max is set: 0 unless given)`, `default`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())?;
        match self {
            Origin::Derived(why) => write!(f, " ({why})"),
            other => other.source().map_or(Ok(()), |source| write!(f, " ({source})")),
        }
    }
}

/// One knob's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Which knob.
    pub knob: &'static Knob,
    /// What it is set to; None: nobody declared it, and what the kernel has stays.
    pub value: Option<Value>,
    /// Where the value, or its absence, came from.
    pub origin: Origin,
    /// For nice and oom_score_adj: the least that the host allows, however the value comes to be. What a relative nice
    /// value and an absent one amount to is known at launch only.
    pub least: Option<Value>,
    /// What a reader should know beside it, e.g. what it really amounts to on this machine.
    pub note: Option<String>,
}

impl Setting {
    /// The kernel's text of the value, or else of the kernel's default, or else cgmgr's own default where the knob is
    /// cgmgr's own. None: undeclared, and what is in force depends on who launches.
    pub fn text(&self) -> Option<String> {
        match &self.value {
            Some(value) => Some(value.kernel_text(self.knob)),
            None if self.knob.file.is_none() && !self.knob.is_on_process() => Some(self.knob.absent.into()),
            None => self.knob.kernel_default.map(String::from),
        }
    }

    /// For reading: `12 GiB`, or `false (default)` where nobody declared it.
    pub fn human(&self) -> String {
        match &self.value {
            Some(value) => value.human(),
            // Not a default of anybody's, but whatever the process that launches has.
            None if self.knob.is_on_process() => self.knob.absent.into(),
            None => format!("{} (default)", self.knob.absent),
        }
    }
}

/// A setting for every knob, in the order of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    settings: Vec<Setting>,
}

impl Settings {
    /// Nothing declared at all.
    pub fn none() -> Settings {
        let setting = |knob| Setting {
            knob,
            value: None,
            origin: Origin::Default,
            least: None,
            note: None,
        };
        Settings {
            settings: KNOBS.iter().map(setting).collect(),
        }
    }

    /// The setting of a knob.
    pub fn get(&self, id: KnobId) -> &Setting {
        &self.settings[id as usize]
    }

    /// The setting of a knob, to change it.
    pub fn get_mut(&mut self, id: KnobId) -> &mut Setting {
        &mut self.settings[id as usize]
    }

    /// The value of a knob, if it has one.
    pub fn value(&self, id: KnobId) -> Option<&Value> {
        self.get(id).value.as_ref()
    }

    /// Sets a knob.
    pub fn set(&mut self, id: KnobId, value: Value, origin: Origin) {
        let setting = self.get_mut(id);
        setting.value = Some(value);
        setting.origin = origin;
    }

    /// All of them, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter()
    }

    /// Those of one part, in the order of the table.
    pub fn part(&self, part: Part) -> impl Iterator<Item = &Setting> {
        self.settings
            .iter()
            .filter(move |setting| setting.knob.part == part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Max;

    #[test]
    fn absent_is_what_the_kernel_has() {
        let settings = Settings::none();
        let text = |id| settings.get(id).text();
        assert_eq!(text(KnobId::OomGroup).as_deref(), Some("0"));
        assert_eq!(text(KnobId::Cpus).as_deref(), Some("max 100000"));
        assert_eq!(text(KnobId::IoWeight).as_deref(), Some("default 100"));
        assert_eq!(text(KnobId::Nofile), None);
        assert_eq!(text(KnobId::OomNotify).as_deref(), Some("true"));
        assert_eq!(text(KnobId::WorkloadsAdmission).as_deref(), Some("off"));
        assert_eq!(settings.get(KnobId::OomGroup).human(), "false (default)");
    }

    #[test]
    fn parts_are_the_whole() {
        let settings = Settings::none();
        let parts: Vec<_> = Part::ALL
            .into_iter()
            .flat_map(|part| settings.part(part))
            .collect();
        assert_eq!(parts, settings.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_set_knob_has_its_text_and_source() {
        let mut settings = Settings::none();
        let origin = Origin::Role {
            file: "rust.role.toml".into(),
            line: 7,
        };
        settings.set(KnobId::Pids, Value::Count(Max::At(64)), origin);
        let pids = settings.get(KnobId::Pids);
        assert_eq!(pids.text().as_deref(), Some("64"));
        assert_eq!(pids.origin.to_string(), "role (rust.role.toml:7)");
    }
}
