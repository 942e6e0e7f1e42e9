//! cgmgr is killed before each of its system calls in turn, and the next command gets over it: no command of a session
//! was outside its group, nothing is frozen, and nothing is left once another session was run.

use crate::campaign::{
    Field, Form, VICTIM, check, chosen, machine, nothing_is_frozen, runtime_files, tell, try_each,
    victim_lives,
};
use crate::cgmgr::{cgmgr, until};
use crate::lab::{full, is_systemd, path_of, session_groups};
use crate::tracer::{Call, Fault, Traced};
use std::fs;

#[test]
fn a_command_killed_anywhere_is_got_over_by_the_next() {
    let field = Field::new();
    let (mut changing, mut reading) = (Vec::new(), Vec::new());
    for (form, calls) in field.calls() {
        let changes = calls.iter().filter(|c| c.changes).count();
        tell(&format!(
            "killed: {form:?} makes {} calls, {changes} that change something",
            calls.len()
        ));
        for call in calls {
            let point = (*form, call.process, call.nth);
            match call.changes {
                true => changing.push((call.name.clone(), point)),
                false => reading.push((format!("{form:?}"), point)),
            }
        }
    }
    // Killed before a call that changes nothing, or before the next one, is the same: of those the plain run
    // takes few. Where systemd is asked, a fault costs seconds.
    let (slow, quick): (Vec<_>, Vec<_>) = reading.into_iter().partition(|(_, (form, ..))| {
        is_systemd() && matches!(form, Form::Down | Form::DownKill | Form::Apply)
    });
    let mut points = chosen(changing, if full() { 1 } else { 30 });
    points.extend(chosen(quick, if full() { 1 } else { 4000 }));
    points.extend(chosen(slow, if full() { 10 } else { 4000 }));
    points.sort();
    let points: Vec<(Form, (usize, usize))> = points.into_iter().map(|(f, p, n)| (f, (p, n))).collect();
    try_each(&field, "killed", &points, &mut |form, (process, nth)| {
        let at = (*process, *nth);
        let hit = &mut |call: &Call| ((call.process, call.nth) == at).then_some(Fault::Kill);
        let (traced, done) = field.trace(form, Some(at), hit);
        let call = traced.hit.as_ref()?;
        let why = |why| format!("{form:?} killed at {}: {why}\n{done:#?}", call.shown());
        Some(got_over(&field, form, &traced).map_err(why))
    });
}

fn got_over(field: &Field, form: Form, traced: &Traced) -> Result<(), String> {
    match form {
        Form::RunFirst | Form::Run | Form::Detach => run_got_over(field, form, traced),
        Form::Kill => {
            let done = cgmgr(&["kill", VICTIM]);
            let over = done.status == 0 || (done.status == 1 && done.err.contains("no session"));
            check(over, || format!("the next `kill`: {done:#?}"))?;
            check(!victim_lives(), || "the session lives".into())?;
            nothing_is_frozen()?;
            left_nothing(field, true)
        }
        Form::Down | Form::DownKill => {
            let done = cgmgr(&["down", "--kill"]);
            check(done.status == 0, || format!("the next `down`: {done:#?}"))?;
            check(machine() == field.before, || {
                format!("it leaves {:#?}", machine())
            })
        }
        Form::Apply => {
            let done = finish_apply(field);
            check(done.status == 0, || format!("the next `apply`: {done:#?}"))?;
            field.is_applied()
        }
    }
}

fn finish_apply(field: &Field) -> crate::cgmgr::Done {
    let words = field.words(Form::Apply);
    cgmgr(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn run_got_over(field: &Field, form: Form, traced: &Traced) -> Result<(), String> {
    // What was executed says where it is; what was not is not there.
    if traced.executed {
        until("the command has said where it is", || {
            fs::exists(field.record()).unwrap_or(false)
        });
        field.was_confined()?;
    }
    nothing_is_frozen()?;
    if victim_lives() {
        let status = cgmgr(&["status"]);
        check(status.out.contains(VICTIM), || {
            format!("status does not show it: {status:#?}")
        })?;
        let again = cgmgr(&["run", "--name", VICTIM, "--", "true"]);
        check(again.status == 125 && again.err.contains("in use"), || {
            format!("its name was taken: {again:#?}")
        })?;
        let kill = cgmgr(&["kill", VICTIM]);
        check(kill.status == 0, || format!("it cannot be ended: {kill:#?}"))?;
        check(!fs::exists(path_of(VICTIM)).unwrap_or(true), || {
            "kill leaves its group".into()
        })?;
    }
    field.open_gate();
    left_nothing(field, form == Form::Detach)
}

/// That another session runs and takes away what was left, and that the name is free again.
fn left_nothing(field: &Field, detached: bool) -> Result<(), String> {
    field.run_next("next")?;
    check(session_groups().is_empty(), || {
        format!("groups are left: {:?}", session_groups())
    })?;
    let mut files = runtime_files();
    // The record of a detached session is for `wait`.
    files.retain(|f| !(detached && f.ends_with(&format!("/{VICTIM}.json"))));
    check(files.is_empty(), || format!("files are left: {files:?}"))?;
    field.run_next(VICTIM)?;
    check(session_groups().is_empty(), || {
        format!("groups are left: {:?}", session_groups())
    })
}
