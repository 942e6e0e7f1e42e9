//! One datagram to a socket of systemd's, which never waits for long: who does not read must not hold up who tells.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;

/// How often, and how long each time, a full queue is waited for: a second in all.
const ATTEMPTS: u32 = 10;
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Sends `bytes`, and descriptors along with them.
///
/// # Errors
///
/// `EAGAIN`: the queue was full for a second. `EMSGSIZE`, `ENOBUFS`: it is too long. Others: nobody listens there.
pub(super) fn send(to: &SocketAddrUnix, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    connect(&socket, to)?;
    let mut attempts = 0;
    loop {
        let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL);
        }
        let slices = [IoSlice::new(bytes)];
        match sendmsg(&socket, &slices, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if attempts < ATTEMPTS => {
                attempts += 1;
                let _ = poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&PAUSE));
            }
            Err(errno) => return Err(errno),
        }
    }
}
