//! Whose file it is: the forms in which files declare a session's limits.

use crate::limits::KnobId;

/// The form in which a file declares the limits of a session. A file has one: which of two would count could not be
/// told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// cgmgr's own role file.
    Cgmgr,
    /// A role manifest of jackin's with the proposed `[runtime.limits]`, which cgmgr's own is a superset of. What makes
    /// it one is a `dockerfile`, or a version `v1alphaN` beside such limits.
    JackinManifest,
    /// A configuration or workspace file of jackin's: `[docker.grants]` and `[docker] profile`.
    JackinGrants,
    /// A configuration of multicode's: `[isolation]`.
    Multicode,
}

/// The keys of `[docker.grants]` that are limits, and what they limit. A reservation is memory.high, as jackin means it.
pub(super) const GRANTS: [(&str, KnobId, &str); 5] = [
    ("memory", KnobId::MemoryMax, "docker.grants.memory"),
    (
        "memory_reservation",
        KnobId::MemoryHigh,
        "docker.grants.memory_reservation",
    ),
    ("cpus", KnobId::Cpus, "docker.grants.cpus"),
    ("pids", KnobId::Pids, "docker.grants.pids"),
    ("nofile", KnobId::Nofile, "docker.grants.nofile"),
];

/// The keys of `[isolation]` that are limits, in both spellings, and what they limit.
pub(super) const ISOLATION: [(&str, KnobId, &str); 6] = [
    ("memory-high", KnobId::MemoryHigh, "isolation.memory-high"),
    ("memory-max", KnobId::MemoryMax, "isolation.memory-max"),
    ("memory_high", KnobId::MemoryHigh, "isolation.memory_high"),
    ("memory_max", KnobId::MemoryMax, "isolation.memory_max"),
    ("cpu", KnobId::Cpus, "isolation.cpu"),
    ("nofile", KnobId::Nofile, "isolation.nofile"),
];

impl Dialect {
    /// For programs: `cgmgr`, `jackin-manifest`, `jackin-grants`, `multicode`.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Cgmgr => "cgmgr",
            Dialect::JackinManifest => "jackin-manifest",
            Dialect::JackinGrants => "jackin-grants",
            Dialect::Multicode => "multicode",
        }
    }

    /// For people: `multicode's [isolation]`.
    pub fn title(self) -> &'static str {
        match self {
            Dialect::Cgmgr => "cgmgr's own form",
            Dialect::JackinManifest => "jackin's role manifest, [runtime.limits]",
            Dialect::JackinGrants => "jackin's [docker.grants]",
            Dialect::Multicode => "multicode's [isolation]",
        }
    }

    /// Where such a file has this knob, e.g. `docker.grants.memory`; None: it has no such limit.
    pub fn path_of(self, id: KnobId) -> Option<&'static str> {
        let keys: &[(&str, KnobId, &'static str)] = match self {
            Dialect::JackinGrants => &GRANTS,
            Dialect::Multicode => &ISOLATION,
            Dialect::Cgmgr | Dialect::JackinManifest => return Some(id.knob().path),
        };
        keys.iter()
            .find(|(_, knob, _)| *knob == id)
            .map(|(.., path)| *path)
    }
}
