//! The first process of a session, laid out before it exists: environment, priorities, rlimits, and what stands in for
//! a group.

use super::command;
use super::launch::Request;
use super::place::Place;
use super::prepare::Prepared;
use crate::kernel::sys::{Child, Refusal, Stage};
use crate::kernel::{probe, process};
use crate::limits::{CoderEnv, KnobId, Max, PERIOD_US, Priorities, Settings, Value};
use crate::path::GroupPath;
use crate::plan::receipt::Outcome;
use std::ffi::OsString;

/// Lays out the first process of a prepared session. `own` is the caller's group.
pub(super) fn lay_out(
    request: &Request<'_>,
    place: &Place,
    own: Option<&GroupPath>,
    priorities: Option<Priorities>,
    prepared: &mut Prepared<'_>,
) -> Result<Child, String> {
    let env = request
        .env
        .clone()
        .unwrap_or_else(|| std::env::vars_os().collect());
    let mut child = command::lay_out(&request.argv, env, prepared.name.as_str(), request.user.as_ref())?;
    let in_agent = match (place.base(), own) {
        (Some((_, base)), Some(own)) => base.agent.contains(own),
        _ => false,
    };
    let value = |id: KnobId| request.settings.value(id);
    if let Some(Value::Count(Max::At(n))) = value(KnobId::Nofile) {
        child.nofile = Some(*n);
    }
    child.signals = request.signals;
    child.directory = request.directory.as_deref().map(command::directory).transpose()?;
    if request.require_limits {
        let declared = [
            (KnobId::Nofile, Stage::Nofile),
            (KnobId::OomScoreAdj, Stage::OomScore),
            (KnobId::Nice, Stage::Nice),
        ];
        child.strict = declared
            .into_iter()
            .filter(|(id, _)| value(*id).is_some() || request.settings.get(*id).least.is_some())
            .map(|(_, stage)| stage)
            .collect();
    }
    child.new_session = request.detached;
    child.close_fds = request.close_fds || in_agent || request.detached;
    child.reset_policy = request.close_fds || in_agent;
    if child.reset_policy {
        child.affinity = Some((0..place.host.machine.cpus as usize).collect());
    }
    if prepared.group.is_none() && prepared.lock.is_some() {
        child.affinity = stand_in_affinity(request.settings).or(child.affinity);
    }
    child.oom_score_adj = priorities.map(|p| p.oom_score_adj);
    child.nice = priorities.map(|p| p.nice);
    Ok(child)
}

/// nice and oom_score_adj: declared, or Coder's variables, or derived from the caller's own. `None` where the caller's own
/// cannot be read.
pub(super) fn priorities(settings: &Settings, warnings: &mut Vec<String>) -> Option<Priorities> {
    let coder = CoderEnv::from_env(&|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()));
    let (score, nice) = match (process::own_oom_score_adj(), process::own_nice()) {
        (Ok(score), Ok(nice)) => (score, nice),
        (Err(e), _) | (_, Err(e)) => {
            warnings.push(format!(
                "cannot read this process's own priorities, so the command keeps them: {e}"
            ));
            return None;
        }
    };
    let as_score = |value: Option<&Value>| match value {
        Some(Value::OomScoreAdj(score)) => Some(*score),
        _ => None,
    };
    let as_nice = |value: Option<&Value>| match value {
        Some(Value::Nice(nice)) => Some(*nice),
        _ => None,
    };
    let (declared_score, declared_nice) = (
        as_score(settings.value(KnobId::OomScoreAdj)),
        as_nice(settings.value(KnobId::Nice)),
    );
    let (derived, problems) = Priorities::derive(score, nice, declared_score, declared_nice, &coder);
    let least = |id: KnobId| settings.get(id).least.as_ref();
    let derived = derived.at_least(
        as_score(least(KnobId::OomScoreAdj)),
        as_nice(least(KnobId::Nice)),
        nice,
    );
    warnings.extend(problems);
    tracing::info!(
        value = coder.prio_mgmt.as_deref().unwrap_or(""),
        os = std::env::consts::OS,
        oom_score_adj = derived.oom_score_adj,
        nice = derived.nice,
        "{}",
        if coder.enabled() {
            "process priority management enabled"
        } else {
            "process priority management not enabled (linux-only)"
        }
    );
    Some(derived)
}

/// Where there is no cpu.max: as many CPUs as the quota is worth, out of those the caller may use. Which ones differs
/// from session to session, so that several do not share the same few.
fn stand_in_affinity(settings: &Settings) -> Option<Vec<usize>> {
    let quota = settings.value(KnobId::Cpus)?.quota()?;
    let wanted = quota.quota_us().div_ceil(PERIOD_US) as usize;
    let status = process::read("/proc/self/status").ok()?;
    let allowed = status
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
    let allowed = probe::parse_cpu_list(allowed.trim());
    if wanted >= allowed.len() {
        return None;
    }
    let first = std::process::id() as usize % allowed.len();
    Some(
        (0..wanted.max(1))
            .map(|i| allowed[(first + i) % allowed.len()])
            .collect(),
    )
}

/// A step that the command went on without: told in the words that Coder's agent uses for the same.
pub(super) fn soft(refusal: &Refusal, argv: &[OsString], settings: &Settings, prepared: &mut Prepared<'_>) {
    let knob = match refusal.stage {
        Stage::OomScore => Some(KnobId::OomScoreAdj),
        Stage::Nice => Some(KnobId::Nice),
        Stage::Nofile => Some(KnobId::Nofile),
        _ => None,
    };
    if let Some(knob) = knob {
        let outcome = if refusal.stage == Stage::Nofile && refusal.value > 0 {
            Outcome::Rounded {
                to: refusal.value.to_string(),
            }
        } else {
            Outcome::NotEnforced {
                why: std::io::Error::from(refusal.errno).to_string(),
            }
        };
        prepared.receipt.note(settings.get(knob), outcome);
    }
    let nofile = settings.get(KnobId::Nofile).text().unwrap_or_default();
    prepared.warnings.push(told(refusal, argv, &nofile));
}

/// What is said of a step that the command went on without. `nofile` is what that was to be.
pub(super) fn told(refusal: &Refusal, argv: &[OsString], nofile: &str) -> String {
    let reason = std::io::Error::from(refusal.errno);
    let command = command::shown(argv).join(" ");
    let value = refusal.value;
    match refusal.stage {
        Stage::OomScore => {
            format!("failed to adjust oom score to {value} for cmd [{command}]: {reason}")
        }
        Stage::Nice => format!("failed to adjust niceness to {value} for cmd [{command}]: {reason}"),
        Stage::Dumpable if value == 0 => format!("failed to unset dumpable: {reason}"),
        Stage::Dumpable => format!("failed to set dumpable: {reason}"),
        Stage::Nofile if value > 0 => {
            format!("nofile is {value} and not {nofile}: the hard limit cannot be raised without privilege")
        }
        Stage::Nofile => format!("failed to set nofile: {reason}"),
        Stage::Affinity => format!("failed to set the CPU affinity: {reason}"),
        _ => format!("failed to reset the scheduling policy: {reason}"),
    }
}
