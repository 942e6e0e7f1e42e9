//! What the commands that read records share.

use super::context::CommandError;
use crate::session::records::now_usec;
use crate::store::{Directory, Store};
use crate::text::{escape, moment};
use std::io;

/// The caller's store.
pub fn store() -> Result<Store, CommandError> {
    let directory = Directory::of_caller().ok_or_else(|| {
        CommandError::failed(
            "nothing says where this user's records are: neither XDG_STATE_HOME nor HOME is set",
            "set HOME, or name the directory with CGMGR_STATE_DIR",
        )
    })?;
    Ok(Store::new(directory))
}

/// Records that cannot be read.
pub fn place(error: io::Error) -> CommandError {
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => "ask as the user whose sessions they are of, or as root",
        _ => "CGMGR_STATE_DIR names another directory",
    };
    CommandError::failed(format!("cannot read records: {error}"), help)
}

/// The moment of `--since`, in microseconds since 1970.
pub fn since(typed: Option<&str>) -> Result<Option<u64>, CommandError> {
    let read = |text: &str| {
        moment(text, now_usec()).ok_or_else(|| {
            CommandError::usage(
                format!("--since {}: that is no moment", escape(text)),
                "e.g. 90s, 10m, 2h, 7d (so long ago), 2026-11-23, \"2026-11-23 05:33\" (UTC), @1795412001",
            )
        })
    };
    typed.map(read).transpose()
}
