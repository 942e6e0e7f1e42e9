//! Follows the system calls of cgmgr's own processes, and makes a chosen one fail or be the last.
//!
//! strace can do the same, but counts from one again in each process that it follows: the calls of a forked process are
//! out of its reach as long as its parent made as many of that name before it. Here a call is named by the process and
//! its number in it. What cgmgr executes is let go: only cgmgr itself is under test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::cgmgr::PATIENCE;

/// One system call of cgmgr's, as it is about to be made.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose it is: 0 is the first process, 1 the first that was forked, and so on.
    pub process: usize,
    /// Its number in that process, from 1. Calls about the process's own memory are not counted: where the kernel lays
    /// things out differs from run to run, and with it their number.
    pub nth: usize,
    /// Its name.
    pub name: String,
    /// The file, directory or group it is about; empty where it is about none.
    pub about: String,
    /// What it would write, or the attribute that it is about.
    pub value: Option<String>,
    /// Whether somebody else could see that it was made: killed before a call that changes nothing, or before the next
    /// one, is the same.
    pub changes: bool,
    /// Whether a program other than cgmgr has been executed by now.
    pub executed: bool,
}

impl Call {
    /// As a person would say it.
    pub fn shown(&self) -> String {
        let value = self.value.as_ref().map_or(String::new(), |v| format!(" `{v}`"));
        format!(
            "process {} call {}: {}({}{value})",
            self.process, self.nth, self.name, self.about
        )
    }
}

/// What is done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL before the kernel has done anything of it.
    Kill,
    /// It does nothing and returns this.
    Error(i32),
}

/// What was seen.
pub struct Traced {
    /// Every call up to the fault, in order.
    pub calls: Vec<Call>,
    /// The call that met the fault.
    pub hit: Option<Call>,
    /// The exit status of the first process as a shell has it.
    pub status: i32,
    /// Whether a program other than cgmgr was executed.
    pub executed: bool,
}

struct Tracee {
    index: usize,
    calls: usize,
    /// Whether it is between a call's beginning and its end.
    in_call: bool,
    /// What the call that it is in is to return.
    answer: Option<i32>,
}

/// Runs a command to its end. `decide` sees every call before it is made, or, where only one is of interest, those
/// around it and every wait. After a fault nothing more is looked at; the
/// processes that then still run are let go once the first has ended and `enough` says so.
pub fn trace(
    command: &mut Command,
    only: Option<(usize, usize)>,
    decide: &mut dyn FnMut(&Call) -> Option<Fault>,
    enough: &dyn Fn() -> bool,
) -> Traced {
    trace_as(command, None, only, decide, enough)
}

/// The same as another user, by his number. Root is who traces: with another tracer the kernel gives a file's
/// capabilities to nobody (capabilities(7)).
pub fn trace_as(
    command: &mut Command,
    user: Option<u32>,
    only: Option<(usize, usize)>,
    decide: &mut dyn FnMut(&Call) -> Option<Fault>,
    enough: &dyn Fn() -> bool,
) -> Traced {
    let prepare = move || {
        ptrace::traceme().map_err(std::io::Error::from)?;
        let Some(id) = user else { return Ok(()) };
        // SAFETY: system calls on this process, which has one thread.
        let done = unsafe { libc::setgid(id) == 0 && libc::setuid(id) == 0 };
        done.then_some(()).ok_or_else(std::io::Error::last_os_error)
    };
    // SAFETY: system calls in the child, which allocate nothing.
    unsafe { command.pre_exec(prepare) };
    // Not both on one processor: each stop would last until the next tick of its clock, for the kernel lets a tracer wait
    // that comes before the tracee has left the processor.
    let processors = sched_getaffinity(None).expect("a set of processors");
    let mut theirs = processors;
    theirs.unset(0);
    if theirs.count() > 0 {
        sched_setaffinity(None, &theirs).expect("processors");
    }
    #[expect(
        clippy::zombie_processes,
        reason = "`follow` waits for everything that is traced"
    )]
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut ours = CpuSet::new();
    ours.set(0);
    sched_setaffinity(None, &ours).expect("a processor");
    let first = Pid::from_raw(child.id() as i32);
    let stopped = waitpid(first, None).expect("a child");
    assert!(
        matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)),
        "{stopped:?}"
    );
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(first, options).expect("a stopped child");
    ptrace::syscall(first, None).expect("a stopped child");
    let mut tracer = Tracer {
        first,
        only,
        tracees: BTreeMap::new(),
        gone: BTreeSet::new(),
        met: 0,
        seen: Traced {
            calls: Vec::new(),
            hit: None,
            status: -1,
            executed: false,
        },
        ended: false,
    };
    tracer.tracee(first);
    tracer.follow(decide, enough);
    sched_setaffinity(None, &processors).expect("the processors it had");
    tracer.seen
}

