//! `cargo xtask layout`: finds out which functions a launch runs, and writes the linker script that puts them side by
//! side.
//!
//! The kernel maps a program's text in windows of 64 KiB, one page fault each. What a launch runs is a third of the
//! program, strewn over all of its windows; side by side it needs a third of them. The script names sections without the
//! hashes in them, so it holds for another compiler and other dependencies as far as the functions are the same; what is
//! not there any more is passed over, and what is new is only slower to reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::distro::{Distro, Mode};
use crate::guest::Guest;
use crate::payload::Payload;
use crate::{bench, cache, cargo, glibc, say};

/// The guests whose launches count, the one that most users have first. With systemd a launch finds a unit that was delegated.
const MODES: [Mode; 2] = [Mode::Systemd, Mode::Bare];

/// What a guest runs: the second launch, since the first one makes the slices.
const SCRIPT: &str = r"set -e
cd /lab
if [ -d /run/systemd/system ]; then cgmgr install --minimal; fi
cgmgr run --role launch.role.toml -- /bin/true
exec /lab/touched /lab/functions /lab/out/touched /usr/local/bin/cgmgr run --role launch.role.toml -- /bin/true
";

/// One input section of the program's text: where it is, and what brought it.
struct Section {
    start: u64,
    file: String,
    name: String,
}

/// Builds, boots, writes the script.
pub fn run() -> Result<ExitCode> {
    let folder = cache::subdir(&cache::dir()?, "layout")?;
    let map = folder.join("map");
    let distro = Distro::ALL[Distro::ALL.len() - 1];
    let (cgmgr, said) = cargo::cgmgr_with_map(&map)?;
    let twins = twins(&said);
    let map = fs::read_to_string(&map).with_context(|| format!("cannot read {}", map.display()))?;
    let (sections, functions) = text(&map);
    if sections.is_empty() || functions.is_empty() {
        bail!("the linker's map is not one of lld's, Rust's own linker on x86-64");
    }
    let mut patterns = Vec::new();
    for mode in MODES {
        let touched = touched(
            Guest {
                out: Some(folder.clone()),
                ..Guest::new(distro, mode)
            },
            &cgmgr,
            &functions,
        )?;
        for pattern in self::patterns(&sections, &twins, &touched) {
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
    }
    let script = script();
    fs::write(&script, render(&patterns)).with_context(|| format!("cannot write {}", script.display()))?;
    say::say(format!("{} sections are in {}", patterns.len(), script.display()));
    Ok(ExitCode::SUCCESS)
}

/// The functions that a launch comes to in this guest, by address, in that order.
fn touched(guest: Guest, cgmgr: &Path, functions: &BTreeSet<u64>) -> Result<String> {
    let mut payload = Payload::default();
    glibc::add_program(&mut payload, "usr/local/bin/cgmgr", cgmgr, guest.distro)?;
    glibc::add_program(
        &mut payload,
        "lab/touched",
        &bench::compiled("touched")?,
        guest.distro,
    )?;
    payload.bytes("lab/functions", lines(functions).as_bytes(), 0o644)?;
    // The limits that `cargo xtask bench launch` sets.
    payload.copy(
        "lab/launch.role.toml",
        &cargo::root().join("benches/launch.role.toml"),
    )?;
    say::say(format!("booting {} to see what a launch runs", guest.name()));
    let outcome = guest.run(payload, SCRIPT, |line| println!("{line}"))?;
    if outcome.status != 0 {
        bail!("the launch failed: exit status {}", outcome.status);
    }
    let out = guest.out.as_ref().context("it has a folder")?;
    fs::read_to_string(out.join("touched")).context("no function was told")
}

/// Where the linker script is.
fn script() -> PathBuf {
    cargo::root().join("link/launch.ld")
}

fn lines(functions: &BTreeSet<u64>) -> String {
    functions.iter().map(|at| format!("{at:x}\n")).collect()
}

/// The sections of text in lld's map, by address, and the starts of the functions in them. Its columns: address, load
/// address, size, alignment, and then a name, further to the right for a section of a file than for one of the output, and
/// furthest for a symbol.
fn text(map: &str) -> (Vec<Section>, BTreeSet<u64>) {
    let (mut sections, mut functions) = (Vec::new(), BTreeSet::new());
    let mut in_text = false;
    for line in map.lines() {
        let mut words = line.split_ascii_whitespace();
        let hex = |word: Option<&str>| word.and_then(|w| u64::from_str_radix(w, 16).ok());
        let (Some(start), Some(_), Some(size), Some(_)) = (
            hex(words.next()),
            hex(words.next()),
            hex(words.next()),
            words.next(),
        ) else {
            continue;
        };
        let Some(name) = line.get(ALIGN_ENDS..) else {
            continue;
        };
        let depth = name.len() - name.trim_start().len();
        let name = name.trim();
        match depth {
            1 => in_text = name == ".text" || name.starts_with(".text."),
            9 if in_text => {
                if let Some((file, section)) = name.strip_suffix(')').and_then(|n| n.rsplit_once(":(")) {
                    sections.push(Section {
                        start,
                        file: file.to_owned(),
                        name: section.to_owned(),
                    });
                }
            }
            17 if in_text && size > 0 => {
                functions.insert(start);
            }
            _ => {}
        }
    }
    sections.sort_by_key(|s| s.start);
    (sections, functions)
}

/// Where the column of alignments ends in lld's map.
const ALIGN_ENDS: usize = 16 + 1 + 16 + 1 + 8 + 1 + 5;

/// Sections that the linker has put into one, by the name of each. Which of them gives its name to it is chance.
fn twins(said: &str) -> BTreeMap<String, Vec<String>> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    for line in said.lines() {
        let name = line
            .trim_end()
            .strip_suffix(')')
            .and_then(|l| l.rsplit_once(":("));
        let Some((before, name)) = name else { continue };
        if before.contains("selected section ") {
            groups.push(Vec::new());
        }
        if let Some(group) = groups.last_mut() {
            group.push(name.to_owned());
        }
    }
    let of_group = |group: Vec<String>| group.clone().into_iter().map(move |name| (name, group.clone()));
    groups.into_iter().flat_map(of_group).collect()
}

