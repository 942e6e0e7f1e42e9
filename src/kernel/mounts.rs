//! Where the cgroup hierarchies are mounted and where a process is in them: parsers for /proc/PID/mountinfo and
//! /proc/PID/cgroup. Pure text in, values out; may not do I/O.
#![deny(clippy::disallowed_methods)]

/// One cgroup mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMount {
    /// Directory it is mounted on.
    pub point: String,
    /// The group of the hierarchy that is its root (`/` on a host; `/../..` where the mount shows more than the
    /// reader's cgroup namespace).
    pub root: String,
    /// `cgroup2`, or the v1 controllers (`memory`, `cpu,cpuacct`, `name=systemd`).
    pub kind: MountKind,
    /// Whether the mount or its superblock is read-only.
    pub read_only: bool,
    /// Options of the superblock, e.g. `nsdelegate`, `memory_recursiveprot`.
    pub options: Vec<String>,
}

/// Version of a cgroup mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// The unified hierarchy.
    V2,
    /// A version 1 hierarchy.
    V1,
}

/// The cgroup mounts of a /proc/PID/mountinfo text (proc_pid_mountinfo(5)), in its order. Lines that are not
/// understood are passed over: they are not cgroup mounts.
pub fn parse_mountinfo(text: &str) -> Vec<CgroupMount> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<CgroupMount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let kind = match right.next()? {
        "cgroup2" => MountKind::V2,
        "cgroup" => MountKind::V1,
        _ => return None,
    };
    let _source = right.next()?;
    let super_options: Vec<String> = right.next()?.split(',').map(str::to_owned).collect();
    let mut left = left.split(' ').skip(3);
    let root = unescape(left.next()?);
    let point = unescape(left.next()?);
    let mount_ro = left.next()?.split(',').any(|o| o == "ro");
    let read_only = mount_ro || super_options.iter().any(|o| o == "ro");
    Some(CgroupMount {
        point,
        root,
        kind,
        read_only,
        options: super_options,
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes
            .get(i + 1..i + 4)
            .filter(|d| bytes[i] == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        if let Some(d) = octal {
            out.push((d[0] - b'0').wrapping_mul(64) + (d[1] - b'0') * 8 + (d[2] - b'0'));
            i += 4;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The process's group in the unified hierarchy, from a /proc/PID/cgroup text: the path of the `0::` line without
/// the ` (deleted)` that a removed group carries. `None` where there is no such line.
///
/// A path seen from inside a cgroup namespace may begin with `/..`.
pub fn own_group(text: &str) -> Option<String> {
    // A path may itself contain colons: split at most twice (cgroups(7)).
    // `lines` would take a carriage return away, which may be the end of a group's name.
    let path = text.split('\n').find_map(|line| line.strip_prefix("0::"))?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

/// The controllers that version 1 hierarchies hold, by a /proc/PID/cgroup text (named hierarchies left out).
pub fn v1_controllers(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.split(':').nth(1))
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty() && !name.starts_with("name="))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unified_mount_with_its_options() {
        let text = "22 1 0:20 / /proc rw - proc proc rw\n\
            30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 \
            rw,nsdelegate,memory_recursiveprot\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].point, "/sys/fs/cgroup");
        assert_eq!(mounts[0].kind, MountKind::V2);
        assert!(!mounts[0].read_only);
        assert!(mounts[0].options.iter().any(|o| o == "memory_recursiveprot"));
    }

    #[test]
    fn a_read_only_mount_and_an_odd_root() {
        let text = "30 23 0:26 /../.. /a\\040b ro,nosuid - cgroup2 none rw\n31 23 0:27 / /m rw - cgroup cgroup rw,memory";
        let mounts = parse_mountinfo(text);
        assert_eq!(
            (mounts[0].point.as_str(), mounts[0].root.as_str()),
            ("/a b", "/../..")
        );
        assert!(mounts[0].read_only);
        assert_eq!(mounts[1].kind, MountKind::V1);
    }

    #[test]
    fn own_group_in_every_shape_the_kernel_prints() {
        assert_eq!(own_group("0::/a:b\n").as_deref(), Some("/a:b"));
        assert_eq!(
            own_group("1:cpu:/x\n0::/../../init.scope\n").as_deref(),
            Some("/../../init.scope")
        );
        assert_eq!(own_group("0::/x (deleted)\n").as_deref(), Some("/x"));
        assert_eq!(own_group("0::/x\r\n").as_deref(), Some("/x\r"));
        assert_eq!(own_group("4:memory:/x\n"), None);
    }

    #[test]
    fn v1_controllers_without_named_hierarchies() {
        let text = "9:name=systemd:/\n4:memory:/a\n2:cpu,cpuacct:/\n0::/\n";
        assert_eq!(v1_controllers(text), ["memory", "cpu", "cpuacct"]);
    }

    #[test]
    fn mangled_lines_never_panic() {
        for text in [
            "",
            " - ",
            "a - cgroup2",
            "a b c d e - cgroup2 x",
            "\\",
            "1 2 3 \\77 \\777 rw - cgroup2 c rw",
        ] {
            parse_mountinfo(text);
            own_group(text);
            v1_controllers(text);
        }
    }
}
