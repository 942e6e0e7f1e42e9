//! Values of knobs: what is printed is read again as the same, and what is read is what exact arithmetic says.

use cgmgr::host::Machine;
use cgmgr::limits::{
    Admission, Bytes, CpuQuota, Declared, ErrorKind, KNOBS, Kind, Knob, KnobId, MEMORY_FLOOR, Max, Nice,
    OomScoreAdj, Scalar, Size, StallAction, Value, Weight,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::{machine, magnitude, odd_text, usual};

/// Sizes are below this.
const TOO_MANY_BYTES: u64 = 1 << 63;

/// A quota of so many steps of 10 µs would be 2^44 µs or more.
const TOO_MANY_STEPS: u64 = (1 << 44) / 10 + 1;

/// Any value that a knob takes.
pub(super) fn value_of(knob: &'static Knob) -> BoxedStrategy<Value> {
    let memory = |least: u64, most: bool| {
        let bytes =
            magnitude().prop_map(move |n| Value::Memory(Max::At(Bytes((n % TOO_MANY_BYTES).max(least)))));
        if most {
            prop_oneof![1 => Just(Value::Memory(Max::Max)), 9 => bytes].boxed()
        } else {
            bytes.boxed()
        }
    };
    match knob.kind {
        Kind::MemoryLimit => memory(MEMORY_FLOOR.0, true),
        Kind::Swap => memory(0, true),
        Kind::Protection => memory(0, false),
        Kind::Cpu => {
            let quota = magnitude().prop_map(|n| {
                let steps = (n % TOO_MANY_STEPS).max(100);
                Value::Cpu(Max::At(CpuQuota::from_us(steps * 10).expect("in range")))
            });
            prop_oneof![1 => Just(Value::Cpu(Max::Max)), 9 => quota].boxed()
        }
        Kind::Weight => (1i128..=10_000)
            .prop_map(|n| Value::Weight(Weight::new(n).expect("in range")))
            .boxed(),
        Kind::Count { least, most, max, .. } => {
            let count = (least..=most).prop_map(|n| Value::Count(Max::At(n)));
            if max {
                prop_oneof![1 => Just(Value::Count(Max::Max)), 9 => count].boxed()
            } else {
                count.boxed()
            }
        }
        Kind::Switch => any::<bool>().prop_map(Value::Switch).boxed(),
        Kind::Nice { relative } => {
            let absolute = (-20i32..=19).prop_map(|n| Value::Nice(Nice::Absolute(n)));
            if relative {
                prop_oneof![
                    absolute,
                    (-39i32..=39).prop_map(|n| Value::Nice(Nice::Relative(n)))
                ]
                .boxed()
            } else {
                absolute.boxed()
            }
        }
        Kind::OomScoreAdj => (-1000i128..=1000)
            .prop_map(|n| Value::OomScoreAdj(OomScoreAdj::new(n).expect("in range")))
            .boxed(),
        Kind::Admission => select(Admission::ALL.to_vec()).prop_map(Value::Admission).boxed(),
        Kind::Stall => select(StallAction::ALL.to_vec()).prop_map(Value::Stall).boxed(),
    }
}

pub(super) fn any_knob() -> impl Strategy<Value = &'static Knob> {
    select(KNOBS.iter().collect::<Vec<_>>())
}

fn any_value() -> impl Strategy<Value = (&'static Knob, Value)> {
    any_knob().prop_flat_map(|knob| (Just(knob), value_of(knob)))
}

/// The value as somebody would write it, where text can say it exactly.
fn written(knob: &Knob, value: &Value) -> Option<String> {
    match value {
        // In text a sign makes it relative.
        Value::Nice(Nice::Absolute(n)) if *n < 0 => None,
        Value::Cpu(quota) => Some(quota.to_string()),
        // The kernel's text has a word before it, or is a digit.
        Value::Weight(_) | Value::Switch(_) => Some(value.human()),
        _ => Some(value.kernel_text(knob)),
    }
}

