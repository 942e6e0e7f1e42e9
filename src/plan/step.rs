//! One change to the machine, and the order of many.

use super::unit::{self, Property};
use crate::limits::{Controller, KnobId};
use crate::path::GroupPath;
use serde_json::{Value as Json, json};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `mkdir` of a group, marked as made by cgmgr.
    MakeGroup {
        /// The group.
        group: GroupPath,
    },
    /// Move every process of `from` to the leaf `to`: a group with controllers for children must hold none itself.
    MoveAll {
        /// The group to empty.
        from: GroupPath,
        /// The leaf that takes them.
        to: GroupPath,
    },
    /// Enable controllers for a group's children, in one write, and remember on the group which of them cgmgr enabled.
    Enable {
        /// The group.
        group: GroupPath,
        /// What to enable.
        controllers: Vec<Controller>,
        /// What cgmgr had enabled there before.
        remembered: Option<String>,
    },
    /// Take the controllers away again that cgmgr enabled.
    Disable {
        /// The group.
        group: GroupPath,
        /// What to disable.
        controllers: Vec<Controller>,
    },
    /// Write a knob's value to its control file.
    Write {
        /// The group.
        group: GroupPath,
        /// The knob.
        knob: KnobId,
        /// The kernel's text.
        value: String,
        /// What the file holds now; `None` where the group is yet to be made.
        before: Option<String>,
    },
    /// Set the attribute `user.cgmgr.session` of a session's group.
    Identify {
        /// The group.
        group: GroupPath,
        /// The attribute's text.
        identity: String,
    },
    /// Kill every process in and below a group, and wait until it is empty.
    Kill {
        /// The group.
        group: GroupPath,
    },
    /// `rmdir` of a group that cgmgr made.
    RemoveGroup {
        /// The group.
        group: GroupPath,
    },
    /// Forget on a group that is not ours what cgmgr had enabled there.
    Unmark {
        /// The group.
        group: GroupPath,
    },
    /// Write, or with no text remove, cgmgr's drop-in for a systemd slice. systemd reads it at its next reload.
    DropIn {
        /// The file.
        path: String,
        /// The text; `None` removes the file.
        text: Option<String>,
        /// What it holds now.
        before: Option<String>,
    },
    /// Have systemd read its units again and apply the slices' limits.
    Reload {
        /// The slices whose limits changed.
        units: Vec<String>,
    },
    /// Have systemd make a unit that is in no file, or give one that runs without a file these properties.
    StartTransient {
        /// The unit.
        unit: String,
        /// Its properties.
        properties: Vec<Property>,
        /// What they are now, where the unit runs already: it is not stopped to take this back.
        before: Option<Vec<Property>>,
    },
    /// Have systemd set properties of a unit that runs, until the next boot.
    SetProperties {
        /// The unit.
        unit: String,
        /// The properties.
        properties: Vec<Property>,
        /// What they are now.
        before: Vec<Property>,
    },
    /// Have systemd stop a unit that is in no file.
    StopUnit {
        /// The unit.
        unit: String,
        /// The properties that it has.
        properties: Vec<Property>,
    },
}

/// The control file that enables controllers for children.
pub const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// `+cpu +memory`, or with `-`.
pub fn signed(sign: char, controllers: &[Controller]) -> String {
    controllers
        .iter()
        .map(|c| format!("{sign}{}", c.name()))
        .collect::<Vec<_>>()
        .join(" ")
}

