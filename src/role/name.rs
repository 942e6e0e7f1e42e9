//! What roles and sessions may be called: the name becomes part of a directory, of a systemd unit and of messages.

use std::path::Path;

/// The longest name, in bytes. A cgroup's directory name has at most 255, and `cgmgr-`, a random part and `.scope` are
/// added to it.
pub const NAME_MAX: usize = 200;

/// Checks a name; the error says why it cannot be one.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '-');
    if name.is_empty() {
        return Err("a name cannot be empty".into());
    }
    if name.len() > NAME_MAX {
        return Err(format!(
            "a name has at most {NAME_MAX} bytes, this one has {}",
            name.len()
        ));
    }
    if let Some(odd) = name.chars().find(|&c| !allowed(c)) {
        return Err(format!(
            "{odd:?} cannot be in a name, which has only A-Z a-z 0-9 : _ . -"
        ));
    }
    if name.starts_with('-') || name.starts_with('.') {
        return Err(format!("a name cannot begin with {:?}", &name[..1]));
    }
    Ok(())
}

/// The name of a role without one: the file's stem (rust.role.toml gives rust); `stdin` for `-`.
pub(super) fn name_of_file(path: &Path) -> String {
    if path == Path::new("-") {
        return "stdin".into();
    }
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let stem = name.strip_suffix(".toml").unwrap_or(&name);
    stem.strip_suffix(".role").unwrap_or(stem).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["rust", "a", "A:b_c.d-9", &"x".repeat(NAME_MAX)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-x",
            ".x",
            "a/b",
            "a\0b",
            "a\nb",
            "ä",
            "a b",
            "a%b",
            &"x".repeat(300),
        ] {
            let why = check_name(bad).expect_err(bad);
            assert!(!why.contains(char::is_control), "{why}");
        }
    }

    #[test]
    fn from_a_file() {
        for (path, name) in [
            ("/etc/x/rust.role.toml", "rust"),
            ("rust.toml", "rust"),
            ("rust", "rust"),
            ("-", "stdin"),
            ("a.b.role.toml", "a.b"),
        ] {
            assert_eq!(name_of_file(Path::new(path)), name);
        }
    }
}
