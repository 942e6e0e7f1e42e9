//! What Coder's agent does for the processes that it starts, by the row of the table of its behaviours: C is its exec
//! wrapper, L the loop that it had before, D where its document and its code disagree, and cgmgr does what the document
//! says. Everything goes through the command line.
//!
//! Rows that tests elsewhere hold, and that are named there: C1 to C4, C9, C10, C17, D5, L1, L6, L8 (`priorities.rs`),
//! L10 (`adopt.rs`).
//!
//! Rows that have nothing to be compared with here:
//! - C18: elsewhere than on Linux cgmgr is not compiled (`src/lib.rs`).
//! - C20: cgmgr has no log file to rotate; what it logs goes to standard error, and with a service into the journal.
//! - C22: buffers for the output of what a chat runs are its server's; `run --log`, `stop` and `kill` are cgmgr's.
//! - L2: the line is C19's, at one level.
//! - L3, L4, D8: there is no loop, no tick and no absolute nice value. What is set is set once, in the new process (C8).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::libc::EACCES;
use rustix::fs::{XattrFlags, setxattr};
use serde_json::{Value, json};

use crate::cgmgr::{Done, Live, cgmgr, command, finish, payload, run_command, run_payload, run_shell};
use crate::lab::{Lab, must, read, session_groups, write};
use crate::people::{coder, coders};
use crate::tracer::{Call, Fault, Traced, trace_as};

const SCORE_FILE: &str = "/proc/self/oom_score_adj";
const OFF: &str = "process priority management not enabled (linux-only)";
const ON: &str = "process priority management enabled";

fn score_and_nice(facts: &Value) -> (i64, i64) {
    let number = |key: &str| facts[key].as_i64().unwrap_or_else(|| panic!("no {key}: {facts}"));
    (number("oom_score_adj"), number("nice"))
}

/// The score and nice value of a process that runs.
fn of_process(pid: &str) -> (i64, i64) {
    let stat = read(&format!("/proc/{pid}/stat"));
    let fields = stat.rsplit_once(") ").expect("a name in parentheses").1;
    let nice = fields.split(' ').nth(16).and_then(|n| n.parse().ok());
    let score = read(&format!("/proc/{pid}/oom_score_adj")).parse();
    (score.expect("a number"), nice.expect("a number"))
}

/// Runs a command while each of its system calls is looked at; the one that `which` picks first is refused.
fn traced(lab: &Lab, command: Command, which: impl Fn(&Call) -> bool) -> (Traced, Done) {
    traced_as(None, lab, command, which)
}

fn traced_as(
    user: Option<u32>,
    lab: &Lab,
    mut command: Command,
    which: impl Fn(&Call) -> bool,
) -> (Traced, Done) {
    let paths = [lab.path("out"), lab.path("err")];
    let [out, err] = paths.each_ref().map(|path| File::create(path).expect("a file"));
    command.stdout(out).stderr(err);
    let mut decide = |call: &Call| which(call).then_some(Fault::Error(EACCES));
    let seen = trace_as(&mut command, user, None, &mut decide, &|| true);
    let [out, err] = paths.map(|path| fs::read_to_string(path).expect("a file"));
    let done = Done {
        status: seen.status,
        out,
        err,
    };
    (seen, done)
}

/// What the process that became the command did before it did, of what the rows are about.
fn steps(seen: &Traced) -> Vec<String> {
    let last = seen.calls.iter().rfind(|call| call.name == "execve");
    let process = last.expect("something is executed").process;
    let of_it = seen.calls.iter().filter(|call| call.process == process);
    let value = |call: &Call| call.value.clone().unwrap_or_default();
    let step = |call: &Call| match call.name.as_str() {
        // PR_GET_DUMPABLE is 3, PR_SET_DUMPABLE 4.
        "prctl" if value(call).starts_with("4 ") => Some(format!("dumpable {}", &value(call)[2..])),
        "write" if call.about.ends_with("/oom_score_adj") => Some(format!("score {}", value(call))),
        "setpriority" => Some(format!("nice {}", value(call))),
        "setresuid" => Some("user".to_owned()),
        "execve" => Some("command".to_owned()),
        _ => None,
    };
    of_it.filter_map(step).collect()
}

