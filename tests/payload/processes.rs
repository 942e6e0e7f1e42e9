//! Payloads of more than one process.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::{say, take};

/// This program again, with other words.
pub fn again(words: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(words);
    command
}

/// A grandchild takes too much memory while this process lives on; a line tells its end. This process itself goes on
/// until its standard input ends, and returns 5.
pub fn grandchild(mib: usize) {
    let script = format!("\"$0\" hog {mib} & hog=$!; wait $hog; echo \"grandchild $hog ended $?\"");
    let exe = std::env::current_exe().expect("a path");
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .arg(exe)
        .stdin(Stdio::null())
        .spawn()
        .expect("sh");
    child.wait().expect("a child");
    say("parent goes on");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(5);
}

/// Has a child do something, waits for its end, then for the end of its own standard input, and returns this status.
pub fn parent(status: usize, words: &[&str]) {
    let mut child = again(words).stdin(Stdio::null()).spawn().expect("a child");
    child.wait().expect("its end");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(status as i32);
}

/// So many processes, this one among them, that hold memory each; when all do, this one takes more and more.
pub fn crowd(count: usize, mib: usize) {
    let (mib_text, mut children) = (mib.to_string(), Vec::new());
    for _ in 1..count {
        let child = again(&["hold", &mib_text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        children.push(child.expect("a child"));
    }
    for child in &mut children {
        wait_ready(child);
    }
    say(&format!("crowd {count}"));
    let mut held = Vec::new();
    for _ in 0..4096 {
        held.push(take(4));
    }
    say("survived");
}

/// Waits for a child's first line.
pub fn wait_ready(child: &mut Child) {
    let mut byte = [0];
    let out = child.stdout.as_mut().expect("a pipe");
    while out.read_exact(&mut byte).is_ok() && byte[0] != b'\n' {}
}

/// Forks until it may not, tells how often that went well and which error ended it.
pub fn storm() {
    let mut children = Vec::new();
    let error = loop {
        match again(&["hold"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
        {
            Ok(child) => children.push(child),
            Err(error) => break error,
        }
        if children.len() > 1000 {
            say("1000 forks and no limit");
            return;
        }
    };
    say(&format!(
        "forked {} errno {}",
        children.len(),
        error.raw_os_error().unwrap_or(-1)
    ));
    for mut child in children {
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

/// A fork bomb: every process of it forks for ever, and but for the first each ends when it has been refused a few times,
/// which lets the others fork: no list of them is true for long.
pub fn bomb() {
    // Nobody has to wait for the ended ones: their places are free at once.
    // SAFETY: there is no handler.
    unsafe { nix::sys::signal::signal(nix::sys::signal::SIGCHLD, nix::sys::signal::SigHandler::SigIgn) }
        .expect("a disposition");
    say("bomb");
    let first = std::process::id();
    let mut refused = 0;
    loop {
        // SAFETY: there is one thread, and both sides go on with this loop.
        match unsafe { nix::unistd::fork() } {
            Ok(nix::unistd::ForkResult::Parent { .. }) => {}
            Ok(nix::unistd::ForkResult::Child) => refused = 0,
            Err(_) if refused > 10 && std::process::id() != first => std::process::exit(0),
            Err(_) => {
                refused += 1;
                std::thread::yield_now();
            }
        }
    }
}

/// So many children that fork all the time: each has one of its own after the other, which has one in turn. No list of
/// them is true for long, and none is ever without its parent. This process itself goes on until its standard input ends,
/// and takes its children along.
pub fn grove(count: usize) {
    let mut children = Vec::new();
    for _ in 0..count {
        // SAFETY: there is one thread.
        match unsafe { nix::unistd::fork() }.expect("a fork") {
            nix::unistd::ForkResult::Parent { child } => children.push(child),
            nix::unistd::ForkResult::Child => {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("a flag");
                grow()
            }
        }
    }
    say("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    for child in children {
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).expect("a child");
        nix::sys::wait::waitpid(child, None).expect("its end");
    }
}

/// Forks for ever, three generations one after the other, and now and then a child that stays: one that was forked between
/// a look at the tree and its parent's move is outside until somebody looks again.
fn grow() -> ! {
    let fork = |then: &dyn Fn()| {
        // SAFETY: there is one thread, and the child does nothing but what it is given.
        match unsafe { nix::unistd::fork() } {
            Ok(nix::unistd::ForkResult::Parent { child }) => {
                let _ = nix::sys::wait::waitpid(child, None);
            }
            Ok(nix::unistd::ForkResult::Child) => {
                then();
                // SAFETY: ends the process without anything of its parent's being run.
                unsafe { libc::_exit(0) }
            }
            Err(_) => std::thread::yield_now(),
        }
    };
    let mut lasting = 0;
    loop {
        fork(&|| fork(&|| std::thread::sleep(std::time::Duration::from_millis(2))));
        if lasting < 60 {
            lasting += 1;
            // SAFETY: there is one thread; the child only waits for its parent's end.
            if let Ok(nix::unistd::ForkResult::Child) = unsafe { nix::unistd::fork() } {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("a flag");
                std::thread::sleep(std::time::Duration::from_secs(1000));
            }
        }
    }
}

/// Its main thread ends, and another lives on.
pub fn headless() {
    std::thread::spawn(|| {
        let stat = || std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        while !stat().contains(") Z ") {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        say("ready");
        std::thread::sleep(std::time::Duration::from_secs(1000));
    });
    // SAFETY: ends this thread only; nothing on its stack is used by the other.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}
