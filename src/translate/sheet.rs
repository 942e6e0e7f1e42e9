//! What a translation reads the limits from and writes its losses on.

use super::Loss;
use super::places::no_place;
use crate::limits::{CpuQuota, Engine, KnobId, Max, Nice, Origin, Part, Setting, Settings, Value};

/// The limits of a role, and what was lost of them so far.
pub(super) struct Sheet<'a> {
    pub(super) engine: Engine,
    name: &'a str,
    settings: &'a Settings,
    image: Option<String>,
    losses: Vec<(KnobId, Loss)>,
    parts: Vec<Loss>,
    notes: Vec<String>,
    /// Parts whose knobs have a place there.
    placed: Vec<Part>,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(
        name: &'a str,
        settings: &'a Settings,
        engine: Engine,
        image: Option<String>,
    ) -> Sheet<'a> {
        Sheet {
            engine,
            name,
            settings,
            image,
            losses: Vec::new(),
            parts: Vec::new(),
            notes: Vec::new(),
            placed: Vec::new(),
        }
    }

    /// The role's name: `A-Z a-z 0-9 : _ . -`.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// The role's name as a DNS label, which most programs take: lower case, digits and hyphens, at most 63 bytes. A note
    /// says that it is another.
    pub(super) fn label(&mut self) -> String {
        let plain = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '-',
        };
        let label: String = self.name.chars().take(63).map(plain).collect();
        let label = match label.trim_matches('-') {
            "" => "role".to_owned(),
            label => label.to_owned(),
        };
        if label != self.name {
            let note = format!("the name is {label}: {} is none there", self.name);
            self.note(&note);
        }
        label
    }

    /// The image to name, or one of the role's own name that is easily recognised as made up.
    pub(super) fn image(&self, label: &str) -> String {
        match &self.image {
            Some(image) => image.clone(),
            None => format!("localhost/{label}:latest"),
        }
    }

    pub(super) fn setting(&self, id: KnobId) -> &'a Setting {
        self.settings.get(id)
    }

    pub(super) fn part(&self, part: Part) -> Vec<&'a Setting> {
        self.settings.part(part).collect()
    }

    /// An amount of memory or swap, in bytes, if declared.
    pub(super) fn memory(&self, id: KnobId) -> Option<Max<u64>> {
        match self.settings.value(id)? {
            Value::Memory(Max::At(bytes)) => Some(Max::At(bytes.0)),
            _ => Some(Max::Max),
        }
    }

    /// CPU time, where it is declared and not `max`.
    pub(super) fn quota(&self, id: KnobId) -> Option<CpuQuota> {
        self.settings.value(id)?.quota()
    }

    /// A number of tasks or files, if declared.
    pub(super) fn count(&self, id: KnobId) -> Option<Max<u64>> {
        match self.settings.value(id)? {
            Value::Count(count) => Some(*count),
            _ => None,
        }
    }

    /// A weight, where it is declared and not the kernel's 100.
    pub(super) fn weight(&self, id: KnobId) -> Option<u16> {
        match self.settings.value(id)? {
            Value::Weight(weight) if weight.get() != 100 => Some(weight.get()),
            _ => None,
        }
    }

    /// The oom_score_adj, if declared.
    pub(super) fn score(&self) -> Option<i32> {
        match self.settings.value(KnobId::OomScoreAdj)? {
            Value::OomScoreAdj(score) => Some(score.get()),
            _ => None,
        }
    }

    /// Whether an OOM kill takes all, if declared.
    pub(super) fn oom_group(&self) -> Option<bool> {
        match self.settings.value(KnobId::OomGroup)? {
            Value::Switch(on) => Some(*on),
            _ => None,
        }
    }

    /// The nice value, if declared. A relative one counts from 0, what is started there has that; it is a loss.
    pub(super) fn nice(&mut self) -> Option<i32> {
        let Some(Value::Nice(nice)) = self.settings.value(KnobId::Nice) else {
            return None;
        };
        let absolute = nice.from_own(0);
        if let Nice::Relative(_) = nice {
            let why = format!(
                "it counts from whoever launches, and there nobody does: it is {absolute}, counted from 0"
            );
            self.lose(KnobId::Nice, &why, "declare an absolute value, e.g. nice = 5");
        }
        Some(absolute)
    }

    /// Takes a loss down.
    pub(super) fn lose(&mut self, id: KnobId, why: &str, instead: &str) {
        let loss = Loss {
            knob: id.knob().key.to_owned(),
            value: self.settings.get(id).human(),
            why: why.to_owned(),
            instead: instead.to_owned(),
        };
        let at = self.losses.partition_point(|(known, _)| *known <= id);
        self.losses.insert(at, (id, loss));
    }

    pub(super) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    /// The knobs of this part have a place there: what of it is lost is said one by one.
    pub(super) fn has_place_for(&mut self, part: Part) {
        self.placed.push(part);
    }

    /// Everything that is declared and has no place there is lost too.
    pub(super) fn finish(mut self) -> (Vec<Loss>, Vec<String>) {
        self.places();
        for setting in self.settings.iter().filter(|setting| setting.value.is_some()) {
            let (key, part) = (setting.knob.key, setting.knob.part);
            if part != Part::Session && !self.placed.contains(&part) {
                continue;
            }
            let note = setting.note.as_deref().unwrap_or_default();
            let share = note
                .split("; ")
                .find(|note| note.contains("% of ") || note.contains("%\" of "));
            if let Some(share) = share {
                self.notes.push(format!(
                    "{key} is {share}, which is this machine's unless --memory-total says another"
                ));
            }
            if let Origin::HostPolicy { .. } = setting.origin {
                self.notes
                    .push(format!("{key} is what this machine allows: {}", setting.origin));
            }
        }
        let losses = self.losses.into_iter().map(|(_, loss)| loss);
        (losses.chain(self.parts).collect(), self.notes)
    }

    fn places(&mut self) {
        for part in Part::ALL {
            let declared: Vec<&Setting> = self
                .settings
                .part(part)
                .filter(|one| one.value.is_some())
                .collect();
            if part == Part::Session || self.placed.contains(&part) {
                for setting in declared {
                    if setting.knob.at(self.engine).is_none() && !holds_anyway(self.engine, setting) {
                        let (why, instead) = no_place(self.engine, setting.knob.id);
                        self.lose(setting.knob.id, why, instead);
                    }
                }
            } else if !declared.is_empty() {
                let mut value = String::new();
                for setting in declared {
                    let separator = if value.is_empty() { "" } else { ", " };
                    value.push_str(separator);
                    value.push_str(setting.knob.name());
                    value.push_str(" = ");
                    value.push_str(&setting.human());
                }
                let (why, instead) = match part {
                    Part::Agent => (
                        "it is about the process that starts sessions, and not about what is started there",
                        "`cgmgr apply` and `cgmgr protect` on the machine where the agent is",
                    ),
                    _ => (
                        "it is over all sessions together, and this is one of them",
                        "`cgmgr apply`, or --to systemd-unit for the slices",
                    ),
                };
                self.parts.push(Loss {
                    knob: part.to_string(),
                    value,
                    why: why.to_owned(),
                    instead: instead.to_owned(),
                });
            }
        }
    }
}

/// Whether the value holds there without being said: the kernel's own default, or what the program does by itself.
fn holds_anyway(engine: Engine, setting: &Setting) -> bool {
    let value = setting
        .value
        .as_ref()
        .map(|value| value.kernel_text(setting.knob));
    match (engine, setting.knob.id) {
        // The kubelet switches memory.oom.group on.
        (Engine::Kubernetes, KnobId::OomGroup) => value.as_deref() == Some("1"),
        // No swap: by default of the kubelet, by Nomad's docker driver, in a virtual machine without a device for it.
        (Engine::Kubernetes | Engine::Nomad | Engine::AppleContainer, KnobId::MemorySwapMax) => {
            value.as_deref() == Some("0")
        }
        _ => setting.knob.kernel_default.is_some() && value.as_deref() == setting.knob.kernel_default,
    }
}
