//! What the campaigns with injected faults share: the commands under test, the machine before and after, and which
//! faults are tried when not all are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

use crate::cgmgr::{Done, cgmgr, command, finish, payload, run_command, until};
use crate::lab::{
    Lab, MOUNT, children, is_systemd, path_of, read, session_groups, sessions, variable, workloads,
};
use crate::tracer::{Call, Fault, Traced, trace};

/// The session that faults happen to.
pub const VICTIM: &str = "victim";
/// What its command returns.
pub const ENDED: i32 = 7;

const ROLE: &str = "[runtime.limits]\nmemory_max = \"64 MiB\"\npids = 50\n[agent]\nmemory_min = \"8 MiB\"\n\
                    [workloads]\nmemory_max = \"400 MiB\"\n";
/// The limits of the role as the kernel shows them: memory.max, pids.max, and memory.max of workloads.slice.
const LIMITS: [&str; 3] = ["67108864", "50", "419430400"];

/// A command under test, with what is there before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// `run`, where nothing has been set up.
    RunFirst,
    /// `run`, where sessions were run before.
    Run,
    /// `run --detach`, likewise.
    Detach,
    /// `kill` of a live session.
    Kill,
    /// `down` where a role was applied and sessions were run.
    Down,
    /// `down --kill` with a live session.
    DownKill,
    /// `apply`, where nothing has been set up.
    Apply,
}

impl Form {
    pub const ALL: [Form; 7] = [
        Form::RunFirst,
        Form::Run,
        Form::Detach,
        Form::Kill,
        Form::Down,
        Form::DownKill,
        Form::Apply,
    ];

    /// Whether it starts a session.
    pub fn runs(self) -> bool {
        matches!(self, Form::RunFirst | Form::Run | Form::Detach)
    }

    /// Whether it needs a live session.
    pub fn ends_one(self) -> bool {
        matches!(self, Form::Kill | Form::DownKill)
    }

    /// Whether what is set up is still so afterwards, so that the next fault needs no new machine.
    fn stays(self) -> bool {
        matches!(self, Form::Run | Form::Detach)
    }

    /// Whether it begins on a machine without anything of cgmgr's.
    pub fn is_first(self) -> bool {
        matches!(self, Form::RunFirst | Form::Apply)
    }
}

/// Where a campaign takes place.
pub struct Field {
    lab: Lab,
    role: String,
    /// The machine as it was before anything.
    pub before: Vec<String>,
    /// The machine once a session of the role was run.
    pub set_up: Vec<String>,
}

impl Field {
    pub fn new() -> Field {
        let lab = Lab::new();
        without_controllers();
        // What the first run leaves for good, like an empty runtime directory, is there from here on.
        cgmgr(&["run", "--", "true"]).expect(0);
        cgmgr(&["down", "--kill"]).expect(0);
        let role = lab.file("r.role.toml", ROLE);
        let mut field = Field {
            lab,
            role,
            before: machine(),
            set_up: Vec::new(),
        };
        field.prepare(Form::Run);
        field.set_up = machine();
        field.reset();
        field
    }

    /// Written by the session's command as soon as it runs.
    pub fn record(&self) -> String {
        self.lab.path("record")
    }

    /// What `run --report` writes.
    pub fn report(&self) -> String {
        self.lab.path("report")
    }

    /// Lets the session's command end.
    pub fn open_gate(&self) {
        fs::write(self.lab.path("gate"), "").expect("a file");
    }

    /// The words of a command under test.
    pub fn words(&self, form: Form) -> Vec<String> {
        let words: Vec<&str> = match form {
            Form::RunFirst | Form::Run => vec!["run"],
            Form::Detach => vec!["run", "--detach"],
            Form::Kill => vec!["kill", VICTIM],
            Form::Down => vec!["down"],
            Form::DownKill => vec!["down", "--kill"],
            Form::Apply => vec!["apply", &self.role],
        };
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        if form.runs() {
            words.extend(["--name", VICTIM, "--role", &self.role, "--report"].map(str::to_owned));
            words.push(self.report());
            words.push("--".into());
            words.extend([payload(), "gate".into(), self.record(), self.lab.path("gate")]);
        }
        words
    }

