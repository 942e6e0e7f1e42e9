//! A manager's own socket, which has no bus behind it.
//!
//! systemd names itself as the sender of every message there (src/core/dbus.c, bus_on_connection), by the name that it has
//! on a bus: `org.freedesktop.systemd1`. The specification wants a unique name in that place, which begins with a colon, and
//! zbus takes no message without. So that first letter is made a colon before zbus reads it; nothing else is changed, and
//! nobody asks who the sender was, where there is but one.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zruntime::{AsyncIo, Shared, SharedRuntime};

type Stream = AsyncIo<UnixStream, Shared>;

/// A connection's socket.
#[derive(Debug)]
pub struct Direct(Arc<Stream>);

impl Direct {
    /// `stream`, watched by `runtime`.
    pub fn new(runtime: &SharedRuntime, stream: UnixStream) -> io::Result<Self> {
        Ok(Self(Arc::new(AsyncIo::new(runtime, stream)?)))
    }
}

impl Socket for Direct {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let reader = Reader {
            stream: self.0.clone(),
            raw: Vec::new(),
            ready: Vec::new(),
        };
        Split::new(reader, Writer(self.0))
    }
}

/// What comes in.
#[derive(Debug)]
pub struct Reader {
    stream: Arc<Stream>,
    /// Not yet whole.
    raw: Vec<u8>,
    /// To be handed out.
    ready: Vec<u8>,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        while self.ready.is_empty() {
            let mut chunk = [0; 4096];
            let read = self
                .stream
                .read_with(|mut s: &UnixStream| s.read(&mut chunk))
                .await?;
            if read == 0 {
                return Ok((0, Vec::new()));
            }
            self.raw.extend_from_slice(&chunk[..read]);
            while let Some(length) = whole(&self.raw) {
                let rest = self.raw.split_off(length);
                name_sender(&mut self.raw);
                self.ready.append(&mut self.raw);
                self.raw = rest;
            }
        }
        let count = buffer.len().min(self.ready.len());
        buffer[..count].copy_from_slice(&self.ready[..count]);
        self.ready.drain(..count);
        // systemd hands no descriptor out in what it is asked here.
        Ok((count, Vec::new()))
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

/// What goes out.
#[derive(Debug)]
pub struct Writer(Arc<Stream>);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
        self.0
            .write_with(|stream| {
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let data = [IoSlice::new(buffer)];
                Ok(sendmsg(stream, &data, &mut control, SendFlags::NOSIGNAL)?)
            })
            .await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.get_ref().shutdown(std::net::Shutdown::Both)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

/// The fixed begin of a message.
const BEGIN: usize = 16;

/// The number at `at` in a message's byte order.
fn number(message: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 4] = message.get(at..at.checked_add(4)?)?.try_into().ok()?;
    let number = match message.first()? {
        b'l' => u32::from_le_bytes(bytes),
        _ => u32::from_be_bytes(bytes),
    };
    usize::try_from(number).ok()
}

/// The length of the first message, or of the first line before there are messages, where it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    // Of the words that a server says before, none begins with a byte order.
    if !matches!(bytes.first()?, b'l' | b'B') {
        return Some(bytes.iter().position(|b| *b == b'\n')? + 1);
    }
    let fields = number(bytes, 12)?;
    let body = number(bytes, 4)?;
    let length = BEGIN
        .checked_add(fields)?
        .checked_next_multiple_of(8)?
        .checked_add(body)?;
    (bytes.len() >= length).then_some(length)
}

/// Makes the sender of a message a unique name.
fn name_sender(message: &mut [u8]) {
    if let Some(first) = sender(message).and_then(|at| message.get_mut(at)) {
        *first = b':';
    }
}

/// Where the sender's name begins (D-Bus specification, "Message Format" and "Marshaling").
fn sender(message: &[u8]) -> Option<usize> {
    const SENDER: u8 = 7;
    if !matches!(message.first()?, b'l' | b'B') {
        return None;
    }
    let end = BEGIN.checked_add(number(message, 12)?)?;
    let mut at = BEGIN;
    while at < end {
        let &[code, 1, kind, 0] = message.get(at..at + 4)? else {
            return None;
        };
        at += 4;
        if code == SENDER {
            return Some(at + 4);
        }
        at += match kind {
            b's' | b'o' => 4 + number(message, at)? + 1,
            b'g' => 1 + usize::from(*message.get(at)?) + 1,
            b'u' => 4,
            _ => return None,
        };
        at = at.next_multiple_of(8);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply as systemd sends it: to serial 2, with a sender of this name and a text.
    fn reply(sender: &str) -> Vec<u8> {
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
        };
        let mut fields = vec![5, 1, b'u', 0, 2, 0, 0, 0];
        fields.extend([8, 1, b'g', 0, 1, b's', 0, 0]);
        fields.extend([7, 1, b's', 0]);
        text(&mut fields, sender);
        let mut body = Vec::new();
        text(&mut body, "hello");
        let mut message = vec![b'l', 2, 1, 1];
        for number in [body.len(), 9, fields.len()] {
            message.extend((number as u32).to_le_bytes());
        }
        message.extend(fields);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }

    #[test]
    fn the_sender_is_named_as_on_no_bus() {
        let mut message = reply("org.freedesktop.systemd1");
        name_sender(&mut message);
        assert_eq!(message, reply(":rg.freedesktop.systemd1"));
    }

    #[test]
    fn what_is_whole_is_known_and_nothing_is_read_beyond_what_there_is() {
        let message = reply("org.freedesktop.systemd1");
        for length in 0..message.len() {
            assert_eq!(whole(&message[..length]), None);
            name_sender(&mut message[..length].to_vec());
        }
        let two = [&message[..], &message[..5]].concat();
        assert_eq!(whole(&two), Some(message.len()));
        assert_eq!(whole(b"OK 00\r\nAGREE_UNIX_FD\r\n"), Some(7));
        assert_eq!(whole(b"OK 0"), None);
    }
}