struct Tracer {
    first: Pid,
    only: Option<(usize, usize)>,
    tracees: BTreeMap<Pid, Tracee>,
    /// Processes that are traced no more.
    gone: BTreeSet<Pid>,
    /// How many processes there have been.
    met: usize,
    seen: Traced,
    ended: bool,
}

impl Tracer {
    fn tracee(&mut self, pid: Pid) -> &mut Tracee {
        let met = &mut self.met;
        self.tracees.entry(pid).or_insert_with(|| {
            *met += 1;
            Tracee {
                index: *met - 1,
                calls: 0,
                in_call: false,
                answer: None,
            }
        })
    }

    fn follow(&mut self, decide: &mut dyn FnMut(&Call) -> Option<Fault>, enough: &dyn Fn() -> bool) {
        let mut since = None;
        while !self.tracees.is_empty() {
            let mut flags = WaitPidFlag::__WALL;
            if self.seen.hit.is_some() {
                flags |= WaitPidFlag::WNOHANG;
            }
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) => {
                    if self.ended && enough() {
                        return self.let_go();
                    }
                    let since = since.get_or_insert_with(Instant::now);
                    let hit = self.seen.hit.as_ref().expect("a fault").shown();
                    assert!(
                        since.elapsed() < PATIENCE,
                        "it does not end after a fault at {hit}"
                    );
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(status) => self.step(status, decide),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => panic!("cannot wait: {errno}"),
            }
        }
    }

    fn step(&mut self, status: WaitStatus, decide: &mut dyn FnMut(&Call) -> Option<Fault>) {
        match status {
            WaitStatus::PtraceSyscall(pid) => {
                self.tracee(pid);
                self.at_call(pid, decide);
                self.go_on(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                self.seen.executed = true;
                self.tracees.remove(&pid);
                self.gone.insert(pid);
                let _ = ptrace::detach(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, _) => {
                // The new process may have come first, and may even have been let go.
                if let Ok(new) = ptrace::getevent(pid)
                    && !self.gone.contains(&Pid::from_raw(new as i32))
                {
                    self.tracee(Pid::from_raw(new as i32));
                }
                self.go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => {
                let is_new = self.tracee(pid).calls == 0 && signal == Signal::SIGSTOP;
                self.go_on(pid, (!is_new).then_some(signal));
            }
            WaitStatus::Exited(pid, code) => self.over(pid, code),
            WaitStatus::Signaled(pid, signal, _) => self.over(pid, 128 + signal as i32),
            other => panic!("{other:?}"),
        }
    }

    fn over(&mut self, pid: Pid, status: i32) {
        self.tracees.remove(&pid);
        self.gone.insert(pid);
        if pid == self.first {
            self.seen.status = status;
            self.ended = true;
        }
    }

    /// A tracee that was killed meanwhile is no failure: its end comes next.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let waits = self.tracees.get(&pid).is_some_and(|t| t.answer.is_some());
        let _ = if self.seen.hit.is_some() && !waits {
            ptrace::cont(pid, signal)
        } else {
            ptrace::syscall(pid, signal)
        };
    }

    fn at_call(&mut self, pid: Pid, decide: &mut dyn FnMut(&Call) -> Option<Fault>) {
        let Ok(mut registers) = ptrace::getregs(pid) else {
            return;
        };
        // Set by the kernel before a call begins. A new process may be at the end of the call that made it.
        let fresh = registers.rax as i64 == -i64::from(libc::ENOSYS);
        let tracee = self.tracee(pid);
        tracee.in_call = !tracee.in_call && fresh;
        if !tracee.in_call {
            if let Some(errno) = tracee.answer.take() {
                registers.rax = -i64::from(errno) as u64;
                let _ = ptrace::setregs(pid, registers);
            }
            return;
        }
        if self.seen.hit.is_some() || MEMORY.contains(&(registers.orig_rax as i64)) {
            return;
        }
        let executed = self.seen.executed;
        let tracee = self.tracee(pid);
        tracee.calls += 1;
        let key = (tracee.index, tracee.calls);
        // The number of a call differs a little from run to run.
        let far = |(process, nth): (usize, usize)| process != key.0 || nth.abs_diff(key.1) > 20;
        if self.only.is_some_and(far) && !POLL.contains(&(registers.orig_rax as i64)) {
            return;
        }
        let (about, value) = about(pid, &registers);
        let name = name(registers.orig_rax as i64);
        let call = Call {
            process: key.0,
            nth: key.1,
            changes: changes(&name, &about, value.is_some()),
            name,
            about,
            value,
            executed,
        };
        self.seen.calls.push(call.clone());
        let Some(fault) = decide(&call) else { return };
        self.seen.hit = Some(call);
        match fault {
            Fault::Kill => kill(pid, Signal::SIGKILL).expect("a stopped process"),
            Fault::Error(errno) => {
                // No system call has this number: the kernel does nothing.
                registers.orig_rax = u64::MAX;
                ptrace::setregs(pid, registers).expect("a stopped process");
                self.tracee(pid).answer = Some(errno);
            }
        }
    }

    /// Stops each that is left and then traces it no more.
    fn let_go(&mut self) {
        for pid in std::mem::take(&mut self.tracees).into_keys() {
            if kill(pid, Signal::SIGSTOP).is_err() {
                continue;
            }
            loop {
                match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                    Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => {
                        let _ = ptrace::detach(pid, None);
                        break;
                    }
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => break,
                    Ok(_) => {
                        let _ = ptrace::cont(pid, None);
                    }
                }
            }
        }
    }
}

