//! Texts that a fuzz target begins with: what the examples hold, and what the project's tests call right and wrong.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cargo;

/// Where a target's texts come from: files and folders whose string literals they are, or, where they are no Rust, whose
/// whole content.
fn sources(target: &str) -> &'static [&'static str] {
    match target {
        "role" => &[
            "examples",
            "src/role",
            "tests/it/roles.rs",
            "tests/it/properties/role_files.rs",
        ],
        "values" => &["src/limits", "examples"],
        "kernel_files" => &["src/kernel"],
        "names" => &["src/path.rs", "tests/it/properties/names.rs"],
        "imports" => &[
            "src/import",
            "tests/it/import.rs",
            "tests/translations",
            "examples",
        ],
        _ => &[],
    }
}

/// Longer ones are documents, not texts to begin with.
const LONGEST: usize = 16_384;

/// Makes the folder of a target's texts anew, with those of `fuzz/seeds` too.
pub fn folder(target: &str) -> Result<PathBuf> {
    let folder = cargo::root().join("fuzz/target/seeds").join(target);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut texts = Vec::new();
    for source in sources(target) {
        collect(&cargo::root().join(source), &mut texts)?;
    }
    collect(&cargo::root().join("fuzz/seeds").join(target), &mut texts)?;
    texts.retain(|text| !text.is_empty() && text.len() <= LONGEST);
    texts.sort();
    texts.dedup();
    for (number, text) in texts.iter().enumerate() {
        fs::write(folder.join(format!("{number:04}")), text)?;
    }
    anyhow::ensure!(!texts.is_empty(), "there is no text for {target} to begin with");
    Ok(folder)
}

fn collect(path: &Path, texts: &mut Vec<String>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)?.flatten() {
            collect(&entry.path(), texts)?;
        }
        return Ok(());
    }
    let Ok(text) = fs::read_to_string(path) else {
        return Ok(());
    };
    if path.extension().is_some_and(|e| e == "rs") {
        texts.extend(literals(&text));
    } else {
        texts.push(text);
    }
    Ok(())
}

/// The string literals of a Rust source, raw ones included. Good enough for seeds: a quote in a comment or a character
/// literal costs a wrong text or two.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '\'']) {
        if rest[at..].starts_with("'\"'") {
            rest = &rest[at + 3..];
            continue;
        }
        if rest[at..].starts_with('\'') {
            rest = &rest[at + 1..];
            continue;
        }
        let hashes = rest[..at].len() - rest[..at].trim_end_matches('#').len();
        let raw = rest[..at - hashes].ends_with('r');
        let body = &rest[at + 1..];
        let (text, used) = if raw {
            let end = format!("\"{}", "#".repeat(hashes));
            let Some(length) = body.find(&end) else { break };
            (body[..length].to_owned(), length + end.len())
        } else {
            unescape(body)
        };
        found.push(text);
        rest = &body[used..];
    }
    found
}

/// The literal whose opening quote is before `body`, and how much of it that was.
fn unescape(body: &str) -> (String, usize) {
    let mut text = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, at + 1),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some('0') => text.push('\0'),
                Some('x') => text.extend(number(&mut chars, 2)),
                Some('u') => {
                    let digits: String = chars
                        .by_ref()
                        .map(|(_, c)| c)
                        .skip(1)
                        .take_while(|c| *c != '}')
                        .collect();
                    text.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
                }
                Some('\n') => {
                    let indent = body[at + 2..].len() - body[at + 2..].trim_start().len();
                    chars.by_ref().take(indent).for_each(drop);
                }
                Some(other) => text.push(other),
                None => {}
            },
            c => text.push(c),
        }
    }
    (text, body.len())
}

fn number(chars: &mut std::str::CharIndices<'_>, digits: usize) -> Option<char> {
    let text: String = chars.take(digits).map(|(_, c)| c).collect();
    u32::from_str_radix(&text, 16).ok().and_then(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found_as_the_compiler_reads_them() {
        let source = r##"let a = "one\n\"two\" \x1b \u{e4}"; let b = r#"raw "quotes" \n"#; let c = '"'; let d: &'static str = "in \
            one line";"##;
        assert_eq!(
            literals(source),
            ["one\n\"two\" \u{1b} ä", "raw \"quotes\" \\n", "in one line"]
        );
    }

    #[test]
    fn every_target_has_something_to_begin_with() {
        for target in crate::fuzz::targets().unwrap() {
            let mut texts = Vec::new();
            for source in sources(&target) {
                collect(&cargo::root().join(source), &mut texts).unwrap();
            }
            let seeds = cargo::root().join("fuzz/seeds").join(&target);
            assert!(!texts.is_empty() || seeds.is_dir(), "{target}");
        }
    }
}