/// How the linker script names the sections that hold the touched functions, in the order of these.
fn patterns(sections: &[Section], twins: &BTreeMap<String, Vec<String>>, touched: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let starts = touched
        .lines()
        .filter_map(|line| u64::from_str_radix(line, 16).ok());
    starts
        .filter_map(|at| sections.partition_point(|s| s.start <= at).checked_sub(1))
        .flat_map(|n| {
            let section = &sections[n];
            let twins = twins.get(&section.name).into_iter().flatten();
            let twins = twins.filter_map(|name| {
                Some(format!(
                    "*(.text.{})",
                    without_hashes(name.strip_prefix(".text.")?)
                ))
            });
            pattern(section).into_iter().chain(twins)
        })
        .filter(|pattern| seen.insert(pattern.clone()))
        .collect()
}

/// `*libc.a:malloc.o(.text)` of an archive of the C library's, `*(.text.NAME)` of Rust. Objects of the compiler's own
/// start-up files stay where they are.
fn pattern(section: &Section) -> Option<String> {
    let file = Path::new(&section.file).file_name()?.to_str()?;
    if let Some((archive, member)) = file.strip_suffix(')').and_then(|f| f.split_once('('))
        && !file.contains(".rlib(")
    {
        // libm's archive has glibc's version in its name.
        let archive = archive
            .split_once('-')
            .map_or(archive.to_owned(), |(name, _)| format!("{name}*.a"));
        return Some(format!("*{archive}:{member}({})", section.name));
    }
    let named = section.name.strip_prefix(".text.")?;
    Some(format!("*(.text.{})", without_hashes(named)))
}

