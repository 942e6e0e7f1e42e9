//! QEMU's own protocol (QMP), as far as snapshots need it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The longest that QEMU may take to keep a state or to go back to one.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection to a QEMU that runs.
pub struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// Connects.
    pub fn connect(socket: &Path) -> Result<Monitor> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("cannot speak to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut monitor = Monitor(BufReader::new(stream));
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Keeps the machine's state, disks and all, under this name; what had the name before is forgotten.
    pub fn keep(&mut self, name: &str) -> Result<()> {
        self.human(&format!("savevm {name}"))
    }

    /// Puts the machine back into a state that was kept.
    pub fn go_back(&mut self, name: &str) -> Result<()> {
        self.human(&format!("loadvm {name}"))
    }

    /// A command of the monitor for people: it says nothing where all went well.
    fn human(&mut self, line: &str) -> Result<()> {
        let answer = self.ask("human-monitor-command", &json!({ "command-line": line }))?;
        match answer.as_str().unwrap_or_default().trim() {
            "" => Ok(()),
            complaint => bail!("QEMU: {line}: {complaint}"),
        }
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.0.get_mut(), "{request}").context("QEMU does not listen")?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).context("QEMU does not answer")? == 0 {
                bail!("QEMU ended while it was asked for {command}");
            }
            // In between it greets, and tells of events.
            let mut answer: Value =
                serde_json::from_str(&line).with_context(|| format!("odd answer {line}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU: {command}: {error}");
            }
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }
}
