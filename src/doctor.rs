//! What is to be said about a machine: facts in, findings out, each with one line of remedy. Pure.
#![deny(clippy::disallowed_methods)]

use crate::host::{Base, BaseKind, Hierarchy, Host, Manager, MountOptions};
use crate::limits::{CoderEnv, Controller, KNOBS, Origin, Part, Priorities, Settings, Value};
use crate::plan::hierarchy;
use crate::plan::receipt::{Backend, DELEGATE_MORE, Outcome, predict};
use crate::plan::step::Notice;
use crate::session::selftest::{FEATURES, Tested};
use crate::text::{bytes, count};
use serde::Serialize;

/// What is known of the machine.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The machine itself.
    pub host: Host,
    /// How the v2 hierarchy is mounted, where it is.
    pub options: Option<MountOptions>,
    /// The backend in force.
    pub backend: Backend,
    /// Whether the user asked for that backend.
    pub chosen: bool,
    /// systemd's own line about its version.
    pub systemd_version: Option<String>,
    /// The session that this process is in.
    pub inside: Option<String>,
    /// Whether the kernel log can be read.
    pub kernel_log: bool,
    /// memory.max of workloads.slice: `None` where there is no such group, `Some(None)` where it has no limit.
    pub workloads_max: Option<Option<u64>>,
    /// What keeps the hierarchy from being made.
    pub in_the_way: Vec<Notice>,
    /// What making it will do to processes that are there.
    pub will_move: Option<Notice>,
    /// Coder's variables in this environment.
    pub coder: CoderEnv,
    /// What a session started here would get.
    pub priorities: Option<Priorities>,
    /// What is wrong with Coder's variables.
    pub priority_problems: Vec<String>,
    /// The placement self-test.
    pub self_test: SelfTest,
    /// The host's policy.
    pub policy: Policy,
    /// Whether the user's own systemd stays when nobody is logged in (loginctl(1), `enable-linger`).
    pub lingers: bool,
}

/// The operator's policy for this host (/etc/cgmgr/host.toml).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Policy {
    /// There is none: everything is allowed.
    #[default]
    None,
    /// It caps so many knobs.
    Caps {
        /// Its file.
        file: String,
        /// How many knobs it has a word on.
        knobs: usize,
    },
    /// It cannot be read, or has mistakes: nothing that uses limits goes on.
    Bad {
        /// Its file.
        file: String,
        /// The first mistake.
        why: String,
    },
}

/// How the placement self-test went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelfTest {
    /// It was run, and all was well.
    Ok(Tested),
    /// It was run, and this was wrong.
    Failed(String),
    /// It could not be run.
    NotApplicable(String),
}

impl SelfTest {
    /// In one line.
    pub fn line(&self) -> String {
        match self {
            Self::Ok(tested) => match &tested.limits_skipped {
                None => format!("placement self-test: ok ({})", tested.by()),
                Some(why) => format!(
                    "placement self-test: ok ({}), limits not tried: {why}",
                    tested.by()
                ),
            },
            Self::Failed(what) => format!("placement self-test: failed: {what}"),
            Self::NotApplicable(why) => format!("placement self-test: not applicable: {why}"),
        }
    }
}