fn bytes_of(text: &str, machine: &Machine) -> Result<u64, ErrorKind> {
    // Swap takes every size, so that nothing but the grammar speaks.
    match KnobId::MemorySwapMax.knob().parse(text, machine) {
        Ok(Value::Memory(Max::At(Bytes(bytes)))) => Ok(bytes),
        Ok(other) => panic!("{text:?} is {other:?}"),
        Err(error) => Err(error.kind()),
    }
}

fn quota_of(text: &str, machine: &Machine) -> Result<u64, ErrorKind> {
    match KnobId::Cpus.knob().parse(text, machine) {
        Ok(Value::Cpu(Max::At(quota))) => Ok(quota.quota_us()),
        Ok(other) => panic!("{text:?} is {other:?}"),
        Err(error) => Err(error.kind()),
    }
}

/// A unit as it may be written, and its bytes: binary but for the two-letter ones.
fn unit() -> impl Strategy<Value = (String, u64)> {
    let mut units = vec![(String::new(), 1), ("B".into(), 1)];
    for (power, letter) in (1u32..).zip("KMGTP".chars()) {
        for binary in ["", "i", "iB"] {
            units.push((format!("{letter}{binary}"), 1024u64.pow(power)));
        }
        units.push((format!("{letter}B"), 1000u64.pow(power)));
    }
    (select(units), any::<[bool; 3]>()).prop_map(|((unit, factor), lower)| {
        let case = |(c, lower): (char, bool)| if lower { c.to_ascii_lowercase() } else { c };
        (unit.chars().zip(lower).map(case).collect(), factor)
    })
}

fn in_range(bytes: u128) -> Result<u64, ErrorKind> {
    u64::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes < TOO_MANY_BYTES)
        .ok_or(ErrorKind::Overflow)
}

