//! Has the linker put what a launch runs side by side in the released program (`cargo xtask layout` says why), and leave out
//! what is for unwinding only, and all but one of functions that are the same. Where the workspace's settings do not say so,
//! nothing is done.

use std::env::var;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let released = var("PROFILE").is_ok_and(|p| p == "release");
    let gnu = var("CARGO_CFG_TARGET_ENV").is_ok_and(|e| e == "gnu");
    for name in ["CGMGR_LAYOUT", "CGMGR_UNWIND"] {
        println!("cargo::rerun-if-env-changed={name}");
        let Ok(script) = var(name) else { continue };
        println!("cargo::rerun-if-changed={script}");
        if released && gnu && Path::new(&script).is_file() {
            println!("cargo::rustc-link-arg-bin=cgmgr=-Wl,-T,{script}");
        }
    }
    println!("cargo::rerun-if-env-changed=CGMGR_LINKED");
    if let Ok(options) = var("CGMGR_LINKED")
        && released
        && gnu
    {
        println!("cargo::rustc-link-arg-bin=cgmgr=-Wl,{options}");
    }
}
