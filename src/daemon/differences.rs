//! Values that are not what they were set to: told at the second look that finds them, and once each.
//!
//! cgmgr writes a value before it writes down what it has set, so one look alone may find what is no difference.

use std::collections::BTreeMap;
use std::mem;

/// Of one group, or of several whose keys differ: each key's value that was found and not expected.
#[derive(Debug, Default)]
pub(super) struct Differences {
    told: BTreeMap<String, String>,
    suspects: BTreeMap<String, String>,
    /// The suspects of the look before.
    before: BTreeMap<String, String>,
}

impl Differences {
    /// A look begins.
    pub(super) fn look(&mut self) {
        self.before = mem::take(&mut self.suspects);
    }

    /// The value is as it was set.
    pub(super) fn is_right(&mut self, key: &str) {
        self.told.remove(key);
    }

    /// Whether the value that was found, and is not what was set, is to be told now. [`Self::was_told`] says that it was.
    pub(super) fn is_news(&mut self, key: &str, found: &str) -> bool {
        let is = |known: Option<&String>| known.is_some_and(|known| known == found);
        if is(self.told.get(key)) {
            return false;
        }
        let twice = is(self.before.get(key));
        if !twice {
            self.suspects.insert(key.to_owned(), found.to_owned());
        }
        twice
    }

    /// It is not told again while it stays so.
    pub(super) fn was_told(&mut self, key: &str, found: String) {
        self.told.insert(key.to_owned(), found);
    }

    /// Whether the last look found what only the next one can tell.
    pub(super) fn are_open(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// What was set is another now.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_looks_find_is_told_once_until_it_was_right_again() {
        let mut all = Differences::default();
        let mut look = |found: Option<&str>| {
            all.look();
            let Some(found) = found else {
                all.is_right("k");
                return (false, all.are_open());
            };
            let news = all.is_news("k", found);
            if news {
                all.was_told("k", found.to_owned());
            }
            (news, all.are_open())
        };
        assert_eq!(look(Some("1")), (false, true));
        // Another value than before is a first look at that one.
        assert_eq!(look(Some("2")), (false, true));
        assert_eq!(look(Some("2")), (true, false));
        assert_eq!(look(Some("2")), (false, false));
        assert_eq!(look(None), (false, false));
        assert_eq!(look(Some("2")), (false, true));
        // Right in between: it begins anew.
        assert_eq!(look(None), (false, false));
        assert_eq!(look(Some("2")), (false, true));
        assert_eq!(look(Some("2")), (true, false));
    }

    #[test]
    fn what_is_told_and_mended_is_told_again_when_it_comes_back() {
        let mut all = Differences::default();
        for expected in [false, true, false, true] {
            all.look();
            assert_eq!(all.is_news("k", "1"), expected);
        }
        all.was_told("k", "1".into());
        all.forget();
        all.look();
        assert!(!all.is_news("k", "1") && all.are_open());
    }
}
