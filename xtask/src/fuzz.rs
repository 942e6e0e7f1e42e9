//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, built with coverage to steer by and run for a while.
//!
//! `cargo fuzz` does the same, but wants a tool installed and, for its sanitizers, a nightly compiler. The options that give
//! coverage are stable, and the targets call safe code only, in which an address sanitizer finds little.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, packages, say, seeds};

/// What `cargo xtask fuzz` is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// Targets; all of them where none is named
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
    /// Only build them
    #[arg(long)]
    build: bool,
}

/// How long a campaign in full takes for each target.
pub const SECONDS: u64 = 60;

/// What rustc is told, as cargo-fuzz does it: counters at every edge, a table of the edges, and the operands of comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// One text may take so many seconds; more is a hang.
const HANG: u32 = 10;
/// The process may hold so many MiB, all that the fuzzer keeps included; more is a memory blow-up.
const MEMORY: u32 = 512;

/// The longest text that is tried.
fn longest(target: &str) -> u32 {
    match target {
        "values" => 64,
        "names" => 512,
        "role" | "records" | "imports" => 4096,
        _ => 2048,
    }
}

/// Builds and runs.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let all = targets()?;
    if let Some(unknown) = arguments.targets.iter().find(|t| !all.contains(t)) {
        bail!(
            "there is no target {unknown}\nhelp: the targets are {}",
            all.join(", ")
        );
    }
    let chosen = if arguments.targets.is_empty() {
        &all
    } else {
        &arguments.targets
    };
    let folder = build()?;
    if arguments.build {
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = 0;
    for target in chosen {
        failed += u32::from(!campaign(&folder, target, arguments.seconds)?);
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The targets that there are.
pub fn targets() -> Result<Vec<String>> {
    let folder = cargo::root().join("fuzz/fuzz_targets");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds every target; the folder that they are in then.
pub fn build() -> Result<PathBuf> {
    // libFuzzer is compiled with it.
    packages::ensure_these(&[("c++", "g++")])?;
    let output = cargo::command()
        .args(["-vV"])
        .output()
        .context("cannot run cargo")?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`cargo -vV` names no host")?;
    let target_dir = cargo::root().join("fuzz/target");
    // With a target, what runs while building (build scripts, macros) is not built for coverage.
    let status = cargo::command()
        .args([
            "build",
            "--manifest-path",
            "fuzz/Cargo.toml",
            "--locked",
            "--release",
            "--bins",
        ])
        .args(["--target", host, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", COVERAGE)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the fuzz targets do not build");
    }
    Ok(target_dir.join(host).join("release"))
}

/// One target for so long; whether nothing was found. A text that something was found with is kept.
pub fn campaign(folder: &std::path::Path, target: &str, seconds: u64) -> Result<bool> {
    let (root, seeds) = (cargo::root().join("fuzz"), seeds::folder(target)?);
    let (corpus, artifacts) = (
        root.join("corpus").join(target),
        root.join("artifacts").join(target),
    );
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let output = Command::new(folder.join(target))
        .args([&corpus, &seeds])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", longest(target)))
        .arg(format!("-timeout={HANG}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("cannot run the target {target}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let runs = number_behind(&said, "stat::number_of_executed_units:");
    let edges = number_behind(&said, " cov:");
    let peak = number_behind(&said, "stat::peak_rss_mb:").unwrap_or(0);
    match (output.status.success(), runs, edges) {
        (true, Some(1..), Some(1..)) => {
            say::say(format!(
                "fuzz {target}: nothing found in {} texts, {} edges, {peak} MiB at most",
                runs.unwrap_or(0),
                edges.unwrap_or(0)
            ));
            Ok(true)
        }
        (true, ..) => bail!("fuzz {target}: nothing was tried, or without coverage to steer by:\n{said}"),
        (false, ..) => {
            let end: Vec<&str> = said.lines().rev().take(60).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            say::say(format!(
                "fuzz {target}: FAILED\n{}\nthe text is in {}; `{} TEXT` tries it again",
                end.join("\n"),
                artifacts.display(),
                folder.join(target).display()
            ));
            Ok(false)
        }
    }
}

/// The last number that stands behind these words.
fn number_behind(text: &str, words: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(words)?;
    rest.split_whitespace().next()?.parse().ok()
}
