//! `protect`: an agent that is protected, what it keeps, what its sessions do not inherit, and what is refused.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::cgmgr::{Done, cgmgr, command, finish, payload, until};
use crate::lab::{Lab, MOUNT, children, counter, is_systemd, read, session_groups, write};
use crate::people::{coder, coders};

const ROLE: &str = "[runtime.limits]\nmemory_max = \"64 MiB\"\n[agent]\nmemory_min = \"24 MiB\"\n\
                    memory_low = \"32 MiB\"\ncpu_weight = 1000\noom_score_adj = -800\nnice = -5\n";
const SLICE: &str = "/sys/fs/cgroup/agent.slice";

/// A process in a group of its own outside of every service, as from a login. It goes with what holds it.
struct Elsewhere {
    child: Child,
    /// The directory of the group that it was started in.
    group: String,
}

impl Elsewhere {
    /// `script`, which must end as a sleep, in a shell: in a scope of systemd's where there is one.
    fn start(name: &str, script: &str) -> Elsewhere {
        let mut command = if is_systemd() {
            let mut command = Command::new("systemd-run");
            let unit = format!("--unit={name}");
            command.args(["--scope", "--quiet", "--collect", &unit, "sh", "-c", script]);
            command
        } else {
            let group = format!("{MOUNT}/{name}");
            fs::create_dir(&group).expect("a group");
            let mut command = Command::new("sh");
            command.args(["-c", &format!("echo $$ >{group}/cgroup.procs; {script}")]);
            command
        };
        let child = command.stdin(Stdio::null()).spawn().expect("started");
        let mut found = Elsewhere {
            child,
            group: String::new(),
        };
        let comm = format!("/proc/{}/comm", found.pid());
        until("it sleeps", || {
            fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() == "sleep")
        });
        found.group = format!("{MOUNT}{}", found.group_now());
        assert!(found.group.contains(name), "{}", found.group);
        found
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn group_now(&self) -> String {
        let group = read(&format!("/proc/{}/cgroup", self.pid()));
        group.trim_start_matches("0::").to_owned()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Who was started before is there still.
        let _ = fs::write(format!("{}/cgroup.kill", self.group), "1");
        until("its group is gone", || {
            let _ = fs::remove_dir(&self.group);
            !fs::exists(&self.group).unwrap_or(true)
        });
    }
}

/// `cgmgr protect OPTIONS -- payload facts`, with the pid that it was started as.
fn facts(options: &[&str], environment: &[(&str, &str)]) -> (Value, u32, String) {
    let mut agent = command(["protect"]);
    agent.args(options).arg("--").arg(payload()).arg("facts");
    agent.envs(environment.iter().copied());
    let child = agent
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let pid = child.id();
    let output = child.wait_with_output().expect("a child");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let done = Done {
        status: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    };
    let done = done.expect(0);
    (done.json(), pid, done.err)
}

/// A role whose `[agent]` holds: an installed agent.slice has values of its own, which only `apply` changes.
fn applied(lab: &Lab) -> String {
    let role = lab.file("agent.role.toml", ROLE);
    cgmgr(&["apply", &role]).expect(0);
    role
}

/// Where agents are: the slice itself, or a scope in it.
#[track_caller]
fn assert_is_an_agents(group: &Value) {
    let group = group.as_str().expect("a group");
    match group.strip_prefix("/agent.slice") {
        Some("") => assert!(!is_systemd(), "{group}"),
        Some(scope) => assert!(
            is_systemd() && scope.starts_with("/cgmgr-agent-") && scope.ends_with(".scope"),
            "{group}"
        ),
        None => panic!("{group}"),
    }
}

#[test]
fn an_agent_is_protected_and_is_what_it_would_have_been() {
    let lab = Lab::new();
    let role = applied(&lab);
    // What is Coder's is for sessions: an agent's environment is its own.
    let environment = [
        ("CODER_PROC_PRIO_MGMT", "1"),
        ("CODER_PROC_OOM_SCORE", "7"),
        ("AGENT", "x"),
    ];
    let (facts, pid, said) = facts(&["--role", &role], &environment);
    assert_is_an_agents(&facts["cgroup"]);
    assert_eq!(
        (&facts["oom_score_adj"], &facts["nice"]),
        (&json!(-800), &json!(-5))
    );
    assert_eq!(facts["pid"], pid, "it is the very process");
    for (name, value) in environment {
        assert_eq!(facts["env"][name], value);
    }
    assert_eq!(facts["env"]["CGMGR_SESSION"], Value::Null);
    assert_eq!(facts["blocked"], json!(["0000000000000000"]));
    assert!(!said.contains("cgmgr:"), "{said}");
    assert_eq!(counter(&format!("{SLICE}/memory.min"), ""), 24 << 20);
    assert_eq!(counter(&format!("{SLICE}/memory.low"), ""), 32 << 20);
    assert_eq!(counter(&format!("{SLICE}/cpu.weight"), ""), 1000);
    // Its exit status is its own, and so are those of what cannot be started.
    let status = |words: &[&str]| cgmgr(&[&["protect", "--"], words].concat()).status;
    assert_eq!(status(&["sh", "-c", "exit 7"]), 7);
    assert_eq!(status(&["sh", "-c", "kill -TERM $$"]), 143);
    assert_eq!(status(&["/etc/passwd"]), 126);
    assert_eq!(status(&["no-such-agent"]), 127);
    let done = cgmgr(&["protect"]).expect(125);
    done.says("required");
}

