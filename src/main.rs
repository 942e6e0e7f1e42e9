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

/// Unwinding, for a program that never unwinds: released, it ends at a panic (Cargo.toml, `panic = "abort"`).
///
/// The standard library has a backtrace for its panic message, and for that a reader of debug information, of compressed
/// sections and of mangled names. There is nothing to read in a stripped program without unwind tables (link/unwind.ld): the
/// stack ends here before its first frame, so that all of it is left out, and libgcc's unwinder too. In tests, and in a
/// library, there is unwinding as usual.
#[cfg(all(target_env = "gnu", panic = "abort"))]
mod unwind {
    /// `_URC_END_OF_STACK`
    const END_OF_STACK: i32 = 5;

    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Backtrace() -> i32 {
        END_OF_STACK
    }

    /// What is named in the two libraries, but can be called by what unwinds only.
    macro_rules! never_called {
        ($($name:ident)*) => { $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                std::process::abort()
            }
        )* };
    }
    never_called! {
        _Unwind_DeleteException
        _Unwind_FindEnclosingFunction
        _Unwind_ForcedUnwind
        _Unwind_GetCFA
        _Unwind_GetDataRelBase
        _Unwind_GetGR
        _Unwind_GetIP
        _Unwind_GetIPInfo
        _Unwind_GetLanguageSpecificData
        _Unwind_GetRegionStart
        _Unwind_GetTextRelBase
        _Unwind_RaiseException
        _Unwind_Resume
        _Unwind_Resume_or_Rethrow
        _Unwind_SetGR
        _Unwind_SetIP
        __gcc_personality_v0
    }
}
