//! Reads what is there now: the hierarchy, its sessions, their values. Never writes.

use super::error::KernelError;
use super::group::{Group, Tree};
use super::process;
use crate::host::{Base, SUPERVISOR};
use crate::limits::KNOBS;
use crate::order;
use crate::path::{GroupPath, MAIN, SessionName};
use crate::plan::apply::{drop_in_path, unread_path};
use crate::plan::identity::Identity;
use crate::plan::state::{GroupState, SessionState, Survey};

/// Attribute (behind `user.cgmgr.`) of every group that cgmgr made which is not a session's.
pub const MADE: &str = "made";
/// Attribute (behind `user.cgmgr.`) that remembers which controllers cgmgr enabled in a group.
pub const ENABLED: &str = "enabled";

/// The hierarchy below `base` as it is. `attended` says whether a cgmgr process is in charge of a session.
pub fn survey(
    tree: &Tree,
    base: &Base,
    attended: &dyn Fn(&SessionName) -> bool,
) -> Result<Survey, KernelError> {
    let mut survey = Survey::default();
    let supervisor = base.group.join(SUPERVISOR);
    for path in [
        &base.group,
        &base.agent,
        &base.workloads,
        &base.sessions,
        &supervisor,
    ] {
        if let Some(group) = tree.find(path)? {
            survey.groups.insert(path.clone(), state(&group)?);
        }
    }
    survey.sessions = sessions(tree, base, attended)?;
    // What is in files of the machine's systemd says nothing of the user's.
    if base.slices_are_systemds() && !base.is_users() {
        for slice in [&base.agent, &base.workloads] {
            let path = drop_in_path(slice);
            if let Ok(text) = std::fs::read_to_string(&path) {
                survey.drop_ins.insert(path.clone(), text);
            }
            if std::path::Path::new(&unread_path(&path)).exists() {
                survey.unread.insert(path);
            }
        }
    }
    Ok(survey)
}

