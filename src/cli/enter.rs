//! `enter`: a further command, or a shell, inside a live session.

use super::args::{EnterArgs, Global};
use super::context::{self, CommandError};
use super::look::{Found, Look, look};
use crate::limits::KnobId;
use crate::path::SessionName;
use crate::plan::identity::Identity;
use crate::session::enter::{Door, Visitor};
use crate::session::launch::{LaunchError, Running};
use crate::session::signals::Signals;
use crate::session::supervise::{self, Ended, Supervisor};
use crate::session::tell::{self, About};
use crate::session::terminal::Terminal;
use crate::session::user::User;
use std::ffi::OsString;
use std::io::{self, IsTerminal};

/// `cgmgr enter`: the exit status.
pub fn enter(args: &EnterArgs, global: &Global) -> u8 {
    match attend(args, global) {
        Ok(status) => status,
        Err(error) => {
            let status = error.kind.status();
            context::say_error(&CommandError {
                status,
                message: error.message,
                help: error.help,
            });
            status
        }
    }
}

fn attend(args: &EnterArgs, global: &Global) -> Result<u8, LaunchError> {
    let look = look(global)?;
    let door = door(&look, args)?;
    let user = user(args, &door.identity, look.host.euid)?;
    let memory_max_from = memory_max_from(&door.identity);
    let memory_max = memory_max(&door.identity);
    let sessions_uid = door.identity.uid;
    let argv = match &args.command[..] {
        [] => shell(user.as_ref(), look.host.euid),
        given => given.to_vec(),
    };
    let signals = Signals::take().map_err(|errno| {
        LaunchError::new(
            format!("cannot take signals by descriptor: {errno}"),
            "raise the open-file limit",
        )
    })?;
    supervise::adopt_orphans();
    let terminal = Terminal::open();
    let pass_on_early = |pid| signals.pass_on_early(pid);
    let uid = user.as_ref().map_or(look.host.euid, |user| user.identity.uid);
    let mut running = door.enter(Visitor {
        argv,
        user,
        close_fds: args.close_fds,
        terminal: terminal.as_ref(),
        signals: Some(signals.callers),
        on_start: Some(&pass_on_early),
    })?;
    if uid == 0 && sessions_uid != 0 {
        running.warnings.push(format!(
            "the session is user {sessions_uid}'s, and this command runs as root: it could raise or leave the session's limits"
        ));
    }
    if !args.quiet {
        running.warnings.iter().for_each(context::warn);
    }
    let name = running.name.to_string();
    let mut told = false;
    let ended = Supervisor {
        tree: look.tree.as_ref(),
        // Who is in charge of the session writes its records.
        base: None,
        namespaced: look.host.hierarchy.mount().is_some_and(|m| !m.true_root),
        signals: &signals,
        terminal,
        on_oom: &mut |oom| {
            told = true;
            let about = About {
                session: &name,
                who: None,
                memory_max_from: &memory_max_from,
                memory_max,
            };
            context::say(tell::oom_goes_on(&about, oom));
        },
        kill_left: false,
    }
    .watch(&mut running);
    story(&running, &ended, (&memory_max_from, memory_max), told)
        .iter()
        .for_each(context::say);
    Ok(ended.exit.status())
}

/// The session that was named, if it may be entered.
fn door<'a>(look: &'a Look, args: &EnterArgs) -> Result<Door<'a>, LaunchError> {
    let (name, found) = look.find(&args.session).map_err(CommandError::from)?;
    match (found, &look.tree, &look.base) {
        (Found::Group { group, path, .. }, Some(tree), Some(base)) => {
            Door::open(&look.host, tree, base, name, (group, path))
        }
        (Found::Process { .. }, ..) => Err(LaunchError::new(
            format!(
                "session {name} has no group that could be entered: it runs with the process backend, which has no cgroup \
                 rights"
            ),
            "`cgmgr doctor` says what is missing for sessions with a group",
        )),
        _ => Err(no_longer(&name)),
    }
}

fn no_longer(name: &SessionName) -> LaunchError {
    LaunchError::new(
        format!("session {name} has ended, or is being started or put away just now"),
        "`cgmgr status` lists the sessions; `cgmgr run` starts one",
    )
}

/// Who the command runs as: whoever the session runs as, so that entering opens no hole in what binds it.
fn user(args: &EnterArgs, identity: &Identity, euid: u32) -> Result<Option<User>, LaunchError> {
    let find = |name: &str| {
        User::find(name).map_err(|message| {
            LaunchError::new(
                message,
                "give --user a login name or a number that this machine knows",
            )
        })
    };
    let uid = identity.uid;
    match &args.user {
        Some(_) if euid != 0 => Err(LaunchError::new(
            "--user needs root: only root can become another user",
            "run cgmgr as root",
        )),
        Some(name) => find(name).map(Some),
        None if uid == euid => Ok(None),
        None if euid != 0 => Err(LaunchError::new(
            format!("the session is user {uid}'s, and only root can become another user"),
            "run cgmgr as root, or as that user",
        )),
        None => {
            let user = find(&uid.to_string())?;
            // A login name may be a number, and another one's.
            if user.identity.uid != uid {
                return Err(LaunchError::new(
                    format!("the session's user has the number {uid}, which is also a login name of another"),
                    "name the user with --user",
                ));
            }
            Ok(Some(user))
        }
    }
}

/// The user's shell: interactive where somebody sits at a terminal.
fn shell(user: Option<&User>, euid: u32) -> Vec<OsString> {
    let named = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let shell = match user {
        Some(user) => Some(user.shell.clone()),
        None => named.or_else(|| User::find(&euid.to_string()).ok().map(|user| user.shell)),
    };
    let mut argv = vec![shell.unwrap_or_else(|| "/bin/sh".into())];
    if io::stdin().is_terminal() {
        argv.push("-i".into());
    }
    argv
}

/// Where the session's memory_max was declared, in words for its user.
fn memory_max_from(identity: &Identity) -> String {
    let knob = KnobId::MemoryMax.knob();
    let by_flag = identity.overrides.iter().any(|(key, _)| key == knob.key);
    match &identity.role_file {
        Some(file) if !by_flag => format!("{} in {}", knob.path, crate::text::escape(file)),
        _ => format!("{} of the session", knob.key),
    }
}

/// What was declared for it, in bytes; `None` also where it was set while the session ran.
fn memory_max(identity: &Identity) -> Option<u64> {
    let key = KnobId::MemoryMax.knob().key;
    let declared = identity.limits.get(key)?.parse().ok()?;
    (!identity.set_live.iter().any(|set| set == key)).then_some(declared)
}

/// What must be said about the end of a command that entered.
fn story(running: &Running, ended: &Ended, from: (&str, Option<u64>), told: bool) -> Vec<String> {
    let name = &running.name;
    let mut story = Vec::new();
    if let Some(oom) = &ended.oom
        && (oom.took_command || oom.whole_group || !told)
    {
        let entered_alone = oom.took_command && !oom.whole_group;
        let about = About {
            session: name.as_str(),
            who: entered_alone.then_some("the command that entered"),
            memory_max_from: from.0,
            memory_max: from.1,
        };
        story.push(tell::oom_at_end(&about, ended, oom));
    }
    if ended.oom_unknown {
        story.push(format!(
            "{name}: the session has ended too, and its group is gone: whether the command was OOM-killed is not known"
        ));
    }
    story.extend(ended.warnings.iter().map(|w| format!("{name}: {w}")));
    story
}
