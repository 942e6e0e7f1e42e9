//! Did you mean …?

/// Of the candidates the one that is nearest to `typed`, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    let most = (typed.chars().count() / 3).max(1);
    let near = candidates
        .into_iter()
        .map(|candidate| (distance(&typed, candidate), candidate));
    near.filter(|&(distance, _)| distance <= most)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, found)| found)
}

/// Whether one insertion, deletion, replacement or swap of neighbours turns one into the other.
pub(super) fn is_typo_of(typed: &str, word: &str) -> bool {
    typed != word && distance(typed, word) <= 1
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two words (optimal string
/// alignment). A word far longer than any of ours is just far away.
fn distance(a: &str, b: &str) -> usize {
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
