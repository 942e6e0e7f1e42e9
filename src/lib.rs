//! cgmgr splits a workspace machine with cgroup v2 into a protected **agent** part and a limited **workloads** part,
//! gives every session a group of its own with the limits that its role file declares, and says truthfully what
//! happened: what is enforced, who was killed, by which limit, and what to change.
//!
//! # The map
//!
//! Data flows one way:
//!
//! ```text
//! role.toml ─► role ─► limits ─► plan ─► backend ─► kernel       change the machine
//!              text    typed     pure    cgroupfs | scope | process
//!                                 ▲
//!                                 └── host facts, current state   values, made by kernel::probe and kernel::survey
//!
//! limits ─► translate ─► docker | podman | systemd | OCI | Kubernetes …      text out, with losses; import is the way back
//!
//! session: launch ─► supervise ─► verdict ─► tell                 one run of a command, from name to removal
//! workspace: sessions for programs that embed cgmgr            cli: what is typed and what is shown
//! ```
//!
//! Each module uses only those above it in this table (`tests/it/layers.rs` holds it to that):
//!
//! | module | is | may not |
//! |---|---|---|
//! | [`text`], [`path`], [`order`] | text for people; names that cannot leave the tree; sorting | do I/O |
//! | [`host`] | this machine as a plain value | do I/O |
//! | [`limits`] | typed limits, and the knob table: the one place where a limit's meaning is written | do I/O |
//! | `interop` | conversions for programs that use the crate cgroups-rs (feature of that name) | do I/O |
//! | [`role`] | role files: text, `$VAR`, inheritance, every mistake with its place | do I/O |
//! | [`files`] | role files, and the host's policy, on disk | hang on a path, whatever it leads to |
//! | [`plan`] | the steps from what is to what should be, with their undo; receipts | do I/O |
//! | [`translate`] | a role in the words of other programs, with what is lost | do I/O |
//! | [`import`] | a role of what another program was told, with what is not in it | do I/O |
//! | [`kernel`] | the only code that opens cgroupfs and /proc; `kernel/sys.rs` is the only `unsafe` | decide |
//! | [`systemd`] | the only code that talks to systemd; `systemd/bus.rs` is the only one that knows D-Bus | decide |
//! | [`record`] | what was observed: facts with a time, and the summary of a session that is over | do I/O |
//! | [`store`] | records on disk: appended by many, bounded, nothing lost by a kill | decide |
//! | [`notify`] | brings a record to people: journal, terminals, the operator's program, desktop | hang, whatever is broken |
//! | [`backend`] | carries a plan out, reads every value back, rolls back on failure | interpret a value |
//! | [`session`] | one confined run: launch, supervision, verdict | print |
//! | [`daemon`] | watches the sessions that live, in one epoll loop; keeps nothing that SIGKILL could lose | print |
//! | [`doctor`] | findings about a host, from facts | do I/O |
//! | [`workspace`] | the face for programs that embed cgmgr; what it and the command line share | print |
//! | [`cli`] | the command line; the only one that prints | exit |
//!
//! Beside a launch there are two other ways into a session: [`session::enter`] starts a further command in one that lives,
//! [`session::adopt`] moves processes that run already into a new one. An agent is put where it is protected by
//! [`session::protect`].
//!
//! To follow one launch: [`cli::run`], then [`session::launch::launch`], [`plan::session::plan`],
//! [`backend::cgroupfs`] (or [`backend::scope`], where systemd makes the group), [`kernel::sys::spawn`], [`session::supervise`], [`session::verdict::oom`].
//!
//! # Invariants
//!
//! - Nothing is written before everything is checked, and a failed step takes back the ones before it.
//! - A session's limits are in force before its first process exists, and that process starts in its group
//!   (`clone3(CLONE_INTO_CGROUP)`); it is never moved there. What is adopted runs before it has limits, and that is said.
//! - Requested is not effective: every value is read back, and a [receipt](plan::receipt) says what holds.
//! - A verdict rests on counters read while the group exists, never on an exit status.
//! - What is systemd's, systemd is asked to change: the slices, and the limits of a scope. Below a unit that it delegated
//!   everything is cgmgr's.
//! - What identifies a session lives on its group (`user.cgmgr.session`), who attends it in a lock that the kernel
//!   frees: a killed cgmgr loses nothing.
//! - Deliberately absent: cgroup v1, an async runtime, a database, freezing as a means.
//!
//! # Embedding
//!
//! A program that embeds cgmgr uses [`workspace`], and needs nothing else: `cgmgr = { version = "0.1", default-features =
//! false }` builds without clap. `examples/embed.rs` shows each of its calls, `examples/embed_agent.rs` is an agent with clients.
//!
//! ```
//! use cgmgr::workspace::{Command, Limits, Workspace};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // Tests change nothing of the machine that they run on.
//! # let workspace = Workspace::without_groups()?;
//! # /*
//! let workspace = Workspace::open()?; // groups where this process may make them
//! # */
//! let role = workspace.role(&Limits::new().memory_max("8 GiB").pids("500"))?;
//! let mut session = workspace.session(&role).spawn(Command::new("true"))?;
//! let ended = session.wait();
//! assert!(ended.success() && !ended.was_oom_killed(), "{ended}");
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("cgmgr is for Linux: it works with cgroup v2");

pub mod backend;
#[cfg(feature = "cli")]
pub mod cli;
pub mod daemon;
pub mod doctor;
pub mod files;
pub mod host;
#[cfg(feature = "cli")]
pub mod import;
#[cfg(feature = "cgroups-rs")]
pub mod interop;
pub mod kernel;
pub mod limits;
pub mod notify;
pub mod order;
pub mod path;
pub mod plan;
pub mod record;
pub mod role;
pub mod session;
pub mod store;
pub mod systemd;
pub mod text;
pub mod translate;
pub mod workspace;
