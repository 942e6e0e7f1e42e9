//! The two slices where they are systemd's: systemd is told what they are to be, and nobody writes their files.
//!
//! A slice with a unit file gets a drop-in, which systemd must read. One without is made by a request, and what cgmgr
//! asked for is said in its description: so it is known as cgmgr's, and a value that somebody else set since can be told
//! from one of cgmgr's.

use super::apply::drop_in;
use super::equal::same;
use super::receipt::{Backend, Outcome, predict};
use super::state::{SliceUnit, Survey};
use super::step::{Notice, Plan, Step};
use super::unit::{self as property, Property, Value};
use crate::host::{Base, Host};
use crate::limits::{KNOBS, KnobId, PERIOD_US, Part, Setting, Settings};
use crate::order;
use crate::path::GroupPath;
use std::collections::BTreeMap;

/// Where systemd keeps the files of units that are made by a request.
const TRANSIENT: &str = "/run/systemd/transient/";
/// What is in the path of every file that `systemctl set-property` wrote.
const CONTROL: &str = "/system.control/";
/// How the description of a slice of cgmgr's begins.
const OURS: &str = "cgmgr: ";

impl SliceUnit {
    /// Whether it has a unit file of somebody's, cgmgr's installed one for instance.
    pub fn is_in_a_file(&self) -> bool {
        !self.fragment.is_empty() && !self.fragment.starts_with(TRANSIENT)
    }

    /// Whether cgmgr had it made, or took it over.
    pub fn is_ours(&self) -> bool {
        self.active && !self.is_in_a_file() && self.description.starts_with(OURS)
    }

    /// What cgmgr last asked for, by the names of the properties.
    fn asked(&self) -> BTreeMap<&str, u64> {
        let said = self.description.strip_prefix(OURS).unwrap_or_default();
        let number = |text: &str| match text {
            "infinity" => Some(u64::MAX),
            text => text.parse().ok(),
        };
        let words = said.split(' ').filter_map(|word| word.split_once('='));
        order::map(words.filter_map(|(name, value)| Some((name, number(value)?))))
    }

    /// The file in which an administrator set a property with `systemctl set-property`.
    fn set_in(&self, unit_file_name: &str) -> Option<&str> {
        let end = format!("/50-{unit_file_name}.conf");
        self.drop_ins
            .iter()
            .find(|path| path.contains(CONTROL) && path.ends_with(&end))
            .map(String::as_str)
    }
}

/// The description of a slice that cgmgr asked for: with which limits.
fn description(asked: &[Property]) -> Property {
    let lines: Vec<String> = asked.iter().map(Property::line).collect();
    let said = if lines.is_empty() {
        "no limits".to_owned()
    } else {
        lines.join(" ")
    };
    Property::text("Description", format!("{OURS}{said}"))
}

/// The description that systemd gives a slice which is in no file.
fn plain_description(unit: &str) -> String {
    let path = unit.strip_suffix(".slice").unwrap_or(unit).replace('-', "/");
    format!("Slice /{path}")
}

/// A declared value that somebody else's stands in the way of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The group: of a slice, or of a session in a scope.
    pub slice: GroupPath,
    /// The limit.
    pub knob: KnobId,
    /// What to tell.
    pub notice: Notice,
}

/// What administrators set for the slices with `systemctl set-property` where the role declares something else.
pub fn drift(settings: &Settings, host: &Host, base: &Base, survey: &Survey) -> Vec<Drift> {
    let mut all = Vec::new();
    for (part, slice) in [(Part::Agent, &base.agent), (Part::Workloads, &base.workloads)] {
        let settings: Vec<&Setting> = settings.part(part).collect();
        all.extend(drift_of(&settings, slice, host, survey));
    }
    all
}

