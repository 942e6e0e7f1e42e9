//! `cgmgr doctor`: what this machine can enforce, tried for real, with one line of remedy per finding.

use super::args::{BackendChoice, Global, JsonArgs};
use super::context::{self, Outcome, print_json};
use crate::doctor::{self, Facts, Finding, KnobState, Level, Policy, SelfTest};
use crate::files;
use crate::host::{Base, BaseKind, Host, SESSIONS_SCOPE};
use crate::kernel::counters::parse_limit;
use crate::kernel::kmsg::KernelLog;
use crate::kernel::{Tree, disks, probe, process, survey};
use crate::limits::{CoderEnv, Controller, Priorities};
use crate::plan::hierarchy;
use crate::plan::receipt::{self, Backend};
use crate::plan::step::{Notice, Step};
use crate::session::launch::Place;
use crate::session::selftest;
use crate::session::user::User;
use crate::systemd::{Manager, Systemd};
use crate::text::{bytes, escape};
use crate::workspace;
use serde_json::{Value as Json, json};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How long systemd may take to say its version.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the command. Exit status 1: limits cannot be enforced here.
pub fn doctor(args: &JsonArgs, global: &Global) -> Outcome {
    let facts = facts(global)?;
    let (findings, knobs) = (doctor::findings(&facts), doctor::knobs(&facts));
    if args.json {
        print_json(&to_json(&facts, &findings, &knobs))?;
    } else {
        io::stdout()
            .lock()
            .write_all(render(&facts, &findings, &knobs).as_bytes())?;
    }
    Ok(u8::from(!doctor::can_enforce(&facts)))
}

fn facts(global: &Global) -> Result<Facts, context::CommandError> {
    let mut host = workspace::host(context::named_base(global)?.as_ref(), context::chosen(global));
    host.disks = Some(disks::disks(&host.hierarchy));
    let backend = match (&host.base, global.backend) {
        (Ok(_), BackendChoice::Process) | (Err(_), _) => Backend::Process,
        (Ok(base), _) if base.scope_manager().is_some() => Backend::Scope,
        (Ok(_), _) => Backend::Cgroupfs,
    };
    let tree = host.hierarchy.mount().and_then(|m| Tree::open(&m.point).ok());
    let mut facts = Facts {
        policy: policy(&host, global),
        lingers: host.base.as_ref().is_ok_and(Base::is_users) && lingers(host.euid),
        options: probe::mount_options(),
        backend,
        chosen: global.backend != BackendChoice::Auto,
        systemd_version: host.systemd.then(systemd_version).flatten(),
        inside: None,
        kernel_log: KernelLog::open_at_end().is_ok(),
        workloads_max: None,
        in_the_way: Vec::new(),
        will_move: None,
        coder: CoderEnv::from_env(&|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())),
        priorities: None,
        priority_problems: Vec::new(),
        self_test: SelfTest::NotApplicable("the process backend has no groups to place a process in".into()),
        host: host.clone(),
    };
    if let (Ok(score), Ok(nice)) = (process::own_oom_score_adj(), process::own_nice()) {
        let (derived, problems) = Priorities::derive(score, nice, None, None, &facts.coder);
        (facts.priorities, facts.priority_problems) = (Some(derived), problems);
    }
    if backend.has_groups()
        && let Some(tree) = tree
    {
        in_tree(&mut facts, host, tree);
    }
    Ok(facts)
}

/// Whether logind keeps the user's systemd when nobody is logged in: a file of his name says so (systemd's
/// src/login/logind-user.c, user_check_linger_file).
fn lingers(uid: u32) -> bool {
    let name = User::find(&uid.to_string()).map(|user| user.name);
    name.is_ok_and(|name| Path::new("/var/lib/systemd/linger").join(name).exists())
}

fn policy(host: &Host, global: &Global) -> Policy {
    let named = global.host_policy.as_deref();
    let file = escape(&named.unwrap_or(Path::new(files::POLICY_PLACE)).to_string_lossy());
    match files::policy(named, &host.machine) {
        Ok(None) => Policy::None,
        Ok(Some(policy)) => Policy::Caps {
            file,
            knobs: policy.len(),
        },
        Err(mistakes) => Policy::Bad {
            file,
            why: mistakes.first().map_or_else(String::new, |m| escape(&m.message)),
        },
    }
}

