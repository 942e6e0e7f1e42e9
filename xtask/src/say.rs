//! Progress on standard error: what is being done, and how long it took.

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Prints one line about the lab itself, apart from what a guest prints.
pub fn say(text: impl AsRef<str>) {
    eprintln!("lab: {}", text.as_ref());
}

/// Does `work`, saying what it is when it begins, that it still goes on every 20 s, and the time it took.
pub fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    say(format!("{what} …"));
    let begun = Instant::now();
    let result = during(what, work);
    if result.is_ok() {
        say(format!("{what}: done in {:.0} s", begun.elapsed().as_secs_f32()));
    }
    result
}

/// Does `work`, saying that it still goes on every 20 s.
pub fn during<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(Duration::from_secs(20)) {
                say(format!("{what}: {} s so far", begun.elapsed().as_secs()));
            }
        });
        let result = work();
        drop(done);
        result
    })
}
