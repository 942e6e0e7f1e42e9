//! The one place that knows D-Bus: requests to systemd's manager, with a deadline each.
//!
//! Each request has a connection of its own, and the thread that asks waits for the answer: nothing of it is left when that
//! is there, so that a process can be forked before and after. As systemctl(1) does, the manager's own socket is asked first
//! where the caller may use it (no bus needs to run then), and the bus otherwise. What is in a message zbus writes and reads
//! (`message`), the conversation is cgmgr's own (`talk` says why).

mod address;
pub mod desktop;
mod message;
mod talk;

use self::address::Socket;
use self::message::{Message, Method};
use self::talk::{Patience, Talk};
use super::error::{BusError, Reason};
use crate::host::Manager;
use crate::kernel::manager;
use crate::plan::unit::{Property, Value};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use serde::{Deserialize, Deserializer};
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};
use zbus::{OwnedObjectPath, Signature, Type, Variant};

/// How long a request may take, until its job is done.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// After so long a request that has no answer is told as a warning, and again after as long.
const PROGRESS: Duration = Duration::from_secs(2);
/// How long nobody may be behind the socket: a bus that is restarted is back by then.
const AWAY: Duration = Duration::from_secs(5);

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// The signal of a job's end.
const JOB_REMOVED: &str = "JobRemoved";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A unit as its manager has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `ActiveState`: `active`, `inactive`, `failed` and others.
    pub active: String,
    /// `LoadState`: `loaded`, `not-found` and others.
    pub load: String,
    /// `FragmentPath`: its unit file, empty where it has none.
    pub fragment: String,
    /// Whether it was made at run time.
    pub transient: bool,
    /// `Description`.
    pub description: String,
    /// `DropInPaths`.
    pub drop_ins: Vec<String>,
    /// Where its group is; empty without one.
    pub group: String,
}

impl Unit {
    /// Whether it runs.
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "activating")
    }
}

/// A manager of systemd.
#[derive(Debug, Clone, Copy)]
pub struct Systemd {
    manager: Manager,
    deadline: Duration,
}

impl Systemd {
    /// The manager, with the usual [`DEADLINE`].
    pub fn of(manager: Manager) -> Self {
        Self {
            manager,
            deadline: DEADLINE,
        }
    }

    /// The same with another deadline.
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Which manager this is.
    pub fn manager(&self) -> Manager {
        self.manager
    }

