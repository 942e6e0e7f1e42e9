//! Has the linker put what a launch runs side by side in the released program (`cargo xtask layout` says why). Where the
//! workspace's settings do not name the script, nothing is done.

use std::env::var;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=CGMGR_LAYOUT");
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(script) = var("CGMGR_LAYOUT") else { return };
    println!("cargo::rerun-if-changed={script}");
    let released = var("PROFILE").is_ok_and(|p| p == "release");
    let gnu = var("CARGO_CFG_TARGET_ENV").is_ok_and(|e| e == "gnu");
    if released && gnu && Path::new(&script).is_file() {
        println!("cargo::rustc-link-arg-bin=cgmgr=-Wl,-T,{script}");
    }
}
