//! The agent: its heartbeat, the probe beside it, and the process that starts sessions for it.

use super::beats::{Beats, Word};
use super::clock::At;
use super::way::Way;
use super::{DISK, RUN, again, at, attack, call_myself, start};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::time::Duration;

/// From one heartbeat to the next.
const PERIOD: Duration = Duration::from_millis(10);
/// What each takes of the memory.
const MEMORY: usize = 1 << 20;
/// A session that ended is started again, as people do, but not at once.
const BREATH: Duration = Duration::from_millis(100);

fn socket() -> String {
    format!("{RUN}/agent.sock")
}

/// The pipe through which [`launch`] is told what to start.
pub fn orders() -> String {
    format!("{RUN}/orders")
}

/// Every 10 ms: allocates and touches 1 MiB, appends a line to a file on the disk, answers one request.
pub fn beat(way: Way) -> Result<(), String> {
    call_myself("agent");
    let beats = Beats::open()?;
    beats.set(Word::Agent, u64::from(std::process::id()));
    let path = format!("{DISK}/agent.log");
    let mut log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(at(&path))?;
    let _ = std::fs::remove_file(socket());
    let listener = UnixListener::bind(socket()).map_err(at(&socket()))?;
    listener.set_nonblocking(true).map_err(at(&socket()))?;
    let mut probe = None;
    let _launcher = start(&again(&["launcher", way.name()]))?;
    let mut next = At::now();
    loop {
        touch(MEMORY);
        while writeln!(log, "beat {}", next.0).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        while !answer(&listener) {
            // A beat without a request is none, so its sender has to be there.
            keep_alive(&mut probe, &beats);
        }
        beats.beat();
        next = next.after(PERIOD).max(At::now());
        next.wait();
    }
}

/// Takes fresh memory, writes to every page of it, gives it back.
fn touch(bytes: usize) {
    loop {
        if let Some(memory) = attack::Pages::take(bytes) {
            memory.give_back();
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits a while for a request and answers it.
fn answer(listener: &UnixListener) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if !poll(&mut wait, PollTimeout::from(100_u8)).is_ok_and(|ready| ready > 0) {
        return false;
    }
    match listener.accept() {
        Ok((mut stream, _)) => {
            let mut request = [0; 4];
            let asked = stream
                .set_nonblocking(false)
                .and_then(|()| stream.read_exact(&mut request));
            asked.and_then(|()| stream.write_all(b"pong")).is_ok()
        }
        Err(_) => {
            // No descriptor to be had: the request stays in the queue.
            std::thread::sleep(Duration::from_millis(1));
            false
        }
    }
}

/// Starts the probe where it does not run.
fn keep_alive(probe: &mut Option<Child>, beats: &Beats) {
    if probe
        .as_mut()
        .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    {
        return;
    }
    *probe = start(&again(&["probe"])).ok();
    beats.count(Word::Probes);
}

/// Asks, waits for the answer, and asks again: the agent finds a request whenever it looks.
pub fn probe() -> Result<(), String> {
    call_myself("probe");
    loop {
        let asked = UnixStream::connect(socket()).and_then(|mut stream| {
            stream.write_all(b"ping")?;
            stream.read_exact(&mut [0; 4])
        });
        if asked.is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Somebody's session that harms nobody: it must live on.
pub fn stand_by() -> Result<(), String> {
    call_myself("bystander");
    let beats = Beats::open()?;
    let memory = attack::Pages::take(4 << 20).ok_or("no memory for a bystander")?;
    beats.set(Word::Bystander, u64::from(std::process::id()));
    loop {
        std::thread::sleep(Duration::from_millis(200));
        memory.touch();
    }
}

/// Starts sessions for the agent as it is told: `bystander`, or `attack NAME DEADLINE`.
pub fn launch(way: Way) -> Result<(), String> {
    call_myself("launcher");
    let beats = Beats::open()?;
    // Read and write, so that there is no end of the file between two orders.
    let pipe = File::options()
        .read(true)
        .write(true)
        .open(orders())
        .map_err(at(&orders()))?;
    for order in BufReader::new(pipe).lines() {
        let order = order.map_err(at(&orders()))?;
        match *order.split(' ').collect::<Vec<_>>() {
            ["bystander"] => {
                start(&way.session("bystander", &again(&["bystander"])))?;
            }
            ["attack", name, deadline] => besiege(way, name, At::parse(deadline)?, &beats),
            _ => return Err(format!("odd order {order:?}")),
        }
    }
    Ok(())
}

/// Keeps all the sessions of an attack running until its end.
fn besiege(way: Way, name: &str, deadline: At, beats: &Beats) {
    let mut sessions: Vec<(Option<Child>, At)> = (0..attack::sessions(name)).map(|_| (None, At(0))).collect();
    while !deadline.is_past() {
        for (number, (session, not_before)) in sessions.iter_mut().enumerate() {
            if session
                .as_mut()
                .is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
            {
                *session = None;
                *not_before = At::now().after(BREATH);
            }
            if session.is_none() && not_before.is_past() {
                let number = number.to_string();
                let command = again(&["attack", name, &number, &deadline.text()]);
                match start(&way.session(&format!("guilty-{number}"), &command)) {
                    Ok(child) => *session = Some(child),
                    Err(_) => {
                        beats.count(Word::Refused);
                        *not_before = At::now().after(BREATH);
                    }
                }
                beats.count(Word::Sessions);
            }
        }
        At::now().after(Duration::from_millis(20)).min(deadline).wait();
    }
    // They end by themselves.
    for child in sessions.iter_mut().filter_map(|(child, _)| child.as_mut()) {
        let _ = child.wait();
    }
}
