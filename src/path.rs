//! Names of groups and sessions that cannot leave the tree they are in.
#![deny(clippy::disallowed_methods)]

use std::fmt;

/// A group's path within the unified hierarchy: absolute, without empty, `.` or `..` parts. `/` is the mount itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupPath(String);

impl GroupPath {
    /// The top of the hierarchy, as this mount shows it.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// `path` with doubled and trailing slashes removed, or `None` where it is not absolute or has a `.`, a `..`, a
    /// NUL or a newline in it.
    pub fn new(path: &str) -> Option<Self> {
        if !path.starts_with('/') || path.contains(['\0', '\n']) {
            return None;
        }
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        if parts.iter().any(|p| *p == "." || *p == "..") {
            return None;
        }
        Some(Self(format!("/{}", parts.join("/"))))
    }

    /// The child `name` of this group. `name` is one path component that cgmgr chose or checked.
    pub fn join(&self, name: &str) -> Self {
        debug_assert!(!name.contains('/') && name != ".." && !name.is_empty());
        if self.is_root() {
            Self(format!("/{name}"))
        } else {
            Self(format!("{}/{name}", self.0))
        }
    }

    /// The group above, or `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let (parent, _) = self.0.rsplit_once('/')?;
        Some(if parent.is_empty() {
            Self::root()
        } else {
            Self(parent.to_owned())
        })
    }

    /// The last component, or `None` for the root.
    pub fn name(&self) -> Option<&str> {
        self.0.rsplit('/').next().filter(|n| !n.is_empty())
    }

    /// Whether this is the top.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The path without its leading slash.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `self` is `other` or lies above it.
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root()
            || self == other
            || other
                .0
                .strip_prefix(&self.0)
                .is_some_and(|rest| rest.starts_with('/'))
    }

    /// The group that holds the limits of the session whose processes are in this one: that of the scope around the leaf
    /// `main`. `None` where they are one and the same.
    pub fn scope(&self) -> Option<Self> {
        let above = self.parent().filter(|_| self.name() == Some(MAIN))?;
        SessionName::of_scope(above.name()?).map(|_| above)
    }

    /// This group and all above it, the nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = GroupPath> {
        std::iter::successors(Some(self.clone()), GroupPath::parent)
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prefix of every session's directory.
pub const SESSION_PREFIX: &str = "cgmgr-";

/// The leaf of a session's scope that holds its processes.
pub const MAIN: &str = "main";

/// The leaf of a session's scope that holds nothing but what keeps the scope open.
pub const PIN: &str = "pin";

/// Longest session name, in bytes. The kernel does not enforce NAME_MAX on groups, so cgmgr does; systemd unit names
/// must fit in 255 with prefix and suffix.
pub const SESSION_NAME_MAX: usize = 200;

/// A session's name: 1 to 200 of `A-Z a-z 0-9 : _ . -`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionName(String);

