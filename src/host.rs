//! What this machine offers, as a plain value. Only `kernel::probe` makes one from a real machine; tests build
//! theirs by hand. May not do I/O.
#![deny(clippy::disallowed_methods)]

/// Numbers of this machine that limits are relative to.
///
/// Sources: proc_meminfo(5), sysconf(3), proc_sys_kernel(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// `MemTotal` of /proc/meminfo, in bytes. `N%` of a size is of this.
    pub mem_total: u64,
    /// `SwapTotal` of /proc/meminfo, in bytes; 0 where there is no swap.
    pub swap_total: u64,
    /// Size of a page, in bytes: the kernel rounds every memory limit down to it.
    pub page_size: u64,
    /// CPUs that are online.
    pub cpus: u32,
    /// `kernel.pid_max`.
    pub pid_max: u64,
    /// `kernel.threads-max`.
    pub threads_max: u64,
}

impl Machine {
    /// How many tasks the machine can hold: `pids = "N%"` of `[workloads]` is of this.
    pub fn max_tasks(&self) -> u64 {
        self.pid_max.min(self.threads_max)
    }
}
