//! An entry of the journal with fields of its own (systemd.journal-fields(7); the native protocol is at
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).

use super::datagram;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::io;
use std::path::Path;

/// Where the journal takes entries.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// The fields of one entry as the journal reads them, by name and value. Pure.
///
/// Names are upper-case letters, digits and `_`; one of another kind would be left out by the journal.
pub fn encode<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.extend(name.as_bytes());
        // A value of several lines goes with its length: else its second line would be a field of whoever chose the value.
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend((value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// Sends an entry to the journal. `false`: there is no journal on this machine.
///
/// # Errors
///
/// It is there, and takes nothing.
pub fn send(entry: &[u8]) -> io::Result<bool> {
    send_to(Path::new(SOCKET), entry)
}

fn send_to(socket: &Path, entry: &[u8]) -> io::Result<bool> {
    let to = SocketAddrUnix::new(socket)?;
    let sent = match datagram::send(&to, entry, &[]) {
        // What is too long for a datagram goes as a file in memory that nobody can change any more.
        Err(Errno::MSGSIZE | Errno::NOBUFS) => {
            let file = sealed(entry)?;
            datagram::send(&to, &[], &[file.as_fd()])
        }
        other => other,
    };
    match sent {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn sealed(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create(c"cgmgr", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, all)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::io::{IoSliceMut, Read, Seek};
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_value_of_several_lines_goes_with_its_length() {
        assert_eq!(
            encode([("A", "b=c"), ("M", "x\nB=1"), ("E", "")]),
            b"A=b=c\nM\n\x05\0\0\0\0\0\0\0x\nB=1\nE=\n"
        );
    }

    #[test]
    fn what_is_too_long_for_a_datagram_goes_as_a_file() {
        let directory = std::env::temp_dir().join(format!("cgmgr-journal-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        assert!(!send_to(&path, b"A=b\n").unwrap());
        let journal = UnixDatagram::bind(&path).unwrap();
        assert!(send_to(&path, b"A=b\n").unwrap());
        let mut bytes = [0; 64];
        let read = journal.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..read], b"A=b\n");

        let long = encode([("M", "x".repeat(8 << 20).as_str())]);
        assert!(send_to(&path, &long).unwrap());
        let mut space = [MaybeUninit::uninit(); 64];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &journal,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::empty(),
        )
        .unwrap();
        assert_eq!(got.bytes, 0);
        let fds = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let mut file = std::fs::File::from(fds.unwrap());
        file.rewind().unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == long);

        drop(journal);
        assert!(!send_to(&path, b"A=b\n").unwrap());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// A journal that hangs holds up nobody.
    #[test]
    fn a_queue_that_is_full_is_an_error() {
        let directory = std::env::temp_dir().join(format!("cgmgr-journal-full-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        let _journal = UnixDatagram::bind(&path).unwrap();
        // net.unix.max_dgram_qlen is 10 or 512.
        let refused = (0..5000).find_map(|_| send_to(&path, b"A=b\n").err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
