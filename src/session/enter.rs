//! Starts a further command inside a live session: under the same limits, with the same counters, and with the priorities
//! that the session's own command got.
//!
//! Whoever is in charge of the session stays in charge: the command that entered is one of its processes, and neither
//! ends it nor puts it away.

use super::child;
use super::command;
use super::failure::LaunchError;
use super::launch::{Running, Start};
use super::measure;
use super::promise;
use super::records::Records;
use super::registry::Entry;
use super::terminal::Terminal;
use super::user::User;
use crate::host::{Base, Host};
use crate::kernel::kmsg::KernelLog;
use crate::kernel::sys::{CallersSignals, Child};
use crate::kernel::{Group, Tree, process, survey};
use crate::limits::{KnobId, Max, Settings, Value};
use crate::path::{GroupPath, SessionName};
use crate::plan::identity::Identity;
use crate::plan::receipt::Receipt;
use std::ffi::OsString;
use std::time::Instant;

/// A live session that may be entered.
pub struct Door<'a> {
    /// This machine.
    pub host: &'a Host,
    /// The hierarchy.
    pub tree: &'a Tree,
    /// Where the session stands.
    pub base: &'a Base,
    /// The session's name.
    pub name: SessionName,
    /// Its group.
    pub group: (Group, GroupPath),
    /// What its group says of it.
    pub identity: Identity,
}

/// What enters.
pub struct Visitor<'a> {
    /// The command and its arguments.
    pub argv: Vec<OsString>,
    /// The user it runs as; `None` is the caller.
    pub user: Option<User>,
    /// Close every inherited descriptor above 2, and reset CPU affinity and scheduling policy. Always done for a
    /// caller that is in agent.slice.
    pub close_fds: bool,
    /// The terminal that the command is in the foreground of.
    pub terminal: Option<&'a Terminal>,
    /// How the caller had its signals set.
    pub signals: Option<CallersSignals>,
    /// Told the command's pid as soon as it runs.
    pub on_start: Option<&'a dyn Fn(i32)>,
}

impl<'a> Door<'a> {
    /// The session `name` with this group, if it may be entered now.
    ///
    /// # Errors
    ///
    /// The group is not a session's, nobody is in it, or it is frozen: then a command would wait for its thaw before its
    /// first instruction, and cgmgr with it.
    pub fn open(
        host: &'a Host,
        tree: &'a Tree,
        base: &'a Base,
        name: SessionName,
        group: (Group, GroupPath),
    ) -> Result<Self, LaunchError> {
        let Some(identity) = survey::identity(&group.0) else {
            return Err(LaunchError::new(
                format!("{} was not made by cgmgr", group.0.path()),
                "`cgmgr status` lists the sessions",
            ));
        };
        if !group.0.populated()? {
            return Err(LaunchError::new(
                format!("session {name} is beginning or ending just now: no process is in it"),
                "`cgmgr run` starts a session",
            ));
        }
        if let Some(frozen) = frozen(tree, &group.1) {
            let (what, help) = if frozen == group.1 {
                (
                    format!("session {name} is frozen"),
                    format!("`cgmgr thaw {name}` first"),
                )
            } else {
                (
                    format!("session {name} is frozen, because {frozen} is"),
                    format!("write 0 to {}/cgroup.freeze first", tree.display(&frozen)),
                )
            };
            return Err(LaunchError::new(
                format!("{what}: a command in it would not begin to run"),
                help,
            ));
        }
        Ok(Self {
            host,
            tree,
            base,
            name,
            group,
            identity,
        })
    }

