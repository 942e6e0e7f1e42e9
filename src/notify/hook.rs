//! The operator's own program (`on_event`): it gets the record on its standard input.

use crate::kernel::process::own_oom_score_adj;
use crate::kernel::sys::{self, Child, Stage};
use crate::record::Record;
use crate::text::escape;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::ffi::CString;
use std::io;
use std::time::{Duration, Instant};

/// How long it may take.
pub(super) const TIME: Duration = Duration::from_secs(10);
/// How long the kernel may take to end what was killed.
const GONE: Duration = Duration::from_secs(1);

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the program with its arguments, without a shell, and waits for it; what it starts in the background may stay.
///
/// # Errors
///
/// It cannot be started, does not end in time and is killed with its process group, or ends with a failure.
pub(super) fn run(argv: &[String], record: &Record, time: Duration) -> Result<(), String> {
    let shown = escape(&argv.join(" "));
    let failed = |why: String| format!("on_event `{shown}`: {why}");
    let child = child(argv, record).map_err(|error| failed(format!("cannot be prepared: {error}")))?;
    // A daemon has signals blocked, which the program would inherit.
    let before = SigSet::thread_get_mask();
    let _ = SigSet::empty().thread_set_mask();
    let spawned = sys::spawn(&child, None, None);
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    let spawned =
        spawned.map_err(|errno| failed(format!("cannot be started: {}", io::Error::from(errno))))?;
    let refused = spawned.refusals.iter().find(|refusal| refusal.fatal);
    let ended = await_end(&spawned.pidfd, time);
    if !ended {
        if let Some(group) = Pid::from_raw(spawned.pid) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        if !await_end(&spawned.pidfd, GONE) {
            return Err(failed("does not end, not even when it is killed".into()));
        }
    }
    let status = waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED);
    if let Some(refused) = refused {
        let place = match refused.stage {
            Stage::Exec => "cannot be executed",
            _ => "cannot be started",
        };
        return Err(failed(format!("{place}: {}", io::Error::from(refused.errno))));
    }
    if !ended {
        return Err(failed(format!(
            "was killed: it did not end within {} s",
            time.as_secs_f32()
        )));
    }
    match status.map(|status| status.map(|status| (status.exit_status(), status.terminating_signal()))) {
        Ok(Some((Some(0), _))) => Ok(()),
        Ok(Some((Some(status), _))) => Err(failed(format!("ended with status {status}"))),
        Ok(Some((None, Some(signal)))) => Err(failed(format!("was ended by signal {signal}"))),
        // SIGCHLD is ignored in this process, or somebody else has waited for it.
        Ok(_) | Err(_) => Err(failed("ended, and how is not known".into())),
    }
}

fn child(argv: &[String], record: &Record) -> io::Result<Child> {
    let c = |text: &str| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let argv = argv.iter().map(|arg| c(arg)).collect::<io::Result<Vec<_>>>()?;
    let mut envp = vec![c(PATH)?, c(&format!("CGMGR_EVENT={}", record.fact.name()))?];
    if let Some(session) = &record.session {
        envp.push(c(&format!("CGMGR_SESSION={session}"))?);
    }
    let null = || rustix::fs::openat(CWD, "/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    Ok(Child {
        candidates: argv.first().cloned().into_iter().collect(),
        argv,
        envp,
        // cgmgr's own is protected, and a program that anybody may have written is not to be.
        oom_score_adj: own_oom_score_adj().ok().map(|own| own.max(0)),
        directory: Some(c("/")?),
        stdio: Some([input(record)?, null()?, null()?]),
        // A process group of its own, which can be killed, and no terminal.
        new_session: true,
        close_fds: true,
        ..Child::default()
    })
}

/// The record as a file in memory: to write to a pipe would wait for a program that does not read.
fn input(record: &Record) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create(c"record", MemfdFlags::CLOEXEC)?;
    let text = record.to_text() + "\n";
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}

