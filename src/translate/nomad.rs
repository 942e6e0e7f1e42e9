//! A job of Nomad's, with its docker driver. The syntax is all that is checked: no Nomad was run.

use super::compose::quoted;
use super::docker::or_none;
use super::sheet::Sheet;
use crate::limits::{KnobId, Max};

const MIB: u64 = 1 << 20;

pub(super) fn job(sheet: &mut Sheet<'_>) -> String {
    sheet.note("only the syntax is checked: no Nomad was run");
    let label = sheet.label();
    let mut text = format!(
        "# Limits of the role {}, translated by cgmgr.\njob \"{label}\" {{\n  group \"{label}\" {{\n    task \"{label}\" {{\n      \
         driver = \"docker\"\n\n      config {{\n        image = {}\n",
        sheet.name(),
        // What begins with these is a template.
        quoted(&sheet.image(&label))
            .replace("${", "$${")
            .replace("%{", "%%{"),
    );
    if let Some(pids) = sheet.count(KnobId::Pids) {
        text.push_str(&format!("        pids_limit = {}\n", or_none(pids)));
    }
    if let Some(score) = sheet.score() {
        text.push_str(&format!("        oom_score_adj = {score}\n"));
    }
    if let Some(Max::At(files)) = sheet.count(KnobId::Nofile) {
        text.push_str(&format!(
            "\n        ulimit {{\n          nofile = \"{files}:{files}\"\n        }}\n"
        ));
    }
    text.push_str("      }\n\n      resources {\n");
    if let Some(quota) = sheet.quota(KnobId::Cpus) {
        text.push_str(&format!("        cores = {}\n", quota.ceil()));
        let why = format!(
            "CPU time is counted in MHz of a node that is not known: it is {} whole cores, which nobody else has then",
            quota.ceil()
        );
        sheet.lose(
            KnobId::Cpus,
            &why,
            "cpu in MHz, with cpu_hard_limit = true in config",
        );
    }
    match sheet.memory(KnobId::MemoryMax).and_then(Max::at) {
        Some(bytes) => {
            text.push_str(&format!("        memory = {}\n", (bytes / MIB).max(1)));
            if bytes % MIB != 0 {
                sheet.lose(
                    KnobId::MemoryMax,
                    "memory is counted in MiB: it is rounded down",
                    "declare whole MiB",
                );
            }
        }
        None => sheet.note("without memory_max a task has 300 MiB"),
    }
    text.push_str("      }\n    }\n  }\n}\n");
    text
}