impl Tested {
    /// By which means the process came into its group.
    pub fn by(&self) -> &'static str {
        if self.moved {
            "moved before its command ran"
        } else {
            "clone3"
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Something declared may not hold, or hold in a way that surprises.
    Warning,
    /// Limits cannot be enforced.
    Problem,
}

impl Level {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name for programs, e.g. `no_swap`: it stays what it is while the words for people change.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What.
    pub what: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// What this machine does with one knob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnobState {
    /// Its key.
    pub knob: &'static str,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What this machine does with every knob, were it declared.
pub fn knobs(facts: &Facts) -> Vec<KnobState> {
    let mut declared = Settings::none();
    for knob in KNOBS {
        // Only whether there is a value counts, not which.
        declared.set(knob.id, Value::Switch(true), Origin::Default);
    }
    let lacking = match &facts.self_test {
        SelfTest::Ok(tested) => tested.lacking.as_slice(),
        _ => &[],
    };
    declared
        .iter()
        .map(|s| KnobState {
            knob: s.knob.key,
            outcome: match (&facts.inside, s.knob.file, s.knob.part) {
                (Some(outer), Some(_), Part::Session) => Outcome::NotEnforced {
                    why: format!("already inside session {outer}, whose limits hold"),
                },
                _ => predict(s, &facts.host, facts.backend, lacking),
            },
        })
        .collect()
}

/// Whether declared limits can be enforced here.
pub fn can_enforce(facts: &Facts) -> bool {
    !findings(facts).iter().any(|f| f.level == Level::Problem)
}

/// Everything there is to say, in the order of reading.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    cgroups(&mut all, facts);
    place(&mut all, facts);
    self_test(&mut all, facts);
    kernel(&mut all, facts);
    memory(&mut all, facts);
    disks(&mut all, facts);
    policy(&mut all, facts);
    promises(&mut all, facts);
    priorities(&mut all, facts);
    all
}

fn say(all: &mut Vec<Finding>, id: &'static str, level: Level, what: impl Into<String>) {
    all.push(Finding {
        id,
        level,
        what: what.into(),
        fix: None,
    });
}

fn say_fix(
    all: &mut Vec<Finding>,
    id: &'static str,
    level: Level,
    what: impl Into<String>,
    fix: impl Into<String>,
) {
    all.push(Finding {
        id,
        level,
        what: what.into(),
        fix: Some(fix.into()),
    });
}

fn cgroups(all: &mut Vec<Finding>, facts: &Facts) {
    let host = &facts.host;
    match &host.hierarchy {
        Hierarchy::Unified(mount) => {
            say(
                all,
                "hierarchy",
                Level::Ok,
                format!("cgroup v2 holds every controller, at {}", mount.point),
            );
            options(all, facts);
        }
        Hierarchy::Hybrid { mount, v1 } => say_fix(
            all,
            "hybrid",
            Level::Problem,
            format!(
                "hybrid: cgroup v1 holds {}; so cgmgr leaves the rest, in cgroup v2 at {}, alone",
                v1.join(" "),
                mount.point
            ),
            "boot with `systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all` on the kernel command line",
        ),
        // The base's own reason says the rest.
        Hierarchy::Legacy { .. } | Hierarchy::Absent => {}
    }
    match &host.base {
        Ok(base) => {
            let limited = !host.hierarchy.mount().is_some_and(|m| m.true_root) && base.group.is_root();
            say(
                all,
                "base",
                Level::Ok,
                format!("sessions go below {} ({})", base.sessions, base.kind.describe()),
            );
            if limited {
                say(
                    all,
                    "container_view",
                    Level::Note,
                    "this is a container's view: limits of groups further out hold as well",
                );
            }
        }
        Err(none) if matches!(host.hierarchy, Hierarchy::Hybrid { .. }) => {
            let _ = none;
        }
        Err(none) => say_fix(all, none.id, Level::Problem, none.why.clone(), none.fix.clone()),
    }
    if facts.backend == Backend::Process && host.base.is_ok() && facts.chosen {
        say_fix(
            all,
            "process_backend",
            Level::Problem,
            "the process backend was asked for: it holds no limit of a group",
            "leave --backend and CGMGR_BACKEND out",
        );
    }
}

fn options(all: &mut Vec<Finding>, facts: &Facts) {
    let (Some(mount), Some(options)) = (facts.host.hierarchy.mount(), facts.options) else {
        return;
    };
    let remount = |option: &str| format!("mount -o remount,{option} {}", mount.point);
    // Only the owner of the hierarchy can set them; in a container they are not shown as they are.
    if !mount.true_root {
        return;
    }
    if !options.recursiveprot {
        say_fix(
            all,
            "no_recursiveprot",
            Level::Warning,
            "mounted without memory_recursiveprot: agent.memory_min protects nothing in groups below agent.slice",
            remount("memory_recursiveprot"),
        );
    }
    if !options.nsdelegate {
        say_fix(
            all,
            "no_nsdelegate",
            Level::Note,
            "mounted without nsdelegate: a container's root could raise limits of the container",
            remount("nsdelegate"),
        );
    }
}

fn place(all: &mut Vec<Finding>, facts: &Facts) {
    let Ok(base) = &facts.host.base else { return };
    let missing: Vec<&str> = [
        Controller::Memory,
        Controller::Pids,
        Controller::Cpu,
        Controller::Io,
    ]
    .into_iter()
    .filter(|c| !base.controllers.contains(c))
    .map(Controller::name)
    .collect();
    if missing.is_empty() {
        let names: Vec<&str> = hierarchy::wanted(base)
            .into_iter()
            .map(Controller::name)
            .collect();
        say(
            all,
            "controllers",
            Level::Ok,
            format!("controllers for sessions: {}", names.join(" ")),
        );
    } else {
        let level = if missing.contains(&"memory") {
            Level::Problem
        } else {
            Level::Warning
        };
        let fix = match base.kind {
            BaseKind::Root => "boot without cgroup_disable= and cgroup_no_v1= for them".to_owned(),
            BaseKind::SessionsUnit(Manager::System) => {
                "systemctl stop cgmgr-sessions.scope, when no session runs: the next one has it made anew"
                    .to_owned()
            }
            BaseKind::Scopes(Manager::System) => "boot without cgroup_disable= for them".to_owned(),
            BaseKind::SessionsUnit(Manager::User) | BaseKind::Scopes(Manager::User) => {
                format!("as root: {DELEGATE_MORE}")
            }
            BaseKind::Namespace | BaseKind::Delegated => {
                format!(
                    "have them enabled in cgroup.subtree_control of every group above {}",
                    base.group
                )
            }
        };
        say_fix(
            all,
            "controllers_missing",
            level,
            format!("controllers missing for sessions: {}", missing.join(" ")),
            fix,
        );
    }
    if base.is_users() {
        users_manager(all, facts);
    }
    let refusals = facts.in_the_way.iter().map(|n| (Level::Warning, n));
    for (level, notice) in refusals.chain(facts.will_move.iter().map(|n| (Level::Note, n))) {
        all.push(Finding {
            id: if level == Level::Note {
                "will_move"
            } else {
                "in_the_way"
            },
            level,
            what: notice.message.clone(),
            fix: notice.help.clone(),
        });
    }
    if let Some(outer) = &facts.inside {
        say_fix(
            all,
            "inside_session",
            Level::Note,
            format!("this is inside session {outer}: what `run` starts here stays in it, under its limits"),
            "run cgmgr outside of the session for sessions of their own",
        );
    }
}

/// What is different below a user's own systemd.
fn users_manager(all: &mut Vec<Finding>, facts: &Facts) {
    say(
        all,
        "user_manager",
        Level::Note,
        "the user's own systemd makes the sessions: it holds limits of sessions only, and not [agent] nor [workloads]",
    );
    if facts.lingers {
        say(
            all,
            "user_lingers",
            Level::Ok,
            "the user's systemd stays when nobody is logged in",
        );
    } else {
        say_fix(
            all,
            "user_manager_ends",
            Level::Note,
            "the user's systemd ends soon after the last login of the user's, and every session with it",
            "loginctl enable-linger",
        );
    }
}

fn self_test(all: &mut Vec<Finding>, facts: &Facts) {
    match &facts.self_test {
        SelfTest::Failed(_) => say_fix(
            all,
            "self_test",
            Level::Problem,
            facts.self_test.line(),
            "`CGMGR_LOG=debug cgmgr doctor` says more; please report it",
        ),
        SelfTest::Ok(_) => say(all, "self_test", Level::Ok, facts.self_test.line()),
        SelfTest::NotApplicable(_) => say(all, "self_test", Level::Note, facts.self_test.line()),
    }
}

fn kernel(all: &mut Vec<Finding>, facts: &Facts) {
    if let SelfTest::Ok(tested) = &facts.self_test {
        // Those of a controller that is not there are told with the controller; cgroup.kill has none.
        let lacking: Vec<&str> = FEATURES
            .into_iter()
            .filter(|f| !tested.features.contains(f))
            .filter(|f| tested.limits_skipped.is_none() || !f.contains('.') || f.starts_with("cgroup."))
            .collect();
        for file in lacking {
            let (level, lost) = match file {
                "cgroup.kill" => (Level::Problem, "sessions cannot be killed whole (kernel 5.14)"),
                "memory.oom.group" => (
                    Level::Warning,
                    "an OOM kill cannot take a session whole (kernel 4.19)",
                ),
                "memory.peak" => (
                    Level::Note,
                    "the most memory that a session held is unknown (kernel 5.19)",
                ),
                _ => (
                    Level::Note,
                    "the most tasks that a session had is unknown (kernel 6.1)",
                ),
            };
            say_fix(
                all,
                "old_kernel",
                level,
                format!("this kernel has no {file}: {lost}"),
                "boot a newer kernel",
            );
        }
    }
    if facts.host.base.is_ok() {
        if facts.kernel_log {
            say(
                all,
                "kernel_log",
                Level::Ok,
                "the kernel log can be read: victims of OOM kills are named",
            );
        } else {
            say_fix(
                all,
                "no_kernel_log",
                Level::Note,
                "the kernel log cannot be read: OOM kills are told, but not who was killed",
                "run as root, or set kernel.dmesg_restrict=0",
            );
        }
    }
}

fn memory(all: &mut Vec<Finding>, facts: &Facts) {
    if !facts.backend.has_groups() {
        return;
    }
    let machine = &facts.host.machine;
    if machine.swap_total == 0 {
        say_fix(
            all,
            "no_swap",
            Level::Note,
            "no swap: a session above memory_high can crawl instead of ending, for there is nowhere to put its memory",
            "declare memory_max and leave memory_high out, or add swap",
        );
    }
    let users = facts.host.base.as_ref().is_ok_and(Base::is_users);
    match facts.workloads_max {
        Some(None) | None if users => say_fix(
            all,
            "no_ceiling",
            Level::Note,
            "workloads.slice of the user's systemd has no memory.max: the user's sessions together have no limit of their own",
            "systemctl --user set-property workloads.slice MemoryMax=90%",
        ),
        Some(None) => say_fix(
            all,
            "no_ceiling",
            Level::Warning,
            "workloads.slice has no memory.max: sessions together can use up the machine, and memory_min does not \
             save the agent from the OOM killer then",
            "`cgmgr apply` a role with workloads.memory_max, e.g. \"90%\"",
        ),
        Some(Some(max)) => say(
            all,
            "ceiling",
            Level::Ok,
            format!(
                "all sessions together: at most {} of {}",
                bytes(max),
                bytes(machine.mem_total)
            ),
        ),
        None => say_fix(
            all,
            "no_workloads",
            Level::Note,
            "workloads.slice is not there yet, so nothing limits all sessions together",
            "`cgmgr apply ROLE`, or the first `cgmgr run --role ROLE`, makes it",
        ),
    }
}

/// The kernel takes an io.weight on any machine; it does something only where iocost or BFQ runs on the disk.
fn disks(all: &mut Vec<Finding>, facts: &Facts) {
    let Some(mount) = facts.host.hierarchy.mount() else {
        return;
    };
    let held = facts.host.base.as_ref();
    if !facts.backend.has_groups() || !held.is_ok_and(|b| b.controllers.contains(&Controller::Io)) {
        return;
    }
    let all_disks = facts.host.disks.as_deref().unwrap_or_default();
    let those = |weighs: Option<bool>| {
        let names: Vec<String> = all_disks
            .iter()
            .filter(|disk| disk.weighs == weighs)
            .map(|disk| format!("{} ({})", disk.name, disk.number))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = those(Some(true)) {
        say(all, "io_weight", Level::Ok, format!("io_weight acts on {names}"));
    }
    if let Some(names) = those(Some(false)) {
        let first = all_disks.iter().find(|disk| disk.weighs == Some(false));
        let number = first.map_or("", |disk| disk.number.as_str());
        say_fix(
            all,
            "io_weight_idle",
            Level::Note,
            format!("io_weight has no effect on {names}: neither iocost nor BFQ runs there"),
            format!(
                "echo \"{number} enable=1\" > {}/io.cost.qos (iocost), or echo bfq > /sys/block/DISK/queue/scheduler",
                mount.point
            ),
        );
    }
    if let Some(names) = those(None) {
        say_fix(
            all,
            "io_weight_unknown",
            Level::Note,
            format!("whether io_weight acts on {names} cannot be seen from inside a cgroup namespace"),
            "`cgmgr doctor` outside of the container says so",
        );
    }
}

fn policy(all: &mut Vec<Finding>, facts: &Facts) {
    match &facts.policy {
        Policy::None => {}
        Policy::Caps { file, knobs } => say(
            all,
            "host_policy",
            Level::Ok,
            format!(
                "the host's policy {file} caps {}",
                count(*knobs as u64, "knob", "knobs")
            ),
        ),
        Policy::Bad { file, why } => say_fix(
            all,
            "host_policy_bad",
            Level::Problem,
            format!("the host's policy {file} is not valid, so that nothing that uses limits goes on: {why}"),
            format!("`cgmgr check --host-policy {file}` shows every mistake"),
        ),
    }
}

fn promises(all: &mut Vec<Finding>, facts: &Facts) {
    if !facts.backend.has_groups() {
        return;
    }
    if facts.host.euid == 0 {
        say_fix(
            all,
            "bookkeeping_root",
            Level::Note,
            "limits are bookkeeping for sessions of root, which could raise its own; they are a boundary for users who own \
             no group above their session and run no systemd of their own (user@UID.service)",
            "`cgmgr run --user USER` for what must not get out",
        );
    } else {
        say_fix(
            all,
            "bookkeeping",
            Level::Note,
            "limits are bookkeeping here: this user owns the groups, so a session could raise its own limits",
            "let root run `cgmgr run --user USER` where they must be a boundary",
        );
    }
}

fn priorities(all: &mut Vec<Finding>, facts: &Facts) {
    for problem in &facts.priority_problems {
        say_fix(
            all,
            "priority_value",
            Level::Warning,
            crate::text::escape(problem),
            "give it a whole number in that range, or leave it out",
        );
    }
    let state = if facts.coder.enabled() {
        "process priority management enabled"
    } else {
        "process priority management not enabled (linux-only)"
    };
    let value = crate::text::escape(facts.coder.prio_mgmt.as_deref().unwrap_or(""));
    let force = facts
        .priorities
        .map(|p| format!(" oom_score_adj={} nice={}", p.oom_score_adj, p.nice))
        .unwrap_or_default();
    say(
        all,
        "priorities",
        Level::Ok,
        format!("{state} value=\"{value}\" os=linux{force}"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Disk, Machine, Mount, NoBase, Tasks};
    use crate::path::GroupPath;

    fn mount() -> Mount {
        Mount {
            point: "/sys/fs/cgroup".into(),
            read_only: false,
            true_root: true,
        }
    }

    fn healthy() -> Facts {
        let controllers = vec![
            Controller::Cpu,
            Controller::Io,
            Controller::Memory,
            Controller::Pids,
        ];
        Facts {
            host: Host {
                machine: Machine {
                    mem_total: 16 << 30,
                    swap_total: 1 << 30,
                    page_size: 4096,
                    cpus: 8,
                    tasks: Tasks::Known(32_768),
                },
                kernel: "6.12.0".into(),
                systemd: false,
                systemd_version: None,
                euid: 0,
                hierarchy: Hierarchy::Unified(mount()),
                base: Ok(Base::below(BaseKind::Root, GroupPath::root(), controllers)),
                disks: Some(vec![disk(Some(true))]),
            },
            options: Some(MountOptions {
                nsdelegate: true,
                recursiveprot: true,
            }),
            backend: Backend::Cgroupfs,
            chosen: false,
            systemd_version: None,
            inside: None,
            kernel_log: true,
            workloads_max: Some(Some(14 << 30)),
            in_the_way: Vec::new(),
            will_move: None,
            coder: CoderEnv::default(),
            priorities: None,
            priority_problems: Vec::new(),
            self_test: SelfTest::Ok(Tested {
                features: FEATURES.to_vec(),
                ..Tested::default()
            }),
            policy: Policy::None,
            lingers: false,
        }
    }

    fn disk(weighs: Option<bool>) -> Disk {
        Disk {
            name: "vda".into(),
            number: "254:0".into(),
            weighs,
        }
    }

    fn ids(facts: &Facts) -> Vec<&'static str> {
        findings(facts).into_iter().map(|f| f.id).collect()
    }

    fn worst(facts: &Facts) -> Level {
        findings(facts).iter().map(|f| f.level).max().unwrap()
    }

    #[test]
    fn a_healthy_machine_has_nothing_above_a_note() {
        let facts = healthy();
        assert!(worst(&facts) <= Level::Note && can_enforce(&facts));
        let text: Vec<String> = findings(&facts).into_iter().map(|f| f.what).collect();
        assert!(
            text.contains(&"placement self-test: ok (clone3)".to_owned()),
            "{text:?}"
        );
        assert!(
            knobs(&facts)
                .iter()
                .filter(|k| k.knob == "memory_max")
                .all(|k| k.outcome == Outcome::Enforced)
        );
    }

    #[test]
    fn every_finding_above_ok_has_its_remedy() {
        let mut facts = healthy();
        facts.host.base = Err(NoBase {
            id: "not_delegated",
            why: "systemd owns the tree".into(),
            fix: "cgmgr install".into(),
            unclear: false,
        });
        facts.backend = Backend::Process;
        facts.self_test = SelfTest::NotApplicable("the process backend has no group".into());
        let all = findings(&facts);
        assert!(!can_enforce(&facts));
        assert!(
            all.iter()
                .filter(|f| f.level >= Level::Warning)
                .all(|f| f.fix.is_some()),
            "{all:?}"
        );
        assert!(all.iter().any(|f| f.fix.as_deref() == Some("cgmgr install")));
    }

    #[test]
    fn hybrid_names_who_holds_the_controllers() {
        let mut facts = healthy();
        facts.host.hierarchy = Hierarchy::Hybrid {
            mount: mount(),
            v1: vec!["memory".into(), "pids".into()],
        };
        facts.host.base = Err(NoBase {
            id: "not_delegated",
            why: "hybrid".into(),
            fix: "boot".into(),
            unclear: false,
        });
        facts.backend = Backend::Process;
        let problems: Vec<_> = findings(&facts)
            .into_iter()
            .filter(|f| f.level == Level::Problem)
            .collect();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].what.contains("memory pids"));
    }