    /// The version of systemd, e.g. 257.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub fn version(&self) -> Result<u32, BusError> {
        self.ask("read the version", |bus| {
            let reply = bus.call(PATH, PROPERTIES, "Get", &(MANAGER, "Version"))?;
            let number = reply.body(|version: Read| match version.0 {
                Some(Value::Text(text)) => leading_number(&text),
                _ => 0,
            });
            number.map_err(Fault::Garbled)
        })
    }

    /// Makes a unit that is in no file and starts it, with the processes of `pidfds` in it; waits until that is done.
    ///
    /// # Errors
    ///
    /// The name is in use, a property is refused, the job fails, or the deadline passes.
    pub fn start_transient(
        &self,
        unit: &str,
        properties: &[Property],
        processes: &[(i32, BorrowedFd<'_>)],
    ) -> Result<(), BusError> {
        let doing = format!("start {unit}");
        self.ask(&doing, |bus| {
            let by_fd = bus.transient(unit, properties, processes, true);
            match by_fd {
                // Before version 255 there are only pids. They are the caller's own children, which it has not reaped.
                Err(fault) if !processes.is_empty() && fault.reason() == Reason::Property => {
                    bus.transient(unit, properties, processes, false)
                }
                other => other,
            }
        })
    }

    /// Starts a unit and waits until that is done.
    ///
    /// # Errors
    ///
    /// There is no such unit, the job fails, or the deadline passes.
    pub fn start(&self, unit: &str) -> Result<(), BusError> {
        self.job("start", "StartUnit", unit)
    }

    /// Stops a unit, with everything in it, and waits until that is done.
    ///
    /// # Errors
    ///
    /// There is no such unit, the job fails, or the deadline passes.
    pub fn stop(&self, unit: &str) -> Result<(), BusError> {
        self.job("stop", "StopUnit", unit)
    }

    /// Stops a unit, if it runs, and starts it.
    ///
    /// # Errors
    ///
    /// There is no such unit, the job fails, or the deadline passes.
    pub fn restart(&self, unit: &str) -> Result<(), BusError> {
        self.job("restart", "RestartUnit", unit)
    }

    fn job(&self, verb: &str, method: &str, unit: &str) -> Result<(), BusError> {
        self.ask(&format!("{verb} {unit}"), |bus| {
            bus.job(method, &(unit, "replace"))
        })
    }

    /// Sets properties of a unit until the next boot, all or none, and waits until they have been written to its control
    /// files. That it succeeds does not say that the kernel took the values.
    ///
    /// # Errors
    ///
    /// There is no such unit, or a property is refused.
    pub fn set_properties(&self, unit: &str, properties: &[Property]) -> Result<(), BusError> {
        self.ask(&format!("set properties of {unit}"), |bus| {
            let body = (unit, true, variants(properties));
            bus.call(PATH, MANAGER, "SetUnitProperties", &body)?;
            // It answers, and writes the control files before it looks at its next message (systemd's src/core/manager.c,
            // manager_loop): once it has answered that too, there is something to read back.
            bus.call(PATH, PROPERTIES, "Get", &(MANAGER, "Version"))?;
            Ok(())
        })
    }

    /// Moves processes into a group below that of a delegated unit. `group` begins with `/`, and is there.
    ///
    /// # Errors
    ///
    /// The unit is not delegated, or a process or the unit is not the caller's.
    pub fn attach(&self, unit: &str, group: &str, pids: &[i32]) -> Result<(), BusError> {
        let doing = format!("move {pids:?} to {unit}{group}");
        self.ask(&doing, |bus| {
            let pids: Vec<u32> = pids.iter().map(|pid| *pid as u32).collect();
            let body = (unit, group, pids);
            bus.call(PATH, MANAGER, "AttachProcessesToUnit", &body)?;
            Ok(())
        })
    }

    /// Has the manager read all its unit files again.
    ///
    /// # Errors
    ///
    /// The caller may not, or the deadline passes.
    pub fn reload(&self) -> Result<(), BusError> {
        self.ask("reload", |bus| {
            bus.call(PATH, MANAGER, "Reload", &())?;
            Ok(())
        })
    }

    /// Forgets that a unit failed, so that it is unloaded. A unit that is not loaded is as good.
    ///
    /// # Errors
    ///
    /// The caller may not, or the deadline passes.
    pub fn reset_failed(&self, unit: &str) -> Result<(), BusError> {
        let done = self.ask(&format!("reset {unit}"), |bus| {
            bus.call(PATH, MANAGER, "ResetFailedUnit", &(unit,))?;
            Ok(())
        });
        match done {
            Err(e) if e.reason == Reason::NoSuchUnit => Ok(()),
            other => other,
        }
    }

    /// A unit as its manager has it, loaded from disk where it is not loaded yet.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub fn unit(&self, unit: &str) -> Result<Unit, BusError> {
        self.ask(&format!("look at {unit}"), |bus| {
            let reply = bus.call(PATH, MANAGER, "LoadUnit", &(unit,))?;
            let path = reply.body(|path: OwnedObjectPath| path).map_err(Fault::Garbled)?;
            let reply = bus.call(path.as_str(), PROPERTIES, "GetAll", &("",))?;
            reply.body(of_properties).map_err(Fault::Garbled)
        })
    }

    /// Runs one conversation within the deadline. A connection that breaks is made anew as long as there is time, so what
    /// is asked must be safe to ask twice: each name that is given to `StartTransientUnit` is given once only.
    fn ask<T>(
        &self,
        doing: &str,
        conversation: impl Fn(&mut Bus<'_>) -> Result<T, Fault>,
    ) -> Result<T, BusError> {
        let begun = Instant::now();
        let patience = Patience {
            until: begun + self.deadline,
            tell_every: PROGRESS,
            tell: &|| tracing::warn!("still waiting for {} to {doing}", self.manager.describe()),
            tell_next: Cell::new(begun + PROGRESS),
        };
        let mut repeated = false;
        let asked = loop {
            let asked = self.connect(&patience).and_then(|mut bus| conversation(&mut bus));
            match asked {
                Err(fault) if fault.is_broken() && Instant::now() < patience.until => repeated = true,
                // The answer of the first time was lost with the connection.
                Err(fault) if repeated && fault.reason() == Reason::UnitExists => break Err(Fault::Twice),
                other => break other,
            }
            patience.pause(pause());
        };
        asked.map_err(|fault| self.error(doing, fault))
    }

    fn connect<'a>(&self, patience: &'a Patience<'a>) -> Result<Bus<'a>, Fault> {
        let give_up = patience.until.min(Instant::now() + AWAY);
        loop {
            match self.connect_once(patience) {
                Err(Fault::TimedOut) => return Err(Fault::TimedOut),
                Err(Fault::Broken(error)) if Instant::now() >= give_up => {
                    return Err(Fault::Unreachable(error.to_string()));
                }
                Err(fault) if Instant::now() >= give_up => return Err(fault),
                Err(_) => patience.pause(pause()),
                Ok(bus) => return Ok(bus),
            }
        }
    }

    fn connect_once<'a>(&self, patience: &'a Patience<'a>) -> Result<Bus<'a>, Fault> {
        // The manager's own socket (systemd's src/core/dbus.c, bus_init_private): one peer, and no bus between.
        let private = match self.manager {
            Manager::System if rustix::process::geteuid().is_root() => {
                vec![Socket::Path("/run/systemd/private".into())]
            }
            Manager::System => Vec::new(),
            Manager::User => in_runtime_directories("systemd/private"),
        };
        if let Ok(talk) = begin_first(&private, patience) {
            return Ok(Bus { talk });
        }
        let named = |name: &str| std::env::var(name).ok().filter(|address| !address.is_empty());
        let bus = match self.manager {
            Manager::System => {
                let address = named("DBUS_SYSTEM_BUS_ADDRESS");
                address::sockets(address.as_deref().unwrap_or(address::SYSTEM))
            }
            Manager::User => match named("DBUS_SESSION_BUS_ADDRESS") {
                Some(address) => address::sockets(&address),
                None => in_runtime_directories("bus"),
            },
        };
        let mut talk = begin_first(&bus, patience)?;
        let bus = |member| Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
        };
        talk.call(bus("Hello"), &())?;
        // Who is told of a job's end must listen before it asks for it.
        let rule = format!("type='signal',path='{PATH}',interface='{MANAGER}',member='{JOB_REMOVED}'");
        talk.call(bus("AddMatch"), &(rule,))?;
        Ok(Bus { talk })
    }

    fn error(&self, doing: &str, fault: Fault) -> BusError {
        let whom = self.manager.describe();
        let (reason, answer) = match fault {
            Fault::Said { name, text } => (Reason::of_name(&name), text.unwrap_or(name)),
            Fault::Broken(error) => (Reason::Unreachable, error.to_string()),
            Fault::Garbled(what) => (Reason::Refused, format!("its answer cannot be read: {what}")),
            Fault::Unreachable(why) => (Reason::Unreachable, format!("it cannot be reached: {why}")),
            Fault::TimedOut => (
                Reason::TimedOut,
                format!("no answer within {} s", self.deadline.as_secs()),
            ),
            Fault::Twice => (
                Reason::Refused,
                "the connection broke, and whether it was done is not known".into(),
            ),
            Fault::Job(result) => (Reason::JobFailed, format!("its job ended in `{result}`")),
        };
        let help = match (self.manager, reason) {
            (Manager::User, Reason::Unreachable) => {
                "log in, or let the user linger: loginctl enable-linger USER".to_owned()
            }
            (_, reason) => reason.help().to_owned(),
        };
        BusError {
            reason,
            message: format!("{whom} did not {doing}: {answer}"),
            help,
        }
    }
}

