//! The man pages and the completions: made from the command line's definition and from the knob table, so that they
//! cannot say anything else than the program does.

use std::fs;

use anyhow::{Context, Result};
use cgmgr::cli::args::Cli;
use cgmgr::limits::{KNOBS, Knob};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cargo;

/// A file and what is in it.
pub struct Page {
    /// Its name, e.g. `cgmgr-run.1`.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// The command line, with the arguments of every command worked out and without what nobody types.
fn definition() -> Command {
    let cli = Cli::command();
    // clap keeps names and versions for as long as the program runs.
    let version: &'static str = version().leak();
    let mut shown = Command::new("cgmgr")
        .version(version)
        .disable_help_subcommand(true)
        .args(cli.get_arguments().cloned())
        .subcommands(cli.get_subcommands().filter(|c| !c.is_hide_set()).cloned());
    if let Some(about) = cli.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(after) = cli.get_after_help() {
        shown = shown.after_help(after.clone());
    }
    shown.build();
    shown
}

/// The program's version.
pub fn version() -> String {
    Cli::command().get_version().unwrap_or_default().to_owned()
}

/// All man pages; `date` is their date, as `2026-01-31`.
pub fn manual(date: &str) -> Result<Vec<Page>> {
    let definition = definition();
    let commands: Vec<Command> = definition.get_subcommands().cloned().collect();
    let mut pages = vec![command(&definition, date, &[("cgmgr-role.toml", "5")])?];
    for one in &commands {
        pages.push(command(one, date, &[("cgmgr", "1"), ("cgmgr-role.toml", "5")])?);
    }
    pages.push(role_file(date)?);
    Ok(pages)
}

/// The page of a command.
fn command(command: &Command, date: &str, see: &[(&str, &str)]) -> Result<Page> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let mut text = Vec::new();
    Man::new(command.clone())
        .title(name.to_uppercase())
        .date(date)
        .source(format!("cgmgr {}", version()))
        .manual("cgmgr")
        .render(&mut text)?;
    see_also(see).to_writer(&mut text)?;
    Ok(Page {
        name: format!("{name}.1"),
        text: String::from_utf8(text)?,
    })
}

fn see_also(pages: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (name, section) in pages {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(*name), roman(format!("({section})"))]);
    }
    roff.text(line);
    roff
}

/// cgmgr-role.toml(5).
fn role_file(date: &str) -> Result<Page> {
    let mut roff = Roff::new();
    let source = format!("cgmgr {}", version());
    roff.control("TH", ["CGMGR-ROLE.TOML", "5", date, &source, "cgmgr"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("cgmgr-role.toml - what one kind of session may use")]);
    roff.control("SH", ["DESCRIPTION"]);
    paragraph(
        &mut roff,
        "A role file is TOML. Every key is optional, and an absent limit limits nothing. Other programs' tables may be in the same file and are left alone; an unknown key in one of the tables below is a mistake. `cgmgr check` tells every mistake of a file with its place, `cgmgr explain` what each limit amounts to on this machine, and `cgmgr schema` prints a JSON Schema for editors.",
    );
    paragraph(
        &mut roff,
        "$NAME and ${NAME} in a text are replaced by the environment variable, which must be set; $$ is a dollar sign.",
    );
    roff.control("SH", ["THE ROLE"]);
    entry(&mut roff, "version", "\"v1\", or left out.");
    entry(
        &mut roff,
        "role.name",
        "Sessions and their groups are named after it; by default, after the file.",
    );
    entry(
        &mut roff,
        "role.extends",
        "A role file to take over, as a path relative to this one; what is said here goes before it.",
    );
    for (table, title) in [
        ("runtime.limits", "EACH SESSION: [runtime.limits]"),
        ("runtime.limits.oom", "OUT OF MEMORY: [runtime.limits.oom]"),
        ("agent", "WHAT MUST SURVIVE: [agent]"),
        ("workloads", "ALL SESSIONS TOGETHER: [workloads]"),
    ] {
        roff.control("SH", [title]);
        for knob in KNOBS.iter().filter(|knob| knob.table() == table) {
            entry(&mut roff, knob.name(), &meaning(knob));
        }
    }
    roff.control("SH", ["VALUES"]);
    entry(
        &mut roff,
        "sizes",
        "A number and a unit: K, M, G, T and P, Ki and KiB and so on are binary, KB, MB, GB, TB and PB are decimal, none is bytes; or a percentage of the machine's memory, or \"max\" for no limit.",
    );
    entry(
        &mut roff,
        "CPUs",
        "A number of CPUs (1.5), a percentage of one (\"150%\"), or \"max\".",
    );
    entry(&mut roff, "weights", "1 to 10000; 100 is the kernel's default.");
    entry(
        &mut roff,
        "counts",
        "A whole number; for pids also \"max\", and in [workloads] a percentage of what the machine can hold.",
    );
    entry(
        &mut roff,
        "nice",
        "-20 to 19; in quotes and with a sign relative to the process that launches, as \"+5\".",
    );
    entry(&mut roff, "oom_score_adj", "-1000 (killed last) to 1000 (first).");
    entry(
        &mut roff,
        "admission",
        "\"off\", \"warn\", \"queue\" or \"refuse\".",
    );
    roff.control("SH", ["EXAMPLE"]);
    let example = cargo::root().join("examples/rust.role.toml");
    let example =
        fs::read_to_string(&example).with_context(|| format!("cannot read {}", example.display()))?;
    roff.control("nf", []);
    for line in example.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    let mut text = roff.render();
    text.push_str(
        &see_also(&[
            ("cgmgr", "1"),
            ("cgmgr-check", "1"),
            ("cgmgr-explain", "1"),
            ("cgroups", "7"),
        ])
        .render(),
    );
    Ok(Page {
        name: "cgmgr-role.toml.5".into(),
        text,
    })
}

