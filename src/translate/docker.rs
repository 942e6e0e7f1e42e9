//! Options of `docker run`, for `docker run $(cgmgr translate --to docker ROLE) IMAGE`: plain bytes, in jackin's order.

use super::sheet::Sheet;
use super::weights;
use crate::limits::{Engine, KnobId, Max, PERIOD_US};

/// Docker refuses less, in bytes, for --memory and --memory-reservation.
const LEAST: u64 = 6 << 20;

/// The options in one line; no value of them needs quotes.
pub(super) fn options(sheet: &mut Sheet<'_>) -> String {
    line(&values(sheet), sheet.engine)
}

/// Options in one line, by the names that the table has for `engine`.
pub(super) fn line(values: &[(KnobId, String)], engine: Engine) -> String {
    let mut line = String::new();
    for (id, value) in values {
        let name = id.knob().at(engine).unwrap_or_default();
        if !line.is_empty() {
            line.push(' ');
        }
        push_option(&mut line, name, value);
    }
    line
}

/// `--memory 5`, and `--ulimit nofile=5:5` for what has the key of a value in its name.
pub(super) fn push_option(line: &mut String, name: &str, value: &str) {
    line.push_str(name);
    line.push(if name.contains(' ') { '=' } else { ' ' });
    line.push_str(value);
}

/// What docker, and compose after it, is told, in jackin's order.
pub(super) fn values(sheet: &mut Sheet<'_>) -> Vec<(KnobId, String)> {
    let mut values = Vec::new();
    let memory = least(sheet, KnobId::MemoryMax);
    if let Some(bytes) = memory {
        values.push((KnobId::MemoryMax, bytes.to_string()));
    }
    if let Some(bytes) = least(sheet, KnobId::MemoryHigh) {
        values.push((KnobId::MemoryHigh, bytes.to_string()));
        sheet.lose(
            KnobId::MemoryHigh,
            "on cgroup v2 docker's memory reservation is memory.low: so much is protected, and nobody is slowed down above it",
            "podman, which sets memory.high",
        );
    }
    if let Some(total) = swap(sheet, memory) {
        values.push((KnobId::MemorySwapMax, total));
    }
    if let Some(quota) = sheet.quota(KnobId::Cpus) {
        values.push((KnobId::Cpus, quota.to_string()));
    }
    match sheet.count(KnobId::Pids) {
        Some(pids) => {
            values.push((KnobId::Pids, or_none(pids)));
            if pids == Max::Max {
                sheet.lose(
                    KnobId::Pids,
                    "docker takes no limit for nothing said, and systemd then gives the container its DefaultTasksMax",
                    "declare as many tasks as there can be, pids = 4194304",
                );
            }
        }
        None => sheet.note(
            "without pids a container has systemd's DefaultTasksMax, where docker's groups are systemd's",
        ),
    }
    if let Some(Max::At(files)) = sheet.count(KnobId::Nofile) {
        values.push((KnobId::Nofile, format!("{files}:{files}")));
    }
    if let Some(score) = sheet.score() {
        values.push((KnobId::OomScoreAdj, score.to_string()));
    }
    if let Some(weight) = sheet.weight(KnobId::IoWeight) {
        let blkio = weights::blkio_of(weight);
        values.push((KnobId::IoWeight, blkio.to_string()));
        let becomes = weights::io_of(blkio);
        let why = format!(
            "a blkio weight of {blkio} becomes an io.weight of {becomes} with runc, and something else with BFQ or crun"
        );
        sheet.lose(KnobId::IoWeight, &why, "podman, which sets io.weight");
    }
    if let Some(weight) = sheet.weight(KnobId::CpuWeight) {
        let shares = weights::shares_of(weight);
        values.push((KnobId::CpuWeight, shares.to_string()));
        let why = format!(
            "{shares} CPU shares become a cpu.weight of {weight} with runc 1.3.2 and crun 1.23, of {} with older ones",
            weights::old_weight_of(shares)
        );
        sheet.lose(KnobId::CpuWeight, &why, "podman, which sets cpu.weight");
    }
    undone(sheet, memory.is_some());
    values
}

/// Notes what older versions do not keep: runc has written it to the control files and has not told systemd, which writes its
/// own there when it reads its units anew (moby#51446).
fn undone(sheet: &mut Sheet<'_>, has_memory: bool) {
    let has_no_swap = has_memory && sheet.memory(KnobId::MemorySwapMax) == Some(Max::At(0));
    let has_weight = sheet.weight(KnobId::IoWeight).is_some();
    let has_fraction = sheet
        .quota(KnobId::Cpus)
        .is_some_and(|quota| quota.quota_us() % (PERIOD_US / 100) != 0);
    let undone = [
        (has_no_swap, "memory_swap_max = 0"),
        (has_weight, "io_weight"),
        (has_fraction, "the fraction of a per cent of cpus"),
    ];
    let undone: Vec<&str> = undone
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, what)| *what)
        .collect();
    if !undone.is_empty() {
        let note = format!(
            "`systemctl daemon-reload` undoes {} of containers that run, with Debian 12's systemd 252 and runc 1.1.5; with Debian 13's it \
             does not",
            undone.join(", ")
        );
        sheet.note(&note);
    }
}

/// `-1` for no limit.
pub(super) fn or_none(count: Max<u64>) -> String {
    count
        .at()
        .map_or_else(|| "-1".to_owned(), |count| count.to_string())
}

/// An amount that docker takes.
fn least(sheet: &mut Sheet<'_>, id: KnobId) -> Option<u64> {
    let bytes = sheet.memory(id)?.at()?;
    if bytes < LEAST {
        sheet.lose(
            id,
            "docker refuses less than 6 MiB",
            "declare at least 6 MiB, or use podman",
        );
        return None;
    }
    Some(bytes)
}

/// Memory and swap together, which is how docker counts: as much as the memory is no swap, -1 as much as there is. It is
/// said wherever memory is limited, for docker's own default is as much swap again.
fn swap(sheet: &mut Sheet<'_>, memory: Option<u64>) -> Option<String> {
    let swap = sheet.memory(KnobId::MemorySwapMax)?;
    let Some(memory) = memory else {
        if swap != Max::Max {
            sheet.lose(
                KnobId::MemorySwapMax,
                "docker limits swap only beside memory",
                "declare memory_max too",
            );
        }
        return None;
    };
    Some(together(sheet, memory, swap))
}

/// Memory and swap in one number.
pub(super) fn together(sheet: &mut Sheet<'_>, memory: u64, swap: Max<u64>) -> String {
    let Max::At(swap) = swap else {
        return "-1".to_owned();
    };
    match i64::try_from(u128::from(memory) + u128::from(swap)) {
        Ok(total) => total.to_string(),
        Err(_) => {
            sheet.lose(
                KnobId::MemorySwapMax,
                "memory and swap together are more than can be counted: swap is not limited",
                "declare less, or max",
            );
            "-1".to_owned()
        }
    }
}
