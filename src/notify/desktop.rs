//! A notification on the desktop of the session's user.

use crate::record::{Fact, Record};
use crate::systemd::desktop::{self, Note};
use crate::text::escape;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// How long it may take.
const TIME: Duration = Duration::from_secs(2);

/// Shows it on the desktop of the user, where he has one. Where he is another user than this process is one of, it becomes
/// his for good: a session bus lets only its own user in, and root is not to go about in what belongs to others.
///
/// # Errors
///
/// There is a bus, and it does not take it.
pub(super) fn show(uid: u32, record: &Record, sentence: &str) -> Result<(), String> {
    let failed = |why: String| format!("the desktop of uid {uid}: {why}");
    let bus = match Uid::effective().as_raw() == uid {
        true => None,
        false => {
            let directory = PathBuf::from(format!("/run/user/{uid}"));
            // Nobody but root makes directories there (pam_systemd(8)), and its group is the user's own.
            let Ok(found) = std::fs::symlink_metadata(&directory) else {
                return Ok(());
            };
            if !found.is_dir() || found.uid() != uid {
                return Ok(());
            }
            become_user(uid, found.gid())
                .map_err(|errno| failed(format!("cannot become that user: {errno}")))?;
            Some(directory.join("bus"))
        }
    };
    let session = record.session.as_deref().map(escape).unwrap_or_default();
    let note = Note {
        summary: format!("cgmgr: {session} {}", record.fact.name().replace('_', " ")),
        body: sentence.lines().map(escape).collect::<Vec<_>>().join("\n"),
        urgent: matches!(record.fact, Fact::OomKill(_)),
    };
    desktop::show(bus.as_deref(), &note, TIME)
        .map(|_| ())
        .map_err(failed)
}

fn become_user(uid: u32, gid: u32) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}
