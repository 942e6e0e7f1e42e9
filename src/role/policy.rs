//! The host's policy: what an operator allows on this machine, over whatever roles and flags say.
//!
//! `[limits]` is a ceiling on every session's knobs, `[workloads]` one on all sessions together; what is above is lowered
//! and told. A knob that nobody declared has the kernel's default, which is capped as well: memory, CPUs and tasks
//! without a limit get the ceiling, a weight only one below 100. A switch has no more or less: the host's counts. In
//! `[agent]` the host's value counts in any case.
//!
//! `[events]` is not about limits: what people are told of, and how.
//!
//! nice and oom_score_adj say how favoured a session is, so that the host says the least they may be. What an absent or
//! relative value amounts to is known at launch only: [`Setting::least`](crate::limits::Setting::least) goes there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Place, Source};
use super::events::Events;
use super::raw::read_policy;
use super::resolve::{add_note, derive_swap};
use crate::host::Machine;
use crate::limits::{KnobId, Max, Nice, Origin, Part, Settings, Value};
use crate::order;
use crate::text::escape;

/// What an operator allows, on one machine.
#[derive(Debug, Clone)]
pub struct HostPolicy {
    source: Arc<Source>,
    ceilings: BTreeMap<KnobId, Ceiling>,
    events: Events,
}

#[derive(Debug, Clone)]
struct Ceiling {
    value: Value,
    place: Place,
}

/// Each soft limit and its hard one.
const SOFT: [(KnobId, KnobId); 2] = [
    (KnobId::MemoryHigh, KnobId::MemoryMax),
    (KnobId::WorkloadsMemoryHigh, KnobId::WorkloadsMemoryMax),
];

/// What a ceiling makes of a knob.
enum Capped {
    /// It is within.
    Within,
    /// It gets the host's value.
    Lowered,
    /// How favoured the session is is known at launch.
    AtLaunch,
}

impl HostPolicy {
    /// Reads a policy, and gives it its meaning on a machine: `[limits]`, `[agent]` and `[workloads]` with the keys and
    /// the grammar of a role file, without variables, and `[events]`.
    ///
    /// # Errors
    ///
    /// All its mistakes at once, with their places, as in a role file.
    pub fn parse(source: Source, machine: &Machine) -> Result<HostPolicy, Vec<Diagnostic>> {
        let source = Arc::new(source);
        let mut mistakes = Vec::new();
        let read = read_policy(&source, &mut mistakes);
        let mut ceilings = BTreeMap::new();
        for entry in read.entries {
            match entry.id.knob().value(entry.declared, machine) {
                Ok(value) => {
                    let place = entry.place;
                    ceilings.insert(entry.id, Ceiling { value, place });
                }
                Err(error) => mistakes.push(
                    Diagnostic::error(format!("{} = {}: {error}", entry.path, entry.written))
                        .at(&entry.place)
                        .help(error.help()),
                ),
            }
        }
        order::sort_by_key(&mut mistakes, |mistake| {
            mistake.span.as_ref().map(|span| span.start)
        });
        if read.undescribed > 0 {
            mistakes.push(Diagnostic::error(format!("{} more mistakes", read.undescribed)));
        }
        if mistakes.is_empty() {
            Ok(HostPolicy {
                source,
                ceilings,
                events: read.events,
            })
        } else {
            Err(mistakes)
        }
    }

    /// The file, as it was given.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// What it says of events; as without a policy where it says nothing.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// How many knobs it has a word on.
    pub fn len(&self) -> usize {
        self.ceilings.len()
    }

    /// Whether it allows everything.
    pub fn is_empty(&self) -> bool {
        self.ceilings.is_empty()
    }

    /// What it says about a knob; None: it has no word on it.
    pub fn value_of(&self, id: KnobId) -> Option<Value> {
        self.ceilings.get(&id).map(|ceiling| ceiling.value)
    }

    /// Where the file has a knob; None: it has no word on it.
    pub fn origin_of(&self, id: KnobId) -> Option<Origin> {
        let place = &self.ceilings.get(&id)?.place;
        Some(Origin::HostPolicy {
            file: self.source.path.clone(),
            line: place.line(),
        })
    }

