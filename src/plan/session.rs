//! The steps that make one session's group with its limits, before its first process.

use super::identity::Identity;
use super::receipt::{Backend, Receipt, predict};
use super::step::{Plan, Step};
use crate::host::Host;
use crate::limits::{Part, Setting, Settings};
use crate::path::GroupPath;

/// Makes `group` for a session: `mkdir`, its mark, then every declared limit that this host will hold by its
/// [`forecast`].
pub fn plan(settings: &Settings, identity: &Identity, group: &GroupPath, forecast: &Receipt) -> Plan {
    let mut plan = Plan::default();
    plan.steps.push(Step::MakeGroup { group: group.clone() });
    plan.steps.push(Step::Identify {
        group: group.clone(),
        identity: identity.to_text(),
    });
    for setting in limits(settings) {
        let held = forecast
            .entries
            .iter()
            .any(|e| e.knob == setting.knob.id && e.outcome.is_written());
        if let (true, Some(value)) = (held, setting.text()) {
            plan.steps.push(Step::Write {
                group: group.clone(),
                knob: setting.knob.id,
                value,
                before: None,
            });
        }
    }
    plan
}

/// The session's settings that have a control file.
pub fn limits(settings: &Settings) -> impl Iterator<Item = &Setting> {
    settings.part(Part::Session).filter(|s| s.knob.file.is_some())
}

/// What this host will do with each declared setting of a session.
pub fn forecast(settings: &Settings, host: &Host, backend: Backend, lacking: &[&str]) -> Receipt {
    let mut receipt = Receipt::default();
    for setting in settings.part(Part::Session) {
        receipt.note(setting, predict(setting, host, backend, lacking));
    }
    receipt
}
