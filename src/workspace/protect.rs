//! This process among those that are protected.

use super::Workspace;
use super::error::Error;
use super::role::Role;
use crate::limits::Part;
use crate::path::SessionName;
use crate::session::protect::{Request, Whom, protect};

pub use crate::session::protect::Protection;

impl Workspace {
    /// Puts this process, with all its threads, into `agent.slice`, and sets its oom_score_adj (-900 where nobody says
    /// another) and its nice value. Where the slice, and `workloads.slice` beside it, is missing, both are made as the
    /// role's `[agent]` and `[workloads]` say, within the host's policy; what is there stays as it is. Children that this
    /// process has already stay where they are. Sessions that it starts are not protected.
    ///
    /// Do this first: memory that a process holds already stays charged to the group that it was in.
    /// [`Protection::receipt`] and [`Protection::notes`] say what is not in force.
    ///
    /// # Errors
    ///
    /// Nothing was done: this process is in a session, or it is the main process of a service, whose unit then needs
    /// `Slice=agent.slice` (the remedy says so), or the kernel or systemd refuses to move it.
    pub fn protect(&self, role: &Role) -> Result<Protection, Error> {
        let mut settings = role.settings().clone();
        if let Some(policy) = self.policy()? {
            policy.cap(&mut settings);
        }
        let argv: Vec<_> = std::env::args_os().collect();
        let request = Request {
            settings: &settings,
            whom: Whom::This,
            name: None,
            stem: SessionName::from_text(role.name()),
            argv,
        };
        let mut protection = protect(&request, self.place())?;
        if !role.says_of(Part::Agent) && !protection.already {
            protection
                .notes
                .push(format!("the role {} says nothing of [agent]", role.name()));
        }
        Ok(protection)
    }
}
