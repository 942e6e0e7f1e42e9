//! `cgmgr wait`: returns when a session has ended.
//!
//! For a detached session the exit status is the command's own, as `run` would have returned it; its entry stays, so
//! that several may wait, until another detached session takes the name. A session in the foreground gives its status
//! to whoever ran it: waiting for it returns 0 and says so. 125 means that nobody saw the status, because the cgmgr in
//! charge was killed; 1 that there is no such session. The reason is on standard error, and in the JSON.

use super::args::{Global, WaitArgs};
use super::context::{self, CommandError, Outcome, print_json};
use super::look::{Found, look};
use crate::kernel::{Group, survey};
use crate::path::SessionName;
use crate::plan::identity::Identity;
use crate::session::registry::{Entry, Registry};
use serde_json::json;
use std::time::Duration;

/// What is known of a session's end.
struct Result {
    status: Option<u8>,
    story: Vec<String>,
    note: Option<String>,
    exit: u8,
}

/// Runs the command.
pub fn wait(args: &WaitArgs, global: &Global) -> Outcome {
    let (name, found) = look(global)?.find(&args.session)?;
    let result = match found {
        Found::Group { group, registry, .. } => {
            // Read before it is gone: it tells this session's entry from that of an earlier one of the same name.
            let identity = survey::identity(&group);
            if let Some(registry) = &registry {
                registry.wait_unattended(&name)?;
            }
            until_empty(&group)?;
            if registry.is_none() {
                return Err(CommandError {
                    status: 125,
                    message: format!("{name} has ended; its exit status is not this user's to read"),
                    help: Some("ask as the user whose session it was, or as root".into()),
                });
            }
            let entry = registry
                .and_then(|r| r.read(&name))
                .filter(|r| is_of(r, identity.as_ref()));
            result(&name, entry)
        }
        Found::Process { registry, .. } | Found::Recorded { registry, .. } => {
            registry.wait_unattended(&name)?;
            result(&name, of_detached(&name, &registry))
        }
    };
    if args.json {
        print_json(&json!({
            "session": name.as_str(),
            "status": result.status,
            "story": result.story,
            "note": result.note,
        }))?;
    } else {
        result.story.iter().for_each(context::say);
        if let Some(note) = &result.note {
            context::say(note);
        }
    }
    Ok(result.exit)
}

/// Where nobody is in charge the group itself says when it is over.
fn until_empty(group: &Group) -> std::result::Result<(), CommandError> {
    loop {
        match group.wait_empty(Duration::from_secs(3600)) {
            Err(e) if e.errno == rustix::io::Errno::TIMEDOUT => {}
            other => return Ok(other?),
        }
    }
}

fn of_detached(name: &SessionName, registry: &Registry) -> Option<Entry> {
    registry.read(name).filter(|r| r.detached)
}

fn is_of(entry: &Entry, identity: Option<&Identity>) -> bool {
    entry.detached
        && identity
            .is_some_and(|i| i.supervisor == entry.supervisor && entry.started.abs_diff(i.started) < 60)
}

fn result(name: &SessionName, entry: Option<Entry>) -> Result {
    let plain = |note: String, exit| Result {
        status: None,
        story: Vec::new(),
        note: Some(note),
        exit,
    };
    match entry {
        Some(Entry {
            status: Some(status),
            story,
            ..
        }) => Result {
            status: Some(status),
            story,
            note: None,
            exit: status,
        },
        Some(_) => plain(
            format!("{name} has ended, but its exit status is unknown: the cgmgr in charge of it was killed"),
            125,
        ),
        None => plain(
            format!("{name} has ended; its exit status went to whoever ran it"),
            0,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_returned_and_an_unknown_one_is_not_made_up() {
        let name = SessionName::new("a").unwrap();
        let entry = |status| {
            Some(Entry {
                detached: true,
                status,
                ..Entry::default()
            })
        };
        assert_eq!(result(&name, entry(Some(7))).exit, 7);
        assert_eq!(result(&name, entry(None)).exit, 125);
        assert_eq!(result(&name, None).exit, 0);
    }

    #[test]
    fn an_entry_of_an_earlier_session_is_not_this_ones() {
        let identity = Identity {
            supervisor: 5,
            started: 1_000,
            ..Identity::default()
        };
        let mut entry = Entry {
            supervisor: 5,
            started: 1_001,
            detached: true,
            ..Entry::default()
        };
        assert!(is_of(&entry, Some(&identity)));
        entry.started = 10;
        assert!(!is_of(&entry, Some(&identity)) && !is_of(&entry, None));
    }
}
