//! What the backend really did, so that exactly that can be taken back. Holds no means to do so.

use crate::kernel::Tree;
use crate::limits::{Controller, KnobId};
use crate::path::GroupPath;
use crate::plan::step::{SUBTREE_CONTROL, signed};
use crate::plan::unit::Property;

/// What was really done, as it is taken back. Taking back what is not there any more is no failure.
#[derive(Debug)]
pub(super) enum Undo {
    /// A group that this backend made, and no one that was there before.
    Made(GroupPath),
    /// The mark on a group that was there before.
    MarkedMade(GroupPath),
    /// Processes moved to a leaf; those in `stay` were in it before.
    Moved {
        from: GroupPath,
        to: GroupPath,
        stay: Vec<i32>,
    },
    /// Controllers that were not on before, and what the mark said then.
    Enabled {
        group: GroupPath,
        controllers: Vec<Controller>,
        remembered: Option<String>,
    },
    /// Controllers that were on before.
    Disabled {
        group: GroupPath,
        controllers: Vec<Controller>,
    },
    /// The mark that remembered them.
    Unmarked { group: GroupPath, names: String },
    /// A value.
    Wrote {
        group: GroupPath,
        knob: KnobId,
        before: String,
    },
    /// A drop-in, with the text that it had, and whether systemd was yet to carry out a former change of it.
    DropIn {
        path: String,
        before: Option<String>,
        unread: bool,
    },
    /// systemd was asked to read its units: it must be asked again once the drop-ins are as they were.
    Reloaded(Vec<String>),
    /// A unit that systemd made.
    Started { unit: String },
    /// A unit's properties, and what they were.
    Set { unit: String, before: Vec<Property> },
    /// A unit that systemd stopped, and the properties that it had.
    Stopped { unit: String, properties: Vec<Property> },
}

impl Undo {
    /// What taking it back is, in one line.
    pub(super) fn line(&self, tree: &Tree) -> String {
        match self {
            Self::Made(group) => format!("rmdir {}", tree.display(group)),
            Self::MarkedMade(group) => format!("unmark {}", tree.display(group)),
            Self::Moved { from, to, .. } => format!("move the processes of {to} back to {from}"),
            Self::Enabled {
                group, controllers, ..
            } => format!("write `{}` to {}", signed('-', controllers), subtree(tree, group)),
            Self::Disabled { group, controllers } => {
                format!("write `{}` to {}", signed('+', controllers), subtree(tree, group))
            }
            Self::Unmarked { group, .. } => format!("mark {}", tree.display(group)),
            Self::Wrote { group, knob, before } => format!(
                "write `{before}` to {}/{}",
                tree.display(group),
                knob.knob().file.unwrap_or("?")
            ),
            Self::DropIn { path, .. } => format!("restore {path}"),
            Self::Started { unit } => format!("StopUnit {unit}"),
            Self::Set { unit, before } => format!("SetUnitProperties {unit} {}", lines(before)),
            Self::Stopped { unit, properties } => {
                format!("StartTransientUnit {unit} {}", lines(properties))
            }
            Self::Reloaded(units) => format!("reload systemd for {}", units.join(" ")),
        }
    }
}

fn lines(properties: &[Property]) -> String {
    properties
        .iter()
        .map(Property::line)
        .collect::<Vec<_>>()
        .join(" ")
}

fn subtree(tree: &Tree, group: &GroupPath) -> String {
    format!("{}/{SUBTREE_CONTROL}", tree.display(group))
}
