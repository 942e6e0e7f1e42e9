//! This process among those that are protected.

use super::Workspace;
use super::error::Error;
use super::role::Role;
use crate::limits::Part;
use crate::session::protect::protect;

pub use crate::session::protect::Protection;

impl Workspace {
    /// Puts this process, with all its threads, into `agent.slice`. Where that, and `workloads.slice` beside it, is
    /// missing, both are made as the role's `[agent]` and `[workloads]` say, within the host's policy; what is there
    /// stays as it is. Children that it has already stay where they are. Sessions that it starts are not protected.
    ///
    /// Do this first: memory that a process holds already stays charged to the group that it was in.
    /// [`Protection::notes`] says what is not in force.
    ///
    /// # Errors
    ///
    /// Nothing was done: there is no place for groups here, this process is in a session, or the slices are systemd's,
    /// whose unit of this process then needs `Slice=agent.slice` (the remedy says which).
    pub fn protect(&self, role: &Role) -> Result<Protection, Error> {
        let mut settings = role.settings().clone();
        if let Some(policy) = self.policy()? {
            policy.cap(&mut settings);
        }
        let mut protection = protect(self.place(), &settings)?;
        if !role.says_of(Part::Agent) && !protection.already {
            protection
                .notes
                .push(format!("the role {} says nothing of [agent]", role.name()));
        }
        Ok(protection)
    }
}
