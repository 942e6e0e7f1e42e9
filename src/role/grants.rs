//! jackin's `[docker.grants]` and `[docker] profile`: a profile brings numbers, and grants only widen them.
//!
//! Which profile counts is as in jackin: the file's, and without one `standard`. That a command line or a second file of
//! jackin's may name another is for jackin alone. A grant below the profile's number changes nothing, and that is said.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::dialect::{Dialect, GRANTS};
use super::raw::{Entry, RawRole, Reader, shown, type_of};
use super::suggest::nearest;
use crate::limits::{Bytes, Count, CpuQuota, Declared, KnobId, Max, Scalar, Size, grant_text};

/// A profile and its numbers, in the order of [`GRANTS`]: GiB, GiB, CPUs, tasks, files. None: no limits at all.
struct Profile {
    name: &'static str,
    numbers: Option<[u64; 5]>,
}

/// jackin's profiles, from the least to the most capable.
const PROFILES: [Profile; 4] = [
    Profile {
        name: "locked",
        numbers: Some([4, 3, 2, 512, 2048]),
    },
    Profile {
        name: "hardened",
        numbers: Some([16, 12, 4, 2048, 8192]),
    },
    Profile {
        name: "standard",
        numbers: Some([16, 12, 4, 2048, 8192]),
    },
    Profile {
        name: "compat",
        numbers: None,
    },
];

/// The profile of a file that names none.
const DEFAULT: &Profile = &PROFILES[2];

/// What the import of a reservation has to say.
const RESERVATION: &str =
    "imported as memory_high, which is what jackin means; docker's own flag sets memory.low on cgroup v2";

/// A profile's number for one limit.
struct Base {
    declared: Declared,
    text: String,
}

impl Profile {
    fn base(&self, row: usize) -> Option<Base> {
        let number = self.numbers?[row];
        Some(match GRANTS[row].1 {
            KnobId::MemoryMax | KnobId::MemoryHigh => Base {
                declared: Declared::Size(Size::Bytes(Bytes(number << 30))),
                text: grant_text(number << 30),
            },
            KnobId::Cpus => Base {
                declared: Declared::Cpu(Max::At(CpuQuota::from_cpus(number as u32).ok()?)),
                text: number.to_string(),
            },
            _ => Base {
                declared: Declared::Count(Count::At(number)),
                text: number.to_string(),
            },
        })
    }
}