/// What can be seen, and tried, where there is a base.
fn in_tree(facts: &mut Facts, host: Host, tree: Tree) {
    let Ok(base) = host.base.clone() else { return };
    if let Ok(Some(workloads)) = tree.find(&base.workloads) {
        let max = workloads.get("memory.max").ok().flatten();
        facts.workloads_max = Some(max.and_then(|t| parse_limit(&t)).flatten());
    }
    if let Ok(found) = survey::survey(&tree, &base, &|_| true) {
        let plan = hierarchy::plan(&base, &found);
        facts.in_the_way = plan.refusals;
        let moved = plan.steps.iter().find_map(|s| match s {
            Step::MoveAll { from, to } => Some((from, to)),
            _ => None,
        });
        if let Some((from, to)) = moved {
            let procs = found.group(from).map(|s| s.procs.as_slice()).unwrap_or_default();
            let who: Vec<String> = procs
                .iter()
                .take(8)
                .map(|(pid, comm)| format!("pid {pid} ({comm})"))
                .collect();
            facts.will_move = Some(Notice::new(
                format!(
                    "processes sit in {from}, which must hold groups only: {}",
                    who.join(", ")
                ),
                format!(
                    "nothing to do: the first `cgmgr run` or `apply` moves them to {to}, `cgmgr down` back"
                ),
            ));
        }
    }
    let place = match Place::open(host, facts.backend) {
        Ok(place) => place,
        Err(error) => {
            facts.self_test = SelfTest::Failed(error.message);
            return;
        }
    };
    facts.inside = place.own_session().map(|name| name.to_string());
    facts.self_test = match (&facts.inside, &place.tree) {
        (None, Some(tree))
            if matches!(base.kind, BaseKind::SessionsUnit(_))
                && matches!(tree.find(&base.group), Ok(None)) =>
        {
            SelfTest::NotApplicable(format!("{SESSIONS_SCOPE} is not there; the next launch makes it"))
        }
        (Some(outer), _) => SelfTest::NotApplicable(format!("this is inside session {outer}")),
        (None, Some(tree)) => match selftest::run(&place, tree, &base) {
            Ok(tested) => SelfTest::Ok(tested),
            Err(what) => SelfTest::Failed(what),
        },
        (None, None) => return,
    };
    place.registry.remove_if_empty();
}

fn systemd_version() -> Option<String> {
    let version = Systemd::of(Manager::System).within(PATIENCE).version().ok()?;
    Some(format!("systemd {version}"))
}

fn render(facts: &Facts, findings: &[Finding], knobs: &[KnobState]) -> String {
    let host = &facts.host;
    let mut out = format!("cgmgr {} on Linux {}", env!("CARGO_PKG_VERSION"), host.kernel);
    if let Some(version) = &facts.systemd_version {
        out.push_str(&format!(", {version}"));
    }
    out.push_str(&format!(
        ", {} CPUs, {} memory, {} swap\nhierarchy: {}; backend: {}\n\n",
        host.machine.cpus,
        bytes(host.machine.mem_total),
        bytes(host.machine.swap_total),
        host.hierarchy.label(),
        facts.backend.name(),
    ));
    for finding in findings {
        wrap(&mut out, &format!("{:<8} ", finding.level.name()), &finding.what);
        if let Some(fix) = &finding.fix {
            wrap(&mut out, "         fix: ", fix);
        }
    }
    out.push_str("\nKnobs, if declared:\n");
    for knob in knobs {
        let outcome = match (&knob.outcome, &host.base) {
            // Said once above is enough.
            (receipt::Outcome::NotEnforced { why }, Err(none)) if *why == none.why => {
                "not enforced".to_owned()
            }
            (outcome, _) => outcome.to_string(),
        };
        wrap(&mut out, &format!("  {:<24} ", knob.knob), &outcome);
    }
    let verdict = match findings.iter().map(|f| f.level).max() {
        Some(Level::Problem) => {
            "Limits cannot be enforced here; sessions run all the same, and are marked unconfined."
        }
        Some(Level::Warning) => "Limits can be enforced, with the warnings above.",
        _ => "Limits can be enforced.",
    };
    out.push_str(&format!("\n{verdict}\n"));
    out
}

/// `text` behind `head`, broken between words at 100 columns.
fn wrap(out: &mut String, head: &str, text: &str) {
    let indent = head.chars().count();
    out.push_str(head);
    let mut column = indent;
    for (i, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if i > 0 && column + 1 + width > 100 {
            out.push_str(&format!("\n{:indent$}", ""));
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
}

fn to_json(facts: &Facts, findings: &[Finding], knobs: &[KnobState]) -> Json {
    let base = facts.host.base.as_ref().ok();
    let self_test = match &facts.self_test {
        SelfTest::Ok(tested) => json!({
            "state": "ok",
            "placed_by": if tested.moved { "move" } else { "clone3" },
            "limits": if tested.limits_skipped.is_none() { "read back" } else { "not tried" },
            "detail": tested.limits_skipped,
            "features": tested.features,
        }),
        SelfTest::Failed(what) => json!({ "state": "failed", "detail": what }),
        SelfTest::NotApplicable(why) => json!({ "state": "not_applicable", "detail": why }),
    };
    json!({
        "backend": facts.backend.name(),
        "hierarchy": facts.host.hierarchy.label(),
        "mount": facts.host.hierarchy.mount().map(|m| &m.point),
        "base": base.map(|b| b.group.as_str()),
        "sessions": base.map(|b| b.sessions.as_str()),
        "controllers": base.map(|b| b.controllers.iter().map(|c: &Controller| c.name()).collect::<Vec<_>>()),
        "kernel": facts.host.kernel,
        "systemd": facts.systemd_version,
        "can_enforce": doctor::can_enforce(facts),
        "findings": findings,
        "knobs": knobs.iter().map(knob_json).collect::<Vec<_>>(),
        "self_test": self_test,
    })
}

fn knob_json(knob: &KnobState) -> Json {
    let (state, detail) = receipt::words(&knob.outcome);
    json!({ "knob": knob.knob, "state": state, "detail": detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        let mut out = String::new();
        wrap(&mut out, "note     ", &"word ".repeat(40));
        assert!(out.lines().count() > 1 && out.lines().all(|l| l.chars().count() <= 100));
        assert!(out.lines().skip(1).all(|l| l.starts_with("         ")), "{out}");
    }
}