#[test]
fn each_group_above_an_agents_memory_protects_it() {
    let lab = Lab::new();
    let role = applied(&lab);
    let script = "g=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); while [ -e $g/memory.min ]; do \
                  cat $g/memory.min $g/memory.low; g=$(dirname $g); done";
    let done = cgmgr(&["protect", "--role", &role, "--", "sh", "-c", script]).expect(0);
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines.len(), if is_systemd() { 4 } else { 2 }, "{done:#?}");
    for pair in lines.chunks(2) {
        assert_eq!(pair, ["25165824", "33554432"], "{done:#?}");
    }
}

#[test]
fn a_session_of_an_agents_inherits_nothing_that_protects_it() {
    let lab = Lab::new();
    let role = applied(&lab);
    let open = lab.file("open", "");
    // All that could be passed on: priorities, policy, affinity, a descriptor.
    let script = format!(
        "exec 7<{open}; exec chrt --batch 0 taskset -c 0 {} run --name kid --role {role} -- {} facts",
        crate::lab::must("CGMGR_BIN"),
        payload()
    );
    let done = cgmgr(&["protect", "--role", &role, "--", "sh", "-c", &script]).expect(0);
    let facts = done.json();
    let group = facts["cgroup"].as_str().expect("a group");
    assert!(group.starts_with("/workloads.slice/"), "{group}");
    assert_eq!((&facts["oom_score_adj"], &facts["nice"]), (&json!(0), &json!(0)));
    let cpus = read("/sys/devices/system/cpu/online");
    assert_eq!(facts["cpus_allowed"], json!([cpus]));
    let fds = facts["fds"].as_array().expect("descriptors");
    assert!(fds.iter().all(|fd| fd[0].as_i64() < Some(3)), "{fds:?}");
    assert_eq!(facts["files"]["memory.max"], (64 << 20).to_string());
    let done = cgmgr(&[
        "protect",
        "--role",
        &role,
        "--",
        "sh",
        "-c",
        &format!(
            "exec chrt --batch 0 {} run -- chrt -p 0",
            crate::lab::must("CGMGR_BIN")
        ),
    ])
    .expect(0);
    assert!(done.out.contains("SCHED_OTHER"), "{done:#?}");
}