fn drift_of(settings: &[&Setting], slice: &GroupPath, host: &Host, survey: &Survey) -> Vec<Drift> {
    let Some(unit) = survey.units.get(slice) else {
        return Vec::new();
    };
    let asked = unit.asked();
    let mut all = Vec::new();
    for setting in settings.iter().filter(|s| is_written(s, host)) {
        let (Some(file), Some(name)) = (setting.knob.file, setting.knob.systemd) else {
            continue;
        };
        let page_size = host.machine.page_size;
        let wanted = text(setting, slice, survey);
        let found = found(setting, slice, survey);
        if unit.active && same(setting.knob, &wanted, &found, page_size) {
            continue;
        }
        let source = unit.set_in(name);
        // A slice that is in no file keeps what is set where cgmgr's own requests are kept.
        let changed = unit.is_ours() && {
            let last = asked.get(bus_name(name)).copied();
            let last = last.map(|number| text_of(file, number));
            let last = last.or_else(|| setting.knob.kernel_default.map(str::to_owned));
            last.is_some_and(|last| !same(setting.knob, &last, &found, page_size))
        };
        if source.is_none() && !changed {
            continue;
        }
        let at = slice.name().unwrap_or_default();
        let place = source.map_or(String::new(), |path| format!(" ({})", crate::text::escape(path)));
        let value = if unit.active {
            format!(" is {found}, and not {wanted}")
        } else {
            String::new()
        };
        all.push(Drift {
            slice: slice.clone(),
            knob: setting.knob.id,
            notice: Notice::new(
                format!(
                    "{}: {name} of {at}{value}: somebody set it with `systemctl set-property`{place}; left as it is",
                    setting.knob.key
                ),
                "say --force to have the role's value",
            ),
        });
    }
    all
}

/// Whether a declared setting is one that systemd is to be asked for.
fn is_written(setting: &Setting, host: &Host) -> bool {
    setting.value.is_some()
        && setting.knob.file.is_some()
        && predict(setting, host, Backend::Cgroupfs, &[]).is_written()
}

/// A property's name on the bus, from that in unit files.
fn bus_name(name: &str) -> &str {
    match name {
        "CPUQuota" => "CPUQuotaPerSecUSec",
        name => name,
    }
}