#[test]
fn c5_d4_without_the_switch_the_priorities_are_derived_and_the_names_are_stripped_all_the_same() {
    let _lab = Lab::new();
    let mut command = run_command(&[], &["facts"]);
    command.envs([
        ("CODER_PROC_OOM_SCORE", "111"),
        ("CODER_PROC_NICE_SCORE", "7"),
        // Not one of the three, though it begins like one (C17).
        ("CODER_PROC_OOM_SCORE_X", "kept"),
    ]);
    let facts = finish(&mut command).expect(0).json();
    assert_eq!(score_and_nice(&facts), (998, 5));
    let env = facts["env"].as_object().expect("variables");
    let coders: Vec<&String> = env
        .keys()
        .filter(|name| name.starts_with("CODER_PROC_"))
        .collect();
    assert_eq!(coders, ["CODER_PROC_OOM_SCORE_X"]);
}

#[test]
fn c6_each_override_is_given_alone_or_not_at_all_and_the_words_reach_the_command() {
    let _lab = Lab::new();
    for (options, expected) in [
        (&["--oom-score-adj=100", "--nice=3"][..], (100, 3)),
        (&["--oom-score-adj", "100"], (100, 5)),
        (&["--nice", "3"], (998, 3)),
    ] {
        let facts = run_payload(options, &["facts"]).expect(0).json();
        assert_eq!(score_and_nice(&facts), expected, "{options:?}");
    }
    let words = ["--oom-score-adj=1", "", "--", "-n", "a b", "--help"];
    let mut all = vec!["run", "--", "sh", "-c", "printf '<%s>' \"$@\"", "sh"];
    all.extend(words);
    let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
    assert_eq!(cgmgr(&all).expect(0).out, expected);
}

#[test]
fn c7_it_needs_no_path_to_its_own_program() {
    let lab = Lab::new();
    let (copy, link) = (lab.path("copy"), lab.path("link"));
    fs::copy(must("CGMGR_BIN"), &copy).expect("a copy");
    symlink(&copy, &link).expect("a link");
    let payload = payload();
    let run = |program: &str| finish(Command::new(program).args(["run", "--", &payload, "facts"])).expect(0);
    assert_eq!(score_and_nice(&run(&link).json()), (998, 5));
    // Its file is gone, as it is while it is being upgraded.
    let held = File::open(&copy).expect("a program");
    fs::remove_file(&copy).expect("a file");
    let program = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        std::os::fd::AsRawFd::as_raw_fd(&held)
    );
    assert_eq!(score_and_nice(&run(&program).json()), (998, 5));
}

/// The capabilities are another matter (C16): the kernel takes them away when the command is executed.
#[test]
fn c8_c13_d7_all_of_it_is_done_in_the_new_process_in_this_order() {
    let lab = Lab::new();
    coder();
    let (seen, done) = traced(&lab, run_command(&["--user", "coder"], &["facts"]), |_| false);
    let facts = done.expect(0).json();
    assert_eq!(score_and_nice(&facts), (998, 5));
    assert_eq!(steps(&seen), ["score 998", "nice 5", "user", "command"]);
    let file = seen.calls.iter().find(|call| call.about == SCORE_FILE);
    assert!(file.is_some(), "its own, by whichever name");
}

#[test]
fn c11_d6_who_cannot_read_its_own_priorities_says_so_and_the_command_keeps_them() {
    let lab = Lab::new();
    let reads = |call: &Call| call.name == "openat" && call.about == SCORE_FILE && call.value.is_none();
    let asks = |call: &Call| call.name == "getpriority";
    for which in [&reads as &dyn Fn(&Call) -> bool, &asks] {
        let (seen, done) = traced(&lab, run_command(&[], &["facts"]), which);
        assert!(seen.hit.is_some());
        let done = done.expect(0);
        assert_eq!(score_and_nice(&done.json()), (0, 0));
        let said: Vec<&str> = done
            .err
            .lines()
            .filter(|l| l.contains("own priorities"))
            .collect();
        assert_eq!(said.len(), 1, "{done:#?}");
        assert!(
            said[0].contains("so the command keeps them: Permission denied"),
            "{said:?}"
        );
    }
}

