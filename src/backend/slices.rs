//! systemd's slices by drop-in files: the limits of `agent.slice` and `workloads.slice` on a systemd machine, where
//! their control files are systemd's alone to write.
//!
//! This version has no D-Bus client: systemd is asked to read its units again through `systemctl`, which also works
//! before any bus runs. That is done by `apply`, `down` and `install` only, never by a launch.

use crate::kernel::process;
use crate::plan::apply::{drop_in_of, unread_path};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

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
/// A reload alone changes no control file of a running slice on systemd 257; setting any property makes it write all
/// of them. The two set here only make it consider memory and io (without the second, an io.weight that is no longer
/// declared would stay as it was), and nothing of them is left behind.
pub fn reload(slices: &[String]) -> Result<(), SystemdError> {
    systemctl(&["daemon-reload"])?;
    for slice in slices {
        systemctl(&["start", slice])?;
        systemctl(&[
            "set-property",
            "--runtime",
            slice,
            "MemoryAccounting=yes",
            "IOAccounting=yes",
        ])?;
        for property in ["MemoryAccounting", "IOAccounting"] {
            write_drop_in(
                &format!("/run/systemd/system.control/{slice}.d/50-{property}.conf"),
                None,
            )?;
        }
    }
    systemctl(&["daemon-reload"])?;
    for slice in slices {
        write_drop_in(&unread_path(&drop_in_of(slice)), None)?;
    }
    Ok(())
}

/// Runs `systemctl` with the system manager.
pub fn systemctl(args: &[&str]) -> Result<String, SystemdError> {
    let shown = format!("systemctl {}", args.join(" "));
    let output = Command::new("systemctl")
        .arg("--system")
        .arg("--no-ask-password")
        .args(args)
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(SystemdError {
            message: format!(
                "`{shown}` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
            help: "`systemctl status` and `journalctl -b -u init.scope` show what systemd said".into(),
        }),
        Err(error) => Err(SystemdError {
            message: format!("cannot run `{shown}`: {error}"),
            help: "is systemd installed and PID 1?".into(),
        }),
    }
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
