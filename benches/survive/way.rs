//! The five ways to have sessions beside an agent. What each knows of limits is from one role.

use super::{RUN, again, at, call_myself, start};
use crate::machine::run;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// How agent and sessions are kept apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Not at all: sessions are children of the agent, in its service.
    Unprotected,
    /// The same, but the children get a nicer nice value and a higher oom_score_adj (Coder's agent does so).
    Coder,
    /// Each session is a scope with limits, made by `systemd-run`.
    SystemdRun,
    /// `cgmgr run` on a machine where nothing is installed: limits for each session, none for all of them together.
    NoCeiling,
    /// `cgmgr install --role`, `cgmgr run`: with a ceiling over all sessions.
    Cgmgr,
}

const ALL: [(Way, &str); 5] = [
    (Way::Unprotected, "unprotected"),
    (Way::Coder, "coder"),
    (Way::SystemdRun, "systemd-run"),
    (Way::NoCeiling, "cgmgr-no-ceiling"),
    (Way::Cgmgr, "cgmgr"),
];

/// The role without a ceiling, and the one that puts a ceiling over it.
const ROLES: [(&str, &str); 2] = [
    ("no-ceiling.role.toml", include_str!("no-ceiling.role.toml")),
    ("survive.role.toml", include_str!("survive.role.toml")),
];

impl std::str::FromStr for Way {
    type Err = String;
    fn from_str(text: &str) -> Result<Way, String> {
        let found = ALL.iter().find(|(_, name)| *name == text);
        found
            .map(|(way, _)| *way)
            .ok_or_else(|| format!("unknown way {text}"))
    }
}

impl Way {
    /// What it is called on command lines.
    pub fn name(self) -> &'static str {
        ALL.iter()
            .find(|(way, _)| *way == self)
            .map_or("", |(_, name)| name)
    }

    fn role(self) -> String {
        let (name, _) = ROLES[usize::from(self == Way::Cgmgr)];
        format!("{RUN}/{name}")
    }

    /// Makes the machine ready and starts the agent.
    pub fn start_agent(self) -> Result<(), String> {
        for (name, text) in ROLES {
            let path = format!("{RUN}/{name}");
            std::fs::write(&path, text).map_err(at(&path))?;
        }
        let role = self.role();
        match self {
            Way::Unprotected | Way::Coder | Way::SystemdRun => {}
            Way::NoCeiling => run(Command::new("cgmgr").args(["apply", &role]))?,
            Way::Cgmgr => run(Command::new("cgmgr").args(["install", "--role", &role]))?,
        }
        let agent = again(&["agent", self.name()]);
        if matches!(self, Way::NoCeiling | Way::Cgmgr) {
            let protect = words(&format!("cgmgr protect --quiet --role {role} --name survivor --"));
            return start(&[protect, agent].concat()).map(drop);
        }
        let mut service = Command::new("systemd-run");
        service.args(["--quiet", "--unit=agent"]);
        // systemd stops a service after an OOM kill in it unless it is told not to, and the agent with it. That is left out, in
        // favour of those who keep the sessions in the agent's service.
        service.args(["-p", "OOMPolicy=continue"]);
        run(service.args(agent))
    }

    /// The command of a session that does this, as the agent starts it.
    pub fn session(self, name: &str, command: &[String]) -> Vec<String> {
        let before = match self {
            Way::Unprotected => Vec::new(),
            Way::Coder => again(&["as-coder-does"]),
            Way::SystemdRun => words(SYSTEMD_RUN),
            Way::NoCeiling | Way::Cgmgr => words(&format!(
                "cgmgr run --quiet --role {} --name {name} --",
                self.role()
            )),
        };
        before.into_iter().chain(command.iter().cloned()).collect()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The role's limits for a session. A scope knows nothing of open files: prlimit sets them, as `ulimit` would.
const SYSTEMD_RUN: &str = "systemd-run --quiet --scope --collect -p MemoryMax=300M -p MemorySwapMax=0 -p CPUQuota=50% \
    -p TasksMax=256 -p OOMPolicy=kill prlimit --nofile=1024:1024";

/// What Coder's agent does in a child before it executes the command: `coder agent-exec`, for an agent whose own score is 0.
pub fn as_coder_does(command: &[&str]) -> Result<(), String> {
    call_myself("agent-exec");
    std::fs::write("/proc/self/oom_score_adj", "998").map_err(at("oom_score_adj"))?;
    rustix::process::setpriority_process(None, 5).map_err(at("nice"))?;
    let (program, arguments) = command.split_first().ok_or("no command")?;
    Err(Command::new(program).args(arguments).exec().to_string())
}
