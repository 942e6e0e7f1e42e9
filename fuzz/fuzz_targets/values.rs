//! The text of a flag for every knob: what is read is printed as something that is read as the same.
#![no_main]

use cgmgr::host::Machine;
use cgmgr::limits::{KNOBS, Kind, MEMORY_FLOOR, Max, Nice, Value};
use libfuzzer_sys::fuzz_target;

const MACHINE: Machine = Machine {
    mem_total: u64::MAX,
    swap_total: 0,
    page_size: 4096,
    cpus: 4,
    pid_max: 4_194_304,
    threads_max: u64::MAX,
};

fuzz_target!(|text: &str| {
    for knob in KNOBS {
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
