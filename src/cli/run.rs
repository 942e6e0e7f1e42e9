//! `run`: one command in a session of its own.

use super::args::{Global, RunArgs};
use super::context::{self, CommandError};
use super::{report, roles};
use crate::kernel::sys;
use crate::limits::KnobId;
use crate::path::SessionName;
use crate::role::{Diagnostic, Role};
use crate::session::launch::{self, FailureKind, LaunchError, Place, Request, Running};
use crate::session::linger::{Left, into_background, linger};
use crate::session::records;
use crate::session::signals::Signals;
use crate::session::supervise::{self, Ended, Supervisor};
use crate::session::tell::{self, About};
use crate::session::terminal::Terminal;
use crate::session::user::User;
use rustix::fd::OwnedFd;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// `cgmgr run`: the exit status.
pub fn run(args: &RunArgs, global: &Global) -> u8 {
    let mut report = match args.report.as_deref().map(open_report).transpose() {
        Ok(report) => report,
        Err(error) => return fail(&error, &mut None),
    };
    match prepare(args, global) {
        Ok(ready) if args.detach => detach(ready, report),
        Ok(ready) if args.exec => {
            let tell = &|note: &str| {
                if !args.quiet {
                    context::warn(note);
                }
            };
            ready.lowered.iter().for_each(|note| tell(note));
            fail(
                &launch::launch_exec(ready.request(None, None), &ready.place, tell),
                &mut report,
            )
        }
        Ok(ready) => attend(ready, &mut report),
        Err(error) => fail(&error, &mut report),
    }
}

/// Everything that was read and checked before anything is done.
struct Ready<'a> {
    args: &'a RunArgs,
    place: Place,
    role: Role,
    /// What the host's policy has taken of what was asked for.
    lowered: Vec<String>,
    name: Option<SessionName>,
    stem: SessionName,
    user: Option<User>,
    log: Option<File>,
}

fn cgmgr_failed(message: impl Into<String>, help: impl Into<String>) -> LaunchError {
    LaunchError {
        kind: FailureKind::Cgmgr,
        message: message.into(),
        help: Some(help.into()),
    }
}

impl From<CommandError> for LaunchError {
    fn from(error: CommandError) -> Self {
        Self {
            kind: FailureKind::Cgmgr,
            message: error.message,
            help: error.help,
        }
    }
}

fn prepare<'a>(args: &'a RunArgs, global: &Global) -> Result<Ready<'a>, LaunchError> {
    let name = args.name.as_ref().map(session_name).transpose()?;
    let user = args.user.as_deref().map(User::find).transpose();
    let user = user.map_err(|m| cgmgr_failed(m, "give a login name or a number that this machine knows"))?;
    let place = context::place(global)?;
    let (role, warnings) = read_role(args, &place, global)?;
    roles::log(&warnings);
    let lowered = warnings.iter().filter(|warning| warning.of_host);
    let lowered = lowered.map(|warning| warning.message.clone()).collect();
    if user.is_some() && place.host.euid != 0 {
        return Err(cgmgr_failed(
            "--user needs root: only root can become another user",
            "run cgmgr as root",
        ));
    }
    let log = args.log.as_deref().map(open_log).transpose()?;
    let stem = match &args.role {
        Some(_) => SessionName::from_text(&role.name),
        None => {
            let program = Path::new(&args.command[0]).file_name().unwrap_or_default();
            SessionName::from_text(&program.to_string_lossy())
        }
    };
    Ok(Ready {
        args,
        place,
        role,
        lowered,
        name,
        stem,
        user,
        log,
    })
}

/// The name of a session as it was typed.
pub fn session_name(typed: &OsString) -> Result<SessionName, LaunchError> {
    let text = typed.to_str().ok_or_else(|| {
        cgmgr_failed(
            format!(
                "session name `{}` is not UTF-8",
                crate::text::escape(&typed.to_string_lossy())
            ),
            "only A-Z a-z 0-9 : _ . - are allowed",
        )
    })?;
    SessionName::new(text).map_err(|message| cgmgr_failed(message, "e.g. --name rust-3"))
}

