//! The one file with `unsafe`: `clone3` into a cgroup, and what the new process does between `clone3` and `execve`.
//!
//! No safe crate offers `CLONE_INTO_CGROUP`. Between clone and exec only async-signal-safe calls are made: the parent
//! may be a program with many threads, so the child must not allocate, lock or unwind. Everything it needs is laid out
//! in a [`Child`] beforehand, and what goes wrong is told to the parent through a close-on-exec pipe, or in the memory of it
//! that the child borrows.
#![allow(unsafe_code)]

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::ptr;

/// Identity a session's command runs under: all three are set, groups first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids (`initgroups(3)`).
    pub groups: Vec<u32>,
}

/// What the new process does to itself before it becomes the command.
#[derive(Debug, Default)]
pub struct Child {
    /// Files to try, in order: the command's path, or one per directory of PATH.
    pub candidates: Vec<CString>,
    /// Arguments, the command's name first.
    pub argv: Vec<CString>,
    /// Environment, `KEY=value`.
    pub envp: Vec<CString>,
    /// Written to `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Nice value, absolute.
    pub nice: Option<i32>,
    /// `RLIMIT_NOFILE`, soft and hard.
    pub nofile: Option<u64>,
    /// CPUs it may run on (indices).
    pub affinity: Option<Vec<usize>>,
    /// Back to `SCHED_OTHER`, whatever the caller had.
    pub reset_policy: bool,
    /// The user to become.
    pub identity: Option<Identity>,
    /// Where to start, entered as that user.
    pub directory: Option<CString>,
    /// Standard input, output and error; `None` keeps the caller's.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Lead a session of its own (detached: no terminal).
    pub new_session: bool,
    /// Mark every descriptor above 2 close-on-exec.
    pub close_fds: bool,
    /// What to put back of the caller's signals: its mask, and whether it ignored SIGCHLD.
    pub signals: Option<CallersSignals>,
    /// Steps without which the command must not run, although it otherwise could.
    pub strict: Vec<Stage>,
}

/// How the caller had its signals set before a supervisor changed them: the command gets them so.
#[derive(Clone, Copy)]
pub struct CallersSignals {
    mask: libc::sigset_t,
    ignored_sigchld: bool,
}

impl std::fmt::Debug for CallersSignals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallersSignals")
            .field("ignored_sigchld", &self.ignored_sigchld)
            .finish_non_exhaustive()
    }
}

impl CallersSignals {
    /// Blocks `set`, and has the kernel keep ended children for this process to wait for, which it does not do for a
    /// process that was started with SIGCHLD ignored. Returns how things were.
    pub fn block(set: &nix::sys::signal::SigSet) -> Result<Self, Errno> {
        // SAFETY: valid sets; signal(2) with SIG_DFL installs no handler.
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ref(), &mut mask) < 0 {
                return Err(last_errno());
            }
            let ignored_sigchld = libc::signal(libc::SIGCHLD, libc::SIG_DFL) == libc::SIG_IGN;
            Ok(Self {
                mask,
                ignored_sigchld,
            })
        }
    }

    /// Sets the signals as they were.
    pub fn put_back(&self) {
        // SAFETY: a valid set; SIG_IGN and SIG_DFL install no handler.
        unsafe {
            if self.ignored_sigchld {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &self.mask, ptr::null_mut());
        }
    }
}

/// Makes a process that was started without Rust's runtime as that runtime would have made it, as far as cgmgr counts on
/// it: SIGPIPE is ignored, and the descriptors 0 to 2 are open, so that no file of cgmgr's becomes a standard stream.
///
/// The runtime also finds out where the main thread's stack ends, for a message at its overflow: to read /proc/self/maps
/// for that is a thirtieth of a launch.
pub fn start() {
    // SAFETY: SIG_IGN installs no handler; the array is as long as is said; a string with its end.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut streams = [0, 1, 2].map(|fd| libc::pollfd {
            fd,
            events: 0,
            revents: 0,
        });
        libc::poll(streams.as_mut_ptr(), 3, 0);
        // The lowest number that is free is the one that is missing.
        for _ in streams.iter().filter(|s| s.revents & libc::POLLNVAL != 0) {
            libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        }
    }
}

/// A step of the new process that the kernel refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Entering the group by writing 0 to cgroup.procs (only where `clone3` is not to be had). Fatal.
    Enter,
    /// Attaching the standard streams. Fatal.
    Stdio,
    /// Setting the CPU affinity. The command runs without.
    Affinity,
    /// Resetting the scheduling policy. The command runs without.
    Policy,
    /// Setting `RLIMIT_NOFILE`; `value` is what was set instead, 0 if nothing.
    Nofile,
    /// Making the process dumpable, so that it may write its own score. The command runs without.
    Dumpable,
    /// Writing `oom_score_adj`. The command runs without.
    OomScore,
    /// Setting the nice value. The command runs without.
    Nice,
    /// Becoming the user. Fatal.
    Identity,
    /// Entering the directory to start in. Fatal.
    Directory,
    /// Executing the command. Fatal.
    Exec,
}

const STAGES: [Stage; 11] = [
    Stage::Enter,
    Stage::Stdio,
    Stage::Affinity,
    Stage::Policy,
    Stage::Nofile,
    Stage::Dumpable,
    Stage::OomScore,
    Stage::Nice,
    Stage::Identity,
    Stage::Directory,
    Stage::Exec,
];

/// What the new process said before it became the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which step.
    pub stage: Stage,
    /// The kernel's answer.
    pub errno: Errno,
    /// A number that belongs to it (see [`Stage`]).
    pub value: i64,
    /// Whether the command was not started because of it.
    pub fatal: bool,
}

