//! Finds a name for a session that nobody else has, with the right to be in charge of it.

use super::failure::LaunchError;
use super::launch::Request;
use super::place::Place;
use super::records;
use super::registry::Lock;
use crate::host::Base;
use crate::kernel::{Group, KernelError, Tree, survey};
use crate::order;
use crate::path::SessionName;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long somebody may hold a session's lock who is not in charge of it. Fifty launches at once each look at every session:
/// on a busy machine that has taken more than a second.
const LOOKED_AT: Duration = Duration::from_secs(10);

/// Where the groups of other sessions are.
pub(super) enum Beside<'a> {
    /// There are none: sessions have no groups.
    Nothing,
    /// Directories below this group.
    Below(&'a Group),
    /// Wherever this base has them.
    On(&'a Tree, &'a Base),
}

/// A group that was opened already, or for this.
enum Held<'a> {
    Lent(&'a Group),
    Own(Group),
}

impl AsRef<Group> for Held<'_> {
    fn as_ref(&self) -> &Group {
        match self {
            Self::Lent(group) => group,
            Self::Own(group) => group,
        }
    }
}

impl Beside<'_> {
    /// The names in use, where that takes a listing.
    fn names(&self) -> Result<BTreeSet<SessionName>, KernelError> {
        Ok(match self {
            Self::On(tree, base) => {
                let paths = survey::session_paths(tree, base)?;
                order::set(paths.into_iter().map(|(name, _)| name))
            }
            Self::Nothing | Self::Below(_) => BTreeSet::new(),
        })
    }

    fn has(&self, name: &SessionName, names: &BTreeSet<SessionName>) -> bool {
        match self {
            Self::Below(parent) => parent.has(&name.directory()),
            Self::Nothing | Self::On(..) => names.contains(name),
        }
    }

    /// The group of that session, and the one that it is removed from.
    fn find(&self, name: &SessionName) -> Result<Option<(Held<'_>, Group)>, KernelError> {
        match self {
            Self::Nothing => Ok(None),
            Self::Below(parent) => Ok(match parent.child(&name.directory()) {
                Ok(group) => Some((Held::Lent(parent), group)),
                Err(_) => None,
            }),
            Self::On(tree, base) => {
                let Some((path, group)) = survey::find_session(tree, base, name)? else {
                    return Ok(None);
                };
                let parent = path
                    .parent()
                    .map(|above| tree.find(&above))
                    .transpose()?
                    .flatten();
                Ok(parent.map(|parent| (Held::Own(parent), group)))
            }
        }
    }
}

/// Takes the name of the request, or makes one, and with it the right to be in charge.
///
/// # Errors
///
/// The name is in use, or the runtime directory cannot be used.
pub(super) fn reserve(
    request: &Request<'_>,
    place: &Place,
    beside: &Beside<'_>,
) -> Result<(SessionName, Lock), LaunchError> {
    let registry = |error: std::io::Error| {
        LaunchError::new(
            format!("cannot reserve a session name: {error}"),
            "make the runtime directory writable, or name another with CGMGR_RUNTIME_DIR",
        )
    };
    let Some(name) = &request.name else {
        let names = beside.names()?;
        let kept = place.store.as_ref().map(|store| store.kept());
        let taken = |name: &SessionName| beside.has(name, &names);
        let is_kept = |name: &SessionName| kept.as_ref().is_some_and(|kept| kept.has(name));
        return place
            .registry
            .lock_numbered(&request.stem, &taken, &is_kept)
            .map_err(registry);
    };
    if let Some(store) = &place.store
        && store.kept().has(name)
    {
        return Err(LaunchError::new(
            format!("session {name} was OOM-killed, and what is known of it is kept"),
            format!(
                "`cgmgr oom {name}` tells what happened, `cgmgr forget {name}` gives the name free; with \
                 oom.preserve_state = false in the role nothing is kept"
            ),
        ));
    }
    let in_use =
        |what: String| LaunchError::new(what, "choose another name; `cgmgr status` lists the sessions");
    // Whoever sweeps, or looks who is in charge, holds the lock for a moment, which is long on a busy machine. Who has
    // processes in the session is in charge of it.
    let lives = || match beside.find(name) {
        Ok(Some((_, group))) => group.populated().unwrap_or(true),
        _ => matches!(beside, Beside::Nothing) && place.registry.read(name).is_some(),
    };
    let begun = Instant::now();
    let lock = loop {
        match place.registry.lock(name).map_err(registry)? {
            Some(lock) => break lock,
            None if lives() || begun.elapsed() > LOOKED_AT => {
                return Err(in_use(format!("session name {name} is in use")));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    // A group of that name without anybody in charge: its cgmgr was killed. Live processes keep it; debris goes.
    if let Some((parent, group)) = beside.find(name)? {
        if survey::is_foreign(&group)? {
            return Err(LaunchError::new(
                format!("{} is in use and was not made by cgmgr", group.path()),
                "choose another name, or remove that group",
            ));
        }
        if group.populated()? {
            return Err(in_use(format!(
                "session name {name} is in use by processes whose cgmgr is gone"
            )));
        }
        records::bury(place.store.as_ref(), name, &group);
        let directory = group.path().rsplit('/').next().unwrap_or_default();
        parent.as_ref().remove_session(directory)?;
    }
    Ok((name.clone(), lock))
}