fn read_role(args: &RunArgs, place: &Place, global: &Global) -> Result<(Role, Vec<Diagnostic>), LaunchError> {
    let overrides = args.limits.overrides();
    let read = match &args.role {
        Some(path) => roles::read(path, &overrides, &place.host, global),
        None => roles::of_flags(&overrides, &place.host, global),
    };
    Ok(read?)
}

/// The file of a report, made or emptied before anything else is done.
pub fn open_report(path: &Path) -> Result<File, LaunchError> {
    let created = File::options().write(true).create(true).truncate(true).open(path);
    created.map_err(|e| {
        cgmgr_failed(
            format!(
                "cannot write the report {}: {e}",
                crate::text::escape(&path.to_string_lossy())
            ),
            "name a file in a directory that you can write",
        )
    })
}

fn open_log(path: &Path) -> Result<File, LaunchError> {
    let opened = File::options().append(true).create(true).open(path);
    opened.map_err(|e| {
        cgmgr_failed(
            format!(
                "cannot open the log {}: {e}",
                crate::text::escape(&path.to_string_lossy())
            ),
            "name a file in a directory that you can write",
        )
    })
}

impl Ready<'_> {
    fn request(&self, stdio: Option<[OwnedFd; 3]>, signals: Option<sys::CallersSignals>) -> Request<'_> {
        let given = self.args.limits.given();
        Request {
            name: self.name.clone(),
            stem: self.stem.clone(),
            role: self.args.role.as_ref().map(|_| self.role.name.clone()),
            role_file: self.args.role.as_ref().map(|p| p.to_string_lossy().into_owned()),
            settings: &self.role.settings,
            overrides: given
                .iter()
                .map(|(id, text, _)| (id.knob().key.to_owned(), (*text).to_owned()))
                .collect(),
            argv: self.args.command.clone(),
            user: self.user.clone(),
            close_fds: self.args.close_fds,
            stdio,
            detached: self.args.detach,
            terminal: None,
            signals,
            on_start: None,
            require_limits: self.args.require_limits,
            env: None,
            directory: None,
            embedded: false,
        }
    }

    /// Where the session's memory_max was declared, in words for its user.
    fn memory_max_from(&self) -> String {
        self.role.where_to_change(KnobId::MemoryMax)
    }

    /// What it was declared to be, in bytes.
    fn memory_max(&self) -> Option<u64> {
        let value = self.role.settings.value(KnobId::MemoryMax);
        value.and_then(|value| value.bytes()).map(|max| max.0)
    }

    /// Standard streams of a detached session.
    fn detached_stdio(&self) -> io::Result<[OwnedFd; 3]> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let out = match &self.log {
            Some(log) => log.try_clone()?,
            None => null.try_clone()?,
        };
        Ok([null.into(), out.try_clone()?.into(), out.into()])
    }
}

fn fail(error: &LaunchError, report: &mut Option<File>) -> u8 {
    let status = error.kind.status();
    context::say_error(&CommandError {
        status,
        message: error.message.clone(),
        help: error.help.clone(),
    });
    write_report(report, &report::of_failure(error));
    status
}

fn write_report(report: &mut Option<File>, value: &serde_json::Value) {
    // In one write: formatted into the file, each brace and comma would be one of its own.
    if let Some(mut file) = report.take()
        && let Err(error) = file.write_all(format!("{value:#}\n").as_bytes())
    {
        context::say(format_args!("error: cannot write the report: {error}"));
    }
}

/// In the foreground: stays beside the session until its command has ended.
fn attend(ready: Ready<'_>, report: &mut Option<File>) -> u8 {
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(errno) => {
            let error = cgmgr_failed(
                format!("cannot take signals by descriptor: {errno}"),
                "raise the open-file limit",
            );
            return fail(&error, report);
        }
    };
    supervise::adopt_orphans();
    let terminal = Terminal::open();
    // What the terminal sends after that reaches the command by itself, and twice is once too often.
    let pass_on_early = |pid| signals.pass_on_early(pid);
    let request = Request {
        terminal: terminal.as_ref(),
        on_start: Some(&pass_on_early),
        ..ready.request(None, Some(signals.callers))
    };
    let mut running = match launch::launch(request, &ready.place) {
        Ok(running) => running,
        Err(error) => return fail(&error, report),
    };
    let mut notes = notes(&ready, &running);
    if !ready.args.quiet {
        notes.iter().for_each(context::warn);
        context::help(remedy(&ready.place, &running));
    }
    let ended = watch(&ready, &mut running, &signals, terminal, &mut |line| {
        context::say(line)
    });
    finish(&ready, running, ended, report, &mut notes, &signals)
}

