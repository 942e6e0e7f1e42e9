//! nice and oom_score_adj of an agent: what its kernel allows, and a line for what it does not.

use super::{Protection, Request};
use crate::kernel::sys::{Refusal, Stage};
use crate::kernel::{priority, process};
use crate::limits::{KnobId, PROTECTED_SCORE, Value};
use crate::plan::receipt::Outcome;
use crate::session::child::told;
use rustix::io::Errno;

/// Sets both. Where nobody declared a score the agent gets [`PROTECTED_SCORE`], unless it has a lower one; its nice value is
/// left alone then.
pub(super) fn set(request: &Request<'_>, done: &mut Protection) {
    let settings = request.settings;
    let score = match settings.value(KnobId::AgentOomScoreAdj) {
        Some(Value::OomScoreAdj(score)) => Some(score.get()),
        _ => process::oom_score_adj(done.pid)
            .is_none_or(|own| own > PROTECTED_SCORE)
            .then_some(PROTECTED_SCORE),
    };
    let nice = match settings.value(KnobId::AgentNice) {
        Some(Value::Nice(nice)) => Some(nice.from_own(0)),
        _ => None,
    };
    let asked = [
        (KnobId::AgentOomScoreAdj, Stage::OomScore, score),
        (KnobId::AgentNice, Stage::Nice, nice),
    ];
    for (knob, stage, value) in asked {
        let Some(value) = value else { continue };
        let set = match stage {
            Stage::OomScore => priority::set_oom_score_adj(done.pid, value),
            _ => priority::set_nice(done.pid, value),
        };
        let outcome = match set {
            Ok(()) => Outcome::Enforced,
            Err(errno) => {
                done.notes.push(refused(stage, errno, value, request));
                Outcome::NotEnforced {
                    why: std::io::Error::from(errno).to_string(),
                }
            }
        };
        done.receipt.note(settings.get(knob), outcome);
    }
}

/// In the words that Coder's agent uses, with the remedy: without the right to do so nobody gets a better place.
fn refused(stage: Stage, errno: Errno, value: i32, request: &Request<'_>) -> String {
    let refusal = Refusal {
        stage,
        errno,
        value: i64::from(value),
        fatal: false,
    };
    let (right, line) = match stage {
        Stage::OomScore => ("CAP_SYS_RESOURCE", format!("OOMScoreAdjust={value}")),
        _ => ("CAP_SYS_NICE", format!("Nice={value}")),
    };
    format!(
        "{}; that takes {right}, as root has it, or {line} in the unit that starts the agent",
        told(&refusal, &request.argv, "")
    )
}
