//! `cgmgr set`: change the limits of a session while it runs.
//!
//! What is set counts as a flag of the launch from then on: a later `apply` of the session's role keeps it.

use super::apply::{print_plan, refused};
use super::args::{Global, SetArgs};
use super::context::{self, CommandError, Outcome, print_json, say_error, warn_notice};
use super::end::{foreign, is_foreign};
use super::look::{Found, Look, look};
use super::roles;
use crate::host::Machine;
use crate::kernel::{Group, disks};
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
use serde_json::json;
use std::ffi::OsStr;
use std::io::{self, Write};

/// The table of a role file whose knobs a session has.
const TABLE: &str = "runtime.limits";

/// Runs the command.
pub fn set(args: &SetArgs, global: &Global) -> Outcome {
    let mut look = look(global)?;
    look.host.disks = Some(disks::disks(&look.host.hierarchy));
    let mut asked = all_or_mistakes(&args.knobs, &look.host.machine)?;
    let capped = match roles::policy(&look.host.machine, global)? {
        Some(policy) => within(&policy, &mut asked),
        None => Vec::new(),
    };
    let target = Target::of(&look, &args.session)?;
    // Two that change limits at once would each record what the other did not write.
    let _alone = match &target.registry {
        Some(registry) => Some(registry.alone().map_err(|error| {
            CommandError::failed(
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
    let mut plan = live::plan(&settings, &session, machine.page_size, args.force);
    plan.warnings.splice(0..0, capped);
    if args.json && (args.dry_run || !plan.refusals.is_empty()) {
        let mut value = plan.to_json(tree.mount());
        value["session"] = json!(target.name.as_str());
        value["changed"] = json!(0);
        print_json(&value)?;
    }
    if args.dry_run {
        if !args.json {
            print_plan(&plan, tree.mount())?;
        }
        return Ok(u8::from(!plan.refusals.is_empty()));
    }
    if !plan.refusals.is_empty() {
        return Err(refused(&plan));
    }
    if !args.json {
        plan.warnings.iter().for_each(warn_notice);
    }
    let how = How {
        force: args.force,
        timeout: args.timeout,
    };
    let changed = relimit::change(&target.group, &asked, &plan, &look.host, how)?;
    if args.json {
        print_json(&to_json(&target, &plan, &changed))?;
    } else {
        print(&target, &changed)?;
    }
    conclude(&target, &changed, how)
}

/// The session whose limits are to change.
struct Target {
    name: SessionName,
    group: Group,
    path: GroupPath,
    registry: Option<Registry>,
}

impl Target {
    fn of(look: &Look, typed: &OsStr) -> Result<Self, CommandError> {
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
            (name, Found::Process { .. }) => Err(CommandError::failed(
                format!(
                    "session {name} has no group (process backend): its processes got their limits when they began, and \
                     nothing holds them together"
                ),
                "start it again with other limits; `cgmgr doctor` says what is missing for the cgroupfs backend",
            )),
            (name, Found::Recorded { record, .. }) => Err(CommandError::failed(
                match record.status {
                    Some(_) => format!("session {name} has ended"),
                    None => format!("session {name} begins or ends just now"),
                },
                "`cgmgr status` lists the sessions",
            )),
        }
    }

    fn gone(&self) -> CommandError {
        CommandError::failed(
            format!("session {} is gone", self.name),
            "`cgmgr status` lists the sessions",
        )
    }
}

/// What was typed, or all that is wrong with it.
fn all_or_mistakes(typed: &[std::ffi::OsString], machine: &Machine) -> Result<Vec<Asked>, CommandError> {
    let mut asked: Vec<Asked> = Vec::new();
    let mut mistakes = Vec::new();
    for word in typed {
        match read(&word.to_string_lossy(), machine) {
            Ok(one) if asked.iter().any(|a| a.setting.knob.id == one.setting.knob.id) => {
                let key = one.setting.knob.key;
                mistakes.push(CommandError::usage(
                    format!("{key} is given twice"),
                    "which one is meant?",
                ));
            }
            Ok(one) => asked.push(one),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    let Some(last) = mistakes.pop() else {
        return Ok(asked);
    };
    mistakes.iter().for_each(say_error);
    Err(last)
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
fn read(word: &str, machine: &Machine) -> Result<Asked, CommandError> {
    let Some((key, typed)) = word.split_once('=') else {
        return Err(CommandError::usage(
            format!("`{}` is not KNOB=VALUE", escape(word)),
            "e.g. memory_max=8GiB",
        ));
    };
    let knob = knob(key.trim())?;
    if knob.file.is_none() {
        let why = live::not_live(knob);
        return Err(CommandError::usage(why.message, why.help.unwrap_or_default()));
    }
    let typed = match typed.trim() {
        "" => {
            return Err(CommandError::usage(
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
    let value = knob.parse(typed, machine).map_err(|error| {
        CommandError::usage(format!("{}={}: {error}", knob.key, escape(typed)), error.help())
    })?;
    let mut settings = Settings::none();
    settings.set(knob.id, value, Origin::Flag(format!("cgmgr set {}", knob.key)));
    Ok(Asked {
        setting: settings.get(knob.id).clone(),
        typed: typed.to_owned(),
    })
}

/// The knob of a session that is called so, with hyphens or without.
fn knob(key: &str) -> Result<&'static Knob, CommandError> {
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
    Err(CommandError::usage(
        format!("a session has no knob `{}`", escape(key)),
        help,
    ))
}

fn before(changed: &Changed, knob: KnobId) -> Option<&str> {
    let found = changed.before.iter().find(|(id, _)| *id == knob);
    found.map(|(_, before)| before.as_str())
}

fn print(target: &Target, changed: &Changed) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    if changed.ended {
        return Ok(());
    }
    let in_force = changed.before.iter().filter(|(knob, _)| held(changed, *knob));
    match in_force.count() as u64 {
        0 => writeln!(out, "{}: nothing changed", target.name)?,
        n => writeln!(out, "{}: {} changed", target.name, count(n, "limit", "limits"))?,
    }
    for entry in &changed.receipt.entries {
        let was = before(changed, entry.knob).map_or(String::new(), |was| format!("  (was {was})"));
        writeln!(
            out,
            "  {:<24} {:<16} {}{was}",
            entry.knob.knob().key,
            entry.requested,
            entry.outcome
        )?;
    }
    Ok(())
}

fn to_json(target: &Target, plan: &Plan, changed: &Changed) -> serde_json::Value {
    let receipt: Vec<_> = changed
        .receipt
        .entries
        .iter()
        .map(|entry| {
            let mut json = entry.to_json();
            json["before"] = json!(before(changed, entry.knob));
            json
        })
        .collect();
    json!({
        "session": target.name.as_str(),
        "group": target.path.as_str(),
        "changed": changed.before.iter().filter(|(knob, _)| held(changed, *knob)).count(),
        "receipt": receipt,
        "timed_out": matches!(changed.cut, Some(Cut::Reclaim | Cut::Write(_))),
        "oom_kills": changed.kills,
        "memory_current": changed.current,
        "warnings": plan.warnings,
        "ended": changed.ended,
        "unrecorded": changed.unrecorded,
    })
}

/// What else is to be said, and whether it went well.
fn conclude(target: &Target, changed: &Changed, how: How) -> Outcome {
    let name = &target.name;
    if let Some(kills) = changed.kills.filter(|kills| *kills > 0) {
        context::warn(format_args!(
            "{name}: the kernel killed {} for it",
            count(kills, "process", "processes")
        ));
    }
    if let Some(pid) = changed.stuck {
        context::warn(format_args!(
            "{name}: process {pid} of cgmgr still takes memory back in the kernel; it is killed, and ends when the kernel \
             lets it go"
        ));
    }
    if changed.ended {
        let what = format!("session {name} ended meanwhile");
        let lowered = changed.before.iter().any(|(knob, _)| *knob == KnobId::MemoryMax);
        if how.force && lowered {
            context::warn(format_args!(
                "{what}: the kernel killed what was in it, unless it ended by itself"
            ));
            return Ok(0);
        }
        return Err(CommandError::failed(what, "`cgmgr status` lists the sessions"));
    }
    if let Some(why) = &changed.unrecorded {
        return Err(CommandError::failed(
            format!("{name}: the limits are in force, but could not be recorded: {why}"),
            "the next `apply` of its role will not know of them: set them again",
        ));
    }
    let after = duration_us(u64::try_from(how.timeout.as_micros()).unwrap_or(u64::MAX));
    let uses = changed.current.map_or("unknown".to_owned(), bytes);
    match &changed.cut {
        Some(Cut::Grown) => {
            return Err(CommandError::failed(
                format!("{name} uses more than the new memory_max by now ({uses}): nothing was changed"),
                "raise it, or say --force: what the kernel cannot take back it then kills for",
            ));
        }
        Some(Cut::Reclaim) => {
            return Err(CommandError::failed(
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
                return Err(CommandError::failed(
                    what,
                    "`cgmgr status` shows its use; a longer --timeout waits for it",
                ));
            }
            if *knob == KnobId::MemoryHigh {
                context::warn(what);
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
        return Err(CommandError::failed(
            format!("{name}: not everything took effect: {}", missed.join(", ")),
            "say it again, with a longer --timeout; `cgmgr doctor` shows what is in the way",
        ));
    }
    if is_above_max(changed) {
        context::warn(format_args!(
            "{name} still uses {uses}: the kernel took back what it could, and found nothing that it may kill"
        ));
    }
    Ok(0)
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

fn held(changed: &Changed, knob: KnobId) -> bool {
    let entry = changed.receipt.entries.iter().find(|e| e.knob == knob);
    entry.is_some_and(|e| matches!(e.outcome, Held::Enforced | Held::Rounded { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            mem_total: 8 << 30,
            swap_total: 0,
            page_size: 4096,
            cpus: 4,
            pid_max: 32768,
            threads_max: 32768,
        }
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
            ("oom_notify=true", "not in this version", "leave it out"),
        ] {
            let error = read(word, &machine()).unwrap_err();
            assert!(error.message.contains(message), "{word}: {error:?}");
            assert!(
                error.help.as_ref().is_some_and(|h| h.contains(help)),
                "{word}: {error:?}"
            );
            assert_eq!(error.status, 2);
        }
        let twice = ["pids=5".into(), "pids=6".into()];
        assert!(
            all_or_mistakes(&twice, &machine())
                .unwrap_err()
                .message
                .contains("twice")
        );
    }
}
