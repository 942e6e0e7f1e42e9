//! The Debian mirror this machine already uses, read from its own apt configuration.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// One archive that apt is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its address, as apt writes it.
    pub uri: String,
    /// Whether apt is told to trust it without a signature.
    pub trusted: bool,
}

/// The mirror that has Debian's main component; any release of Debian can be had from it.
pub fn debian() -> Result<Mirror> {
    let mut from_files = source_files().into_iter().filter_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        if path.extension().is_some_and(|e| e == "sources") {
            from_deb822(&text)
        } else {
            from_list(&text)
        }
    });
    if let Some(mirror) = from_files.next() {
        return Ok(mirror);
    }
    let policy = Command::new("apt-cache")
        .arg("policy")
        .output()
        .map(|o| o.stdout)
        .unwrap_or_default();
    if let Some(mirror) = from_policy(&String::from_utf8_lossy(&policy)) {
        return Ok(mirror);
    }
    bail!(
        "no Debian mirror is known: neither /etc/apt/sources.list, /etc/apt/sources.list.d nor \
         `apt-cache policy` names one\nhelp: give apt a source of Debian's main component, then run `apt-get update`"
    )
}

/// The files that apt reads its sources from.
pub fn source_files() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path());
    let mut parts: Vec<_> = parts.filter(|p| has_source_suffix(p)).collect();
    parts.sort();
    files.extend(parts);
    files.retain(|p| p.is_file());
    files
}

fn has_source_suffix(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "list" || e == "sources")
}

/// Whether a suite is a release of Debian itself, not its security, updates or backports archive.
fn is_release(suite: &str) -> bool {
    [
        "bookworm",
        "trixie",
        "forky",
        "sid",
        "oldstable",
        "stable",
        "testing",
        "unstable",
    ]
    .contains(&suite)
}

/// Reads the one-line style: `deb [trusted=yes] URI SUITE COMPONENT…`.
fn from_list(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let good = is_release(suite) && words.any(|component| component == "main");
        good.then(|| Mirror {
            uri: uri.to_owned(),
            trusted: options.contains("trusted=yes"),
        })
    })
}

/// Reads the paragraph style: `Types: deb`, `URIs: …`, `Suites: …`, `Components: …`.
fn from_deb822(text: &str) -> Option<Mirror> {
    let uncommented: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    uncommented.join("\n").split("\n\n").find_map(|paragraph| {
        let fields: BTreeMap<String, &str> = paragraph
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim()))
            .collect();
        let field = |name: &str| fields.get(name).copied().unwrap_or("");
        let has = |name: &str, word: &str| field(name).split_whitespace().any(|w| w == word);
        let good = has("types", "deb")
            && has("components", "main")
            && field("suites").split_whitespace().any(is_release)
            && field("enabled") != "no";
        let uri = field("uris").split_whitespace().next()?;
        good.then(|| Mirror {
            uri: uri.to_owned(),
            trusted: field("trusted") == "yes",
        })
    })
}

/// Reads what `apt-cache policy` prints: `500 URI SUITE/main amd64 Packages`.
fn from_policy(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (uri, place) = (words.next()?, words.next()?);
        let (suite, component) = place.split_once('/')?;
        let good = uri.contains("://") && is_release(suite) && component == "main";
        good.then(|| Mirror {
            uri: uri.to_owned(),
            trusted: false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(uri: &str, trusted: bool) -> Option<Mirror> {
        Some(Mirror {
            uri: uri.to_owned(),
            trusted,
        })
    }

    #[test]
    fn one_line_sources_skip_other_archives() {
        let text = "# deb http://old.example/os bookworm main\n\
                    deb-src http://src.example/os bookworm main\n\
                    deb http://tools.example/apt tools main\n\
                    deb http://sec.example/os-security bookworm-security main\n\
                    deb [arch=amd64 trusted=yes] http://a.example/os bookworm main contrib\n";
        assert_eq!(from_list(text), mirror("http://a.example/os", true));
    }

    #[test]
    fn paragraph_sources_skip_other_archives_and_comments() {
        let text = "Types: deb\nURIs: http://other.example/x\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\n# http://snapshot.example/\nURIs: http://b.example/os\n\
                    Suites: trixie trixie-updates\nComponents: main\n";
        assert_eq!(from_deb822(text), mirror("http://b.example/os", false));
    }

    #[test]
    fn policy_is_the_last_resort() {
        let text = "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\n \
                    500 http://c.example/os-security bookworm-security/main amd64 Packages\n \
                    500 http://c.example/os bookworm/main amd64 Packages\n";
        assert_eq!(from_policy(text), mirror("http://c.example/os", false));
    }
}