    /// As if no session's command had run yet.
    fn forget_files(&self) {
        for file in ["record", "gate", "report"] {
            let _ = fs::remove_file(self.lab.path(file));
        }
    }

    /// Makes ready for the next session where the last one's machine stays as it is.
    fn settle(&self) {
        self.open_gate();
        until("the last session is over", || session_groups().is_empty());
        forget_process_sessions();
        let held = |file: &String| file.ends_with(".lock");
        until("the last session has nobody in charge", || {
            !runtime_files().iter().any(held)
        });
        self.forget_files();
    }

    /// Makes the machine as the command wants to find it.
    fn prepare(&self, form: Form) {
        self.forget_files();
        if form.is_first() {
            return;
        }
        if form.ends_one() {
            let words = self.words(Form::Detach);
            finish(&mut command(&words)).expect(0);
            until("the command runs", || fs::exists(self.record()).unwrap_or(false));
            return;
        }
        if form == Form::Down {
            // On a machine with systemd only this gives the slices limits.
            cgmgr(&["apply", &self.role]).expect(0);
        }
        cgmgr(&[
            "run", "--quiet", "--name", "early", "--role", &self.role, "--", "true",
        ])
        .expect(0);
    }

    /// Runs the command under test with `decide` at each of its calls; a session's command ends once cgmgr waits for it.
    pub fn trace(
        &self,
        form: Form,
        only: Option<(usize, usize)>,
        decide: &mut dyn FnMut(&Call) -> Option<Fault>,
    ) -> (Traced, Done) {
        let (out, err) = (self.lab.path("out"), self.lab.path("err"));
        let mut command = command(self.words(form));
        command
            .stdout(File::create(&out).expect("a file"))
            .stderr(File::create(&err).expect("a file"));
        let record = self.record();
        let mut decide = |call: &Call| {
            let fault = decide(call);
            let waits = call.executed && matches!(call.name.as_str(), "poll" | "ppoll");
            if fault.is_none() && waits && form.runs() {
                until("the command runs", || fs::exists(&record).unwrap_or(false));
                self.open_gate();
            }
            fault
        };
        let enough = || fs::exists(self.record()).unwrap_or(false);
        let traced = trace(&mut command, only, &mut decide, &enough);
        let done = Done {
            status: traced.status,
            out: fs::read_to_string(out).unwrap_or_default(),
            err: fs::read_to_string(err).unwrap_or_default(),
        };
        (traced, done)
    }

