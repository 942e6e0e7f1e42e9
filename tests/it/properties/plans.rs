//! Plans on random machines: carried out they give what is declared, in an order that kills nobody, and taken back
//! they leave what was there.

use std::collections::BTreeMap;

use cgmgr::host::{Base, BaseKind, Hierarchy, Host, Mount};
use cgmgr::limits::{Bytes, Controller, KNOBS, Knob, KnobId, Max, Origin, Part, Settings, Value};
use cgmgr::path::{GroupPath, SessionName};
use cgmgr::plan::apply::{Wanted, plan};
use cgmgr::plan::equal::same;
use cgmgr::plan::identity::Identity;
use cgmgr::plan::state::{GroupState, SessionState, Survey};
use cgmgr::plan::{Plan, Step};
use proptest::prelude::*;

use super::values::{any_knob, value_of};
use super::{fewer, usual};

const PAGE: u64 = 4096;

/// A value for some of the knobs; None: nobody declared it, or the file is as the kernel made it.
fn some_values() -> impl Strategy<Value = Vec<Option<Value>>> {
    KNOBS
        .iter()
        .map(|knob| proptest::option::weighted(0.6, value_of(knob)).boxed())
        .collect::<Vec<_>>()
}

/// What the kernel's file of a knob holds after `text` was written to it.
fn kernel_holds(knob: &Knob, text: &str) -> String {
    let memory = knob.controller == Some(Controller::Memory) && knob.id != KnobId::OomGroup;
    match text.parse::<u64>() {
        Ok(bytes) if memory => Bytes(bytes).rounded_to_page(PAGE).to_string(),
        _ => text.to_owned(),
    }
}

/// The control files of a group of this part with these values in them.
fn files(part: Part, values: &[Option<Value>]) -> BTreeMap<&'static str, String> {
    let rows = KNOBS.iter().zip(values).filter(|(knob, _)| knob.part == part);
    rows.filter_map(|(knob, value)| {
        let text = match value {
            Some(value) => value.kernel_text(knob),
            None => knob.kernel_default?.to_owned(),
        };
        Some((knob.file?, kernel_holds(knob, &text)))
    })
    .collect()
}

fn declared(values: &[Option<Value>]) -> Settings {
    let mut settings = Settings::none();
    for (knob, value) in KNOBS.iter().zip(values) {
        if let Some(value) = value {
            settings.set(knob.id, *value, Origin::Flag("--x".into()));
        }
    }
    settings
}

/// A machine whose hierarchy stands, with one live session of the role `r`.
struct Scene {
    host: Host,
    base: Base,
    survey: Survey,
    settings: Settings,
}

impl Scene {
    fn new(machine: cgmgr::host::Machine, found: &[Option<Value>], wanted: &[Option<Value>]) -> Scene {
        let controllers = vec![
            Controller::Cpu,
            Controller::Io,
            Controller::Memory,
            Controller::Pids,
        ];
        let base = Base::below(BaseKind::Root, GroupPath::root(), controllers.clone());
        let state = |part| GroupState {
            kind: "domain".into(),
            enabled: controllers.iter().map(|c| c.name().to_owned()).collect(),
            populated: true,
            files: files(part, found),
            made: Some("1".into()),
            ..GroupState::default()
        };
        let name = SessionName::new("r-1").expect("a name");
        let mut survey = Survey::default();
        for (group, part) in [
            (GroupPath::root(), Part::Workloads),
            (base.agent.clone(), Part::Agent),
            (base.workloads.clone(), Part::Workloads),
        ] {
            survey.groups.insert(group, state(part));
        }
        survey.sessions.push(SessionState {
            group: base.sessions.join(&name.directory()),
            name,
            identity: Some(Identity {
                role: Some("r".into()),
                ..Identity::default()
            }),
            state: state(Part::Session),
            memory_current: None,
            attended: true,
        });
        let mount = Mount {
            point: "/sys/fs/cgroup".into(),
            read_only: false,
            true_root: true,
        };
        let host = Host {
            machine: cgmgr::host::Machine {
                page_size: PAGE,
                ..machine
            },
            kernel: "6.12.0".into(),
            systemd_version: None,
            systemd: false,
            euid: 0,
            hierarchy: Hierarchy::Unified(mount),
            base: Ok(base.clone()),
            disks: None,
        };
        Scene {
            host,
            base,
            survey,
            settings: declared(wanted),
        }
    }

