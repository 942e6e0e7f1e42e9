//! Payloads that use a known amount of something and say what their group was charged for it.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use super::groups::own;
use super::say;

fn counter(file: &str, key: &str) -> u64 {
    let path = format!("{}/{file}", own());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.unwrap_or_else(|| panic!("no `{key}` in {path}: {text}"));
    value.trim().parse().expect("a number")
}

/// Reads a file of so many MiB without any content: page cache, and nothing but. Says what the group holds then, and
/// keeps the file open until its standard input ends.
pub fn cache(mib: usize, path: &str) {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap_or_else(|error| panic!("cannot make {path}: {error}"));
    std::fs::remove_file(path).expect("a file of ours");
    file.set_len((mib as u64) << 20).expect("a size");
    let mut piece = vec![0; 1 << 16];
    while file.read(&mut piece).expect("a file of ours") > 0 {}
    say(&format!("cached {}", counter("memory.current", "")));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// So many threads that compute for so long, and what that cost: CPU time and wall-clock time in microseconds.
pub fn burn(threads: usize, seconds: u64) {
    let (begun, before) = (Instant::now(), counter("cpu.stat", "usage_usec "));
    for _ in 0..threads {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    std::thread::sleep(Duration::from_secs(seconds));
    let used = counter("cpu.stat", "usage_usec ") - before;
    say(&format!("burnt {used} {}", begun.elapsed().as_micros()));
}
