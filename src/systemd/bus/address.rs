//! Where a bus listens (D-Bus specification, "Server Addresses"). Pure.
//!
//! Sockets of this machine only: systemd has no other, and a bus that is reached over a network is not this machine's.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The system bus's, where the environment says no other.
pub(super) const SYSTEM: &str = "unix:path=/run/dbus/system_bus_socket";

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Socket {
    /// A file.
    Path(PathBuf),
    /// A name in the abstract namespace (unix(7)).
    Abstract(Vec<u8>),
}

/// The sockets that an address names, in order; those of other kinds are left out.
pub(super) fn sockets(address: &str) -> Vec<Socket> {
    address.split(';').filter_map(socket).collect()
}

fn socket(one: &str) -> Option<Socket> {
    let pairs = one.trim().strip_prefix("unix:")?.split(',');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| {
            let value = unescape(value.as_bytes())?;
            match key {
                "path" => Some(Socket::Path(OsString::from_vec(value).into())),
                "abstract" => Some(Socket::Abstract(value)),
                _ => None,
            }
        })
}

/// `%` and two hexadecimal digits stand for a byte.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digit = |byte: Option<&u8>| (*byte? as char).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(value as u8);
    }
    Some(bytes)
}

impl Socket {
    /// For people.
    pub(super) fn shown(&self) -> String {
        let text = match self {
            Self::Path(path) => String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned(),
            Self::Abstract(name) => format!("@{}", String::from_utf8_lossy(name)),
        };
        crate::text::escape(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_this_machine_are_found() {
        let path = |text: &str| Socket::Path(text.into());
        assert_eq!(sockets(SYSTEM), [path("/run/dbus/system_bus_socket")]);
        assert_eq!(
            sockets(
                "tcp:host=x,port=1;unix:abstract=/tmp/dbus-%41,guid=00;unix:guid=1,path=/run/user/7/b%20s"
            ),
            [Socket::Abstract(b"/tmp/dbus-A".to_vec()), path("/run/user/7/b s")]
        );
        for none in [
            "",
            "unix:",
            "unix:path",
            "unix:path=/a%4",
            "unix:path=%zz",
            "autolaunch:",
            "unixexec:path=x",
        ] {
            assert_eq!(sockets(none), [], "{none}");
        }
    }
}
