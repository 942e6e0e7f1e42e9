//! Conversions to and from the types of the crate `cgroups-rs`, for programs that use it already (feature `cgroups-rs`,
//! off by default).
//!
//! cgmgr itself does not use that crate, for it would limit it: on cgroup v2 its `Cgroup::new` switches on every
//! controller of the root and of all parents, ignores errors and follows absolute paths out of the hierarchy; its
//! `apply` ignores refused memory limits; it has no `memory.oom.group`, no events of cgroup v2 and no way to start a
//! process in its group (version 0.5.1, `src/fs`). As a reader it is an independent witness: the tests read back with it
//! what cgmgr set.
//!
//! The two mean the same by each field that is converted; what only one of them knows is told, not dropped.
#![deny(clippy::disallowed_methods)]

use crate::limits::{
    Bytes, CpuQuota, GrammarError, Knob, KnobId, Max, Origin, PERIOD_US, Part, Scalar, Settings, Value,
    Weight,
};
use cgroups_rs::fs::{MaxValue, Resources};

/// What became of a conversion beside its result: the fields that the other side has no place for.
pub type Losses = Vec<String>;

/// Settings that a [`Resources`] cannot mean: each field with its reason.
pub type Mistakes = Vec<(String, GrammarError)>;

/// The limits of a session as a [`Resources`] for cgroup v2, and the declared knobs that it has no place for.
///
/// `memory_high`, `io_weight` and `oom_group` become attributes: `memory_soft_limit` is memory.low on cgroup v2, and
/// `blkio.weight` is io.bfq.weight. `cpu_weight` becomes `cpu.shares`, which that crate writes to cpu.weight as it is.
/// A limit of `max` is -1 there.
pub fn to_resources(settings: &Settings) -> (Resources, Losses) {
    let (mut to, mut losses) = (Resources::default(), Losses::new());
    let number = |max: Max<u64>| max.at().map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    for setting in settings.part(Part::Session) {
        let Some(value) = &setting.value else { continue };
        let text = || value.kernel_text(setting.knob);
        let file = setting.knob.file.unwrap_or_default().to_owned();
        match (setting.knob.id, value) {
            (KnobId::MemoryMax, Value::Memory(memory)) => {
                to.memory.memory_hard_limit = Some(number(bytes(*memory)));
            }
            (KnobId::MemorySwapMax, Value::Memory(memory)) => {
                to.memory.memory_swap_limit = Some(number(bytes(*memory)));
            }
            (KnobId::MemoryHigh | KnobId::OomGroup, _) => {
                to.memory.attrs.insert(file, text());
            }
            (KnobId::Cpus, Value::Cpu(quota)) => {
                let quota = match quota {
                    Max::At(quota) => Max::At(quota.quota_us()),
                    Max::Max => Max::Max,
                };
                to.cpu.quota = Some(number(quota));
                to.cpu.period = Some(PERIOD_US);
            }
            (KnobId::CpuWeight, Value::Weight(weight)) => to.cpu.shares = Some(u64::from(weight.get())),
            (KnobId::IoWeight, _) => {
                to.blkio.attrs.insert(file, text());
            }
            (KnobId::Pids, Value::Count(count)) => {
                to.pid.maximum_number_of_processes = Some(match count.at() {
                    Some(n) => MaxValue::Value(i64::try_from(n).unwrap_or(i64::MAX)),
                    None => MaxValue::Max,
                });
            }
            _ => losses.push(format!(
                "{} = {}: a cgroup has no place for it",
                setting.knob.key,
                text()
            )),
        }
    }
    (to, losses)
}

fn bytes(memory: Max<Bytes>) -> Max<u64> {
    match memory {
        Max::At(bytes) => Max::At(bytes.0),
        Max::Max => Max::Max,
    }
}

/// The limits of a session that a [`Resources`] means on cgroup v2, and the fields that no knob stands for.
///
/// # Errors
///
/// Every field that is outside of what cgmgr takes for its knob, with the reason, e.g. a memory limit below 1 MiB.
pub fn from_resources(from: &Resources) -> Result<(Settings, Losses), Mistakes> {
    let mut reader = Reader {
        settings: Settings::none(),
        losses: Losses::new(),
        mistakes: Mistakes::new(),
    };
    reader.memory(from);
    reader.cpu(from);
    reader.others(from);
    if reader.mistakes.is_empty() {
        Ok((reader.settings, reader.losses))
    } else {
        Err(reader.mistakes)
    }
}

struct Reader {
    settings: Settings,
    losses: Losses,
    mistakes: Mistakes,
}

impl Reader {
    fn set(&mut self, id: KnobId, field: &str, value: Result<Value, GrammarError>) {
        let origin = Origin::Derived(format!("{field} of cgroups_rs::fs::Resources"));
        match value {
            Ok(value) => self.settings.set(id, value, origin),
            Err(why) => self.mistakes.push((field.to_owned(), why)),
        }
    }

    fn lose(&mut self, is_there: bool, field: &str, why: &str) {
        if is_there {
            self.losses.push(format!("{field}: {why}"));
        }
    }