/// What is to be said about a session that has just started.
fn notes(ready: &Ready<'_>, running: &Running) -> Vec<String> {
    let mut notes = ready.lowered.clone();
    notes.extend(running.warnings.iter().cloned());
    // Inside another session every knob is the outer one's, which the first note says.
    if running.lock.is_some() {
        notes.extend(tell::unconfined(&running.receipt));
    }
    notes
}

/// What would let this host hold what it cannot hold now.
fn remedy<'a>(place: &'a Place, running: &Running) -> Option<&'a str> {
    let none = place.host.base.as_ref().err()?;
    running.receipt.unconfined().next().map(|_| none.fix.as_str())
}

fn watch(
    ready: &Ready<'_>,
    running: &mut Running,
    signals: &Signals,
    terminal: Option<Terminal>,
    say: &mut dyn FnMut(&str),
) -> Ended {
    let (name, memory_max_from) = (running.name.to_string(), ready.memory_max_from());
    let about = About {
        session: &name,
        who: None,
        memory_max_from: &memory_max_from,
        memory_max: ready.memory_max(),
    };
    Supervisor {
        tree: ready.place.tree.as_ref(),
        base: ready.place.host.base.as_ref().ok(),
        namespaced: ready.place.is_namespaced(),
        signals,
        terminal,
        on_oom: &mut |oom| say(&tell::oom_goes_on(&about, oom)),
        kill_left: ready.args.kill_leftover,
    }
    .watch(running)
}

/// What must be said about a session's end.
fn story(ready: &Ready<'_>, running: &Running, ended: &Ended) -> Vec<String> {
    let (name, memory_max_from) = (running.name.to_string(), ready.memory_max_from());
    let about = About {
        session: &name,
        who: None,
        memory_max_from: &memory_max_from,
        memory_max: ready.memory_max(),
    };
    let mut story = tell::story(&about, ended);
    if !ended.left.is_empty() && !ready.args.quiet {
        story.push(tell::left_over(&about, &ended.left, running.group.is_some()));
    }
    if ready.args.summary {
        story.push(tell::summary(&about, ended));
    }
    story
}

fn finish(
    ready: &Ready<'_>,
    running: Running,
    ended: Ended,
    report: &mut Option<File>,
    notes: &mut Vec<String>,
    signals: &Signals,
) -> u8 {
    let status = ended.exit.status();
    let told = story(ready, &running, &ended);
    told.iter().for_each(context::say);
    notes.extend(ended.warnings.iter().cloned());
    write_report(report, &report::of_session(&running, &ended, notes, &told));
    if let Err(message) = put_away(ready, running, &ended, &told, signals) {
        context::warn(message);
    }
    status
}

/// Writes the record of the session's end and removes its group, or leaves a process with what lives on in it.
fn put_away(
    ready: &Ready<'_>,
    mut running: Running,
    ended: &Ended,
    told: &[String],
    signals: &Signals,
) -> Result<(), String> {
    let registry = &ready.place.registry;
    if ended.left.is_empty() || running.group.is_none() {
        records::over(&mut running, ended, told);
    }
    if let Some(failure) = running.records.failure() {
        context::warn(failure);
    }
    let (Some(tree), Some((_, path))) = (&ready.place.tree, &running.group) else {
        if running.lock.is_some() && !running.entry.detached {
            registry.forget(&running.name);
        }
        return Ok(());
    };
    if ended.left.is_empty() {
        return supervise::remove(tree, path);
    }
    if let Some((group, _)) = &running.group {
        running.records.catch_up(ended, group, ready.place.base());
    }
    let left = Left::by(running, ended, told);
    linger(left, &ready.place, Some(&signals.callers))
}

/// What the process that stays tells the one that returns.
#[derive(serde::Serialize, serde::Deserialize)]
enum Word {
    Started {
        name: String,
        notes: Vec<String>,
        help: Option<String>,
    },
    Failed {
        status: u8,
        message: String,
        help: Option<String>,
    },
}