/// A started process: its pid, held by a pidfd.
#[derive(Debug)]
pub struct Spawned {
    /// Process id.
    pub pid: i32,
    /// The process itself, which a later process of the same pid is not.
    pub pidfd: OwnedFd,
    /// Whether it was moved into its group before it became the command: by its own write, where `clone3` is not available,
    /// or by somebody else ([`spawn_held`]).
    pub moved: bool,
    /// Steps that were refused and that it went on without. Where the last is fatal the command was not started and
    /// the process has ended (it is still to be reaped).
    pub refusals: Vec<Refusal>,
}

const REPORT_SIZE: usize = 16;

/// A refusal as the new process tells it.
type Message = [u8; REPORT_SIZE];

/// Where the new process tells what was refused.
#[derive(Clone, Copy)]
enum Report {
    /// Into a pipe, which execve closes.
    Pipe(RawFd),
    /// Into the memory that it borrows.
    Memory(*mut Messages),
}

/// What a process that borrows its parent's memory has told. More than one of each stage there is not, but of two.
#[derive(Default)]
struct Messages {
    all: [Message; 16],
    count: usize,
}

impl Report {
    fn give(self, message: &Message) {
        match self {
            // SAFETY: the buffer is valid for its length. A failed write cannot be told to anybody.
            Self::Pipe(fd) => unsafe {
                libc::write(fd, message.as_ptr().cast(), message.len());
            },
            // SAFETY: `borrow` passes a pointer to its own Messages, and does not go on before this process has execed or ended.
            Self::Memory(messages) => unsafe {
                let messages = &mut *messages;
                if let Some(free) = messages.all.get_mut(messages.count) {
                    *free = *message;
                    messages.count += 1;
                }
            },
        }
    }
}

/// linux/sched.h. The constant in the libc crate is an `i32` and has overflowed to 0: with it the kernel would start
/// the process outside its group and report success.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Likewise: the new process has none of this one's signal handlers.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Follows a new process until it has become the command.
pub trait Watch {
    /// It exists, with every signal blocked, and is held until this returns: what is sent to its group from now on reaches
    /// it as well as the caller.
    fn begun(&mut self, pid: i32);
    /// A stop signal (Ctrl-Z) has stopped it before exec. Returns when it was let go on.
    fn stopped(&mut self, pid: i32, signal: i32);
}

