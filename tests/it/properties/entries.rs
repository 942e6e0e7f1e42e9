//! What is kept of a session, and what the environment says for its children: what is written is read again as the same,
//! and no text does harm.

use cgmgr::limits::{CoderEnv, Nice, OomScoreAdj, Priorities};
use cgmgr::plan::identity::Identity;
use cgmgr::session::registry::Entry;
use proptest::prelude::*;

use super::{odd_text, usual};

fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(odd_text(), 0..4)
}

fn identity() -> impl Strategy<Value = Identity> {
    let texts = (proptest::option::of(odd_text()), proptest::option::of(odd_text()));
    let pairs = proptest::collection::vec((odd_text(), odd_text()), 0..4);
    let limits = proptest::collection::btree_map(odd_text(), odd_text(), 0..4);
    let users = (any::<u32>(), any::<Option<u32>>());
    let numbers = (users, any::<i32>(), any::<Option<u64>>(), any::<u64>());
    let priorities = (any::<Option<i32>>(), any::<Option<i32>>());
    (
        texts,
        pairs,
        words(),
        limits,
        words(),
        words(),
        numbers,
        priorities,
    )
        .prop_map(
            |(
                (role, role_file),
                overrides,
                set_live,
                limits,
                unconfined,
                command,
                ((uid, creator), supervisor, supervisor_start, started),
                (nice, oom_score_adj),
            )| {
                Identity {
                    role,
                    role_file,
                    overrides,
                    set_live,
                    limits,
                    unconfined,
                    command,
                    uid,
                    creator,
                    nice,
                    oom_score_adj,
                    supervisor,
                    supervisor_start,
                    started,
                }
            },
        )
}

fn entry() -> impl Strategy<Value = Entry> {
    let texts = (odd_text(), odd_text(), proptest::option::of(odd_text()));
    let process = (
        any::<i32>(),
        any::<Option<i32>>(),
        any::<Option<u64>>(),
        any::<u64>(),
    );
    let end = (any::<bool>(), any::<bool>(), any::<Option<u8>>());
    let users = (any::<Option<u32>>(), any::<Option<u32>>());
    let who = (users, proptest::option::of(odd_text()), words());
    (texts, process, end, words(), words(), words(), who).prop_map(
        |(
            (name, backend, role),
            (supervisor, pid, pid_start, started),
            (detached, embedded, status),
            command,
            story,
            unconfined,
            ((uid, creator), role_file, flags),
        )| {
            Entry {
                name,
                backend,
                role,
                command,
                supervisor,
                pid,
                pid_start,
                started,
                embedded,
                detached,
                status,
                story,
                unconfined,
                uid,
                creator,
                role_file,
                flags,
            }
        },
    )
}

proptest! {
    #![proptest_config(usual())]

    #[test]
    fn a_mark_is_read_as_written(identity in identity()) {
        prop_assert_eq!(Identity::from_text(&identity.to_text()), Some(identity));
    }

    #[test]
    fn an_entry_is_read_as_written(entry in entry()) {
        prop_assert_eq!(Entry::from_text(&entry.to_text()), Some(entry));
    }

    #[test]
    fn a_cut_mark_is_none_or_less(identity in identity(), at in any::<proptest::sample::Index>()) {
        // A user who owns the group may write there what he likes.
        let text = identity.to_text();
        let cut: String = text.chars().take(at.index(text.chars().count())).collect();
        prop_assert_eq!(Identity::from_text(&cut), None);
        prop_assert_eq!(Entry::from_text(&cut), None);
    }

    #[test]
    fn a_command_line_is_cut_to_fit(command in proptest::collection::vec(odd_text(), 0..40)) {
        let kept = Identity::cut_command(&command);
        prop_assert!(kept.iter().map(String::len).sum::<usize>() <= 1024 + '…'.len_utf8());
        let same = kept.iter().zip(&command).filter(|(kept, word)| kept == word).count();
        prop_assert!(same == command.len() || kept.last().is_some_and(|word| word == "…"));
        prop_assert!(same + 1 >= kept.len());
    }

    #[test]
    fn priorities_are_in_range_whatever_the_environment_says(
        score in prop_oneof![odd_text(), "[-+]?[0-9]{1,5}"], nice in prop_oneof![odd_text(), "[-+]?[0-9]{1,3}"],
        own in (-1000i32..=1000, -20i32..=19), enabled: bool,
        declared in (proptest::option::of(-1000i128..=1000), proptest::option::of(-39i128..=39))) {
        let coder = CoderEnv {
            prio_mgmt: enabled.then(String::new),
            oom_score: Some(score.clone()),
            nice_score: Some(nice.clone()),
        };
        let declared_oom = declared.0.map(|n| OomScoreAdj::new(n).expect("in range"));
        let declared_nice = declared.1.map(|n| Nice::relative(n).expect("in range"));
        let (found, warnings) = Priorities::derive(own.0, own.1, declared_oom, declared_nice, &coder);
        prop_assert!((-1000..=1000).contains(&found.oom_score_adj) && (-20..=19).contains(&found.nice));
        let valid = |text: &str, least: i32, most: i32| {
            text.parse::<i32>().ok().filter(|n| enabled && (least..=most).contains(n))
        };
        match (declared_oom, valid(&score, -1000, 1000)) {
            (Some(declared), _) => prop_assert_eq!(found.oom_score_adj, declared.get()),
            (None, Some(variable)) => prop_assert_eq!(found.oom_score_adj, variable),
            (None, None) => prop_assert!(!found.oom_given),
        }
        match (declared_nice, valid(&nice, -20, 19)) {
            (Some(declared), _) => prop_assert_eq!(found.nice, declared.from_own(own.1)),
            (None, Some(variable)) => prop_assert_eq!(found.nice, variable),
            (None, None) => prop_assert!(!found.nice_given),
        }
        prop_assert!(enabled || warnings.is_empty());
        prop_assert!(!warnings.concat().contains(char::is_control), "{:?}", warnings);
    }
}