impl Step {
    /// The step's name.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::MakeGroup { .. } => "mkdir",
            Self::MoveAll { .. } => "move",
            Self::Write { group, knob, .. }
                if group.scope().is_some() && knob.knob().file.is_some_and(unit::is_of_unit) =>
            {
                // By systemd, as a property of the scope.
                "set"
            }
            Self::Enable { .. } | Self::Disable { .. } | Self::Write { .. } => "write",
            Self::Identify { .. } => "mark",
            Self::Unmark { .. } => "unmark",
            Self::Kill { .. } => "kill",
            Self::RemoveGroup { .. } => "rmdir",
            Self::DropIn { text: Some(_), .. } => "write",
            Self::DropIn { text: None, .. } => "remove",
            Self::Reload { .. } => "reload",
            Self::StartTransient { .. } => "start",
            Self::SetProperties { .. } => "set",
            Self::StopUnit { .. } => "stop",
        }
    }

    /// The file or directory it changes, below the mount point `mount`.
    pub fn path(&self, mount: &str) -> String {
        let at = |group: &GroupPath| {
            if group.is_root() {
                mount.to_owned()
            } else {
                format!("{mount}{group}")
            }
        };
        match self {
            Self::MakeGroup { group } | Self::RemoveGroup { group } => at(group),
            Self::Identify { group, .. } | Self::Unmark { group } => at(group),
            Self::MoveAll { to, .. } => format!("{}/cgroup.procs", at(to)),
            Self::Enable { group, .. } | Self::Disable { group, .. } => {
                format!("{}/{SUBTREE_CONTROL}", at(group))
            }
            Self::Write { group, knob, .. } => {
                let file = knob.knob().file.unwrap_or("?");
                let scope = group.scope().filter(|_| unit::is_of_unit(file));
                format!("{}/{file}", at(scope.as_ref().unwrap_or(group)))
            }
            Self::Kill { group } => format!("{}/cgroup.kill", at(group)),
            Self::DropIn { path, .. } => path.clone(),
            Self::Reload { units } => units.join(" "),
            Self::StartTransient { unit, .. }
            | Self::SetProperties { unit, .. }
            | Self::StopUnit { unit, .. } => unit.clone(),
        }
    }

    /// What is written there, if something is.
    pub fn value(&self) -> Option<String> {
        match self {
            Self::Write { value, .. } => Some(value.clone()),
            Self::Enable { controllers, .. } => Some(signed('+', controllers)),
            Self::Disable { controllers, .. } => Some(signed('-', controllers)),
            Self::MoveAll { from, .. } => Some(format!("every process of {from}")),
            Self::Kill { .. } => Some("1".into()),
            Self::Identify { identity, .. } => Some(format!("user.cgmgr.session={identity}")),
            Self::DropIn { text, .. } => text.clone(),
            Self::StartTransient { properties, .. } | Self::SetProperties { properties, .. } => Some(
                properties
                    .iter()
                    .map(Property::line)
                    .collect::<Vec<_>>()
                    .join(" "),
            ),
            Self::StopUnit { .. } => None,
            Self::MakeGroup { .. } | Self::RemoveGroup { .. } | Self::Unmark { .. } | Self::Reload { .. } => {
                None
            }
        }
    }

    /// The step that takes this one back, where there is one: a kill has none, and a group made comes to its end by
    /// `rmdir`, marks and values with it.
    pub fn undo(&self) -> Option<Step> {
        match self {
            Self::MakeGroup { group } => Some(Self::RemoveGroup { group: group.clone() }),
            Self::MoveAll { from, to } => Some(Self::MoveAll {
                from: to.clone(),
                to: from.clone(),
            }),
            Self::Enable {
                group, controllers, ..
            } => Some(Self::Disable {
                group: group.clone(),
                controllers: controllers.clone(),
            }),
            Self::Write {
                group,
                knob,
                before: Some(before),
                value,
            } => Some(Self::Write {
                group: group.clone(),
                knob: *knob,
                value: before.lines().next().unwrap_or("").to_owned(),
                before: Some(value.clone()),
            }),
            Self::DropIn { path, text, before } => Some(Self::DropIn {
                path: path.clone(),
                text: before.clone(),
                before: text.clone(),
            }),
            Self::Reload { units } => Some(Self::Reload { units: units.clone() }),
            Self::StartTransient {
                unit,
                properties,
                before: None,
            } => Some(Self::StopUnit {
                unit: unit.clone(),
                properties: properties.clone(),
            }),
            Self::StartTransient {
                unit,
                properties,
                before: Some(before),
            }
            | Self::SetProperties {
                unit,
                properties,
                before,
            } => Some(Self::SetProperties {
                unit: unit.clone(),
                properties: before.clone(),
                before: properties.clone(),
            }),
            Self::StopUnit { unit, properties } => Some(Self::StartTransient {
                unit: unit.clone(),
                properties: properties.clone(),
                before: None,
            }),
            Self::Disable { group, controllers } => Some(Self::Enable {
                group: group.clone(),
                controllers: controllers.clone(),
                remembered: None,
            }),
            Self::Write { before: None, .. }
            | Self::Identify { .. }
            | Self::Unmark { .. }
            | Self::Kill { .. }
            | Self::RemoveGroup { .. } => None,
        }
    }

    /// The step in one line: what, where, which value.
    pub fn line(&self, mount: &str) -> String {
        let path = self.path(mount);
        match (self, self.value()) {
            (Self::Reload { .. }, _) => format!("reload systemd, and let it apply {path}"),
            (Self::DropIn { text: Some(text), .. }, _) => {
                let body: Vec<&str> = text.lines().filter(|l| l.contains('=')).collect();
                format!("write  {path}  {}", body.join(" "))
            }
            // The request as systemd gets it.
            (Self::StartTransient { .. }, Some(value)) => format!("StartTransientUnit {path}  {value}"),
            (Self::SetProperties { .. }, Some(value)) => format!("SetUnitProperties {path}  {value}"),
            (Self::StopUnit { .. }, _) => format!("StopUnit {path}"),
            (
                Self::Write {
                    before: Some(before), ..
                },
                Some(value),
            ) => {
                format!(
                    "{:<6} {path}  {value}  (now {})",
                    self.verb(),
                    before.lines().next().unwrap_or("")
                )
            }
            (_, Some(value)) => format!("{:<6} {path}  {value}", self.verb()),
            (_, None) => format!("{:<6} {path}", self.verb()),
        }
    }

    /// The step for a program.
    pub fn to_json(&self, mount: &str) -> Json {
        let mut json = json!({ "step": self.verb(), "path": self.path(mount), "value": self.value() });
        if let Self::Write { knob, before, .. } = self {
            json["knob"] = json!(knob.knob().key);
            json["before"] = json!(before);
        }
        json["undo"] = match self.undo() {
            Some(undo) => json!({ "step": undo.verb(), "path": undo.path(mount), "value": undo.value() }),
            None => Json::Null,
        };
        json
    }
}

