//! Programs built on a newer Debian than the guest's: they take this machine's C library along.
//!
//! A binary asks for the C library it was linked with or a newer one. Where the guest's is older, the binary's own
//! libraries go to `/lab/lib` and a copy of the binary that looks there goes into the guest. What it starts in turn
//! uses the guest's libraries as ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::distro::Distro;
use crate::payload::Payload;
use crate::{cache, packages};

/// Adds a program of this machine to what goes into a guest of `distro`.
pub fn add_program(payload: &mut Payload, path: &str, program: &Path, distro: Distro) -> Result<()> {
    if here().is_some_and(|version| version <= distro.glibc()) {
        return payload.copy(path, program);
    }
    packages::ensure_these(&[("patchelf", "patchelf")])?;
    let scratch = cache::scratch(&cache::subdir(&cache::dir()?, "runs")?)?;
    let copy = scratch.path().join("program");
    fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
    payload.dir("lab/lib", 0o755)?;
    let mut loader = None;
    for library in libraries(program)? {
        let name = library
            .file_name()
            .context("a library has a name")?
            .to_string_lossy()
            .into_owned();
        payload.copy(&format!("lab/lib/{name}"), &library)?;
        if name.starts_with("ld-linux") {
            loader = Some(name);
        }
    }
    // A static program has no loader, and needs no help.
    if let Some(loader) = loader {
        let interpreter = format!("/lab/lib/{loader}");
        let output = Command::new("patchelf")
            .args([
                "--set-interpreter",
                &interpreter,
                "--force-rpath",
                "--set-rpath",
                "/lab/lib",
            ])
            .arg(&copy)
            .output()
            .context("cannot run patchelf")?;
        if !output.status.success() {
            bail!(
                "patchelf failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    payload.copy(path, &copy)
}

/// The version of this machine's C library.
fn here() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The shared libraries of a program, its loader among them, as `ldd` tells.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(library)
        .collect())
}

/// Reads a line of `ldd`: `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`; one without a path is the kernel's own.
fn library(line: &str) -> Option<PathBuf> {
    let place = line.split_once("=>").map_or(line, |(_, place)| place);
    let path = place.split_whitespace().next()?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_in_two_ways() {
        let path = |line| library(line).map(|p| p.display().to_string());
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007ffc)"), None);
        assert_eq!(
            path("\tlibc.so.6 => /lib/libc.so.6 (0x00007f)").as_deref(),
            Some("/lib/libc.so.6")
        );
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(path("\tstatically linked"), None);
    }
}
