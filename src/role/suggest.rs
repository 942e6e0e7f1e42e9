//! Did you mean …?

use crate::limits::{KNOBS, Knob};

/// What to say about a key that is unknown in a table of knobs.
pub(crate) fn knob_help(table_path: &str, name: &str) -> String {
    if let Some(elsewhere) = elsewhere(table_path, name) {
        return elsewhere;
    }
    let here: Vec<&str> = KNOBS
        .iter()
        .filter(|knob| knob.table() == table_path)
        .map(Knob::name)
        .collect();
    match nearest(name, here.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("[{table_path}] has {}", here.join(", ")),
    }
}

/// Of the candidates the one that is nearest to `typed`, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    let most = (typed.chars().count() / 3).max(1);
    let near = candidates
        .into_iter()
        .map(|candidate| (distance(&typed, candidate), candidate));
    near.filter(|&(distance, _)| distance <= most)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, found)| found)
}

/// Whether one insertion, deletion, replacement or swap of neighbours turns one into the other. A character has at most
/// four bytes, so that most words are known by their length.
pub(super) fn is_typo_of(typed: &str, word: &str) -> bool {
    typed != word && typed.len().abs_diff(word.len()) <= 4 && distance(typed, word) <= 1
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two words (optimal string
/// alignment). A word far longer than any of ours is just far away.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Where a key that is unknown here would be known, or what it is called there.
fn elsewhere(table_path: &str, name: &str) -> Option<String> {
    let name = name.replace('-', "_");
    let synonym = match name.as_str() {
        "memory" | "mem" | "mem_max" | "memory_limit" => Some("memory_max"),
        "memory_reservation" | "mem_high" => Some("memory_high"),
        "swap" | "swap_max" | "memory_swap" => Some("memory_swap_max"),
        "cpu_max" | "cpu_quota" => Some("cpus"),
        "pids_max" | "tasks_max" | "processes" => Some("pids"),
        _ => None,
    };
    let has = |knob: &&Knob, name: &str| knob.table() == table_path && knob.name() == name;
    if let Some(synonym) = synonym.filter(|synonym| KNOBS.iter().any(|knob| has(&knob, synonym))) {
        return Some(format!("did you mean `{synonym}`?"));
    }
    if KNOBS.iter().any(|knob| has(&knob, &name)) {
        return None;
    }
    if let Some(knob) = KNOBS
        .iter()
        .find(|knob| knob.key == name && knob.table() == "runtime.limits.oom")
    {
        return Some(format!("write `{}` in [{}]", knob.name(), knob.table()));
    }
    let tables: Vec<_> = KNOBS
        .iter()
        .filter(|knob| knob.name() == name)
        .map(Knob::table)
        .collect();
    (!tables.is_empty()).then(|| format!("`{name}` belongs into [{}]", tables.join("] or [")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, n) in [
            ("", "", 0),
            ("a", "", 1),
            ("agnet", "agent", 1),
            ("cpu", "cpus", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (n, n), "{a} {b}");
        }
    }

    #[test]
    fn suggestions() {
        let keys = ["memory_high", "memory_max", "cpus", "cpu_weight", "pids", "nice"];
        for (typed, meant) in [
            ("memory-max", Some("memory_max")),
            ("memroy_max", Some("memory_max")),
            ("cpu", Some("cpus")),
            ("CPUS", Some("cpus")),
            ("pid", Some("pids")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
    }
}