    fn limit(&mut self, id: KnobId, field: &str, limit: Option<i64>) {
        let Some(limit) = limit else { return };
        // What that crate writes for -1.
        let value = match limit {
            -1 => parsed(id.knob(), Scalar::Text("max")),
            n => parsed(id.knob(), Scalar::Integer(i128::from(n))),
        };
        self.set(id, field, value);
    }

    fn memory(&mut self, from: &Resources) {
        let memory = &from.memory;
        self.limit(
            KnobId::MemoryMax,
            "memory.memory_hard_limit",
            memory.memory_hard_limit,
        );
        self.limit(
            KnobId::MemorySwapMax,
            "memory.memory_swap_limit",
            memory.memory_swap_limit,
        );
        let v1 = "cgroup v2 has no such limit";
        self.lose(
            memory.kernel_memory_limit.is_some(),
            "memory.kernel_memory_limit",
            v1,
        );
        self.lose(
            memory.kernel_tcp_memory_limit.is_some(),
            "memory.kernel_tcp_memory_limit",
            v1,
        );
        self.lose(
            memory.swappiness.is_some(),
            "memory.swappiness",
            "cgroup v2 has no such setting",
        );
        self.lose(
            memory.memory_soft_limit.is_some(),
            "memory.memory_soft_limit",
            "it is memory.low on cgroup v2, which protects and does not limit; sessions have memory_high",
        );
        self.attributes("memory", &memory.attrs);
    }

    fn cpu(&mut self, from: &Resources) {
        let cpu = &from.cpu;
        if let Some(quota) = cpu.quota {
            let period = cpu.period.unwrap_or(PERIOD_US);
            let value = match quota {
                // Anything else is written as `max` by that crate.
                ..=0 => Ok(Value::Cpu(Max::Max)),
                quota => quota_of(quota.unsigned_abs(), period).map(|q| Value::Cpu(Max::At(q))),
            };
            if quota > 0
                && (u128::from(quota.unsigned_abs()) * u128::from(PERIOD_US)) % u128::from(period.max(1)) != 0
            {
                self.losses
                    .push(format!("cpu.period: rounded down to a quota per {PERIOD_US} µs"));
            }
            self.set(KnobId::Cpus, "cpu.quota", value);
        }
        if let Some(shares) = cpu.shares {
            let weight = Weight::new(i128::from(shares)).map(Value::Weight);
            self.set(KnobId::CpuWeight, "cpu.shares", weight);
        }
        let cpuset = "no knob places a session on CPUs or memory nodes";
        self.lose(cpu.cpus.is_some(), "cpu.cpus", cpuset);
        self.lose(cpu.mems.is_some(), "cpu.mems", cpuset);
        let realtime = "cgroup v2 has no such setting";
        self.lose(cpu.realtime_runtime.is_some(), "cpu.realtime_runtime", realtime);
        self.lose(cpu.realtime_period.is_some(), "cpu.realtime_period", realtime);
        self.attributes("cpu", &cpu.attrs);
    }

    fn others(&mut self, from: &Resources) {
        if let Some(most) = &from.pid.maximum_number_of_processes {
            let value = match most {
                MaxValue::Max => parsed(KnobId::Pids.knob(), Scalar::Text("max")),
                MaxValue::Value(n) => parsed(KnobId::Pids.knob(), Scalar::Integer(i128::from(*n))),
            };
            self.set(KnobId::Pids, "pid.maximum_number_of_processes", value);
        }
        let io = &from.blkio;
        self.lose(
            io.weight.is_some(),
            "blkio.weight",
            "it is io.bfq.weight on cgroup v2, which is not io.weight",
        );
        self.lose(
            io.leaf_weight.is_some(),
            "blkio.leaf_weight",
            "cgroup v2 has no such weight",
        );
        let devices = "no knob is about one device";
        self.lose(!io.weight_device.is_empty(), "blkio.weight_device", devices);
        for (field, list) in [
            ("blkio.throttle_read_bps_device", &io.throttle_read_bps_device),
            ("blkio.throttle_read_iops_device", &io.throttle_read_iops_device),
            ("blkio.throttle_write_bps_device", &io.throttle_write_bps_device),
            ("blkio.throttle_write_iops_device", &io.throttle_write_iops_device),
        ] {
            self.lose(!list.is_empty(), field, devices);
        }
        self.attributes("blkio", &io.attrs);
        self.lose(!from.devices.devices.is_empty(), "devices", devices);
        let network = from.network.class_id.is_some() || !from.network.priorities.is_empty();
        self.lose(network, "network", "cgroup v2 has no such setting");
        self.lose(
            !from.hugepages.limits.is_empty(),
            "hugepages",
            "there is no such knob",
        );
    }

