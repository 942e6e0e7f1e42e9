//! The two agents of examples/, driven as README shows them: by two clients at once, of whom one takes too much.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::cgmgr::{finish, until};
use crate::lab::{Lab, must, read, session_groups};
use crate::systemd::readme::{blocks, without_numbers};

const SOCKET: &str = "/run/agent.sock";

/// An agent that runs. It goes with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(SOCKET);
    }
}

fn drive(program: &str) {
    let lab = Lab::new();
    let examples = must("CGMGR_EXAMPLES");
    let folder = Path::new(&examples).parent().expect("a directory");
    let shown = blocks::blocks(&read(&folder.join("README.md").to_string_lossy()), "agents");
    let [ready, start, client] = shown.as_slice() else {
        panic!("README makes the machine ready, starts an agent and is its client: {shown:#?}")
    };
    let begin = start.command.strip_suffix(" &").expect("an agent stays");
    let begin = begin.replace("examples/agent.py", program);
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        let bin = must("CGMGR_BIN");
        let bin = Path::new(&bin)
            .parent()
            .expect("a directory")
            .display()
            .to_string();
        command
            .args(["-c", script])
            .current_dir(folder)
            .stdin(Stdio::null());
        command.env("PATH", format!("{bin}:{}", std::env::var("PATH").expect("PATH")));
        command
    };
    finish(&mut shell(&ready.command)).expect(0);
    let mut agent = shell(&format!("exec {begin}"));
    let mut agent = Agent(agent.stdout(Stdio::piped()).spawn().expect("an agent"));
    let mut said = BufReader::new(agent.0.stdout.take().expect("a pipe"))
        .lines()
        .map_while(Result::ok);
    assert!(
        said.any(|line| line == format!("listening on {SOCKET}")),
        "{program}"
    );
    let place = format!("/proc/{}/cgroup", agent.0.id());
    assert!(read(&place).starts_with("0::/agent.slice"), "{}", read(&place));

    let mut one = UnixStream::connect(SOCKET).expect("an agent");
    let mut heard = BufReader::new(one.try_clone().expect("a descriptor"));
    let mut hear = || {
        let mut line = String::new();
        heard.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    };
    writeln!(
        one,
        "echo $CGMGR_SESSION; cat /proc/self/cgroup /proc/self/oom_score_adj"
    )
    .expect("sent");
    let session = hear();
    let group = hear();
    assert!(
        group.starts_with("0::/workloads.slice/") && group.ends_with(&format!("/cgmgr-{session}")),
        "{group}"
    );
    assert_eq!(
        hear(),
        "0",
        "a child of a protected agent's is an ordinary process"
    );

    let asked = client.command.replace("sudo ", "");
    let other = finish(&mut shell(&asked)).expect(0);
    assert_eq!(
        without_numbers(&other.out),
        without_numbers(&client.output),
        "$ {}\nprinted:\n{}\nREADME shows:\n{}",
        client.command,
        other.out,
        client.output
    );
    assert!(!other.out.contains(&session), "it was another's: {other:#?}");

    // What happened to the other one has left this one alone.
    writeln!(one, "sleep 1000 & echo here; exit 7").expect("sent");
    assert_eq!(hear(), "here");
    assert_eq!(hear(), format!("{session} ended with exit status 7"));
    let mut rest = String::new();
    heard.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "");
    until("what it left running is gone", || session_groups().is_empty());
    drop(agent);
    drop(lab);
}

#[test]
fn the_one_of_the_command_line_does_what_readme_shows() {
    drive("examples/agent.py");
}

#[test]
fn the_one_of_the_library_does_the_same() {
    drive(&must("CGMGR_EMBED_AGENT"));
}