/// Whether it has ended by then.
fn await_end(pidfd: &OwnedFd, time: Duration) -> bool {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left_spec = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left_spec)) {
            Ok(0) | Err(Errno::INTR) if !left.is_zero() => {}
            Ok(events) => return events > 0,
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Fact, Frozen};
    use std::path::{Path, PathBuf};

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cgmgr-hook-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn record() -> Record {
        Record {
            time_usec: 1,
            session: Some("a b".into()),
            id: None,
            role: None,
            fact: Fact::Frozen(Frozen { frozen: true }),
        }
    }

    fn sh(script: &str, at: &Path) -> Vec<String> {
        ["/bin/sh", "-c", script, "hook", at.to_str().unwrap()]
            .map(String::from)
            .to_vec()
    }

    #[test]
    fn it_gets_the_record_and_nothing_else() {
        let at = Directory::new("gets");
        // A descriptor that was opened without close-on-exec, as an embedding program may have them.
        let leaked = rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        // A daemon reads its signals from a descriptor.
        let mut blocked = SigSet::empty();
        blocked.add(nix::sys::signal::Signal::SIGUSR2);
        blocked.thread_block().unwrap();
        let script = "cat > $1/stdin; env > $1/env; grep ^SigBlk /proc/self/status > $1/mask; pwd > $1/pwd; ls /proc/self/fd > $1/fd; echo noise; echo noise >&2; \
                      cat /proc/self/oom_score_adj > $1/score";
        run(&sh(script, &at.0), &record(), TIME).unwrap();
        drop(leaked);
        assert_eq!(
            at.read("mask").trim_start_matches(|c: char| !c.is_ascii_digit()),
            "0000000000000000\n"
        );
        assert!(
            SigSet::thread_get_mask()
                .unwrap()
                .contains(nix::sys::signal::Signal::SIGUSR2)
        );
        assert_eq!(at.read("stdin"), record().to_text() + "\n");
        let mut env: Vec<String> = at.read("env").lines().map(String::from).collect();
        // What the shell sets by itself.
        env.retain(|line| {
            !["PWD=", "SHLVL=", "OLDPWD=", "_="]
                .iter()
                .any(|own| line.starts_with(own))
        });
        env.sort();
        assert_eq!(env, ["CGMGR_EVENT=frozen", "CGMGR_SESSION=a b", PATH]);
        assert_eq!(at.read("pwd"), "/\n");
        // 3 is the directory that ls itself reads.
        assert_eq!(at.read("fd"), "0\n1\n2\n3\n");
        assert!(at.read("score").trim().parse::<i32>().unwrap() >= 0);
    }

    #[test]
    fn one_that_does_not_end_is_killed_with_all_that_it_started() {
        let at = Directory::new("hangs");
        let script = "trap '' TERM; sleep 600 & echo $! > $1/pid; wait; sleep 600";
        let said = run(&sh(script, &at.0), &record(), Duration::from_millis(500)).unwrap_err();
        assert!(said.contains("did not end within 0.5 s"), "{said}");
        let pid: i32 = match at.read("pid").trim() {
            // It was killed before it came so far, and started nothing.
            "" => return,
            pid => pid.parse().unwrap(),
        };
        while crate::kernel::process::stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X')) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_it_starts_in_the_background_is_not_waited_for() {
        let at = Directory::new("background");
        run(&sh("sleep 600 & echo $! > $1/pid", &at.0), &record(), TIME).unwrap();
        let pid = nix::unistd::Pid::from_raw(at.read("pid").trim().parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    #[test]
    fn failures_are_told() {
        let at = Path::new("/");
        for (argv, why) in [
            (sh("exit 3", at), "ended with status 3"),
            (sh("kill -9 $$", at), "was ended by signal 9"),
            (vec!["/no/such".into()], "cannot be executed: No such file"),
            (
                vec!["/etc/passwd".into()],
                "cannot be executed: Permission denied",
            ),
            (vec!["/bin/true\0x".into()], "cannot be prepared"),
        ] {
            let said = run(&argv, &record(), TIME).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