/// Leaves the session running under a process of its own, and returns once its command has been executed.
fn detach(ready: Ready<'_>, report: Option<File>) -> u8 {
    let mut report = report;
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (reader, writer) = match pipe {
        Ok((reader, writer)) => (File::from(reader), File::from(writer)),
        Err(e) => {
            return fail(
                &cgmgr_failed(format!("cannot make a pipe: {e}"), "raise the open-file limit"),
                &mut report,
            );
        }
    };
    match sys::fork() {
        Err(e) => fail(
            &cgmgr_failed(
                format!("cannot leave a process behind: {e}"),
                "end other processes",
            ),
            &mut report,
        ),
        Ok(None) => {
            drop(reader);
            stay(ready, report, writer);
            0
        }
        Ok(Some(_)) => {
            drop(writer);
            hear(reader, ready.args.quiet)
        }
    }
}

fn hear(mut reader: File, quiet: bool) -> u8 {
    let mut text = String::new();
    let _ = reader.read_to_string(&mut text);
    match serde_json::from_str(&text) {
        Ok(Word::Started { name, notes, help }) => {
            if !quiet {
                notes.iter().for_each(context::warn);
                context::help(help.as_deref());
            }
            // The session runs whether or not anybody reads its name.
            let _ = writeln!(io::stdout(), "{name}");
            0
        }
        Ok(Word::Failed {
            status,
            message,
            help,
        }) => {
            context::say_error(&CommandError {
                status,
                message,
                help,
            });
            status
        }
        Err(_) => {
            let message = "the process that was to stay with the session ended without a word".into();
            context::say_error(&CommandError {
                status: 125,
                message,
                help: None,
            });
            125
        }
    }
}

/// The process that stays with a detached session. It says once how the launch went, then is silent: what happens goes
/// into the session's record.
fn stay(ready: Ready<'_>, mut report: Option<File>, mut writer: File) {
    let mut say = move |word: &Word| {
        let _ = writer.write_all(serde_json::to_string(word).unwrap_or_default().as_bytes());
        // Closing it is what lets the caller return.
    };
    let launched = (|| {
        let stdio = ready
            .detached_stdio()
            .map_err(|e| cgmgr_failed(format!("cannot open /dev/null: {e}"), "check /dev"))?;
        let signals = Signals::take().map_err(|e| {
            cgmgr_failed(
                format!("cannot take signals by descriptor: {e}"),
                "raise the open-file limit",
            )
        })?;
        supervise::adopt_orphans();
        let running = launch::launch(ready.request(Some(stdio), Some(signals.callers)), &ready.place)?;
        Ok::<_, LaunchError>((signals, running))
    })();
    let (signals, mut running) = match launched {
        Ok(started) => started,
        Err(error) => {
            write_report(&mut report, &report::of_failure(&error));
            say(&Word::Failed {
                status: error.kind.status(),
                message: error.message,
                help: error.help,
            });
            return;
        }
    };
    let mut notes = notes(&ready, &running);
    say(&Word::Started {
        name: running.name.to_string(),
        notes: notes.clone(),
        help: remedy(&ready.place, &running).map(str::to_owned),
    });
    drop(say);
    into_background();
    let mut told = Vec::new();
    let ended = watch(&ready, &mut running, &signals, None, &mut |line| {
        told.push(line.to_owned())
    });
    told.extend(story(&ready, &running, &ended));
    notes.extend(ended.warnings.iter().cloned());
    write_report(&mut report, &report::of_session(&running, &ended, &notes, &told));
    running.entry.status = Some(ended.exit.status());
    running.entry.story.clone_from(&told);
    if let Err(error) = ready.place.registry.write(&running.name, &running.entry) {
        tracing::error!("cannot keep the status of session {}: {error}", running.name);
    }
    if let Err(message) = put_away(&ready, running, &ended, &told, &signals) {
        tracing::error!("{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cross_the_pipe() {
        let word = Word::Failed {
            status: 127,
            message: "no".into(),
            help: Some("yes".into()),
        };
        let text = serde_json::to_string(&word).unwrap();
        assert!(matches!(
            serde_json::from_str(&text),
            Ok(Word::Failed { status: 127, .. })
        ));
    }
}
