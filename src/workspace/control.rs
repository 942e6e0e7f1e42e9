//! Freezes, thaws and ends sessions by name.

use super::error::Error;
use super::look::{Found, Look};
use crate::backend::cgroupfs::Progress;
use crate::kernel::{Group, process, survey};
use crate::path::{GroupPath, SessionName};
use crate::session::end::{self, End, How};
use crate::session::freeze::{self, Frozen};
use crate::session::registry::Registry;
use crate::text::duration_us;
use std::ffi::OsStr;
use std::time::Duration;

/// Freezes the session `typed` (`frozen`), or thaws it, and waits for that. Whether it is so then is in the result.
///
/// # Errors
///
/// There is no such session, it has no group or is not cgmgr's, or the caller is in it.
pub fn freeze(look: &Look, typed: &OsStr, frozen: bool, timeout: Duration) -> Result<Frozen, Error> {
    let word = if frozen { "frozen" } else { "thawed" };
    let (name, found) = look.find(typed)?;
    match (found, &look.tree) {
        (Found::Group { group, registry, .. }, _) if is_foreign(&group, &name, registry.as_ref())? => {
            Err(foreign(&group, "what is in that group is its maker's"))
        }
        (Found::Group { path, .. }, _) if frozen && is_inside(&path) => Err(Error::failed(
            format!(
                "this command runs inside session {name}: it would freeze itself, and who is to thaw it?"
            ),
            "say it from outside of the session",
        )),
        (Found::Group { group, path, .. }, Some(tree)) => {
            Ok(freeze::set(tree, (&group, &path), frozen, timeout)?)
        }
        (Found::Process { .. }, _) => Err(Error::failed(
            format!(
                "session {name} cannot be {word}: it has no group (process backend), so its tree cannot be held"
            ),
            "`cgmgr doctor` says what is missing for the cgroupfs backend",
        )),
        (Found::Recorded { .. } | Found::Group { .. }, _) => Err(Error::failed(
            format!("session {name} has ended, or is about to begin or to end"),
            "`cgmgr status` lists the sessions",
        )),
    }
}

fn is_inside(path: &GroupPath) -> bool {
    let own = process::own_group().as_deref().and_then(GroupPath::new);
    own.is_some_and(|own| path.contains(&own))
}

/// Why a session is not as it was to be.
pub fn in_the_way(name: &str, result: &Frozen, frozen: bool, timeout: Duration) -> Option<Error> {
    if result.done {
        return None;
    }
    if let Some(above) = &result.above {
        return Some(Error::failed(
            format!("{name} is still frozen: {above}, a group above it, is"),
            format!("whoever froze {above} thaws it: its cgroup.freeze holds 1"),
        ));
    }
    let after = duration_us(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX));
    let who: Vec<String> = result
        .left
        .iter()
        .map(|(pid, comm, state)| format!("pid {pid} ({comm}, state {state})"))
        .collect();
    let who = match who.is_empty() {
        true => String::new(),
        false => format!(": {}", who.join(", ")),
    };
    Some(if frozen {
        Error::failed(
            format!("{name} is not wholly frozen after {after}{who}"),
            format!(
                "what is in an uninterruptible sleep (state D) freezes when it leaves it; `cgmgr thaw {name}` takes it back"
            ),
        )
    } else {
        Error::failed(
            format!("{name} is not thawed after {after}"),
            "did somebody freeze it again? `cgmgr status` shows it",
        )
    })
}

/// Ends the session `typed`, and waits `patience` for whoever is in charge of it to put it away.
///
/// # Errors
///
/// There is no such session, it is not cgmgr's, or it does not end.
pub fn end(
    look: &Look,
    typed: &OsStr,
    how: How,
    patience: Duration,
    progress: Progress<'_>,
) -> Result<End, Error> {
    let (name, found) = look.find(typed)?;
    match (found, &look.tree) {
        (Found::Group { group, registry, .. }, _) if is_foreign(&group, &name, registry.as_ref())? => {
            Err(foreign(&group, "what is in that group is its maker's to end"))
        }
        (
            Found::Group {
                group,
                path,
                registry,
            },
            Some(tree),
        ) => Ok(end::group(
            tree,
            (&group, &path),
            &name,
            registry.as_ref(),
            how,
            patience,
            progress,
        )?),
        (Found::Recorded { entry, .. }, _) if entry.status.is_some() => Ok(End {
            note: Some("it had ended already".into()),
            ..End::default()
        }),
        (Found::Process { entry, registry } | Found::Recorded { entry, registry }, _) => {
            end::without_group(&name, &entry, &registry, how, patience, progress).map_err(|message| {
                Error::failed(
                    format!("session {name}: {message}"),
                    "run it as the user whose session it is, or as root",
                )
            })
        }
        (Found::Group { .. }, None) => Err(Error::failed(
            format!("session {name} is gone"),
            "`cgmgr status` lists the sessions",
        )),
    }
}

/// Whether a group that is named like a session's is somebody else's.
pub fn is_foreign(group: &Group, name: &SessionName, registry: Option<&Registry>) -> Result<bool, Error> {
    Ok(survey::is_foreign(group)? && !registry.is_some_and(|r| r.is_attended(name)))
}

/// The error for such a group; `whose` says whose business it is.
pub fn foreign(group: &Group, whose: &str) -> Error {
    Error::failed(
        format!("{} was not made by cgmgr", group.path()),
        format!("`cgmgr status` lists the sessions; {whose}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_named() {
        let mut result = Frozen {
            done: true,
            processes: 3,
            ..Frozen::default()
        };
        assert!(in_the_way("a", &result, true, Duration::ZERO).is_none());
        result.done = false;
        result.left = vec![(7, "dd".into(), 'D')];
        let error = in_the_way("a", &result, true, Duration::from_secs(10)).unwrap();
        assert_eq!(
            error.message,
            "a is not wholly frozen after 10.0 s: pid 7 (dd, state D)"
        );
        result.above = GroupPath::new("/w");
        let error = in_the_way("a", &result, false, Duration::ZERO).unwrap();
        assert!(error.message.contains("/w, a group above"), "{error:?}");
    }
}