#[test]
fn c12_c15_what_cannot_be_started_is_not_started() {
    let _lab = Lab::new();
    for (words, status) in [
        (&["run"][..], 125),
        (&["run", "--"], 125),
        (&["run", "--coder-oom=5", "--", "true"], 125),
        (&["run", "--oom-score-adj=1001", "--", "true"], 125),
        (&["run", "--nice=20", "--", "true"], 125),
        (&["run", "--", "/no/such/command"], 127),
        (&["run", "--", "/etc/passwd"], 126),
    ] {
        let done = cgmgr(words).expect(status);
        assert!(!done.err.is_empty(), "{words:?}");
        assert_eq!(session_groups(), [""; 0]);
    }
}

/// What was said of a priority that could not be set, which is one line.
#[track_caller]
fn refusal(done: &Done) -> String {
    let lines: Vec<&str> = done.err.lines().filter(|l| l.contains("failed to")).collect();
    assert_eq!(lines.len(), 1, "{done:#?}");
    lines[0].to_owned()
}

#[test]
fn c14_l9_what_is_refused_is_one_line_and_the_command_starts() {
    let lab = Lab::new();
    let payload = payload();
    let opens = |call: &Call| call.name == "openat" && call.about == SCORE_FILE && call.value.is_some();
    let writes = |call: &Call| call.name == "write" && call.about.ends_with("/oom_score_adj");
    let sets = |call: &Call| call.name == "setpriority";
    let of_score = "oom score to 998";
    for (which, what, expected) in [
        (&opens as &dyn Fn(&Call) -> bool, of_score, (0, 5)),
        (&writes, of_score, (0, 5)),
        (&sets, "niceness to 5", (998, 0)),
    ] {
        let (seen, done) = traced(&lab, run_command(&[], &["facts"]), which);
        assert!(seen.hit.is_some(), "{what}");
        let done = done.expect(0);
        assert_eq!(score_and_nice(&done.json()), expected, "{what}");
        assert_eq!(
            refusal(&done),
            format!(
                "cgmgr: warning: failed to adjust {what} for cmd [{payload} facts]: Permission denied (os error 13)"
            )
        );
    }
    // Who wants it otherwise says so.
    let strict = run_command(&["--require-limits", "--nice", "3"], &["facts"]);
    let (_, done) = traced(&lab, strict, sets);
    assert_eq!(done.out, "", "{done:#?}");
    assert_ne!(done.status, 0);
}

/// cgmgr as `coder` runs it, from another file where one is named.
fn his<S: AsRef<OsStr>>(lab: &Lab, program: &str, words: impl IntoIterator<Item = S>) -> Command {
    coder();
    let folder = lab.path("runtime");
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("its mode");
    chown(&folder, Some(1000), Some(1000)).expect("its owner");
    let mut command = coders([program]);
    command.args(words).env("CGMGR_RUNTIME_DIR", folder);
    command
}

#[test]
fn c14_d3_what_needs_a_privilege_that_is_lacking_is_refused_in_as_many_words() {
    let lab = Lab::new();
    let (program, payload) = (must("CGMGR_BIN"), payload());
    let facts = |option: &str| {
        let words = ["run", option, "--", &payload, "facts"];
        finish(&mut his(&lab, &program, words)).expect(0)
    };
    for (option, what, expected) in [
        ("--nice=-5", "niceness to -5", (998, 0)),
        ("--oom-score-adj=-500", "oom score to -500", (0, 5)),
    ] {
        let done = facts(option);
        assert_eq!(score_and_nice(&done.json()), expected);
        let line = refusal(&done);
        let begin = format!("cgmgr: warning: failed to adjust {what} for cmd [");
        assert!(
            line.starts_with(&begin) && line.ends_with("Permission denied (os error 13)"),
            "{line}"
        );
    }
    // D3: with the privilege a nice value below one's own is applied, as the document once promised.
    let done = run_payload(&["--nice=-7"], &["facts"]).expect(0);
    assert_eq!(score_and_nice(&done.json()), (998, -7));
    done.says_nothing_of("failed");
}

