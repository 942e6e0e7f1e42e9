//! A Compose file: the limits of one service, top-level keys and those below `deploy.resources`.
//!
//! Source: the Compose specification. Sizes are docker's: `k`, `m`, `g` with or without `b`, all of them binary.

use super::Refused;
use super::draft::Draft;
use super::oci::set_quota;
use super::yaml::{Node, parse};
use crate::limits::{KnobId, PERIOD_US, Size};
use crate::translate::weights;

/// What a key that is about limits begins with.
const ABOUT_LIMITS: [&str; 7] = ["mem", "cpu", "blkio", "oom", "pids", "ulimits", "extends"];

/// Reads the limits of one service.
pub(super) fn read(text: &str, service: Option<&str>, draft: &mut Draft) -> Result<(), Refused> {
    let refuse = |message: String, help: &str| Refused::Because(message, help.to_owned());
    let file = parse(text).map_err(|why| refuse(format!("not YAML: {why}"), "is it a Compose file?"))?;
    let services = file.get("services").map(Node::entries).unwrap_or_default();
    let names: Vec<&str> = services.iter().map(|(name, _)| name.as_str()).collect();
    let found = match (service, services) {
        (_, []) => return Err(refuse("it has no services".to_owned(), "name a Compose file")),
        (None, [one]) => Some(one),
        (None, _) => {
            let message = format!("it has {} services", names.len());
            return Err(refuse(
                message,
                &format!("name one with --service: {}", names.join(", ")),
            ));
        }
        (Some(name), services) => services.iter().find(|(known, _)| known == name),
    };
    let Some((name, service)) = found else {
        let message = format!("it has no service {}", service.unwrap_or_default());
        return Err(refuse(message, &format!("it has {}", names.join(", "))));
    };
    draft.name(name);
    Service { name, node: service }.read(draft);
    Ok(())
}

struct Service<'a> {
    name: &'a str,
    node: &'a Node,
}

