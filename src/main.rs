//! The `cgmgr` command. Everything is in [`cgmgr`], the library; only this file exits.
//!
//! With glibc the program is started without Rust's runtime, which takes longer to find out about the main thread than a
//! launch takes to make a group; [`cgmgr::kernel::sys::start`] says what is done instead. Elsewhere the runtime is what
//! brings the arguments.
#![cfg_attr(target_env = "gnu", no_main)]

#[cfg(not(target_env = "gnu"))]
use std::process::ExitCode;

#[cfg(target_env = "gnu")]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    cgmgr::kernel::sys::start();
    let status = run();
    // Writes out what standard output holds back, which `return` would not.
    std::process::exit(i32::from(status))
}

#[cfg(not(target_env = "gnu"))]
fn main() -> ExitCode {
    ExitCode::from(run())
}

fn run() -> u8 {
    cgmgr::cli::main(std::env::args_os())
}
