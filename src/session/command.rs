//! The command line, environment and priorities of a session's first process, laid out before it exists.

use super::user::User;
use crate::kernel::sys::Child;
use crate::plan::identity::Identity as SessionIdentity;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

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
    // Room for the NUL too: an environment is the longest list that a launch copies.
    let envp = envp.into_iter().map(|(key, value)| {
        let mut entry = Vec::with_capacity(key.len() + value.len() + 2);
        entry.extend_from_slice(key.as_bytes());
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        OsString::from_vec(entry)
    });
    Ok(Child {
        candidates: c_strings(candidates)?,
        argv: c_strings(argv.iter().cloned())?,
        envp: c_strings(envp)?,
        identity: user.map(|u| u.identity.clone()),
        ..Child::default()
    })
}

/// Lays out `argv` as this process would execute it: nothing of the environment is taken away or added.
///
/// # Errors
///
/// What cannot be given to a command.
pub(super) fn as_it_is(
    argv: &[OsString],
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Child, String> {
    let env: Vec<(OsString, OsString)> = env.into_iter().collect();
    let path = env
        .iter()
        .find(|(key, _)| key == "PATH")
        .map(|(_, path)| path.clone());
    let program = argv.first().ok_or("no command is given")?;
    let candidates = candidates(program, path.as_deref().unwrap_or(OsStr::new(DEFAULT_PATH)));
    let entry = |(mut key, value): (OsString, OsString)| {
        key.push("=");
        key.push(value);
        key
    };
    Ok(Child {
        candidates: c_strings(candidates)?,
        argv: c_strings(argv.iter().cloned())?,
        envp: c_strings(env.into_iter().map(entry))?,
        ..Child::default()
    })
}

/// A directory for a command to start in.
pub(super) fn directory(path: &Path) -> Result<CString, String> {
    let mut one = c_strings([path.as_os_str().to_owned()])?;
    one.pop().ok_or_else(|| "no directory is given".to_owned())
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
}