    #[test]
    fn a_missing_memory_controller_is_a_problem_and_a_missing_ceiling_a_warning() {
        let mut facts = healthy();
        facts.workloads_max = Some(None);
        assert_eq!(worst(&facts), Level::Warning);
        if let Ok(base) = &mut facts.host.base {
            base.controllers.retain(|c| *c != Controller::Memory);
        }
        assert_eq!(worst(&facts), Level::Problem);
        let state = knobs(&facts)
            .into_iter()
            .find(|k| k.knob == "memory_max")
            .unwrap();
        assert!(state.outcome.falls_short());
    }

    #[test]
    fn a_weight_without_effect_is_told_with_its_disk() {
        let mut facts = healthy();
        let outcome = |facts: &Facts| {
            let all = knobs(facts);
            all.into_iter().find(|k| k.knob == "io_weight").unwrap().outcome
        };
        assert!(ids(&facts).contains(&"io_weight") && outcome(&facts) == Outcome::Enforced);
        facts.host.disks = Some(vec![disk(Some(false))]);
        let said = findings(&facts)
            .into_iter()
            .find(|f| f.id == "io_weight_idle")
            .unwrap();
        assert!(said.what.starts_with("io_weight has no effect on vda (254:0)"));
        assert!(
            said.fix
                .unwrap()
                .contains("\"254:0 enable=1\" > /sys/fs/cgroup/io.cost.qos")
        );
        assert!(outcome(&facts).falls_short() && outcome(&facts).is_written());
        facts.host.disks = Some(vec![disk(None)]);
        assert!(ids(&facts).contains(&"io_weight_unknown") && outcome(&facts) == Outcome::Enforced);
    }

