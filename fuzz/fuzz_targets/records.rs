//! What is kept of a session: its mark on a group, which a user may have written where the group is his, its entry in the
//! registry, and the records of what happened to it. What is read is written as something that is read as the same.
#![no_main]

use cgmgr::plan::identity::Identity;
use cgmgr::record::case::Cases;
use cgmgr::record::{Record, line};
use cgmgr::session::registry::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(identity) = Identity::from_text(text) {
        assert_eq!(Identity::from_text(&identity.to_text()), Some(identity));
    }
    if let Some(entry) = Entry::from_text(text) {
        assert_eq!(Entry::from_text(&entry.to_text()), Some(entry));
    }
    let mut cases = Cases::default();
    for record in text.lines().filter_map(Record::from_text) {
        assert!(Record::from_text(&record.to_text()).is_some());
        shown(&line::line(&record));
        shown(&line::sentence(&record));
        cases.add(&record);
    }
    for case in cases.finish() {
        shown(&case.line());
        case.story().iter().for_each(|said| shown(said));
    }
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let kept = Identity::cut_command(&words);
    assert!(kept.iter().map(String::len).sum::<usize>() <= 1024 + '…'.len_utf8());
    let mark = Identity {
        role: Some(text.to_owned()),
        command: words,
        ..Identity::default()
    };
    assert_eq!(Identity::from_text(&mark.to_text()), Some(mark));
});

/// What people see moves no terminal.
fn shown(said: &str) {
    assert!(!said.contains(char::is_control), "{said:?}");
}