/// Where a socket of the user's may be.
fn in_runtime_directories(socket: &str) -> Vec<Socket> {
    let directories = manager::runtime_directories().into_iter();
    directories
        .map(|directory| Socket::Path(directory.join(socket)))
        .collect()
}

/// A conversation at the first of these sockets that somebody listens at.
fn begin_first<'a>(sockets: &[Socket], patience: &'a Patience<'a>) -> Result<Talk<'a>, Fault> {
    let mut last = Fault::Unreachable("there is no socket to ask at".to_owned());
    for socket in sockets {
        match Talk::begin(socket, patience) {
            Ok(talk) => return Ok(talk),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

/// Between two attempts, of many who ask at once: 20 to 83 ms.
fn pause() -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    Duration::from_millis(20 + u64::from(nanos.wrapping_mul(2_654_435_761) >> 26))
}

fn leading_number(text: &str) -> u32 {
    let text = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

/// Why a conversation ended without an answer.
enum Fault {
    /// An error was the answer.
    Said {
        name: String,
        text: Option<String>,
    },
    /// The connection is gone, and the request with it: the bus was restarted, or systemd was executed anew.
    Broken(io::Error),
    Unreachable(String),
    /// What came cannot be read.
    Garbled(String),
    TimedOut,
    Twice,
    Job(String),
}

impl Fault {
    /// What an error that was the answer means.
    fn reason(&self) -> Reason {
        match self {
            Self::Said { name, .. } => Reason::of_name(name),
            _ => Reason::Refused,
        }
    }

    fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_)) || self.reason() == Reason::Unreachable
    }
}