    /// Attributes are control files with their text.
    fn attributes(&mut self, part: &str, attributes: &std::collections::HashMap<String, String>) {
        let mut attributes: Vec<_> = attributes.iter().collect();
        attributes.sort();
        for (file, text) in attributes {
            let field = format!("{part}.attrs[{file:?}]");
            let knobs = [KnobId::MemoryHigh, KnobId::OomGroup, KnobId::IoWeight];
            let Some(knob) = knobs.map(KnobId::knob).into_iter().find(|k| k.file == Some(file)) else {
                self.lose(true, &field, "there is no knob for it");
                continue;
            };
            let text = text.trim();
            let value = match (knob.id, text) {
                (KnobId::OomGroup, "0" | "1") => Ok(Value::Switch(text == "1")),
                (KnobId::IoWeight, text) => {
                    parsed(knob, Scalar::Text(text.strip_prefix("default ").unwrap_or(text)))
                }
                _ => parsed(knob, Scalar::Text(text)),
            };
            self.set(knob.id, &field, value);
        }
    }
}

fn quota_of(quota: u64, period: u64) -> Result<CpuQuota, GrammarError> {
    let scaled = u128::from(quota) * u128::from(PERIOD_US) / u128::from(period.max(1));
    CpuQuota::from_us(u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// A value that is relative to nothing, so that no machine is needed to know it.
fn parsed(knob: &Knob, scalar: Scalar<'_>) -> Result<Value, GrammarError> {
    let nowhere = crate::host::Machine {
        mem_total: u64::MAX,
        swap_total: 0,
        page_size: 4096,
        cpus: 1,
        tasks: crate::host::Tasks::Known(u64::MAX),
    };
    knob.value(knob.declare(scalar)?, &nowhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(lines: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::none();
        for (key, text) in lines {
            let knob = KnobId::from_key(key).expect(key).knob();
            let value = parsed(knob, Scalar::Text(text)).expect(text);
            settings.set(knob.id, value, Origin::Default);
        }
        settings
    }

    fn values(settings: &Settings) -> Vec<Option<Value>> {
        settings.iter().map(|s| s.value).collect()
    }

    #[test]
    fn what_is_converted_there_and_back_is_the_same() {
        for lines in [
            &[
                ("memory_high", "96 MiB"),
                ("memory_max", "128 MiB"),
                ("memory_swap_max", "0"),
                ("cpus", "1.2345"),
                ("cpu_weight", "300"),
                ("io_weight", "50"),
                ("pids", "64"),
                ("oom_group", "true"),
            ][..],
            &[
                ("memory_high", "max"),
                ("memory_max", "max"),
                ("memory_swap_max", "max"),
                ("cpus", "max"),
                ("pids", "max"),
                ("oom_group", "false"),
            ],
            &[("memory_max", "8191 PiB"), ("cpus", "0.01"), ("cpu_weight", "1")],
            &[],
        ] {
            let settings = declared(lines);
            let (resources, losses) = to_resources(&settings);
            assert_eq!(losses, [""; 0]);
            let (back, losses) = from_resources(&resources).expect("our own values");
            assert_eq!(
                (values(&back), losses),
                (values(&settings), Losses::new()),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn what_only_a_process_has_is_told() {
        let (resources, losses) = to_resources(&declared(&[("nofile", "512"), ("nice", "+5")]));
        assert_eq!(resources, Resources::default());
        assert_eq!(losses.len(), 2);
        assert!(losses[0].starts_with("nofile = 512"), "{losses:?}");
    }

    #[test]
    fn what_no_knob_stands_for_is_told() {
        let mut resources = Resources::default();
        resources.memory.memory_soft_limit = Some(1 << 30);
        resources.memory.kernel_memory_limit = Some(1 << 30);
        resources.blkio.weight = Some(100);
        resources.cpu.cpus = Some("0-1".into());
        resources.cpu.attrs.insert("cpu.idle".into(), "1".into());
        resources.cpu.quota = Some(50_001);
        resources.cpu.period = Some(99_999);
        let (settings, losses) = from_resources(&resources).expect("nothing wrong");
        let cpus = settings.value(KnobId::Cpus).expect("a quota");
        assert_eq!(cpus.kernel_text(KnobId::Cpus.knob()), "50001 100000");
        for field in [
            "memory.memory_soft_limit",
            "memory.kernel_memory_limit",
            "blkio.weight",
            "cpu.cpus",
            "cpu.attrs[\"cpu.idle\"]",
            "cpu.period",
        ] {
            assert!(
                losses.iter().any(|l| l.starts_with(field)),
                "{field} in {losses:?}"
            );
        }
        assert_eq!(losses.len(), 6);
    }

    #[test]
    fn every_value_out_of_range_is_told_with_its_field() {
        let mut resources = Resources::default();
        resources.memory.memory_hard_limit = Some(4095);
        resources.memory.memory_swap_limit = Some(-2);
        resources.cpu.shares = Some(1024 * 1024);
        resources.cpu.quota = Some(10);
        resources.pid.maximum_number_of_processes = Some(MaxValue::Value(0));
        resources.memory.attrs.insert("memory.high".into(), "1 XB".into());
        let mistakes = from_resources(&resources).expect_err("six mistakes");
        let fields: Vec<&str> = mistakes.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "memory.memory_hard_limit",
                "memory.memory_swap_limit",
                "memory.attrs[\"memory.high\"]",
                "cpu.quota",
                "cpu.shares",
                "pid.maximum_number_of_processes",
            ]
        );
    }
}
