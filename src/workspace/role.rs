//! What a session may use: a role file, or limits alone.

use super::error::Error;
use crate::files;
use crate::host::Machine;
use crate::limits::{KnobId, Origin, Part, Settings};
use crate::role::{self, Diagnostic, Overrides, Resolved};
use crate::text::escape;
use std::path::Path;

/// What one kind of session may use, on this machine. What the host's policy takes of it is taken when a session starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub(super) role: role::Role,
    /// Limits on top of the file: knob and text.
    pub(super) overrides: Vec<(String, String)>,
    warnings: Vec<Diagnostic>,
}

/// Limits without a file, or on top of one, each in the grammar of a role file: sizes such as `8 GiB` or `50%`, CPUs such
/// as `1.5` or `150%`, `max` for no limit. Mistakes are told, all at once, when a role is made of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits(Vec<(String, String)>);

macro_rules! knobs {
    ($($name:ident),+ $(,)?) => {
        impl Limits {
            $(
                #[doc = concat!("The knob `", stringify!($name), "` (see README's table of knobs).")]
                pub fn $name(self, value: impl Into<String>) -> Self {
                    self.set(stringify!($name), value)
                }
            )+
        }
    };
}

knobs!(
    memory_high,
    memory_max,
    memory_swap_max,
    cpus,
    cpu_weight,
    io_weight,
    pids,
    nofile,
    nice,
    oom_score_adj,
    oom_group,
    oom_preserve_state,
    oom_notify,
    stall,
);

impl Limits {
    /// No limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// A knob by its key, e.g. `memory_max`.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((key.into(), value.into()));
        self
    }

    /// As flags would give them; and what is no knob of a session.
    fn overrides(&self) -> (Overrides, Vec<Error>) {
        let (mut overrides, mut unknown) = (Overrides::default(), Vec::new());
        for (key, value) in &self.0 {
            match super::change::knob(key) {
                Ok(knob) => overrides.push(knob.id, value.as_str(), knob.key),
                Err(error) => unknown.push(error),
            }
        }
        (overrides, unknown)
    }
}

impl Role {
    pub(super) fn of_file(path: &Path, limits: &Limits, machine: &Machine) -> Result<Self, Error> {
        let shown = escape(&path.to_string_lossy());
        let resolve = |overrides: &Overrides| match files::resolve(path, machine, overrides, &files::env) {
            Err(unreadable) => Err(vec![*unreadable]),
            Ok(resolved) => resolved,
        };
        Self::of(&format!("{shown} is not a valid role"), limits, &resolve)
    }

    pub(super) fn of_text(name: &str, text: &str, machine: &Machine) -> Result<Self, Error> {
        let source = role::Source {
            path: name.into(),
            text: text.to_owned(),
        };
        let resolve = |overrides: &Overrides| {
            let inputs = role::Inputs {
                machine,
                env: &files::env,
                load: &|_| {
                    Err(role::LoadError {
                        message: "a role that is no file extends none".into(),
                        help: Some("put it into a file".into()),
                    })
                },
                overrides,
            };
            role::resolve(source.clone(), &inputs)
        };
        let what = format!("the role {} is not valid", escape(name));
        Self::of(&what, &Limits::new(), &resolve)
    }

    pub(super) fn of_limits(limits: &Limits, machine: &Machine) -> Result<Self, Error> {
        let resolve = |overrides: &Overrides| role::Role::without_file(overrides, machine);
        Self::of("the limits are not valid", limits, &resolve)
    }

    fn of(what: &str, limits: &Limits, resolve: &dyn Fn(&Overrides) -> Resolved) -> Result<Self, Error> {
        let (overrides, unknown) = limits.overrides();
        let resolved = resolve(&overrides).map_err(|mistakes| Error::mistaken(what, mistakes));
        let (role, warnings) = match resolved {
            Ok(resolved) if unknown.is_empty() => resolved,
            resolved => {
                let errors = resolved.err().into_iter().chain(unknown).collect();
                return Err(Error::all(errors).unwrap_or_else(|| Error::invalid(what, "")));
            }
        };
        let overrides = overrides.iter();
        Ok(Self {
            role,
            overrides: overrides
                .map(|one| (one.id.knob().key.to_owned(), one.text.clone()))
                .collect(),
            warnings,
        })
    }

    /// Its name: that of the file, or in it; `adhoc` for limits alone.
    pub fn name(&self) -> &str {
        &self.role.name
    }

    /// A setting for every knob, each with where it came from.
    pub fn settings(&self) -> &Settings {
        &self.role.settings
    }

    /// What may not do what was meant, e.g. a memory_high that does nothing.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Where the session's memory_max was declared, in words for its user.
    pub(super) fn memory_max_from(&self) -> String {
        match &self.role.settings.get(KnobId::MemoryMax).origin {
            Origin::Flag(_) | Origin::Derived(_) | Origin::Default => "its memory_max".into(),
            _ => self.role.where_to_change(KnobId::MemoryMax),
        }
    }

    /// Whether it says anything of a part.
    pub(super) fn says_of(&self, part: Part) -> bool {
        self.role
            .settings
            .part(part)
            .any(|setting| setting.value.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine::plain(8 << 30)
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let limits = Limits::new()
            .memory_max("12 parsecs")
            .pids("0")
            .set("memroy_high", "1G");
        let error = Role::of_limits(&limits, &machine()).unwrap_err();
        let text = error.to_string();
        for part in ["memory_max", "parsecs", "pids", "did you mean `memory_high`?"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let error = Role::of_text(
            "rust",
            "[runtime.limits]\nmemory_max = \"1 GiB\"\npidz = 5\n",
            &machine(),
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("rust:3:1") && text.contains("pids"), "{text}");
    }

    #[test]
    fn limits_are_what_they_say() {
        let role = Role::of_limits(&Limits::new().memory_max("50%").cpus("1.5"), &machine()).unwrap();
        let text = |id: KnobId| role.settings().get(id).text().unwrap();
        assert_eq!(text(KnobId::MemoryMax), (4_u64 << 30).to_string());
        assert_eq!(text(KnobId::Cpus), "150000 100000");
        assert_eq!(role.overrides[0], ("memory_max".into(), "50%".into()));
        assert_eq!(
            (role.name(), role.memory_max_from().as_str()),
            ("adhoc", "its memory_max")
        );
        assert!(!role.says_of(Part::Agent));
    }
}
