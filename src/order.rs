//! Sorting with one instance of the standard library's sort for all types. Each of its own is five kilobytes of the program,
//! and nothing here sorts so much that it would have to be faster. Pure.
#![deny(clippy::disallowed_methods)]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Sorts; what is equal stays in its order.
pub fn sort_by<T>(items: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering) {
    let order = order(items.len(), &|a, b| compare(&items[a], &items[b]));
    let mut taken: Vec<Option<T>> = std::mem::take(items).into_iter().map(Some).collect();
    items.extend(order.into_iter().filter_map(|at| taken[at].take()));
}

/// Sorts by a key; what is equal stays in its order.
pub fn sort_by_key<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    sort_by(items, |a, b| key(a).cmp(&key(b)));
}

/// Sorts.
pub fn sort<T: Ord>(items: &mut Vec<T>) {
    sort_by(items, T::cmp);
}

/// A map of pairs. `collect` sorts them first.
pub fn map<K: Ord, V>(pairs: impl Iterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    pairs.for_each(|(key, value)| {
        map.insert(key, value);
    });
    map
}

/// A set. `collect` sorts what is in it first.
pub fn set<T: Ord>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    items.for_each(|item| {
        set.insert(item);
    });
    set
}

/// The places of `0..len` in order.
fn order(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.sort_by(|a, b| compare(*a, *b));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_as_the_standard_library_does() {
        // More than are sorted by insertion, with equal ones among them.
        let mut ours: Vec<(u32, usize)> = (0..200).map(|n| (n as u32 * 7919 % 31, n)).collect();
        let mut theirs = ours.clone();
        sort_by_key(&mut ours, |(key, _)| *key);
        theirs.sort_by_key(|(key, _)| *key);
        assert_eq!(ours, theirs);
        sort(&mut ours);
        theirs.sort();
        assert_eq!(ours, theirs);
        sort::<u8>(&mut Vec::new());
    }

    #[test]
    fn the_last_of_two_pairs_counts() {
        let pairs = || [("b", 1), ("a", 2), ("b", 3)].into_iter();
        assert_eq!(map(pairs()), pairs().collect());
        assert_eq!(set(pairs()), pairs().collect());
    }
}
