//! `[role] extends`: a role and the roles that it is based on. What a role says itself goes before what it inherits.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Source};
use super::dialect::Dialect;
use super::raw::{Entry, RawRole, Text, read};
use super::resolve::Inputs;
use crate::limits::KnobId;

/// Longer chains are a mistake, or a circle that symbolic links hide.
const LONGEST_CHAIN: usize = 16;

/// Why a file that a role extends could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// The reason, e.g. `no such file`.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// One knob after inheritance.
#[derive(Debug, Clone)]
pub(super) struct Layered {
    /// What counts.
    pub(super) entry: Entry,
    /// Whether it comes from a file that the role extends.
    pub(super) inherited: bool,
    /// What it takes the place of.
    pub(super) over: Option<Entry>,
}

/// A role with everything that it inherits.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: Option<Text>,
    pub(super) entries: BTreeMap<KnobId, Layered>,
    /// The files, the role's own first.
    pub(super) files: Vec<Arc<Source>>,
    /// The form that each of them is in.
    pub(super) dialects: Vec<Dialect>,
    /// How many mistakes there are that were not described.
    pub(super) undescribed: usize,
}

/// Reads a role and what it extends. Mistakes of every file are added to `diagnostics`.
pub(super) fn chain(source: Arc<Source>, inputs: &Inputs<'_>, diagnostics: &mut Vec<Diagnostic>) -> Chain {
    let mut chain = Chain {
        name: None,
        entries: BTreeMap::new(),
        files: Vec::new(),
        dialects: Vec::new(),
        undescribed: 0,
    };
    let mut next = Some(source);
    while let Some(source) = next {
        let role = read(&source, inputs.env, diagnostics);
        chain.files.push(Arc::clone(&source));
        let extends = chain.add(role);
        next = extends.and_then(|extends| chain.load(&extends, inputs, diagnostics));
    }
    chain
}

impl Chain {
    fn add(&mut self, role: RawRole) -> Option<Text> {
        let inherited = self.files.len() > 1;
        for entry in role.entries {
            match self.entries.get_mut(&entry.id) {
                Some(layered) => {
                    layered.over.get_or_insert(entry);
                }
                None => {
                    self.entries.insert(
                        entry.id,
                        Layered {
                            entry,
                            inherited,
                            over: None,
                        },
                    );
                }
            }
        }
        if !inherited {
            self.name = role.name;
        }
        self.dialects.push(role.dialect);
        self.undescribed += role.undescribed;
        role.extends
    }

    fn load(
        &self,
        extends: &Text,
        inputs: &Inputs<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Arc<Source>> {
        let path = relative_to(&extends.place.source.path, Path::new(&extends.text));
        let mut refuse = |why: String, help: Option<String>| {
            let mut diagnostic =
                Diagnostic::error(format!("role.extends = {:?}: {why}", extends.text)).at(&extends.place);
            diagnostic.help = help;
            diagnostics.push(diagnostic);
            None
        };
        if self.files.iter().any(|file| same_path(&file.path, &path)) {
            let circle: Vec<_> = self
                .files
                .iter()
                .map(|file| file.path.display().to_string())
                .collect();
            let why = format!(
                "roles extend each other in a circle ({} -> {})",
                circle.join(" -> "),
                path.display()
            );
            return refuse(why, Some("let one of them stand on its own".into()));
        }
        if self.files.len() >= LONGEST_CHAIN {
            let why = format!("more than {LONGEST_CHAIN} roles extend one another");
            return refuse(why, Some("merge some of them, or look for a circle".into()));
        }
        match (inputs.load)(&path) {
            Ok(text) => Some(Arc::new(Source { path, text })),
            Err(error) => refuse(format!("{}: {}", path.display(), error.message), error.help),
        }
    }
}

/// A path in a role file is relative to the file.
fn relative_to(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

/// Whether two paths are the same by their text: `a/../b` is `b`. Symbolic links are not looked at; a circle through
/// one is found by its length.
fn same_path(a: &Path, b: &Path) -> bool {
    let plain = |path: &Path| {
        let mut parts: Vec<Component<'_>> = Vec::new();
        for part in path.components() {
            match (part, parts.last()) {
                (Component::CurDir, _) => {}
                (Component::ParentDir, Some(Component::Normal(_))) => {
                    parts.pop();
                }
                _ => parts.push(part),
            }
        }
        parts
            .iter()
            .map(|part| part.as_os_str().to_os_string())
            .collect::<Vec<_>>()
    };
    plain(a) == plain(b)
}
