//! Which files somebody holds a lock on, all at once: /proc/locks (proc_locks(5)).
//!
//! It shows only what processes of the reader's own pid namespace hold: a file that is not listed may be locked all the
//! same, and one that is listed is.

use super::process;
use std::collections::BTreeSet;

/// The inode numbers of the files on device `dev` (stat's `st_dev`) that somebody holds an flock(2) on. Empty where
/// /proc/locks cannot be read.
pub fn flocked(dev: u64) -> BTreeSet<u64> {
    let device = (rustix::fs::major(dev), rustix::fs::minor(dev));
    parse(&process::read_list("/proc/locks").unwrap_or_default(), device)
}

/// The same from the text of /proc/locks. Lines that are not understood are passed over.
pub fn parse(text: &str, device: (u32, u32)) -> BTreeSet<u64> {
    text.lines().filter_map(|line| inode(line, device)).collect()
}

/// `1: FLOCK  ADVISORY  WRITE 5433 08:01:7864448 0 EOF`: the device's numbers are hexadecimal. A process that waits for a
/// lock has `->` before the kind.
fn inode(line: &str, device: (u32, u32)) -> Option<u64> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let mut file = words.nth(3)?.split(':');
    let mut number = || u32::from_str_radix(file.next()?, 16).ok();
    let found = (number()?, number()?);
    let inode = file.next()?.parse().ok()?;
    (found == device).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn only_held_flocks_of_the_device_count() {
        let text = "1: POSIX  ADVISORY  READ  5433 08:01:7864448 128 128\n\
                    2: FLOCK  ADVISORY  WRITE 2001 08:0a:7864554 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 2002 08:0a:7864555 0 EOF\n\
                    3: FLOCK  ADVISORY  WRITE 1568 00:2f:32388 0 EOF\n\
                    4: OFDLCK ADVISORY  WRITE -1 08:0a:1 0 EOF\n\
                    5: FLOCK\n\nx\n6: FLOCK ADVISORY WRITE 1 zz:01:5 0 EOF\n";
        assert_eq!(parse(text, (8, 10)), BTreeSet::from([7_864_554]));
        assert_eq!(parse(text, (0, 0x2f)), BTreeSet::from([32_388]));
    }

    #[test]
    fn a_lock_of_this_process_is_listed() {
        let path = std::env::temp_dir().join(format!("cgmgr-locks-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let meta = file.metadata().unwrap();
        assert!(!flocked(meta.dev()).contains(&meta.ino()));
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let held = flocked(meta.dev());
        std::fs::remove_file(&path).unwrap();
        assert!(held.contains(&meta.ino()), "{held:?}");
    }
}