    /// Puts settings within the policy, and says in a warning each what that changed of what somebody declared. Settings
    /// that are within stay as they are, so that twice is as good as once.
    ///
    /// For one value alone, as `KNOB=VALUE` gives it, set it in the settings that are in force and cap those.
    pub fn cap(&self, settings: &mut Settings) -> Vec<Diagnostic> {
        let mut warnings = Vec::new();
        // A limit on memory brings one on swap, and goes before the soft limit that is compared with it.
        let first = [KnobId::MemoryMax, KnobId::WorkloadsMemoryMax];
        first
            .into_iter()
            .for_each(|id| self.cap_one(id, settings, &mut warnings));
        derive_swap(settings);
        for id in self.ceilings.keys().filter(|id| !first.contains(id)) {
            self.cap_one(*id, settings, &mut warnings);
        }
        for (high, max) in SOFT {
            self.lift_soft_limit(high, max, settings, &mut warnings);
        }
        self.note_ceilings_over_all(settings);
        warnings
    }

    fn cap_one(&self, id: KnobId, settings: &mut Settings, warnings: &mut Vec<Diagnostic>) {
        let Some(ceiling) = self.ceilings.get(&id) else {
            return;
        };
        let before = settings.get(id).clone();
        let knob = before.knob;
        let declared = !matches!(before.origin, Origin::Derived(_) | Origin::Default);
        let capped = if knob.part == Part::Agent {
            match before.value {
                Some(value) if value == ceiling.value => Capped::Within,
                _ => Capped::Lowered,
            }
        } else {
            within(id, before.value.as_ref(), &ceiling.value)
        };
        if before.value.is_none_or(|value| value == Value::Memory(Max::Max))
            && SOFT.iter().any(|(high, max)| {
                let max = settings.value(*max).and_then(Value::bytes);
                *high == id && max.is_some_and(|max| ceiling.value.bytes().is_some_and(|high| high >= max))
            })
        {
            // A soft limit above the hard one does nothing.
            return;
        }
        let there = ceiling.place.path_and_line();
        match capped {
            Capped::Within => {}
            Capped::AtLaunch => {
                settings.get_mut(id).least = Some(ceiling.value);
                let note = format!("at least {} on this host ({there})", ceiling.value.human());
                if settings
                    .get(id)
                    .note
                    .as_ref()
                    .is_none_or(|known| !known.contains(&note))
                {
                    add_note(settings, id, &note);
                }
            }
            Capped::Lowered => {
                let origin = Origin::HostPolicy {
                    file: self.source.path.clone(),
                    line: ceiling.place.line(),
                };
                settings.set(id, ceiling.value, origin);
                settings.get_mut(id).note = None;
                let Some(value) = before.value.filter(|_| declared) else {
                    add_note(settings, id, "nobody declared it: what the host allows");
                    return;
                };
                let from = before.origin.source().unwrap_or_default();
                let (was, is) = (value.human(), ceiling.value.human());
                add_note(settings, id, &format!("instead of {was} of {from}"));
                let reason = reason(id, &value);
                let message = format!(
                    "{} = {was} ({}) {reason} {is} ({there}): here it is {is}",
                    knob.key,
                    escape(&from)
                );
                let mut warning = Diagnostic::warning(message)
                    .at(&ceiling.place)
                    .label("the host's");
                warning =
                    warning.help("ask for less, or have the operator of this machine change the policy");
                warning.of_host = true;
                warnings.push(warning);
            }
        }
    }