fn begun(watch: Option<&mut (dyn Watch + '_)>, pid: i32) {
    if let Some(watch) = watch {
        watch.begun(pid);
    }
}

/// Starts `child` in `group` (`None`: in the caller's own) and waits until it has become the command or has failed.
///
/// A stop signal that came in meanwhile takes effect on the new process as soon as it has the caller's mask, which is
/// before exec. Where nobody watches, the new process may borrow this one's memory until it has become the command (as
/// vfork(2) does): that is faster, and this thread then waits in the kernel.
///
/// # Errors
///
/// The kernel's answer to `clone3` or `pipe2`. A failure after that is in [`Spawned::refusals`].
pub fn spawn(
    child: &Child,
    group: Option<BorrowedFd<'_>>,
    mut watch: Option<&mut (dyn Watch + '_)>,
) -> Result<Spawned, Errno> {
    let pointers = Pointers::of(child);
    if watch.is_none()
        && may_borrow(child)
        && let Some(spawned) = borrow(child, &pointers, group)?
    {
        return Ok(spawned);
    }
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let made = match watch.as_deref_mut() {
        None => match clone3(group) {
            // The child.
            Ok(None) => become_command(child, &pointers, writer.as_raw_fd(), None),
            Ok(Some(made)) => Ok(made),
            Err(errno) => Err(HeldError::Kernel(errno)),
        },
        watch => hold(child, &pointers, &writer, Entry::Born(group), |pid, _| {
            begun(watch, pid);
            Ok(())
        }),
    };
    let (pid, pidfd, moved) = match made.map_err(HeldError::errno) {
        Ok((pid, pidfd)) => (pid, pidfd, false),
        // No clone3 (seccomp), or none that knows groups: fork, and let the child enter by itself before it execs.
        Err(Errno::NOSYS | Errno::INVAL | Errno::TOOBIG | Errno::PERM) => {
            let procs = match group {
                Some(dir) => Some(rustix::fs::openat(
                    dir,
                    "cgroup.procs",
                    rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )?),
                None => None,
            };
            let entry = Entry::Goes(procs.as_ref());
            let held = hold(child, &pointers, &writer, entry, |pid, _| {
                begun(watch.as_deref_mut(), pid);
                Ok(())
            });
            let (pid, pidfd) = held.map_err(HeldError::errno)?;
            (pid, pidfd, group.is_some())
        }
        Err(e) => return Err(e),
    };
    drop(writer);
    Ok(executed(reader, pid, pidfd, moved, watch))
}

/// Why a process that was held did not become the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldError<E> {
    /// The kernel's answer to `pipe2`, `fork` or `pidfd_open`.
    Kernel(Errno),
    /// What was said by who was to have it moved.
    Place(E),
}

impl HeldError<Errno> {
    fn errno(self) -> Errno {
        match self {
            Self::Kernel(errno) | Self::Place(errno) => errno,
        }
    }
}

impl<E> From<Errno> for HeldError<E> {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

/// Starts `child` in the caller's own group and holds it there until `place` has had somebody else move it, who may what
/// the caller may not: then it goes on as with [`spawn`]. `place` is given its pid and pidfd; while it is held the process
/// has executed nothing of the command's, and keeps what this process had open.
///
/// Slower than [`spawn`]: memory is copied as with fork(2), whatever `child` wants.
///
/// # Errors
///
/// What `place` returned, or the kernel's answer. The process was killed, and nothing of it is left. It is killed as well
/// where the calling thread ends while it is held.
pub fn spawn_held<E>(
    child: &Child,
    mut watch: Option<&mut (dyn Watch + '_)>,
    place: impl FnOnce(i32, BorrowedFd<'_>) -> Result<(), E>,
) -> Result<Spawned, HeldError<E>> {
    let pointers = Pointers::of(child);
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (pid, pidfd) = hold(child, &pointers, &writer, Entry::Goes(None), |pid, pidfd| {
        begun(watch.as_deref_mut(), pid);
        place(pid, pidfd)
    })?;
    drop(writer);
    Ok(executed(reader, pid, pidfd, true, watch))
}

/// How a process that is held gets into its group.
#[derive(Clone, Copy)]
enum Entry<'a> {
    /// It is made there; `None` is the caller's own.
    Born(Option<BorrowedFd<'a>>),
    /// It is made in the caller's, and before exec it enters that whose `cgroup.procs` this is, if one is given.
    Goes(Option<&'a OwnedFd>),
}

/// Makes a process that waits until `ready` has said that it may become the command. Where it may not, nothing of it is
/// left.
fn hold<E>(
    child: &Child,
    pointers: &Pointers,
    report: &OwnedFd,
    entry: Entry<'_>,
    ready: impl FnOnce(i32, BorrowedFd<'_>) -> Result<(), E>,
) -> Result<(i32, OwnedFd), HeldError<E>> {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: valid sets. The child calls only async-signal-safe functions until exec, and has a buffer of one byte.
    let made = unsafe {
        // However long it waits, none of this process's signal handlers runs in it.
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &all, &mut mask);
        let made = match entry {
            Entry::Born(group) => clone3(group).map(|made| made.map(|(pid, pidfd)| (pid, Some(pidfd)))),
            Entry::Goes(_) => fork().map(|made| made.map(|pid| (pid, None))),
        };
        if let Ok(None) = made {
            // End of file is what a parent leaves that was killed. But another process that is held may have a copy of
            // its end of the pipe, so that a signal is wanted too.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::close(go.as_raw_fd());
            let mut byte = [0u8; 1];
            if libc::getppid() != parent || libc::read(wait.as_raw_fd(), byte.as_mut_ptr().cast(), 1) != 1 {
                libc::_exit(125);
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);
            libc::sigprocmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
            let procs = match entry {
                Entry::Born(_) => None,
                Entry::Goes(procs) => procs.map(|fd| fd.as_raw_fd()),
            };
            become_command(child, pointers, report.as_raw_fd(), procs)
        }
        libc::sigprocmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
        made
    };
    let (pid, pidfd) = match made? {
        Some((pid, Some(pidfd))) => (pid, pidfd),
        Some((pid, None)) => (pid, pidfd_of(pid)?),
        None => unreachable!("the child has gone another way"),
    };
    let unstarted = Unstarted(&pidfd);
    ready(pid, pidfd.as_fd()).map_err(HeldError::Place)?;
    rustix::io::write(&go, b"1")?;
    std::mem::forget(unstarted);
    Ok((pid, pidfd))
}

/// A descriptor of a child of this process's, which is killed where there is none to be had.
fn pidfd_of(pid: i32) -> Result<OwnedFd, Errno> {
    open_pidfd(pid).inspect_err(|_| {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    })
}

/// A process that is not to become a command. Dropped, it is killed and reaped.
struct Unstarted<'a>(&'a OwnedFd);

impl Drop for Unstarted<'_> {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(self.0, rustix::process::Signal::KILL);
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(self.0.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
    }
}

/// Waits until a process has become the command or has failed.
fn executed(
    reader: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    moved: bool,
    watch: Option<&mut (dyn Watch + '_)>,
) -> Spawned {
    await_exec(&reader, pid, &pidfd, watch);
    Spawned {
        pid,
        pidfd,
        moved,
        refusals: read_refusals(&reader),
    }
}

/// Whether a new process may do what `child` wants while it borrows this one's memory. Becoming another user, and being
/// dumpable for a moment, would change this process as well.
fn may_borrow(child: &Child) -> bool {
    // SAFETY: prctl with integer arguments.
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64"))
        && child.identity.is_none()
        && unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } == 1
}

/// Starts `child` as vfork(2) does: it borrows this process's memory until it has become the command or has ended, and
/// this thread waits in the kernel until then. Nothing is copied, and no page has to be copied afterwards. `None`: the
/// kernel knows no such thing, or the command did not fit into the group's memory. A process that borrows is passed over
/// by the OOM killer (mm/oom_kill.c, `in_vfork`), so that one is to be started in the other way, which ends in a verdict.
///
/// It has a stack of its own, no signal handler, and all signals blocked until it is about to exec; what it changes of
/// itself (descriptors, priorities, rlimits, signals) is not shared. A stop signal that is sent to exactly this process
/// in that moment would keep this thread waiting for its SIGCONT, as with posix_spawn(3).
fn borrow(
    child: &Child,
    pointers: &Pointers,
    group: Option<BorrowedFd<'_>>,
) -> Result<Option<Spawned>, Errno> {
    let mut told = Messages::default();
    let mut stack = Vec::<u128>::with_capacity(BORROWERS_STACK / size_of::<u128>());
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_CLEAR_SIGHAND | (libc::CLONE_PIDFD | libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = BORROWERS_STACK as u64;
    if let Some(dir) = group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: valid sets. The arguments of clone3 are valid and outlive the call, as does everything that the new process
    // reads, since this thread does not go on before it has execed or ended; the stack is its own.
    let pid = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &all, &mut mask);
        let borrower = Borrower {
            child,
            pointers,
            report: Report::Memory(ptr::from_mut(&mut told)),
            mask,
        };
        let pid = clone3_and_call(&args, Borrower::begin, ptr::from_ref(&borrower).cast());
        libc::sigprocmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
        pid
    };
    let pid = match pid {
        0.. => pid as i32,
        _ => match Errno::from_raw_os_error(-pid as i32) {
            Errno::NOSYS | Errno::INVAL | Errno::TOOBIG | Errno::PERM => return Ok(None),
            errno => return Err(errno),
        },
    };
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let refusals: Vec<Refusal> = told.all[..told.count].iter().filter_map(refusal).collect();
    let did_not_fit = |r: &Refusal| r.stage == Stage::Exec && r.errno == Errno::NOMEM;
    if refusals.last().is_some_and(did_not_fit) {
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        return Ok(None);
    }
    Ok(Some(Spawned {
        pid,
        pidfd,
        moved: false,
        refusals,
    }))
}

const BORROWERS_STACK: usize = 64 << 10;

/// What a process that borrows this one's memory is given.
struct Borrower<'a> {
    child: &'a Child,
    pointers: &'a Pointers,
    report: Report,
    /// The caller's signal mask.
    mask: libc::sigset_t,
}

impl Borrower<'_> {
    extern "C" fn begin(borrower: *const libc::c_void) -> ! {
        // SAFETY: `borrow` passes a pointer to its own Borrower, which is there until this process has execed or ended.
        let borrower = unsafe { &*borrower.cast::<Borrower<'_>>() };
        prepare_and_exec(
            borrower.child,
            borrower.pointers,
            borrower.report,
            None,
            Some(&borrower.mask),
        );
        // SAFETY: _exit ends this process without running anything of the one it borrows from.
        unsafe { libc::_exit(125) }
    }
}

/// clone3(2), after which the new process calls `begin(data)` on the stack in `args`. Returns the pid, or the negative
/// errno: this thread's errno is the new process's as well.
///
/// # Safety
///
/// `args` has CLONE_VM, CLONE_VFORK and a stack that nobody else uses; `data` is what `begin` takes.
unsafe fn clone3_and_call(
    args: &libc::clone_args,
    begin: extern "C" fn(*const libc::c_void) -> !,
    data: *const libc::c_void,
) -> libc::c_long {
    let mut result = -libc::c_long::from(libc::ENOSYS);
    // SAFETY: the system call changes rax, rcx and r11 only. The new process has this one's registers but for rax and rsp,
    // leaves this function by its call and never comes back.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<libc::clone_args>(),
            in("r8") begin,
            in("r9") data,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: the same, where the system call changes x0 only, and the new process's registers differ in x0 and sp.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x3",
            "blr x2",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(args) => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x2") begin,
            in("x3") data,
        );
    }
    // Elsewhere `may_borrow` says no.
    let _ = (args, begin, data, &mut result);
    result
}

