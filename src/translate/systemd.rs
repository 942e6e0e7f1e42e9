//! systemd: properties for `systemd-run $(cgmgr translate --to systemd-run ROLE) CMD`, and files of units.
//!
//! What cgmgr's own scopes are told is said here too where systemd would do something else by itself: an absent `pids` is
//! no limit (systemd's is DefaultTasksMax), and an OOM kill does not end the unit (a service's default is to stop).

use super::sheet::Sheet;
use crate::limits::{KnobId, Max, PERIOD_US, Part, Setting};
use crate::plan::drop_in::{slice_lines, unit_text};

/// Options in one line; no value of them needs quotes.
pub(super) fn options(sheet: &mut Sheet<'_>) -> String {
    // An hundredth of a per cent lives in the request, but not in the file that systemd before 257 writes of it.
    if let Some(quota) = sheet.quota(KnobId::Cpus)
        && quota.quota_us() % (PERIOD_US / 100) != 0
    {
        sheet.lose(
            KnobId::Cpus,
            "systemd before 257 forgets the fraction of a per cent at its next reload",
            "declare whole per cents, or a unit file (--to systemd-unit)",
        );
    }
    let properties = properties(sheet);
    let lines: Vec<String> = properties.iter().map(|line| format!("-p {line}")).collect();
    lines.join(" ")
}

/// A drop-in for the service that is to run so, and the two slices where something is declared of them. As `systemctl cat`
/// shows them: a comment before each file says its place.
pub(super) fn files(sheet: &mut Sheet<'_>) -> String {
    let name = sheet.name();
    let mut text = format!("# /etc/systemd/system/{name}.service.d/50-limits.conf\n[Service]\n");
    if slice_lines(&sheet.part(Part::Workloads)).is_some() {
        text.push_str("Slice=workloads.slice\n");
    }
    for line in properties(sheet) {
        text.push_str(&line);
        text.push('\n');
    }
    for (part, slice) in [(Part::Agent, "agent.slice"), (Part::Workloads, "workloads.slice")] {
        sheet.has_place_for(part);
        let settings = sheet.part(part);
        if let Some(lines) = slice_lines(&settings) {
            text.push_str(&format!("\n# /etc/systemd/system/{slice}\n[Slice]\n{lines}"));
        }
        for setting in settings {
            if setting.value.is_some() && setting.knob.is_on_process() {
                let (why, instead) = super::places::no_place(sheet.engine, setting.knob.id);
                sheet.lose(setting.knob.id, why, instead);
            }
        }
    }
    text
}

/// The properties of a session's service: multicode's first, as it has them.
fn properties(sheet: &mut Sheet<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for setting in sheet.part(Part::Session) {
        let id = setting.knob.id;
        let value = match id {
            KnobId::Pids => Some(match sheet.count(id) {
                Some(Max::At(count)) => count.to_string(),
                _ => "infinity".to_owned(),
            }),
            KnobId::Nice => sheet.nice().map(|nice| nice.to_string()),
            KnobId::OomGroup => Some(match sheet.oom_group() {
                Some(true) => "kill".to_owned(),
                _ => "continue".to_owned(),
            }),
            KnobId::Cpus => quota(sheet, setting),
            _ if setting.value.is_some() => unit_text(setting),
            _ => None,
        };
        if let (Some(name), Some(value)) = (setting.knob.systemd, value) {
            lines.push(format!("{name}={value}"));
        }
    }
    lines
}

/// Per cents, where systemd can count to them.
fn quota(sheet: &mut Sheet<'_>, setting: &Setting) -> Option<String> {
    let quota = sheet.quota(KnobId::Cpus)?;
    // It holds hundredths of a per cent in an int.
    if i32::try_from(quota.quota_us() / 10).is_err() {
        sheet.lose(
            KnobId::Cpus,
            "systemd cannot count to so many CPUs",
            "declare less, or max",
        );
        return None;
    }
    unit_text(setting)
}
