//! Pressure stall information of a group (Documentation/accounting/psi.rst).

use super::error::{Doing, KernelError};
use super::group::Group;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// A tenth of two seconds: without CAP_SYS_RESOURCE the window must be a multiple of two seconds (kernel/sched/psi.c).
const TRIGGER: &str = "some 200000 2000000";

/// Has the kernel tell when tasks of a group wait for memory for a tenth of the time: what is returned becomes readable
/// with `POLLPRI`, at most once in the window of two seconds. Closed, it is no more.
///
/// # Errors
///
/// The kernel keeps no pressure, or this process may not ask.
pub fn trigger(group: &Group) -> Result<OwnedFd, KernelError> {
    let failed = |errno| KernelError::new(Doing::Write, group.file("memory.pressure"), errno);
    let file = group.open("memory.pressure", OFlags::RDWR).map_err(failed)?;
    rustix::io::write(&file, TRIGGER.as_bytes()).map_err(failed)?;
    Ok(file)
}
