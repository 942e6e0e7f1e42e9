//! Hardware virtualisation or emulation: tried once, then remembered for this kernel and this QEMU.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Result;

use crate::qemu::{self, Machine};
use crate::{cache, packages, say};

const EMULATION: &str = "tcg,thread=multi";
/// The clock counts instructions: only a single thread can do so.
pub const COUNTED: &str = "tcg,thread=single";

/// The value of QEMU's `-accel` for `machine`.
pub fn choose(machine: &Machine) -> Result<String> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(EMULATION.into());
    }
    let memory = cache::dir()?.join("accel");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let here = format!(
        "{} | {}",
        kernel.trim(),
        packages::qemu_version().unwrap_or_default()
    );
    if let Some(accel) = recall(&memory, &here) {
        return Ok(accel);
    }
    let _lock = cache::lock("accel")?;
    if let Some(accel) = recall(&memory, &here) {
        return Ok(accel);
    }
    let works = say::step("trying hardware virtualisation (at most 40 s)", || {
        qemu::kvm_works(machine.clone())
    })?;
    say::say(if works {
        "/dev/kvm works"
    } else {
        "/dev/kvm is there but does not work: emulating"
    });
    let accel = if works { "kvm" } else { EMULATION };
    fs::write(&memory, format!("{here}\n{accel}\n"))?;
    Ok(accel.into())
}

/// What was found out before, if it was on this kernel with this QEMU.
fn recall(memory: &Path, here: &str) -> Option<String> {
    let text = fs::read_to_string(memory).ok()?;
    let (known, accel) = text.trim().split_once('\n')?;
    (known == here).then(|| accel.to_owned())
}
