//! From a scalar of a role file, or the text of a flag, to a typed value: which grammar each kind of knob has.

use super::cpu::CpuQuota;
use super::decimal::Decimal;
use super::error::{ErrorKind, GrammarError};
use super::knob::{Kind, Knob};
use super::max::Max;
use super::number::{Admission, Count, Nice, OomScoreAdj, Weight, out_of_range};
use super::size::{Bytes, MEMORY_FLOOR, Percent, Size};
use super::stall::StallAction;
use super::value::Value;
use crate::host::Machine;

/// A value before anybody knows what it means. A flag's value is always `Text`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// A string.
    Text(&'a str),
    /// A whole number.
    Integer(i128),
    /// A number with a point or an exponent, as it was written.
    Float(&'a str),
    /// `true` or `false`.
    Switch(bool),
    /// Something else; the name of its type, e.g. `array`.
    Other(&'static str),
}

/// What somebody declared, before the machine is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// An amount of memory.
    Size(Size),
    /// CPU time.
    Cpu(Max<CpuQuota>),
    /// A weight.
    Weight(Weight),
    /// A number of things.
    Count(Count),
    /// On or off.
    Switch(bool),
    /// A nice value.
    Nice(Nice),
    /// An adjustment of the OOM score.
    OomScoreAdj(OomScoreAdj),
    /// An admission policy.
    Admission(Admission),
    /// What is done about a stall.
    Stall(StallAction),
}

impl Knob {
    /// Reads a value of this knob. Numbers are taken as TOML numbers and as text alike.
    pub fn declare(&self, scalar: Scalar<'_>) -> Result<Declared, GrammarError> {
        match self.kind {
            Kind::MemoryLimit | Kind::Swap | Kind::Protection => size(self.kind, scalar).map(Declared::Size),
            Kind::Cpu => cpus(scalar).map(Declared::Cpu),
            Kind::Weight => Weight::new(integer(scalar, "a whole number")?).map(Declared::Weight),
            Kind::Count { .. } => count(self.kind, scalar).map(Declared::Count),
            Kind::Switch => switch(scalar).map(Declared::Switch),
            Kind::Nice { relative } => nice(relative, scalar).map(Declared::Nice),
            Kind::OomScoreAdj => {
                OomScoreAdj::new(integer(scalar, "a whole number")?).map(Declared::OomScoreAdj)
            }
            Kind::Admission => admission(scalar).map(Declared::Admission),
            Kind::Stall => stall(scalar).map(Declared::Stall),
        }
    }

    /// Reads the text of a flag, or of `KNOB=VALUE`, for a machine.
    pub fn parse(&self, text: &str, machine: &Machine) -> Result<Value, GrammarError> {
        self.value(self.declare(Scalar::Text(text))?, machine)
    }

    /// What a declaration means on a machine. An error where a percentage of it is too little.
    pub fn value(&self, declared: Declared, machine: &Machine) -> Result<Value, GrammarError> {
        Ok(match declared {
            Declared::Size(size) => {
                let memory = size.on(machine.mem_total);
                floor(self.kind, memory)?;
                Value::Memory(memory)
            }
            Declared::Cpu(cpu) => Value::Cpu(cpu),
            Declared::Weight(weight) => Value::Weight(weight),
            Declared::Count(Count::At(count)) => Value::Count(Max::At(count)),
            Declared::Count(Count::Max) => Value::Count(Max::Max),
            Declared::Count(Count::Percent(percent)) => {
                let count = percent.of(machine.max_tasks());
                in_range(self.kind, i128::from(count))?;
                Value::Count(Max::At(count))
            }
            Declared::Switch(on) => Value::Switch(on),
            Declared::Nice(nice) => Value::Nice(nice),
            Declared::OomScoreAdj(score) => Value::OomScoreAdj(score),
            Declared::Admission(admission) => Value::Admission(admission),
            Declared::Stall(action) => Value::Stall(action),
        })
    }
}

fn wrong_type(found: &str, expected: &str, help: &str) -> GrammarError {
    GrammarError::new(
        ErrorKind::WrongType,
        format!("expected {expected}, found {found}"),
        help,
    )
}

fn type_name(scalar: Scalar<'_>) -> &'static str {
    match scalar {
        Scalar::Text(_) => "text",
        Scalar::Integer(_) => "a whole number",
        Scalar::Float(_) => "a fraction",
        Scalar::Switch(_) => "true or false",
        Scalar::Other(name) => name,
    }
}

fn size(kind: Kind, scalar: Scalar<'_>) -> Result<Size, GrammarError> {
    const HELP: &str = "write a size such as \"512 MiB\", or a whole number of bytes";
    let size = match scalar {
        Scalar::Text(text) => text.parse()?,
        Scalar::Integer(bytes) => bytes.to_string().parse()?,
        Scalar::Float(_) => return Err(wrong_type("a fraction without a unit", "a size", HELP)),
        other => return Err(wrong_type(type_name(other), "a size", HELP)),
    };
    match (kind, size) {
        (Kind::Protection, Size::Max) => Err(GrammarError::new(
            ErrorKind::MaxNotAllowed,
            "\"max\" would protect the whole machine's memory",
            "write how much is to be protected, such as \"256 MiB\"",
        )),
        (_, Size::Bytes(bytes)) => floor(kind, Max::At(bytes)).map(|()| size),
        (_, Size::Percent(percent)) if percent.is_zero() => floor(kind, Max::At(Bytes(0))).map(|()| size),
        _ => Ok(size),
    }
}

/// A limit that would kill everything is a mistake.
fn floor(kind: Kind, memory: Max<Bytes>) -> Result<(), GrammarError> {
    match (kind, memory) {
        (Kind::MemoryLimit, Max::At(Bytes(0))) => Err(GrammarError::new(
            ErrorKind::Zero,
            "a memory limit of zero would kill every process",
            "write at least \"1 MiB\", or leave the key out for no limit",
        )),
        (Kind::MemoryLimit, Max::At(bytes)) if bytes < MEMORY_FLOOR => Err(GrammarError::new(
            ErrorKind::TooSmall,
            format!("{bytes} bytes is below 1 MiB, and the kernel rounds down to whole pages"),
            "write at least \"1 MiB\"; a number without a unit is bytes",
        )),
        _ => Ok(()),
    }
}

fn cpus(scalar: Scalar<'_>) -> Result<Max<CpuQuota>, GrammarError> {
    match scalar {
        Scalar::Text(text) | Scalar::Float(text) => CpuQuota::parse(text),
        Scalar::Integer(cpus) => CpuQuota::parse(&cpus.to_string()),
        other => Err(wrong_type(
            type_name(other),
            "a number of CPUs",
            "write 1.5, \"150%\" or \"max\"",
        )),
    }
}

/// A whole number, with a sign or without.
fn integer(scalar: Scalar<'_>, expected: &str) -> Result<i128, GrammarError> {
    match scalar {
        Scalar::Integer(number) => Ok(number),
        Scalar::Text(text) => {
            let text = text.trim_matches([' ', '\t']);
            let (sign, digits) = match text.strip_prefix('-') {
                Some(digits) => (-1, digits),
                None => (1, text.strip_prefix('+').unwrap_or(text)),
            };
            let (number, rest) = Decimal::split(digits)?;
            match (number.integer(), rest) {
                (Some(number), "") => Ok(sign * i128::from(number)),
                _ => Err(wrong_type(
                    &format!("{text:?}"),
                    expected,
                    "write a plain whole number",
                )),
            }
        }
        other => Err(wrong_type(
            type_name(other),
            expected,
            "write a plain whole number",
        )),
    }
}

fn count(kind: Kind, scalar: Scalar<'_>) -> Result<Count, GrammarError> {
    let Kind::Count { max, percent, .. } = kind else {
        return Err(wrong_type(
            type_name(scalar),
            "another kind of value",
            "see the knob's description",
        ));
    };
    if let Scalar::Text(text) = scalar {
        let text = text.trim_matches([' ', '\t']);
        if text.eq_ignore_ascii_case("max") {
            return if max {
                Ok(Count::Max)
            } else {
                Err(GrammarError::new(
                    ErrorKind::MaxNotAllowed,
                    "there is no such thing as no limit here",
                    "leave the key out to keep what is inherited",
                ))
            };
        }
        if text.ends_with('%') {
            if !percent {
                return Err(GrammarError::new(
                    ErrorKind::Percent,
                    "a percentage has no meaning for one session",
                    "write a whole number; [workloads] takes a percentage",
                ));
            }
            let (number, unit) = Decimal::split(text)?;
            if unit != "%" {
                return Err(wrong_type(&format!("{text:?}"), "a percentage", "write \"80%\""));
            }
            let percent = Percent::new(number)?;
            if percent.is_zero() {
                in_range(kind, 0)?;
            }
            return Ok(Count::Percent(percent));
        }
    }
    let number = integer(
        scalar,
        if max {
            "a whole number or \"max\""
        } else {
            "a whole number"
        },
    )?;
    in_range(kind, number).map(Count::At)
}

fn in_range(kind: Kind, number: i128) -> Result<u64, GrammarError> {
    let Kind::Count {
        least,
        most,
        max,
        zero,
        ceiling,
        ..
    } = kind
    else {
        return Err(out_of_range("this", 0, 0, "see the knob's description"));
    };
    let help = format!(
        "write {least} to {most}{}",
        if max { ", or \"max\" for no limit" } else { "" }
    );
    match u64::try_from(number) {
        Ok(count) if (least..=most).contains(&count) => Ok(count),
        Ok(0) => Err(GrammarError::new(ErrorKind::Zero, zero, help)),
        Ok(_) => Err(GrammarError::new(
            ErrorKind::OutOfRange,
            format!("above {most}: {ceiling}"),
            help,
        )),
        Err(_) if number < 0 => Err(GrammarError::new(
            ErrorKind::Negative,
            "a limit cannot be negative",
            help,
        )),
        Err(_) => Err(GrammarError::new(
            ErrorKind::OutOfRange,
            format!("above {most}: {ceiling}"),
            help,
        )),
    }
}

fn switch(scalar: Scalar<'_>) -> Result<bool, GrammarError> {
    const HELP: &str = "write true or false, without quotes";
    match scalar {
        Scalar::Switch(on) => Ok(on),
        Scalar::Text("true") => Ok(true),
        Scalar::Text("false") => Ok(false),
        other => Err(wrong_type(type_name(other), "true or false", HELP)),
    }
}

/// A number without quotes is absolute. In quotes, a sign makes it relative to the process that launches.
fn nice(relative: bool, scalar: Scalar<'_>) -> Result<Nice, GrammarError> {
    let number = integer(scalar, "a nice value")?;
    match scalar {
        Scalar::Text(text) if text.trim_start_matches([' ', '\t']).starts_with(['+', '-']) => {
            if !relative {
                return Err(GrammarError::new(
                    ErrorKind::Sign,
                    "the agent's own nice value cannot be relative to itself",
                    "write it without quotes: an absolute value from -20 to 19",
                ));
            }
            Nice::relative(number)
        }
        _ => Nice::absolute(number),
    }
}

fn admission(scalar: Scalar<'_>) -> Result<Admission, GrammarError> {
    const HELP: &str = "write \"off\", \"warn\", \"queue\" or \"refuse\"";
    let Scalar::Text(text) = scalar else {
        return Err(wrong_type(type_name(scalar), "a word", HELP));
    };
    let word = Admission::ALL
        .into_iter()
        .find(|admission| admission.word() == text);
    word.ok_or_else(|| GrammarError::new(ErrorKind::UnknownWord, "no such policy", HELP))
}

fn stall(scalar: Scalar<'_>) -> Result<StallAction, GrammarError> {
    const HELP: &str = "write \"record\", \"lift\" or \"kill\"";
    let Scalar::Text(text) = scalar else {
        return Err(wrong_type(type_name(scalar), "a word", HELP));
    };
    let word = StallAction::ALL.into_iter().find(|action| action.word() == text);
    word.ok_or_else(|| GrammarError::new(ErrorKind::UnknownWord, "no such action", HELP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Tasks;
    use crate::limits::KNOBS;
    use crate::limits::KnobId::{self, *};

    fn machine() -> Machine {
        Machine {
            mem_total: 2 << 30,
            swap_total: 0,
            page_size: 4096,
            cpus: 2,
            tasks: Tasks::Known(15_000),
        }
    }

    fn kernel_text(id: KnobId, scalar: Scalar<'_>) -> Result<String, ErrorKind> {
        let knob = id.knob();
        let value = knob
            .declare(scalar)
            .and_then(|declared| knob.value(declared, &machine()));
        value
            .map(|value| value.kernel_text(knob))
            .map_err(|error| error.kind())
    }

    #[test]
    fn text_for_the_kernel() {
        use Scalar::{Float, Integer, Switch, Text};
        for (id, scalar, text) in [
            (MemoryHigh, Text("12 GiB"), "12884901888"),
            (MemoryMax, Integer(1 << 20), "1048576"),
            (MemoryMax, Text("max"), "max"),
            (MemoryMax, Text("50%"), "1073741824"),
            (MemorySwapMax, Text("0"), "0"),
            (MemorySwapMax, Integer(0), "0"),
            (MemorySwapMax, Text("4095"), "4095"),
            (AgentMemoryMin, Text("0"), "0"),
            (AgentMemoryMin, Text("256 MiB"), "268435456"),
            (Cpus, Integer(3), "300000 100000"),
            (Cpus, Float("3.0"), "300000 100000"),
            (Cpus, Float("1.2345"), "123450 100000"),
            (Cpus, Text("300%"), "300000 100000"),
            (Cpus, Text("max"), "max 100000"),
            (CpuWeight, Integer(100), "100"),
            (CpuWeight, Text("10000"), "10000"),
            (IoWeight, Integer(1), "default 1"),
            (AgentIoWeight, Integer(1000), "default 1000"),
            (Pids, Integer(4096), "4096"),
            (Pids, Text("4194304"), "4194304"),
            (Pids, Text("max"), "max"),
            (WorkloadsPids, Text("80%"), "12000"),
            (Nofile, Integer(16_384), "16384"),
            (Nice, Integer(5), "5"),
            (Nice, Integer(-20), "-20"),
            (Nice, Text("+5"), "+5"),
            (Nice, Text("-5"), "-5"),
            (Nice, Text("7"), "7"),
            (AgentNice, Integer(-5), "-5"),
            (OomScoreAdj, Integer(998), "998"),
            (AgentOomScoreAdj, Integer(-900), "-900"),
            (OomScoreAdj, Text("-1000"), "-1000"),
            (OomGroup, Switch(true), "1"),
            (OomGroup, Text("false"), "0"),
            (OomNotify, Switch(true), "true"),
            (WorkloadsAdmission, Text("queue"), "queue"),
            (Stall, Text("lift"), "lift"),
        ] {
            assert_eq!(kernel_text(id, scalar).as_deref(), Ok(text), "{id:?} {scalar:?}");
        }
    }

    #[test]
    fn refused() {
        use ErrorKind as E;
        use Scalar::{Float, Integer, Other, Switch, Text};
        for (id, scalar, kind) in [
            (MemoryMax, Integer(0), E::Zero),
            (MemoryHigh, Text("0%"), E::Zero),
            (WorkloadsMemoryMax, Text("0"), E::Zero),
            (MemoryMax, Text("4095"), E::TooSmall),
            (MemoryMax, Integer((1 << 20) - 1), E::TooSmall),
            (MemoryMax, Text("0.01%"), E::TooSmall),
            (MemoryMax, Integer(-1), E::Negative),
            (MemoryMax, Integer(i128::MAX), E::Overflow),
            (MemoryMax, Integer(i128::MIN), E::Negative),
            (MemoryMax, Float("1.5"), E::WrongType),
            (MemoryMax, Switch(true), E::WrongType),
            (MemoryMax, Other("an array"), E::WrongType),
            (AgentMemoryMin, Text("max"), E::MaxNotAllowed),
            (Cpus, Integer(0), E::Zero),
            (Cpus, Integer(-1), E::Negative),
            (Cpus, Float("nan"), E::NotFinite),
            (Cpus, Float("inf"), E::NotFinite),
            (Cpus, Float("+inf"), E::Sign),
            (Cpus, Float("-nan"), E::Negative),
            (Cpus, Float("1e2"), E::Exponent),
            (Cpus, Integer(i128::MAX), E::Overflow),
            (Cpus, Switch(false), E::WrongType),
            (CpuWeight, Integer(0), E::OutOfRange),
            (CpuWeight, Integer(10_001), E::OutOfRange),
            (IoWeight, Integer(-1), E::OutOfRange),
            (CpuWeight, Text("heavy"), E::NotANumber),
            (CpuWeight, Float("1.5"), E::WrongType),
            (Pids, Integer(0), E::Zero),
            (Pids, Text("0"), E::Zero),
            (Pids, Integer(-1), E::Negative),
            (Pids, Integer(4_194_305), E::OutOfRange),
            (Pids, Integer(i128::MAX), E::OutOfRange),
            (Pids, Text("80%"), E::Percent),
            (Pids, Text("4 K"), E::WrongType),
            (WorkloadsPids, Text("0%"), E::Zero),
            (WorkloadsPids, Text("101%"), E::Percent),
            (WorkloadsPids, Text("0.001%"), E::Zero),
            (Nofile, Integer(0), E::Zero),
            (Nofile, Text("max"), E::MaxNotAllowed),
            (Nofile, Integer(1 << 40), E::OutOfRange),
            (Nice, Integer(20), E::OutOfRange),
            (Nice, Integer(-21), E::OutOfRange),
            (Nice, Text("+40"), E::OutOfRange),
            (AgentNice, Text("+5"), E::Sign),
            (OomScoreAdj, Integer(1001), E::OutOfRange),
            (OomScoreAdj, Integer(-1001), E::OutOfRange),
            (OomGroup, Integer(1), E::WrongType),
            (OomGroup, Text("yes"), E::WrongType),
            (WorkloadsAdmission, Text("maybe"), E::UnknownWord),
            (WorkloadsAdmission, Switch(true), E::WrongType),
            (Stall, Text("Kill"), E::UnknownWord),
            (Stall, Integer(1), E::WrongType),
        ] {
            assert_eq!(kernel_text(id, scalar), Err(kind), "{id:?} {scalar:?}");
        }
    }

    /// What the kernel would take, and the value that this stands for, are the same after a round trip.
    #[test]
    fn kernel_text_can_be_declared() {
        for id in [MemoryHigh, MemoryMax, Pids, CpuWeight, Nofile] {
            for number in [1u64 << 20, 1 << 21, 100, 10_000, 4096] {
                let text = number.to_string();
                if let Ok(kernel) = kernel_text(id, Scalar::Text(&text)) {
                    assert_eq!(kernel, text);
                }
            }
        }
    }

    /// Whatever is typed, it is a value or an error with a message and a remedy, in every grammar.
    #[test]
    fn never_panics() {
        let parts = [
            "",
            "0",
            "1",
            "9999999999999999999",
            ".",
            "%",
            "G",
            "iB",
            "-",
            "+",
            " ",
            "e",
            "max",
            "ä",
            "\0",
            "_",
        ];
        for a in parts {
            for b in parts {
                for c in parts {
                    let text = format!("{a}{b}{c}");
                    for knob in KNOBS {
                        let scalars = [Scalar::Text(&text), Scalar::Float(&text)];
                        for error in scalars
                            .into_iter()
                            .filter_map(|scalar| knob.declare(scalar).err())
                        {
                            let (message, help) = (error.message(), error.help());
                            assert!(!message.is_empty() && !help.is_empty(), "{}: {text:?}", knob.key);
                            assert!(
                                !message.ends_with('.') && !help.ends_with('.'),
                                "{message} {help}"
                            );
                            assert!(!message.contains(char::is_control), "{message:?}");
                        }
                    }
                }
            }
        }
    }
}