#[test]
fn a_running_process_is_protected() {
    let lab = Lab::new();
    let role = applied(&lab);
    let agent = Elsewhere::start("cgmgr-test-agent", "sleep 1000 & exec sleep 1001");
    let pid = agent.pid().to_string();
    let from = agent.group_now();
    let done = cgmgr(&["protect", "--pid", &pid, "--role", &role, "--json"])
        .expect(0)
        .json();
    assert_is_an_agents(&done["group"]);
    assert_eq!((&done["already"], &done["error"]), (&json!(false), &Value::Null));
    assert_eq!(done["group"], agent.group_now());
    let states: Vec<String> = done["receipt"]
        .as_array()
        .expect("a receipt")
        .iter()
        .map(|e| format!("{} {}", e["knob"].as_str().unwrap(), e["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        states,
        [
            "agent.memory_min enforced",
            "agent.memory_low enforced",
            "agent.cpu_weight enforced",
            "agent.oom_score_adj enforced",
            "agent.nice enforced"
        ]
    );
    let notes = done["notes"].to_string();
    assert!(notes.contains(&format!("stay charged to {from}")), "{notes}");
    assert!(
        notes.contains("what it had started before stays where it is") && notes.contains("sleep"),
        "{notes}"
    );
    assert_eq!(read(&format!("/proc/{pid}/oom_score_adj")), "-800");
    assert_eq!(nice(&pid), "-5");
    // Once more changes nothing; people are told the same.
    let again = cgmgr(&["protect", "--pid", &pid, "--role", &role]).expect(0);
    assert!(again.out.contains("and was before"), "{again:#?}");
    assert!(
        again.out.contains("agent.nice") && again.out.contains("enforced"),
        "{again:#?}"
    );
    let shown = cgmgr(&["status", "--json"]).expect(0).json();
    let agents = shown["agents"].as_array().expect("agents");
    let shown = agents
        .iter()
        .find(|a| a["pid"] == agent.pid())
        .expect("it is shown");
    assert_eq!(
        (&shown["group"], &shown["comm"]),
        (&done["group"], &json!("sleep"))
    );
    assert_eq!(shown["oom_score_adj"], -800);
    // Whatever `down` takes away, it ends no agent.
    cgmgr(&["down"]);
    assert_eq!(nice(&pid), "-5");
    assert!(
        agent.group_now().contains("/agent.slice"),
        "{}",
        agent.group_now()
    );
    drop(agent);
    until("the slice is empty", || children(SLICE).is_empty());
}

/// The nice value of each of its threads, which all have the same.
fn nice(pid: &str) -> String {
    let listed = finish(Command::new("ps").args(["-L", "-o", "ni=", "-p", pid])).expect(0);
    let mut all: Vec<&str> = listed.out.split_whitespace().collect();
    all.dedup();
    assert_eq!(all.len(), 1, "{listed:#?}");
    all[0].to_owned()
}

#[test]
fn what_is_no_agent_is_refused_and_nothing_is_done() {
    let _lab = Lab::new();
    let before = children(MOUNT);
    let refused = |pid: &str, says: &str, status: i32| {
        cgmgr(&["protect", "--pid", pid]).expect(status).says(says);
    };
    refused("1", "it is the machine's first process", 1);
    refused("2", "it is a kernel thread", 1);
    refused("4000000", "there is no process 4000000", 1);
    for text in ["0", "-5", "x"] {
        cgmgr(&["protect", &format!("--pid={text}")])
            .expect(2)
            .says("is not a pid");
    }
    let threads = fs::read_dir("/proc/self/task").expect("threads").flatten();
    let own = std::process::id().to_string();
    let thread = threads
        .map(|t| t.file_name().to_string_lossy().into_owned())
        .find(|t| *t != own)
        .expect("a test has a thread of its own");
    refused(&thread, &format!("pid {thread} is a thread of"), 1);
    if is_systemd() {
        refused(&own, "belongs to cgmgr-lab.service", 1);
        refused(&own, "cgmgr install --protect cgmgr-lab.service", 1);
    }
    assert_eq!(children(MOUNT), before);

    let live = crate::cgmgr::Live::hold("kept", &[], 1);
    let inside = read(&format!("{}/cgroup.procs", live.group()));
    refused(&inside, "is in session kept, whose limits it may not leave", 1);
    let words = [
        "run",
        "--name",
        "inner",
        "--",
        &crate::lab::must("CGMGR_BIN"),
        "protect",
        "--",
        "true",
    ];
    cgmgr(&words).expect(125).says("is in session inner");
    live.end();
    assert_eq!(session_groups(), [""; 0]);
}

#[test]
fn what_cannot_be_had_is_said_and_with_require_limits_nothing_is_started() {
    let lab = Lab::new();
    let role = applied(&lab);
    let mut without = command([
        "--backend",
        "process",
        "protect",
        "--role",
        &role,
        "--",
        "sh",
        "-c",
        "nice",
    ]);
    let done = finish(&mut without).expect(0);
    assert_eq!(done.out, "-5\n");
    done.says("agent.memory_min is not enforced: the process backend has no cgroup");
    let file = lab.path("report");
    let done = cgmgr(&[
        "--backend",
        "process",
        "protect",
        "--require-limits",
        "--role",
        &role,
        "--report",
        &file,
        "--",
        "echo",
        "started",
    ])
    .expect(3);
    assert_eq!(done.out, "");
    done.says("not everything declared can be enforced here: agent.memory_min");
    let told = crate::cgmgr::report(&file);
    assert_eq!((&told["status"], &told["pid"]), (&json!(3), &Value::Null));
    cgmgr(&["protect", "--role", &role, "--report", &file, "--", "true"]).expect(0);
    let told = crate::cgmgr::report(&file);
    assert_is_an_agents(&told["group"]);
    assert_eq!(told["receipt"][4]["state"], "enforced", "{told:#}");
    // What is there is `apply`'s to change.
    write(&role, &ROLE.replace("24 MiB", "25 MiB"));
    cgmgr(&["protect", "--role", &role, "--", "true"]).expect(0).says(
        "agent.memory_min is not enforced: it is 25165824, and only `cgmgr apply` changes what is there",
    );
    // Without any role it is the score, and a word on the memory.
    cgmgr(&["down", "--kill"]).expect(0);
    let done = cgmgr(&["protect", "--", "cat", "/proc/self/oom_score_adj"]).expect(0);
    assert_eq!(done.out, "-900\n");
    if is_systemd() {
        // As installed.
        done.says_nothing_of("no memory is protected");
    } else {
        done.says("no memory is protected: /agent.slice has neither memory_min nor memory_low");
    }
}

#[test]
fn without_the_right_to_it_an_agent_starts_and_hears_why_it_is_not_the_last_to_go() {
    let lab = Lab::new();
    coder();
    let words = [
        crate::lab::must("CGMGR_BIN"),
        "--backend".into(),
        "process".into(),
        "protect".into(),
        "--".into(),
        "cat".into(),
        "/proc/self/oom_score_adj".into(),
    ];
    let done = finish(&mut coders(words)).expect(0);
    assert_eq!(done.out, "0\n");
    done.says("failed to adjust oom score to -900 for cmd [cat /proc/self/oom_score_adj]: Permission denied");
    done.says("CAP_SYS_RESOURCE");
    drop(lab);
}