/// A mangled name with `*` in place of what differs from build to build: the hash at a legacy name's end (`17h`, sixteen
/// digits, `E`), and in a v0 name a crate's disambiguator (`Cs`, digits of base 62, `_`), that of an implementation (`Ms0_`,
/// the how manieth of its module), and references back into the name (`B4_`), which the lengths of the others move.
fn without_hashes(name: &str) -> String {
    let Some(begin) = name.find("_R") else {
        return match name.rfind("17h") {
            Some(at) if name.len() == at + 20 && name.ends_with('E') => format!("{}17h*E", &name[..at]),
            _ => name.to_owned(),
        };
    };
    let (before, mut rest) = name.split_at(begin + 2);
    let mut out = before.to_owned();
    while let Some(first) = rest.chars().next() {
        let marks = ["Cs", "Ms", "Xs", "B"];
        let marked = marks.into_iter().find_map(|mark| {
            let after = rest
                .strip_prefix(mark)?
                .trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            let digits = rest.len() - mark.len() - after.len();
            let at_most = if mark == "Cs" { 16 } else { 2 };
            (after.starts_with('_') && digits <= at_most).then_some((mark, after))
        });
        match marked {
            Some((mark, after)) => {
                out.push_str(mark);
                out.push('*');
                rest = after;
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

const HEAD: &str = "\
/* Made by `cargo xtask layout`, which says why: what a launch runs, side by side in the order in which it is come to. */
SECTIONS {
  .text.launch : {
";

fn render(patterns: &[String]) -> String {
    let mut out = String::from(HEAD);
    for pattern in patterns {
        let _ = writeln!(out, "    {pattern}");
    }
    out.push_str("  }\n} INSERT BEFORE .text;\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "             VMA              LMA     Size Align Out     In      Symbol
          200040           200040       1b     1 .rodata
          283100           283100     1f28    64 .text
          283100           283100       31    16         /lib/crt1.o:(.text)
          283100           283100       22     1                 _start
          283140           283140      100    16         /t/cgmgr.rcgu.o:(.text._ZN5cgmgr4main17h2504691551dce42eE)
          283140           283140       f0     1                 cgmgr::main::h2504691551dce42e
          283240           283240       80     1         /t/cgmgr.rcgu.o:(.text._RNvMs_NtCsjrHS_3std2fsNtB4_4File4open)
          283240           283240       80     1                 std::fs::File::open
          2832c0           2832c0       40    16         /lib/libc.a(malloc.o):(.text)
          2832c0           2832c0       10     1                 malloc
          2832d0           2832d0       10     1                 free
          2832e0           2832e0        0     1                 a_label
          2833c0           2833c0       40    16         /lib/libm-2.36.a(e_log.o):(.text.fma)
          2833c0           2833c0       10     1                 log
          475d40           475d40       78     8 .tdata
          475d40           475d40       78     8         /lib/libc.a(errno.o):(.tbss)
          475d40           475d40       78     8                 errno
";

    #[test]
    fn a_map_becomes_patterns_in_the_order_of_use() {
        let (sections, functions) = text(MAP);
        assert_eq!(sections.len(), 5);
        assert_eq!(functions.len(), 6);
        let touched = "2832d0\n2832c0\n283240\n2833c0\n283140\n283100\n";
        let wanted = [
            "*libc.a:malloc.o(.text)",
            "*(.text._RNvMs*_NtCs*_3std2fsNtB*_4File4open)",
            "*libm*.a:e_log.o(.text.fma)",
            "*(.text._ZN5cgmgr4main17h*E)",
        ];
        assert_eq!(patterns(&sections, &BTreeMap::new(), touched), wanted);
    }

    #[test]
    fn what_became_one_is_named_by_all_its_names() {
        let said = "warning: linker stdout: selected section /t/a.o:(.text._ZN1a1b17h2504691551dce42eE)
           removing identical section /t/b.o:(.text._RNvMs0_NtCsjrHS_3std2fsNtB4_4File4sync)
         selected section /t/c.o:(.text.c)
           removing identical section /t/d.o:(.text.d)
";
        let twins = twins(said);
        assert_eq!(twins.len(), 4);
        let sections = [Section {
            start: 0x100,
            file: "/t/a.o".into(),
            name: ".text._ZN1a1b17h2504691551dce42eE".into(),
        }];
        let wanted = [
            "*(.text._ZN1a1b17h*E)",
            "*(.text._RNvMs*_NtCs*_3std2fsNtB*_4File4sync)",
        ];
        assert_eq!(patterns(&sections, &twins, "100\n"), wanted);
    }
}