/// A copy of cgmgr with `cap_sys_nice,cap_sys_resource+ep` in its file, where capabilities of files count: /tmp may be
/// mounted without. It goes with the test.
struct Capable(String);

impl Capable {
    fn new() -> Capable {
        let path = format!("/var/tmp/cgmgr-capable-{}", std::process::id());
        fs::copy(must("CGMGR_BIN"), &path).expect("a copy");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        // struct vfs_cap_data, revision 2, effective; permitted and inheritable, in two halves.
        let permitted = 1_u32 << 23 | 1 << 24;
        let value: Vec<u8> = [0x0200_0001, permitted, 0, 0, 0]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        setxattr(&path, "security.capability", &value, XattrFlags::empty()).expect("an attribute");
        Capable(path)
    }
}

impl Drop for Capable {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn c16_with_file_capabilities_what_is_declared_holds_and_no_capability_is_passed_on() {
    let lab = Lab::new();
    let capable = Capable::new();
    let payload = payload();
    let declared = ["run", "--nice=-5", "--oom-score-adj=-500", "--"];
    for exec in [false, true] {
        let mut words = declared.to_vec();
        if exec {
            words.insert(1, "--exec");
        }
        words.extend([payload.as_str(), "facts"]);
        let done = finish(&mut his(&lab, &capable.0, &words)).expect(0);
        done.says_nothing_of("failed");
        let facts = done.json();
        assert_eq!(score_and_nice(&facts), (-500, -5), "--exec: {exec}");
        assert_eq!(facts["uid"], json!(["1000", "1000", "1000", "1000"]));
        assert_eq!(
            facts["capabilities"],
            json!([["0000000000000000"]; 4].map(|row| row.to_vec()))
        );
    }
    // What it set is the least that the command may go back to (C23), and what is derived needs no privilege.
    let down = |score: &str| {
        let mut words = declared.to_vec();
        words.extend([payload.as_str(), "write", SCORE_FILE, score]);
        finish(&mut his(&lab, &capable.0, &words)).expect(0).out
    };
    assert_eq!(
        (down("-501"), down("-500")),
        ("errno 13\n".into(), "done\n".into())
    );
    let plain = ["run", "--", &payload, "facts"];
    let done = finish(&mut his(&lab, &capable.0, plain)).expect(0);
    assert_eq!((score_and_nice(&done.json()), done.err.as_str()), ((998, 5), ""));

    // It is dumpable for the one write, and the nice value is set while there is a capability to do so.
    let mut words = declared.to_vec();
    words.extend([payload.as_str(), "facts"]);
    let traced = |which: &dyn Fn(&Call) -> bool| {
        let mut command = his(&lab, &capable.0, &words);
        command.uid(0).gid(0);
        traced_as(Some(1000), &lab, command, which)
    };
    let (seen, done) = traced(&|_| false);
    assert_eq!(score_and_nice(&done.expect(0).json()), (-500, -5));
    assert_eq!(
        steps(&seen),
        ["dumpable 1", "score -500", "dumpable 0", "nice -5", "command"]
    );
    // C14: each of the two may be refused. Without the first its score is not its own to write.
    let sets =
        |to: &'static str| move |call: &Call| call.name == "prctl" && call.value.as_deref() == Some(to);
    let (_, done) = traced(&sets("4 1"));
    let done = done.expect(0);
    done.says("failed to set dumpable: Permission denied");
    done.says("failed to adjust oom score to -500 for cmd [");
    assert_eq!(score_and_nice(&done.json()), (0, -5));
    let (_, done) = traced(&sets("4 0"));
    let done = done.expect(0);
    assert!(refusal(&done).contains("failed to unset dumpable: Permission denied"));
    assert_eq!(score_and_nice(&done.json()), (-500, -5));

