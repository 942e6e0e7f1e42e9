//! Changes the limits of a session by name: what is asked for, whether that may be, and what came of it.

use super::control::{foreign, is_foreign};
use super::error::Error;
use super::look::{Found, Look};
use crate::backend::failure::StepError;
use crate::host::Machine;
use crate::kernel::Group;
use crate::limits::{KNOBS, Knob, KnobId, Origin, Part, Settings};
use crate::path::{GroupPath, SessionName};
use crate::plan::Plan;
use crate::plan::live::{self, Session};
use crate::plan::receipt::Outcome as Held;
use crate::plan::step::Notice;
use crate::role::{Diagnostic, HostPolicy, knob_help, nearest};
use crate::session::registry::Registry;
use crate::session::relimit::{self, Asked, Changed, Cut, How};
use crate::text::{bytes, count, duration_us, escape};
use rustix::fd::OwnedFd;
use std::ffi::OsStr;

/// The table of a role file whose knobs a session has.
const TABLE: &str = "runtime.limits";

/// A change that was checked and not yet made. As long as it is kept nobody else changes limits.
pub struct Change {
    /// The session.
    pub target: Target,
    /// The steps, and all that speaks against them.
    pub plan: Plan,
    asked: Vec<Asked>,
    _alone: Option<OwnedFd>,
}

impl Change {
    /// Checks what is `asked` for the session `name`, within what the host allows. `force`: lower memory_max below what
    /// is in use.
    ///
    /// # Errors
    ///
    /// There is no such session, or it cannot be changed. What speaks against this change is in the plan.
    pub fn of(
        look: &Look,
        name: &OsStr,
        mut asked: Vec<Asked>,
        policy: Option<&HostPolicy>,
        force: bool,
    ) -> Result<Self, Error> {
        let capped = policy.map_or_else(Vec::new, |policy| within(policy, &mut asked));
        let target = Target::of(look, name)?;
        // Two that change limits at once would each record what the other did not write.
        let alone = match &target.registry {
            Some(registry) => Some(registry.alone().map_err(|error| {
                Error::failed(
                    format!("cannot use the runtime directory: {error}"),
                    "make it writable, or name another with CGMGR_RUNTIME_DIR",
                )
            })?),
            None => None,
        };
        let machine = &look.host.machine;
        let tree = look.tree.as_ref().ok_or_else(|| target.gone())?;
        let state = relimit::state(&target.group)?;
        let memory = relimit::memory_now(tree, &target.group, &target.path, machine.swap_total > 0);
        let session = Session {
            group: &target.path,
            state: &state,
            memory: &memory,
        };
        let settings: Vec<_> = asked.iter().map(|a| a.setting.clone()).collect();
        let mut plan = live::plan(&settings, &session, machine.page_size, force);
        plan.warnings.splice(0..0, capped);
        Ok(Self {
            target,
            plan,
            asked,
            _alone: alone,
        })
    }

    /// Makes the change. The plan must have no refusals.
    ///
    /// # Errors
    ///
    /// The kernel or systemd refused a value; those written before it were taken back.
    pub fn carry_out(&self, look: &Look, how: How) -> Result<Changed, StepError> {
        let of = (&self.target.group, &self.target.path);
        relimit::change(of, &self.asked, &self.plan, &look.host, how)
    }
}

/// The session whose limits are to change.
pub struct Target {
    /// Its name.
    pub name: SessionName,
    /// Its group.
    pub group: Group,
    /// Where that is.
    pub path: GroupPath,
    registry: Option<Registry>,
}