fn meaning(knob: &Knob) -> String {
    let mut text = format!("{} Absent: {}.", knob.doc, knob.absent);
    match (knob.file, knob.systemd) {
        (Some(file), Some(property)) => text.push_str(&format!(" Kernel file {file}, systemd {property}=.")),
        (None, Some(property)) => text.push_str(&format!(" systemd {property}=.")),
        _ => {}
    }
    if !knob.in_this_version {
        text.push_str(" It is read and checked; nothing enforces it in this version.");
    }
    text
}

fn paragraph(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    roff.text(words(text));
}

fn entry(roff: &mut Roff, name: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(text)]);
}

/// Text with what is in backquotes in italics.
fn words(text: &str) -> Vec<Inline> {
    let styled = |(number, part): (usize, &str)| {
        if number % 2 == 1 {
            italic(part)
        } else {
            roman(part)
        }
    };
    text.split('`').enumerate().map(styled).collect()
}

/// The completions, each under the name that its shell looks for.
pub fn completions() -> Result<Vec<(Shell, Page)>> {
    let shells = [
        (Shell::Bash, "cgmgr"),
        (Shell::Zsh, "_cgmgr"),
        (Shell::Fish, "cgmgr.fish"),
    ];
    let mut pages = Vec::new();
    for (shell, name) in shells {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut definition(), "cgmgr", &mut text);
        let text = String::from_utf8(text)?;
        pages.push((
            shell,
            Page {
                name: name.into(),
                text,
            },
        ));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    fn page(name: &str) -> String {
        let pages = manual("2026-01-31").expect("the man pages");
        let page = pages.into_iter().find(|page| page.name == name);
        page.unwrap_or_else(|| panic!("no {name}")).text
    }

    /// As a reader sees it, without the marks of roff.
    fn plain(page: &str) -> String {
        page.replace("\\-", "-")
            .replace("\\fB", "")
            .replace("\\fI", "")
            .replace("\\fR", "")
    }

    #[test]
    fn every_command_has_a_page_with_every_option() {
        let definition = definition();
        let mut count = 0;
        for command in definition.get_subcommands() {
            let page = plain(&page(&format!("cgmgr-{}.1", command.get_name())));
            for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
                if let Some(long) = argument.get_long() {
                    assert!(
                        page.contains(&format!("--{long}")),
                        "{}: --{long}",
                        command.get_name()
                    );
                }
            }
            assert!(
                page.contains("--backend"),
                "{}: what applies to every command",
                command.get_name()
            );
            count += 1;
        }
        assert!(count > 10, "{count} commands");
        assert!(definition.find_subcommand("anchor").is_none());
        assert!(plain(&page("cgmgr.1")).contains("cgmgr-run(1)"));
    }

    #[test]
    fn the_page_of_role_files_has_every_knob() {
        let page = plain(&page("cgmgr-role.toml.5"));
        for knob in KNOBS {
            let entry = format!("{}\n{}", knob.name(), knob.doc).replace('\'', "\\*(Aq");
            assert!(page.contains(&entry), "{}: {page}", knob.path);
        }
    }

    #[test]
    fn roff_takes_no_line_of_text_for_a_request() {
        const REQUESTS: [&str; 12] = [
            ".TH ", ".SH ", ".TP", ".PP", ".IP ", ".RS ", ".RE", ".br", ".nf", ".fi", ".ie ", ".el ",
        ];
        for page in manual("2026-01-31").expect("the man pages") {
            for line in page.text.lines().filter(|line| line.starts_with(['.', '\''])) {
                let known = REQUESTS.iter().any(|request| line.starts_with(request));
                assert!(known, "{}: {line}", page.name);
            }
        }
    }

    /// What bash offers behind these words.
    fn offered(words: &[&str]) -> Vec<String> {
        let completions = completions().expect("the completions");
        let script = &completions[0].1.text;
        let quoted: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
        let last = words.len() - 1;
        let line = format!(
            "{script}\nCOMP_WORDS=({}) COMP_CWORD={last}\n\
             _cgmgr cgmgr '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted.join(" "),
            words[last],
            words[last - 1]
        );
        let output = Process::new("bash")
            .args(["--norc", "-c", &line])
            .output()
            .expect("bash");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn bash_completes_commands_and_options() {
        assert_eq!(offered(&["cgmgr", "sta"]), ["status"]);
        assert_eq!(offered(&["cgmgr", "run", "--memory-m"]), ["--memory-max"]);
        assert_eq!(offered(&["cgmgr", "--backend", "p"]), ["process"]);
        let all = offered(&["cgmgr", ""]);
        assert!(
            all.contains(&"uninstall".into()) && !all.contains(&"anchor".into()),
            "{all:?}"
        );
    }

    #[test]
    fn zsh_and_fish_know_every_command() {
        for (shell, page) in completions().expect("the completions") {
            for command in definition().get_subcommands() {
                assert!(
                    page.text.contains(command.get_name()),
                    "{shell}: {}",
                    command.get_name()
                );
            }
        }
    }
}