const POLL: [i64; 2] = [libc::SYS_poll, libc::SYS_ppoll];
const MEMORY: [i64; 7] = [
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
];

/// Whether somebody else could see that a call was made.
fn changes(name: &str, about: &str, writes: bool) -> bool {
    match name {
        "open" | "openat" => writes,
        // What others wait for.
        "close" => about.ends_with(".lock") || about.starts_with("pipe:"),
        "clone" | "clone3" | "dup2" | "dup3" | "execve" | "exit_group" | "flock" | "fork"
        | "fremovexattr" | "fsetxattr" | "kill" | "mkdir" | "mkdirat" | "pidfd_send_signal" | "prctl"
        | "pwrite64" | "rename" | "renameat2" | "rmdir" | "sched_setaffinity" | "sched_setscheduler"
        | "setgroups" | "setpriority" | "setresgid" | "setresuid" | "setsid" | "unlink" | "unlinkat"
        | "vfork" | "wait4" | "waitid" | "write" | "writev" => true,
        _ => false,
    }
}

/// What a call is about, and with which value.
fn about(pid: Pid, r: &libc::user_regs_struct) -> (String, Option<String>) {
    let fd = |fd: u64| link(pid, &format!("fd/{fd}"));
    let at = |dir: u64, path: u64| {
        let path = text(pid, path, 4096, true);
        match path.as_str() {
            path if path.starts_with('/') => path.to_owned(),
            path => {
                let dir = if dir as i32 == libc::AT_FDCWD {
                    link(pid, "cwd")
                } else {
                    fd(dir)
                };
                let path = path.trim_start_matches('.');
                format!("{dir}/{path}").trim_end_matches('/').to_owned()
            }
        }
    };
    let of = |name: libc::c_long| r.orig_rax == name as u64;
    let any = |names: &[libc::c_long]| names.iter().any(|n| of(*n));
    if any(&[
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_mkdirat,
        libc::SYS_unlinkat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_readlinkat,
    ]) {
        let writes = of(libc::SYS_openat) && r.rdx & (libc::O_ACCMODE as u64) != 0;
        return (at(r.rdi, r.rsi), writes.then(String::new));
    }
    if any(&[
        libc::SYS_open,
        libc::SYS_stat,
        libc::SYS_lstat,
        libc::SYS_statfs,
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        libc::SYS_unlink,
        libc::SYS_rename,
        libc::SYS_readlink,
        libc::SYS_access,
    ]) {
        let writes = of(libc::SYS_open) && r.rsi & (libc::O_ACCMODE as u64) != 0;
        return (at(libc::AT_FDCWD as u64, r.rdi), writes.then(String::new));
    }
    if any(&[libc::SYS_pwrite64, libc::SYS_write]) {
        return (fd(r.rdi), Some(text(pid, r.rsi, r.rdx.min(512) as usize, false)));
    }
    if any(&[libc::SYS_fsetxattr, libc::SYS_fgetxattr, libc::SYS_fremovexattr]) {
        return (fd(r.rdi), Some(text(pid, r.rsi, 256, true)));
    }
    if any(&[
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_getdents64,
        libc::SYS_fstat,
        libc::SYS_fstatfs,
        libc::SYS_flock,
        libc::SYS_close,
    ]) {
        return (fd(r.rdi), None);
    }
    if of(libc::SYS_prctl) {
        return (String::new(), Some(format!("{} {}", r.rdi, r.rsi)));
    }
    if of(libc::SYS_setpriority) {
        return (String::new(), Some((r.rdx as i32).to_string()));
    }
    if of(libc::SYS_execve) {
        return (at(libc::AT_FDCWD as u64, r.rdi), None);
    }
    if of(libc::SYS_clone3) {
        // struct clone_args: flags come first, the group's descriptor is the eleventh.
        const INTO_CGROUP: u64 = 0x2_0000_0000;
        if number(pid, r.rdi) & INTO_CGROUP != 0 {
            return (fd(number(pid, r.rdi + 80)), None);
        }
    }
    (String::new(), None)
}