/// Waits until the new process says something or has become the command (end of file).
fn await_exec(reader: &OwnedFd, pid: i32, pidfd: &OwnedFd, mut watch: Option<&mut (dyn Watch + '_)>) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while matches!(
        poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&pause)),
        Ok(0) | Err(Errno::INTR)
    ) {
        let stopped = waitid(
            WaitId::PidFd(pidfd.as_fd()),
            WaitIdOptions::STOPPED | WaitIdOptions::NOHANG,
        );
        if let Ok(Some(status)) = stopped
            && let Some(signal) = status.stopping_signal()
            && let Some(watch) = watch.as_deref_mut()
        {
            watch.stopped(pid, signal);
        }
    }
}

/// Replaces this process by `child`'s command. Returns only when that failed.
pub fn replace(child: &Child) -> Vec<Refusal> {
    let pointers = Pointers::of(child);
    let Ok((reader, writer)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
        return Vec::new();
    };
    prepare_and_exec(child, &pointers, Report::Pipe(writer.as_raw_fd()), None, None);
    drop(writer);
    read_refusals(&reader)
}

/// Splits this process in two: `Some(pid)` in the parent, `None` in the child, which of a process with several threads may
/// call async-signal-safe functions only (fork(2)).
pub fn fork() -> Result<Option<i32>, Errno> {
    // SAFETY: fork(2) itself has no preconditions.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// As [`fork`], where the child has the standard three descriptors only: what the parent has locked (flock(2)) is not to stay
/// locked after it. What owns a descriptor in the child must not be used there, and [`leave`] ends it without dropping any.
pub fn fork_apart() -> Result<Option<i32>, Errno> {
    let child = fork()?;
    if child.is_none() {
        // SAFETY: close_range(2) takes no pointer; nothing here uses what it closes, and the caller does not, as told above.
        unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    }
    Ok(child)
}

/// Closes the descriptors that this process was started with, but for the standard three: what is opened here has close-on-exec
/// set, and what has not was its caller's. A lock (flock(2)) is the caller's for as long as anybody has the descriptor, and
/// a pipe does not end before.
pub fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    for fd in numbers.filter(|fd| *fd > 2).collect::<Vec<_>>() {
        // SAFETY: fcntl with integer arguments; what is closed nobody here owns.
        unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFD);
            if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
                libc::close(fd);
            }
        }
    }
}

/// Ends a process that was made by [`fork`], without running what the other one has to run at its end.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Starts a process that does nothing but be there, so that what it is put into stays, and ends when `hold` is closed by all
/// who have it: also when they are killed. No signal but SIGKILL ends it before, and an OOM kill only where this process
/// may not prevent that. It is not the caller's to wait for. Returns its pid and a pidfd of it.
///
/// # Errors
///
/// No process, pipe or descriptor is to be had.
pub fn pin() -> Result<(i32, OwnedFd, OwnedFd), Errno> {
    let (wait, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: fork(2) has no preconditions; the child calls only async-signal-safe functions, and ends.
    let between = match unsafe { libc::fork() } {
        -1 => return Err(last_errno()),
        // Twice: a program that this process becomes, or that embeds cgmgr, is not to find a child it does not know.
        // SAFETY: as above.
        0 => match unsafe { libc::fork() } {
            0 => be_there(&wait),
            pid => {
                // SAFETY: a valid buffer; `_exit` does not return.
                unsafe {
                    libc::write(writer.as_raw_fd(), pid.to_ne_bytes().as_ptr().cast(), 4);
                    libc::_exit(0)
                }
            }
        },
        pid => pid,
    };
    drop((writer, wait));
    let mut pid = [0u8; 4];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut pid));
    let _ = rustix::process::waitpid(
        rustix::process::Pid::from_raw(between),
        rustix::process::WaitOptions::empty(),
    );
    let pid = i32::from_ne_bytes(pid);
    if read? != 4 || pid <= 0 {
        return Err(Errno::AGAIN);
    }
    // It lives as long as `hold` does: the pid is nobody else's.
    Ok((pid, open_pidfd(pid)?, hold))
}

