//! One connection to a manager or a bus, and calls over it, one after the other, within a deadline.
//!
//! The thread that asks waits itself, so that nothing of a request is left when its answer is there, neither a thread nor a
//! descriptor. zbus's own connections need a runtime with a thread, and a fifth of the program for what is not used here.

use super::Fault;
use super::address::Socket;
use super::message::{self, Kind, Message, Method};
use crate::kernel::manager;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};
use zbus::DynamicType;

/// How long a conversation may take, and who is told that it goes on.
pub(super) struct Patience<'a> {
    pub(super) until: Instant,
    pub(super) tell_every: Duration,
    pub(super) tell: &'a dyn Fn(),
    pub(super) tell_next: std::cell::Cell<Instant>,
}

impl Patience<'_> {
    /// Waits until something can be read from, or written to, a socket.
    fn wait(&self, socket: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Fault> {
        loop {
            let now = Instant::now();
            if now >= self.until {
                return Err(Fault::TimedOut);
            }
            let next = self.tell_next.get();
            if now >= next {
                (self.tell)();
                self.tell_next.set(next + self.tell_every);
                continue;
            }
            let pause = self.until.min(next) - now;
            let pause = Timespec {
                tv_sec: pause.as_secs() as i64,
                tv_nsec: i64::from(pause.subsec_nanos()),
            };
            match poll(&mut [PollFd::from_borrowed_fd(socket, flags)], Some(&pause)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(Fault::Broken(errno.into())),
            }
        }
    }

    /// Lets some time pass.
    pub(super) fn pause(&self, pause: Duration) {
        let left = self.until.saturating_duration_since(Instant::now());
        std::thread::sleep(pause.min(left));
    }
}

/// A connection.
pub(super) struct Talk<'a> {
    socket: OwnedFd,
    patience: &'a Patience<'a>,
    serial: u32,
    /// What came in and is not read yet.
    raw: Vec<u8>,
    /// Signals that came while something else was waited for.
    signals: Vec<Message>,
}

/// The longest line of a server before there are messages.
const LONGEST_LINE: usize = 16 << 10;

impl<'a> Talk<'a> {
    /// Connects, and says who this is (D-Bus specification, "Authentication Protocol"): the kernel vouches for it.
    pub(super) fn begin(socket: &Socket, patience: &'a Patience<'a>) -> Result<Self, Fault> {
        let connected = match socket {
            Socket::Path(path) => manager::connect_now(path),
            Socket::Abstract(name) => manager::connect_now_to_name(name),
        };
        let refused =
            |errno: Errno| Fault::Unreachable(format!("{}: {}", socket.shown(), io::Error::from(errno)));
        let mut talk = Self {
            socket: connected.map_err(refused)?,
            patience,
            serial: 0,
            raw: Vec::new(),
            signals: Vec::new(),
        };
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        // At once, as systemd's own clients do it, and what follows only after the answers: of a first message that comes
        // along with BEGIN the manager takes no notice until another one comes.
        let all = format!("\0AUTH EXTERNAL {uid}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n");
        talk.send(all.as_bytes(), &[])?;
        talk.expect("OK")?;
        talk.expect("AGREE_UNIX_FD")?;
        Ok(talk)
    }

    fn expect(&mut self, word: &str) -> Result<(), Fault> {
        loop {
            if let Some(end) = self.raw.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.raw.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).into_owned();
                return match line.split_ascii_whitespace().next() == Some(word) {
                    true => Ok(()),
                    false => Err(Fault::Unreachable(format!(
                        "it said `{}` in place of {word}",
                        crate::text::escape(line.trim_end())
                    ))),
                };
            }
            if self.raw.len() > LONGEST_LINE {
                return Err(Fault::Unreachable("it speaks no D-Bus".to_owned()));
            }
            self.receive()?;
        }
    }

    /// Calls a method, and returns the answer to it.
    pub(super) fn call<B>(&mut self, method: Method<'_>, body: &B) -> Result<Message, Fault>
    where
        B: serde::Serialize + DynamicType + ?Sized,
    {
        self.serial += 1;
        let serial = self.serial;
        let encoded = message::call(serial, method, body).map_err(|e| Fault::Garbled(e.to_string()))?;
        let fds: Vec<BorrowedFd<'_>> = encoded.body.fds().iter().map(AsFd::as_fd).collect();
        self.send(&encoded.bytes, &fds)?;
        loop {
            let message = self.next()?;
            match message.kind {
                Kind::Signal => self.signals.push(message),
                Kind::Return if message.answers == Some(serial) => return Ok(message),
                Kind::Error if message.answers == Some(serial) => {
                    return Err(Fault::Said {
                        text: message.text(),
                        name: message.error,
                    });
                }
                // Answers to what is not waited for any more, and calls, of which a client answers none.
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(super) fn signal(&mut self) -> Result<Message, Fault> {
        if !self.signals.is_empty() {
            return Ok(self.signals.remove(0));
        }
        loop {
            let message = self.next()?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }

    fn next(&mut self) -> Result<Message, Fault> {
        loop {
            if let Some(length) = message::length(&self.raw).map_err(Fault::Garbled)?
                && self.raw.len() >= length
            {
                let rest = self.raw.split_off(length);
                let message = std::mem::replace(&mut self.raw, rest);
                return Message::read(&message).map_err(Fault::Garbled);
            }
            self.receive()?;
        }
    }

    /// Takes what has come in, at least one byte.
    fn receive(&mut self) -> Result<(), Fault> {
        let mut chunk = [0; 4096];
        loop {
            match rustix::io::read(&self.socket, &mut chunk) {
                Ok(0) => return Err(Fault::Broken(io::ErrorKind::ConnectionReset.into())),
                Ok(read) => {
                    self.raw.extend_from_slice(&chunk[..read]);
                    return Ok(());
                }
                Err(Errno::AGAIN) => self.patience.wait(self.socket.as_fd(), PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Fault::Broken(errno.into())),
            }
        }
    }

    /// Sends all of it, and the descriptors with the first byte.
    fn send(&mut self, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(Fault::Garbled("too many descriptors".to_owned()));
            }
            match sendmsg(
                &self.socket,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    fds = &[];
                }
                Err(Errno::AGAIN) => self.patience.wait(self.socket.as_fd(), PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Fault::Broken(errno.into())),
            }
        }
        Ok(())
    }
}