    /// The calls of every command without a fault, recorded once for all campaigns.
    pub fn calls(&self) -> &'static [(Form, Vec<Call>)] {
        static CALLS: OnceLock<Vec<(Form, Vec<Call>)>> = OnceLock::new();
        CALLS.get_or_init(|| Form::ALL.map(|form| (form, self.record_calls(form))).into())
    }

    /// The calls of one, after which the machine is as it was before.
    fn record_calls(&self, form: Form) -> Vec<Call> {
        self.prepare(form);
        let (traced, done) = self.trace(form, None, &mut |_| None);
        let status = match form {
            Form::RunFirst | Form::Run => ENDED,
            _ => 0,
        };
        assert_eq!(done.status, status, "{form:?}: {done:#?}");
        self.reset();
        traced.calls
    }

    /// Takes everything away, whatever happened.
    fn reset(&self) {
        self.open_gate();
        forget_process_sessions();
        let done = cgmgr(&["down", "--kill"]);
        if done.status != 0 {
            until("`down --kill` succeeds", || {
                cgmgr(&["down", "--kill"]).status == 0
            });
        }
    }

    /// That the session's command, which has run, was in its group with the limits in force.
    pub fn was_confined(&self) -> Result<(), String> {
        let found = read(&self.record());
        let found: Vec<&str> = found.lines().collect();
        let group = path_of(VICTIM).trim_start_matches(MOUNT).to_owned();
        let wanted = [group.as_str(), LIMITS[0], LIMITS[1]];
        check(found == wanted, || {
            format!("the command found {found:?} and not {wanted:?}")
        })
    }

    /// That the limits of the role's slices are in force.
    pub fn is_applied(&self) -> Result<(), String> {
        let found = fs::read_to_string(format!("{}/memory.max", workloads())).unwrap_or_default();
        check(found.trim() == LIMITS[2], || {
            format!("memory.max of workloads.slice is {found}")
        })
    }

    /// Runs a session of this name to its end; whatever came before must not be in its way.
    pub fn run_next(&self, name: &str) -> Result<(), String> {
        let done = finish(&mut run_command(
            &["--quiet", "--name", name, "--role", &self.role],
            &["facts"],
        ));
        check(done.status == 0, || {
            format!("the next `run --name {name}`: {done:#?}")
        })?;
        check(done.err.is_empty(), || {
            format!("the next `run --name {name}` complains: {done:#?}")
        })
    }
}

/// `Err` with the reason unless something is so.
pub fn check(so: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(why()) }
}

/// Switches off the controllers that an earlier test left on.
pub fn without_controllers() {
    if is_systemd() {
        return;
    }
    let control = format!("{MOUNT}/cgroup.subtree_control");
    let on = read(&control);
    let off: Vec<String> = on.split_whitespace().map(|c| format!("-{c}")).collect();
    if !off.is_empty() {
        crate::lab::write(&control, &off.join(" "));
    }
}

/// What cgmgr could change in a group that is not its own.
pub fn state(group: &str) -> (Vec<String>, String, String) {
    let mark = |key: &str| {
        let mut value = [0u8; 256];
        let found = rustix::fs::getxattr(group, key, &mut value);
        found.map_or("-".into(), |n| String::from_utf8_lossy(&value[..n]).into_owned())
    };
    (
        children(group),
        read(&format!("{group}/cgroup.subtree_control")),
        format!("{} {}", mark("user.cgmgr.enabled"), mark("user.cgmgr.made")),
    )
}

/// Sessions without a group, which a host that seemed to lack cgroups has had, are none of `down`'s business.
fn forget_process_sessions() {
    let held = || files("/run/cgmgr/process").iter().any(|f| f.ends_with(".lock"));
    until("a session without a group is over", || !held());
    let _ = fs::remove_dir_all("/run/cgmgr/process");
}

/// Everything that cgmgr could have changed on this machine.
pub fn machine() -> Vec<String> {
    let mut found = Vec::new();
    if is_systemd() {
        found.push(format!("{:?}", state(&sessions())));
        for slice in ["agent.slice", "workloads.slice"] {
            for file in ["memory.max", "memory.min", "pids.max", "cpu.max"] {
                let value = fs::read_to_string(format!("{MOUNT}/{slice}/{file}"));
                found.push(format!("{slice}/{file} {}", value.unwrap_or_default().trim()));
            }
            for folder in ["/run/systemd/system", "/run/systemd/system.control"] {
                found.extend(files(&format!("{folder}/{slice}.d")));
            }
        }
    } else {
        found.push(format!("{:?}", state(MOUNT)));
        for slice in ["agent.slice", "workloads.slice"] {
            let group = format!("{MOUNT}/{slice}");
            if fs::exists(&group).unwrap_or(false) {
                found.push(format!("{:?}", state(&group)));
                for file in ["memory.max", "memory.min", "pids.max"] {
                    let value = fs::read_to_string(format!("{group}/{file}"));
                    found.push(format!("{slice}/{file} {}", value.unwrap_or_default().trim()));
                }
            }
        }
    }
    found.extend(runtime_files());
    found
}

