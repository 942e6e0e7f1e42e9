//! systemd, asked over D-Bus: units, their properties, and the jobs that change them; the journal; what a service tells
//! its manager; and the desktop, which is at the other end of the same bus.
//!
//! On a systemd machine the tree belongs to systemd: what is written behind its back is undone. This module says what
//! systemd is to do and waits until that is done; what the kernel then holds is read from the kernel by the others.
//! No other program (`systemctl`, `systemd-run`) is started for any of it.

pub mod bus;
mod datagram;
mod error;
pub mod journal;
pub mod notify;

pub use crate::host::Manager;
pub use crate::plan::unit::{Property, Value};
pub use bus::{Systemd, Unit, desktop};
pub use error::{BusError, Reason};
