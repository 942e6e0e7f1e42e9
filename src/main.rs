//! The `cgmgr` command. Everything is in [`cgmgr`], the library; only this file exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cgmgr::cli::main(std::env::args_os()))
}
