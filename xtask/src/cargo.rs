//! What cargo builds for a guest, and where it put it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Cargo itself, the one that runs us where there is one.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// What tests are built with: everything that an embedder can switch on.
pub const TESTED: [&str; 2] = ["--features", "cgmgr/cgroups-rs"];

/// Builds the `cgmgr` command: for tests, of the library that they are built with, or as it is released.
pub fn cgmgr(release: bool) -> Result<PathBuf> {
    let profile: &[&str] = if release { &["--release"] } else { &TESTED };
    executable(
        &["build", "--package", "cgmgr", "--bin", "cgmgr"],
        profile,
        "cgmgr",
    )
}

/// Builds the `cgmgr` command as it is released; the linker writes its map to `map`. Returns also what the linker says of
/// functions that it has put into one because their code is the same.
pub fn cgmgr_with_map(map: &Path) -> Result<(PathBuf, String)> {
    let argument = format!("link-arg=-Wl,-Map={}", map.display());
    let arguments = ["rustc", "--package", "cgmgr", "--bin", "cgmgr"];
    let told = ["-C", "link-arg=-Wl,--print-icf-sections", "-W", "linker-messages"];
    let output = told_by_cargo(
        &arguments,
        &[&["--release", "--", "-C", &argument], &told[..]].concat(),
        Stdio::piped(),
    )?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((of_output(&output, &arguments, "cgmgr")?, said))
}

/// Builds a test binary that is not run on this machine: `kernel` or `payload`.
pub fn test_binary(name: &str) -> Result<PathBuf> {
    executable(
        &["test", "--package", "cgmgr", "--no-run", "--test", name],
        &TESTED,
        name,
    )
}

/// Builds an example program, of the library that tests are built with.
pub fn example(name: &str) -> Result<PathBuf> {
    executable(&["build", "--package", "cgmgr", "--example", name], &TESTED, name)
}

/// Builds a benchmark, as optimised as the `cgmgr` command.
pub fn bench_binary(name: &str) -> Result<PathBuf> {
    executable(
        &["build", "--package", "cgmgr", "--bench", name],
        &["--release"],
        name,
    )
}

fn executable(arguments: &[&str], profile: &[&str], target: &str) -> Result<PathBuf> {
    let output = told_by_cargo(arguments, profile, Stdio::inherit())?;
    of_output(&output, arguments, target)
}

fn told_by_cargo(arguments: &[&str], profile: &[&str], stderr: Stdio) -> Result<Output> {
    let output = command()
        .args(arguments)
        .args(["--message-format=json-render-diagnostics"])
        // What is for rustc itself comes last.
        .args(profile)
        .stdin(Stdio::null())
        .stderr(stderr)
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!(
            "cargo {} failed\n{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// The executable that cargo says it made.
fn of_output(output: &Output, arguments: &[&str], target: &str) -> Result<PathBuf> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo {} made no executable {target}", arguments.join(" ")))
}