    // Whoever waits for the command has not stayed dumpable: its files are root's, and the command's are its user's.
    let words = ["run", "--name", "his", "--", &payload, "hold"];
    let mut live = Live::of("his", &mut his(&lab, &capable.0, words));
    let pid = live.hear("ready ");
    let owner = |pid: &str| {
        fs::metadata(format!("/proc/{pid}/stat"))
            .expect("a process")
            .uid()
    };
    assert_eq!((owner(&live.pid().to_string()), owner(&pid)), (0, 1000));
    live.end().expect(0);
}

/// The same of an agent, which keeps what it gets and has no use for the capabilities.
#[test]
fn c16_an_agent_gets_its_own_and_no_capability() {
    let lab = Lab::new();
    let capable = Capable::new();
    let payload = payload();
    let role = lab.file("a.role.toml", "[agent]\noom_score_adj = -700\nnice = -3\n");
    let words = ["protect", "--role", &role, "--", &payload, "facts"];
    let done = finish(&mut his(&lab, &capable.0, words)).expect(0);
    done.says_nothing_of("failed");
    let facts = done.json();
    assert_eq!(score_and_nice(&facts), (-700, -3));
    assert_eq!(
        facts["capabilities"],
        json!([["0000000000000000"]; 4].map(|row| row.to_vec()))
    );
    // Without, each is a line, and the agent starts.
    let done = finish(&mut his(&lab, &must("CGMGR_BIN"), words)).expect(0);
    assert_eq!(score_and_nice(&done.json()), (0, 0));
    done.says("failed to adjust oom score to -700 for cmd [");
    done.says("failed to adjust niceness to -3 for cmd [");
}

#[test]
fn c19_d1_d2_the_state_and_the_values_in_force_are_logged_and_no_quiet_run_says_them() {
    let _lab = Lab::new();
    // D1: the empty value enables it, and the line says so.
    for (value, line, expected) in [
        (
            None,
            format!("{OFF} value=\"\" os=\"linux\" oom_score_adj=998 nice=5"),
            998,
        ),
        (
            Some(""),
            format!("{ON} value=\"\" os=\"linux\" oom_score_adj=111 nice=5"),
            111,
        ),
        (
            Some("0"),
            format!("{ON} value=\"0\" os=\"linux\" oom_score_adj=111 nice=5"),
            111,
        ),
    ] {
        let environment = |command: &mut Command| {
            command.env("CODER_PROC_OOM_SCORE", "111");
            command.envs(value.map(|value| ("CODER_PROC_PRIO_MGMT", value)));
        };
        let mut run = run_command(&[], &["facts"]);
        environment(&mut run);
        let quiet = finish(&mut run).expect(0);
        assert_eq!(quiet.err, "", "{value:?}");
        assert_eq!(quiet.json()["oom_score_adj"], expected);
        let told = finish(run.env("CGMGR_LOG", "info")).expect(0);
        let lines: Vec<&str> = told.err.lines().filter(|l| l.contains("management")).collect();
        assert_eq!(lines, [format!(" INFO {line}")], "{value:?}");

        let mut doctor = command(["doctor", "--json"]);
        environment(&mut doctor);
        let found = finish(&mut doctor).expect(0).json();
        let found = found["findings"].as_array().expect("a list").clone();
        let of_it = found.iter().find(|finding| finding["id"] == "priorities");
        let what = of_it.expect("a finding")["what"]
            .as_str()
            .expect("text")
            .to_owned();
        assert_eq!(what, line.replace("\"linux\"", "linux"), "{value:?}");
    }
}

#[test]
fn c21_every_way_to_start_a_command_is_one_to_lower_it() {
    let lab = Lab::new();
    let payload = payload();
    let log = lab.path("log");
    let facts = |words: &[&str]| {
        let mut command = command(words);
        command
            .args(["--", &payload, "facts"])
            .env("CODER_PROC_PRIO_MGMT", "1");
        let done = finish(command.env("CODER_PROC_OOM_SCORE", "700")).expect(0);
        let detached = words.contains(&"--detach");
        if detached {
            cgmgr(&["wait", "later"]).expect(0);
        }
        let text = if detached { read(&log) } else { done.out };
        let facts: Value = serde_json::from_str(&text).expect("facts");
        let env = facts["env"].as_object().expect("variables");
        assert!(
            !env.keys().any(|name| name.starts_with("CODER_PROC_")),
            "{words:?}"
        );
        score_and_nice(&facts)
    };
    for words in [
        &["run"][..],
        &["run", "--exec"],
        &["run", "--backend", "process"],
        &["run", "--detach", "--name", "later", "--log", &log],
    ] {
        assert_eq!(facts(words), (700, 5), "{words:?}");
    }
    // Who joins gets what the session has.
    let live = Live::hold("live", &["--nice", "9"], 0);
    assert_eq!(facts(&["enter", "live"]), (998, 9));
    live.end().expect(0);
}

/// The score is no more than advice. It binds whom a privileged process gave it to, and nobody else; the group's limit
/// does not ask.
#[test]
fn c23_a_score_can_be_undone_and_the_limit_cannot() {
    let lab = Lab::new();
    let (program, payload) = (must("CGMGR_BIN"), payload());
    let down = |score: &str| {
        let words = ["run", "--", &payload, "write", SCORE_FILE, score];
        finish(&mut his(&lab, &program, words)).expect(0).out
    };
    assert_eq!((down("0"), down("-1")), ("done\n".into(), "errno 13\n".into()));
    let held = |score: &str| {
        run_payload(&["--user", "coder"], &["write", SCORE_FILE, score])
            .expect(0)
            .out
    };
    assert_eq!(
        (held("997"), held("998"), held("1000")),
        ("errno 13\n".into(), "done\n".into(), "done\n".into())
    );
    let script = format!("echo -999 >{SCORE_FILE} && exec {payload} hog 64");
    let done = run_shell(&["--memory-max", "24MiB"], &script).expect(137);
    done.says("was OOM-killed: memory_max 24.0 MiB reached");
}

#[test]
fn c24_no_zero_before_a_number_makes_it_octal() {
    let _lab = Lab::new();
    let mut command = run_command(&[], &["facts"]);
    command
        .env("CODER_PROC_PRIO_MGMT", "1")
        .env("CODER_PROC_OOM_SCORE", "0500");
    assert_eq!(finish(&mut command).expect(0).json()["oom_score_adj"], 500);
    let done = run_payload(&["--oom-score-adj=0500"], &["facts"]).expect(0);
    assert_eq!(done.json()["oom_score_adj"], 500);
}

#[test]
fn l5_no_word_of_a_command_line_exempts_it() {
    let _lab = Lab::new();
    let script = format!("{} facts; true", payload());
    let done = cgmgr(&["run", "--", "sh", "-c", &script, "coder agent", "coder agent"]).expect(0);
    assert_eq!(score_and_nice(&done.json()), (998, 5));
}

#[test]
fn l7_l11_what_a_user_set_is_left_alone_and_so_is_everybody_outside() {
    let lab = Lab::new();
    let mut stranger = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .expect("a process");
    let outside = stranger.id().to_string();
    write(&format!("/proc/{outside}/oom_score_adj"), "33");
    let script = format!("echo 77 >{SCORE_FILE}; exec nice -n 6 {} hold", payload());
    let mut live = Live::of(
        "own",
        &mut command([
            "run",
            "--name",
            "own",
            "--memory-max",
            "64MiB",
            "--",
            "sh",
            "-c",
            &script,
        ]),
    );
    let inside = live.hear("ready ");
    assert_eq!(of_process(&inside), (77, 11));
    let role = lab.file(
        "w.role.toml",
        "[runtime.limits]\nnice = 15\noom_score_adj = 900\n",
    );
    for words in [
        &["set", "own", "pids=50"][..],
        &["freeze", "own"],
        &["thaw", "own"],
        &["apply", &role],
        &["enter", "own", "--", "true"],
        &["run", "--", "true"],
        &["status"],
    ] {
        cgmgr(words).expect(0);
        assert_eq!(
            (of_process(&inside), of_process(&outside)),
            ((77, 11), (33, 0)),
            "{words:?}"
        );
    }
    // Who is taken in keeps what it has.
    cgmgr(&["adopt", "--role", &role, "--name", "taken", &outside]).expect(0);
    assert_eq!(of_process(&outside), (33, 0));
    live.end().expect(0);
    cgmgr(&["kill", "taken"]).expect(0);
    stranger.wait().expect("a child");
}
