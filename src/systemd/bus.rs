//! The one file that knows zbus: requests to systemd's manager, with a deadline each.
//!
//! Each request has a connection of its own, and the thread that asks drives it: nothing of it is left when the answer is
//! there, neither a thread nor a descriptor, so that a process can be forked before and after. As systemctl(1) does, the
//! manager's own socket is asked first where the caller may use it (no bus needs to run then, `direct`), and the bus otherwise.
//!
//! Do not call this from inside a task of the same runtime that zbus uses (see `zbus::block_on`).

mod direct;

use self::direct::Direct;
use super::error::{BusError, Reason};
use crate::host::Manager;
use crate::kernel::manager;
use crate::plan::unit::{Property, Value};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};
use zbus::export::futures_core::Stream;
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, OwnedVariant, Variant};
use zruntime::SharedRuntime;

/// How long a request may take, until its job is done.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// After so long a request that has no answer is told as a warning, and again after as long.
const PROGRESS: Duration = Duration::from_secs(2);
/// How long nobody may be behind the socket: a bus that is restarted is back by then.
const AWAY: Duration = Duration::from_secs(5);

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
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
        self.ask("read the version", async |bus| {
            let reply = bus.call(PATH, PROPERTIES, "Get", &(MANAGER, "Version")).await?;
            let version: OwnedVariant = reply.body().deserialize()?;
            Ok(match &*version {
                Variant::Str(text) => leading_number(text.as_str()),
                _ => 0,
            })
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
        self.ask(&doing, async |bus| {
            let by_fd = bus.transient(unit, properties, processes, true).await;
            match by_fd {
                // Before version 255 there are only pids. They are the caller's own children, which it has not reaped.
                Err(Fault::Bus(e)) if !processes.is_empty() && is_property(&e) => {
                    bus.transient(unit, properties, processes, false).await
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
        self.ask(&format!("{verb} {unit}"), async |bus| {
            bus.job(method, &(unit, "replace")).await
        })
    }

    /// Sets properties of a unit until the next boot, all or none, and waits until they have been written to its control
    /// files. That it succeeds does not say that the kernel took the values.
    ///
    /// # Errors
    ///
    /// There is no such unit, or a property is refused.
    pub fn set_properties(&self, unit: &str, properties: &[Property]) -> Result<(), BusError> {
        self.ask(&format!("set properties of {unit}"), async |bus| {
            let body = (unit, true, variants(properties));
            bus.call(PATH, MANAGER, "SetUnitProperties", &body).await?;
            // It answers, and writes the control files before it looks at its next message (systemd's src/core/manager.c,
            // manager_loop): once it has answered that too, there is something to read back.
            bus.call(PATH, PROPERTIES, "Get", &(MANAGER, "Version")).await?;
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
        self.ask(&doing, async |bus| {
            let pids: Vec<u32> = pids.iter().map(|pid| *pid as u32).collect();
            let body = (unit, group, pids);
            bus.call(PATH, MANAGER, "AttachProcessesToUnit", &body).await?;
            Ok(())
        })
    }

    /// Has the manager read all its unit files again.
    ///
    /// # Errors
    ///
    /// The caller may not, or the deadline passes.
    pub fn reload(&self) -> Result<(), BusError> {
        self.ask("reload", async |bus| {
            bus.call(PATH, MANAGER, "Reload", &()).await?;
            Ok(())
        })
    }

    /// Forgets that a unit failed, so that it is unloaded. A unit that is not loaded is as good.
    ///
    /// # Errors
    ///
    /// The caller may not, or the deadline passes.
    pub fn reset_failed(&self, unit: &str) -> Result<(), BusError> {
        let done = self.ask(&format!("reset {unit}"), async |bus| {
            bus.call(PATH, MANAGER, "ResetFailedUnit", &(unit,)).await?;
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
        self.ask(&format!("look at {unit}"), async |bus| {
            let reply = bus.call(PATH, MANAGER, "LoadUnit", &(unit,)).await?;
            let path: OwnedObjectPath = reply.body().deserialize()?;
            let reply = bus.call(path.as_str(), PROPERTIES, "GetAll", &("",)).await?;
            let body = reply.body();
            let all: HashMap<&str, Variant<'_>> = body.deserialize()?;
            let text = |name: &str| match all.get(name) {
                Some(Variant::Str(text)) => text.as_str().to_owned(),
                _ => String::new(),
            };
            Ok(Unit {
                active: text("ActiveState"),
                load: text("LoadState"),
                fragment: text("FragmentPath"),
                transient: matches!(all.get("Transient"), Some(Variant::Bool(true))),
                description: text("Description"),
                drop_ins: match all.get("DropInPaths") {
                    Some(Variant::Array(paths)) => paths
                        .iter()
                        .filter_map(|path| match path {
                            Variant::Str(text) => Some(text.as_str().to_owned()),
                            _ => None,
                        })
                        .collect(),
                    _ => Vec::new(),
                },
                group: text("ControlGroup"),
            })
        })
    }

    /// Runs one conversation within the deadline. A connection that breaks is made anew as long as there is time, so what
    /// is asked must be safe to ask twice: each name that is given to `StartTransientUnit` is given once only.
    fn ask<T>(
        &self,
        doing: &str,
        conversation: impl AsyncFn(&Bus) -> Result<T, Fault>,
    ) -> Result<T, BusError> {
        let until = Instant::now() + self.deadline;
        let asked = zbus::block_on(async {
            let runtime = SharedRuntime::current()?;
            let talk = async {
                let mut repeated = false;
                loop {
                    let bus = self.connect(until, &runtime).await?;
                    match conversation(&bus).await {
                        Err(Fault::Bus(e)) if is_broken(&e) => repeated = true,
                        // The answer of the first time was lost with the connection.
                        Err(Fault::Bus(e)) if repeated && is_exists(&e) => return Err(Fault::Twice),
                        other => return other,
                    }
                    runtime.sleep(pause()).await;
                }
            };
            let mut talk = pin!(talk);
            let mut tell = Instant::now() + PROGRESS;
            loop {
                match runtime.timeout_at(until.min(tell), talk.as_mut()).await {
                    Ok(answer) => return answer,
                    Err(_) if Instant::now() >= until => return Err(Fault::TimedOut),
                    Err(_) => tracing::warn!("still waiting for {} to {doing}", self.manager.describe()),
                }
                tell += PROGRESS;
            }
        });
        asked.map_err(|fault| self.error(doing, fault))
    }

    async fn connect(&self, until: Instant, runtime: &SharedRuntime) -> Result<Bus, Fault> {
        let give_up = until.min(Instant::now() + AWAY);
        loop {
            match self.connect_once(runtime).await {
                Ok(bus) => return Ok(bus),
                Err(e) if Instant::now() >= give_up => return Err(Fault::Unreachable(e.to_string())),
                Err(_) => runtime.sleep(pause()).await,
            }
        }
    }

    async fn connect_once(&self, runtime: &SharedRuntime) -> zbus::Result<Bus> {
        // The manager's own socket (systemd's src/core/dbus.c, bus_init_private): one peer, and no bus between.
        let private = match self.manager {
            Manager::System if rustix::process::geteuid().is_root() => {
                vec![PathBuf::from("/run/systemd/private")]
            }
            Manager::System => Vec::new(),
            Manager::User => in_runtime_directories("systemd/private"),
        };
        if let Ok(stream) = connect_first(&private) {
            let socket = Direct::new(runtime, stream)?;
            let connection = zbus::connection::Builder::socket(socket).p2p().build().await?;
            return Ok(Bus { connection });
        }
        let connection = match self.manager {
            Manager::System => zbus::connection::Builder::system().build().await?,
            Manager::User => match std::env::var_os("DBUS_SESSION_BUS_ADDRESS") {
                Some(_) => zbus::connection::Builder::session().build().await?,
                None => {
                    let stream = connect_first(&in_runtime_directories("bus"))?;
                    zbus::connection::Builder::unix_stream(stream).build().await?
                }
            },
        };
        Ok(Bus { connection })
    }

    fn error(&self, doing: &str, fault: Fault) -> BusError {
        let whom = self.manager.describe();
        let (reason, answer) = match fault {
            Fault::Bus(error) => answer(&error),
            Fault::Io(error) => (Reason::Unreachable, error.to_string()),
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
fn in_runtime_directories(socket: &str) -> Vec<PathBuf> {
    let directories = manager::runtime_directories().into_iter();
    directories.map(|directory| directory.join(socket)).collect()
}

/// Connects to the first of these sockets that somebody listens at.
fn connect_first(paths: &[PathBuf]) -> io::Result<UnixStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for path in paths {
        match manager::connect_now(path) {
            Ok(socket) => return Ok(socket.into()),
            Err(error) => last = error.into(),
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
    Bus(zbus::Error),
    Io(io::Error),
    Unreachable(String),
    TimedOut,
    Twice,
    Job(String),
}

impl From<zbus::Error> for Fault {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The meaning and the words of an error.
fn answer(error: &zbus::Error) -> (Reason, String) {
    match error {
        zbus::Error::MethodError(name, text, _) => (
            Reason::of_name(name.as_str()),
            text.clone().unwrap_or_else(|| name.to_string()),
        ),
        zbus::Error::FDO(error) => {
            use zbus::DBusError;
            let text = error.description().unwrap_or_default().to_owned();
            (Reason::of_name(error.name().as_str()), text)
        }
        other if is_broken(other) => (Reason::Unreachable, other.to_string()),
        other => (Reason::Refused, other.to_string()),
    }
}

fn is_property(error: &zbus::Error) -> bool {
    answer(error).0 == Reason::Property
}

fn is_exists(error: &zbus::Error) -> bool {
    answer(error).0 == Reason::UnitExists
}

/// Whether the connection is gone, and the request with it: the bus was restarted, or systemd was executed anew.
fn is_broken(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::InputOutput(_) | zbus::Error::Handshake(_) => true,
        zbus::Error::FDO(_) => answer(error).0 == Reason::Unreachable,
        _ => false,
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

/// One connection.
struct Bus {
    connection: Connection,
}

impl Bus {
    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.connection
            .call_method(Some(NAME), path, Some(interface), method, body)
            .await
    }

    async fn transient(
        &self,
        unit: &str,
        properties: &[Property],
        processes: &[(i32, BorrowedFd<'_>)],
        by_fd: bool,
    ) -> Result<(), Fault> {
        let mut all = variants(properties);
        if by_fd && !processes.is_empty() {
            let fds = processes.iter().map(|(_, fd)| fd.as_fd().try_clone_to_owned());
            let fds: Vec<OwnedFd> = fds.collect::<io::Result<_>>()?;
            let fds: Vec<zbus::Fd<'_>> = fds.into_iter().map(zbus::Fd::from).collect();
            all.push(("PIDFDs", Variant::from(fds)));
        } else if !processes.is_empty() {
            let pids: Vec<u32> = processes.iter().map(|(pid, _)| *pid as u32).collect();
            all.push(("PIDs", Variant::from(pids)));
        }
        type Aux<'a> = Vec<(&'a str, Vec<(&'a str, Variant<'a>)>)>;
        let none: Aux<'_> = Vec::new();
        self.job("StartTransientUnit", &(unit, "fail", all, none)).await
    }

    /// Asks for a job and waits for its end. Who is told of it must listen before it asks.
    async fn job<B>(&self, method: &str, body: &B) -> Result<(), Fault>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let rule = zbus::MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .path(PATH)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()?;
        let mut removed = MessageStream::for_match_rule(rule, &self.connection, None).await?;
        let reply = self.call(PATH, MANAGER, method, body).await?;
        let job: OwnedObjectPath = reply.body().deserialize()?;
        loop {
            let next = poll_fn(|cx| Pin::new(&mut removed).poll_next(cx)).await;
            let Some(signal) = next else {
                let gone = io::Error::from(io::ErrorKind::ConnectionReset);
                return Err(Fault::Bus(gone.into()));
            };
            let signal = signal?;
            let body = signal.body();
            let (_, path, _, result): (u32, OwnedObjectPath, &str, &str) = body.deserialize()?;
            if path != job {
                continue;
            }
            return match result {
                "done" => Ok(()),
                other => Err(Fault::Job(other.to_owned())),
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
