//! The user's own systemd, as far as the kernel shows it: whether somebody listens at its socket, and which groups are its.

use super::process;
use crate::host::SESSIONS_UNIT;
use crate::path::GroupPath;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::path::{Path, PathBuf};

/// Where the user's sockets may be: `$XDG_RUNTIME_DIR` (pam_systemd(8)), and, where that is not set or is another user's,
/// as after su(1), the place that it stands for.
pub fn runtime_directories() -> Vec<PathBuf> {
    let named = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
    let usual = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    let mut all: Vec<PathBuf> = named.into_iter().map(PathBuf::from).collect();
    if !all.contains(&usual) {
        all.push(usual);
    }
    all
}

/// Where the user's configuration is (XDG Base Directory Specification; systemd.unit(5), "Unit File Load Path"); `None`
/// where his environment does not tell.
pub fn configuration() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let directory = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    directory.filter(|directory| directory.is_absolute())
}

/// Where `cgmgr install --user` puts the unit that makes the scope of sessions.
pub fn unit_of_user() -> Option<PathBuf> {
    Some(configuration()?.join("systemd/user").join(SESSIONS_UNIT))
}

/// The group that the user's own systemd manages; `None` where none of his runs.
///
/// That its socket is there is no proof: it outlives its manager (measured with 257). So it is connected to, which never
/// waits, and whoever listens is asked for by the kernel: his group is the manager's, whatever the tree looks like.
///
/// # Errors
///
/// `EAGAIN`: so many wait for it already that it cannot be told.
pub fn of_user() -> Result<Option<GroupPath>, Errno> {
    for directory in runtime_directories() {
        match listener(&directory.join("systemd/private")) {
            Ok(Some(pid)) => return Ok(group_managed_by(pid)),
            Ok(None) => {}
            Err(Errno::AGAIN) => return Err(Errno::AGAIN),
            Err(errno) => tracing::debug!(
                "no systemd of the user's at {}: {}",
                directory.display(),
                std::io::Error::from(errno)
            ),
        }
    }
    Ok(None)
}

/// Connects to a socket, which does not block. Does not wait where so many wait already that there is no place left in the
/// listener's queue (`EAGAIN`): that would be a wait without an end.
///
/// # Errors
///
/// Nobody listens there, or this user may not connect.
pub fn connect_now(path: &Path) -> Result<OwnedFd, Errno> {
    connect_to(&SocketAddrUnix::new(path)?)
}

/// The same for a socket that has a name in the abstract namespace (unix(7)).
///
/// # Errors
///
/// Nobody listens there, or this user may not connect.
pub fn connect_now_to_name(name: &[u8]) -> Result<OwnedFd, Errno> {
    connect_to(&SocketAddrUnix::new_abstract_name(name)?)
}

fn connect_to(address: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, address)?;
    Ok(socket)
}

/// The process of this user's that listens at a socket; `None` where it is another user's.
fn listener(path: &Path) -> Result<Option<i32>, Errno> {
    let socket = connect_now(path)?;
    let peer = socket_peercred(&socket)?;
    let is_his = peer.uid == rustix::process::geteuid();
    Ok(is_his.then(|| peer.pid.as_raw_nonzero().get()))
}

/// The manager sits in `init.scope` of what it manages (systemd's src/core/cgroup.c, manager_setup_cgroup).
fn group_managed_by(pid: i32) -> Option<GroupPath> {
    let own = GroupPath::new(&process::group_of(pid)?)?;
    own.parent().filter(|_| own.name() == Some("init.scope"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_without_anybody_behind_it_is_no_manager() {
        let directory = std::env::temp_dir().join(format!("cgmgr-manager-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("private");
        assert_eq!(listener(&path), Err(Errno::NOENT));
        let behind = UnixListener::bind(&path).unwrap();
        assert_eq!(listener(&path), Ok(Some(std::process::id() as i32)));
        drop(behind);
        assert_eq!(listener(&path), Err(Errno::CONNREFUSED));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn who_is_not_in_an_init_scope_manages_nothing() {
        let own = std::process::id() as i32;
        let in_one = process::own_group().is_some_and(|group| group.ends_with("/init.scope"));
        assert_eq!(group_managed_by(own).is_some(), in_one);
    }
}
