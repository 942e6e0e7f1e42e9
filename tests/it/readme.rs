//! README is true: its commands print what it shows, and its table of knobs is the program's.

#[path = "../readme/mod.rs"]
mod blocks;

use cgmgr::limits::{KNOBS, Part};
use std::path::{Path, PathBuf};

fn page() -> String {
    std::fs::read_to_string("README.md").expect("README.md is in the directory that cargo runs tests in")
}

#[test]
fn commands_that_run_anywhere_print_what_is_shown() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("readme");
    std::fs::create_dir_all(&directory).expect("a directory for the test");
    let bin = Path::new(env!("CARGO_BIN_EXE_cgmgr"))
        .parent()
        .expect("a directory");
    let commands = blocks::blocks(&page(), "anywhere");
    let printed = blocks::run(&commands, &directory, bin);
    for (shown, printed) in commands.iter().zip(printed) {
        assert_eq!(printed, shown.output, "$ {}", shown.command);
    }
}

#[test]
fn the_table_of_knobs_is_the_programs() {
    let page = page();
    let (_, rest) = page
        .split_once("<!-- knobs -->\n")
        .expect("the table's begin mark");
    let (table, _) = rest.split_once("<!-- /knobs -->").expect("the table's end mark");
    assert_eq!(
        table,
        knob_table(),
        "README's table of knobs differs; the right one is:\n{}",
        knob_table()
    );
}

fn knob_table() -> String {
    let mut table = String::new();
    for (part, title) in [
        (Part::Session, "Each session (`[runtime.limits]`)"),
        (Part::Agent, "The agent's part (`[agent]`)"),
        (Part::Workloads, "All sessions together (`[workloads]`)"),
    ] {
        table.push_str(&format!(
            "{title}:\n\n| knob | kernel file | systemd property | without cgroup rights | what it does |\n|---|---|---|---|---|\n"
        ));
        for knob in KNOBS.iter().filter(|k| k.part == part) {
            let code = |text: Option<&str>| text.map_or("–".to_owned(), |t| format!("`{t}`"));
            let without = match (knob.in_this_version, knob.is_on_process(), knob.stand_in) {
                (false, ..) => "not in this version",
                (true, true, _) => "holds",
                (true, false, Some(stand_in)) => stand_in,
                // cgmgr's own.
                (true, false, None) if knob.file.is_none() => "–",
                (true, false, None) => "warning",
            };
            table.push_str(&format!(
                "| `{}` | {} | {} | {without} | {} |\n",
                knob.name(),
                code(knob.file),
                code(knob.systemd),
                knob.doc
            ));
        }
        table.push('\n');
    }
    table
}
