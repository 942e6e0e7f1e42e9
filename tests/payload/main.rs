//! What the kernel tests run in sessions: programs that misbehave in one way each, and one that tells what it finds.
//!
//! `payload WHAT ARGUMENTS…`; each function below says what one does.

mod escape;
mod facts;
mod groups;
mod measure;
mod processes;
mod rights;
mod signals;

use std::io::{Read, Write};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    act(&words);
}

fn act(words: &[&str]) {
    match words {
        ["facts"] => facts::print(),
        ["hold"] => hold(0),
        ["hold", mib] => hold(number(mib)),
        ["hog", mib] => hog(number(mib)),
        ["grandchild", mib] => processes::grandchild(number(mib)),
        ["crowd", count, mib] => processes::crowd(number(count), number(mib)),
        ["bomb"] => processes::bomb(),
        ["chain", depth] => groups::chain(number(depth)),
        ["escape"] => escape::try_everything(),
        ["deep"] => groups::deep(),
        ["family"] => groups::family(),
        ["spared"] => groups::spared(),
        ["cache", mib, path] => measure::cache(number(mib), path),
        ["burn", threads, seconds] => measure::burn(number(threads), number(seconds) as u64),
        ["lesser", how, procs] => rights::lesser(how, procs),
        ["trace", pid] => rights::trace(number(pid) as i32),
        ["grove", count] => processes::grove(number(count)),
        ["headless"] => processes::headless(),
        ["storm"] => processes::storm(),
        ["count", signal] => signals::count(signal),
        ["windows"] => signals::windows(),
        ["write", path, text] => write(path, text),
        ["fds"] => facts::print_descriptors(),
        ["exit", status] => std::process::exit(number(status) as i32),
        ["witness", file, words @ ..] => {
            witness(file);
            act(words);
        }
        ["later", words @ ..] => {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            act(words);
        }
        ["parent", status, words @ ..] => processes::parent(number(status), words),
        ["gate", record, gate] => facts::gate(record, gate),
        _ => {
            eprintln!("payload: unknown words {words:?}");
            std::process::exit(99);
        }
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

/// Says a line at once, whoever reads it.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Leaves its pid and name in a file before it does anything that could end it: what is said of it can be compared.
fn witness(file: &str) {
    let comm = std::fs::read_to_string("/proc/self/comm").expect("/proc");
    let unfinished = format!("{file}.new");
    std::fs::write(&unfinished, format!("{} {comm}", std::process::id())).expect("a file");
    std::fs::rename(&unfinished, file).expect("a name for it");
}

/// Takes memory and touches every page of it.
pub fn take(mib: usize) -> Vec<u8> {
    let mut memory = vec![0_u8; mib << 20];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(memory)
}

/// Holds memory until its standard input ends.
fn hold(mib: usize) {
    let memory = take(mib);
    say(&format!("ready {}", std::process::id()));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(memory);
}

/// Takes more memory than it may have, and says so if nobody stopped it.
fn hog(mib: usize) {
    say(&format!("hog {}", std::process::id()));
    let memory = take(mib);
    say("survived");
    drop(memory);
}

/// Writes to a file as cgroupfs wants it, and says how that went: `done` or the error's number.
fn write(path: &str, text: &str) {
    let written = std::fs::File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => say("done"),
        Err(error) => say(&format!("errno {}", error.raw_os_error().unwrap_or(-1))),
    }
}
