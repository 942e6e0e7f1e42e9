//! What a service tells the manager that started it (sd_notify(3), sd_watchdog_enabled(3)).
//!
//! Written here and not taken from the crate sd-notify: the datagram is sent as an entry of the journal is, and what else
//! there is to it are three variables. They stay in the environment, so whoever is given that should not be a session.

use super::datagram;
use crate::text::escape;
use rustix::net::SocketAddrUnix;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State<'a> {
    /// The start is done: what is ordered after it may begin.
    Ready,
    /// It still works: without this for `WatchdogSec=` it is killed and started anew.
    Alive,
    /// It is about to end.
    Stopping,
    /// What it does, in a line for `systemctl status`.
    Status(&'a str),
}

/// The manager that started this process, if one did and wants to be told.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<SocketAddrUnix>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment of this process says.
    pub fn of_environment() -> Self {
        Self::of(&|name| std::env::var_os(name), std::process::id())
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>, own: u32) -> Self {
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let address = |name: OsString| match name.as_bytes() {
            [b'/', ..] => SocketAddrUnix::new(&*name).ok(),
            [b'@', abstract_name @ ..] => SocketAddrUnix::new_abstract_name(abstract_name).ok(),
            // Of virtual machines (AF_VSOCK), which a service is not told by.
            _ => None,
        };
        // A process that inherited the variables is not the one that is watched.
        let is_own = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(own.into());
        Self {
            socket: variable("NOTIFY_SOCKET").and_then(address),
            watchdog: number("WATCHDOG_USEC")
                .filter(|usec| is_own && *usec > 0)
                .map(Duration::from_micros),
        }
    }

    /// How often [`State::Alive`] is to be told: twice as often as is asked for, as sd_watchdog_enabled(3) recommends; `None`:
    /// nobody waits for it.
    pub fn beat(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        Some(self.watchdog? / 2)
    }

    /// Tells the manager. `false`: there is none to be told. Waits for at most a second.
    ///
    /// # Errors
    ///
    /// It is there and takes nothing.
    pub fn tell(&self, states: &[State<'_>]) -> io::Result<bool> {
        let Some(socket) = &self.socket else {
            return Ok(false);
        };
        datagram::send(socket, message(states).as_bytes(), &[])?;
        Ok(true)
    }
}

fn message(states: &[State<'_>]) -> String {
    let lines = states.iter().map(|state| match state {
        State::Ready => "READY=1\n".to_owned(),
        State::Alive => "WATCHDOG=1\n".to_owned(),
        State::Stopping => "STOPPING=1\n".to_owned(),
        // A line end would make a variable of what follows it.
        State::Status(text) => format!("STATUS={}\n", escape(text)),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn of(variables: &[(&str, &str)]) -> Notifier {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(found.1))
        };
        Notifier::of(&variable, 77)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_is_told_at_a_path() {
        let directory = std::env::temp_dir().join(format!("cgmgr-notify-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        let notifier = of(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        assert!(notifier.tell(&[State::Ready]).is_err(), "nobody is there");
        let manager = UnixDatagram::bind(&path).unwrap();
        let states = [State::Ready, State::Status("2 sessions\nREADY=0"), State::Alive];
        assert!(notifier.tell(&states).unwrap());
        assert_eq!(
            received(&manager),
            "READY=1\nSTATUS=2 sessions\\nREADY=0\nWATCHDOG=1\n"
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_manager_is_told_at_an_abstract_name() {
        let name = format!("cgmgr-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = of(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
        assert!(notifier.tell(&[State::Stopping]).unwrap());
        assert_eq!(received(&manager), "STOPPING=1\n");
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        for none in [
            &[][..],
            &[("NOTIFY_SOCKET", "")],
            &[("NOTIFY_SOCKET", "vsock:2:5")],
        ] {
            assert!(!of(none).tell(&[State::Ready]).unwrap());
            assert_eq!(of(none).beat(), None);
        }
    }

    #[test]
    fn only_who_is_watched_beats() {
        let with = |usec: &str, pid: Option<&str>| {
            let mut all = vec![("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", usec)];
            all.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            of(&all).beat()
        };
        let half = Some(Duration::from_secs(15));
        assert_eq!(with("30000000", Some("77")), half);
        assert_eq!(with("30000000", None), half);
        assert_eq!(with("30000000", Some("78")), None);
        assert_eq!(with("30000000", Some("x")), None);
        assert_eq!(
            (with("0", None), with("x", None), with("", None)),
            (None, None, None)
        );
        assert_eq!(of(&[("WATCHDOG_USEC", "30000000")]).beat(), None);
    }
}