/// Ordered steps, and what a reader must know before they are carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What the reader should know; the plan can be carried out.
    pub warnings: Vec<Notice>,
    /// Why the plan must not be carried out as it is. All reasons, not the first.
    pub refusals: Vec<Notice>,
}

/// One thing to tell, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Notice {
    /// What.
    pub message: String,
    /// What to do about it, if anything.
    pub help: Option<String>,
}

impl Notice {
    /// A notice with a remedy.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: Some(help.into()),
        }
    }

    /// A notice without one.
    pub fn plain(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds another plan behind this one.
    pub fn extend(&mut self, other: Plan) {
        self.steps.extend(other.steps);
        self.warnings.extend(other.warnings);
        self.refusals.extend(other.refusals);
    }

    /// The plan for a program.
    pub fn to_json(&self, mount: &str) -> Json {
        json!({
            "steps": self.steps.iter().map(|s| s.to_json(mount)).collect::<Vec<_>>(),
            "warnings": self.warnings,
            "refusals": self.refusals,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> GroupPath {
        GroupPath::new(path).unwrap()
    }

    #[test]
    fn undoing_a_write_restores_what_was_there() {
        let write = Step::Write {
            group: at("/w"),
            knob: KnobId::IoWeight,
            value: "default 200".into(),
            before: Some("default 100\n8:0 50".into()),
        };
        let undo = write.undo().unwrap();
        assert_eq!(undo.value().as_deref(), Some("default 100"));
        assert_eq!(undo.undo().unwrap().value(), write.value());
    }

    #[test]
    fn lines_say_what_where_and_which_value() {
        let enable = Step::Enable {
            group: GroupPath::root(),
            controllers: vec![Controller::Cpu, Controller::Memory],
            remembered: None,
        };
        assert_eq!(
            enable.line("/sys/fs/cgroup"),
            "write  /sys/fs/cgroup/cgroup.subtree_control  +cpu +memory"
        );
        assert_eq!(enable.undo().unwrap().value().as_deref(), Some("-cpu -memory"));
        let make = Step::MakeGroup {
            group: at("/workloads.slice"),
        };
        assert_eq!(
            make.line("/sys/fs/cgroup"),
            "mkdir  /sys/fs/cgroup/workloads.slice"
        );
        assert_eq!(make.to_json("/m")["undo"]["step"], "rmdir");
    }

    #[test]
    fn what_systemd_is_asked_for_has_an_undo() {
        let slice = Step::StartTransient {
            unit: "workloads.slice".into(),
            properties: vec![Property::number("MemoryMax", 4096)],
            before: None,
        };
        assert_eq!(
            slice.line("/m"),
            "StartTransientUnit workloads.slice  MemoryMax=4096"
        );
        assert_eq!(slice.undo().unwrap().line("/m"), "StopUnit workloads.slice");
        assert_eq!(slice.undo().unwrap().undo().unwrap(), slice);
        // One that ran before is not stopped.
        let taken = Step::StartTransient {
            unit: "workloads.slice".into(),
            properties: vec![Property::number("MemoryMax", 4096)],
            before: Some(vec![Property::number("MemoryMax", u64::MAX)]),
        };
        assert_eq!(
            taken.undo().unwrap().line("/m"),
            "SetUnitProperties workloads.slice  MemoryMax=infinity"
        );
    }
}
