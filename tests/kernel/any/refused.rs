//! The kernel refuses each system call on cgroupfs in turn, with each error that it could give: cgmgr says what failed
//! and what to do, has taken back what it did, and has not started the command.
//!
//! What is accepted beside a refusal, and why:
//! - Reading: what a value is read for may be served otherwise, or not be needed. Then the command succeeds, and what is
//!   told as in force is in force: the session's command itself saw its group and its limits.
//! - Looking for what this host can do, where the answer is that something is not there (ENOENT) or not allowed (EACCES):
//!   it counts as lacking, and each limit that is not enforced is named in a warning.
//! - Once the session's command runs, cgmgr goes on to its end whatever fails, since stopping it would be worse.
//! - A launch that is refused after it made the slices leaves them: they are no session's, another one may have been
//!   started in them meanwhile, and `down` takes them away. Of the session itself nothing is left.
//! - What `apply` did stays where only the look at it afterwards fails: that is told, and every value was read back when
//!   it was written.
//! - A group that cannot be removed is left to the next command.

use nix::libc::{EACCES, EAGAIN, EBUSY, EINVAL, EIO, ENOENT, ENOSPC};

use crate::campaign::{ENDED, Field, Form, VICTIM, check, chosen, machine, tell, try_each, victim_lives};
use crate::cgmgr::{Done, cgmgr};
use crate::lab::{MOUNT, full, session_groups};
use crate::tracer::{Call, Fault, Traced};

const ERRORS: [i32; 7] = [ENOENT, EBUSY, EINVAL, EACCES, ENOSPC, EAGAIN, EIO];

/// Whether the kernel could refuse this call, and the call is about a cgroup.
fn on_cgroupfs(call: &Call) -> bool {
    let inside = call.about == MOUNT || call.about.starts_with(&format!("{MOUNT}/"));
    inside && !matches!(call.name.as_str(), "close" | "fcntl" | "dup" | "dup2" | "lseek")
}

#[test]
fn a_command_refused_anywhere_says_so_and_leaves_nothing() {
    let field = Field::new();
    let (mut changing, mut reading) = (Vec::new(), Vec::new());
    for (form, calls) in field.calls() {
        let all = calls.len();
        let calls: Vec<&Call> = calls.iter().filter(|c| on_cgroupfs(c)).collect();
        let changes = calls.iter().filter(|c| c.changes).count();
        tell(&format!(
            "refused: {form:?} makes {all} calls, {} on cgroupfs, {changes} that change something",
            calls.len()
        ));
        for (number, call) in calls.into_iter().enumerate() {
            if call.changes {
                // That there is nothing to remove is no refusal: the kernel would not say so of what is there.
                let removes = matches!(call.name.as_str(), "unlinkat" | "fremovexattr");
                let errors = ERRORS.iter().filter(|e| !(removes && **e == ENOENT));
                changing.extend(errors.map(|e| (call.name.clone(), (*form, call.clone(), *e))));
            } else {
                // Each error in turn: a read's caller seldom looks which it was. The file system itself is there.
                let mut errors = ERRORS.iter().cycle().skip(number);
                let possible = |e: &&i32| call.about != MOUNT || **e != ENOENT;
                let error = *errors.find(possible).expect("an error");
                reading.push((call.name.clone(), (*form, call.clone(), error)));
            }
        }
    }
    let mut points = chosen(changing, if full() { 1 } else { 20 });
    points.extend(chosen(reading, if full() { 1 } else { 200 }));
    points.sort_by_key(|(form, call, error)| (*form, call.process, call.nth, *error));
    let points: Vec<(Form, (Call, i32))> = points.into_iter().map(|(f, c, e)| (f, (c, e))).collect();
    try_each(&field, "refused", &points, &mut |form, (wanted, error)| {
        if form.runs() {
            field.open_gate();
        }
        let before = machine();
        let at = (wanted.process, wanted.nth);
        let hit = &mut |call: &Call| {
            let same = (call.process, &call.name, &call.about) == (at.0, &wanted.name, &wanted.about);
            same.then_some(Fault::Error(*error))
        };
        let (traced, done) = field.trace(form, Some(at), hit);
        let call = traced.hit.as_ref()?;
        let answer = std::io::Error::from_raw_os_error(*error);
        let why = |why| format!("{form:?} refused at {}: {answer}: {why}\n{done:#?}", call.shown());
        Some(endured(&field, form, call, *error, &traced, &done, &before).map_err(why))
    });
}

