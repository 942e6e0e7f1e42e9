//! A mistake in a role, with its place, and how people and programs see it. Makes text; prints nothing.

use crate::text::escape;
use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{Annotation, AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// The text of a role file and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path as it was given; `-` for standard input.
    pub path: PathBuf,
    /// All of the file.
    pub text: String,
}

/// A range of bytes in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
}

impl Place {
    /// Line and column, from 1; the column counts characters.
    pub(super) fn line_and_column(&self) -> (usize, usize) {
        let text = &self.source.text;
        let before = &text[..floor_char(text, self.span.start)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    /// The line, from 1.
    pub(super) fn line(&self) -> usize {
        self.line_and_column().0
    }

    /// `rust.role.toml:7`.
    pub(super) fn path_and_line(&self) -> String {
        format!("{}:{}", shown_path(&self.source.path), self.line())
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The role cannot be used.
    Error,
    /// The role can be used, and may not do what was meant.
    Warning,
}

/// Another place that has to do with a mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Bytes from the beginning of the file.
    pub span: Range<usize>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is there.
    pub label: String,
    #[serde(skip)]
    source: Arc<Source>,
}

/// One mistake. `Display` is [`render`](Diagnostic::render) without colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file; None for a flag's mistake.
    #[serde(serialize_with = "lossy_option")]
    pub path: Option<PathBuf>,
    /// Where it is, in bytes from the beginning of the file; None where it is about no place in particular.
    pub span: Option<Range<usize>>,
    /// From 1.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// What is wrong: place, value and reason.
    pub message: String,
    /// A word beside the caret.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
    /// Whether it says what the host's policy has taken, which whoever launches is told too.
    #[serde(skip)]
    pub of_host: bool,
    #[serde(skip)]
    source: Option<Arc<Source>>,
}

impl Diagnostic {
    pub(super) fn new(severity: Severity, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity,
            path: None,
            span: None,
            line: None,
            column: None,
            message: message.into(),
            label: None,
            help: None,
            related: Vec::new(),
            of_host: false,
            source: None,
        }
    }

    pub(super) fn error(message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Error, message)
    }

    pub(super) fn warning(message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Warning, message)
    }

    /// At this place.
    pub(super) fn at(mut self, place: &Place) -> Diagnostic {
        let (line, column) = place.line_and_column();
        self.path = Some(place.source.path.clone());
        self.span = Some(place.span.clone());
        self.line = Some(line);
        self.column = Some(column);
        self.source = Some(Arc::clone(&place.source));
        self
    }

    /// An error about a file as a whole, e.g. that it cannot be read.
    pub fn about_file(path: &Path, message: impl Into<String>, help: Option<String>) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(message);
        diagnostic.path = Some(path.into());
        diagnostic.help = help;
        diagnostic
    }

    /// About this file, and no place of it in particular.
    pub(super) fn about(mut self, source: &Arc<Source>) -> Diagnostic {
        self.path = Some(source.path.clone());
        self.source = Some(Arc::clone(source));
        self
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = Some(label.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, place: &Place, label: impl Into<String>) -> Diagnostic {
        let (line, column) = place.line_and_column();
        self.related.push(Related {
            path: place.source.path.clone(),
            span: place.span.clone(),
            line,
            column,
            label: label.into(),
            source: Arc::clone(&place.source),
        });
        self
    }

    /// Whether the role cannot be used because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// As rustc shows it: what, `path:line:column`, the line with a caret, `help:`. Without a newline at the end.
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message = escape(&self.message);
        let mut group = level
            .primary_title(message.as_str())
            .elements(Vec::<Snippet<Annotation>>::new());
        let path = self.path.as_deref().map(shown_path);
        let text = self.source.as_deref().map(|source| without_c1(&source.text));
        let label = self.label.as_deref().map(escape);
        match (&path, &text, &self.span) {
            (Some(path), Some(text), Some(span)) => {
                let mut primary = AnnotationKind::Primary.span(clamp(text, span));
                if let Some(label) = &label {
                    primary = primary.label(label.as_str());
                }
                let mut snippet = Snippet::source(text.as_ref())
                    .path(path.as_str())
                    .annotation(primary);
                for other in self
                    .related
                    .iter()
                    .filter(|other| Some(&other.path) == self.path.as_ref())
                {
                    let label = escape(&other.label);
                    let there = AnnotationKind::Context
                        .span(clamp(text, &other.span))
                        .label(label);
                    snippet = snippet.annotation(there);
                }
                group = group.element(snippet);
            }
            (Some(path), ..) => {
                group = group.element(annotate_snippets::Origin::path(path.as_str()));
            }
            _ => {}
        }
        for other in self
            .related
            .iter()
            .filter(|other| Some(&other.path) != self.path.as_ref())
        {
            let text = without_c1(&other.source.text);
            let there = AnnotationKind::Context
                .span(clamp(&text, &other.span))
                .label(escape(&other.label));
            group = group.element(
                Snippet::source(text)
                    .path(shown_path(&other.path))
                    .annotation(there),
            );
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(escape(help)));
        }
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.render(&[group])
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// JSON is Unicode, a path need not be.
fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

fn lossy_option<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref()
        .map(|path| path.to_string_lossy())
        .serialize(serializer)
}

/// A path as it can be shown: control characters in a file's name must not reach a terminal.
fn shown_path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// The renderer shows control characters as pictures, but not those from U+0080 to U+009F, and U+009B begins a command
/// to a terminal. A dot stands for each: it has as many bytes, so that every span stays right.
fn without_c1(text: &str) -> Cow<'_, str> {
    let c1 = |c: char| matches!(c, '\u{80}'..='\u{9f}');
    if text.contains(c1) {
        Cow::Owned(text.replace(c1, "\u{b7}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The next boundary of a character at or below `at`.
fn floor_char(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

/// A span that is in the text whatever a parser says.
fn clamp(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = floor_char(text, span.start);
    start..floor_char(text, span.end).max(start)
}
