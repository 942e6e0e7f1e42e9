//! What a role means on one machine: units and percentages, flags over the file, and the values that follow from
//! others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Place, Source};
use super::dialect::Dialect;
use super::inherit::{Chain, LoadError, chain};
use super::lint;
use super::name::{check_name, name_of_file};
use crate::host::Machine;
use crate::limits::{
    Bytes, Count, Declared, KNOBS, Kind, Knob, KnobId, Max, Origin, Scalar, Settings, Size, Value,
};
use crate::order;
use crate::text::escape;

/// More mistakes than this are counted and not shown.
const MOST_DIAGNOSTICS: usize = 100;

/// A flag on the command line that sets a knob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The knob.
    pub id: KnobId,
    /// The value, in the knob's own grammar.
    pub text: String,
    /// The flag, for messages, e.g. `--memory-max`.
    pub flag: String,
}

/// The flags on the command line that set knobs. They go before the role; of two for the same knob the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(Vec<Override>);

impl Overrides {
    /// Adds a flag.
    pub fn push(&mut self, id: KnobId, text: impl Into<String>, flag: impl Into<String>) {
        self.0.push(Override {
            id,
            text: text.into(),
            flag: flag.into(),
        });
    }

    /// The flags, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Override> {
        self.0.iter()
    }
}

impl FromIterator<Override> for Overrides {
    fn from_iter<I: IntoIterator<Item = Override>>(flags: I) -> Overrides {
        Overrides(flags.into_iter().collect())
    }
}

/// Everything that a role's meaning depends on, beside its text.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The machine that the limits are for.
    pub machine: &'a Machine,
    /// Variables for `$VAR`. None: it is not set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file that a role extends.
    pub load: &'a dyn Fn(&Path) -> Result<String, LoadError>,
    /// Flags that go before the role.
    pub overrides: &'a Overrides,
}

/// A role on one machine: a setting for every knob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name: `[role] name`, or the file's stem.
    pub name: String,
    /// The file, as it was given; None: there is none, only flags.
    pub file: Option<PathBuf>,
    /// The files that it inherits from, the nearest first.
    pub inherits: Vec<PathBuf>,
    /// The form that each file declares its limits in, the role's own first.
    pub dialects: Vec<(PathBuf, Dialect)>,
    /// A setting for every knob.
    pub settings: Settings,
    declared: usize,
}

/// A role and its warnings, or all that is wrong with it (warnings too), in the order of files and lines.
pub type Resolved = Result<(Role, Vec<Diagnostic>), Vec<Diagnostic>>;

impl Role {
    /// The name of a role without a file.
    pub const ADHOC: &'static str = "adhoc";

    /// A role made of flags alone.
    pub fn without_file(overrides: &Overrides, machine: &Machine) -> Resolved {
        let mut diagnostics = Vec::new();
        let mut found = BTreeMap::new();
        flags(overrides, machine, &mut found, &mut diagnostics);
        finish(Role::ADHOC.into(), &[], found, machine, diagnostics)
    }

    /// How many knobs are declared, by the file, by what it inherits or by flags.
    pub fn declared(&self) -> usize {
        self.declared
    }

    /// The form of the file that a value came from; None: it did not come from a role file.
    pub fn dialect_of(&self, origin: &Origin) -> Option<Dialect> {
        let (Origin::Role { file, .. } | Origin::Inherited { file, .. }) = origin else {
            return None;
        };
        let mut files = self.dialects.iter();
        files.find(|(path, _)| path == file).map(|(_, dialect)| *dialect)
    }

    /// Where somebody would change a knob, in words: `memory_max` gives `docker.grants.memory in config.toml`,
    /// `limits.memory_max in /etc/cgmgr/host.toml`, `--memory-max`.
    pub fn where_to_change(&self, id: KnobId) -> String {
        let setting = self.settings.get(id);
        let knob = setting.knob;
        let in_file = |path: &str, file: &Path| format!("{path} in {}", escape(&file.to_string_lossy()));
        match &setting.origin {
            Origin::Role { file, .. } | Origin::Inherited { file, .. } => {
                let dialect = self.dialect_of(&setting.origin);
                let path = dialect.and_then(|dialect| dialect.path_of(id));
                in_file(path.unwrap_or(knob.path), file)
            }
            Origin::HostPolicy { file, .. } => {
                in_file(knob.path.strip_prefix("runtime.").unwrap_or(knob.path), file)
            }
            Origin::Flag(_) | Origin::Derived(_) | Origin::Default => {
                format!("--{}", knob.key.replace('_', "-"))
            }
        }
    }
}