    /// Starts the command of `visitor` in the session.
    ///
    /// # Errors
    ///
    /// The command cannot be laid out, the kernel does not let it into the group, or it cannot be executed.
    pub fn enter(self, visitor: Visitor<'_>) -> Result<Running, LaunchError> {
        let mut warnings = Vec::new();
        let child = self.lay_out(&visitor, &mut warnings)?;
        let (group, path) = &self.group;
        let log = KernelLog::open_at_end().ok();
        let namespaced = self.host.hierarchy.mount().is_some_and(|m| !m.true_root);
        let before = measure::moment(self.tree, group, path, namespaced)?;
        let since = Instant::now();
        let start = Start {
            child: &child,
            group: Some(&self.group),
            program: &visitor.argv[0],
            user: visitor.user.as_ref(),
            terminal: visitor.terminal,
            on_start: visitor.on_start,
        };
        let spawned = start.now()?;
        let nofile = self.identity.limits.get(KnobId::Nofile.knob().key);
        for refusal in &spawned.refusals {
            warnings.push(child::told(
                refusal,
                &visitor.argv,
                nofile.map_or("", String::as_str),
            ));
        }
        let user = visitor.user.as_ref().map(|user| &user.identity);
        let promise = promise::of(self.tree, path, user, self.host.euid);
        let entry = Entry {
            name: self.name.to_string(),
            role: self.identity.role.clone(),
            command: command::shown(&visitor.argv),
            pid: Some(spawned.pid),
            ..Entry::default()
        };
        Ok(Running {
            name: self.name,
            lock: None,
            // Whoever is in charge of the session holds its scope open.
            pin: None,
            group: Some(self.group),
            spawned,
            since,
            before,
            entered: true,
            log,
            receipt: Receipt::default(),
            promise,
            entry,
            // Whoever is in charge of the session writes its records.
            records: Records::default(),
            warnings,
        })
    }

    fn lay_out(&self, visitor: &Visitor<'_>, warnings: &mut Vec<String>) -> Result<Child, LaunchError> {
        let laid_out = command::lay_out(
            &visitor.argv,
            std::env::vars_os(),
            self.name.as_str(),
            visitor.user.as_ref(),
        );
        let mut child =
            laid_out.map_err(|message| LaunchError::new(message, "give a command that can be executed"))?;
        let own = process::own_group().and_then(|own| GroupPath::new(&own));
        let in_agent = own.is_some_and(|own| self.base.agent.contains(&own));
        child.signals = visitor.signals;
        child.close_fds = visitor.close_fds || in_agent;
        child.reset_policy = child.close_fds;
        if child.reset_policy {
            child.affinity = Some((0..self.host.machine.cpus as usize).collect());
        }
        if let Some(Value::Count(Max::At(n))) = self.declared(KnobId::Nofile) {
            child.nofile = Some(n);
        }
        self.priorities(&mut child, warnings);
        Ok(child)
    }

    /// What the session's group says was declared.
    fn declared(&self, id: KnobId) -> Option<Value> {
        let text = self.identity.limits.get(id.knob().key)?;
        id.knob().parse(text, &self.host.machine).ok()
    }

    /// Those of the session's own command. Where they are not known they are derived from the caller's, as for a session
    /// of its own, and that is said.
    fn priorities(&self, child: &mut Child, warnings: &mut Vec<String>) {
        let (nice, score) = (self.identity.nice, self.identity.oom_score_adj);
        if let (Some(nice), Some(score)) = (nice, score) {
            child.nice = Some(nice);
            child.oom_score_adj = Some(score);
            return;
        }
        let mut settings = Settings::none();
        for id in [KnobId::Nice, KnobId::OomScoreAdj] {
            if let Some(value) = self.declared(id) {
                settings.set(id, value, crate::limits::Origin::Default);
            }
        }
        let Some(derived) = child::priorities(&settings, warnings) else {
            return;
        };
        child.nice = Some(nice.unwrap_or(derived.nice));
        child.oom_score_adj = Some(score.unwrap_or(derived.oom_score_adj));
        if !(derived.nice_given && derived.oom_given) {
            warnings.push(format!(
                "the priorities of the session's own processes are not known (cgmgr did not start them): this one gets \
                 nice {} and oom_score_adj {}",
                child.nice.unwrap_or_default(),
                child.oom_score_adj.unwrap_or_default()
            ));
        }
    }
}

/// The group at or above `path` that is frozen.
fn frozen(tree: &Tree, path: &GroupPath) -> Option<GroupPath> {
    path.ancestors().find(|path| {
        let group = tree.group(path).ok();
        group.is_some_and(|g| g.get("cgroup.freeze").ok().flatten().as_deref() == Some("1"))
    })
}
