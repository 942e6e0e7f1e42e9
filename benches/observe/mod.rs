//! What it costs to watch sessions: to read their counters, to be told of an OOM kill, and to wait for one.

mod groups;
mod idle;
mod kills;
mod once;
mod sampling;

pub use idle::Daemon;
pub use kills::hog;
pub use once::once;

/// Measures all three.
pub fn bench(rounds: usize) -> Result<(), String> {
    crate::machine::make_ready()?;
    sampling::bench(rounds)?;
    of_daemon()
}

/// How soon a kill is told, and what waiting costs.
pub fn daemon() -> Result<(), String> {
    crate::machine::make_ready()?;
    of_daemon()
}

fn of_daemon() -> Result<(), String> {
    if !crate::machine::has_command("daemon") || !crate::machine::has_command("events") {
        println!("\nNOT MEASURED: how soon a kill is told, and what waiting costs: this cgmgr has no daemon");
        return Ok(());
    }
    kills::bench()?;
    idle::bench()
}
