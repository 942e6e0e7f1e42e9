//! The text of a flag for every knob: what is read is printed as something that is read as the same.
#![no_main]

use cgmgr::host::{Machine, Tasks};
use cgmgr::limits::{
    CoderEnv, CpuQuota, Declared, KNOBS, Kind, KnobId, MEMORY_FLOOR, Max, Nice, Priorities, Scalar, Size,
    Value,
};
use libfuzzer_sys::fuzz_target;

const MACHINE: Machine = Machine {
    mem_total: u64::MAX,
    swap_total: 0,
    page_size: 4096,
    cpus: 4,
    tasks: Tasks::Known(4_194_304),
};

fuzz_target!(|text: &str| {
    alone(text);
    variables(text);
    for knob in KNOBS {
        // As TOML's reader hands over what has a point in it: the same, or a mistake.
        if let (Ok(float), Ok(value)) = (
            knob.declare(Scalar::Float(text)),
            knob.declare(Scalar::Text(text)),
        ) {
            assert_eq!(float, value, "{}: {text:?}", knob.key);
        }
        let value = match knob.parse(text, &MACHINE) {
            Ok(value) => value,
            Err(error) => {
                let said = format!("{} {}", error.message(), error.help());
                assert!(!said.contains(char::is_control), "{said:?}");
                continue;
            }
        };
        let again = match value {
            Value::Cpu(quota) => quota.to_string(),
            Value::Weight(_) | Value::Switch(_) => value.human(),
            Value::Nice(Nice::Absolute(n)) => {
                assert!(n >= 0, "in text a sign makes it relative");
                n.to_string()
            }
            // A share of all there is may be more than somebody can write.
            Value::Memory(Max::At(bytes)) if bytes.0 >= 1 << 63 => {
                assert!(text.contains('%'));
                continue;
            }
            _ => value.kernel_text(knob),
        };
        assert_eq!(knob.parse(&again, &MACHINE), Ok(value), "{}: {again:?}", knob.key);
        if let (Kind::MemoryLimit, Some(bytes)) = (knob.kind, value.bytes()) {
            assert!(bytes >= MEMORY_FLOOR);
        }
    }
});

/// The types that read text by themselves.
fn alone(text: &str) {
    let size: Result<Size, _> = text.parse();
    let knob = KnobId::MemorySwapMax.knob();
    assert_eq!(size.map(Declared::Size), knob.declare(Scalar::Text(text)));
    if let Ok(quota) = text.parse::<CpuQuota>() {
        assert_eq!(quota.to_string().parse(), Ok(quota));
        assert_eq!(CpuQuota::from_us(quota.quota_us()), Ok(quota));
    }
    assert!(KnobId::from_key(text).is_none_or(|id| id.knob().key == text));
}

/// What is in the environment for children's priorities.
fn variables(text: &str) {
    let (score, nice) = text.split_once('\n').unwrap_or((text, text));
    let coder = CoderEnv {
        prio_mgmt: Some(String::new()),
        oom_score: Some(score.to_owned()),
        nice_score: Some(nice.to_owned()),
    };
    let (priorities, warnings) = Priorities::derive(0, 0, None, None, &coder);
    assert!((-1000..=1000).contains(&priorities.oom_score_adj) && (-20..=19).contains(&priorities.nice));
    assert_eq!(
        warnings.len(),
        usize::from(!priorities.oom_given) + usize::from(!priorities.nice_given)
    );
    for warning in warnings {
        assert!(!warning.contains(char::is_control), "{warning:?}");
    }
}