fn link(pid: Pid, name: &str) -> String {
    let found = std::fs::read_link(format!("/proc/{pid}/{name}"));
    found.map_or(String::new(), |path| {
        let path = path.to_string_lossy();
        // A group that was removed meanwhile has the same name as before.
        path.trim_end_matches(" (deleted)").to_owned()
    })
}

fn memory(pid: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut read = 0;
    if let Ok(file) = File::open(format!("/proc/{pid}/mem")) {
        // Up to the end of a page at a time: what follows it may not be there.
        while read < length {
            let at = address + read as u64;
            let end = (4096 - (at % 4096) as usize).min(length - read);
            match file.read_at(&mut bytes[read..read + end], at) {
                Ok(0) | Err(_) => break,
                Ok(n) => read += n,
            }
            if bytes[..read].contains(&0) {
                break;
            }
        }
    }
    bytes.truncate(read);
    bytes
}

fn text(pid: Pid, address: u64, length: usize, ends: bool) -> String {
    let mut bytes = memory(pid, address, length);
    if ends && let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn number(pid: Pid, address: u64) -> u64 {
    let bytes = memory(pid, address, 8);
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// A system call's name.
fn name(number: i64) -> String {
    macro_rules! names {
        ($($name:ident)*) => {
            [$((libc::$name, stringify!($name))),*]
        };
    }
    let names = names!(
        SYS_access SYS_arch_prctl SYS_brk SYS_chdir SYS_clone SYS_clone3 SYS_close SYS_close_range SYS_dup SYS_dup2
        SYS_dup3 SYS_epoll_create1 SYS_execve SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fchmod
        SYS_fcntl SYS_fgetxattr SYS_flock SYS_fork SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync
        SYS_futex SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getpgrp SYS_getpid SYS_getppid
        SYS_getpriority SYS_getrandom SYS_getrlimit SYS_getrusage SYS_getsid SYS_gettid SYS_getuid SYS_ioctl SYS_kill
        SYS_lseek SYS_lstat SYS_madvise SYS_mkdir SYS_mkdirat SYS_mmap SYS_mprotect SYS_mremap SYS_munmap
        SYS_clock_nanosleep SYS_nanosleep SYS_newfstatat SYS_open SYS_openat SYS_openat2 SYS_pidfd_open
        SYS_pidfd_send_signal SYS_pipe2 SYS_poll SYS_ppoll SYS_prctl SYS_pread64 SYS_prlimit64 SYS_pwrite64 SYS_read
        SYS_readlink SYS_readlinkat SYS_recvfrom SYS_rename SYS_renameat2 SYS_rmdir SYS_rseq SYS_rt_sigaction
        SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_setscheduler
        SYS_set_robust_list SYS_set_tid_address SYS_setgroups SYS_setpgid SYS_setpriority SYS_setresgid
        SYS_setresuid SYS_setrlimit SYS_setsid SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_stat SYS_statfs
        SYS_statx SYS_sysinfo SYS_uname SYS_unlink SYS_unlinkat SYS_vfork SYS_wait4 SYS_waitid SYS_write SYS_writev
        SYS_connect
    );
    let found = names.iter().find(|(n, _)| *n == number);
    found.map_or(format!("call_{number}"), |(_, name)| {
        name.trim_start_matches("SYS_").to_owned()
    })
}
