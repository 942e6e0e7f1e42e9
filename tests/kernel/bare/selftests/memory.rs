//! test_memcontrol.c: the protection of the agent's memory.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::{Base, Outside};
use crate::cgmgr::{Done, Live, cgmgr, payload};
use crate::lab::{Lab, close, counter, write};

const MIB: u64 = 1 << 20;

/// Page cache of 50 MiB for the agent, in its group, as long as this lives.
fn agents_cache() -> Outside {
    let group = format!("{}/agent.slice", Base::PATH);
    let script = format!(
        "echo 0 >{group}/cgroup.procs; exec {} cache 50 /var/tmp/cgmgr-lab-agent",
        payload()
    );
    let mut agent = Outside::start(
        Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let mut line = String::new();
    let _ = BufReader::new(agent.0.stdout.take().expect("a pipe")).read_line(&mut line);
    assert!(line.starts_with("cached "), "{line}");
    agent
}

fn current(group: &str) -> u64 {
    counter(&format!("{}/{group}/memory.current", Base::PATH), "")
}

fn low(group: &str) -> u64 {
    counter(&format!("{}/{group}/memory.events", Base::PATH), "low")
}

/// A base of 200 MiB in which the agent and a session hold 50 MiB of page cache each, the agent's protected by `knob`.
/// A session that takes 148 MiB gets the other session's cache, and the agent's stays. Then one asks for 170 MiB, 20
/// more than there is beside what is protected: what becomes of it is returned.
fn protected(lab: &Lab, knob: &str) -> (Done, Outside) {
    write(&format!("{}/memory.max", Base::PATH), "200M");
    write(&format!("{}/memory.swap.max", Base::PATH), "0");
    let role = lab.file("r.role.toml", &format!("[agent]\n{knob} = \"50 MiB\"\n"));
    cgmgr(&["--cgroup-root", "/base", "apply", &role]).expect(0);
    let agent = agents_cache();
    let base = ["--cgroup-root", "/base"];
    let mut other = Live::start("other", &base, &["cache", "50", "/var/tmp/cgmgr-lab-other"]);
    other.hear("cached ");
    assert!(
        close(current("agent.slice"), 50 * MIB, 5),
        "{}",
        current("agent.slice")
    );
    let all = current("");
    assert!(close(all, 100 * MIB, 5), "{all}");

    let greedy = Live::hold("greedy", &base, 148);
    let (agents, others) = (current("agent.slice"), current("workloads.slice/cgmgr-other"));
    assert!(close(agents, 50 * MIB, 5), "{agents}");
    assert!(others < 10 * MIB, "{others}");
    assert_eq!(low("agent.slice"), 0);
    greedy.end().expect(0).says_nothing_of("OOM");

    let mut words = base.to_vec();
    words.extend(["run", "--name", "greedy"]);
    let payload = payload();
    words.extend(["--", &payload, "hog", "170"]);
    let done = cgmgr(&words);
    other.end().expect(0);
    (done, agent)
}

/// The kernel (memcg_protection with memory.min): below a limit that all share, what memory.min protects stays where it is,
/// and an allocation that could only be had from it is OOM-killed.
///
/// Here the limit is that of the base, and memory.min is the agent's by `[agent] memory_min`: the sessions' page cache goes
/// first, and a session that asks for more is killed before the agent loses anything. The verdict names the base's limit.
#[test]
fn memcg_min() {
    let lab = Lab::new();
    let base = Base::with(&["cpu", "memory", "pids"]);
    let (done, agent) = protected(&lab, "memory_min");
    assert_eq!(done.status, 137, "{done:#?}");
    done.says("OOM-killed").says("200.0 MiB");
    let agents = current("agent.slice");
    assert!(close(agents, 50 * MIB, 5), "{agents}");
    drop(agent);
    cgmgr(&["--cgroup-root", "/base", "down"]).expect(0);
    drop(base);
    drop(lab);
}

/// The kernel (memcg_protection with memory.low): the same, but where nothing else is left what is protected is taken after
/// all, nobody is killed, and `low` events are counted.
///
/// Here memory.low is the agent's by `[agent] memory_low`.
#[test]
fn memcg_low() {
    let lab = Lab::new();
    let base = Base::with(&["cpu", "memory", "pids"]);
    let (done, agent) = protected(&lab, "memory_low");
    assert_eq!(done.status, 0, "{done:#?}");
    done.says_nothing_of("OOM");
    let agents = current("agent.slice");
    assert!(close(agents, 30 * MIB, 5), "{agents}");
    assert!(low("agent.slice") > 0);
    assert_eq!(
        counter(&format!("{}/agent.slice/memory.events", Base::PATH), "oom"),
        0
    );
    drop(agent);
    cgmgr(&["--cgroup-root", "/base", "down"]).expect(0);
    drop(base);
    drop(lab);
}
