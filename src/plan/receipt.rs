//! What is really in force, per knob, and what will be on a given host: requested is not effective.

use super::equal::{Held, held};
use super::unit;
use crate::host::{Base, Hierarchy, Host};
use crate::limits::{KnobId, Part, Setting};
use crate::path::GroupPath;
use serde_json::{Value as Json, json};
use std::fmt;

/// What became of one knob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds as declared.
    Enforced,
    /// The kernel holds another value that means the same: memory is rounded down to pages.
    Rounded {
        /// What the kernel holds.
        to: String,
    },
    /// Something weaker stands in for it.
    StoodInFor {
        /// What.
        by: String,
    },
    /// It does not hold.
    NotEnforced {
        /// Why.
        why: String,
    },
    /// The kernel holds it, and nothing acts on it: for a program and for people it is not enforced.
    Idle {
        /// Why.
        why: String,
    },
    /// It is read and checked, and nothing enforces it yet.
    NotInThisVersion,
    /// Nobody declared it.
    NotDeclared,
}

impl Outcome {
    /// Whether a declared limit is missing or replaced by something weaker.
    pub fn falls_short(&self) -> bool {
        matches!(
            self,
            Self::StoodInFor { .. } | Self::NotEnforced { .. } | Self::Idle { .. }
        )
    }

    /// Whether the kernel is to be given the value: also where nothing acts on it yet.
    pub fn is_written(&self) -> bool {
        matches!(self, Self::Enforced | Self::Rounded { .. } | Self::Idle { .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforced => write!(f, "enforced"),
            Self::Rounded { to } => write!(f, "rounded to {to}"),
            Self::StoodInFor { by } => write!(f, "stood in for by {by}"),
            Self::NotEnforced { why } | Self::Idle { why } => write!(f, "not enforced: {why}"),
            Self::NotInThisVersion => write!(f, "not in this version"),
            Self::NotDeclared => write!(f, "not declared"),
        }
    }
}

/// One line of a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The knob.
    pub knob: KnobId,
    /// What was declared: the kernel's text.
    pub requested: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl Entry {
    /// The entry for a program.
    pub fn to_json(&self) -> Json {
        let (state, detail) = words(&self.outcome);
        json!({ "knob": self.knob.knob().key, "requested": self.requested, "state": state, "detail": detail })
    }
}

/// The entry for people, in columns.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.knob.knob().key;
        write!(f, "{key:<24} {:<16} {}", self.requested, self.outcome)
    }
}

/// An outcome for a program: its one-word state, and its detail.
pub fn words(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Enforced => ("enforced", None),
        Outcome::Rounded { to } => ("rounded", Some(to)),
        Outcome::StoodInFor { by } => ("stood_in_for", Some(by)),
        Outcome::NotEnforced { why } | Outcome::Idle { why } => ("not_enforced", Some(why)),
        Outcome::NotInThisVersion => ("not_in_this_version", None),
        Outcome::NotDeclared => ("not_declared", None),
    }
}

/// What is in force of all that was declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// One entry per declared knob.
    pub entries: Vec<Entry>,
}

impl Receipt {
    /// Sets the outcome of a declared setting; an undeclared one is left out.
    pub fn note(&mut self, setting: &Setting, outcome: Outcome) {
        let Some(requested) = setting.value.as_ref().and_then(|_| setting.text()) else {
            return;
        };
        let knob = setting.knob.id;
        match self.entries.iter_mut().find(|e| e.knob == knob) {
            Some(entry) => entry.outcome = outcome,
            None => self.entries.push(Entry {
                knob,
                requested,
                outcome,
            }),
        }
    }

    /// The declared knobs that do not hold, stand-ins included.
    pub fn unconfined(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.outcome.falls_short())
    }

    /// The receipt for a program.
    pub fn to_json(&self) -> Json {
        self.entries.iter().map(Entry::to_json).collect()
    }
}

/// The outcome of a value that was written, from what was foretold of it and what the file held afterwards.
pub fn of_read_back(
    setting: &Setting,
    foretold: &Outcome,
    wanted: &str,
    found: &str,
    page_size: u64,
) -> Outcome {
    match held(setting.knob, wanted, found, page_size) {
        Held::Exact if matches!(foretold, Outcome::Idle { .. }) => foretold.clone(),
        Held::Exact => Outcome::Enforced,
        Held::Rounded => Outcome::Rounded { to: found.to_owned() },
        Held::Other if matches!(foretold, Outcome::Rounded { to } if held(setting.knob, to, found, page_size) == Held::Exact) => {
            foretold.clone()
        }
        Held::Other => Outcome::NotEnforced {
            why: format!("the kernel holds {found}"),
        },
    }
}

/// Which backend carries a plan out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// Control files of cgroup v2.
    Cgroupfs,
    /// A scope of systemd's for each session, with the limits as its properties.
    Scope,
    /// No cgroup rights: nice, oom_score_adj, rlimits, affinity. Needs no set-up at all, so it is what an embedding
    /// program gets unless it chooses.
    #[default]
    Process,
}

impl Backend {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Scope => "scope",
            Self::Process => "process",
        }
    }
}

impl Backend {
    /// What limits the session whose processes are in this group, whichever is used for new ones.
    pub fn of_group(group: &GroupPath) -> Self {
        match group.scope() {
            Some(_) => Self::Scope,
            None => Self::Cgroupfs,
        }
    }

    /// Whether sessions have groups.
    pub fn has_groups(self) -> bool {
        self != Self::Process
    }
}

