//! Names of sessions and groups: whatever is made from a text stays in the tree, and says nothing that a terminal acts on.
#![no_main]

use cgmgr::path::{GroupPath, SESSION_NAME_MAX, SessionName};
use cgmgr::text::escape;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for name in [SessionName::new(text).ok(), Some(SessionName::from_text(text))]
        .into_iter()
        .flatten()
    {
        for name in [name.numbered(u64::MAX), name] {
            assert!((1..=SESSION_NAME_MAX).contains(&name.as_str().len()));
            assert!(!name.as_str().contains(['/', '\0', '\n']) && !name.as_str().starts_with('.'));
            assert_eq!(SessionName::of_directory(&name.directory()), Some(name));
        }
    }
    if let Err(why) = SessionName::new(text) {
        assert!(!why.contains(char::is_control), "{why:?}");
    }
    if let Some(name) = SessionName::of_directory(text) {
        assert_eq!(name.directory(), text);
    }
    if let Some(path) = GroupPath::new(text) {
        let parts: Vec<&str> = path
            .relative()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        assert!(parts.iter().all(|part| ![".", ".."].contains(part)));
        assert_eq!(path.ancestors().count(), parts.len() + 1);
        assert!(path.ancestors().all(|above| above.contains(&path)));
        assert_eq!(
            parts.iter().fold(GroupPath::root(), |path, part| path.join(part)),
            path
        );
    }
    let shown = escape(text);
    assert!(!shown.contains(char::is_control), "{shown:?}");
});
