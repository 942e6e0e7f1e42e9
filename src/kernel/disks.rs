//! Which disks act on `io.weight`: without the iocost controller or the BFQ scheduler the kernel takes a weight and does
//! nothing with it (cgroup-v2.rst, "IO"; contract of io.weight on 6.1 and 6.12: tried).

use super::process;
use crate::host::{Disk, Hierarchy};
use crate::order;

/// The machine's disks, by name. What only stands for other devices or for memory (loop, dm, ram, zram) is none.
pub fn disks(hierarchy: &Hierarchy) -> Vec<Disk> {
    // Only the true root of the hierarchy has it; a kernel without iocost has none at all.
    let costs = match hierarchy.mount() {
        Some(mount) if mount.true_root => {
            Some(process::read(&format!("{}/io.cost.qos", mount.point)).unwrap_or_default())
        }
        _ => None,
    };
    let mut names: Vec<String> = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    order::sort(&mut names);
    let of = |name: String| {
        let dir = format!("/sys/block/{name}");
        rustix::fs::lstat(format!("{dir}/device")).ok()?;
        let number = process::read(&format!("{dir}/dev")).ok()?.trim().to_owned();
        let scheduler = process::read(&format!("{dir}/queue/scheduler")).unwrap_or_default();
        let weighs = match &costs {
            _ if scheduler.contains("[bfq]") => Some(true),
            Some(costs) => Some(has_iocost(costs, &number)),
            None => None,
        };
        Some(Disk { name, number, weighs })
    };
    names.into_iter().filter_map(of).collect()
}

/// Whether io.cost.qos says that iocost is on for a device: `254:0 enable=1 ctrl=auto …`.
fn has_iocost(costs: &str, number: &str) -> bool {
    let mut lines = costs.lines().map(|line| line.split(' '));
    lines.any(|mut words| words.next() == Some(number) && words.any(|word| word == "enable=1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iocost_is_per_device() {
        let costs = "254:0 enable=1 ctrl=auto model=linear\n254:16 enable=0 ctrl=auto\n";
        assert!(has_iocost(costs, "254:0"));
        assert!(!has_iocost(costs, "254:16") && !has_iocost(costs, "254:1") && !has_iocost("", "254:0"));
    }
}
