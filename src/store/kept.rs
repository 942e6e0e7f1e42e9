//! Sessions that an OOM kill ended, whose full record is kept, and whose name is not given again, until they are forgotten
//! (`oom.preserve_state`).

use super::Directory;
use crate::order;
use crate::path::SessionName;
use crate::record::Record;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// Where they are, below the store.
const KEPT: &str = "kept";

/// The records that are kept.
#[derive(Debug)]
pub struct Kept<'a> {
    directory: &'a Directory,
}

impl<'a> Kept<'a> {
    pub(super) fn new(directory: &'a Directory) -> Self {
        Self { directory }
    }

    fn name(name: &SessionName) -> String {
        format!("{KEPT}/{name}.json")
    }

    fn path(&self, name: &SessionName) -> PathBuf {
        self.directory.join(&Self::name(name))
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &SessionName) -> bool {
        rustix::fs::access(self.path(name), rustix::fs::Access::EXISTS).is_ok()
    }

    /// Keeps this one, whole or not at all. A later one of the same name takes its place.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn keep(&self, name: &SessionName, record: &Record) -> io::Result<()> {
        self.directory.make_below(KEPT)?;
        let temporary = self
            .directory
            .join(&format!("{KEPT}/.{name}.{}", std::process::id()));
        let text = format!("{}\n", record.to_text());
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&temporary, self.path(name)));
        written.map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            self.directory.at(&Self::name(name), e)
        })
    }

    /// The one of this name.
    pub fn get(&self, name: &SessionName) -> Option<Record> {
        Record::from_text(std::fs::read_to_string(self.path(name)).ok()?.trim_end())
    }

    /// Forgets it; whether there was one.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn forget(&self, name: &SessionName) -> io::Result<bool> {
        match std::fs::remove_file(self.path(name)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(self.directory.at(&Self::name(name), e)),
        }
    }

    /// All names, sorted.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub fn names(&self) -> io::Result<Vec<SessionName>> {
        let entries = match std::fs::read_dir(self.directory.join(KEPT)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| self.directory.at(KEPT, e))?,
        };
        let mut names: Vec<SessionName> = entries
            .flatten()
            .filter_map(|entry| {
                let file = entry.file_name();
                SessionName::new(file.to_str()?.strip_suffix(".json")?).ok()
            })
            .collect();
        order::sort(&mut names);
        Ok(names)
    }
}