proptest! {
    #![proptest_config(usual())]

    #[test]
    fn what_is_printed_is_read_again((knob, value) in any_value(), machine in machine()) {
        if let Some(text) = written(knob, &value) {
            prop_assert_eq!(knob.parse(&text, &machine), Ok(value), "{}: {:?}", knob.key, text);
        }
        let number = match value {
            Value::Nice(Nice::Absolute(n)) => Some(i128::from(n)),
            Value::OomScoreAdj(score) => Some(i128::from(score.get())),
            Value::Memory(Max::At(bytes)) => Some(i128::from(bytes.0)),
            Value::Count(Max::At(count)) => Some(i128::from(count)),
            Value::Weight(weight) => Some(i128::from(weight.get())),
            _ => None,
        };
        if let Some(number) = number {
            let declared = knob.declare(Scalar::Integer(number));
            prop_assert_eq!(declared.and_then(|d| knob.value(d, &machine)), Ok(value), "{}", knob.key);
        }
    }

    #[test]
    fn what_people_read_is_exact_or_has_a_point(bytes in magnitude().prop_map(|n| n % TOO_MANY_BYTES),
        whole in 1u64..1024, unit in 0u32..=5, machine in machine()) {
        for bytes in [bytes, whole << (10 * unit)] {
            let text = Bytes(bytes).human();
            if text.contains('.') {
                // One digit after the point; beyond PiB there is no unit to read it by.
                if let Ok(read) = bytes_of(&text, &machine) {
                    prop_assert!(read.abs_diff(bytes) <= bytes / 20 + 1, "{} for {}", text, bytes);
                } else {
                    prop_assert!(text.ends_with(" EiB"), "{}", text);
                }
            } else {
                prop_assert_eq!(bytes_of(&text, &machine), Ok(bytes), "{}", text);
            }
        }
        prop_assert!(!Bytes(whole << (10 * unit)).human().contains('.'));
    }

    #[test]
    fn a_size_is_number_times_unit(n in magnitude(), (unit, factor) in unit(), space in "[ \t]{0,3}",
        machine in machine()) {
        let text = format!("{space}{n}{space}{unit}{space}");
        let bytes = in_range(u128::from(n) * u128::from(factor));
        prop_assert_eq!(bytes_of(&text, &machine), bytes, "{:?}", text);
    }

    #[test]
    fn a_fraction_of_a_unit_rounds_down_to_a_byte(n in 0u64..100_000, fraction in "[0-9]{1,22}",
        (unit, factor) in unit(), machine in machine()) {
        let text = format!("{n}.{fraction} {unit}");
        let scale = 10u128.pow(fraction.len() as u32);
        let part = fraction.parse::<u128>().expect("digits") * u128::from(factor) / scale;
        let bytes = in_range(u128::from(n) * u128::from(factor) + part);
        prop_assert_eq!(bytes_of(&text, &machine), bytes, "{:?}", text);
    }

    #[test]
    fn a_percentage_is_that_share_rounded_down(hundredths in 0u64..=10_000, machine in machine()) {
        let text = format!("{}.{:02}%", hundredths / 100, hundredths % 100);
        let share = |of: u64| (u128::from(of) * u128::from(hundredths) / 10_000) as u64;
        prop_assert_eq!(bytes_of(&text, &machine), Ok(share(machine.mem_total)), "{:?}", text);

        let tasks = share(machine.max_tasks());
        let pids = KnobId::WorkloadsPids.knob().parse(&text, &machine);
        if (1..=4_194_304).contains(&tasks) {
            prop_assert_eq!(pids, Ok(Value::Count(Max::At(tasks))), "{:?}", text);
        } else {
            let kind = if tasks == 0 { ErrorKind::Zero } else { ErrorKind::OutOfRange };
            prop_assert_eq!(pids.map_err(|error| error.kind()), Err(kind), "{:?}", text);
        }
    }

    #[test]
    fn more_than_everything_is_no_percentage(hundredths in 10_001u64.., machine in machine()) {
        let text = format!("{}.{:02}%", hundredths / 100, hundredths % 100);
        prop_assert_eq!(bytes_of(&text, &machine), Err(ErrorKind::Percent), "{:?}", text);
    }

    #[test]
    fn cpus_are_exact_or_refused(n in magnitude(), fraction in "[0-9]{1,8}", machine in machine()) {
        let text = format!("{n}.{fraction}");
        let scale = 10u128.pow(fraction.len() as u32);
        let scaled = u128::from(n) * scale + fraction.parse::<u128>().expect("digits");
        let (steps, exact) = (scaled * 10_000 / scale, (scaled * 10_000).is_multiple_of(scale));
        let found = quota_of(&text, &machine);
        if scaled == 0 {
            prop_assert_eq!(found, Err(ErrorKind::Zero), "{}", text);
        } else if steps < 100 {
            prop_assert_eq!(found, Err(ErrorKind::TooSmall), "{}", text);
        } else if steps >= u128::from(TOO_MANY_STEPS) {
            let refused = matches!(found, Err(ErrorKind::Overflow | ErrorKind::TooPrecise));
            prop_assert!(refused, "{}: {:?}", text, found);
        } else if exact {
            prop_assert_eq!(found, Ok(steps as u64 * 10), "{}", text);
        } else {
            prop_assert_eq!(found, Err(ErrorKind::TooPrecise), "{}", text);
        }
    }

    #[test]
    fn percent_of_a_cpu_is_the_same_as_its_fraction(steps in magnitude(), machine in machine()) {
        let steps = steps % (TOO_MANY_STEPS + 1000);
        let fraction = format!("{}.{:04}", steps / 10_000, steps % 10_000);
        let percent = format!("{}.{:02}%", steps / 100, steps % 100);
        let quota = quota_of(&fraction, &machine);
        prop_assert_eq!(quota, quota_of(&percent, &machine), "{} {}", fraction, percent);
        if (100..TOO_MANY_STEPS).contains(&steps) {
            prop_assert_eq!(quota, Ok(steps * 10), "{}", fraction);
        } else {
            prop_assert!(quota.is_err(), "{}", fraction);
        }
    }

    #[test]
    fn a_type_reads_alone_what_its_knob_reads(text in prop_oneof![odd_text(), "[0-9]{1,9}(\\.[0-9]{1,4})?[ ]?[kKmMgG]?[iI]?[bB]?%?"],
        quota in (100u64..TOO_MANY_STEPS).prop_map(|steps| steps * 10)) {
        let size = text.parse::<Size>().map(Declared::Size);
        prop_assert_eq!(size, KnobId::MemorySwapMax.knob().declare(Scalar::Text(&text)));
        let quota = CpuQuota::from_us(quota).expect("in range");
        prop_assert_eq!(quota.to_string().parse(), Ok(quota));
        let cpus = CpuQuota::parse(&text).map(Declared::Cpu);
        prop_assert_eq!(cpus, KnobId::Cpus.knob().declare(Scalar::Text(&text)));
    }

    #[test]
    fn a_number_with_a_point_is_the_same_without_quotes(knob in any_knob(), text in "-?[0-9]{1,6}\\.[0-9]{1,6}(e[0-9])?") {
        if let (Ok(number), Ok(quoted)) = (knob.declare(Scalar::Float(&text)), knob.declare(Scalar::Text(&text))) {
            prop_assert_eq!(number, quoted, "{}: {}", knob.key, text);
        }
    }

    #[test]
    fn a_knob_is_found_by_its_key_and_nothing_else(knob in any_knob(), other in odd_text()) {
        prop_assert_eq!(KnobId::from_key(knob.key), Some(knob.id));
        prop_assert_eq!(KnobId::from_key(&other).map(|id| id.knob().key), KNOBS.iter().map(|k| k.key).find(|key| *key == other));
    }

    #[test]
    fn whatever_is_read_is_in_range(knob in any_knob(), machine in machine(),
        text in prop_oneof![
            odd_text(),
            "[ \t]?[-+]?[0-9]{0,30}[.,_'eE]?[0-9]{0,30}[ \t]?[kKmMgGtTpPeE%]?[iI]?[bB]?".boxed(),
            "[-+]?[0-9]{1,8}(\\.[0-9]{1,4})?%?",
        ]) {
        let value = match knob.parse(&text, &machine) {
            Ok(value) => value,
            Err(error) => {
                let said = format!("{} {}", error.message(), error.help());
                prop_assert!(!said.contains(char::is_control), "{}", said);
                return Ok(());
            }
        };
        let fits = match (knob.kind, value) {
            (Kind::Protection, Value::Memory(Max::Max)) => false,
            (_, Value::Memory(Max::Max)) => true,
            (Kind::MemoryLimit, Value::Memory(Max::At(bytes))) => bytes >= MEMORY_FLOOR,
            (Kind::Swap | Kind::Protection, Value::Memory(Max::At(_))) => true,
            (Kind::Cpu, Value::Cpu(quota)) => quota.at().is_none_or(|q| (1000..1 << 44).contains(&q.quota_us())),
            (Kind::Weight, Value::Weight(weight)) => (1..=10_000).contains(&weight.get()),
            (Kind::Count { max, .. }, Value::Count(Max::Max)) => max,
            (Kind::Count { least, most, .. }, Value::Count(Max::At(n))) => (least..=most).contains(&n),
            (Kind::Nice { .. }, Value::Nice(Nice::Absolute(n))) => (-20..=19).contains(&n),
            (Kind::Nice { relative }, Value::Nice(Nice::Relative(n))) => relative && (-39..=39).contains(&n),
            (Kind::OomScoreAdj, Value::OomScoreAdj(score)) => (-1000..=1000).contains(&score.get()),
            (Kind::Switch, Value::Switch(on)) => text == on.to_string(),
            (Kind::Admission, Value::Admission(word)) => text == word.word(),
            (Kind::Stall, Value::Stall(word)) => text == word.word(),
            _ => false,
        };
        prop_assert!(fits, "{}: {:?} is {:?}", knob.key, text, value);
    }
}
