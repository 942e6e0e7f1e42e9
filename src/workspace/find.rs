//! Which backend a host gets, and which group is meant by a path.

use super::error::Error;
use crate::host::Host;
use crate::kernel::probe;
use crate::path::GroupPath;
use crate::plan::receipt::Backend;

/// The backend for a host: the one that was `chosen`, else groups where there is a place for them. `named`: the group was
/// named, so that nothing else will do.
///
/// # Errors
///
/// There is no place for groups and nothing else will do, or it cannot be told whether there is one.
pub fn backend(host: &Host, chosen: Option<Backend>, named: bool) -> Result<Backend, Error> {
    match (chosen, &host.base) {
        (Some(Backend::Process), _) => Ok(Backend::Process),
        // Without limits goes what this host cannot limit, and nothing else.
        (None, Err(none)) if none.unclear => Err(Error::failed(
            format!("cannot tell what this host can enforce: {}", none.why),
            &none.fix,
        )),
        (None, Err(_)) if !named => Ok(Backend::Process),
        (None | Some(Backend::Scope), Ok(base)) if base.scope_manager().is_some() => Ok(Backend::Scope),
        (Some(Backend::Cgroupfs), Ok(base)) if base.scope_manager().is_some() => Err(Error::failed(
            "the cgroupfs backend cannot be used: systemd owns the cgroup tree and has delegated no part of it",
            "cgmgr install, or leave --backend out: each session is a scope of systemd then",
        )),
        (None | Some(Backend::Cgroupfs), Ok(_)) => Ok(Backend::Cgroupfs),
        (Some(Backend::Scope), Ok(_)) => Err(Error::failed(
            "the scope backend cannot be used: the group that was named is not one of systemd's slices",
            "leave --cgroup-root out",
        )),
        (None | Some(Backend::Cgroupfs | Backend::Scope), Err(none)) => Err(Error::failed(
            format!(
                "the {} backend cannot be used: {}",
                chosen.unwrap_or(Backend::Cgroupfs).name(),
                none.why
            ),
            &none.fix,
        )),
    }
}

/// This machine, where groups of sessions are made below `named`, or are scopes of systemd's where that was `chosen`.
pub fn host(named: Option<&GroupPath>, chosen: Option<Backend>) -> Host {
    match chosen {
        Some(Backend::Scope) if named.is_none() => probe::host_with_scopes(),
        _ => probe::host(named),
    }
}

/// The group that a path means, in the hierarchy or as it is seen in the file system; `None` where it is none.
pub fn group_named(text: &str) -> Option<GroupPath> {
    // A path as it is seen in the file system means the same group.
    let within = match probe::hierarchy().mount() {
        Some(mount) => text
            .strip_prefix(mount.point.as_str())
            .filter(|rest| rest.is_empty() || rest.starts_with('/')),
        None => None,
    };
    let within = within.map(|rest| if rest.is_empty() { "/" } else { rest });
    GroupPath::new(within.unwrap_or(text))
}