impl Target {
    fn of(look: &Look, typed: &OsStr) -> Result<Self, Error> {
        match look.find(typed)? {
            (name, Found::Group { group, registry, .. }) if is_foreign(&group, &name, registry.as_ref())? => {
                Err(foreign(&group, "the limits of that group are its maker's to set"))
            }
            (
                name,
                Found::Group {
                    group,
                    path,
                    registry,
                },
            ) => Ok(Self {
                name,
                group,
                path,
                registry,
            }),
            (name, Found::Process { .. }) => Err(Error::failed(
                format!(
                    "session {name} has no group (process backend): its processes got their limits when they began, and \
                     nothing holds them together"
                ),
                "start it again with other limits; `cgmgr doctor` says what is missing for the cgroupfs backend",
            )),
            (name, Found::Recorded { entry, .. }) => Err(Error::failed(
                match entry.status {
                    Some(_) => format!("session {name} has ended"),
                    None => format!("session {name} begins or ends just now"),
                },
                "`cgmgr status` lists the sessions",
            )),
        }
    }

    /// The error where it is gone.
    pub fn gone(&self) -> Error {
        Error::failed(
            format!("session {} is gone", self.name),
            "`cgmgr status` lists the sessions",
        )
    }
}

/// What is asked for, with all that is wrong with it as one error.
///
/// # Errors
///
/// The mistakes of every one, and what is given twice.
pub fn all(each: impl IntoIterator<Item = Result<Asked, Error>>) -> Result<Vec<Asked>, Error> {
    let mut asked: Vec<Asked> = Vec::new();
    let mut mistakes = Vec::new();
    for one in each {
        match one {
            Ok(one) if asked.iter().any(|a| a.setting.knob.id == one.setting.knob.id) => {
                let key = one.setting.knob.key;
                mistakes.push(Error::invalid(
                    format!("{key} is given twice"),
                    "which one is meant?",
                ));
            }
            Ok(one) => asked.push(one),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Error::all(mistakes).map_or(Ok(asked), Err)
}

/// Puts what is asked for within what the host allows, and says what that changed.
fn within(policy: &HostPolicy, asked: &mut [Asked]) -> Vec<Notice> {
    let mut settings = Settings::none();
    for Asked { setting, .. } in asked.iter() {
        *settings.get_mut(setting.knob.id) = setting.clone();
    }
    let warnings = policy.cap(&mut settings);
    for one in asked {
        one.setting = settings.get(one.setting.knob.id).clone();
    }
    let notice = |warning: Diagnostic| Notice {
        message: warning.message,
        help: warning.help,
    };
    warnings.into_iter().map(notice).collect()
}

/// One `KNOB=VALUE`.
///
/// # Errors
///
/// As [`one`].
pub fn read(word: &str, machine: &Machine) -> Result<Asked, Error> {
    let Some((key, typed)) = word.split_once('=') else {
        return Err(Error::invalid(
            format!("`{}` is not KNOB=VALUE", escape(word)),
            "e.g. memory_max=8GiB",
        ));
    };
    one(key, typed, machine)
}

/// One knob, and its value in the knob's own grammar; `default` is what it is where nobody declares it.
///
/// # Errors
///
/// There is no such knob, it cannot change while a session runs, or the value is not one of it.
pub fn one(key: &str, typed: &str, machine: &Machine) -> Result<Asked, Error> {
    let knob = knob(key.trim())?;
    if knob.file.is_none() {
        let why = live::not_live(knob);
        return Err(Error::invalid(why.message, why.help.unwrap_or_default()));
    }
    let typed = match typed.trim() {
        "" => {
            return Err(Error::invalid(
                format!("{}= has no value", knob.key),
                format!(
                    "{}=default makes it what it is where nobody declares it",
                    knob.key
                ),
            ));
        }
        // What it is where nobody declares it, in its own grammar: `max`, `100`, `false`.
        "default" => knob.absent,
        typed => typed,
    };
    let value = knob
        .parse(typed, machine)
        .map_err(|error| Error::invalid(format!("{}={}: {error}", knob.key, escape(typed)), error.help()))?;
    let mut settings = Settings::none();
    settings.set(knob.id, value, Origin::Flag(format!("cgmgr set {}", knob.key)));
    Ok(Asked {
        setting: settings.get(knob.id).clone(),
        typed: typed.to_owned(),
    })
}

/// The knob of a session that is called so, with hyphens or without.
pub(super) fn knob(key: &str) -> Result<&'static Knob, Error> {
    let name = key.replace('-', "_");
    if let Some(id) = KnobId::from_key(&name)
        && id.knob().part == Part::Session
    {
        return Ok(id.knob());
    }
    let can = |knob: &&Knob| knob.part == Part::Session && knob.file.is_some();
    let keys: Vec<&str> = KNOBS.iter().filter(can).map(|knob| knob.key).collect();
    let elsewhere = KNOBS
        .iter()
        .find(|knob| knob.part != Part::Session && knob.key == name);
    let help = match (elsewhere, nearest(&name, keys.iter().copied())) {
        (Some(knob), _) => format!("that is [{}] of a role file: `cgmgr apply` sets it", knob.table()),
        (None, Some(meant)) => format!("did you mean `{meant}`?"),
        (None, None) => match knob_help(TABLE, &name) {
            list if list.starts_with('[') => format!("what can be set is {}", keys.join(", ")),
            help => help,
        },
    };
    Err(Error::invalid(
        format!("a session has no knob `{}`", escape(key)),
        help,
    ))
}

/// What else is to be said, and whether it went well.
///
/// # Errors
///
/// Not all that was asked for is in force.
pub fn conclude(
    name: &SessionName,
    changed: &Changed,
    how: How,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    if let Some(kills) = changed.kills.filter(|kills| *kills > 0) {
        warnings.push(format!(
            "{name}: the kernel killed {} for it",
            count(kills, "process", "processes")
        ));
    }
    if let Some(pid) = changed.stuck {
        warnings.push(format!(
            "{name}: process {pid} of cgmgr still takes memory back in the kernel; it is killed, and ends when the kernel \
             lets it go"
        ));
    }
    if changed.ended {
        let what = format!("session {name} ended meanwhile");
        let lowered = changed.before.iter().any(|(knob, _)| *knob == KnobId::MemoryMax);
        if how.force && lowered {
            warnings.push(format!(
                "{what}: the kernel killed what was in it, unless it ended by itself"
            ));
            return Ok(());
        }
        return Err(Error::failed(what, "`cgmgr status` lists the sessions"));
    }
    if let Some(why) = &changed.unrecorded {
        return Err(Error::failed(
            format!("{name}: the limits are in force, but could not be recorded: {why}"),
            "the next `apply` of its role will not know of them: set them again",
        ));
    }
    let after = duration_us(u64::try_from(how.timeout.as_micros()).unwrap_or(u64::MAX));
    let uses = changed.current.map_or("unknown".to_owned(), bytes);
    match &changed.cut {
        Some(Cut::Grown) => {
            return Err(Error::failed(
                format!("{name} uses more than the new memory_max by now ({uses}): nothing was changed"),
                "raise it, or say --force: what the kernel cannot take back it then kills for",
            ));
        }
        Some(Cut::Reclaim) => {
            return Err(Error::failed(
                format!(
                    "{name}: gave up after {after}: the kernel has not taken back enough yet (it uses {uses}); no limit \
                     was changed"
                ),
                "say it again, with a longer --timeout: what was taken back stays so",
            ));
        }
        Some(Cut::Write(knob)) if held(changed, *knob) => {
            let key = knob.knob().key;
            let what = format!(
                "{name}: {key} is in force, and the session still uses {uses}: after {after} the kernel was left to it, \
                 and goes on when the session next takes memory"
            );
            if *knob == KnobId::MemoryMax && is_above_max(changed) {
                return Err(Error::failed(
                    what,
                    "`cgmgr status` shows its use; a longer --timeout waits for it",
                ));
            }
            if *knob == KnobId::MemoryHigh {
                warnings.push(what);
            }
        }
        _ => {}
    }
    let missed: Vec<String> = changed
        .receipt
        .unconfined()
        .map(|e| format!("{} ({})", e.knob.knob().key, e.outcome))
        .collect();
    if !missed.is_empty() {
        return Err(Error::failed(
            format!("{name}: not everything took effect: {}", missed.join(", ")),
            "say it again, with a longer --timeout; `cgmgr doctor` shows what is in the way",
        ));
    }
    if is_above_max(changed) {
        warnings.push(format!(
            "{name} still uses {uses}: the kernel took back what it could, and found nothing that it may kill"
        ));
    }
    Ok(())
}

/// Whether the session uses more than the memory_max that was set.
fn is_above_max(changed: &Changed) -> bool {
    let max = changed
        .receipt
        .entries
        .iter()
        .find(|e| e.knob == KnobId::MemoryMax);
    let max = max.and_then(|e| e.requested.parse::<u64>().ok());
    max.zip(changed.current)
        .is_some_and(|(max, current)| current > max)
}

/// Whether a knob that was asked for is in force.
pub fn held(changed: &Changed, knob: KnobId) -> bool {
    let entry = changed.receipt.entries.iter().find(|e| e.knob == knob);
    entry.is_some_and(|e| matches!(e.outcome, Held::Enforced | Held::Rounded { .. }))
}

#[cfg(test)]
mod tests {
    use super::super::error::ErrorKind;
    use super::*;

    fn machine() -> Machine {
        Machine::plain(8 << 30)
    }

    #[test]
    fn knobs_are_read_as_in_a_role_file() {
        let text = |word: &str| read(word, &machine()).unwrap().setting.text().unwrap();
        for (word, kernel) in [
            ("memory_max=8GiB", "8589934592"),
            ("memory-max=50%", "4294967296"),
            ("memory_max=max", "max"),
            ("memory_high=default", "max"),
            ("cpus=1.5", "150000 100000"),
            ("cpus=default", "max 100000"),
            ("cpu_weight=default", "100"),
            ("io-weight=200", "default 200"),
            ("pids=500", "500"),
            ("oom_group=true", "1"),
            ("oom-group=default", "0"),
            ("memory_swap_max=0", "0"),
        ] {
            assert_eq!(text(word), kernel, "{word}");
        }
        assert_eq!(read("memory_max=50%", &machine()).unwrap().typed, "50%");
        assert_eq!(read("pids=default", &machine()).unwrap().typed, "max");
    }

    #[test]
    fn every_mistake_has_its_remedy() {
        for (word, message, help) in [
            ("memory_max", "not KNOB=VALUE", "memory_max=8GiB"),
            (
                "memroy_max=1G",
                "no knob `memroy_max`",
                "did you mean `memory_max`?",
            ),
            ("memory=1G", "no knob `memory`", "did you mean `memory_max`?"),
            ("agent.memory_min=1G", "no knob", "[agent]"),
            ("workloads.pids=5", "no knob", "[workloads]"),
            (
                "banana=5",
                "no knob `banana`",
                "what can be set is memory_high, memory_max",
            ),
            ("\x1b=5", "no knob `\\u{1b}`", "what can be set is"),
            ("memory_max=", "memory_max= has no value", "memory_max=default"),
            ("memory_max=12 parsecs", "unknown unit", "use KiB"),
            ("cpus=0", "no CPU time at all", "max"),
            ("nofile=5", "cannot be changed while", "--nofile"),
            ("nice=5", "cannot be changed while", "cpu_weight"),
            ("oom-score-adj=5", "cannot be changed while", "choom"),
            ("oom_notify=true", "cannot be changed while", "--oom-notify"),
        ] {
            let error = read(word, &machine()).unwrap_err();
            assert!(error.message.contains(message), "{word}: {error:?}");
            assert!(
                error.help.as_ref().is_some_and(|h| h.contains(help)),
                "{word}: {error:?}"
            );
            assert_eq!(error.kind, ErrorKind::Invalid);
        }
        let twice = all(["pids=5", "pids=6", "x=1"].map(|word| read(word, &machine()))).unwrap_err();
        assert!(twice.message.contains("twice"), "{twice:?}");
        assert!(twice.others[0].message.contains("no knob `x`"), "{twice:?}");
    }
}
