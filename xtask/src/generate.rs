//! `cargo xtask generate`: the files of the repository that are made from the code.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{cargo, say};

/// Writes them. A test of the package says when that was forgotten.
pub fn run() -> Result<ExitCode> {
    let path = cargo::root().join("schema/role.schema.json");
    let text = format!("{:#}\n", cgmgr::role::schema());
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    say::say(path.display().to_string());
    Ok(ExitCode::SUCCESS)
}