/// The files in the runtime directory: locks, records, and what was not finished.
pub fn runtime_files() -> Vec<String> {
    files("/run/cgmgr")
}

fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path().to_string_lossy().into_owned();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path)),
            _ => found.push(path),
        }
    }
    found.sort();
    found
}

/// That no session is frozen.
pub fn nothing_is_frozen() -> Result<(), String> {
    for group in session_groups() {
        let events = fs::read_to_string(format!("{}/{group}/cgroup.events", sessions())).unwrap_or_default();
        check(!events.contains("frozen 1"), || format!("{group} is frozen"))?;
    }
    Ok(())
}

/// Whether a process is in the victim's group.
pub fn victim_lives() -> bool {
    let events = fs::read_to_string(format!("{}/cgroup.events", path_of(VICTIM)));
    events.is_ok_and(|events| events.contains("populated 1"))
}

/// Which of the machines that are tested side by side this is: each takes other faults where not all are tried.
fn turn() -> usize {
    let distro = variable("CGMGR_LAB_DISTRO").and_then(|number| number.parse::<usize>().ok());
    2 * usize::from(is_systemd()) + distro.unwrap_or(0) % 2
}

/// Of each kind every `step`th, from a place on that differs by kind and by machine, and at least one.
pub fn chosen<T>(all: Vec<(String, T)>, step: usize) -> Vec<T> {
    let mut kinds: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (kind, one) in all {
        kinds.entry(kind).or_default().push(one);
    }
    let mut taken = Vec::new();
    for (number, (_, ones)) in kinds.into_iter().enumerate() {
        let first = (number * 7 + turn() * step.div_ceil(4)) % ones.len().min(step);
        taken.extend(ones.into_iter().skip(first).step_by(step));
    }
    taken
}

/// How a fault went: why not well, or `None` where the call was not reached.
pub type Went = Option<Result<(), String>>;

/// Tries each fault: `one` says how it went, or `None` where the call was not reached. Fails with everything found.
#[track_caller]
pub fn try_each<T>(field: &Field, what: &str, points: &[(Form, T)], one: &mut dyn FnMut(Form, &T) -> Went) {
    let begun = Instant::now();
    let (mut hits, mut failures) = (0, Vec::new());
    let mut ready = None;
    for (number, (form, point)) in points.iter().enumerate() {
        if number % 10 == 9 {
            tell(&format!(
                "{what}: {number} faults, now {form:?}, {} s",
                begun.elapsed().as_secs()
            ));
        }
        if ready == Some(*form) {
            field.settle();
        } else {
            field.prepare(*form);
        }
        let mut went = one(*form, point);
        let again = points.get(number + 1).is_some_and(|next| next.0 == *form);
        // Where the next fault finds all as it needs it, the machine is taken away after the last one only.
        ready = (again && form.stays() && went.as_ref().is_none_or(Result::is_ok)).then_some(*form);
        if ready.is_none() {
            field.reset();
            if machine() != field.before {
                let left = format!("{form:?}: `down --kill` leaves {:#?}", machine());
                went = Some(Err(went.and_then(Result::err).unwrap_or_default() + &left));
                // One failure is not to be that of all that follow.
                let _ = fs::remove_dir_all("/run/cgmgr");
                without_controllers();
            }
        }
        hits += usize::from(went.is_some());
        if let Some(Err(why)) = went {
            tell(&format!("{what}: {why}"));
            failures.push(why);
        }
    }
    tell(&format!(
        "{what}: {hits} of {} faults hit, {} failures, {} s",
        points.len(),
        failures.len(),
        begun.elapsed().as_secs()
    ));
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{what}: {count} failures\n{}",
        failures.join("\n\n")
    );
    // How often a thing is waited for differs a little from run to run.
    assert!(
        hits * 10 >= points.len() * 8,
        "{hits} of {} points were reached",
        points.len()
    );
}

/// Says a figure of a campaign where it is seen also of a test that passes.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
