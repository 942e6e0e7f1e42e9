//! A role file as it is written: which keys it has, where, and what they say. Every mistake of the file is collected.
//! Knows nothing of the machine, of other files or of flags.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place, Source};
use super::dialect::{Dialect, GRANTS, ISOLATION};
use super::events::Events;
use super::expand::{ExpandError, expand};
use super::name::check_name;
use super::suggest::{is_typo_of, knob_help, nearest};
use crate::limits::{Declared, KNOBS, Knob, KnobId, Part, Scalar};

/// More syntax errors than this are not read: nobody would.
const MOST_SYNTAX_ERRORS: usize = 20;

/// More mistakes than this are counted and not described: the place of each costs a walk through the text, and a hostile
/// file of a megabyte has a hundred thousand.
const MOST_MISTAKES: usize = 100;

/// A knob that a file declares.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: KnobId,
    pub(super) declared: Declared,
    /// Where the value is.
    pub(super) place: Place,
    /// The value as it is written, for messages.
    pub(super) written: String,
    /// Where the file has it, e.g. `runtime.limits.memory_max`, `docker.grants.memory`.
    pub(super) path: &'static str,
    /// What messages that compare it call it, e.g. `memory_max`, `docker.grants.memory`.
    pub(super) called: &'static str,
    /// What a reader should know about how it came to be.
    pub(super) note: Option<String>,
}

/// A string of a file and its place.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) place: Place,
}

/// What one file says.
#[derive(Debug)]
pub(super) struct RawRole {
    pub(super) name: Option<Text>,
    pub(super) extends: Option<Text>,
    pub(super) entries: Vec<Entry>,
    /// What a host's policy says of events.
    pub(super) events: Events,
    /// The form that its limits are in.
    pub(super) dialect: Dialect,
    /// How many mistakes there are that were not described.
    pub(super) undescribed: usize,
}

impl RawRole {
    fn empty() -> RawRole {
        RawRole {
            name: None,
            extends: None,
            entries: Vec::new(),
            events: Events::default(),
            dialect: Dialect::Cgmgr,
            undescribed: 0,
        }
    }
}

