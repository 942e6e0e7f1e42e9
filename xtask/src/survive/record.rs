//! One run, as it is kept in a file of JSON lines, and what is asked of it.

use serde_json::{Value, json};

/// A run: what was done, and what came of it.
#[derive(Clone, Debug)]
pub struct Record(Value);

impl Record {
    /// Of a run that ended with a result, or (`None`) with a hang.
    pub fn new(way: &str, attack: &str, swap: &str, number: u32, result: Option<Value>) -> Record {
        Record(json!({ "way": way, "attack": attack, "swap": swap, "run": number, "result": result }))
    }

    /// Adds what is good to know of a run and not asked here.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Record {
        self.0[key] = value.into();
        self
    }

    /// Reads a line.
    pub fn parse(line: &str) -> serde_json::Result<Record> {
        serde_json::from_str(line).map(Record)
    }

    /// As a line.
    pub fn line(&self) -> String {
        self.0.to_string()
    }

    /// Whether this is run `number` of the cell.
    pub fn is(&self, way: &str, attack: &str, swap: &str, number: u32) -> bool {
        self.is_of(way, attack, swap) && self.0["run"] == number
    }

    /// Whether it is of the cell.
    pub fn is_of(&self, way: &str, attack: &str, swap: &str) -> bool {
        self.0["way"] == way && self.0["attack"] == attack && self.0["swap"] == swap
    }

    /// On which machine, and with which numbers.
    pub fn conditions(&self) -> &str {
        self.0["conditions"].as_str().unwrap_or_default()
    }

    fn number(&self, pointer: &str) -> Option<f64> {
        self.0.pointer(pointer)?.as_f64()
    }

    /// Whether the machine fell silent.
    pub fn hung(&self) -> bool {
        self.0["result"].is_null()
    }

    /// When the agent died, in milliseconds from the attack's begin.
    pub fn died(&self) -> Option<f64> {
        self.number("/result/agent_died_ms")
    }

    /// The names of those that were killed and had not attacked; a bystander that ended otherwise is among them.
    pub fn outside(&self) -> Vec<String> {
        let list = self.0.pointer("/result/killed_outside").and_then(Value::as_array);
        let mut names: Vec<String> = list
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        let bystander_lives = self.0.pointer("/result/bystander_alive").and_then(Value::as_bool);
        if bystander_lives == Some(false) && !names.iter().any(|name| name == "bystander") {
            names.push("bystander".into());
        }
        names
    }

    /// A quantile of the gaps under attack over the same of the idle machine; without end for a hang.
    pub fn ratio(&self, quantile: &str) -> f64 {
        let under = self.number(&format!("/result/under/{quantile}_ms"));
        let idle = self.number(&format!("/result/idle/{quantile}_ms"));
        match (under, idle) {
            (Some(under), Some(idle)) if self.died().is_none() => under / idle,
            _ => f64::INFINITY,
        }
    }

    /// The longest gap, in milliseconds.
    pub fn longest(&self) -> f64 {
        match self.number("/result/under/longest_ms") {
            Some(longest) if self.died().is_none() => longest,
            _ => f64::INFINITY,
        }
    }

    /// Seconds from the attack's end until both a new program and the agent answered; without end where one did not.
    pub fn answered(&self) -> f64 {
        let program = self.number("/result/program_answers_ms");
        let agent = self.number("/result/agent_answers_ms");
        match (program, agent) {
            (Some(program), Some(agent)) => program.max(agent) / 1000.0,
            _ => f64::INFINITY,
        }
    }
}
