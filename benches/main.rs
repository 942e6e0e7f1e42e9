//! What a session costs: cgmgr, its peers and the bare floor side by side in one run; and what an agent survives. For a
//! machine of its own: `cargo xtask bench launch`, `kill`, `observe` and `survive` boot one and run this there.
//!
//! Absolute times say little under emulation; what counts are the ratios within one run.

mod figures;
mod floor;
mod kill;
mod launch;
mod live;
mod machine;
mod observe;
mod peers;
mod survive;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|w| w != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["launch", rounds] => launch::bench(number(rounds)),
        ["kill", rounds] => kill::bench(number(rounds)),
        ["observe", rounds] => observe::bench(number(rounds)),
        ["daemon", _] => observe::daemon(),
        ["observe-once", what, parent] => observe::once(what, parent),
        ["observe-hog"] => observe::hog(),
        ["survive", words @ ..] => survive::act(words),
        ["hold", shape, count, file] => kill::hold(shape, number(count), file),
        _ => Err(format!(
            "`cargo xtask bench` runs this in a guest, with words of its own; these are unknown: {words:?}"
        )),
    };
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or(1)
}