/// Reads a role file. Mistakes are added to `diagnostics`; what could be read is returned in any case.
pub(super) fn read(
    source: &Arc<Source>,
    env: &dyn Fn(&str) -> Option<String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> RawRole {
    read_as(source, env, false, diagnostics)
}

/// Reads the host's policy. Nothing in it is a variable: whoever calls cgmgr sets those.
pub(super) fn read_policy(source: &Arc<Source>, diagnostics: &mut Vec<Diagnostic>) -> RawRole {
    read_as(source, &|_| None, true, diagnostics)
}

fn read_as(
    source: &Arc<Source>,
    env: &dyn Fn(&str) -> Option<String>,
    policy: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> RawRole {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader {
        source,
        env,
        policy,
        multicode: false,
        declared: None,
        found: Vec::new(),
        undescribed: 0,
    };
    let mut role = if policy {
        reader.policy(document.get_ref())
    } else {
        reader.document(document.get_ref())
    };

    role.undescribed = reader.undescribed;

    // After a syntax error the parser goes on as well as it can; what it then finds in the same line is an echo.
    let mut broken_lines = Vec::new();
    for error in errors.iter().take(MOST_SYNTAX_ERRORS) {
        let message = format!("not TOML: {}", error.message().replace('\n', ", "));
        let mut diagnostic = Diagnostic::error(message).at(&reader.place(error.span().unwrap_or(0..0)));
        diagnostic.help = syntax_help(error.message()).map(String::from);
        if !broken_lines.contains(&diagnostic.line) {
            broken_lines.push(diagnostic.line);
            diagnostics.push(diagnostic);
        }
    }
    diagnostics.extend(
        reader
            .found
            .into_iter()
            .filter(|found| !broken_lines.contains(&found.line)),
    );
    role.entries
        .retain(|entry| !broken_lines.contains(&Some(entry.place.line())));
    role
}

/// What to do about the mistakes that people make most.
fn syntax_help(message: &str) -> Option<&'static str> {
    if message.starts_with("duplicate key") {
        Some("a key or table is written once: put all keys of a table below one [heading]")
    } else if message.starts_with("string values must be quoted") {
        Some("sizes and other text are in quotes: memory_max = \"16 GiB\"")
    } else {
        None
    }
}

type Entries<'d, 'i> = (&'d Spanned<Cow<'i, str>>, &'d Spanned<DeValue<'i>>);

pub(super) struct Reader<'a> {
    source: &'a Arc<Source>,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// It is the host's policy that is read, whose `[limits]` has the keys of a role's `[runtime.limits]`.
    policy: bool,
    /// The file is one of multicode's, whose `[agent]` says which agent to run.
    multicode: bool,
    /// Where the file declares a session's limits, and in which words.
    declared: Option<(&'static str, Range<usize>)>,
    found: Vec<Diagnostic>,
    undescribed: usize,
}

impl Reader<'_> {
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place {
            source: Arc::clone(self.source),
            span,
        }
    }

    /// Counts a mistake that is not to be described any more.
    fn is_full(&mut self) -> bool {
        let full = self.found.len() >= MOST_MISTAKES;
        self.undescribed += usize::from(full);
        full
    }

    pub(super) fn error(&mut self, span: Range<usize>, message: String, help: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let diagnostic = Diagnostic::error(message).at(&self.place(span)).help(help);
        self.found.push(diagnostic);
    }

    /// An error that has to do with two places.
    pub(super) fn error_beside(
        &mut self,
        span: Range<usize>,
        message: String,
        help: &str,
        other: &Place,
        label: &str,
    ) {
        let diagnostic = Diagnostic::error(message).at(&self.place(span)).help(help);
        self.found.push(diagnostic.related(other, label));
    }

    pub(super) fn warning(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// The file declares a session's limits here, in this form: it may do so once.
    pub(super) fn declares(
        &mut self,
        dialect: Dialect,
        what: &'static str,
        span: Range<usize>,
        role: &mut RawRole,
    ) {
        match self.declared.clone() {
            None => {
                self.declared = Some((what, span));
                role.dialect = dialect;
            }
            Some((first, there)) => {
                let message = format!("{what} beside {first}: a session's limits in two forms");
                let help = "keep one of them, or put them into two files: which one counts could not be told";
                self.error_beside(span, message, help, &self.place(there), "and here");
            }
        }
    }

    /// Tables of other programs may be in the same file: they are left alone, unless their name is a slip away from
    /// one that is read, when a limit would silently not be there.
    fn document(&mut self, document: &DeTable<'_>) -> RawRole {
        const OURS: [&str; 7] = [
            "version",
            "role",
            "runtime",
            "agent",
            "workloads",
            "docker",
            "isolation",
        ];
        let mut role = RawRole::empty();
        self.multicode = document
            .get("isolation")
            .is_some_and(|value| value.get_ref().is_table());
        let (mut manifest, mut alpha) = (false, false);
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "version" => alpha = self.version(value),
                "role" => {
                    if let Some(table) = self.table("role", value) {
                        self.role(table, &mut role);
                    }
                }
                "runtime" => {
                    if let Some(table) = self.table("runtime", value) {
                        self.runtime(table, &mut role);
                    }
                }
                part @ ("agent" | "workloads") => {
                    if let Some(table) = self.table(part, value) {
                        self.knobs(part, table, &mut role);
                    }
                }
                "docker" => {
                    if let Some(table) = value.get_ref().as_table() {
                        self.docker(table, &mut role);
                    }
                }
                "isolation" => {
                    if let Some(table) = value.get_ref().as_table() {
                        self.isolation(table, &mut role);
                    }
                }
                "dockerfile" => manifest = true,
                other if is_jackins(other, value.get_ref()) => {}
                other => self.foreign_key(value, "", other, key.span(), &OURS),
            }
        }
        if self.declared.is_none() && self.multicode {
            role.dialect = Dialect::Multicode;
        } else if role.dialect == Dialect::Cgmgr && (manifest || alpha && self.declared.is_some()) {
            role.dialect = Dialect::JackinManifest;
        }
        role
    }

    /// The host's policy is cgmgr's alone: whatever is unknown is a mistake.
    fn policy(&mut self, document: &DeTable<'_>) -> RawRole {
        let mut role = RawRole::empty();
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "version" => {
                    self.version(value);
                }
                "limits" => {
                    if let Some(table) = self.table("limits", value) {
                        self.knobs("runtime.limits", table, &mut role);
                    }
                }
                part @ ("agent" | "workloads") => {
                    if let Some(table) = self.table(part, value) {
                        self.knobs(part, table, &mut role);
                    }
                }
                "events" => {
                    if let Some(table) = self.table("events", value) {
                        role.events = self.events(table);
                    }
                }
                other => {
                    let help = match nearest(other, ["limits", "agent", "workloads", "events", "version"]) {
                        _ if other == "runtime" => "write [limits] instead of [runtime.limits]".to_owned(),
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => "a host policy has [limits], [agent], [workloads] and [events]".to_owned(),
                    };
                    self.error(key.span(), format!("unknown {}", shown_key("", other)), help);
                }
            }
        }
        role
    }

    /// What the file that is read calls a table or knob of ours.
    fn path_here<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix("runtime.") {
            Some(path) if self.policy => path,
            _ => path,
        }
    }

    pub(super) fn foreign_key(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        table: &str,
        key: &str,
        span: Range<usize>,
        ours: &[&str],
    ) {
        if let Some(meant) = ours.iter().find(|ours| is_typo_of(key, ours)) {
            let kind = if value.get_ref().is_table() {
                "table"
            } else {
                "key"
            };
            let message = format!("unknown {kind} {}", shown_key(table, key));
            self.error(span, message, format!("did you mean `{meant}`?"));
        }
    }

    /// A key that is no limit of this dialect. It is the other program's, unless it is a slip away from a limit, or what
    /// another dialect calls one: then a limit would silently not be there.
    pub(super) fn foreign_limit(
        &mut self,
        dialect: Dialect,
        table: &'static str,
        name: &str,
        span: Range<usize>,
    ) {
        let keys = || GRANTS.iter().chain(&ISOLATION);
        let own = |path: &'static str| path.strip_prefix(table).and_then(|key| key.strip_prefix('.'));
        let plain = name.replace('-', "_");
        let slip = keys().filter_map(|(.., path)| own(path)).find(|key| {
            let key = key.replace('-', "_");
            plain == key || is_typo_of(&plain, &key)
        });
        let session = || KNOBS.iter().filter(|knob| knob.part == Part::Session);
        let elsewhere = keys()
            .find(|(key, ..)| *key == name)
            .map(|(_, id, _)| *id)
            .or_else(|| session().find(|knob| knob.key == plain).map(|knob| knob.id));
        let help = match (slip, elsewhere) {
            (Some(key), _) => format!("did you mean `{key}`?"),
            (None, Some(id)) => match dialect.path_of(id).and_then(own) {
                Some(key) => format!("write `{key}`"),
                None => format!(
                    "give it by the flag --{}, or in a role file of cgmgr's that extends this one",
                    id.knob().key.replace('_', "-")
                ),
            },
            (None, None) => return,
        };
        self.error(span, format!("unknown key {}", shown_key(table, name)), help);
    }

    pub(super) fn unknown_key(&mut self, table: &str, key: &str, span: Range<usize>, help: String) {
        self.error(span, format!("unknown key {}", shown_key(table, key)), help);
    }

    fn runtime(&mut self, table: &DeTable<'_>, role: &mut RawRole) {
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "limits" => {
                    if let Some(table) = self.table("runtime.limits", value) {
                        if !table.is_empty() {
                            self.declares(Dialect::Cgmgr, "[runtime.limits]", key.span(), role);
                        }
                        self.knobs("runtime.limits", table, role);
                    }
                }
                other => self.foreign_key(value, "runtime", other, key.span(), &["limits"]),
            }
        }
    }

    /// Whether it is a version of jackin's.
    fn version(&mut self, value: &Spanned<DeValue<'_>>) -> bool {
        let version = value.get_ref().as_str();
        let alpha = version.and_then(|version| version.strip_prefix("v1alpha"));
        let alpha = alpha.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if version != Some("v1") && !alpha {
            let message = format!(
                "version = {}: not a version that cgmgr knows",
                self.written(value)
            );
            self.error(value.span(), message, "write version = \"v1\", or leave it out");
        }
        alpha
    }

    fn role(&mut self, table: &DeTable<'_>, role: &mut RawRole) {
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => {
                    role.name = self.text("role.name", value);
                    if let Some(Err(why)) = role.name.as_ref().map(|name| check_name(&name.text)) {
                        let message = format!("role.name = {}: {why}", self.written(value));
                        self.error(
                            value.span(),
                            message,
                            "sessions and their groups are named after it",
                        );
                    }
                }
                "extends" => {
                    role.extends = self
                        .text("role.extends", value)
                        .filter(|path| !path.text.is_empty());
                    if role.extends.is_none() && value.get_ref().is_str() {
                        let message = format!("role.extends = {}: an empty path", self.written(value));
                        self.error(
                            value.span(),
                            message,
                            "name a file, relative to this one, or leave the key out",
                        );
                    }
                }
                other => {
                    let help = nearest(other, ["name", "extends"]).map_or_else(
                        || "[role] has `name` and `extends`".to_string(),
                        |meant| format!("did you mean `{meant}`?"),
                    );
                    self.error(
                        key.span(),
                        format!("unknown key {}", shown_key("role", other)),
                        help,
                    );
                }
            }
        }
    }

    /// A table of knobs. `table_path` is `runtime.limits`, `runtime.limits.oom`, `agent` or `workloads`.
    fn knobs(&mut self, table_path: &str, table: &DeTable<'_>, role: &mut RawRole) {
        for entry @ (key, value) in table {
            let name = key.get_ref().as_ref();
            let knob = KNOBS
                .iter()
                .find(|knob| knob.table() == table_path && knob.name() == name);
            match knob {
                Some(knob) => self.knob(knob, value, role),
                None if table_path == "runtime.limits" && name == "oom" => {
                    if let Some(table) = self.table(self.path_here("runtime.limits.oom"), value) {
                        self.knobs("runtime.limits.oom", table, role);
                    }
                }
                None => self.unknown_knob(table_path, entry),
            }
        }
    }

    fn unknown_knob(&mut self, table_path: &str, (key, _): Entries<'_, '_>) {
        let name = key.get_ref().as_ref();
        if self.multicode && table_path == "agent" && !is_near_a_knob(table_path, name) {
            return;
        }
        if self.is_full() {
            return;
        }
        let slice = matches!(table_path, "agent" | "workloads");
        if slice && matches!(name, "oom" | "oom_group" | "oom-group") {
            let who = if table_path == "agent" {
                "everything in the agent's part"
            } else {
                "every session"
            };
            let message = format!("{table_path}.{name}: a group OOM kill here would kill {who} at once");
            return self.error(
                key.span(),
                message,
                "set `group` in [runtime.limits.oom]: it acts on each session alone",
            );
        }
        let (here, help) = (self.path_here(table_path), knob_help(table_path, name));
        let help = if self.policy {
            help.replace("runtime.limits", "limits")
        } else {
            help
        };
        self.error(key.span(), format!("unknown key {}", shown_key(here, name)), help);
    }

    fn knob(&mut self, knob: &'static Knob, value: &Spanned<DeValue<'_>>, role: &mut RawRole) {
        let Some((declared, written)) = self.declared(knob, value) else {
            return;
        };
        let place = self.place(value.span());
        role.entries.push(Entry {
            id: knob.id,
            declared,
            place,
            written,
            path: self.path_here(knob.path),
            called: knob.key,
            note: None,
        });
    }

    fn declared(&mut self, knob: &Knob, value: &Spanned<DeValue<'_>>) -> Option<(Declared, String)> {
        let text;
        let path = self.path_here(knob.path);
        let mut written = self.written(value);
        let scalar = match value.get_ref() {
            DeValue::String(raw) => {
                text = self.expanded(path, raw, value)?;
                if text != *raw {
                    written = format!("{written} (which is {})", shown(&format!("{text:?}")));
                }
                Scalar::Text(&text)
            }
            DeValue::Integer(number) => {
                let text = number.as_str();
                // In TOML `+5` is 5; who writes the sign means the relative value.
                if matches!(knob.id, KnobId::Nice) && self.written(value).starts_with('+') {
                    let message = format!("{path} = {written}: without quotes the sign is lost");
                    let plain = text.trim_start_matches('+');
                    let help =
                        format!("write \"+{plain}\" for {plain} more than the agent's own, or {plain} alone");
                    self.error(value.span(), message, help);
                    return None;
                }
                let negative = text.starts_with('-');
                let number = i128::from_str_radix(text, number.radix());
                // Past 128 bits it is out of every range all the same.
                Scalar::Integer(number.unwrap_or(if negative { i128::MIN } else { i128::MAX }))
            }
            DeValue::Float(number) => Scalar::Float(number.as_str()),
            DeValue::Boolean(on) => Scalar::Switch(*on),
            DeValue::Datetime(_) => Scalar::Other("a date"),
            DeValue::Array(_) => Scalar::Other("an array"),
            DeValue::Table(_) => Scalar::Other("a table"),
        };
        match knob.declare(scalar) {
            Ok(declared) => Some((declared, written)),
            Err(error) => {
                let message = format!("{path} = {written}: {error}");
                self.error(value.span(), message, error.help());
                None
            }
        }
    }

    pub(super) fn table<'d, 'i>(
        &mut self,
        path: &str,
        value: &'d Spanned<DeValue<'i>>,
    ) -> Option<&'d DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let message = format!(
                "{path} = {}: expected a table, found {}",
                self.written(value),
                type_of(value)
            );
            self.error(
                value.span(),
                message,
                format!("write [{path}] on a line of its own, and keys below it"),
            );
        }
        table
    }

    pub(super) fn text(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Text> {
        let Some(raw) = value.get_ref().as_str() else {
            let message = format!(
                "{path} = {}: expected text, found {}",
                self.written(value),
                type_of(value)
            );
            self.error(value.span(), message, "put it in quotes");
            return None;
        };
        let text = self.expanded(path, raw, value)?;
        Some(Text {
            text,
            place: self.place(value.span()),
        })
    }

    pub(super) fn expanded(&mut self, path: &str, raw: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        if self.policy && raw.contains('$') {
            let message = format!("{path} = {}: variables have no meaning here", self.written(value));
            self.error(
                value.span(),
                message,
                "write the value itself: whoever calls cgmgr sets variables",
            );
            return None;
        }
        let (why, help) = match expand(raw, self.env) {
            Ok(text) => return Some(text.into_owned()),
            Err(ExpandError::Unset(name)) => (
                format!("the environment variable {} is not set", shown(&name)),
                "set it, or write the value itself",
            ),
            Err(ExpandError::LoneDollar) => (
                "a `$` without the name of a variable".into(),
                "write $NAME, ${NAME}, or $$ for a dollar sign",
            ),
            Err(ExpandError::Unclosed) => ("a `${` without its `}`".into(), "write ${NAME}"),
        };
        let message = format!("{path} = {}: {why}", self.written(value));
        self.error(value.span(), message, help);
        None
    }

    /// The value as it is in the file, in one short line.
    pub(super) fn written(&self, value: &Spanned<DeValue<'_>>) -> String {
        shown(self.source.text.get(value.span()).unwrap_or_default())
    }
}

/// What jackin's files have that is a slip away from ours: `agents = [...]`, `[roles.NAME]`.
fn is_jackins(key: &str, value: &DeValue<'_>) -> bool {
    match key {
        "agents" => value.is_array(),
        "roles" => value
            .as_table()
            .is_some_and(|roles| roles.values().all(|role| role.get_ref().is_table())),
        _ => false,
    }
}

/// Whether a key that is no knob of this table is a slip away from one.
fn is_near_a_knob(table_path: &str, name: &str) -> bool {
    let name = name.replace('-', "_");
    let mut here = KNOBS.iter().filter(|knob| knob.table() == table_path);
    here.any(|knob| knob.name() == name || is_typo_of(&name, knob.name()))
}

pub(super) fn type_of(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn shown_key(table: &str, key: &str) -> String {
    let key = shown(key);
    if table.is_empty() {
        format!("`{key}`")
    } else {
        format!("`{key}` in [{table}]")
    }
}

/// At most so many characters of a value are repeated in a message.
const SHOWN: usize = 60;

pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
