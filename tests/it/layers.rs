//! The map in `src/lib.rs` holds: who may use whom, who may print, and where `unsafe` is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module, and which others it may use. The order is the way up: nothing uses what comes after it.
const LAYERS: [(&str, &[&str]); 22] = [
    ("text", &[]),
    ("order", &[]),
    ("path", &["text"]),
    ("host", &["path"]),
    ("limits", &["host"]),
    ("interop", &["host", "limits"]),
    ("role", &["text", "order", "host", "limits"]),
    ("files", &["host", "role"]),
    ("plan", &["text", "order", "path", "host", "limits"]),
    ("translate", &["limits", "plan"]),
    ("import", &["text", "host", "limits", "role", "translate"]),
    ("kernel", &["text", "order", "path", "host", "limits", "plan"]),
    (
        "systemd",
        &["text", "order", "path", "host", "limits", "plan", "kernel"],
    ),
    ("record", &["text", "order", "host", "limits", "kernel"]),
    ("store", &["text", "order", "path", "record"]),
    ("notify", &["text", "kernel", "systemd", "record"]),
    (
        "backend",
        &[
            "text", "order", "path", "host", "limits", "plan", "kernel", "systemd",
        ],
    ),
    (
        "session",
        &[
            "text", "order", "path", "host", "limits", "plan", "kernel", "systemd", "record", "store",
            "notify", "backend",
        ],
    ),
    (
        "daemon",
        &[
            "text", "path", "host", "limits", "role", "plan", "kernel", "systemd", "record", "store",
            "notify", "session",
        ],
    ),
    ("doctor", &["text", "host", "limits", "plan", "session"]),
    (
        "workspace",
        &[
            "text", "order", "path", "host", "limits", "role", "files", "plan", "kernel", "systemd",
            "record", "store", "notify", "backend", "session",
        ],
    ),
    (
        "cli",
        &[
            "text",
            "order",
            "path",
            "host",
            "limits",
            "role",
            "files",
            "plan",
            "translate",
            "import",
            "systemd",
            "kernel",
            "record",
            "store",
            "notify",
            "backend",
            "session",
            "daemon",
            "doctor",
            "workspace",
        ],
    ),
];

/// Every source file with its top-level module and its code, without comments and unit tests.
fn sources() -> Vec<(PathBuf, String, String)> {
    let mut folders = vec![PathBuf::from("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src is there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let text = text
                    .split("#[cfg(test)]\nmod tests")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let code = text
                    .lines()
                    .map(|l| l.split("//").next().unwrap_or_default())
                    .collect::<Vec<_>>();
                let first = path.strip_prefix("src").expect("below src").components().next();
                let module = Path::new(first.expect("a name").as_os_str()).with_extension("");
                found.push((
                    path.clone(),
                    module.to_string_lossy().into_owned(),
                    code.join("\n"),
                ));
            }
        }
    }
    assert!(found.len() > 50, "only {} source files found", found.len());
    found
}

#[test]
fn modules_use_only_what_is_below_them() {
    let known: BTreeSet<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    for (path, module, code) in sources() {
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{}: module {module} has no place in the map", path.display()));
        for used in code.split("crate::").skip(1) {
            let used: String = used
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            let fine = used == module || allowed.contains(&used.as_str()) || !known.contains(used.as_str());
            assert!(fine, "{}: {module} may not use {used}", path.display());
        }
    }
}

#[test]
fn only_the_command_line_prints_and_only_main_exits() {
    for (path, module, code) in sources() {
        let prints = ["println!", "print!(", "eprint!(", "dbg!("]
            .iter()
            .any(|p| code.contains(p));
        assert!(
            !prints,
            "{}: prints panic on a closed pipe; write to a stream",
            path.display()
        );
        let speaks = code.contains("io::stdout()") || code.contains("io::stderr()");
        assert!(!speaks || module == "cli", "{}: only cli/ prints", path.display());
        assert!(
            !code.contains("process::exit") || path == Path::new("src/main.rs"),
            "{}: only main exits",
            path.display()
        );
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    for (path, _, code) in sources() {
        let has =
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("allow(unsafe_code)");
        assert_eq!(has, path == Path::new("src/kernel/sys.rs"), "{}", path.display());
    }
}

/// The host's policy names kinds of records, which are above it.
#[test]
fn a_policy_can_name_every_kind_of_record() {
    let kinds = cgmgr::notify::fields::KINDS.map(|kind| kind.event);
    assert_eq!(kinds, cgmgr::role::EVENTS);
    for kind in kinds {
        // Only what is known as an event fails for lack of its fields.
        let line = format!("{{\"time_usec\":1,\"event\":\"{kind}\"}}");
        let unknown = serde_json::from_str::<cgmgr::record::Record>(&line)
            .err()
            .is_some_and(|error| error.to_string().contains("unknown variant"));
        assert!(!unknown, "{kind}");
    }
}
