//! Values compared with each other and with the machine.
//!
//! What is an error must not depend on the machine: a role is the same file everywhere. So values that only a machine
//! brings together (a percentage and an amount, a limit and the memory) give warnings, with what they amount to.

use super::diagnostic::Diagnostic;
use super::resolve::{AllFound, Found, From, add_note};
use crate::host::Machine;
use crate::limits::{Bytes, KnobId, Max, Origin, Settings, Value};

/// With fewer tasks than this a shell with a pipe and a compiler hits the limit.
const FEW_PIDS: u64 = 16;

/// Adds every finding to `diagnostics`, and what a limit really amounts to here to the settings' notes. Where the role
/// is not `complete`, because a value could not be read, nothing is said that rests on a value's absence.
pub(super) fn lint(
    found: &AllFound,
    machine: &Machine,
    complete: bool,
    settings: &mut Settings,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut lint = Lint {
        found,
        machine,
        settings,
        diagnostics,
    };
    lint.high_and_max(KnobId::MemoryHigh, KnobId::MemoryMax);
    lint.high_and_max(KnobId::WorkloadsMemoryHigh, KnobId::WorkloadsMemoryMax);
    lint.session_within_ceiling();
    lint.reserve();
    lint.protection_order();
    if complete {
        lint.within_machine();
        lint.high_without_swap();
    }
    lint.cpus(KnobId::Cpus);
    lint.cpus(KnobId::WorkloadsCpus);
    lint.few_pids();
}