    fn plan(&self, force: bool) -> Plan {
        let wanted = Wanted {
            role: "r",
            settings: &self.settings,
            session_settings: &|_| self.settings.clone(),
            force,
        };
        plan(&wanted, &self.host, &self.base, &self.survey)
    }

    fn state(&mut self, group: &GroupPath) -> &mut GroupState {
        let session = &mut self.survey.sessions[0];
        if session.group == *group {
            return &mut session.state;
        }
        self.survey.groups.get_mut(group).expect("a group of the scene")
    }

    /// Does what a step says. Every step of these plans is a write.
    fn carry_out(&mut self, step: &Step) {
        let Step::Write {
            group, knob, value, ..
        } = step
        else {
            panic!("{step:?}");
        };
        let knob = knob.knob();
        let file = knob.file.expect("a knob with a file");
        self.state(group).files.insert(file, kernel_holds(knob, value));
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(u64::MAX)
}

/// Where the write of one of these knobs is in the plan.
fn write_of(plan: &Plan, wanted: KnobId) -> Option<(usize, u64, u64)> {
    plan.steps.iter().enumerate().find_map(|(at, step)| match step {
        Step::Write {
            knob, value, before, ..
        } if *knob == wanted => Some((at, number(value), number(before.as_deref().unwrap_or("max")))),
        _ => None,
    })
}

proptest! {
    #![proptest_config(usual())]

    #[test]
    fn undoing_a_write_restores_what_was_there(knob in any_knob(), value in "[^\n\r]{0,40}", before in "[^\n\r]{0,40}",
        rest in prop_oneof![Just(""), Just("\n8:0 50")]) {
        let write = Step::Write {
            group: GroupPath::new("/workloads.slice").expect("a path"),
            knob: knob.id,
            value,
            before: Some(format!("{before}{rest}")),
        };
        let undo = write.undo().expect("a write over something can be taken back");
        prop_assert_eq!(undo.path("/m"), write.path("/m"));
        prop_assert_eq!(undo.value(), Some(before));
        prop_assert_eq!(undo.undo().and_then(|redo| redo.value()), write.value());
    }
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn carried_out_it_is_as_declared_and_taken_back_as_before(found in some_values(), wanted in some_values(),
        machine in super::machine()) {
        let mut scene = Scene::new(machine, &found, &wanted);
        let before = scene.survey.clone();
        let plan = scene.plan(true);
        for step in &plan.steps {
            scene.carry_out(step);
        }
        for (part, files) in [
            (Part::Session, &scene.survey.sessions[0].state.files),
            (Part::Agent, &scene.survey.groups[&scene.base.agent].files),
            (Part::Workloads, &scene.survey.groups[&scene.base.workloads].files),
        ] {
            for setting in scene.settings.part(part) {
                if let (Some(file), Some(text)) = (setting.knob.file, setting.text()) {
                    prop_assert!(same(setting.knob, &text, &files[file], PAGE), "{}: {}", text, files[file]);
                }
            }
        }
        prop_assert_eq!(scene.plan(true).steps, []);
        for step in plan.steps.iter().rev() {
            scene.carry_out(&step.undo().expect("every write was over something"));
        }
        prop_assert_eq!(scene.survey, before);
    }

    #[test]
    fn max_is_written_before_high_when_it_rises_and_after_it_when_it_falls(found in some_values(),
        wanted in some_values(), machine in super::machine()) {
        let plan = Scene::new(machine, &found, &wanted).plan(true);
        for (high, max) in [
            (KnobId::MemoryHigh, KnobId::MemoryMax),
            (KnobId::WorkloadsMemoryHigh, KnobId::WorkloadsMemoryMax),
        ] {
            if let (Some((high, ..)), Some((max, to, from))) = (write_of(&plan, high), write_of(&plan, max)) {
                prop_assert_eq!(max < high, to > from, "from {} to {}", from, to);
            }
        }
    }

    #[test]
    fn a_max_below_what_is_in_use_is_refused(found in some_values(), wanted in some_values(),
        used in super::magnitude(), force in any::<bool>(), machine in super::machine()) {
        let mut scene = Scene::new(machine, &found, &wanted);
        scene.survey.sessions[0].memory_current = Some(used);
        let max = scene.settings.value(KnobId::MemoryMax);
        let kills = matches!(max, Some(Value::Memory(Max::At(Bytes(max)))) if *max < used);
        prop_assert_eq!(scene.plan(force).refusals.len(), usize::from(kills && !force));
    }
}
