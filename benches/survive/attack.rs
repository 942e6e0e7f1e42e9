//! The eight attacks, each from several sessions at once. All end by themselves when their time is over, as far as the
//! kernel lets them: so they end in the same way whoever confines them.

use super::clock::At;
use super::{DISK, at, call_myself};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

/// Everything that attacks is called so: whoever is killed under another name was not guilty.
pub const GUILTY: &str = "atk-";

const SOON: Duration = Duration::from_millis(1);

/// From how many sessions an attack comes.
pub fn sessions(name: &str) -> usize {
    match name {
        "cpu" => 4,
        _ => 6,
    }
}

/// Attacks until the deadline.
pub fn run(name: &str, session: usize, deadline: At) -> Result<(), String> {
    call_myself(&format!("{GUILTY}{name}"));
    match name {
        "hog" => hog(deadline),
        "crowd" => crowd(deadline),
        "forks" => forks(deadline),
        "threads" => threads(deadline),
        "cpu" => in_each(4, |_| burn(deadline))?,
        "fsync" => in_each(3, |number| write(session, number, deadline))?,
        "cache" => in_each(2, |number| read(session * 2 + number, deadline))?,
        "files" => files(deadline),
        _ => return Err(format!("unknown attack {name}")),
    }
    Ok(())
}

/// What the attacks find on the disk.
pub fn prepare() -> Result<(), String> {
    let path = sparse();
    let file = File::create(&path).map_err(at(&path))?;
    // No block of it is on the disk; what is read of it is in the page cache all the same.
    file.set_len(SPARSE).map_err(at(&path))
}

/// Memory straight from the kernel, every page written to.
pub struct Pages {
    start: *mut u8,
    bytes: usize,
}

impl Pages {
    /// Takes so much; `None` where the kernel refuses.
    pub fn take(bytes: usize) -> Option<Pages> {
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let pages = Pages {
            start: start.cast(),
            bytes,
        };
        (start != libc::MAP_FAILED).then(|| {
            pages.touch();
            pages
        })
    }

    /// Writes to every page.
    pub fn touch(&self) {
        for offset in (0..self.bytes).step_by(4096) {
            // SAFETY: within the mapping, which is writable and only this value's.
            unsafe { self.start.add(offset).write_volatile(1) };
        }
    }

    /// Unmaps it. What is never given back needs no call.
    pub fn give_back(self) {
        // SAFETY: the mapping is this value's, which ends here.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

/// Takes memory as fast as it gets it, more than the machine has. In large pieces, for which the kernel has huge pages: it
/// takes a third of a second of one processor to fill a GiB.
fn hog(deadline: At) {
    while !deadline.is_past() {
        if Pages::take(32 << 20).is_none() {
            std::thread::sleep(SOON);
        }
    }
}

/// Many processes that hold a little each.
fn crowd(deadline: At) {
    reap_by_itself();
    while !deadline.is_past() {
        in_a_child(|| {
            // In pieces of a huge page, for the end of the attack is also theirs.
            for _ in 0..4 {
                if !deadline.is_past() {
                    Pages::take(2 << 20);
                }
            }
            deadline.wait();
        });
    }
}

/// A fork bomb: every process of it forks for ever; but for the first each ends when it has been refused a few times, which
/// lets others fork.
fn forks(deadline: At) {
    reap_by_itself();
    let first = std::process::id();
    let mut refused = 0;
    while !deadline.is_past() {
        // SAFETY: there is one thread, and both sides go on with this loop.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { .. }) => {}
            Ok(ForkResult::Child) => refused = 0,
            Err(_) if refused > 10 && std::process::id() != first => std::process::exit(0),
            Err(_) => {
                refused += 1;
                std::thread::yield_now();
            }
        }
    }
}

/// Threads without end, and each of them wakes up again and again.
fn threads(deadline: At) {
    while !deadline.is_past() {
        let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        if thread.is_err() {
            std::thread::sleep(SOON);
        }
    }
    // The process's end is theirs.
}

fn burn(deadline: At) -> Result<(), String> {
    while !deadline.is_past() {
        for number in 0..10_000_u32 {
            std::hint::black_box(number);
        }
    }
    Ok(())
}

/// Writes a file in pieces of 64 KiB and has each MiB on the disk before it goes on.
fn write(session: usize, number: usize, deadline: At) -> Result<(), String> {
    let path = format!("{DISK}/written-{session}-{number}");
    let mut file = File::create(&path).map_err(at(&path))?;
    let piece = vec![b'x'; 64 << 10];
    while !deadline.is_past() {
        for mib in 0..16 {
            for _ in 0..16 {
                file.write_all(&piece).map_err(at(&path))?;
            }
            file.sync_all().map_err(at(&path))?;
            if deadline.is_past() {
                return Ok(());
            }
            if mib == 15 {
                file.seek(SeekFrom::Start(0)).map_err(at(&path))?;
            }
        }
    }
    Ok(())
}

const SPARSE: u64 = 8 << 30;

fn sparse() -> String {
    format!("{DISK}/sparse")
}

/// Reads more than the memory holds, each from another place on.
fn read(number: usize, deadline: At) -> Result<(), String> {
    let mut file = File::open(sparse()).map_err(at(&sparse()))?;
    let mut piece = vec![0; 256 << 10];
    let start = SPARSE / 12 * number as u64;
    file.seek(SeekFrom::Start(start)).map_err(at(&sparse()))?;
    while !deadline.is_past() {
        if file.read(&mut piece).map_err(at(&sparse()))? == 0 {
            file.seek(SeekFrom::Start(0)).map_err(at(&sparse()))?;
        }
    }
    Ok(())
}

/// Opens pipes, each with something in it, until it may not; then a child does the same.
fn files(deadline: At) {
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    if let Ok((_, most)) = nix::sys::resource::getrlimit(limit) {
        let _ = nix::sys::resource::setrlimit(limit, most, most);
    }
    let mut open = Vec::new();
    while !deadline.is_past() {
        match nix::unistd::pipe() {
            Ok((reader, writer)) => {
                // 64 KiB would fill it; what is in it is the kernel's memory, and no process is the larger for it.
                let _ = nix::unistd::write(&writer, &[1; 60 << 10]);
                open.push((reader, writer));
            }
            // SAFETY: there is one thread, and both sides go on with this loop.
            Err(nix::Error::EMFILE) => match unsafe { fork() } {
                // Its copies of the descriptors keep nothing alive that is not alive anyway.
                Ok(ForkResult::Child) => open.clear(),
                Ok(ForkResult::Parent { .. }) => deadline.wait(),
                Err(_) => std::thread::sleep(SOON),
            },
            Err(_) => std::thread::sleep(SOON),
        }
    }
}

/// Does something in so many processes at once, of which this is one.
fn in_each(count: usize, work: impl Fn(usize) -> Result<(), String>) -> Result<(), String> {
    for number in 1..count {
        in_a_child(|| {
            let _ = work(number);
        });
    }
    work(0)
}

/// Does something in a child that ends with it; where there can be none, not, after a moment.
fn in_a_child(work: impl FnOnce()) {
    // SAFETY: there is one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            work();
            std::process::exit(0)
        }
        Ok(ForkResult::Parent { .. }) => {}
        Err(_) => std::thread::sleep(SOON),
    }
}

/// Nobody has to wait for the children: their places are free at once.
fn reap_by_itself() {
    // SAFETY: there is no handler.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
}