/// One group's state. A group that vanishes meanwhile reads as empty.
pub fn state(group: &Group) -> Result<GroupState, KernelError> {
    let words = |text: Option<String>| -> Vec<String> {
        text.unwrap_or_default()
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let procs = group
        .procs()?
        .into_iter()
        .map(|pid| (pid, process::comm(pid).unwrap_or_default()))
        .collect();
    let mut files = std::collections::BTreeMap::new();
    for file in KNOBS.iter().filter_map(|k| k.file).chain(["memory.current"]) {
        if !files.contains_key(file)
            && let Some(text) = group.get(file)?
        {
            files.insert(file, text);
        }
    }
    Ok(GroupState {
        kind: group.get("cgroup.type")?.unwrap_or_default(),
        controllers: words(group.get("cgroup.controllers")?),
        enabled: words(group.get("cgroup.subtree_control")?),
        procs,
        // The true root has no cgroup.events; it always holds something.
        populated: group.populated()?,
        children: group.children()?,
        files,
        made: group.try_marked(MADE)?,
        enabled_by_us: group.try_marked(ENABLED)?,
    })
}

/// The identity that a session's group carries.
pub fn identity(group: &Group) -> Option<Identity> {
    Identity::from_text(&group.marked(Identity::KEY)?)
}

/// Whether a group that is named like a session's is somebody else's. cgmgr marks a group before it puts anything into
/// it: one without the mark is debris of a killed cgmgr only as long as nothing is in it.
pub fn is_foreign(group: &Group) -> Result<bool, KernelError> {
    Ok(identity(group).is_none() && (group.populated()? || !group.children()?.is_empty()))
}

/// Which limit on the number of groups, or on their depth, keeps one more from being made in `parent`: the file, and
/// what it holds. The kernel asks every group above (kernel/cgroup/cgroup.c, cgroup_check_hierarchy_limits).
pub fn full(tree: &Tree, parent: &GroupPath) -> Option<String> {
    for (depth, path) in (1u64..).zip(parent.ancestors()) {
        let group = tree.group(&path).ok()?;
        let descendants = group
            .counters("cgroup.stat")
            .ok()?
            .get("nr_descendants")
            .unwrap_or(0);
        // The file, and the least that it must hold for one more group to fit in.
        for (file, needed) in [
            ("cgroup.max.descendants", descendants + 1),
            ("cgroup.max.depth", depth),
        ] {
            let limit = group
                .get(file)
                .ok()
                .flatten()
                .and_then(|t| t.trim().parse::<u64>().ok());
            if let Some(limit) = limit.filter(|limit| *limit < needed) {
                return Some(format!("{} is {limit}", group.file(file)));
            }
        }
    }
    None
}

/// Whether the cgmgr process that made a session lives. It may keep its locks in another user's runtime directory.
pub fn maker_lives(identity: &Identity) -> bool {
    let stat = process::stat(identity.supervisor);
    stat.is_some_and(|s| s.state != 'Z' && Some(s.start) == identity.supervisor_start)
}

/// Where the groups of sessions are, by name and path, unordered. On a systemd machine that is in scopes of their own and
/// below the delegated unit, whichever of the two is used for new ones.
///
/// # Errors
///
/// A directory cannot be listed.
pub fn session_paths(tree: &Tree, base: &Base) -> Result<Vec<(SessionName, GroupPath)>, KernelError> {
    let below = |path: &GroupPath| match tree.find(path)? {
        Some(group) => group.children(),
        None => Ok(Vec::new()),
    };
    let direct = |path: &GroupPath| -> Result<Vec<_>, KernelError> {
        let named = |directory: String| Some((SessionName::of_directory(&directory)?, path.join(&directory)));
        Ok(below(path)?.into_iter().filter_map(named).collect())
    };
    if !base.slices_are_systemds() {
        return direct(&base.sessions);
    }
    let scope = |unit: String| {
        let name = SessionName::of_scope(&unit)?;
        Some((name, base.workloads.join(&unit).join(MAIN)))
    };
    let mut found: Vec<_> = below(&base.workloads)?.into_iter().filter_map(scope).collect();
    found.extend(direct(&base.delegated_unit())?);
    Ok(found)
}

/// The groups of sessions, as [`session_paths`] finds them. One that vanishes meanwhile is left out. Each is opened when
/// its turn comes: all at once they could be more than a process may have open.
///
/// # Errors
///
/// A directory cannot be listed.
pub fn session_groups<'a>(
    tree: &'a Tree,
    base: &Base,
) -> Result<impl Iterator<Item = Result<(SessionName, GroupPath, Group), KernelError>> + use<'a>, KernelError>
{
    let open = |(name, path): (SessionName, GroupPath)| match tree.find(&path) {
        Ok(group) => group.map(|group| Ok((name, path, group))),
        Err(e) => Some(Err(e)),
    };
    Ok(session_paths(tree, base)?.into_iter().filter_map(open))
}

/// The group of the session of that name, and its path.
///
/// # Errors
///
/// A directory cannot be listed or opened.
pub fn find_session(
    tree: &Tree,
    base: &Base,
    name: &SessionName,
) -> Result<Option<(GroupPath, Group)>, KernelError> {
    if base.scope_manager().is_none() {
        let path = base.sessions.join(&name.directory());
        if let Some(group) = tree.find(&path)? {
            return Ok(Some((path, group)));
        }
    }
    if !base.slices_are_systemds() {
        return Ok(None);
    }
    for (found, path) in session_paths(tree, base)? {
        if found == *name
            && let Some(group) = tree.find(&path)?
        {
            return Ok(Some((path, group)));
        }
    }
    Ok(None)
}

fn sessions(
    tree: &Tree,
    base: &Base,
    attended: &dyn Fn(&SessionName) -> bool,
) -> Result<Vec<SessionState>, KernelError> {
    let mut found = Vec::new();
    for entry in session_groups(tree, base)? {
        let (name, path, group) = entry?;
        let number = |file: &str| group.get(file).ok().flatten().and_then(|t| t.trim().parse().ok());
        let identity = identity(&group);
        found.push(SessionState {
            attended: attended(&name) || identity.as_ref().is_some_and(maker_lives),
            identity,
            state: state(&group)?,
            memory_current: number("memory.current"),
            group: path,
            name,
        });
    }
    order::sort_by(&mut found, |a, b| a.name.cmp(&b.name));
    Ok(found)
}