fn endured(
    field: &Field,
    form: Form,
    call: &Call,
    error: i32,
    traced: &Traced,
    done: &Done,
    before: &[String],
) -> Result<(), String> {
    let (success, failure) = match form {
        Form::RunFirst | Form::Run => (ENDED, 125),
        Form::Detach => (0, 125),
        _ => (0, 1),
    };
    if done.status == success {
        return succeeded(field, form, call, error, done);
    }
    check(done.status == failure, || format!("exit status {}", done.status))?;
    says(call, error, done)?;
    match form {
        Form::RunFirst | Form::Run | Form::Detach => {
            check(!traced.executed, || "the command was started".into())?;
            let now = machine();
            let same = now == before || now == field.set_up;
            check(same, || format!("was {before:#?}, is {now:#?}"))?;
            check(session_groups().is_empty(), || {
                format!("{:?} is left", session_groups())
            })
        }
        Form::Kill => {
            let again = cgmgr(&["kill", VICTIM]);
            let over = again.status == 0 || again.err.contains("no session");
            check(over && !victim_lives(), || format!("the next kill: {again:#?}"))
        }
        Form::Down | Form::DownKill => Ok(()),
        Form::Apply => {
            let reads_back = !call.changes && field.is_applied().is_ok();
            check(machine() == before || reads_back, || {
                format!("was {before:#?}, is {:#?}", machine())
            })
        }
    }
}

/// That the error names what failed, with which value, and what to do.
fn says(call: &Call, error: i32, done: &Done) -> Result<(), String> {
    check(done.err.contains("cgmgr: error: "), || "no error is told".into())?;
    check(done.err.contains("  help: "), || "no remedy is told".into())?;
    check(!done.err.contains("could not undo"), || {
        "something could not be undone".into()
    })?;
    // What a look says is not there, or not allowed, is said of the group.
    let lacks = !call.changes && matches!(error, ENOENT | EACCES);
    let group = call.about.rsplit_once('/').filter(|_| lacks);
    let named = done.err.contains(&call.about) || group.is_some_and(|(group, _)| done.err.contains(group));
    check(named, || format!("{} is not named", call.about))?;
    let value = call.value.as_deref().unwrap_or("").trim();
    check(done.err.contains(value), || format!("`{value}` is not named"))
}

/// A command that succeeded although something was refused: the module's text says where that is right.
fn succeeded(field: &Field, form: Form, call: &Call, error: i32, done: &Done) -> Result<(), String> {
    let tidies = matches!(call.name.as_str(), "unlinkat" | "fremovexattr");
    // Without clone3 the process enters its group by itself, before it becomes the command. A group that was just left is
    // busy for a moment: that is tried again. Kernels before 5.14 have no cgroup.kill: each process is killed then.
    let stood_in = match error {
        ENOENT => call.about.ends_with("/cgroup.kill"),
        EINVAL => call.name == "clone3",
        EBUSY => call.name == "pwrite64" && call.about.ends_with("/cgroup.subtree_control"),
        _ => false,
    };
    check(!call.changes || tidies || stood_in || call.executed, || {
        "it goes on without".into()
    })?;
    match form {
        Form::RunFirst | Form::Run | Form::Detach => {
            let confined = field.was_confined();
            let lacks = matches!(error, ENOENT | EACCES);
            let told = |knob: &str| done.err.contains("cgmgr: warning: ") && done.err.contains(knob);
            let one = call.about.ends_with("/memory.max") && told("memory_max")
                || call.about.ends_with("/pids.max") && told("pids");
            if confined.is_err() && lacks && (one || told("memory_max") && told("pids")) {
                return Ok(());
            }
            confined?;
            if form != Form::Detach {
                let left = session_groups();
                // Whoever is told that the group above is gone has nothing to remove.
                let gone = error == ENOENT && call.executed;
                let warned = call.executed && done.err.contains("cgmgr: warning: ");
                let told = tidies && done.err.contains(VICTIM) || warned && done.err.contains(&call.about);
                check(left.is_empty() || gone || told, || {
                    format!("{left:?} is left untold")
                })?;
            }
            field.run_next("next")?;
            let kept = form == Form::Detach || session_groups().is_empty();
            check(kept, || format!("{:?} is left by the next", session_groups()))
        }
        Form::Kill => check(!victim_lives(), || "the session lives".into()),
        Form::Down | Form::DownKill => check(machine() == field.before, || {
            format!("was {:#?}, is {:#?}", field.before, machine())
        }),
        Form::Apply => field.is_applied(),
    }
}
