//! The command line, environment and priorities of a session's first process, laid out before it exists.

use crate::kernel::sys::{Child, Identity};
use crate::plan::identity::Identity as SessionIdentity;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Variables of Coder's agent that are for cgmgr itself and never reach a session: exactly these three.
pub const STRIPPED: [&str; 3] = [
    "CODER_PROC_PRIO_MGMT",
    "CODER_PROC_OOM_SCORE",
    "CODER_PROC_NICE_SCORE",
];

/// Tells a process which session it is in.
pub const SESSION_VARIABLE: &str = "CGMGR_SESSION";

/// Used where the environment has no PATH, as execvp(3) does.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// Lays out `argv` with the caller's environment `env`. `Err` says what cannot be given to a command.
pub fn lay_out(
    argv: &[OsString],
    env: impl IntoIterator<Item = (OsString, OsString)>,
    session: &str,
    user: Option<&User>,
) -> Result<Child, String> {
    let mut envp: Vec<(OsString, OsString)> = env
        .into_iter()
        .filter(|(key, _)| !STRIPPED.iter().any(|s| key == s) && key != SESSION_VARIABLE)
        .collect();
    envp.push((SESSION_VARIABLE.into(), session.into()));
    if let Some(user) = user {
        for (key, value) in [
            ("HOME", &user.home),
            ("USER", &user.name),
            ("LOGNAME", &user.name),
            ("SHELL", &user.shell),
        ] {
            envp.retain(|(k, _)| k != key);
            envp.push((key.into(), value.clone()));
        }
    }
    let path = envp.iter().find(|(k, _)| k == "PATH").map(|(_, v)| v.clone());
    let program = argv.first().ok_or("no command is given")?;
    let candidates = candidates(program, path.as_deref().unwrap_or(OsStr::new(DEFAULT_PATH)));
    let envp = envp.into_iter().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    Ok(Child {
        candidates: c_strings(candidates)?,
        argv: c_strings(argv.iter().cloned())?,
        envp: c_strings(envp)?,
        identity: user.map(|u| u.identity.clone()),
        ..Child::default()
    })
}

fn c_strings(list: impl IntoIterator<Item = OsString>) -> Result<Vec<CString>, String> {
    let one = |s: OsString| {
        CString::new(s.into_vec()).map_err(|e| {
            let shown = String::from_utf8_lossy(&e.into_vec()).into_owned();
            format!(
                "`{}` has a NUL byte in it, which no command can be given",
                crate::text::escape(&shown)
            )
        })
    };
    list.into_iter().map(one).collect()
}

/// The files to try for `program`: itself where it has a slash, else one per directory of PATH.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') || program.is_empty() {
        return vec![program.to_owned()];
    }
    path.as_bytes()
        .split(|b| *b == b':')
        .map(|directory| {
            // An empty entry is the current directory (execvp(3)).
            let mut file = OsString::from_vec(if directory.is_empty() {
                b".".to_vec()
            } else {
                directory.to_vec()
            });
            file.push("/");
            file.push(program);
            file
        })
        .collect()
}

/// The command line for people and records: escaped, and cut to about 1 KiB.
pub fn shown(argv: &[OsString]) -> Vec<String> {
    let words: Vec<String> = argv
        .iter()
        .map(|a| crate::text::escape(&a.to_string_lossy()))
        .collect();
    SessionIdentity::cut_command(&words)
}

/// A user that a session runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Ids, supplementary groups included.
    pub identity: Identity,
    /// Login name.
    pub name: OsString,
    /// Home directory.
    pub home: OsString,
    /// Login shell.
    pub shell: OsString,
}

impl User {
    /// Looks a user up by name or by number.
    pub fn find(name: &str) -> Result<Self, String> {
        let by_name = nix::unistd::User::from_name(name);
        let found = match (by_name, name.parse::<u32>()) {
            (Ok(Some(user)), _) => Some(user),
            (Ok(None), Ok(uid)) => nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))
                .ok()
                .flatten(),
            (Err(e), _) => {
                return Err(format!(
                    "cannot look up user `{}`: {e}",
                    crate::text::escape(name)
                ));
            }
            _ => None,
        };
        let user = found.ok_or_else(|| format!("there is no user `{}`", crate::text::escape(name)))?;
        let c_name = CString::new(user.name.as_bytes()).map_err(|e| e.to_string())?;
        let groups = nix::unistd::getgrouplist(&c_name, user.gid)
            .map_err(|e| format!("cannot look up the groups of user `{}`: {e}", user.name))?;
        Ok(Self {
            identity: Identity {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                groups: groups.iter().map(|g| g.as_raw()).collect(),
            },
            name: user.name.into(),
            home: user.dir.into(),
            shell: user.shell.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn exactly_coders_three_names_are_stripped() {
        let pairs = [
            ("CODER_PROC_PRIO_MGMT", ""),
            ("CODER_PROC_OOM_SCORE", "1"),
            ("CODER_PROC_OOM_SCORE_X", "2"),
            ("CODER_PROC_FOO", "3"),
            ("CGMGR_SESSION", "outer"),
        ];
        let child = lay_out(&["true".into()], env(&pairs), "s-1", None).unwrap();
        let kept: Vec<&str> = child.envp.iter().map(|e| e.to_str().unwrap()).collect();
        assert_eq!(
            kept,
            [
                "CODER_PROC_OOM_SCORE_X=2",
                "CODER_PROC_FOO=3",
                "CGMGR_SESSION=s-1"
            ]
        );
    }

    #[test]
    fn candidates_are_those_of_execvp() {
        let of = |program: &str, path: &str| {
            let child = lay_out(&[program.into()], env(&[("PATH", path)]), "s", None).unwrap();
            child
                .candidates
                .iter()
                .map(|c| c.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("make", "/a::/b"), ["/a/make", "./make", "/b/make"]);
        assert_eq!(of("./make", "/a"), ["./make"]);
        assert!(
            lay_out(&["a\0b".into()], env(&[]), "s", None)
                .unwrap_err()
                .contains("NUL")
        );
        assert!(lay_out(&[], env(&[]), "s", None).is_err());
    }

    #[test]
    fn root_is_found_by_name_and_number() {
        assert_eq!(User::find("root").unwrap().identity.uid, 0);
        assert_eq!(User::find("0").unwrap().name, "root");
        assert!(User::find("no such user").unwrap_err().contains("no such user"));
    }
}