    #[test]
    fn what_a_users_own_systemd_cannot_do_is_told_with_who_can() {
        let mut facts = healthy();
        let user = GroupPath::new("/user.slice/user-7.slice/user@7.service").unwrap();
        let controllers = vec![Controller::Cpu, Controller::Memory, Controller::Pids];
        facts.host.base = Ok(Base::scopes(Manager::User, user, controllers));
        facts.host.euid = 7;
        facts.backend = Backend::Scope;
        facts.workloads_max = None;
        let fix = |facts: &Facts, id: &str| {
            let all = findings(facts);
            let said = all.into_iter().find(|f| f.id == id);
            said.unwrap_or_else(|| panic!("{id}")).fix.unwrap_or_default()
        };
        assert!(can_enforce(&facts));
        assert!(fix(&facts, "controllers_missing").contains("Delegate="));
        assert!(fix(&facts, "user_manager_ends").contains("enable-linger"));
        assert!(fix(&facts, "no_ceiling").contains("systemctl --user"));
        assert!(ids(&facts).contains(&"bookkeeping") && ids(&facts).contains(&"user_manager"));
        facts.lingers = true;
        assert!(ids(&facts).contains(&"user_lingers") && !ids(&facts).contains(&"user_manager_ends"));
        for (knob, enforced) in [
            ("memory_max", true),
            ("io_weight", false),
            ("workloads.memory_max", false),
        ] {
            let all = knobs(&facts);
            let state = all.iter().find(|k| k.knob == knob).unwrap();
            assert_eq!(state.outcome == Outcome::Enforced, enforced, "{state:?}");
        }
    }

