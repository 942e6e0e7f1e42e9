//! Options of `podman run`. What docker's words lack goes to the control files themselves, by --cgroup-conf.

use super::docker::{line, or_none, push_option, together};
use super::sheet::Sheet;
use crate::limits::{CpuQuota, KnobId, Max, PERIOD_US};

/// What Debian 12's runtime makes of a scope of systemd's: its limits are on a group inside.
pub(super) const OLD_CRUN: &str = "with crun 1.8 pids holds no further than systemd's DefaultTasksMax, and io_weight not beside others; with 1.21 both do";

/// The options in one line; no value of them needs quotes.
pub(super) fn options(sheet: &mut Sheet<'_>) -> String {
    sheet.note(OLD_CRUN);
    let values = values(sheet);
    let mut text = line(&values, sheet.engine);
    for option in more(sheet) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&option);
    }
    text
}

/// What podman is told by names of the table, in docker's order.
pub(super) fn values(sheet: &mut Sheet<'_>) -> Vec<(KnobId, String)> {
    let mut values = Vec::new();
    let memory = sheet.memory(KnobId::MemoryMax).and_then(Max::at);
    if let Some(bytes) = memory {
        values.push((KnobId::MemoryMax, bytes.to_string()));
    }
    if let Some(Max::At(bytes)) = sheet.memory(KnobId::MemoryHigh) {
        values.push((KnobId::MemoryHigh, bytes.to_string()));
    }
    if let (Some(memory), Some(swap)) = (memory, sheet.memory(KnobId::MemorySwapMax)) {
        values.push((KnobId::MemorySwapMax, together(sheet, memory, swap)));
    }
    if let Some(quota) = sheet.quota(KnobId::Cpus).filter(survives) {
        values.push((KnobId::Cpus, quota.to_string()));
    }
    // Podman's own default is 2048, and absent is no limit.
    let pids = sheet.count(KnobId::Pids).unwrap_or(Max::Max);
    values.push((KnobId::Pids, or_none(pids)));
    if let Some(Max::At(files)) = sheet.count(KnobId::Nofile) {
        values.push((KnobId::Nofile, format!("{files}:{files}")));
    }
    if let Some(score) = sheet.score() {
        values.push((KnobId::OomScoreAdj, score.to_string()));
    }
    for id in [KnobId::CpuWeight, KnobId::IoWeight] {
        if let Some(weight) = sheet.weight(id) {
            values.push((id, weight.to_string()));
        }
    }
    if sheet.oom_group() == Some(true) {
        values.push((KnobId::OomGroup, "1".to_owned()));
    }
    values
}

/// What podman's usual option does not hold exactly.
pub(super) fn more(sheet: &Sheet<'_>) -> Vec<String> {
    let mut more = Vec::new();
    if let Some(quota) = sheet.quota(KnobId::Cpus).filter(|quota| !survives(quota)) {
        more.push(format!(
            "--cpu-period {PERIOD_US} --cpu-quota {}",
            quota.quota_us()
        ));
    }
    if sheet.memory(KnobId::MemoryMax).and_then(Max::at).is_none()
        && let Some(Max::At(swap)) = sheet.memory(KnobId::MemorySwapMax)
    {
        let mut option = String::new();
        push_option(&mut option, "--cgroup-conf memory.swap.max", &swap.to_string());
        more.push(option);
    }
    more
}

/// Podman takes --cpus as a floating-point number, and what that times the period is without its fraction.
fn survives(quota: &CpuQuota) -> bool {
    let cpus = quota.quota_us() as f64 / PERIOD_US as f64;
    (cpus * PERIOD_US as f64) as u64 == quota.quota_us()
}