/// What the process of [`pin`] does.
fn be_there(wait: &OwnedFd) -> ! {
    // SAFETY: plain system calls on this process, with valid arguments; `_exit` does not return.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"cgmgr-pin".as_ptr());
        // Nobody's pipe or terminal waits for it, and no directory is kept by it.
        libc::dup2(wait.as_raw_fd(), 0);
        libc::syscall(libc::SYS_close_range, 1u32, u32::MAX, 0u32);
        libc::chdir(c"/".as_ptr());
        set_oom_score(-1000, &|_, _, _| false);
        let mut byte = 0u8;
        while libc::read(0, std::ptr::from_mut(&mut byte).cast(), 1) > 0 {}
        libc::_exit(0)
    }
}

/// Starts a process that does nothing, for as long as it is let: what it is in stays because it is there. It leads a
/// session of its own, has no file open and is the last that the kernel kills for memory, where it may be. The program
/// stays mapped in it.
pub fn anchor(comm: &CStr) -> Result<(i32, OwnedFd), Errno> {
    // SAFETY: fork(2) has no preconditions; the child calls only async-signal-safe functions, and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        // SAFETY: plain system calls on this process, with strings that have their end; a valid signal set.
        0 => unsafe {
            libc::setsid();
            libc::chdir(c"/".as_ptr());
            libc::prctl(libc::PR_SET_NAME, comm.as_ptr());
            let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
            libc::write(score, c"-1000".as_ptr().cast(), 5);
            libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
            map_program();
            loop {
                libc::pause();
            }
        },
        pid => match open_pidfd(pid) {
            Ok(pidfd) => Ok((pid, pidfd)),
            Err(errno) => {
                // SAFETY: a child of this process that is not reaped yet.
                unsafe {
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, ptr::null_mut(), 0);
                }
                Err(errno)
            }
        },
    }
}

/// The size of a page in bytes, from what the program was started with. rustix's own reads /proc/self/auxv before Linux 6.4,
/// which a program with file capabilities may not, and ends the program then.
pub fn page_size() -> usize {
    // SAFETY: no preconditions; Linux has this always.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Maps all of the program's text and constants, read-only and shared as they are. The kernel keeps no count of a page that
/// is mapped already when another process maps it too: a thirtieth of a launch (docs/speed.md).
fn map_program() {
    unsafe extern "C" {
        // Put there by the linker (ld(1), "PROVIDE"; end(3)).
        static __executable_start: u8;
        static etext: u8;
    }
    let (start, end) = (&raw const __executable_start, &raw const etext);
    let page = page_size();
    let start = start as usize / page * page;
    // SAFETY: reads pages of the program's own file that are there; where the kernel does not know how (before 5.14) or
    // something is not mapped, it says so.
    unsafe {
        libc::madvise(
            start as *mut libc::c_void,
            (end as usize).saturating_sub(start),
            libc::MADV_POPULATE_READ,
        )
    };
}

/// Starts a process that does nothing but one write to `file`, an open control file, and ends with the kernel's answer as
/// its exit status: 0, or the error's number. It keeps nothing of this process open but that file, and is killed when
/// the calling thread ends. Its pid is the caller's to wait for.
pub fn write_apart(file: BorrowedFd<'_>, value: &[u8]) -> Result<i32, Errno> {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: fork(2) has no preconditions; the child calls only async-signal-safe functions, and ends.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => {
            // SAFETY: plain system calls on this process and on memory that the fork copied; `_exit` does not return.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // As standard input the file is out of the way of closing everything else: a lock that is held, or a
                // pipe that somebody reads to its end, must not wait for a write that the kernel does not let go.
                let failed = libc::getppid() != parent || libc::dup2(file.as_raw_fd(), 0) != 0;
                libc::syscall(libc::SYS_close_range, 1u32, u32::MAX, 0u32);
                if failed {
                    libc::_exit(libc::EIO);
                }
                let wrote = libc::pwrite(0, value.as_ptr().cast(), value.len(), 0);
                let answer = match wrote {
                    -1 => *libc::__errno_location(),
                    n if n as usize == value.len() => 0,
                    _ => libc::EIO,
                };
                libc::_exit(answer)
            }
        }
        pid => Ok(pid),
    }
}

fn open_pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// `None` in the child, pid and pidfd in the parent.
fn clone3(group: Option<BorrowedFd<'_>>) -> Result<Option<(i32, OwnedFd)>, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(dir) = group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: args is a valid clone_args of the size given and outlives the call. Without CLONE_VM the child has its
    // own copy of memory and this very stack, as after fork.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            ptr::from_ref(&args),
            std::mem::size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(last_errno()),
        0 => Ok(None),
        // SAFETY: CLONE_PIDFD made the kernel store a new descriptor there, which nobody else owns.
        pid => Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
    }
}

/// The pointer arrays execve wants, made before the clone.
struct Pointers {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// `sh PATH ARGS…` for a script without an interpreter line; PATH is filled in per candidate.
    shell: Vec<*const libc::c_char>,
}

const SHELL: &CStr = c"/bin/sh";

impl Pointers {
    fn of(child: &Child) -> Self {
        fn end(list: impl Iterator<Item = *const libc::c_char>) -> Vec<*const libc::c_char> {
            list.chain(std::iter::once(ptr::null())).collect()
        }
        let argv = end(child.argv.iter().map(|a| a.as_ptr()));
        let shell = [SHELL.as_ptr(), ptr::null()]
            .into_iter()
            .chain(argv.iter().skip(1).copied())
            .collect();
        Self {
            argv,
            envp: end(child.envp.iter().map(|e| e.as_ptr())),
            shell,
        }
    }
}

