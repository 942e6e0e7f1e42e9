//! Where the lab keeps what is dear to make: `$XDG_CACHE_HOME/cgmgr-lab`, by default `~/.cache/cgmgr-lab`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// The cache folder, made if it is not there.
pub fn dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    subdir(&base, "cgmgr-lab")
}

/// `parent/name`, made if it is not there.
pub fn subdir(parent: &Path, name: &str) -> Result<PathBuf> {
    let path = parent.join(name);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// Holds a lock file against other runs of this program; dropping it lets go.
pub fn lock(name: &str) -> Result<File> {
    let path = dir()?.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        crate::say::say(format!("waiting for another run that holds {}", path.display()));
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Says what to do when the disk under `path` has less than `mib` to spare.
pub fn need_space(path: &Path, mib: u64) -> Result<()> {
    let fs = rustix::fs::statvfs(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let free = fs.f_bavail * fs.f_frsize / (1 << 20);
    if free < mib {
        bail!(
            "{} has {free} MiB free and {mib} MiB are needed\n\
             help: free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
            path.display()
        );
    }
    Ok(())
}

/// A folder that belongs to this process, named so that [`sweep`] finds it if the process is killed.
pub fn scratch(parent: &Path) -> Result<Scratch> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    sweep(parent);
    let name = format!(
        ".tmp-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    Ok(Scratch(subdir(parent, &name)?))
}

/// A folder that is removed when it is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes the scratch folders whose process is gone.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(".tmp-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}

/// Removes a folder, never crossing into another file system; what is left over is swept up next time.
fn remove(path: &Path) {
    let _ = Command::new("rm")
        .args(["-rf", "--one-file-system"])
        .arg(path)
        .status();
}
