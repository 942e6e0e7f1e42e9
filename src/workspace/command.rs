//! What a session runs. [`std::process::Command`] cannot be used for it: where its streams go, and whether it clears the
//! environment, cannot be read back from it.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{stderr as own_stderr, stdin as own_stdin, stdout as own_stdout};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout};

/// A command with its arguments, environment, directory and streams; as [`std::process::Command`], but for what belongs
/// to the session: user, priorities, limits.
#[derive(Debug)]
pub struct Command {
    argv: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    clear: bool,
    pub(super) directory: Option<PathBuf>,
    stdio: [Stdio; 3],
}

/// Where a standard stream of a command goes.
#[derive(Debug)]
pub struct Stdio(Kind);

#[derive(Debug)]
enum Kind {
    Inherit,
    Null,
    Piped,
    Given(OwnedFd),
}

impl Stdio {
    /// Where this process's goes. The default.
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// To `/dev/null`.
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// Through a pipe to the [`Session`](super::Session).
    pub fn piped() -> Self {
        Self(Kind::Piped)
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self(Kind::Given(fd))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        Self(Kind::Given(file.into()))
    }
}

/// This process's ends of the pipes.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Command {
    /// Runs `program`: a path, or a name that is looked for in the command's PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            argv: vec![program.as_ref().to_owned()],
            env: Vec::new(),
            clear: false,
            directory: None,
            stdio: [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()],
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment. The rest is this process's, but for the variables of Coder's agent that are for
    /// cgmgr itself (`CODER_PROC_PRIO_MGMT`, `CODER_PROC_OOM_SCORE`, `CODER_PROC_NICE_SCORE`), which no session gets.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes a variable away from its environment.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), None));
        self
    }

    /// Gives it nothing of this process's environment, nor of what was set so far.
    pub fn env_clear(mut self) -> Self {
        self.env.clear();
        self.clear = true;
        self
    }

    /// The directory that it starts in. A program that is named by a relative path is looked for from there.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Its standard input.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdio[0] = stdin.into();
        self
    }

    /// Its standard output.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdio[1] = stdout.into();
        self
    }

    /// Its standard error.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stdio[2] = stderr.into();
        self
    }

    pub(super) fn program(&self) -> &OsStr {
        &self.argv[0]
    }

    pub(super) fn argv(&self) -> Vec<OsString> {
        self.argv.clone()
    }

    /// Its whole environment; `None` is this process's.
    pub(super) fn environment(
        &self,
        own: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Option<Vec<(OsString, OsString)>> {
        if !self.clear && self.env.is_empty() {
            return None;
        }
        let mut env: Vec<(OsString, OsString)> = match self.clear {
            true => Vec::new(),
            false => own.into_iter().collect(),
        };
        for (key, value) in &self.env {
            env.retain(|(known, _)| known != key);
            env.extend(value.clone().map(|value| (key.clone(), value)));
        }
        Some(env)
    }

    /// Its streams, and this process's ends of them; no streams where all are this process's.
    pub(super) fn streams(self) -> io::Result<(Option<[OwnedFd; 3]>, Ends)> {
        let mut ends = Ends::default();
        if self.stdio.iter().all(|one| matches!(one.0, Kind::Inherit)) {
            return Ok((None, ends));
        }
        let [stdin, stdout, stderr] = self.stdio;
        let (input, end) = stream(stdin, &own_stdin(), false)?;
        ends.stdin = end.map(ChildStdin::from);
        let (output, end) = stream(stdout, &own_stdout(), true)?;
        ends.stdout = end.map(ChildStdout::from);
        let (errors, end) = stream(stderr, &own_stderr(), true)?;
        ends.stderr = end.map(ChildStderr::from);
        Ok((Some([input, output, errors]), ends))
    }
}

/// The command's side of a stream, and this process's where it is a pipe. `out`: the command writes.
fn stream(stdio: Stdio, own: &impl AsFd, out: bool) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    Ok(match stdio.0 {
        Kind::Inherit => (above_streams(own.as_fd())?, None),
        Kind::Given(fd) => (above_streams(fd.as_fd())?, None),
        Kind::Null => {
            let null = File::options().read(!out).write(out).open("/dev/null")?;
            (above_streams(null.as_fd())?, None)
        }
        Kind::Piped => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            let (theirs, ours) = if out { (writer, reader) } else { (reader, writer) };
            (above_streams(theirs.as_fd())?, Some(ours))
        }
    })
}

/// The same file under a number above those of the streams, so that putting one into place covers no other.
fn above_streams(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(command: &Command) -> Option<Vec<(String, String)>> {
        let text = |s: OsString| s.into_string().unwrap();
        let own = [("A", "1"), ("B", "2")].map(|(k, v)| (k.into(), v.into()));
        let env = command.environment(own)?;
        Some(env.into_iter().map(|(k, v)| (text(k), text(v))).collect())
    }

    #[test]
    fn the_environment_is_as_it_was_said() {
        let pairs = |list: &[(&str, &str)]| {
            let owned = list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            Some(owned.collect::<Vec<_>>())
        };
        assert_eq!(env(&Command::new("x")), None);
        let changed = Command::new("x").env("A", "9").env_remove("B").env("C", "3");
        assert_eq!(env(&changed), pairs(&[("A", "9"), ("C", "3")]));
        let clear = Command::new("x").env("A", "9").env_clear().env("C", "3");
        assert_eq!(env(&clear), pairs(&[("C", "3")]));
    }
}