fn become_command(child: &Child, pointers: &Pointers, report: RawFd, procs: Option<RawFd>) -> ! {
    prepare_and_exec(child, pointers, Report::Pipe(report), procs, None);
    // SAFETY: _exit ends this copy of the process without running anything of the parent's.
    unsafe { libc::_exit(125) }
}

/// Everything between clone and exec. Returns only when a fatal step failed, which was reported then. `mask` is set where
/// `child` says nothing of signals.
fn prepare_and_exec(
    child: &Child,
    pointers: &Pointers,
    report: Report,
    procs: Option<RawFd>,
    mask: Option<&libc::sigset_t>,
) {
    // Returns whether the command must not be started for it.
    let say = |stage: Stage, errno: Errno, value: i64| {
        let always = matches!(
            stage,
            Stage::Enter | Stage::Stdio | Stage::Identity | Stage::Directory | Stage::Exec
        );
        let fatal = always || child.strict.contains(&stage);
        let mut message = [0u8; REPORT_SIZE];
        message[0] = stage as u8;
        message[1] = u8::from(fatal);
        message[4..8].copy_from_slice(&errno.raw_os_error().to_ne_bytes());
        message[8..16].copy_from_slice(&value.to_ne_bytes());
        report.give(&message);
        fatal
    };
    if let Some(procs) = procs {
        // SAFETY: one byte of a valid buffer.
        if unsafe { libc::write(procs, b"0".as_ptr().cast(), 1) } != 1 {
            say(Stage::Enter, last_errno(), 0);
            return;
        }
    }
    if child.new_session {
        // SAFETY: no preconditions. It can only fail where this process leads a group already.
        unsafe { libc::setsid() };
    }
    if let Some(stdio) = &child.stdio {
        for (target, fd) in stdio.iter().enumerate() {
            // SAFETY: both are descriptors; dup2 clears close-on-exec on the copy.
            if unsafe { libc::dup2(fd.as_raw_fd(), target as RawFd) } < 0 {
                say(Stage::Stdio, last_errno(), target as i64);
                return;
            }
        }
    }
    if child.reset_policy {
        // SAFETY: zeroed sched_param means priority 0, which SCHED_OTHER wants.
        let done = unsafe {
            let param: libc::sched_param = std::mem::zeroed();
            libc::sched_setscheduler(0, libc::SCHED_OTHER, &param)
        };
        if done < 0 {
            say(Stage::Policy, last_errno(), 0);
        }
    }
    if let Some(cpus) = &child.affinity {
        // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET checks its bounds.
        let done = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
                libc::CPU_SET(*cpu, &mut set);
            }
            libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set)
        };
        if done < 0 {
            say(Stage::Affinity, last_errno(), 0);
        }
    }
    if let Some(n) = child.nofile
        && set_nofile(n, &say)
    {
        return;
    }
    if let Some(score) = child.oom_score_adj
        && set_oom_score(score, &say)
    {
        return;
    }
    if let Some(nice) = child.nice {
        // SAFETY: no preconditions.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } < 0
            && say(Stage::Nice, last_errno(), i64::from(nice))
        {
            return;
        }
    }
    if let Some(identity) = &child.identity {
        // Raw system calls: glibc's wrappers would signal threads that this copy of the process does not have.
        // SAFETY: the group list is valid for its length.
        let done = unsafe {
            libc::syscall(
                libc::SYS_setgroups,
                identity.groups.len(),
                identity.groups.as_ptr(),
            ) == 0
                && libc::syscall(libc::SYS_setresgid, identity.gid, identity.gid, identity.gid) == 0
                && libc::syscall(libc::SYS_setresuid, identity.uid, identity.uid, identity.uid) == 0
        };
        if !done {
            say(Stage::Identity, last_errno(), i64::from(identity.uid));
            return;
        }
    }
    if let Some(directory) = &child.directory {
        // SAFETY: a string with its end. A process that borrows its parent's memory has a directory of its own.
        if unsafe { libc::chdir(directory.as_ptr()) } < 0 {
            say(Stage::Directory, last_errno(), 0);
            return;
        }
    }
    if child.close_fds {
        // SAFETY: marks descriptors close-on-exec; none is used after exec.
        unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    }
    // SAFETY: Rust's start-up ignores SIGPIPE; the command must find it as a program expects it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if let Some(signals) = &child.signals {
        signals.put_back();
    } else if let Some(mask) = mask {
        // SAFETY: a valid set.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
    }
    say(Stage::Exec, exec(child, pointers), 0);
}

/// Whether the command must not be started.
fn set_nofile(n: u64, say: &dyn Fn(Stage, Errno, i64) -> bool) -> bool {
    let limit = libc::rlimit {
        rlim_cur: n,
        rlim_max: n,
    };
    // SAFETY: valid rlimit structures.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 {
            return false;
        }
        let refused = last_errno();
        // Without CAP_SYS_RESOURCE the hard limit cannot rise: take as much as there is.
        let mut now: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut now);
        let lower = libc::rlimit {
            rlim_cur: now.rlim_max.min(n),
            rlim_max: now.rlim_max.min(n),
        };
        let set = libc::setrlimit(libc::RLIMIT_NOFILE, &lower) == 0;
        say(
            Stage::Nofile,
            refused,
            if set { lower.rlim_cur as i64 } else { 0 },
        )
    }
}