/// What a host will do with a declared setting under a backend: the outcome before anything is done. `lacking` names
/// control files that this kernel does not have although their controller is there.
pub fn predict(setting: &Setting, host: &Host, backend: Backend, lacking: &[&str]) -> Outcome {
    let knob = setting.knob;
    if setting.value.is_none() {
        return Outcome::NotDeclared;
    }
    if !knob.in_this_version {
        return Outcome::NotInThisVersion;
    }
    let Some(file) = knob.file else {
        return match (knob.id, backend, &host.base) {
            // It is about a limit that only a group has.
            (KnobId::Stall, Backend::Process, base) => Outcome::NotEnforced {
                why: match base {
                    Err(none) => none.why.clone(),
                    Ok(_) => "the process backend has no cgroup".into(),
                },
            },
            _ => Outcome::Enforced,
        };
    };
    let stand_in = |why: String| match knob.stand_in {
        Some(by) => Outcome::StoodInFor { by: by.to_owned() },
        None => Outcome::NotEnforced { why },
    };
    match (backend, &host.base) {
        (Backend::Process, Err(none)) => {
            stand_in(held_by_v1(setting, host).unwrap_or_else(|| none.why.clone()))
        }
        (Backend::Process, Ok(_)) => stand_in("the process backend has no cgroup".into()),
        (Backend::Cgroupfs | Backend::Scope, Err(none)) => Outcome::NotEnforced {
            why: none.why.clone(),
        },
        (Backend::Cgroupfs | Backend::Scope, Ok(base)) => {
            match (in_group(setting, base, file, lacking), file) {
                (Outcome::Enforced, "io.weight") => {
                    let idle = host.io_weight_idle();
                    idle.map_or(Outcome::Enforced, |why| Outcome::Idle { why })
                }
                (Outcome::Enforced, "cpu.max")
                    if backend == Backend::Scope && setting.knob.part == Part::Session =>
                {
                    let rounded = setting
                        .text()
                        .and_then(|text| unit::rounded(&text, host.systemd_version?));
                    rounded.map_or(Outcome::Enforced, |to| Outcome::Rounded { to })
                }
                (outcome, _) => outcome,
            }
        }
    }
}

/// Whether systemd's version decides what becomes of a session's setting: some version of it rounds that.
pub fn depends_on_version(setting: &Setting, backend: Backend) -> bool {
    let rounds = |text: String| unit::rounded(&text, unit::ROUNDS).is_some();
    backend == Backend::Scope
        && setting.knob.part == Part::Session
        && setting.value.is_some()
        && setting.knob.file == Some("cpu.max")
        && setting.text().is_some_and(rounds)
}

/// What delegates more controllers to users' own systemds than a stock systemd does (user@.service).
pub const DELEGATE_MORE: &str = "`systemctl edit user@.service`, there [Service] Delegate=cpu cpuset io memory pids; from the next login on";

/// On a hybrid or legacy host the one thing to say about a knob is who has its controller.
fn held_by_v1(setting: &Setting, host: &Host) -> Option<String> {
    let (Hierarchy::Hybrid { v1, .. } | Hierarchy::Legacy { v1 }) = &host.hierarchy else {
        return None;
    };
    let controller = setting.knob.controller?.name();
    // io is blkio in version 1.
    let there = v1
        .iter()
        .any(|name| name == controller || (controller == "io" && name == "blkio"));
    Some(if there {
        format!(
            "cgroup v1 holds the {controller} controller ({} set-up)",
            host.hierarchy.label()
        )
    } else {
        format!(
            "{} set-up: cgroup v2 is used only where it holds every controller",
            host.hierarchy.label()
        )
    })
}

/// Whether systemd writes the file, for it is one of a slice.
fn is_systemds(setting: &Setting, base: &Base) -> bool {
    setting.knob.part != Part::Session && base.slices_are_systemds()
}

fn in_group(setting: &Setting, base: &Base, file: &str, lacking: &[&str]) -> Outcome {
    let knob = setting.knob;
    if let Some(controller) = knob.controller
        && !base.controllers.contains(&controller)
    {
        let why = match base.is_users() {
            false => format!("the {controller} controller is not available here"),
            true => format!(
                "the {controller} controller is not delegated to the user's systemd (root may: {DELEGATE_MORE})"
            ),
        };
        return Outcome::NotEnforced { why };
    }
    if lacking.contains(&file) {
        return Outcome::NotEnforced {
            why: format!("this kernel has no {file}"),
        };
    }
    if is_systemds(setting, base) && base.is_users() {
        return Outcome::NotEnforced {
            why: "cgmgr does not set the slices of a user's own systemd".into(),
        };
    }
    if is_systemds(setting, base) && knob.systemd.is_none() {
        return Outcome::NotEnforced {
            why: "systemd has no property for it, and the slice is systemd's".into(),
        };
    }
    Outcome::Enforced
}

/// What the limits promise: with a payload that can write its own group they only keep books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The payload cannot change its limits, nor leave them.
    Boundary,
    /// The payload has rights over its own group or one above, or somebody who moves it for the asking.
    Bookkeeping,
    /// There is no group.
    None,
}

impl Promise {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boundary => "boundary",
            Self::Bookkeeping => "bookkeeping",
            Self::None => "none",
        }
    }

    /// One sentence.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Boundary => "boundary: the session cannot change or leave its own limits",
            Self::Bookkeeping => "bookkeeping: the session could raise or leave its own limits",
            Self::None => "none: there is no group to hold the limits",
        }
    }
}
