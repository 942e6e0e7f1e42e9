//! cgmgr splits a workspace machine with cgroup v2 into a protected agent part and a limited workloads part.

#[cfg(not(target_os = "linux"))]
compile_error!("cgmgr is for Linux: it works with cgroup v2");

pub mod backend;
#[cfg(feature = "cli")]
pub mod cli;
pub mod doctor;
pub mod host;
pub mod kernel;
pub mod limits;
pub mod plan;
pub mod role;
pub mod session;
pub mod text;
