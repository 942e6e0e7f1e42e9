//! Kubernetes: a pod whose container has the limits, and for `[workloads]` a ResourceQuota of the namespace, with a
//! LimitRange that gives the session's limits to containers which say none (the quota would refuse those).
//!
//! Source: the Kubernetes API reference, and "Resource Management for Pods and Containers".

use super::compose::quoted;
use super::sheet::Sheet;
use crate::limits::{KnobId, Max, Part};

pub(super) fn objects(sheet: &mut Sheet<'_>) -> String {
    let label = sheet.label();
    let memory = memory(sheet, KnobId::MemoryMax);
    let cpus = cpus(sheet, KnobId::Cpus);
    let limits = [("cpu", &cpus), ("memory", &memory)];
    let mut text = format!(
        "# Limits of the role {}, translated by cgmgr.\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {label}\nspec:\n  \
         containers:\n    - name: {label}\n      image: {}\n",
        sheet.name(),
        quoted(&sheet.image(&label)),
    );
    if memory.is_some() || cpus.is_some() {
        text.push_str("      resources:\n        limits:\n");
        quantities(&mut text, "          ", "", &limits);
        sheet.note("what is limited is requested too, unless lower requests are written beside the limits");
    }
    if sheet.oom_group().is_none() {
        sheet.note(
            "an OOM kill takes the whole container since Kubernetes 1.28, unless singleProcessOOMKill is set",
        );
    }
    sheet.has_place_for(Part::Workloads);
    let quota_memory = self::memory(sheet, KnobId::WorkloadsMemoryMax);
    let quota_cpus = self::cpus(sheet, KnobId::WorkloadsCpus);
    if quota_memory.is_some() || quota_cpus.is_some() {
        text.push_str(&format!(
            "---\napiVersion: v1\nkind: ResourceQuota\nmetadata:\n  name: {label}\nspec:\n  hard:\n"
        ));
        quantities(
            &mut text,
            "    ",
            "limits.",
            &[("cpu", &quota_cpus), ("memory", &quota_memory)],
        );
        sheet
            .note("a ResourceQuota holds what pods declare below a sum; it is no ceiling over what they use");
        let missing = quota_memory.is_some() && memory.is_none() || quota_cpus.is_some() && cpus.is_none();
        if missing {
            sheet.note("the quota refuses pods that do not declare each limit which it counts, this one too");
        }
        if memory.is_some() || cpus.is_some() {
            text.push_str(&format!(
                "---\napiVersion: v1\nkind: LimitRange\nmetadata:\n  name: {label}\nspec:\n  limits:\n    - type: \
                 Container\n      default:\n"
            ));
            quantities(&mut text, "        ", "", &limits);
        }
    }
    text
}

fn quantities(text: &mut String, indent: &str, prefix: &str, quantities: &[(&str, &Option<String>)]) {
    for (name, quantity) in quantities {
        if let Some(quantity) = quantity {
            text.push_str(&format!("{indent}{prefix}{name}: \"{quantity}\"\n"));
        }
    }
}

/// Plain bytes.
fn memory(sheet: &Sheet<'_>, id: KnobId) -> Option<String> {
    let bytes = sheet.memory(id).and_then(Max::at)?;
    Some(bytes.to_string())
}

/// CPUs in thousandths, of which there are no fractions: rounded up.
fn cpus(sheet: &mut Sheet<'_>, id: KnobId) -> Option<String> {
    let us = sheet.quota(id)?.quota_us();
    let milli = us.div_ceil(100);
    if us % 100 != 0 {
        let why = format!("a quantity has thousandths of a CPU: it is {milli}m");
        sheet.lose(id, &why, "declare no more than three digits behind the point");
    }
    Some(match milli % 1000 {
        0 => (milli / 1000).to_string(),
        _ => format!("{milli}m"),
    })
}
