//! Sessions that the library starts, and one that `cgmgr run` waits for.

use crate::machine::ROLE_FILE;
use cgmgr::kernel::probe;
use cgmgr::path::SessionName;
use cgmgr::plan::receipt::Backend;
use cgmgr::role::{Inputs, LoadError, Overrides, Role, Source, resolve};
use cgmgr::session::launch::{Place, Request, Running, launch};
use cgmgr::session::supervise;
use rustix::fd::AsFd;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A thousand live sessions are a few thousand descriptors.
pub fn raise_open_files() -> Result<(), String> {
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    nix::sys::resource::setrlimit(limit, 65_536, 65_536).map_err(|e| format!("open files: {e}"))
}

/// An embedding program: it has found its place and read its role once.
pub struct Library {
    place: Place,
    role: Role,
    stem: SessionName,
}

impl Library {
    pub fn new() -> Result<Library, String> {
        raise_open_files()?;
        let place = Place::open(probe::host(None), Backend::Cgroupfs).map_err(|e| e.message)?;
        if place.base().is_none() {
            return Err("there is no place for groups on this machine".into());
        }
        let text = std::fs::read_to_string(ROLE_FILE).map_err(|e| e.to_string())?;
        let source = Source {
            path: ROLE_FILE.into(),
            text,
        };
        let inputs = Inputs {
            machine: &place.host.machine,
            env: &|_| None,
            load: &|_| {
                Err(LoadError {
                    message: "the role extends nothing".into(),
                    help: None,
                })
            },
            overrides: &Overrides::default(),
        };
        let (role, _) = resolve(source, &inputs).map_err(|mistakes| format!("{mistakes:?}"))?;
        Ok(Library {
            place,
            role,
            stem: SessionName::new("lib")?,
        })
    }

    fn launch(&self, argv: &[&str]) -> Result<Running, String> {
        let argv = argv.iter().map(Into::into).collect();
        let request = Request::new(self.stem.clone(), &self.role.settings, argv);
        launch(request, &self.place).map_err(|e| e.message)
    }

    /// A session of `/bin/true`, to its end.
    pub fn once(&self) -> Result<(), String> {
        self.end(self.launch(&["/bin/true"])?)
    }

    /// A session that stays.
    pub fn hold(&self) -> Result<Live<'_>, String> {
        let running = self.launch(&["/bin/sleep", "100000"])?;
        Ok(Live {
            embedder: self,
            running,
        })
    }

    fn end(&self, running: Running) -> Result<(), String> {
        let ended = waitid(
            WaitId::PidFd(running.spawned.pidfd.as_fd()),
            WaitIdOptions::EXITED,
        );
        ended.map_err(|e| format!("waitid: {e}"))?;
        let (Some(tree), Some((_, path))) = (&self.place.tree, &running.group) else {
            return Err("a session without a group".into());
        };
        supervise::remove(tree, path)
    }
}

/// A live session.
pub struct Live<'a> {
    embedder: &'a Library,
    running: Running,
}

impl Live<'_> {
    /// Ends it.
    pub fn end(self) -> Result<(), String> {
        pidfd_send_signal(&self.running.spawned.pidfd, Signal::KILL).map_err(|e| e.to_string())?;
        self.embedder.end(self.running)
    }
}

/// What `cgmgr run` holds for itself while its command runs: alone, and beside another one that shares its pages.
pub fn memory_of_a_waiting_parent() -> Result<(), String> {
    let start = || {
        Command::new("/usr/local/bin/cgmgr")
            .args(["run", "--role", ROLE_FILE, "--", "/bin/cat"])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cgmgr run: {e}"))
    };
    let mut first = start()?;
    until_asleep(first.id());
    let alone = private_kib(first.id());
    let mut second = start()?;
    until_asleep(second.id());
    let beside = private_kib(first.id());
    println!(
        "private memory of a waiting cgmgr run: {:.2} MiB alone, {:.2} MiB beside another (goal: below 1.5)",
        alone as f64 / 1024.0,
        beside as f64 / 1024.0
    );
    for child in [&mut first, &mut second] {
        drop(child.stdin.take());
        child.wait().map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Until a process has had nothing to do for a while.
fn until_asleep(pid: u32) {
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
        stat.split(' ').next().unwrap_or_default().to_owned()
    };
    let since = Instant::now();
    let mut last = used();
    while since.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(300));
        let now = used();
        if now == last {
            return;
        }
        last = now;
    }
}

/// Private_Clean and Private_Dirty of `/proc/PID/smaps_rollup` (proc(5)), in KiB.
pub fn private_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .filter(|l| l.starts_with("Private_Clean:") || l.starts_with("Private_Dirty:"))
        .filter_map(|l| l.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}