    #[test]
    fn a_kernel_without_a_feature_is_told_by_the_file() {
        for file in FEATURES {
            let mut facts = healthy();
            facts.self_test = SelfTest::Ok(Tested {
                features: FEATURES.into_iter().filter(|f| *f != file).collect(),
                ..Tested::default()
            });
            let all = findings(&facts);
            let said = all.iter().find(|f| f.id == "old_kernel").expect(file);
            assert!(said.what.contains(file) && said.fix.is_some(), "{said:?}");
            assert_eq!(can_enforce(&facts), file != "cgroup.kill");
        }
    }

    #[test]
    fn mount_options_that_are_missing_are_told_to_the_owner_of_the_hierarchy() {
        let mut facts = healthy();
        facts.options = Some(MountOptions {
            nsdelegate: false,
            recursiveprot: false,
        });
        assert!(ids(&facts).contains(&"no_recursiveprot") && ids(&facts).contains(&"no_nsdelegate"));
        facts.host.hierarchy = Hierarchy::Unified(Mount {
            true_root: false,
            ..mount()
        });
        assert!(!ids(&facts).contains(&"no_recursiveprot") && ids(&facts).contains(&"container_view"));
    }

    #[test]
    fn a_bad_policy_is_a_problem() {
        let mut facts = healthy();
        let file = || "/etc/cgmgr/host.toml".to_owned();
        facts.policy = Policy::Caps {
            file: file(),
            knobs: 1,
        };
        assert!(ids(&facts).contains(&"host_policy") && can_enforce(&facts));
        facts.policy = Policy::Bad {
            file: file(),
            why: "unknown key".into(),
        };
        assert!(ids(&facts).contains(&"host_policy_bad") && !can_enforce(&facts));
    }

    #[test]
    fn priority_management_is_told_in_coders_words() {
        let mut facts = healthy();
        let line = |facts: &Facts| findings(facts).pop().unwrap().what;
        assert!(line(&facts).starts_with("process priority management not enabled (linux-only) value="));
        facts.coder.prio_mgmt = Some("1".into());
        assert!(line(&facts).starts_with("process priority management enabled value=\"1\" os=linux"));
    }
}
