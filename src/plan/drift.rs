//! What somebody else set on the scope of a session that runs: an administrator may, with `systemctl set-property`, and
//! then it is told and not fought.

use super::equal::same;
use super::slices::Drift;
use super::state::SessionState;
use super::step::Notice;
use super::unit;
use crate::limits::Setting;

/// The limits of a session's scope that are neither what cgmgr last set, which the session's mark records, nor what the
/// role asks for. Elsewhere the files are cgmgr's alone, and whatever they hold is brought to what the role says.
pub fn of_session(session: &SessionState, settings: &[&Setting], page_size: u64) -> Vec<Drift> {
    let (Some(scope), Some(identity)) = (session.group.scope(), &session.identity) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for setting in settings {
        let knob = setting.knob;
        let (Some(file), Some(name)) = (knob.file.filter(|f| unit::is_of_unit(f)), knob.systemd) else {
            continue;
        };
        let found = session.state.files.get(file).and_then(|text| text.lines().next());
        let wanted = setting.text();
        let (Some(found), Some(wanted)) = (found, wanted.as_deref().or(knob.kernel_default)) else {
            continue;
        };
        let last = identity.limits.get(knob.key).map(String::as_str);
        let Some(last) = last.or(knob.kernel_default) else {
            continue;
        };
        let is = |text: &str| {
            same(knob, text, found, page_size) || unit::rounded(text, unit::ROUNDS).as_deref() == Some(found)
        };
        if is(last) || is(wanted) {
            continue;
        }
        let at = scope.name().unwrap_or_default();
        all.push(Drift {
            slice: session.group.clone(),
            knob: knob.id,
            notice: Notice::new(
                format!(
                    "{} of session {}: {name} of {at} is {found}, and cgmgr had set {last}: somebody set it with \
                     `systemctl set-property`; left as it is",
                    knob.key, session.name
                ),
                format!("cgmgr set {} {}=…, or say --force to have the role's value", session.name, knob.key),
            ),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{KnobId, Settings};
    use crate::path::{GroupPath, MAIN, SessionName};
    use crate::plan::identity::Identity;
    use crate::plan::state::GroupState;

    fn session(group: GroupPath, found: &str) -> SessionState {
        let mut identity = Identity::default();
        identity.limits.insert("memory_max".into(), "67108864".into());
        let mut state = GroupState::default();
        state.files.insert("memory.max", found.into());
        state.files.insert("cpu.weight", "100".into());
        SessionState {
            name: SessionName::new("x").unwrap(),
            group,
            identity: Some(identity),
            state,
            memory_current: None,
            attended: true,
        }
    }

    #[test]
    fn only_what_nobody_of_us_set_is_drift() {
        let name = SessionName::new("x").unwrap();
        let scope = GroupPath::root().join(&name.scope(7)).join(MAIN);
        let settings = Settings::none();
        let all: Vec<&Setting> = [KnobId::MemoryMax, KnobId::CpuWeight]
            .into_iter()
            .map(|id| settings.get(id))
            .collect();
        let of = |group: &GroupPath, found: &str| of_session(&session(group.clone(), found), &all, 4096);
        assert!(of(&scope, "67108864").is_empty(), "what cgmgr set");
        assert!(of(&scope, "max").is_empty(), "what is wanted now");
        let drift = of(&scope, "83886080");
        assert_eq!(drift.len(), 1);
        assert_eq!(drift[0].knob, KnobId::MemoryMax);
        let direct = GroupPath::root().join("cgmgr-x");
        assert!(of(&direct, "83886080").is_empty(), "nobody else's to set");
    }
}
