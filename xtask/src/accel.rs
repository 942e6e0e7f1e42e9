//! Hardware virtualisation or emulation: tried once, then remembered for this kernel and this QEMU.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::qemu::{self, Machine};
use crate::{cache, packages, say};

const EMULATION: &str = "tcg,thread=multi";

/// The value of QEMU's `-accel`. `machine` is one that could be started here.
pub fn choose(machine: impl FnOnce() -> Machine) -> Result<String> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(EMULATION.into());
    }
    let _lock = cache::lock("accel")?;
    let memory = cache::dir()?.join("accel");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let here = format!(
        "{} | {}",
        kernel.trim(),
        packages::qemu_version().unwrap_or_default()
    );
    if let Some((known, accel)) = fs::read_to_string(&memory)
        .unwrap_or_default()
        .trim()
        .split_once('\n')
        && known == here
    {
        return Ok(accel.to_owned());
    }
    let works = say::step("trying hardware virtualisation (at most 40 s)", || {
        qemu::kvm_works(machine())
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
