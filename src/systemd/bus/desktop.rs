//! Notifications on a session bus (Desktop Notifications Specification, "org.freedesktop.Notifications.Notify").

use super::address::{self, Socket};
use super::message::Method;
use super::talk::Patience;
use super::{Fault, Reason, begin_first, in_runtime_directories};
use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};
use zbus::Variant;

/// What is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// One line.
    pub summary: String,
    /// The rest, as plain text.
    pub body: String,
    /// Whether it stays until somebody has seen it.
    pub urgent: bool,
}

/// Shows it to whoever sits at the session bus at `bus`, or at this user's own where that is none. `false`: nobody does,
/// or there is no such bus.
///
/// # Errors
///
/// There is one, and it refuses, or does not answer within `time`.
pub fn show(bus: Option<&Path>, note: &Note, time: Duration) -> Result<bool, String> {
    let sockets = match bus {
        Some(path) => vec![Socket::Path(path.to_owned())],
        None => match std::env::var("DBUS_SESSION_BUS_ADDRESS") {
            Ok(address) if !address.is_empty() => address::sockets(&address),
            _ => in_runtime_directories("bus"),
        },
    };
    match show_at(&sockets, note, time) {
        Ok(()) => Ok(true),
        // No bus, or one that no desktop is at.
        Err(Fault::Unreachable(why)) => {
            tracing::debug!("no desktop: {why}");
            Ok(false)
        }
        Err(Fault::Said { name, .. }) if Reason::of_name(&name) == Reason::Unreachable => Ok(false),
        Err(Fault::Said { name, text }) => Err(text.unwrap_or(name)),
        Err(Fault::TimedOut) => Err(format!("no answer within {} s", time.as_secs_f32())),
        Err(Fault::Broken(error)) => Err(error.to_string()),
        Err(Fault::Garbled(what)) => Err(format!("its answer cannot be read: {what}")),
        Err(Fault::Twice | Fault::Job(_)) => Err("an answer that makes no sense".to_owned()),
    }
}

fn show_at(sockets: &[Socket], note: &Note, time: Duration) -> Result<(), Fault> {
    let until = Instant::now() + time;
    let patience = Patience {
        until,
        tell_every: time,
        tell: &|| {},
        tell_next: Cell::new(until),
    };
    let mut talk = begin_first(sockets, &patience)?;
    let method = |name, path, interface, member| Method {
        destination: name,
        path,
        interface,
        member,
    };
    let bus = "org.freedesktop.DBus";
    talk.call(method(bus, "/org/freedesktop/DBus", bus, "Hello"), &())?;
    let name = "org.freedesktop.Notifications";
    let urgency: u8 = if note.urgent { 2 } else { 1 };
    let (replaces, actions, whenever) = (0_u32, Vec::<&str>::new(), -1_i32);
    // A body may have markup, so that what others chose could be a link.
    let body = note
        .body
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let arguments = (
        "cgmgr",
        replaces,
        "dialog-warning",
        note.summary.as_str(),
        body.as_str(),
        actions,
        HashMap::from([("urgency", Variant::U8(urgency))]),
        whenever,
    );
    talk.call(
        method(name, "/org/freedesktop/Notifications", name, "Notify"),
        &arguments,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::message::{self, Message};
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use zbus::OwnedVariant;

    fn note() -> Note {
        Note {
            summary: "cgmgr: a oom kill".into(),
            body: "a <b> & c".into(),
            urgent: true,
        }
    }

    /// The next call, and its serial.
    fn next(client: &mut UnixStream) -> (Message, [u8; 4]) {
        let mut bytes = Vec::new();
        loop {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
            if message::length(&bytes).unwrap() == Some(bytes.len()) {
                let serial = [bytes[8], bytes[9], bytes[10], bytes[11]];
                return (Message::read(&bytes).unwrap(), serial);
            }
        }
    }

    /// An answer of type 2 (return) or 3 (error, with its name) without a body.
    fn answer(serial: [u8; 4], error: &str) -> Vec<u8> {
        let mut fields = [&[5, 1, b'u', 0][..], &serial].concat();
        if !error.is_empty() {
            fields.extend([4, 1, b's', 0]);
            fields.extend((error.len() as u32).to_le_bytes());
            fields.extend(error.as_bytes());
            fields.push(0);
        }
        let kind = if error.is_empty() { 2 } else { 3 };
        let mut bytes = vec![b'l', kind, 0, 1];
        for number in [0, 7, fields.len() as u32] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(fields);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A bus with a desktop that answers with `error`, or not at all. Returns what it was asked to show.
    fn with_bus(name: &str, error: Option<&'static str>, time: Duration) -> (Result<bool, String>, Message) {
        let directory = std::env::temp_dir().join(format!("cgmgr-desktop-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path: PathBuf = directory.join("bus");
        let bus = UnixListener::bind(&path).unwrap();
        let bus = std::thread::spawn(move || {
            let (mut client, _) = bus.accept().unwrap();
            let mut greeting = Vec::new();
            while !greeting.ends_with(b"BEGIN\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                greeting.push(byte[0]);
            }
            client.write_all(b"OK 0123\r\nAGREE_UNIX_FD\r\n").unwrap();
            let (hello, serial) = next(&mut client);
            assert_eq!(hello.member, "Hello");
            client.write_all(&answer(serial, "")).unwrap();
            let (notify, serial) = next(&mut client);
            match error {
                Some(error) => client.write_all(&answer(serial, error)).unwrap(),
                // Until the other side gives up.
                None => assert_eq!(client.read(&mut [0]).unwrap(), 0),
            }
            notify
        });
        let shown = show(Some(&path), &note(), time);
        let asked = bus.join().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        (shown, asked)
    }

    #[test]
    fn a_desktop_is_asked_to_show_it() {
        let (shown, asked) = with_bus("shows", Some(""), Duration::from_secs(60));
        assert_eq!(shown, Ok(true));
        assert_eq!(
            (asked.interface.as_str(), asked.member.as_str()),
            ("org.freedesktop.Notifications", "Notify")
        );
        type Arguments = (
            String,
            u32,
            String,
            String,
            String,
            Vec<String>,
            HashMap<String, OwnedVariant>,
            i32,
        );
        let (name, replaces, _, summary, body, actions, hints, expires) =
            asked.body(|arguments: Arguments| arguments).unwrap();
        assert_eq!((name.as_str(), replaces, expires), ("cgmgr", 0, -1));
        assert_eq!(summary, note().summary);
        assert_eq!(body, "a &lt;b&gt; &amp; c");
        assert!(actions.is_empty());
        assert_eq!(*hints["urgency"], Variant::U8(2));
    }

    #[test]
    fn where_no_desktop_is_there_is_no_failure() {
        let none = show(Some(Path::new("/no/such")), &note(), Duration::from_secs(60));
        assert_eq!(none, Ok(false));
        let nobody = Some("org.freedesktop.DBus.Error.ServiceUnknown");
        assert_eq!(with_bus("nobody", nobody, Duration::from_secs(60)).0, Ok(false));
    }

    #[test]
    fn one_that_refuses_or_hangs_is_a_failure() {
        let (refused, _) = with_bus("refuses", Some("org.x.Refused"), Duration::from_secs(60));
        assert_eq!(refused, Err("org.x.Refused".to_owned()));
        let (hung, _) = with_bus("hangs", None, Duration::from_millis(300));
        assert_eq!(hung, Err("no answer within 0.3 s".to_owned()));
    }
}
