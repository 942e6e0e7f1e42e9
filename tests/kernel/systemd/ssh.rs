//! `install --protect ssh.service`: whoever has the key comes in while the workloads are at their ceiling.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::install::property;
use crate::cgmgr::{Done, PATIENCE, cgmgr, finish, payload};
use crate::lab::{Lab, MOUNT, counter, path_of, procs, read, workloads};

const UNIT: &str = "ssh.service";
const KEYS: &str = "/root/.ssh/authorized_keys";
const ROLE: &str = "[agent]\nmemory_min = \"64 MiB\"\ncpu_weight = 1000\noom_score_adj = -900\n\
                    [workloads]\nmemory_max = \"25%\"\npids = 300\n";

/// One hog after the other, whenever the fork bomb leaves it a place: a shell would give up.
const HOGS: &str = "import subprocess, sys, time\n\
                    while True:\n \
                    try: subprocess.run([sys.argv[1], 'hog', '1200'], stdout=subprocess.DEVNULL)\n \
                    except OSError: time.sleep(0.1)\n";

fn systemctl(words: &[&str]) -> Done {
    finish(Command::new("systemctl").args(words))
}

/// sshd, and a key that lets root in. Both go with the test.
struct Door {
    key: String,
}

impl Door {
    fn open(lab: &Lab) -> Door {
        let key = lab.path("key");
        finish(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key])).expect(0);
        assert!(!Path::new(KEYS).exists(), "somebody may come in already");
        fs::create_dir_all("/root/.ssh").expect("a folder");
        fs::write(KEYS, read(&format!("{key}.pub"))).expect("a file");
        systemctl(&["start", UNIT]).expect(0);
        Door { key }
    }

    /// Logs in and runs a command there.
    fn enter(&self, script: &str) -> Done {
        let mut ssh = Command::new("ssh");
        ssh.args(["-i", &self.key, "-F", "none"]);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            // However slow the machine is: what counts is that it answers.
            "ConnectTimeout=500",
        ] {
            ssh.args(["-o", option]);
        }
        finish(ssh.args(["root@127.0.0.1", script]))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(KEYS);
        for unit in [UNIT, "user@0.service", "user-runtime-dir@0.service"] {
            let _ = systemctl(&["stop", unit]);
        }
    }
}

/// The listening sshd, and its score.
fn sshd() -> (String, String) {
    let pid = property(UNIT, "MainPID");
    let score = read(&format!("/proc/{pid}/oom_score_adj"));
    (pid, score)
}

/// As `until`, for a machine that has more to do than it can.
#[track_caller]
fn at_last(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < 8 * PATIENCE, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_login_succeeds_while_the_workloads_are_at_their_ceiling() {
    cgmgr(&["down", "--kill"]);
    cgmgr(&["uninstall"]).expect(0);
    let lab = Lab::bare();
    let door = Door::open(&lab);
    let look = "cat /proc/self/oom_score_adj; cut -d: -f3 /proc/self/cgroup";
    let before = door.enter(look).expect(0).out;

    let role = lab.file("door.role.toml", ROLE);
    let done = cgmgr(&["install", "--role", &role, "--protect", UNIT, "--json"]).expect(0);
    assert_eq!(
        done.json()["restart_later"],
        serde_json::json!(["systemctl restart ssh.service"])
    );
    systemctl(&["restart", UNIT]).expect(0);
    assert_eq!(property(UNIT, "ControlGroup"), "/agent.slice/ssh.service");
    // It sets this itself while it listens, and gives back to each login what it had itself: an ordinary score.
    let (pid, score) = sshd();
    assert_eq!(score, "-1000");
    let same = |text: &str| text.lines().next().map(str::to_owned);
    assert_eq!(same(&door.enter(look).expect(0).out), same(&before));

    let payload = payload();
    let start = |name: &str, words: &[&str]| {
        cgmgr(&[&["run", "--detach", "--name", name, "--"], words].concat()).expect(0);
    };
    let kills = || counter(&format!("{}/memory.events", workloads()), "oom_kill");
    // Before Linux 6.11 a refused fork counts where it was tried and not where the limit is.
    let of = |group: &str| counter(&format!("{group}/pids.events"), "max");
    let refused = || of(&workloads()) + of(&path_of("bomb"));
    // Each wants more than all may have, and less than the machine has, which it would be refused at once.
    for name in ["hog-1", "hog-2", "hog-3"] {
        start(name, &["python3", "-c", HOGS, &payload]);
    }
    start("burn", &[&payload, "burn", "16", "100000"]);
    at_last("memory is at its ceiling", || kills() > 0);
    start("bomb", &[&payload, "bomb"]);
    at_last("tasks are at their ceiling", || refused() > 0);

    for _ in 0..2 {
        let at = (kills(), refused());
        let done = door.enter(look).expect(0);
        // The shell itself is the user's, with all else that he has: not protected, and no agent.
        let lines: Vec<&str> = done.out.lines().collect();
        assert_eq!(lines[0], "0", "{done:#?}");
        assert!(
            lines[1].starts_with("/user.slice/user-0.slice/session-"),
            "{done:#?}"
        );
        assert_eq!(done.out.lines().count(), 2, "{done:#?}");
        at_last("the attack goes on", || kills() > at.0 && refused() > at.1);
    }
    assert_eq!(sshd(), (pid.clone(), score.clone()));
    assert!(procs(&format!("{MOUNT}/agent.slice/{UNIT}")).contains(&pid.parse().expect("a pid")));

    // Whoever came in can end it.
    let ended = door
        .enter("cgmgr kill bomb && cgmgr kill burn && cgmgr kill hog-1 hog-2 hog-3")
        .expect(0);
    assert!(ended.out.contains("bomb ended"), "{ended:#?}");
    door.enter("true").expect(0);
    assert_eq!(sshd(), (pid, score));
    let events = format!("{MOUNT}/agent.slice/memory.events");
    assert_eq!(
        (counter(&events, "oom_kill"), property(UNIT, "NRestarts").as_str()),
        (0, "0")
    );

    drop(door);
    cgmgr(&["down", "--kill"]).expect(0);
    cgmgr(&["uninstall"]).expect(0);
    drop(lab);
}