impl SessionName {
    /// `name`, or what is wrong with it.
    pub fn new(name: &str) -> Result<Self, String> {
        let shown = crate::text::escape(name);
        if name.is_empty() {
            return Err("a session name is empty; give 1 to 200 of A-Z a-z 0-9 : _ . -".into());
        }
        if name.len() > SESSION_NAME_MAX {
            return Err(format!(
                "session name `{}…` is {} bytes long; at most {SESSION_NAME_MAX} are allowed",
                shown.chars().take(24).collect::<String>(),
                name.len()
            ));
        }
        if name == "." || name == ".." || name.starts_with(['.', '-']) {
            return Err(format!(
                "session name `{shown}` begins with `{}`; begin it with a letter or a digit",
                &name[..1]
            ));
        }
        let bad = name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !":_.-".contains(*c));
        match bad {
            Some(c) => Err(format!(
                "session name `{shown}` has {c:?} in it; only A-Z a-z 0-9 : _ . - are allowed"
            )),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// A valid name made from any text: each character that is not allowed becomes `_`.
    pub fn from_text(text: &str) -> Self {
        let clean: String = text
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || ":_.-".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .take(SESSION_NAME_MAX - 24)
            .collect();
        let clean = clean.trim_start_matches(['.', '-']);
        Self(if clean.is_empty() {
            "session".into()
        } else {
            clean.to_owned()
        })
    }

    /// The name of a session's directory, if it is one.
    pub fn of_directory(directory: &str) -> Option<Self> {
        Self::new(directory.strip_prefix(SESSION_PREFIX)?).ok()
    }

    /// The name of the session whose processes are in this group, if there is one: a directory of a session, or the leaf of
    /// a session's scope.
    pub fn of_group(group: &GroupPath) -> Option<Self> {
        match group.scope() {
            Some(scope) => Self::of_scope(scope.name()?),
            None => Self::of_directory(group.name()?),
        }
    }

    /// The name of the session whose scope this unit is: `cgmgr-<name>-<8 hexadecimal digits>.scope`.
    pub fn of_scope(unit: &str) -> Option<Self> {
        let (name, random) = unit
            .strip_prefix(SESSION_PREFIX)?
            .strip_suffix(".scope")?
            .rsplit_once('-')?;
        let is_random = random.len() == 8 && random.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_random.then(|| Self::new(name).ok()).flatten()
    }

    /// The unit of a scope of its own for this session. A unit's name cannot be used again before systemd has forgotten
    /// the unit, so each launch has another one.
    pub fn scope(&self, random: u32) -> String {
        format!("{SESSION_PREFIX}{}-{random:08x}.scope", self.0)
    }

    /// The session's directory: `cgmgr-<name>`. The prefix keeps it from colliding with any control file.
    pub fn directory(&self) -> String {
        format!("{SESSION_PREFIX}{}", self.0)
    }

    /// This name with `-<n>` behind it, cut where that would be too long for a name.
    pub fn numbered(&self, n: u64) -> Self {
        let number = format!("-{n}");
        let kept = self.0.len().min(SESSION_NAME_MAX - number.len());
        Self(format!("{}{number}", &self.0[..kept]))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_path_cannot_leave_the_tree() {
        for bad in ["", "a", "../a", "/..", "/a/../b", "/a/./b", "/a\nb", "/a\0"] {
            assert_eq!(GroupPath::new(bad), None, "{bad:?}");
        }
        let path = GroupPath::new("//a//b/").unwrap();
        assert_eq!(path.as_str(), "/a/b");
        assert_eq!(path.parent().unwrap().as_str(), "/a");
        assert_eq!(path.parent().unwrap().parent().unwrap(), GroupPath::root());
        assert_eq!(GroupPath::root().parent(), None);
        assert!(GroupPath::new("/a").unwrap().contains(&path));
        assert!(!GroupPath::new("/a/bc").unwrap().contains(&path));
        assert_eq!(
            path.ancestors().map(|g| g.to_string()).collect::<Vec<_>>(),
            ["/a/b", "/a", "/"]
        );
    }

    #[test]
    fn a_scopes_leaf_is_the_sessions_group() {
        let name = SessionName::new("a-b").unwrap();
        let unit = name.scope(0xbeef);
        assert_eq!(unit, "cgmgr-a-b-0000beef.scope");
        assert_eq!(SessionName::of_scope(&unit), Some(name.clone()));
        for other in [
            "cgmgr-sessions.scope",
            "cgmgr-a-xyz.scope",
            "cgmgr-a-0000beef.service",
            "a-0000beef.scope",
        ] {
            assert_eq!(SessionName::of_scope(other), None, "{other}");
        }
        let top = GroupPath::root().join("w.slice").join(&unit);
        let main = top.join(MAIN);
        assert_eq!(main.scope(), Some(top.clone()));
        assert_eq!(SessionName::of_group(&main), Some(name.clone()));
        assert_eq!(top.scope(), None);
        assert_eq!(SessionName::of_group(&top.join(PIN)), None);
        let direct = GroupPath::root().join(&name.directory());
        assert_eq!(
            (SessionName::of_group(&direct), direct.scope()),
            (Some(name), None)
        );
    }

    #[test]
    fn session_names() {
        for good in ["a", "rust-3", "A:b_c.d", &"x".repeat(200)] {
            assert!(SessionName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a/b",
            "..",
            ".",
            ".x",
            "-x",
            "a\0",
            "a\nb",
            "ä",
            "a b",
            &"x".repeat(201),
            &"x".repeat(300),
        ] {
            let error = SessionName::new(bad).unwrap_err();
            assert!(!error.contains(['\n', '\0']), "{error}");
        }
        assert_eq!(
            SessionName::from_text("../my prog\n").as_str(),
            "/my prog\n".replace(['/', ' ', '\n'], "_")
        );
        assert_eq!(SessionName::from_text("").as_str(), "session");
        assert_eq!(SessionName::of_directory("cgmgr-a").unwrap().as_str(), "a");
        assert_eq!(SessionName::of_directory("other"), None);
        let longest = SessionName::new(&"x".repeat(200)).unwrap();
        let numbered = longest.numbered(12);
        assert_eq!(numbered.as_str(), "x".repeat(197) + "-12");
        assert_eq!(SessionName::of_directory(&numbered.directory()), Some(numbered));
    }
}
