//! Has a manager of systemd take up what was written to its unit files.

use crate::systemd::{BusError, Manager, Property, Systemd};
use std::path::PathBuf;

/// Has the manager read its unit files anew, start these slices, and write their limits to the kernel.
///
/// A reload alone changes no control file of a running slice on systemd 257; setting any property makes it write all of
/// them. The two set here only make it consider memory and io, and nothing of them is left behind.
///
/// # Errors
///
/// The manager cannot be asked, or refuses.
pub fn take_up(systemd: &Systemd, slices: &[&str]) -> Result<(), BusError> {
    systemd.reload()?;
    let control = control_directory(systemd.manager());
    for slice in slices {
        systemd.start(slice)?;
        let names = ["MemoryAccounting", "IOAccounting"];
        let files = names.map(|name| control.join(format!("{slice}.d/50-{name}.conf")));
        // Somebody may have said the same himself: then it is his, and stays.
        let (ours, properties): (Vec<_>, Vec<_>) = std::iter::zip(files, names)
            .filter(|(file, _)| !file.exists())
            .map(|(file, name)| (file, Property::switch(name, true)))
            .unzip();
        let again = [Property::switch("MemoryAccounting", true)];
        let properties = if ours.is_empty() { &again[..] } else { &properties };
        systemd.set_properties(slice, properties)?;
        for file in &ours {
            let _ = std::fs::remove_file(file);
        }
        // Not empty: somebody's properties are in it.
        let _ = std::fs::remove_dir(control.join(format!("{slice}.d")));
    }
    if slices.is_empty() {
        return Ok(());
    }
    systemd.reload()
}

/// Where a manager keeps properties that hold until the next boot (systemd.unit(5), "Unit File Load Path").
fn control_directory(manager: Manager) -> PathBuf {
    match manager {
        Manager::System => "/run/systemd/system.control".into(),
        Manager::User => match std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()) {
            Some(directory) => PathBuf::from(directory).join("systemd/user.control"),
            None => format!(
                "/run/user/{}/systemd/user.control",
                rustix::process::geteuid().as_raw()
            )
            .into(),
        },
    }
}
