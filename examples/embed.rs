//! A small workspace agent: protects itself, runs three sessions under one role, controls them while they run, and says
//! how each ended. As root: `cargo run --example embed`; without rights it says what it cannot do, and does the rest.

use cgmgr::workspace::{Command, Error, ErrorKind, Session, Stdio, Workspace};
use std::io::Read;

const ROLE: &str = r#"
[runtime.limits]
memory_max = "48 MiB"
pids = 64

[agent]
memory_min = "16 MiB"

[workloads]
memory_max = "80%"
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let workspace = Workspace::open()?;
    println!("backend: {}", workspace.backend().name());
    let role = workspace.role_text("demo", ROLE)?;
    match workspace.protect(&role) {
        Ok(done) => println!(
            "protected in {}",
            done.group
                .map_or("no group".to_owned(), |group| group.to_string())
        ),
        Err(error) => println!("not protected: {error}"),
    }

    // What one session does is no business of the others, nor of this program: each may have a thread of its own.
    let worker = Command::new("sh").args(["-c", "echo hello from $CGMGR_SESSION; exit 3"]);
    let mut worker = workspace
        .session(&role)
        .name("worker")
        .spawn(worker.stdout(Stdio::piped()))?;
    let greedy = Command::new("tail").arg("/dev/zero").stderr(Stdio::null());
    // Without a limit it would eat the machine: then it is not started.
    let greedy = workspace
        .session(&role)
        .name("greedy")
        .require_limits(true)
        .spawn(greedy);
    let mut idle = workspace
        .session(&role)
        .name("idle")
        .spawn(Command::new("sleep").arg("1000"))?;

    let mut said = String::new();
    worker
        .stdout
        .take()
        .ok_or("it is piped")?
        .read_to_string(&mut said)?;
    print!("{said}");
    end(&mut worker);
    match greedy {
        Ok(mut greedy) => std::thread::scope(|scope| {
            scope.spawn(|| end(&mut greedy));
        }),
        Err(error) if error.kind == ErrorKind::Unenforceable => println!("greedy: {error}"),
        Err(error) => return Err(error.into()),
    }

    if let Err(error) = control(&workspace, idle.name()) {
        println!("idle: {error}");
    }
    let killed = workspace.kill(idle.name())?;
    println!("idle: {} killed", killed.killed);
    end(&mut idle);
    println!("{} sessions are left", workspace.list()?.len());
    Ok(())
}

/// What can be done to a session while it runs.
fn control(workspace: &Workspace, name: &str) -> Result<(), Error> {
    let changed = workspace.set(name, &[("memory_max", "32 MiB"), ("pids", "default")])?;
    for entry in &changed.receipt.entries {
        println!(
            "{name}: {} = {}: {}",
            entry.knob.knob().key,
            entry.requested,
            entry.outcome
        );
    }
    workspace.freeze(name)?;
    for session in workspace.list()?.iter().filter(|session| session.name == name) {
        println!("{name} is {}", session.state.name());
    }
    workspace.thaw(name)?;
    Ok(())
}

fn end(session: &mut Session) {
    let ended = session.wait();
    println!("{} {ended}", session.name());
}