    /// A soft limit above a hard one that the host has lowered has no effect, which some kernels' users take for a hang.
    fn lift_soft_limit(
        &self,
        high: KnobId,
        max: KnobId,
        settings: &mut Settings,
        warnings: &mut Vec<Diagnostic>,
    ) {
        let bytes = |id: KnobId, settings: &Settings| settings.value(id).and_then(Value::bytes);
        let (Some(soft), Some(hard)) = (bytes(high, settings), bytes(max, settings)) else {
            return;
        };
        let by_host = matches!(settings.get(max).origin, Origin::HostPolicy { .. });
        if soft <= hard || !by_host {
            return;
        }
        let from = settings.get(high).origin.source().unwrap_or_default();
        let name = high.knob().key;
        let why = format!("{} of the host is below {} ({from})", hard.human(), soft.human());
        settings.set(high, Value::Memory(Max::Max), Origin::Derived(why));
        settings.get_mut(high).note = None;
        let place = self.ceilings.get(&max).map(|ceiling| &ceiling.place);
        let there = place.map(Place::path_and_line).unwrap_or_default();
        let message = format!(
            "{name} = {} ({}) is above the host's {} = {} ({there}): it has no effect",
            soft.human(),
            escape(&from),
            max.knob().key,
            hard.human(),
        );
        let mut warning = Diagnostic::warning(message).help(format!(
            "give a lower {name} too, if memory is to be taken back before"
        ));
        if let Some(place) = place {
            warning = warning.at(place).label("the host's");
        }
        warning.of_host = true;
        warnings.push(warning);
    }

    /// One session cannot have more than all together may.
    fn note_ceilings_over_all(&self, settings: &mut Settings) {
        for (session, all) in [
            (KnobId::MemoryMax, KnobId::WorkloadsMemoryMax),
            (KnobId::Cpus, KnobId::WorkloadsCpus),
            (KnobId::Pids, KnobId::WorkloadsPids),
        ] {
            let (Some(one), Some(over)) = (settings.value(session), settings.value(all)) else {
                continue;
            };
            if !matches!(settings.get(all).origin, Origin::HostPolicy { .. })
                || !matches!(within(session, Some(one), over), Capped::Lowered)
            {
                continue;
            }
            let note = format!("effectively {}: {} of the host", over.human(), all.knob().key);
            if settings
                .get(session)
                .note
                .as_ref()
                .is_none_or(|known| !known.contains(&note))
            {
                add_note(settings, session, &note);
            }
        }
    }
}

/// What a ceiling makes of a value, or of its absence.
fn within(id: KnobId, value: Option<&Value>, ceiling: &Value) -> Capped {
    let lowered = |over: bool| if over { Capped::Lowered } else { Capped::Within };
    match (value, ceiling) {
        (None, Value::Nice(_) | Value::OomScoreAdj(_)) => Capped::AtLaunch,
        (Some(Value::Nice(value)), Value::Nice(least)) => match (value, least) {
            (Nice::Absolute(value), Nice::Absolute(least))
            | (Nice::Relative(value), Nice::Relative(least)) => lowered(value < least),
            _ => Capped::AtLaunch,
        },
        (Some(Value::OomScoreAdj(value)), Value::OomScoreAdj(least)) => lowered(value < least),
        (Some(Value::Memory(value)), Value::Memory(most)) => lowered(value > most),
        (Some(Value::Cpu(value)), Value::Cpu(most)) => lowered(value > most),
        (Some(Value::Count(value)), Value::Count(most)) => lowered(value > most),
        (Some(Value::Weight(value)), Value::Weight(most)) => lowered(value > most),
        // Where nobody says otherwise it is what the kernel has: no limit, or this weight.
        (None, Value::Memory(most)) => lowered(*most != Max::Max),
        (None, Value::Cpu(most)) => lowered(*most != Max::Max),
        (None, Value::Count(most)) => lowered(*most != Max::Max),
        (None, Value::Weight(most)) => {
            let default = id
                .knob()
                .kernel_default
                .and_then(|text| text.rsplit(' ').next()?.parse().ok());
            lowered(default.is_none_or(|default: u16| default > most.get()))
        }
        // The order of the policies is that of how strict they are; none is the least.
        (value, Value::Admission(least)) => {
            let rank = |value: &Value| match value {
                Value::Admission(value) => *value as u8,
                _ => 0,
            };
            lowered(value.map_or(0, rank) < *least as u8)
        }
        (value, ceiling) => lowered(value != Some(ceiling)),
    }
}

/// Why the host's value counts.
fn reason(id: KnobId, value: &Value) -> &'static str {
    match value {
        _ if id.knob().part == Part::Agent => "gives way to the host's",
        Value::Nice(_) | Value::OomScoreAdj(_) => "is more favoured than the host's",
        Value::Switch(_) | Value::Admission(_) | Value::Stall(_) => "gives way to the host's",
        _ => "is above the host's",
    }
}
