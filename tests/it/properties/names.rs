//! Names of groups and sessions: none leaves the tree, whatever text it is made from.

use cgmgr::path::{GroupPath, SESSION_NAME_MAX, SessionName};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{odd_char, odd_text, usual};

/// A part that a group's path may have: anything the kernel would take as a directory's name.
fn part() -> impl Strategy<Value = String> {
    proptest::collection::vec(odd_char(), 1..12)
        .prop_map(|chars| {
            chars
                .into_iter()
                .filter(|c| !"/\0\n".contains(*c))
                .collect::<String>()
        })
        .prop_filter("a part that is none", |part| {
            !["", ".", ".."].contains(&part.as_str())
        })
}

fn parts() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(part(), 0..6)
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | ':' | '_' | '.' | '-');
    (1..=SESSION_NAME_MAX).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with(['.', '-'])
}

/// Text that is a name, nearly one, or anything.
fn nearly_a_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9:_.-]{0,220}",
        "[A-Za-z0-9][A-Za-z0-9:_.-]{150,199}",
        "[.-]{0,3}[A-Za-z0-9:_.-]{0,20}[ /ä\n\0]?[A-Za-z0-9]{0,3}",
        odd_text(),
    ]
}

proptest! {
    #![proptest_config(usual())]

    #[test]
    fn a_group_path_has_no_part_that_leads_away(text in prop_oneof![odd_text(), "/?([a./\n\0]{1,3}/){0,6}"]) {
        let path = GroupPath::new(&text);
        let bad = !text.starts_with('/')
            || text.contains(['\0', '\n'])
            || text.split('/').any(|part| part == "." || part == "..");
        prop_assert_eq!(path.is_none(), bad, "{:?}", text);
        if let Some(path) = path {
            let rest = path.as_str().strip_prefix('/').expect("absolute");
            prop_assert!(rest.is_empty() || rest.split('/').all(|part| !["", ".", ".."].contains(&part)));
            prop_assert_eq!(GroupPath::new(path.as_str()), Some(path));
        }
    }

    #[test]
    fn one_bad_part_spoils_a_path(parts in parts(), bad in select(vec![".", "..", "a\0", "b\nc"]), at: Index) {
        let mut spoilt: Vec<&str> = parts.iter().map(String::as_str).collect();
        spoilt.insert(at.index(parts.len() + 1), bad);
        prop_assert_eq!(GroupPath::new(&format!("/{}", spoilt.join("/"))), None);
    }

    #[test]
    fn a_path_is_its_parts(parts in parts(), slashes in 1usize..3) {
        let doubled = "/".repeat(slashes) + &parts.join(&"/".repeat(slashes));
        let path = GroupPath::new(&doubled).expect("good parts");
        prop_assert_eq!(path.as_str(), format!("/{}", parts.join("/")));
        let joined = parts.iter().fold(GroupPath::root(), |path, part| path.join(part));
        prop_assert_eq!(&joined, &path);
        prop_assert_eq!(path.name(), parts.last().map(String::as_str));
        prop_assert_eq!(path.ancestors().count(), parts.len() + 1);
        prop_assert_eq!(path.relative(), parts.join("/"));
    }

    #[test]
    fn a_path_contains_what_it_is_above_of(one in parts(), other in parts(), of_one in any::<bool>()) {
        let of = |parts: &[String]| parts.iter().fold(GroupPath::root(), |path, part| path.join(part));
        let above = of(&one);
        let below = if of_one { of(&[one, other].concat()) } else { of(&other) };
        let is_above = below.ancestors().any(|group| group == above);
        prop_assert_eq!(above.contains(&below), is_above);
        prop_assert!(!of_one || is_above);
    }

    #[test]
    fn a_session_name_is_of_the_charset(text in nearly_a_name()) {
        match SessionName::new(&text) {
            Ok(name) => {
                prop_assert!(is_name(&text), "{:?}", text);
                prop_assert_eq!(name.as_str(), &text);
            }
            Err(why) => {
                prop_assert!(!is_name(&text), "{:?}: {}", text, why);
                prop_assert!(!why.contains(char::is_control), "{:?}", why);
            }
        }
    }

    #[test]
    fn every_text_has_a_session_name(text in nearly_a_name(), n: u64) {
        let name = SessionName::from_text(&text);
        prop_assert!(is_name(name.as_str()), "{:?}", name);
        prop_assert!(is_name(name.numbered(n).as_str()), "{:?}", name.numbered(n));
    }

    #[test]
    fn a_name_comes_back_from_its_directory(text in "[A-Za-z0-9:_][A-Za-z0-9:_.-]{0,199}", n: u64) {
        let name = SessionName::new(&text).expect("a name");
        for name in [name.numbered(n), name] {
            prop_assert_eq!(SessionName::of_directory(&name.directory()), Some(name));
        }
    }
}
