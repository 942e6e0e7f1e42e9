//! What goes into a guest: a tar archive that is unpacked over its root before anything runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// An archive being put together; paths in it are from the guest's root, with no leading slash.
pub struct Payload {
    tar: tar::Builder<Vec<u8>>,
}

impl Default for Payload {
    fn default() -> Payload {
        Payload {
            tar: tar::Builder::new(Vec::new()),
        }
    }
}

impl Payload {
    /// A file with this content.
    pub fn bytes(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let mut header = header(tar::EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        self.tar.append_data(&mut header, path, content)?;
        Ok(())
    }

    /// A folder.
    pub fn dir(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = header(tar::EntryType::Directory, mode);
        header.set_size(0);
        self.tar.append_data(&mut header, path, std::io::empty())?;
        Ok(())
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        header.set_size(0);
        self.tar.append_link(&mut header, path, target)?;
        Ok(())
    }

    /// A file or folder of this machine, with everything in it. It belongs to root in the guest.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let context = || format!("cannot take {} into the guest", from.display());
        let meta = fs::metadata(from).with_context(context)?;
        if !meta.is_dir() {
            use std::os::unix::fs::PermissionsExt;
            let content = fs::read(from).with_context(context)?;
            return self.bytes(path, &content, meta.permissions().mode() & 0o7777);
        }
        self.dir(path, 0o755)?;
        let mut entries: Vec<_> = fs::read_dir(from).with_context(context)?.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            self.copy(
                &format!("{path}/{}", entry.file_name().to_string_lossy()),
                &entry.path(),
            )?;
        }
        Ok(())
    }

    /// Writes the archive as a disk.
    pub fn write(self, disk: &Path) -> Result<()> {
        let mut bytes = self.tar.into_inner()?;
        bytes.resize(bytes.len().next_multiple_of(1 << 20), 0);
        fs::write(disk, bytes).with_context(|| format!("cannot write {}", disk.display()))
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
