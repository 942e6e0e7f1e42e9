//! `[events]` of the host's policy: what people are told of, by which program, and what is done about a limit that somebody
//! else has changed.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw::{Reader, type_of};
use super::suggest::nearest;

/// Every kind of record, as `events` of `[events]` names it.
pub const EVENTS: [&str; 11] = [
    "started",
    "oom_kill",
    "max_hit",
    "throttled",
    "stalled",
    "pids_hit",
    "pressure",
    "drifted",
    "applied",
    "frozen",
    "exited",
];

/// What people are told of where nobody says otherwise: what has cost work, or is about to.
const TOLD: [&str; 3] = ["oom_kill", "stalled", "drifted"];

const KEYS: [&str; 3] = ["on_event", "events", "drift"];

/// What is done about a limit that is not what cgmgr set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DriftAction {
    /// It is recorded.
    #[default]
    Record,
    /// It is set back as well.
    Repair,
}

impl DriftAction {
    const ALL: [DriftAction; 2] = [DriftAction::Record, DriftAction::Repair];

    /// The word in the policy.
    pub fn word(self) -> &'static str {
        match self {
            DriftAction::Record => "record",
            DriftAction::Repair => "repair",
        }
    }
}

/// What a host's policy says of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The operator's program, with an absolute path, and its arguments; empty: none.
    pub on_event: Vec<String>,
    /// The kinds that people are told of, of [`EVENTS`].
    pub events: Vec<&'static str>,
    /// What is done about a limit that is not what cgmgr set.
    pub drift: DriftAction,
}

/// As without a policy.
impl Default for Events {
    fn default() -> Self {
        Self {
            on_event: Vec::new(),
            events: TOLD.to_vec(),
            drift: DriftAction::default(),
        }
    }
}

impl Events {
    /// Whether people are told of a kind of record.
    pub fn tells_of(&self, event: &str) -> bool {
        self.events.contains(&event)
    }
}

impl Reader<'_> {
    /// `[events]` of a host's policy.
    pub(super) fn events(&mut self, table: &DeTable<'_>) -> Events {
        let mut events = Events::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "on_event" => self.on_event(value, &mut events),
                "events" => {
                    if let Some(names) = self.texts("events.events", value, "[\"oom_kill\"]") {
                        let known = names
                            .iter()
                            .filter_map(|(_, name, value)| self.event(name, value));
                        events.events = known.collect();
                    }
                }
                "drift" => self.drift(value, &mut events),
                other => {
                    let help = nearest(other, KEYS).map_or_else(
                        || format!("[events] has {}", KEYS.join(", ")),
                        |meant| format!("did you mean `{meant}`?"),
                    );
                    self.unknown_key("events", other, key.span(), help);
                }
            }
        }
        events
    }

    fn on_event(&mut self, value: &Spanned<DeValue<'_>>, events: &mut Events) {
        const EXAMPLE: &str = "[\"/usr/local/bin/tell\", \"--now\"]";
        let Some(argv) = self.texts("events.on_event", value, EXAMPLE) else {
            return;
        };
        if value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
            let message = "events.on_event = []: there is no program in it".to_owned();
            self.error(
                value.span(),
                message,
                format!("write on_event = {EXAMPLE}, or leave it out"),
            );
        }
        for (number, text, place) in argv {
            if number == 0 && !text.starts_with('/') {
                let message = format!("events.on_event: {} is not an absolute path", self.written(place));
                let help =
                    "write the program's whole path: it is started without a shell, and PATH is not searched";
                self.error(place.span(), message, help);
            } else if text.contains('\0') {
                let message = format!("events.on_event: {} has a NUL in it", self.written(place));
                self.error(place.span(), message, "no program can be given one: leave it out");
            }
            events.on_event.push(text);
        }
    }

    fn event(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<&'static str> {
        let known = EVENTS.into_iter().find(|event| *event == name);
        if known.is_none() {
            let help = match nearest(name, EVENTS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", EVENTS.join(", ")),
            };
            let message = format!("events.events: {}: there is no such event", self.written(value));
            self.error(value.span(), message, help);
        }
        known
    }

    fn drift(&mut self, value: &Spanned<DeValue<'_>>, events: &mut Events) {
        let Some(word) = self.text("events.drift", value) else {
            return;
        };
        match DriftAction::ALL
            .into_iter()
            .find(|action| action.word() == word.text)
        {
            Some(action) => events.drift = action,
            None => {
                let message = format!("events.drift = {}: no such policy", self.written(value));
                self.error(value.span(), message, "write \"record\" or \"repair\"");
            }
        }
    }

    /// An array of texts, with their numbers from 0 and places. `None`: it is none. What in it is none is said and left out, so that what is
    /// wrong with the others can be told too.
    fn texts<'d, 'i>(
        &mut self,
        path: &str,
        value: &'d Spanned<DeValue<'i>>,
        example: &str,
    ) -> Option<Vec<(usize, String, &'d Spanned<DeValue<'i>>)>> {
        let Some(array) = value.get_ref().as_array() else {
            let (written, kind) = (self.written(value), type_of(value));
            let message = format!("{path} = {written}: expected an array of texts, found {kind}");
            self.error(value.span(), message, format!("write it in brackets: {example}"));
            return None;
        };
        let texts = array.iter().enumerate();
        let texts = texts.filter_map(|(number, one)| Some((number, self.text(path, one)?.text, one)));
        Some(texts.collect())
    }
}
