//! The initramfs: busybox, the disk's modules and a script, as a cpio archive in the kernel's "newc" format.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::image::Image;

const INIT: &str = include_str!("../guest/initramfs-init");

/// Writes the initramfs that goes with `image`.
pub fn write(image: &Image, path: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "modules", "proc", "sys", "root"] {
        archive.add(dir, 0o040_755, &[]);
    }
    archive.add("init", 0o100_755, INIT.as_bytes());
    archive.add("bin/busybox", 0o100_755, &fs::read(image.busybox())?);
    for entry in fs::read_dir(image.modules())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        archive.add(&format!("modules/{name}"), 0o100_644, &fs::read(entry.path())?);
    }
    fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inodes += 1;
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        self.bytes.extend(b"070701");
        // inode, mode, uid, gid, links, mtime, size, device (4 fields), length of the name, checksum
        for field in [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_begins_on_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.add("a", 0o100_644, b"12345");
        let begin = archive.bytes.len();
        archive.add("bc", 0o100_644, b"");
        assert_eq!(begin % 4, 0);
        assert_eq!(&archive.bytes[begin..begin + 6], b"070701");
    }
}