/// Writes the score. A program with file capabilities is not dumpable and its /proc files belong to root: being
/// dumpable for the moment of the write lets it write its own (prctl(2), PR_SET_DUMPABLE). Returns whether the command
/// must not be started.
fn set_oom_score(score: i32, say: &dyn Fn(Stage, Errno, i64) -> bool) -> bool {
    let mut fatal = false;
    // SAFETY: prctl with integer arguments; open with a static C string; write of a valid buffer.
    unsafe {
        let dumpable = libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0);
        if dumpable != 1 && libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 {
            say(Stage::Dumpable, last_errno(), 1);
        }
        let fd = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if fd < 0 {
            fatal |= say(Stage::OomScore, last_errno(), i64::from(score));
        } else {
            let mut buffer = [0u8; 12];
            let text = decimal(score, &mut buffer);
            if libc::write(fd, text.as_ptr().cast(), text.len()) < 0 {
                fatal |= say(Stage::OomScore, last_errno(), i64::from(score));
            }
            libc::close(fd);
        }
        // Where the kernel lets only root see a core (2), which no program can ask for, it is 0 from here on.
        if dumpable != 1 && libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 {
            say(Stage::Dumpable, last_errno(), 0);
        }
    }
    fatal
}

/// `n` in decimal, without allocating. Never zero-padded: the kernel would read octal.
fn decimal(n: i32, buffer: &mut [u8; 12]) -> &[u8] {
    let mut rest = n.unsigned_abs();
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if n < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

/// Tries the candidates as execvp(3) does, and says why none could be executed.
fn exec(child: &Child, pointers: &Pointers) -> Errno {
    let mut denied = None;
    let mut last = Errno::NOENT;
    for candidate in &child.candidates {
        // SAFETY: candidate, argv and envp are NUL-terminated and outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), pointers.argv.as_ptr(), pointers.envp.as_ptr()) };
        last = last_errno();
        match last {
            Errno::NOEXEC => {
                let shell = pointers.shell.as_ptr().cast_mut();
                // SAFETY: slot 1 exists (Pointers::of put it there); only this process sees its copy of the array.
                // The array ends with argv's terminator, or with slot 1 itself followed by it.
                unsafe {
                    *shell.add(1) = candidate.as_ptr();
                    libc::execve(SHELL.as_ptr(), shell, pointers.envp.as_ptr());
                }
                return last_errno();
            }
            Errno::ACCESS => denied = Some(last),
            Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV | Errno::TIMEDOUT => {}
            _ => return last,
        }
    }
    denied.unwrap_or(last)
}

fn read_refusals(reader: &OwnedFd) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut message = [0u8; REPORT_SIZE];
    let mut filled = 0;
    loop {
        match rustix::io::read(reader.as_fd(), &mut message[filled..]) {
            Ok(0) => return refusals,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(_) => return refusals,
        }
        if filled == REPORT_SIZE {
            filled = 0;
            refusals.extend(refusal(&message));
        }
    }
}