/// Gives a role file its meaning on a machine. All mistakes are reported at once.
pub fn resolve(source: Source, inputs: &Inputs<'_>) -> Resolved {
    let mut diagnostics = Vec::new();
    let source = Arc::new(source);
    let chain = chain(Arc::clone(&source), inputs, &mut diagnostics);
    let name = role_name(&chain, &source, &mut diagnostics);
    let mut found = BTreeMap::new();
    for (id, layered) in &chain.entries {
        let entry = &layered.entry;
        match id.knob().value(entry.declared, inputs.machine) {
            Ok(value) => {
                let over = layered.over.as_ref();
                let over = over.map(|over| format!("{} of {}", over.written, over.place.path_and_line()));
                let place = From::File {
                    place: entry.place.clone(),
                    inherited: layered.inherited,
                };
                let (declared, written) = (entry.declared, entry.written.clone());
                found.insert(
                    *id,
                    Found {
                        knob: id.knob(),
                        called: entry.called,
                        declared,
                        value,
                        written,
                        from: place,
                        over,
                        note: entry.note.clone(),
                    },
                );
            }
            // What a flag takes the place of need not fit this machine.
            Err(_) if inputs.overrides.iter().any(|flag| flag.id == *id) => {}
            Err(error) => diagnostics.push(
                Diagnostic::error(format!("{} = {}: {error}", entry.path, entry.written))
                    .at(&entry.place)
                    .help(error.help()),
            ),
        }
    }
    if chain.entries.is_empty() && !diagnostics.iter().any(Diagnostic::is_error) {
        diagnostics.push(nothing_declared(&source));
    }
    flags(inputs.overrides, inputs.machine, &mut found, &mut diagnostics);
    let files: Vec<_> = chain.files.into_iter().zip(chain.dialects).collect();
    let mut resolved = finish(name, &files, found, inputs.machine, diagnostics);
    if let Err(mistakes) = &mut resolved {
        shorten(mistakes, chain.undescribed);
    }
    resolved
}

/// Where a value that counts is from.
#[derive(Debug, Clone)]
pub(super) enum From {
    File { place: Place, inherited: bool },
    Flag(String),
}

/// A knob that somebody declared.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) knob: &'static Knob,
    /// What messages call it: its key, or what the file's own program calls it.
    pub(super) called: &'static str,
    pub(super) declared: Declared,
    pub(super) value: Value,
    /// The value as it was written, for messages.
    pub(super) written: String,
    pub(super) from: From,
    /// What it takes the place of: value and place.
    pub(super) over: Option<String>,
    /// What a reader should know about how it came to be.
    pub(super) note: Option<String>,
}

impl Found {
    pub(super) fn place(&self) -> Option<&Place> {
        match &self.from {
            From::File { place, .. } => Some(place),
            From::Flag(_) => None,
        }
    }

    /// Whether it is neither a percentage nor no limit.
    pub(super) fn is_absolute(&self) -> bool {
        !matches!(
            self.declared,
            Declared::Size(Size::Percent(_)) | Declared::Count(Count::Percent(_))
        )
    }

    fn origin(&self) -> Origin {
        match &self.from {
            From::Flag(flag) => Origin::Flag(flag.clone()),
            From::File { place, inherited } => {
                let (file, line) = (place.source.path.clone(), place.line());
                if *inherited {
                    Origin::Inherited { file, line }
                } else {
                    Origin::Role { file, line }
                }
            }
        }
    }
}

/// The knobs that somebody declared.
pub(super) type AllFound = BTreeMap<KnobId, Found>;

fn role_name(chain: &Chain, source: &Arc<Source>, diagnostics: &mut Vec<Diagnostic>) -> String {
    if let Some(name) = &chain.name {
        return name.text.clone();
    }
    let name = name_of_file(&source.path);
    if let Err(why) = check_name(&name) {
        let message = format!("the file's name {name:?} cannot be the role's: {why}");
        diagnostics.push(
            Diagnostic::error(message)
                .about(source)
                .help("write name = \"…\" in [role]"),
        );
    }
    name
}

fn nothing_declared(source: &Arc<Source>) -> Diagnostic {
    Diagnostic::warning("no limits were found in this file")
        .about(source)
        .help("write limits in [runtime.limits], e.g. memory_max = \"4 GiB\"")
}

