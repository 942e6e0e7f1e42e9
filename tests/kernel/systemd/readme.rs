//! README's session on a stock systemd machine prints what README shows, but for the numbers.

#[path = "../../readme/mod.rs"]
pub mod blocks;

use std::path::{Path, PathBuf};

use crate::cgmgr::cgmgr;
use crate::lab::must;

/// Numbers, units of time and size, bars, the widths that depend on them and so where lines end differ from run to run; the
/// words do not.
pub fn without_numbers(text: &str) -> String {
    // A slow machine's session needs more time than its cpu.max gives it at once.
    let mut text = text.to_owned();
    while let Some(begin) = text.find("held back by cpu.max for ")
        && let Some(length) = text[begin..].find(", ")
    {
        text.replace_range(begin..begin + length + 2, "");
    }
    let lines = text.lines().filter(|line| {
        // Pressure is shown where there is some; that systemd lets a request wait, on a busy machine.
        let line = line.trim_start_matches(['│', ' ']);
        !line.starts_with("waits (") && !line.starts_with("WARN still waiting for systemd")
    });
    // Eighty per cent of the memory is a whole number of pages on one machine in five.
    let lines = lines.map(|line| match line.find("rounded to ") {
        Some(at) => format!("{}enforced", &line[..at]),
        None => line.to_owned(),
    });
    let all: Vec<String> = lines.collect();
    let words = all.iter().flat_map(|line| line.split_whitespace()).map(|word| {
        let word: String = word
            .chars()
            .filter(|c| !c.is_ascii_digit() && !"#.[]".contains(*c))
            .collect();
        let word = word.trim_end_matches(',');
        match word.trim_end_matches(')') {
            "" | "-" | "---------" | "B" | "KiB" | "MiB" | "GiB" | "µs" | "ms" | "s" | "min" => {
                String::new()
            }
            // Of a line that goes on; and what a slow machine's session is.
            "│" | "throttled" => String::new(),
            _ => word.to_owned(),
        }
    });
    let mut text = String::new();
    for word in words.filter(|w| !w.is_empty() && !w.chars().all(|c| c == '-')) {
        // What the terminal's width cut off is cut off elsewhere another time.
        let word = if word.contains('…') { "…" } else { &word };
        text.push_str(word);
        text.push(' ');
    }
    text
}

#[test]
fn commands_print_what_is_shown() {
    // The page begins on a machine where nothing of cgmgr is installed.
    cgmgr(&["down", "--kill"]);
    cgmgr(&["uninstall"]).expect(0);
    let examples = PathBuf::from(must("CGMGR_EXAMPLES"));
    let directory = examples.parent().expect("a directory");
    let page =
        std::fs::read_to_string(directory.join("README.md")).expect("README.md lies beside the examples");
    let commands = blocks::blocks(&page, "guest");
    let printed = blocks::run(
        &commands,
        directory,
        Path::new(&must("CGMGR_BIN")).parent().expect("a directory"),
    );
    for (shown, printed) in commands.iter().zip(printed) {
        assert_eq!(
            without_numbers(&printed),
            without_numbers(&shown.output),
            "$ {}\nprinted:\n{printed}\nREADME shows:\n{}",
            shown.command,
            shown.output
        );
    }
}
