//! Why a value could not be read: a kind for programs, a message and a remedy for people.

use std::fmt;

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing is there.
    Empty,
    /// A TOML type that this knob does not take, such as an array.
    WrongType,
    /// Not a number at all.
    NotANumber,
    /// Below zero.
    Negative,
    /// A plus sign where a sign has no meaning.
    Sign,
    /// `1e3`.
    Exponent,
    /// `1_000` or `1,000`.
    Separator,
    /// A character outside ASCII.
    NonAscii,
    /// `infinity`, `unlimited`, `nan` and the like.
    NotFinite,
    /// A unit that does not exist, or not here.
    UnknownUnit,
    /// A percentage where there is nothing that it could be of, or of more than everything.
    Percent,
    /// More than fits.
    Overflow,
    /// More digits after the point than can be held.
    TooPrecise,
    /// Zero where zero would do harm.
    Zero,
    /// Less than the kernel can hold.
    TooSmall,
    /// Outside the range of this knob.
    OutOfRange,
    /// `max` where an amount is needed.
    MaxNotAllowed,
    /// Not one of the words that this knob takes.
    UnknownWord,
}

/// A value that could not be read. The message says what is wrong with the value, without the value and the place of
/// it (who asks knows both); the help says what to write instead. Both are lower-case and without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrammarError {
    kind: ErrorKind,
    message: String,
    help: String,
}

impl GrammarError {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>, help: impl Into<String>) -> Self {
        GrammarError {
            kind,
            message: message.into(),
            help: help.into(),
        }
    }

    /// The same with another remedy, for a grammar that has other words for it.
    pub(super) fn with_help(mut self, help: &str) -> Self {
        self.help = help.into();
        self
    }

    /// What is wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What is wrong, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write instead.
    pub fn help(&self) -> &str {
        &self.help
    }
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for GrammarError {}
