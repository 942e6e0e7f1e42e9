//! The slices of a systemd machine, whose control files are systemd's alone to write: by drop-in files where they have
//! a unit file, and by request where they have none.
//!
//! This is done by `apply`, `down` and `install` only, never by a launch of a delegated session.

use crate::host::Base;
use crate::kernel::process;
use crate::plan::apply::{drop_in_of, unread_path};
use crate::plan::state::{SliceUnit, Survey};
use crate::plan::unit::{Property, Value};
use crate::systemd::{BusError, Manager, Reason, Systemd};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

/// What systemd, or a file of its configuration, refused.
#[derive(Debug)]
pub struct SystemdError {
    /// What was tried, and the answer.
    pub message: String,
    /// One line of remedy.
    pub help: String,
}

impl fmt::Display for SystemdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SystemdError {}

impl From<BusError> for SystemdError {
    fn from(error: BusError) -> Self {
        Self {
            message: error.message,
            help: error.help,
        }
    }
}

/// Writes a file of systemd's configuration atomically, or with no text removes it (and its directory, if that is
/// empty then).
pub fn write_drop_in(path: &str, text: Option<&str>) -> Result<(), SystemdError> {
    let refused = |error: io::Error| SystemdError {
        message: format!(
            "cannot {} {path}: {error}",
            if text.is_some() { "write" } else { "remove" }
        ),
        help: "run as root".into(),
    };
    let file = Path::new(path);
    let Some(directory) = file.parent() else {
        return Ok(());
    };
    sweep(path);
    match text {
        Some(text) => {
            std::fs::create_dir_all(directory).map_err(refused)?;
            let temporary = directory.join(format!(".{}.{}", file_name(file), std::process::id()));
            let written = std::fs::File::create(&temporary)
                .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
                .and_then(|()| std::fs::rename(&temporary, file));
            if written.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            written.map_err(refused)
        }
        None => {
            match std::fs::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(refused(e)),
                _ => {}
            }
            // Not empty: somebody else's drop-ins are in it.
            let _ = std::fs::remove_dir(directory);
            Ok(())
        }
    }
}

/// Changes a drop-in of a slice, which systemd is to be told with [`reload`]. Until that is done a file beside it says so:
/// whoever is killed between the two leaves it to the next `apply` or `down`, which would find nothing to change otherwise.
pub fn change_drop_in(path: &str, text: Option<&str>) -> Result<(), SystemdError> {
    let marker = unread_path(path);
    let made = Path::new(&marker)
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::File::create(&marker));
    made.map_err(|error| SystemdError {
        message: format!("cannot write {marker}: {error}"),
        help: "run as root".into(),
    })?;
    write_drop_in(path, text)
}

/// Takes a change back of which systemd was not told, where a former one was still `unread` or not.
pub fn unchange_drop_in(path: &str, text: Option<&str>, unread: bool) -> Result<(), SystemdError> {
    write_drop_in(path, text)?;
    if unread {
        return Ok(());
    }
    write_drop_in(&unread_path(path), None)
}

/// Whether systemd is yet to carry out a change of this drop-in.
pub fn is_unread(path: &str) -> bool {
    Path::new(&unread_path(path)).exists()
}

/// Removes what processes that were killed while they wrote this file left beside it.
pub fn sweep(path: &str) {
    let file = Path::new(path);
    let Some(directory) = file.parent() else { return };
    let begin = format!(".{}.", file_name(file));
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(&begin)?.parse().ok());
        if pid.is_some_and(|pid: i32| process::stat(pid).is_none()) {
            let _ = std::fs::remove_file(entry.path());
            // Not empty: somebody else's drop-ins are in it.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Has systemd read its units again, start the slices, and write their limits to the kernel.
///
/// A reload alone changes no control file of a running slice on systemd 257: it marks all of them as to be written, and
/// the next property that is set has systemd write them (src/core/unit-serialize.c, unit_deserialize_state). `Markers` is
/// the one property that is kept in no file; the empty list changes nothing of it. Measured with 252 and 257: one reload
/// is enough, and nothing is left in /run/systemd/system.control.
pub fn reload(slices: &[String]) -> Result<(), SystemdError> {
    let systemd = Systemd::of(Manager::System);
    systemd.reload()?;
    for slice in slices {
        systemd.start(slice)?;
        systemd.set_properties(slice, &[Property::new("Markers", Value::Texts(Vec::new()))])?;
    }
    for slice in slices {
        write_drop_in(&unread_path(&drop_in_of(slice)), None)?;
    }
    Ok(())
}

/// Adds to a survey how systemd has the slices, where they are systemd's.
pub fn look(survey: &mut Survey, base: &Base) -> Result<(), SystemdError> {
    // Those of a user's own systemd are not set by cgmgr.
    if !base.slices_are_systemds() || base.is_users() {
        return Ok(());
    }
    let systemd = Systemd::of(Manager::System);
    for slice in [&base.agent, &base.workloads] {
        let unit = systemd.unit(slice.name().unwrap_or_default())?;
        let unit = SliceUnit {
            active: unit.is_active(),
            fragment: unit.fragment,
            description: unit.description,
            drop_ins: unit.drop_ins,
        };
        if !unit.is_in_a_file() && survey.systemd.is_none() {
            survey.systemd = Some(systemd.version()?);
        }
        survey.units.insert(slice.clone(), unit);
    }
    Ok(())
}

/// Has systemd make a unit that is in no file.
pub(super) fn start_transient(unit: &str, properties: &[Property]) -> Result<(), BusError> {
    Systemd::of(Manager::System).start_transient(unit, properties, &[])
}

/// Sets properties of a unit until the next boot.
pub(super) fn set_properties(unit: &str, properties: &[Property]) -> Result<(), BusError> {
    Systemd::of(Manager::System).set_properties(unit, properties)
}

/// Stops a unit that is in no file.
///
/// Where systemd was reloaded while the file of the request was there, it looks for that file for ever, and nobody could
/// start anything in a slice of that name (measured with 252 and 257: "Unit workloads.slice not found"): it is told to
/// look again.
pub(super) fn stop(unit: &str) -> Result<(), BusError> {
    let systemd = Systemd::of(Manager::System);
    match systemd.stop(unit) {
        Err(e) if e.reason == Reason::NoSuchUnit => {}
        other => other?,
    }
    if systemd.unit(unit)?.load == "not-found" {
        systemd.reload()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_left_goes_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("cgmgr-slices-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let living = format!(".a.conf.{}", std::process::id());
        // No pid is as high as this.
        for name in [".a.conf.2147483647", ".b.conf.2147483647", &living] {
            std::fs::write(path(name), "").unwrap();
        }
        sweep(&path("a.conf"));
        let left = |name: &str| std::fs::exists(path(name)).unwrap();
        assert!(!left(".a.conf.2147483647") && left(".b.conf.2147483647") && left(&living));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
