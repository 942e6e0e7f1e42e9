//! The programs the lab needs on this machine, installed with apt when they are missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cache, mirror, say};

/// A program that is run, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mkfs.ext4", "e2fsprogs"),
    ("xz", "xz-utils"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
];

/// QEMU 7.2 without hardware virtualisation panics a 6.12 kernel while it boots; 8 is the first that may do.
const OLDEST_QEMU: u32 = 8;

/// Sees to it that every program in [`PROGRAMS`] is there.
pub fn ensure() -> Result<()> {
    ensure_these(PROGRAMS)
}

/// Sees to it that these programs are there.
pub fn ensure_these(programs: &[(&'static str, &'static str)]) -> Result<()> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if find("apt-get").is_none() {
        bail!(
            "missing: {names}, and there is no apt-get\nhelp: the lab sets itself up on Debian 12 and 13 only"
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "missing: {names}, and only root may install them\nhelp: run `cargo xtask images` once as root"
        );
    }
    let _lock = cache::lock("packages")?;
    let missing = self::missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let options = apt_options()?;
    say::step("refreshing the package lists", || apt(&options, &["update"]))?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    say::step(&format!("installing {names}"), || apt(&options, &install))?;
    match self::missing(programs) {
        still if still.is_empty() => Ok(()),
        still => bail!("still missing after apt-get install: {}", still.join(" ")),
    }
}

/// The packages of those programs that are absent or too old.
fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<_> = programs
        .iter()
        .filter(|(program, _)| !is_good(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

fn is_good(program: &str) -> bool {
    find(program).is_some()
        && (program != "qemu-system-x86_64" || qemu_major().is_some_and(|v| v >= OLDEST_QEMU))
}

/// Where a program is, looking in the system folders too, as root's PATH may lack them.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The first line of `qemu-system-x86_64 --version`.
pub fn qemu_version() -> Option<String> {
    let output = Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .map(str::to_owned)
}

fn qemu_major() -> Option<u32> {
    let version = qemu_version()?;
    version
        .split_whitespace()
        .find_map(|word| word.split_once('.')?.0.parse().ok())
}

/// On Debian 12 the machine's own sources plus backports, in a configuration of our own; elsewhere nothing.
fn apt_options() -> Result<Vec<String>> {
    if codename().as_deref() != Some("bookworm") {
        return Ok(Vec::new());
    }
    let mirror = mirror::debian()?;
    let dir = cache::subdir(&cache::dir()?, "apt")?;
    let (parts, lists) = (dir.join("sources.list.d"), dir.join("lists"));
    let _ = fs::remove_dir_all(&parts);
    fs::create_dir_all(&parts)?;
    fs::create_dir_all(lists.join("partial"))?;
    for file in mirror::source_files() {
        fs::copy(
            &file,
            parts.join(file.file_name().context("a source file has a name")?),
        )?;
    }
    let trusted = if mirror.trusted { "[trusted=yes] " } else { "" };
    let backports = format!("deb {trusted}{} bookworm-backports main\n", mirror.uri);
    fs::write(parts.join("cgmgr-lab-backports.list"), backports)?;
    Ok(vec![
        "-oDir::Etc::SourceList=/dev/null".into(),
        format!("-oDir::Etc::SourceParts={}", parts.display()),
        format!("-oDir::State::Lists={}", lists.display()),
        "-oAPT::Sandbox::User=root".into(),
        // Only what was asked for and what it needs comes from backports.
        "-oAPT::Default-Release=bookworm-backports".into(),
    ])
}

fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(str::to_owned)
}

/// Runs apt-get, keeping quiet unless it fails.
fn apt(options: &[String], arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["-q", "-oDPkg::Lock::Timeout=300", "-oAPT::Update::Error-Mode=any"])
        .args(options)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    // An archive that has nothing to do with us may be unreachable; whether that matters, the install will tell.
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if arguments == ["update"] && Path::new("/var/lib/apt/lists").is_dir() {
        say::say(format!("apt-get update was not complete:\n{}", text.trim_end()));
        return Ok(());
    }
    bail!(
        "apt-get {} failed:\n{}\nhelp: is the mirror that apt is told of reachable? is the disk full?",
        arguments.join(" "),
        text.trim_end()
    )
}
