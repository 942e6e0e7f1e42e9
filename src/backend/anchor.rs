//! Makes systemd's delegated unit ready for sessions, from the process that holds it open.
//!
//! Controllers can be enabled for a group's children only while the group itself holds no process, so the anchor goes
//! into a leaf of its own first.

use super::cgroupfs;
use crate::host::{Base, Hierarchy, SUPERVISOR};
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::survey::MADE;
use crate::kernel::{Tree, base, probe, process};
use crate::path::GroupPath;
use crate::plan::hierarchy;
use crate::plan::state::MADE_BY_ANCHOR;
use crate::plan::step::signed;
use rustix::io::Errno;
use std::io;
use std::os::unix::net::UnixDatagram;

/// Why the unit could not be made ready.
pub fn prepare() -> Result<GroupPath, KernelError> {
    let refused = |path: &str, detail: &str| {
        KernelError::new(Doing::Other, path, Errno::NOTSUP).with_detail(detail.to_owned())
    };
    let hierarchy = probe::hierarchy();
    let Hierarchy::Unified(mount) = &hierarchy else {
        return Err(refused(
            "/sys/fs/cgroup",
            &format!(
                "a unified cgroup v2 hierarchy is needed, this one is {}",
                hierarchy.label()
            ),
        ));
    };
    let tree = Tree::open(&mount.point)?;
    let own = process::own_group().and_then(|g| GroupPath::new(&g));
    let own = own.ok_or_else(|| {
        refused(
            "/proc/self/cgroup",
            "this process is in no group that can be seen",
        )
    })?;
    let unit = tree.group(&own)?;
    if !base::delegated(&unit)? {
        return Err(refused(
            unit.path(),
            "this group was not delegated: `cgmgr anchor` is for cgmgr-sessions.service to start",
        ));
    }
    let leaf = match unit.make_child(SUPERVISOR) {
        Err(e) if e.errno == Errno::EXIST => unit.child(SUPERVISOR)?,
        other => other?,
    };
    // Not `made=1`: `cgmgr down` would take the leaf away, and with it the unit's only process.
    leaf.mark(MADE, MADE_BY_ANCHOR)?;
    leaf.write("cgroup.procs", "0")?;
    let wanted = hierarchy::wanted(&Base::sessions_unit(own.clone(), base::controllers(&unit)?));
    if !wanted.is_empty() {
        cgroupfs::enable(&unit, &signed('+', &wanted))?;
    }
    Ok(own)
}

/// Tells the service manager that the unit is ready (sd_notify(3)). Without one that listens there is nothing to do.
pub fn tell_ready() -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|n| !n.is_empty()) else {
        return Ok(());
    };
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1\nSTATUS=Ready for sessions", &address)?;
    Ok(())
}

/// Sleeps until SIGTERM or SIGINT.
pub fn hold() {
    use nix::sys::signal::{SigSet, Signal};
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    // Stopping the unit also sends SIGHUP, which must not count as a death.
    set.add(Signal::SIGHUP);
    let _ = set.thread_block();
    while let Ok(signal) = set.wait() {
        if signal != Signal::SIGHUP {
            return;
        }
    }
}
