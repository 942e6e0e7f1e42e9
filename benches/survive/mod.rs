//! The survival benchmark, inside the guest: an agent with a heartbeat, attacks on the machine that it runs on, and one who
//! looks on. `cargo xtask bench survive` boots the machine and says what is to be done ([`control`]).

mod agent;
mod attack;
mod beats;
mod clock;
mod control;
mod kernel_log;
mod way;

use std::fs::File;
use std::process::{Child, Command, Stdio};

/// Where everything of a run is, in memory: a machine without memory can still write there what it wrote before.
const RUN: &str = "/run/survive";
/// Where the agent's log and the files of the attacks are, on the disk.
const DISK: &str = "/var/lib/survive";

/// Does what one of this program's processes has to do.
pub fn act(words: &[&str]) -> Result<(), String> {
    match words {
        ["serve"] => control::serve(),
        ["agent", way] => agent::beat(way.parse()?),
        ["probe"] => agent::probe(),
        ["launcher", way] => agent::launch(way.parse()?),
        ["as-coder-does", command @ ..] => way::as_coder_does(command),
        ["attack", name, session, deadline] => {
            attack::run(name, crate::number(session), clock::At::parse(deadline)?)
        }
        ["bystander"] => agent::stand_by(),
        _ => Err(format!("unknown words for the survival benchmark: {words:?}")),
    }
}

/// A command that runs this program again.
fn again(words: &[&str]) -> Vec<String> {
    ["/lab/bench", "survive"]
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect()
}

/// Starts a command whose complaints go where the run's result is told.
fn start(words: &[String]) -> Result<Child, String> {
    let path = format!("{RUN}/complaints");
    let complaints = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(at(&path))?;
    Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints)
        .spawn()
        .map_err(at(&words[0]))
}

/// The name that the kernel's log will have for this process, at most 15 letters.
fn call_myself(name: &str) {
    // A name that is too long is cut, and the worst of a wrong one is a wrong word in the table's notes.
    let _ = std::fs::write("/proc/self/comm", name);
}

/// What went wrong, with the place.
fn at<E: std::fmt::Display>(place: &str) -> impl FnOnce(E) -> String + '_ {
    move |error| format!("{place}: {error}")
}