fn flags(overrides: &Overrides, machine: &Machine, found: &mut AllFound, diagnostics: &mut Vec<Diagnostic>) {
    for Override { id, text, flag } in overrides.iter() {
        let knob = id.knob();
        let declared = knob.declare(Scalar::Text(text));
        let value = declared.and_then(|declared| Ok((declared, knob.value(declared, machine)?)));
        match value {
            Ok((declared, value)) => {
                let over = found.get(id).and_then(|found| {
                    Some(format!("{} of {}", found.written, found.place()?.path_and_line()))
                });
                let (written, from) = (text.clone(), From::Flag(flag.clone()));
                found.insert(
                    *id,
                    Found {
                        knob,
                        called: knob.key,
                        declared,
                        value,
                        written,
                        from,
                        over,
                        note: None,
                    },
                );
            }
            Err(error) => {
                diagnostics.push(Diagnostic::error(format!("{flag} {text:?}: {error}")).help(error.help()))
            }
        }
    }
}

fn finish(
    name: String,
    files: &[(Arc<Source>, Dialect)],
    found: AllFound,
    machine: &Machine,
    mut diagnostics: Vec<Diagnostic>,
) -> Resolved {
    let mut settings = Settings::none();
    for (id, one) in &found {
        settings.set(*id, one.value, one.origin());
    }
    derive(&mut settings);
    for (id, one) in &found {
        settings.get_mut(*id).note = note(one, machine);
    }
    for knob in KNOBS.iter().filter(|knob| !knob.in_this_version) {
        add_note(&mut settings, knob.id, "not in this version");
    }
    for id in [KnobId::Nice, KnobId::AgentNice] {
        let why =
            "nice acts inside a group only once the cpu controller is on: between sessions cpu_weight counts";
        if settings.value(id).is_some() {
            add_note(&mut settings, id, why);
        }
    }
    let complete = !diagnostics.iter().any(Diagnostic::is_error);
    lint::lint(&found, machine, complete, &mut settings, &mut diagnostics);
    sort(files, &mut diagnostics);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let dialects: Vec<_> = files
        .iter()
        .map(|(file, dialect)| (file.path.clone(), *dialect))
        .collect();
    let mut paths = dialects.iter().map(|(path, _)| path.clone());
    let role = Role {
        name,
        file: paths.next(),
        inherits: paths.collect(),
        dialects,
        settings,
        declared: found.len(),
    };
    Ok((role, diagnostics))
}

/// What follows from what was declared.
fn derive(settings: &mut Settings) {
    derive_swap(settings);
    for id in [KnobId::Nice, KnobId::OomScoreAdj] {
        let setting = settings.get_mut(id);
        if setting.value.is_none() {
            setting.origin = Origin::Derived("at launch, from those of the process that launches".into());
        }
    }
}

/// A limit on memory without one on swap is none: what is over it would go to swap.
pub(super) fn derive_swap(settings: &mut Settings) {
    let limited = settings
        .value(KnobId::MemoryMax)
        .is_some_and(|max| max.bytes().is_some());
    if limited && settings.value(KnobId::MemorySwapMax).is_none() {
        let why = Origin::Derived("memory_max is set: 0 unless given".into());
        settings.set(KnobId::MemorySwapMax, Value::Memory(Max::At(Bytes(0))), why);
    }
}

fn note(found: &Found, machine: &Machine) -> Option<String> {
    let of = match (found.declared, found.knob.kind) {
        (Declared::Size(Size::Percent(_)), _) => Some(format!(
            "{} of {}",
            found.written,
            Bytes(machine.mem_total).human()
        )),
        (Declared::Count(Count::Percent(_)), Kind::Count { .. }) => {
            Some(format!("{} of {} tasks", found.written, machine.max_tasks()))
        }
        _ => None,
    };
    let over = found.over.as_ref().map(|over| format!("instead of {over}"));
    let parts: Vec<String> = [of, found.note.clone(), over].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

pub(super) fn add_note(settings: &mut Settings, id: KnobId, note: &str) {
    let setting = settings.get_mut(id);
    setting.note = Some(match setting.note.take() {
        Some(before) => format!("{before}; {note}"),
        None => note.to_string(),
    });
}

/// By file, in the order in which they were read, and by place in the file; flags first.
fn sort(files: &[(Arc<Source>, Dialect)], diagnostics: &mut Vec<Diagnostic>) {
    let place = |diagnostic: &Diagnostic| {
        let file = files
            .iter()
            .position(|(file, _)| Some(&file.path) == diagnostic.path.as_ref());
        (file, diagnostic.span.as_ref().map(|span| span.start))
    };
    order::sort_by_key(diagnostics, place);
}

/// Nobody reads more than so many: the rest is counted.
fn shorten(mistakes: &mut Vec<Diagnostic>, undescribed: usize) {
    let left = mistakes.len().saturating_sub(MOST_DIAGNOSTICS) + undescribed;
    mistakes.truncate(MOST_DIAGNOSTICS);
    if left > 0 {
        mistakes.push(Diagnostic::error(format!("{left} more mistakes")));
    }
}