impl Reader<'_> {
    /// `[docker]`. Without grants and profile it has to do with containers only.
    pub(super) fn docker(&mut self, table: &DeTable<'_>, role: &mut RawRole) {
        let mut profile = None;
        let mut grants = None;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "profile" => profile = Some((key.span(), value)),
                "grants" => grants = Some((key.span(), value)),
                other => self.foreign_key(value, "docker", other, key.span(), &["profile", "grants"]),
            }
        }
        let Some(at) = grants.as_ref().or(profile.as_ref()).map(|(span, _)| span.clone()) else {
            return;
        };
        let what = if grants.is_some() {
            "[docker.grants]"
        } else {
            "`profile` in [docker]"
        };
        self.declares(Dialect::JackinGrants, what, at.clone(), role);
        let named = profile
            .as_ref()
            .and_then(|(_, value)| Some((self.profile(value)?, value.span())));
        let known = named.is_some() || profile.is_none();
        let (profile, place, whose) = match named {
            Some((profile, place)) => (profile, place, "docker.profile"),
            None => (DEFAULT, at, "jackin's default, docker.profile"),
        };
        let given = match grants {
            Some((_, value)) => self.table("docker.grants", value).map(|table| self.grants(table)),
            None => None,
        };
        let mut given = given.unwrap_or_default();
        for (row, (_, id, path)) in GRANTS.iter().enumerate() {
            let grant = given[row].take();
            let base = profile.base(row).filter(|_| known);
            let from_profile = |base: Base, place: Range<usize>, reader: &Self| Entry {
                id: *id,
                declared: base.declared,
                place: reader.place(place),
                written: format!("{} (profile {})", base.text, profile.name),
                path,
                called: path,
                note: note(*id, Some(format!("{whose} = {}", profile.name))),
            };
            let entry = match (base, grant) {
                (None, None) => continue,
                (Some(base), None) => from_profile(base, place.clone(), self),
                (Some(base), Some(grant)) if amount(&grant.declared) < amount(&base.declared) => {
                    self.below_profile(profile, row, &base, &grant);
                    from_profile(base, place.clone(), self)
                }
                (_, Some(grant)) => grant,
            };
            role.entries.push(entry);
        }
    }

    fn profile(&mut self, value: &Spanned<DeValue<'_>>) -> Option<&'static Profile> {
        let named = self.text("docker.profile", value)?;
        let found = PROFILES.iter().find(|profile| profile.name == named.text);
        if found.is_none() {
            let names = PROFILES.iter().map(|profile| profile.name);
            let help = nearest(&named.text, names).map_or_else(
                || "write locked, hardened, standard or compat".to_owned(),
                |meant| format!("did you mean \"{meant}\"?"),
            );
            let message = format!("docker.profile = {}: unknown docker profile", self.written(value));
            self.error(value.span(), message, help);
        }
        found
    }

    /// The limits of `[docker.grants]`, in the order of [`GRANTS`].
    fn grants(&mut self, table: &DeTable<'_>) -> [Option<Entry>; 5] {
        let mut given = [const { None }; 5];
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match GRANTS.iter().position(|(grant, ..)| *grant == name) {
                Some(row) => given[row] = self.grant(row, value),
                None => self.foreign_limit(Dialect::JackinGrants, "docker.grants", name, key.span()),
            }
        }
        given
    }

    fn grant(&mut self, row: usize, value: &Spanned<DeValue<'_>>) -> Option<Entry> {
        const NUMBER: &str =
            "write a number above 0; without the key the profile's counts, and \"compat\" has none";
        let (_, id, path) = GRANTS[row];
        let mut written = self.written(value);
        let knob = id.knob();
        let wrong = |expected: &str| format!("expected {expected}, found {}", type_of(value));
        let declared = match (value.get_ref(), id) {
            (DeValue::String(raw), KnobId::MemoryMax | KnobId::MemoryHigh) => {
                let text = self.expanded(path, raw, value)?;
                if text != *raw {
                    written = format!("{written} (which is {})", shown(&format!("{text:?}")));
                }
                let size = Size::parse_grant(&text).map(Declared::Size);
                size.map_err(|error| (error.to_string(), error.help().to_owned()))
            }
            (_, KnobId::MemoryMax | KnobId::MemoryHigh) => {
                Err((wrong("text"), "write a size in quotes, such as \"16G\"".into()))
            }
            (DeValue::Integer(number), _) => {
                let number = i128::from_str_radix(number.as_str(), number.radix());
                let declared = knob.declare(Scalar::Integer(number.unwrap_or(i128::MAX)));
                declared.map_err(|error| (error.to_string(), NUMBER.to_owned()))
            }
            (DeValue::Float(number), KnobId::Cpus) => {
                let declared = knob.declare(Scalar::Float(number.as_str()));
                declared.map_err(|error| (error.to_string(), NUMBER.to_owned()))
            }
            (_, KnobId::Cpus) => Err((
                wrong("a number"),
                "write a number of CPUs without quotes, such as 4.0".into(),
            )),
            _ => Err((
                wrong("a whole number"),
                "write a plain whole number without quotes".into(),
            )),
        };
        match declared {
            Ok(declared) => Some(Entry {
                id,
                declared,
                place: self.place(value.span()),
                written,
                path,
                called: path,
                note: note(id, None),
            }),
            Err((message, help)) => {
                self.error(value.span(), format!("{path} = {written}: {message}"), help);
                None
            }
        }
    }

    fn below_profile(&mut self, profile: &Profile, row: usize, base: &Base, grant: &Entry) {
        let (_, _, path) = GRANTS[row];
        let message = format!(
            "{path} = {} is below the {} of profile {}: grants only widen a profile, so it is {}",
            grant.written, base.text, profile.name, base.text
        );
        let lower = PROFILES.iter().find_map(|lower| {
            let text = lower
                .base(row)
                .filter(|lower| amount(&lower.declared) < amount(&base.declared))?
                .text;
            Some(format!("choose profile = \"{}\" ({text}), or", lower.name))
        });
        let help = format!(
            "{} give a lower limit by a flag, or in a role file that extends this one",
            lower.unwrap_or_default()
        );
        self.warning(
            Diagnostic::warning(message)
                .at(&grant.place)
                .help(help.trim_start()),
        );
    }
}

fn note(id: KnobId, from: Option<String>) -> Option<String> {
    match (from, id) {
        (Some(from), KnobId::MemoryHigh) => Some(format!("{from}; {RESERVATION}")),
        (None, KnobId::MemoryHigh) => Some(RESERVATION.into()),
        (from, _) => from,
    }
}

/// Two values of one limit are compared by this. Grants have neither percentages nor `max`.
fn amount(declared: &Declared) -> u64 {
    match declared {
        Declared::Size(Size::Bytes(bytes)) => bytes.0,
        Declared::Cpu(Max::At(quota)) => quota.quota_us(),
        Declared::Count(Count::At(count)) => *count,
        _ => u64::MAX,
    }
}
