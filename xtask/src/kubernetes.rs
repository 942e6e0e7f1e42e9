//! `cargo xtask kubernetes`: an independent reader of Kubernetes' own schemas looks at what `translate --to kubernetes`
//! writes for every example. kubernetes-validate has the schemas of thirteen releases in it, and needs no cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, packages, say};

/// The version of kubernetes-validate, of PyPI: the newest release that it knows is its own number.
const VALIDATE: &str = "1.37.0";

/// The releases that are asked for: the newest and the oldest that it knows.
const RELEASES: [&str; 2] = [VALIDATE, "1.25.0"];

/// What it needs, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[("python3", "python3"), ("pip3", "python3-pip")];

/// Keys that a container does not have, each of which has to be refused: else nothing is said by what is taken. The first is
/// misspelt; the others are what `translate` says is lost there, in the words of docker and the kernel.
const WRONG: [&str; 9] = [
    "resources: { limit: { memory: \"5\" } }",
    "memoryHigh: \"5\"",
    "memorySwap: \"5\"",
    "cpuShares: 512",
    "pidsLimit: 77",
    "ulimits: [{ name: nofile, soft: 512, hard: 512 }]",
    "nice: 5",
    "oomScoreAdj: 500",
    "oomGroup: true",
];

/// Installs it where it is not, and lets it look.
pub fn run() -> Result<ExitCode> {
    let modules = install()?;
    let cgmgr = cargo::cgmgr(false)?;
    let directory = cargo::root().join("target/kubernetes");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(cargo::root().join("examples"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(name) = name.strip_suffix(".role.toml") {
            let output = Command::new(&cgmgr)
                .args(["translate", "--to", "kubernetes"])
                .arg(&path)
                .stderr(Stdio::null())
                .output()
                .context("cannot run cgmgr")?;
            if !output.status.success() {
                bail!(
                    "cgmgr translate --to kubernetes {}: {}",
                    path.display(),
                    output.status
                );
            }
            let file = directory.join(format!("{name}.yaml"));
            fs::write(&file, output.stdout)?;
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("there are no examples");
    }
    for release in RELEASES {
        for key in WRONG {
            let wrong = directory.join("wrong.yaml");
            fs::write(
                &wrong,
                format!(
                    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n    - name: x\n      image: x\n      {key}\n"
                ),
            )?;
            if validate(&modules, release, std::slice::from_ref(&wrong))? {
                bail!(
                    "kubernetes-validate takes `{key}`, which a container of Kubernetes {release} does not have"
                );
            }
        }
        if !validate(&modules, release, &files)? {
            bail!(
                "Kubernetes {release} does not take what cgmgr writes; the files are in {}",
                directory.display()
            );
        }
        say::say(format!(
            "Kubernetes {release} takes {} files, strictly",
            files.len()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The directory with the module and what it needs.
fn install() -> Result<PathBuf> {
    let modules = cargo::root().join(format!("target/kubernetes-validate-{VALIDATE}"));
    let done = modules.join("installed");
    if done.exists() {
        return Ok(modules);
    }
    packages::ensure_these(PROGRAMS)?;
    say::step(&format!("installing kubernetes-validate {VALIDATE}"), || {
        let status = Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--upgrade",
                "--target",
            ])
            .arg(&modules)
            .arg(format!("kubernetes-validate=={VALIDATE}"))
            .stdin(Stdio::null())
            .status()
            .context("cannot run pip")?;
        if !status.success() {
            bail!("pip: {status}\nhelp: is there a way to PyPI?");
        }
        Ok(fs::write(&done, "")?)
    })?;
    Ok(modules)
}

/// Whether a release takes these files. What it says goes to standard error where it does not.
fn validate(modules: &Path, release: &str, files: &[PathBuf]) -> Result<bool> {
    let output = Command::new("python3")
        .args([
            "-m",
            "kubernetes_validate",
            "--strict",
            "--kubernetes-version",
            release,
        ])
        .args(files)
        .env("PYTHONPATH", modules)
        .output()
        .context("cannot run kubernetes-validate")?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("Traceback") {
        bail!("kubernetes-validate fails by itself:\n{said}");
    }
    if !output.status.success() && !files.iter().any(|file| file.ends_with("wrong.yaml")) {
        eprintln!("{said}");
    }
    Ok(output.status.success())
}
