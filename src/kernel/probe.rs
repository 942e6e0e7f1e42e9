//! Makes the host facts: the only place where [`crate::host::Host`] comes from a real machine. Reads only.

use super::{base, mounts, process, sys};
use crate::host::{Base, Hierarchy, Host, Machine, Mount, MountOptions, NoBase, Tasks};
use crate::order;
use crate::path::GroupPath;
use rustix::fs::CWD;

/// This machine. `explicit` is the group the user named as cgmgr's base, if any.
pub fn host(explicit: Option<&GroupPath>) -> Host {
    look(|hierarchy, systemd, own| base::find(hierarchy, systemd, explicit, own))
}

/// This machine, where each session is to be a scope of systemd's, whatever else there is.
pub fn host_with_scopes() -> Host {
    look(base::with_scopes)
}

fn look(base: impl Fn(&Hierarchy, bool, Option<&GroupPath>) -> Result<Base, NoBase>) -> Host {
    let own = process::read("/proc/self/cgroup").unwrap_or_default();
    let hierarchy = hierarchy_seen_from(&own);
    let systemd = systemd_is_pid1();
    let own = mounts::own_group(&own).as_deref().and_then(GroupPath::new);
    let base = base(&hierarchy, systemd, own.as_ref());
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    Host {
        machine: machine(),
        kernel,
        systemd,
        systemd_version: None,
        euid: rustix::process::geteuid().as_raw(),
        hierarchy,
        base,
        disks: None,
    }
}

/// Numbers of this machine. Where /proc gives none, the value is one that limits nothing.
pub fn machine() -> Machine {
    // Not sysinfo(2): in a container with lxcfs only this file says what the container has.
    let meminfo = process::read("/proc/meminfo").unwrap_or_default();
    let bytes = |key: &str| parse_kib(process::line_of(&meminfo, key)?);
    Machine {
        mem_total: bytes("MemTotal").unwrap_or(u64::MAX),
        swap_total: bytes("SwapTotal").unwrap_or(0),
        page_size: sys::page_size() as u64,
        cpus: match online_cpus() {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            n => n,
        },
        tasks: Tasks::Asked(tasks),
    }
}

/// How many tasks the machine can hold.
fn tasks() -> u64 {
    let number = |path: &str| {
        let text = process::read(path).ok();
        text.and_then(|t| t.trim().parse().ok()).unwrap_or(4_194_304)
    };
    u64::min(
        number("/proc/sys/kernel/pid_max"),
        number("/proc/sys/kernel/threads-max"),
    )
}

/// The bytes of an amount in /proc/meminfo: `8388608 kB`.
pub fn parse_kib(amount: &str) -> Option<u64> {
    let kib: u64 = amount.strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// CPUs online, whatever this process's own affinity or quota is.
fn online_cpus() -> u32 {
    let text = process::read("/sys/devices/system/cpu/online").unwrap_or_default();
    parse_cpu_list(text.trim()).len() as u32
}

/// CPU indices of a list like `0-3,7` (cpuset(7), "List format").
pub fn parse_cpu_list(text: &str) -> Vec<usize> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
            // CPU_SETSIZE is 1024; a longer list is not one of CPUs.
            (last < 65_536).then_some(first..=last)
        })
        .flatten()
        .collect()
}

/// Whether PID 1 is systemd, by sd_booted(3)'s own test.
fn systemd_is_pid1() -> bool {
    rustix::fs::lstat("/run/systemd/system")
        .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir())
}

/// How the cgroup hierarchies are set up, by what is mounted (never by path alone).
pub fn hierarchy() -> Hierarchy {
    hierarchy_seen_from(&process::read("/proc/self/cgroup").unwrap_or_default())
}

/// The same, from the text of /proc/self/cgroup.
fn hierarchy_seen_from(own: &str) -> Hierarchy {
    let v1 = mounts::v1_controllers(own);
    let mount = usual_mount().or_else(|| best_mount(v2_mounts()));
    match (mount, v1.is_empty()) {
        (Some(mount), true) => Hierarchy::Unified(mount),
        (Some(mount), false) => Hierarchy::Hybrid { mount, v1 },
        (None, false) => Hierarchy::Legacy { v1 },
        (None, true) => Hierarchy::Absent,
    }
}

/// Where cgroup v2 is mounted on nearly every machine.
const USUAL: &str = "/sys/fs/cgroup";

/// The mount at the usual place, if it is cgroup v2 and can be written to: then no other could be preferred. The list of
/// all mounts is one of the slowest files of /proc.
fn usual_mount() -> Option<Mount> {
    let found = nix::sys::statfs::statfs(USUAL).ok()?;
    let read_only = found.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
    (found.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC && !read_only).then(|| Mount {
        point: USUAL.to_owned(),
        read_only,
        true_root: shows_true_root(USUAL),
    })
}

/// The mounts of cgroup v2. All show the same hierarchy.
fn v2_mounts() -> Vec<mounts::CgroupMount> {
    let mut found = mounts::parse_mountinfo(&process::read_list("/proc/self/mountinfo").unwrap_or_default());
    found.retain(|m| m.kind == mounts::MountKind::V2);
    found
}

/// The one to use: a writable one, at the usual place.
fn best_mount(mut found: Vec<mounts::CgroupMount>) -> Option<Mount> {
    order::sort_by_key(&mut found, |m| (m.read_only, m.point != USUAL, m.point.len()));
    found.into_iter().next().map(|m| Mount {
        true_root: shows_true_root(&m.point),
        point: m.point,
        read_only: m.read_only,
    })
}

/// Only the true root of the hierarchy has no cgroup.type (cgroup-v2.rst, "Core Interface Files").
fn shows_true_root(point: &str) -> bool {
    let path = format!("{point}/cgroup.type");
    let typed = rustix::fs::accessat(
        CWD,
        path,
        rustix::fs::Access::EXISTS,
        rustix::fs::AtFlags::empty(),
    );
    typed.is_err()
}

/// How the v2 hierarchy is mounted; `None` where it is not.
pub fn mount_options() -> Option<MountOptions> {
    let mounts = v2_mounts();
    let options = &mounts.first()?.options;
    let has = |option: &str| options.iter().any(|o| o == option);
    Some(MountOptions {
        nsdelegate: has("nsdelegate"),
        recursiveprot: has("memory_recursiveprot"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(parse_cpu_list("0"), [0]);
        assert!(parse_cpu_list("").is_empty());
        assert!(parse_cpu_list("a-b,3-1,0-99999999").is_empty());
    }

    #[test]
    fn this_machine_has_memory_and_cpus() {
        let machine = machine();
        assert!(machine.mem_total > 1 << 20 && machine.mem_total < u64::MAX);
        assert!(machine.cpus >= 1);
        assert!(machine.page_size >= 4096);
    }
}