impl Service<'_> {
    fn read(&self, draft: &mut Draft) {
        // A key of its own goes before one below deploy, which is read first.
        for (group, limits) in self
            .node
            .get("deploy")
            .and_then(|deploy| deploy.get("resources"))
            .map(Node::entries)
            .unwrap_or_default()
        {
            for (key, value) in limits.entries() {
                let path = format!("deploy.resources.{group}.{key}");
                let name = match (group.as_str(), key.as_str()) {
                    ("limits", "memory") => "mem_limit",
                    ("limits", "cpus") => "cpus",
                    ("limits", "pids") => "pids_limit",
                    ("reservations", "memory") => "mem_reservation",
                    _ => "",
                };
                self.key(&path, name, value, draft);
            }
        }
        for (key, value) in self.node.entries() {
            if ABOUT_LIMITS.iter().any(|prefix| key.starts_with(prefix)) {
                self.key(key, key, value, draft);
            }
        }
        let memory = self.memory();
        if let (Some(memory), false) = (memory, draft.has(KnobId::MemorySwapMax)) {
            draft.set_bytes(
                KnobId::MemorySwapMax,
                memory,
                "docker allows as much swap as memory unless memswap_limit says another",
            );
        }
    }

    /// The limit on memory, wherever it is.
    fn memory(&self) -> Option<u64> {
        let deployed = || {
            let limits = self.node.get("deploy")?.get("resources")?.get("limits")?;
            limits.get("memory")
        };
        size(self.node.get("mem_limit").or_else(deployed)?.text()?).ok()
    }

    /// Takes a key over, or says why not. `name` is what it is called as a top-level one; empty: nothing like it.
    fn key(&self, path: &str, name: &str, value: &Node, draft: &mut Draft) {
        let text = value.text().unwrap_or_default();
        let from = match value {
            Node::Scalar(_) => format!("services.{}.{path} = {text}", self.name),
            _ => format!("services.{}.{path}", self.name),
        };
        if text.contains('$') {
            return draft.leave(&from, "it has a variable in it: write down what that is");
        }
        let whole = text.parse::<i64>().ok();
        match (name, whole) {
            ("mem_limit" | "mem_reservation", _) => {
                let (id, from) = match name {
                    "mem_limit" => (KnobId::MemoryMax, from),
                    _ => (
                        KnobId::MemoryHigh,
                        format!("{from}, which on cgroup v2 only protects so much"),
                    ),
                };
                match size(text) {
                    Ok(0) => draft.set(id, "max", &from),
                    Ok(bytes) => draft.set_bytes(id, bytes, &from),
                    Err(why) => draft.leave(&from, &why),
                }
            }
            ("memswap_limit", Some(-1)) => draft.set(KnobId::MemorySwapMax, "max", &from),
            ("memswap_limit", _) => match (size(text), self.memory()) {
                (Ok(0), _) => {}
                (Ok(total), Some(memory)) if total >= memory => {
                    draft.set_bytes(
                        KnobId::MemorySwapMax,
                        total - memory,
                        &format!("{from}, memory included"),
                    );
                }
                (Ok(_), _) => draft.leave(
                    &from,
                    "it is memory and swap together, and says nothing without mem_limit",
                ),
                (Err(why), _) => draft.leave(&from, &why),
            },
            ("cpus", _) if text.trim_matches(['0', '.']).is_empty() => {}
            ("cpus", _) => draft.set(KnobId::Cpus, text, &from),
            ("cpu_quota", Some(quota)) if quota > 0 => {
                let period = self.node.get("cpu_period").and_then(Node::text);
                let period = period.and_then(|period| period.parse().ok()).unwrap_or(PERIOD_US);
                set_quota(quota as u64, period, &from, draft);
            }
            ("cpu_quota" | "cpu_period", Some(_)) => {}
            ("cpu_shares", Some(0)) => {}
            ("cpu_shares", Some(shares)) if shares > 0 => {
                let weight = weights::weight_of(shares as u64).to_string();
                draft.set(
                    KnobId::CpuWeight,
                    &weight,
                    &format!("{from}, as runc 1.3.2 and crun 1.23 have it"),
                );
            }
            ("pids_limit", Some(-1 | 0)) => draft.set(KnobId::Pids, "max", &from),
            ("pids_limit", _) => draft.set(KnobId::Pids, text, &from),
            // With a sign it is as in docker: absolute.
            ("oom_score_adj", Some(score)) => draft.set(KnobId::OomScoreAdj, &score.to_string(), &from),
            ("blkio_config", _) => {
                for (key, value) in value.entries() {
                    let from = format!("{from}.{key} = {}", value.text().unwrap_or("…"));
                    match value.text().and_then(|text| text.parse().ok()) {
                        Some(weight) if key == "weight" => {
                            let weight = weights::io_of(weight).to_string();
                            draft.set(KnobId::IoWeight, &weight, &format!("{from}, as runc has it"));
                        }
                        _ => draft.leave(&from, "a role has no such limit"),
                    }
                }
            }
            ("ulimits", _) => {
                for (key, value) in value.entries() {
                    ulimit(key, value, &format!("{from}.{key}"), draft);
                }
            }
            ("extends", _) => draft.leave(
                &from,
                "it is another service that is extended: `docker compose config` puts them together",
            ),
            _ => draft.leave(&from, "a role has no such limit"),
        }
    }
}

/// One number, or a soft and a hard one.
fn ulimit(key: &str, value: &Node, from: &str, draft: &mut Draft) {
    let of = |name: &str| value.get(name).and_then(Node::text);
    let (soft, hard) = (value.text().or(of("soft")), value.text().or(of("hard")));
    match (soft, hard) {
        (Some(soft), Some(hard)) if key == "nofile" && soft == hard => {
            draft.set(KnobId::Nofile, soft, &format!("{from} = {soft}"));
        }
        _ if key == "nofile" => draft.leave(from, "a role has one number for the soft and the hard limit"),
        _ => draft.leave(from, "a role has no such limit"),
    }
}

/// Bytes of docker's sizes: those of a role with other names.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let short = lower
        .strip_suffix("ib")
        .or(lower.strip_suffix('b'))
        .unwrap_or(&lower);
    match short.parse() {
        Ok(Size::Bytes(bytes)) => Ok(bytes.0),
        Ok(_) => Err("it is no amount of memory".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
