//! What the tests know of the machine that they run on.

use std::fs;

/// A variable that the lab sets, if it is the lab that runs us.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A file's content with the line ends cut off.
pub fn read(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => panic!("cannot read {path}: {error}"),
    }
}

/// The type and the options of the file system mounted at `path`.
pub fn mounted(path: &str) -> Option<(String, String)> {
    let table = read("/proc/self/mounts");
    let rows = table.lines().map(|row| row.split(' ').collect::<Vec<_>>());
    let mut last = rows.filter(|row| row.get(1) == Some(&path)).collect::<Vec<_>>();
    let row = last.pop()?;
    Some((row.get(2)?.to_string(), row.get(3)?.to_string()))
}
