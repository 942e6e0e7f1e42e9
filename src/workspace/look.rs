//! The hierarchy and the registries as they are, and how a session is found by its name.

use super::error::Error;
use crate::host::{Base, Host};
use crate::kernel::{Group, Tree, base, survey};
use crate::order;
use crate::path::{GroupPath, SessionName};
use crate::plan::receipt::Backend;
use crate::role::distance;
use crate::session::registry::{Entry, PROCESS_SCOPE, Registry, base_scope};
use std::ffi::OsStr;

/// What there is to look at. Nothing of it is made by looking.
pub struct Look {
    /// The host.
    pub host: Host,
    /// The backend in force.
    pub backend: Backend,
    /// The hierarchy, where one can be read.
    pub tree: Option<Tree>,
    /// Where cgmgr's part of it stands: this user's, else what somebody else keeps and everybody can read.
    pub base: Option<Base>,
    /// What the machine's keeps and everybody can read, where the base is a user's own systemd.
    pub elsewhere: Option<Base>,
    /// The registry of the sessions below the base.
    pub registry: Option<Registry>,
    /// The registry of the sessions without a group.
    pub process: Option<Registry>,
}

/// A session that was found by its name.
pub enum Found {
    /// One with a group.
    Group {
        /// Its group.
        group: Group,
        /// Where that is.
        path: GroupPath,
        /// The registry it is in; `None` where it is closed to this user.
        registry: Option<Registry>,
    },
    /// One of the process backend that runs.
    Process {
        /// What is known of it.
        entry: Entry,
        /// The registry it is in.
        registry: Registry,
    },
    /// One that has ended, or whose group is yet to be made or just removed: only an entry is left.
    Recorded {
        /// What is known of it.
        entry: Entry,
        /// The registry it is in.
        registry: Registry,
    },
}

impl Look {
    /// Looks at this machine through `backend`. With `others` also at what somebody else keeps and everybody can read,
    /// where this user has no place of his own.
    ///
    /// # Errors
    ///
    /// The hierarchy cannot be opened.
    pub fn at(host: Host, backend: Backend, others: bool) -> Result<Self, Error> {
        let tree = host.hierarchy.mount().map(|m| Tree::open(&m.point)).transpose()?;
        let base = match (&host.base, backend, &tree) {
            (Ok(base), Backend::Cgroupfs | Backend::Scope, _) => Some(base.clone()),
            (Err(_), Backend::Process, Some(tree)) if others => base::readable(tree),
            _ => None,
        };
        let elsewhere = match (&tree, &base) {
            (Some(tree), Some(base)) if others && base.is_users() => base::readable(tree),
            _ => None,
        };
        let registry = match (&tree, &base) {
            (Some(tree), Some(base)) => {
                let scope = base_scope(base, || tree.group(&base.group)?.id());
                scope.ok().and_then(|scope| Registry::find(&scope))
            }
            _ => None,
        };
        Ok(Self {
            host,
            backend,
            tree,
            base,
            elsewhere,
            registry,
            process: Registry::find(PROCESS_SCOPE),
        })
    }

    /// The session that `name` names.
    ///
    /// # Errors
    ///
    /// There is none; names that could be meant are in the remedy.
    pub fn find(&self, name: &OsStr) -> Result<(SessionName, Found), Error> {
        let text = name.to_string_lossy();
        let name =
            SessionName::new(&text).map_err(|why| Error::failed(why, "`cgmgr status` lists the sessions"))?;
        for (base, registry) in [(&self.base, &self.registry), (&self.elsewhere, &None)] {
            if let (Some(tree), Some(base)) = (&self.tree, base)
                && let Some((path, group)) = survey::find_session(tree, base, &name)?
            {
                let registry = registry.clone();
                return Ok((
                    name,
                    Found::Group {
                        group,
                        path,
                        registry,
                    },
                ));
            }
        }
        for (registry, has_group) in [(&self.registry, true), (&self.process, false)] {
            let Some(registry) = registry else { continue };
            let attended = registry.is_attended(&name);
            let Some(entry) = registry.read(&name) else {
                continue;
            };
            let registry = registry.clone();
            if attended && !has_group {
                return Ok((name, Found::Process { entry, registry }));
            }
            if attended || entry.detached {
                return Ok((name, Found::Recorded { entry, registry }));
            }
        }
        Err(self.unknown(&name))
    }

    fn unknown(&self, name: &SessionName) -> Error {
        let all = self.names();
        let near = near(name.as_str(), &all);
        let help = match (near.is_empty(), all.is_empty()) {
            // Its group was made between the two looks.
            _ if all.iter().any(|other| other == name.as_str()) => {
                "it is being started just now: try again".to_owned()
            }
            (false, _) => format!("did you mean {}?", near.join(", ")),
            (true, true) => "there are no sessions; `cgmgr run` starts one".to_owned(),
            (true, false) => "`cgmgr status` lists the sessions".to_owned(),
        };
        Error::failed(format!("there is no session {name}"), help)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for base in [&self.base, &self.elsewhere].into_iter().flatten() {
            let Some(tree) = &self.tree else { break };
            let found = survey::session_paths(tree, base).unwrap_or_default();
            names.extend(found.iter().map(|(name, _)| name.to_string()));
        }
        for registry in [&self.registry, &self.process].into_iter().flatten() {
            names.extend(
                registry
                    .names()
                    .unwrap_or_default()
                    .iter()
                    .map(ToString::to_string),
            );
        }
        order::sort(&mut names);
        names.dedup();
        names
    }
}

/// Up to five of `all` that could be meant by `typed`, the nearest first.
fn near(typed: &str, all: &[String]) -> Vec<String> {
    let most = (typed.chars().count() / 3).max(1);
    let mut ranked: Vec<(usize, &String)> = all
        .iter()
        .filter_map(|name| {
            let far = distance(&typed.to_ascii_lowercase(), &name.to_ascii_lowercase());
            let begins = name.starts_with(typed) || typed.starts_with(name.as_str());
            (far <= most || begins).then_some((far, name))
        })
        .collect();
    order::sort(&mut ranked);
    ranked.into_iter().take(5).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_meant() {
        let all: Vec<String> = ["rust-1", "rust-2", "node-1", "rust-11"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(near("rsut-1", &all), ["rust-1", "rust-11", "rust-2"]);
        assert_eq!(near("node", &all), ["node-1"]);
        assert!(near("python", &all).is_empty());
        assert!(near("x", &[]).is_empty());
    }
}
