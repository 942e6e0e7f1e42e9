//! An agent: protects itself, then gives each client of its socket a shell in a session of its own, and tells him why that
//! was killed.
//!
//! As root: `embed_agent SOCKET ROLE`; a client is `nc -NU SOCKET`. Without rights it says what it cannot do, and does
//! the rest. `agent.py` beside it is the same without the library.

use std::error::Error;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use std::{env, fs, thread};

use cgmgr::workspace::{Command, Role, Workspace};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [socket, role] = words.as_slice() else {
        return Err("usage: embed_agent SOCKET ROLE".into());
    };
    let workspace = Workspace::open()?;
    let role = workspace.role_file(Path::new(role))?;
    // Before anything else: memory that is taken from here on is the agent's own.
    match workspace.protect(&role) {
        Ok(done) => {
            let group = done.group.map(|group| group.to_string());
            println!("protected in {}", group.as_deref().unwrap_or("no group"));
            done.notes.iter().for_each(|note| eprintln!("note: {note}"));
        }
        Err(error) => eprintln!("not protected: {error}"),
    }

    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    println!("listening on {socket}");
    for client in listener.incoming() {
        let (workspace, role) = (workspace.clone(), role.clone());
        // A thread for each, and nothing of one client's is another's: neither limits nor children.
        let begun = client.and_then(|client| {
            thread::Builder::new().spawn(move || {
                if let Err(error) = serve(&workspace, &role, &client) {
                    // Whoever has hung up does not hear it.
                    let _ = writeln!(&client, "{error}");
                }
            })
        });
        if let Err(error) = begun {
            // Too many at once end nothing, least of all the agent.
            eprintln!("a client had to go: {error}");
            thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// A shell for one client, from its first word to its end.
fn serve(workspace: &Workspace, role: &Role, mut client: &UnixStream) -> Result<(), Box<dyn Error>> {
    let end = || client.try_clone().map(OwnedFd::from);
    // The connection is the shell's own standard streams: nothing goes through the agent.
    let shell = Command::new("sh").stdin(end()?).stdout(end()?).stderr(end()?);
    // What the shell leaves running ends with it.
    let mut session = workspace.session(role).kill_leftover(true).spawn(shell)?;
    for note in session.notes() {
        writeln!(client, "{note}")?;
    }
    // An OOM kill that the shell outlives is told at once; the verdict on the session comes with its end.
    let ended = session.wait_telling(&mut |told| {
        let _ = writeln!(client, "{told}");
    });
    let told = match ended.story.is_empty() {
        true => format!("{} {ended}", session.name()),
        false => ended.to_string(),
    };
    writeln!(client, "{told}")?;
    Ok(())
}