/// What a message says.
fn refusal(message: &Message) -> Option<Refusal> {
    let field = |range: std::ops::Range<usize>| message[range].try_into().unwrap_or_default();
    Some(Refusal {
        stage: *STAGES.get(usize::from(message[0]))?,
        errno: Errno::from_raw_os_error(i32::from_ne_bytes(field(4..8))),
        value: i64::from_ne_bytes(message[8..16].try_into().unwrap_or_default()),
        fatal: message[1] != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(candidates: &[&str], argv: &[&str]) -> Child {
        let c = |s: &&str| CString::new(*s).unwrap();
        Child {
            candidates: candidates.iter().map(c).collect(),
            argv: argv.iter().map(c).collect(),
            envp: vec![c"A=1".into()],
            ..Child::default()
        }
    }

    /// Remembers what it is told, and lets go on what was stopped.
    #[derive(Default)]
    struct Witness {
        begun: Vec<i32>,
        stopped: Vec<i32>,
    }

    impl Watch for Witness {
        fn begun(&mut self, pid: i32) {
            let own = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap();
            assert_eq!(own("cmdline"), std::fs::read("/proc/self/cmdline").unwrap());
            self.begun.push(pid);
        }

        fn stopped(&mut self, pid: i32, signal: i32) {
            self.stopped.push(signal);
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        }
    }

    /// Both ways to start a process.
    fn spawn_each(child: &Child, check: impl Fn(Spawned)) {
        check(spawn(child, None, None).unwrap());
        let mut witness = Witness::default();
        let spawned = spawn(child, None, Some(&mut witness)).unwrap();
        assert_eq!(witness.begun, [spawned.pid]);
        check(spawned);
    }

    fn wait(spawned: &Spawned) -> i32 {
        match nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(spawned.pid), None).unwrap() {
            nix::sys::wait::WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn stages_are_numbered_as_they_are_listed() {
        for (i, stage) in STAGES.iter().enumerate() {
            assert_eq!(*stage as usize, i);
        }
    }

    #[test]
    fn a_command_runs_with_its_environment() {
        let child = command(&["/no/sh", "/bin/sh"], &["sh", "-c", "exit $((A + 6))"]);
        spawn_each(&child, |spawned| {
            assert_eq!(spawned.refusals, []);
            assert_eq!(wait(&spawned), 7);
        });
    }

    #[test]
    fn a_missing_command_says_so() {
        spawn_each(&command(&["/no/such"], &["such"]), |spawned| {
            assert_eq!(
                spawned.refusals,
                [Refusal {
                    stage: Stage::Exec,
                    errno: Errno::NOENT,
                    value: 0,
                    fatal: true
                }]
            );
            assert_eq!(wait(&spawned), 125);
        });
    }

    #[test]
    fn what_is_not_executable_says_so() {
        spawn_each(&command(&["/etc/passwd", "/no/such"], &["passwd"]), |spawned| {
            assert_eq!(spawned.refusals[0].errno, Errno::ACCESS);
            wait(&spawned);
        });
    }

    #[test]
    fn a_script_without_an_interpreter_line_runs_in_sh() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("cgmgr-noexec-{}", std::process::id()));
        std::fs::write(&path, "exit $1\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        spawn_each(&command(&[path.to_str().unwrap()], &["script", "9"]), |spawned| {
            assert_eq!(wait(&spawned), 9);
        });
        std::fs::remove_file(&path).unwrap();
    }

    /// Handlers, masks, descriptors and limits are the new process's own, although the memory is not.
    #[test]
    fn a_borrower_leaves_this_process_as_it_is() {
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
        extern "C" fn nothing(_: libc::c_int) {}
        let handler = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGURG, &handler) }.unwrap();
        let mask = || SigSet::thread_get_mask().unwrap();
        let before = mask();
        let limit = || nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        let files = limit();
        let null = std::fs::File::open("/dev/null").unwrap();
        let child = Child {
            nofile: Some(64),
            nice: Some(7),
            oom_score_adj: Some(900),
            stdio: Some([
                null.try_clone().unwrap().into(),
                null.try_clone().unwrap().into(),
                null.into(),
            ]),
            ..command(
                &["/bin/sh"],
                &[
                    "sh",
                    "-c",
                    "grep -q '^SigBlk:[^1-9a-f]*$' /proc/self/status && read score < /proc/$$/oom_score_adj && \
                     exit $(($(ulimit -n) + $(nice) + score - 900))",
                ],
            )
        };
        let (score, nice) = (
            super::super::process::own_oom_score_adj().unwrap(),
            super::super::process::own_nice().unwrap(),
        );
        for _ in 0..3 {
            let spawned = spawn(&child, None, None).unwrap();
            assert_eq!(spawned.refusals, []);
            assert_eq!(wait(&spawned), 71);
        }
        assert_eq!((mask(), limit()), (before, files));
        assert_eq!(super::super::process::own_oom_score_adj().unwrap(), score);
        assert_eq!(super::super::process::own_nice().unwrap(), nice);
    }

    #[test]
    fn a_child_that_is_stopped_before_exec_is_told_and_goes_on() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        // SAFETY: the child only stops itself and ends.
        let pid = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::raise(libc::SIGSTOP);
                libc::_exit(0);
            }
            pid
        };
        drop(writer);
        let mut witness = Witness::default();
        await_exec(&reader, pid, &open_pidfd(pid).unwrap(), Some(&mut witness));
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
        assert_eq!(witness.stopped, [libc::SIGSTOP]);
    }

    fn is_reaped(pid: i32) -> bool {
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None) == Err(nix::errno::Errno::ECHILD)
    }

    #[test]
    fn a_held_process_becomes_the_command_once_it_is_placed() {
        let child = command(&["/bin/sh"], &["sh", "-c", "exit $((A + 6))"]);
        let mut seen = None;
        let spawned = spawn_held(&child, None, |pid, pidfd| {
            let own = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap();
            assert_eq!(own("cmdline"), std::fs::read("/proc/self/cmdline").unwrap());
            assert_eq!(
                rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::CONT),
                Ok(())
            );
            seen = Some(pid);
            Ok::<_, ()>(())
        })
        .unwrap();
        assert_eq!(seen, Some(spawned.pid));
        assert!(spawned.moved);
        assert_eq!(spawned.refusals, []);
        assert_eq!(wait(&spawned), 7);
    }

    #[test]
    fn a_held_process_that_cannot_be_executed_says_so() {
        let spawned = spawn_held(&command(&["/no/such"], &["such"]), None, |_, _| Ok::<_, ()>(())).unwrap();
        assert_eq!(spawned.refusals[0].errno, Errno::NOENT);
        assert_eq!(wait(&spawned), 125);
    }

    #[test]
    fn of_a_held_process_that_is_not_placed_nothing_is_left() {
        let child = command(&["/bin/true"], &["true"]);
        let mut held = Vec::new();
        let refused = spawn_held(&child, None, |pid, _| {
            held.push(pid);
            Err("nowhere to go")
        });
        assert_eq!(refused.map(|s| s.pid), Err(HeldError::Place("nowhere to go")));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            spawn_held(&child, None, |pid, _| -> Result<(), ()> {
                held.push(pid);
                panic!("on purpose")
            })
        }));
        assert!(unwound.is_err());
        assert_eq!(held.len(), 2);
        assert!(held.into_iter().all(is_reaped));
    }

    /// It is killed with the thread that holds it, but not with the thread that started it.
    #[test]
    fn a_held_process_goes_with_its_holder() {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = spawn_held(
                &command(&["/bin/true"], &["true"]),
                None,
                |pid, _| -> Result<(), ()> {
                    // Before it waits it may not have said yet with whom it is to end.
                    while super::super::process::stat(pid).is_none_or(|stat| stat.state != 'S') {
                        std::thread::yield_now();
                    }
                    tell.send(pid).unwrap();
                    // SAFETY: ends this thread alone, as a kill ends a process: nothing is closed and nothing unwound.
                    unsafe { libc::syscall(libc::SYS_exit, 0) };
                    unreachable!()
                },
            );
        });
        let pid = nix::unistd::Pid::from_raw(told.recv().unwrap());
        let ended = nix::sys::wait::waitpid(pid, None).unwrap();
        let killed = nix::sys::wait::WaitStatus::Signaled(pid, nix::sys::signal::Signal::SIGKILL, false);
        assert_eq!(ended, killed);

        let (input, feed) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = || OwnedFd::from(std::fs::File::options().write(true).open("/dev/null").unwrap());
        let starter = std::thread::spawn(move || {
            let child = Child {
                stdio: Some([input, null(), null()]),
                ..command(&["/bin/sh"], &["sh", "-c", "read line; exit 7"])
            };
            let thread = format!("/proc/self/task/{}", rustix::thread::gettid().as_raw_nonzero());
            (spawn_held(&child, None, |_, _| Ok::<_, ()>(())).unwrap(), thread)
        });
        let (spawned, thread) = starter.join().unwrap();
        while std::path::Path::new(&thread).exists() {
            std::thread::yield_now();
        }
        rustix::io::write(&feed, b"go\n").unwrap();
        assert_eq!(wait(&spawned), 7);
    }

    #[test]
    fn decimals() {
        let mut buffer = [0u8; 12];
        for n in [0, 7, -1, 998, -1000, i32::MAX, i32::MIN] {
            assert_eq!(decimal(n, &mut buffer), n.to_string().as_bytes());
        }
    }
}