struct Lint<'a> {
    found: &'a AllFound,
    machine: &'a Machine,
    settings: &'a mut Settings,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'a> Lint<'a> {
    fn bytes(&self, id: KnobId) -> Option<(&'a Found, Bytes)> {
        let found = self.found.get(&id)?;
        Some((found, found.value.bytes()?))
    }

    fn push(&mut self, diagnostic: Diagnostic, at: &Found) {
        let diagnostic = match at.place() {
            Some(place) => diagnostic.at(place),
            None => diagnostic,
        };
        self.diagnostics.push(diagnostic);
    }

    /// Reclaim that would begin above the point of the kill never begins. Between a flag and a file it is the flag
    /// that counts.
    fn high_and_max(&mut self, high_id: KnobId, max_id: KnobId) {
        let (Some((high, high_bytes)), Some((max, max_bytes))) = (self.bytes(high_id), self.bytes(max_id))
        else {
            return;
        };
        if high_bytes <= max_bytes {
            return;
        }
        let what = format!("{} is above {}", named(high), named(max));
        let (high_key, max_key) = (high.called, max.called);
        if let (From::File { .. }, From::Flag(flag)) = (&high.from, &max.from) {
            let diagnostic = Diagnostic::warning(format!("{what}: it has no effect")).help(format!(
                "with {flag} give a lower {high_key} too, if memory is to be taken back before"
            ));
            let why = Origin::Derived(format!("{flag} is below {}", named(high)));
            self.settings.set(high_id, Value::Memory(Max::Max), why);
            return self.push(diagnostic, high);
        }
        let comparable = high.is_absolute() == max.is_absolute();
        let diagnostic = if comparable {
            Diagnostic::error(what)
        } else {
            Diagnostic::warning(format!(
                "{what} on this machine ({} and {}): it has no effect here",
                high_bytes.human(),
                max_bytes.human()
            ))
        };
        let mut diagnostic = diagnostic.help(format!("lower {high_key}, or raise {max_key}"));
        if high.place().is_some() {
            diagnostic = diagnostic.label("never reached");
        }
        if let Some(place) = max.place() {
            diagnostic = diagnostic.related(place, "the session is killed here");
        }
        self.push(diagnostic, high);
    }

    fn session_within_ceiling(&mut self) {
        let pairs = [
            (KnobId::MemoryMax, KnobId::WorkloadsMemoryMax),
            (KnobId::Cpus, KnobId::WorkloadsCpus),
            (KnobId::Pids, KnobId::WorkloadsPids),
        ];
        for (session_id, ceiling_id) in pairs {
            let (Some(session), Some(ceiling)) = (self.found.get(&session_id), self.found.get(&ceiling_id))
            else {
                continue;
            };
            if !is_above(&session.value, &ceiling.value) {
                continue;
            }
            let what = format!("{} is above {}", named(session), named(ceiling));
            let one_file = match (session.place(), ceiling.place()) {
                (Some(a), Some(b)) => a.source.path == b.source.path,
                _ => false,
            };
            let memory = session_id == KnobId::MemoryMax;
            let absolute = session.is_absolute() && ceiling.is_absolute();
            let effective = ceiling.value.human();
            let mut diagnostic = if memory && one_file && absolute {
                Diagnostic::error(format!("{what}, the ceiling over all sessions"))
            } else {
                add_note(
                    self.settings,
                    session_id,
                    &format!("effectively {effective}: {}", ceiling.knob.key),
                );
                Diagnostic::warning(format!("{what}: effectively it is {effective}"))
            };
            if let Some(place) = ceiling.place() {
                diagnostic = diagnostic.related(place, "the ceiling over all sessions");
            }
            diagnostic = diagnostic.help(format!("lower {}, or raise {}", session.called, ceiling.called));
            self.push(diagnostic, session);
        }
    }

    /// More than there is. The ceiling, where there is one, has already been compared.
    fn within_machine(&mut self) {
        let total = Bytes(self.machine.mem_total);
        for id in [KnobId::MemoryMax, KnobId::WorkloadsMemoryMax] {
            let Some((found, bytes)) = self.bytes(id) else {
                continue;
            };
            let ceiling = id == KnobId::MemoryMax && self.bytes(KnobId::WorkloadsMemoryMax).is_some();
            if bytes <= total || ceiling {
                continue;
            }
            let here = total.human();
            add_note(self.settings, id, &format!("this machine has {here}"));
            let message = format!(
                "{} is more than this machine has: effectively it is {here}",
                named(found)
            );
            let help = "the machine runs out of memory before this limit does anything; a percentage fits every machine";
            self.push(Diagnostic::warning(message).help(help), found);
        }
    }

    /// The ceiling is what keeps the agent alive, if it leaves the agent its reserve.
    fn reserve(&mut self) {
        let (Some((min, reserve)), Some((max, ceiling))) = (
            self.bytes(KnobId::AgentMemoryMin),
            self.bytes(KnobId::WorkloadsMemoryMax),
        ) else {
            return;
        };
        let total = self.machine.mem_total;
        if reserve.0.saturating_add(ceiling.0) <= total || ceiling.0 > total {
            return;
        }
        let message = format!(
            "{} and {} ({}) together are more than this machine's {}",
            named(min),
            named(max),
            ceiling.human(),
            Bytes(total).human()
        );
        let help = "lower workloads.memory_max: what it leaves is what keeps the agent alive";
        let mut diagnostic = Diagnostic::warning(message).help(help);
        if let Some(place) = min.place() {
            diagnostic = diagnostic.related(place, "the agent's reserve");
        }
        self.push(diagnostic, max);
    }

    fn protection_order(&mut self) {
        let (Some((min, min_bytes)), Some((low, low_bytes))) = (
            self.bytes(KnobId::AgentMemoryMin),
            self.bytes(KnobId::AgentMemoryLow),
        ) else {
            return;
        };
        if low_bytes >= min_bytes {
            return;
        }
        let message = format!("{} is below {}: it has no effect", named(low), named(min));
        let mut diagnostic = Diagnostic::warning(message).help("raise agent.memory_low, or leave it out");
        if let Some(place) = min.place() {
            diagnostic = diagnostic.related(place, "protected in any case");
        }
        self.push(diagnostic, low);
    }

    /// memory.high never kills: without swap a session above it can crawl for hours.
    fn high_without_swap(&mut self) {
        if self.machine.swap_total == 0 && self.bytes(KnobId::WorkloadsMemoryHigh).is_some() {
            add_note(
                self.settings,
                KnobId::WorkloadsMemoryHigh,
                "no swap here: above it sessions slow down",
            );
        }
        let Some((high, _)) = self.bytes(KnobId::MemoryHigh) else {
            return;
        };
        // Lifted because of a flag: there is no soft limit any more.
        if self
            .settings
            .value(KnobId::MemoryHigh)
            .is_some_and(|value| value.bytes().is_none())
        {
            return;
        }
        let swap = self.settings.value(KnobId::MemorySwapMax).and_then(Value::bytes);
        let why = if swap == Some(Bytes(0)) {
            "with memory_swap_max = 0"
        } else if self.machine.swap_total == 0 {
            "on this machine, which has no swap"
        } else {
            return;
        };
        let message = format!(
            "{} {why}: a session above it can slow to a crawl instead of being killed",
            named(high)
        );
        let help = if high.called == high.knob.key {
            "leave memory_high out, or allow some swap with memory_swap_max; `cgmgr status` shows what it waits for"
        } else {
            "pass --memory-high max, or allow some swap with --memory-swap-max; `cgmgr status` shows what it waits for"
        };
        self.push(Diagnostic::warning(message).help(help), high);
    }

    fn cpus(&mut self, id: KnobId) {
        let Some(found) = self.found.get(&id) else { return };
        let Some(quota) = found.value.quota() else { return };
        let cpus = u64::from(self.machine.cpus);
        if cpus == 0 || quota.ceil() <= cpus {
            return;
        }
        let message = format!(
            "{} is more than this machine's {cpus} CPUs: it has no effect here",
            named(found)
        );
        add_note(self.settings, id, &format!("this machine has {cpus} CPUs"));
        // Who writes 300 for three CPUs gets no limit at all; nobody has hundreds of times the CPUs of the machine.
        let percent = quota.ceil() >= 10 && quota.ceil() >= cpus * 4 && !found.written.contains('%');
        let help = if percent {
            format!("did you mean \"{quota}%\", a percentage of one CPU?")
        } else {
            "lower it if the limit is meant to be one on this machine".to_string()
        };
        self.push(Diagnostic::warning(message).help(help), found);
    }

    fn few_pids(&mut self) {
        let Some(found) = self.found.get(&KnobId::Pids) else {
            return;
        };
        if found.value.count().is_some_and(|pids| pids < FEW_PIDS) {
            let message = format!(
                "{} leaves little room: threads count too, and fork fails above it",
                named(found)
            );
            self.push(
                Diagnostic::warning(message).help(format!("write {FEW_PIDS} or more")),
                found,
            );
        }
    }
}

/// Whether one limit is above another of the same kind.
fn is_above(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // No limit below a ceiling is what most sessions want.
        (Value::Memory(Max::At(a)), Value::Memory(b)) => Max::At(*a) > *b,
        (Value::Cpu(Max::At(a)), Value::Cpu(b)) => Max::At(*a) > *b,
        (Value::Count(Max::At(a)), Value::Count(b)) => Max::At(*a) > *b,
        _ => false,
    }
}

/// `memory_high = "12 GiB"`, `--memory-max 8GiB`.
fn named(found: &Found) -> String {
    match &found.from {
        From::File { .. } => format!("{} = {}", found.called, found.written),
        From::Flag(flag) => format!("{flag} {}", found.written),
    }
}
