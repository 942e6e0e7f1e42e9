//! Runs the `cgmgr` command as a user would, and reads what it says.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{must, path_of};

/// Emulated time is slow and uneven: nothing waits less than this before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Done {
    /// The exit status as a shell has it.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    /// Fails unless the exit status is this one.
    #[track_caller]
    pub fn expect(self, status: i32) -> Done {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }

    /// Fails unless standard error has this text.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Done {
        assert!(self.err.contains(text), "no `{text}` in what was said: {self:#?}");
        self
    }

    /// Fails if standard error has this text.
    #[track_caller]
    pub fn says_nothing_of(&self, text: &str) -> &Done {
        assert!(!self.err.contains(text), "`{text}` was said: {self:#?}");
        self
    }
}

/// An exit status as a shell has it.
pub fn shell_status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or(status.signal().map(|s| s + 128)).unwrap_or(-1)
}

/// The command under test, with nothing on its standard input.
pub fn command<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(must("CGMGR_BIN"));
    command.args(words).stdin(Stdio::null());
    for name in [
        "CGMGR_CGROUP_ROOT",
        "CGMGR_BACKEND",
        "CGMGR_RUNTIME_DIR",
        "CGMGR_LOG",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs any command to its end.
#[track_caller]
pub fn finish(command: &mut Command) -> Done {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Done {
        status: shell_status(output.status),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `cgmgr` to its end.
#[track_caller]
pub fn cgmgr(words: &[&str]) -> Done {
    finish(&mut command(words))
}

/// The program that the tests run in sessions.
pub fn payload() -> String {
    must("CGMGR_PAYLOAD")
}

/// `cgmgr run OPTIONS -- payload WORDS`.
pub fn run_payload(options: &[&str], words: &[&str]) -> Done {
    finish(&mut run_command(options, words))
}

/// The same, not yet started.
pub fn run_command(options: &[&str], words: &[&str]) -> Command {
    let mut command = command(["run"]);
    command.args(options).arg("--").arg(payload()).args(words);
    command
}

/// `cgmgr run OPTIONS -- sh -c SCRIPT`.
pub fn run_shell(options: &[&str], script: &str) -> Done {
    let mut words = vec!["run"];
    words.extend(options);
    words.extend(["--", "sh", "-c", script]);
    cgmgr(&words)
}

/// What `cgmgr run --report` wrote.
#[track_caller]
pub fn report(path: &str) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("no report {path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Waits until something is so, and says what if it never is.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A session that runs while the test looks at it. Its end is the test's to bring about, by [`Live::end`].
pub struct Live {
    /// `cgmgr run`.
    pub cgmgr: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The session's name.
    pub name: String,
}

impl Live {
    /// Starts `cgmgr run --name NAME OPTIONS -- payload WORDS`, without waiting for a word of it.
    pub fn start(name: &str, options: &[&str], words: &[&str]) -> Live {
        let mut all = vec!["--name", name];
        all.extend(options);
        Live::of(name, &mut run_command(&all, words))
    }

    /// Starts any command that runs a session of this name.
    pub fn of(name: &str, command: &mut Command) -> Live {
        let mut cgmgr = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Live {
            input: cgmgr.stdin.take(),
            output: BufReader::new(cgmgr.stdout.take().expect("a pipe")),
            cgmgr,
            name: name.to_owned(),
        }
    }

    /// A session that holds so much memory until it is ended; returned once it does.
    pub fn hold(name: &str, options: &[&str], mib: usize) -> Live {
        let mut live = Live::start(name, options, &["hold", &mib.to_string()]);
        live.hear("ready ");
        live
    }

    /// The rest of the next line, which must begin so.
    #[track_caller]
    pub fn hear(&mut self, begin: &str) -> String {
        let mut line = String::new();
        let _ = self.output.read_line(&mut line);
        match line.strip_prefix(begin) {
            Some(rest) => rest.trim_end().to_owned(),
            None => {
                let _ = self.cgmgr.kill();
                let mut err = String::new();
                let _ = self.cgmgr.stderr.take().map(|mut e| e.read_to_string(&mut err));
                panic!(
                    "`{begin}` was to come from {}, `{line}` came; it said: {err}",
                    self.name
                )
            }
        }
    }

    /// The directory of the session's group.
    pub fn group(&self) -> String {
        path_of(&self.name)
    }

    /// cgmgr's own process.
    pub fn pid(&self) -> i32 {
        self.cgmgr.id() as i32
    }

    /// Ends the session by ending its standard input, and returns what it and cgmgr said.
    pub fn end(mut self) -> Done {
        drop(self.input.take());
        self.wait()
    }

    /// Waits for the session's end.
    pub fn wait(mut self) -> Done {
        let (mut out, mut err) = (String::new(), String::new());
        let mut errors = self.cgmgr.stderr.take().expect("a pipe");
        let reader = std::thread::spawn(move || {
            let _ = errors.read_to_string(&mut err);
            err
        });
        let _ = self.output.read_to_string(&mut out);
        let status = self.cgmgr.wait().expect("a child");
        Done {
            status: shell_status(status),
            out,
            err: reader.join().expect("a thread"),
        }
    }
}

impl Drop for Live {
    /// A test that failed half-way leaves no supervisor; what is in the group is the lab's to end.
    fn drop(&mut self) {
        if let Ok(None) = self.cgmgr.try_wait() {
            let _ = self.cgmgr.kill();
            let _ = self.cgmgr.wait();
        }
    }
}
