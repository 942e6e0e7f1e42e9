//! Payloads that count signals.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use rustix::termios::tcgetwinsize;

use super::say;

static SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn seen(_: i32) {
    SEEN.fetch_add(1, Ordering::SeqCst);
}

fn catch(name: Signal) {
    // SAFETY: the handler only counts.
    unsafe { signal(name, SigHandler::Handler(seen)) }.expect("a handler");
}

fn seen_now() -> u32 {
    SEEN.load(Ordering::SeqCst)
}

/// Counts one signal. Two seconds after the first it says how many came, and returns 9.
pub fn count(name: &str) {
    catch(name.parse().expect("a signal's name"));
    say(&format!("counting {}", std::process::id()));
    while seen_now() == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    say(&format!("counted {}", seen_now()));
    std::process::exit(9);
}

/// Says the terminal's size, again after each change, until the third line.
pub fn windows() {
    catch(Signal::SIGWINCH);
    for told in 0..3 {
        while seen_now() < told {
            std::thread::sleep(Duration::from_millis(20));
        }
        let size = tcgetwinsize(rustix::stdio::stdout()).expect("a terminal");
        say(&format!("size {}x{}", size.ws_col, size.ws_row));
    }
}