fn variants(properties: &[Property]) -> Vec<(&str, Variant<'_>)> {
    properties
        .iter()
        .map(|property| {
            let value = match &property.value {
                Value::Bool(on) => Variant::Bool(*on),
                Value::U64(n) => Variant::U64(*n),
                Value::Text(text) => Variant::from(text.as_str()),
                Value::Texts(texts) => Variant::from(texts.clone()),
            };
            (property.name, value)
        })
        .collect()
}

/// A property's value as it was answered; `None` if it is of a type that nothing here reads.
struct Read(Option<Value>);

impl Type for Read {
    const SIGNATURE: &'static Signature = Variant::SIGNATURE;
}

impl<'d> Deserialize<'d> for Read {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Self, D::Error> {
        let text = |value: &Variant<'_>| match value {
            Variant::Str(text) => Some(text.as_str().to_owned()),
            _ => None,
        };
        Ok(Self(match Variant::deserialize(deserializer)? {
            Variant::Bool(on) => Some(Value::Bool(on)),
            Variant::Array(texts) => Some(Value::Texts(texts.iter().filter_map(text).collect())),
            other => text(&other).map(Value::Text),
        }))
    }
}

fn of_properties(mut all: HashMap<String, Read>) -> Unit {
    let mut take = |name: &str| all.remove(name).and_then(|read| read.0);
    let transient = take("Transient") == Some(Value::Bool(true));
    let drop_ins = match take("DropInPaths") {
        Some(Value::Texts(texts)) => texts,
        _ => Vec::new(),
    };
    let mut text = |name: &str| match take(name) {
        Some(Value::Text(text)) => text,
        _ => String::new(),
    };
    Unit {
        active: text("ActiveState"),
        load: text("LoadState"),
        fragment: text("FragmentPath"),
        transient,
        description: text("Description"),
        drop_ins,
        group: text("ControlGroup"),
    }
}

/// One connection.
struct Bus<'a> {
    talk: Talk<'a>,
}

impl Bus<'_> {
    fn call<B>(&mut self, path: &str, interface: &str, member: &str, body: &B) -> Result<Message, Fault>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let method = Method {
            destination: NAME,
            path,
            interface,
            member,
        };
        self.talk.call(method, body)
    }

    fn transient(
        &mut self,
        unit: &str,
        properties: &[Property],
        processes: &[(i32, BorrowedFd<'_>)],
        by_fd: bool,
    ) -> Result<(), Fault> {
        let mut all = variants(properties);
        if by_fd && !processes.is_empty() {
            let fds = processes.iter().map(|(_, fd)| fd.as_fd().try_clone_to_owned());
            let fds: Vec<OwnedFd> = fds.collect::<io::Result<_>>().map_err(Fault::Broken)?;
            let fds: Vec<zbus::Fd<'_>> = fds.into_iter().map(zbus::Fd::from).collect();
            all.push(("PIDFDs", Variant::from(fds)));
        } else if !processes.is_empty() {
            let pids: Vec<u32> = processes.iter().map(|(pid, _)| *pid as u32).collect();
            all.push(("PIDs", Variant::from(pids)));
        }
        type Aux<'a> = Vec<(&'a str, Vec<(&'a str, Variant<'a>)>)>;
        let none: Aux<'_> = Vec::new();
        self.job("StartTransientUnit", &(unit, "fail", all, none))
    }

    /// Asks for a job and waits for its end.
    fn job<B>(&mut self, method: &str, body: &B) -> Result<(), Fault>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let reply = self.call(PATH, MANAGER, method, body)?;
        let job = reply.body(|job: OwnedObjectPath| job).map_err(Fault::Garbled)?;
        loop {
            let signal = self.talk.signal()?;
            if signal.interface != MANAGER || signal.member != JOB_REMOVED {
                continue;
            }
            type Removed = (u32, OwnedObjectPath, String, String);
            let (_, path, _, result) = signal.body(|removed: Removed| removed).map_err(Fault::Garbled)?;
            if path != job {
                continue;
            }
            return match result.as_str() {
                "done" => Ok(()),
                _ => Err(Fault::Job(result)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, version) in [("252.39-1~deb12u1", 252), ("v257.13", 257), ("", 0), ("x", 0)] {
            assert_eq!(leading_number(text), version);
        }
    }

    #[test]
    fn pauses_are_short_and_bounded() {
        assert!((20..=83).contains(&pause().as_millis()));
    }
}