/// What the control file holds, or would hold if the controller were there.
fn found(setting: &Setting, slice: &GroupPath, survey: &Survey) -> String {
    let file = setting.knob.file.unwrap_or_default();
    let found = survey.group(slice).and_then(|state| state.files.get(file));
    let found = found.map(String::as_str).or(setting.knob.kernel_default);
    found
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The text that the control file is to hold, as far as systemd can have it.
fn text(setting: &Setting, slice: &GroupPath, survey: &Survey) -> String {
    match foretold_rounding(setting, slice, survey) {
        Some(rounded) => rounded,
        None => setting.text().unwrap_or_default(),
    }
}

/// What systemd will make of a declared value, where that is not the value itself: in a file it keeps a CPU quota as it
/// is, and of one that it was asked for it remembers whole percents before version 257.
fn foretold_rounding(setting: &Setting, slice: &GroupPath, survey: &Survey) -> Option<String> {
    let by_request = survey.units.get(slice).is_some_and(|unit| !unit.is_in_a_file());
    let version = survey.systemd.filter(|_| by_request && setting.value.is_some())?;
    let text = setting.text().filter(|_| setting.knob.file == Some("cpu.max"))?;
    property::rounded(&text, version)
}

/// What was foretold of a setting of a slice, by what systemd can keep.
pub fn foretell(setting: &Setting, foretold: Outcome, slice: &GroupPath, survey: &Survey) -> Outcome {
    match (foretold, foretold_rounding(setting, slice, survey)) {
        (Outcome::Enforced, Some(to)) => Outcome::Rounded { to },
        (foretold, _) => foretold,
    }
}

/// Makes a slice as it is declared, and leaves what somebody set since unless `force`.
pub(super) fn converge(
    plan: &mut Plan,
    settings: &[&Setting],
    slice: &GroupPath,
    host: &Host,
    survey: &Survey,
    force: bool,
) {
    let drift = match force {
        true => Vec::new(),
        false => drift_of(settings, slice, host, survey),
    };
    plan.warnings.extend(drift.iter().map(|d| d.notice.clone()));
    let is_left = |setting: &Setting| drift.iter().any(|d| d.knob == setting.knob.id);
    match survey.units.get(slice) {
        Some(unit) if !unit.is_in_a_file() => {
            for setting in settings {
                if let Some(to) = foretold_rounding(setting, slice, survey).filter(|_| !is_left(setting)) {
                    plan.warnings.push(Notice::plain(format!(
                        "{} is rounded to {to}: this version of systemd remembers whole percents only",
                        setting.knob.key
                    )));
                }
            }
            by_request(plan, settings, slice, unit, host, survey, &is_left);
        }
        _ => {
            let settings: Vec<&Setting> = settings.iter().filter(|s| !is_left(s)).copied().collect();
            drop_in(plan, &settings, slice, survey);
        }
    }
}

/// A slice that is in no file.
fn by_request(
    plan: &mut Plan,
    settings: &[&Setting],
    slice: &GroupPath,
    unit: &SliceUnit,
    host: &Host,
    survey: &Survey,
    is_left: &dyn Fn(&Setting) -> bool,
) {
    let Some(name) = slice.name() else { return };
    let version = survey.systemd.unwrap_or(0);
    let asked = unit.asked();
    // What the description is to say, what is to be set, and what that is now.
    let (mut said, mut set, mut before) = (Vec::new(), Vec::new(), Vec::new());
    for setting in settings {
        let (Some(file), Some(known)) = (setting.knob.file, setting.knob.systemd) else {
            continue;
        };
        let known = bus_name(known);
        let last = asked.get(known).copied();
        let found = found(setting, slice, survey);
        let wanted = if is_left(setting) {
            // Theirs, and still to be told from ours.
            said.extend(last.map(|number| Property::number(known, number)));
            continue;
        } else if is_written(setting, host) {
            let Some(wanted) = property::of_setting(setting, version) else {
                continue;
            };
            said.push(wanted.clone());
            wanted
        } else {
            let ours = last.map(|number| text_of(file, number));
            if ours.is_none_or(|ours| !same(setting.knob, &ours, &found, host.machine.page_size)) {
                continue;
            }
            unset(known)
        };
        let Value::U64(number) = wanted.value else {
            continue;
        };
        if unit.active
            && same(
                setting.knob,
                &text_of(file, number),
                &found,
                host.machine.page_size,
            )
        {
            continue;
        }
        before.push(if Some(found.as_str()) == setting.knob.kernel_default {
            unset(known)
        } else {
            property::of_text(known, file, &found, version).unwrap_or_else(|| unset(known))
        });
        set.push(wanted);
    }
    let said = description(&said);
    let is_said = said.value == Value::Text(unit.description.clone());
    before.push(Property::text("Description", &unit.description));
    set.push(said);
    let unit_name = name.to_owned();
    if !unit.active {
        plan.steps.push(Step::StartTransient {
            unit: unit_name,
            properties: set,
            before: None,
        });
    } else if unit.fragment.is_empty() {
        plan.steps.push(Step::StartTransient {
            unit: unit_name,
            properties: set,
            before: Some(before),
        });
    } else if !unit.is_ours() && unit.description != plain_description(name) {
        plan.refusals.push(Notice::new(
            format!(
                "{name} was made by somebody else (`{}`)",
                crate::text::escape(&unit.description)
            ),
            format!("`systemctl stop {name}` first, or put it in a file: `cgmgr install`"),
        ));
    } else if set.len() > 1 || !is_said {
        plan.steps.push(Step::SetProperties {
            unit: unit_name,
            properties: set,
            before,
        });
    }
}

/// The properties that a slice's description says.
fn said(unit: &SliceUnit) -> Vec<Property> {
    let names = KNOBS.iter().filter_map(|k| k.systemd).map(bus_name);
    let mut all: Vec<Property> = Vec::new();
    for name in names {
        if let Some(number) = unit.asked().get(name)
            && all.iter().all(|p| p.name != name)
        {
            all.push(Property::number(name, *number));
        }
    }
    all
}

/// Takes away what `apply` made of a slice. `removed` are the groups in it that are gone by then.
pub(super) fn take_back(plan: &mut Plan, slice: &GroupPath, survey: &Survey, removed: &[String]) {
    let (Some(name), Some(unit)) = (slice.name(), survey.units.get(slice).filter(|u| u.is_ours())) else {
        return;
    };
    let has = said(unit);
    let (procs, children) = survey
        .group(slice)
        .map_or((&[][..], &[][..]), |s| (&s.procs[..], &s.children[..]));
    let theirs: Vec<&str> = children
        .iter()
        .filter(|c| !removed.contains(c))
        .map(String::as_str)
        .collect();
    let mut with_name = has.clone();
    with_name.push(Property::text("Description", &unit.description));
    if procs.is_empty() && theirs.is_empty() {
        plan.steps.push(Step::StopUnit {
            unit: name.to_owned(),
            properties: with_name,
        });
        return;
    }
    plan.warnings.push(Notice::plain(format!(
        "{name} stays, without limits of cgmgr's: it holds what cgmgr did not make: {}",
        crate::text::escape(&theirs.join(", "))
    )));
    let mut properties: Vec<Property> = has.iter().map(|p| unset(p.name)).collect();
    properties.push(Property::text("Description", plain_description(name)));
    plan.steps.push(Step::SetProperties {
        unit: name.to_owned(),
        properties,
        before: with_name,
    });
}

/// The value with which a property of a unit is as if it had never been set.
fn unset(name: &'static str) -> Property {
    match name {
        // Protection: none of it.
        "MemoryMin" | "MemoryLow" => Property::number(name, 0),
        _ => Property::number(name, u64::MAX),
    }
}

/// The kernel's text for `file` once a property with this number is set: what [`property::of_text`] made the number from.
fn text_of(file: &str, number: u64) -> String {
    match (file, number) {
        ("cpu.max", u64::MAX) => format!("max {PERIOD_US}"),
        ("cpu.max", per_second) => format!("{} {PERIOD_US}", per_second / (1_000_000 / PERIOD_US)),
        ("cpu.weight", u64::MAX) => "100".into(),
        ("io.weight", u64::MAX) => "default 100".into(),
        ("io.weight", weight) => format!("default {weight}"),
        (_, u64::MAX) => "max".into(),
        (_, number) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_numbers_become_the_kernels_texts_again() {
        for (file, text) in [
            ("memory.max", "max"),
            ("memory.max", "4096"),
            ("memory.min", "0"),
            ("io.weight", "default 50"),
            ("cpu.weight", "50"),
            ("cpu.max", "max 100000"),
            ("cpu.max", "123450 100000"),
        ] {
            let property = property::of_text("X", file, text, 257).unwrap();
            let Value::U64(number) = property.value else {
                panic!("{property:?}")
            };
            assert_eq!(text_of(file, number), text, "{file}");
        }
        assert_eq!(text_of("io.weight", u64::MAX), "default 100");
        assert_eq!(unset("MemoryMin").value, Value::U64(0));
    }

    #[test]
    fn a_description_says_what_was_asked_for() {
        let asked = [
            Property::number("MemoryMax", 4096),
            Property::number("CPUQuotaPerSecUSec", u64::MAX),
        ];
        let unit = |asked: &[Property]| SliceUnit {
            active: true,
            description: description(asked).value.shown(),
            ..SliceUnit::default()
        };
        let limited = unit(&asked);
        assert_eq!(
            limited.description,
            "cgmgr: MemoryMax=4096 CPUQuotaPerSecUSec=infinity"
        );
        assert!(limited.is_ours());
        let mut found = said(&limited);
        found.sort_by_key(|p| p.name != "MemoryMax");
        assert_eq!(found, asked);
        assert!(unit(&[]).is_ours() && said(&unit(&[])).is_empty());
    }

    #[test]
    fn what_set_property_wrote_is_told_by_its_path() {
        let unit = SliceUnit {
            drop_ins: vec![
                "/run/systemd/system/workloads.slice.d/50-MemoryMax.conf".into(),
                "/etc/systemd/system.control/workloads.slice.d/50-TasksMax.conf".into(),
            ],
            ..SliceUnit::default()
        };
        assert_eq!(unit.set_in("MemoryMax"), None);
        assert_eq!(unit.set_in("TasksMax"), Some(unit.drop_ins[1].as_str()));
    }
}
