//! The JSON Schema of role files: the committed file is the program's, it takes every example, and it never underlines
//! what `cgmgr check` takes.
//!
//! The checker here knows the few keywords that the schema uses, and fails on any other.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use cgmgr::host::{Machine, Tasks};
use cgmgr::limits::{KNOBS, Kind, Scalar};
use cgmgr::role::{Inputs, LoadError, Overrides, Source, resolve, schema};
use proptest::prelude::*;
use proptest::sample::select;
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::roles::examples;

/// What a value does against a schema: one line per mistake.
fn mistakes(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut wrong = |what: &str| found.push(format!("{at}: {value} {what}"));
    let number = |rule: &Value| rule.as_f64().expect("a number in the schema");
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "examples" | "properties" => {}
            "type" => {
                let is = match rule.as_str().expect("a type") {
                    "object" => value.is_object(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    other => panic!("{at}: unknown type {other}"),
                };
                if !is {
                    wrong(&format!("is no {rule}"));
                }
            }
            "anyOf" => {
                let forms = rule.as_array().expect("an array");
                if forms.iter().all(|form| !mistakes(form, value, at).is_empty()) {
                    wrong("is none of its forms");
                }
            }
            "pattern" => {
                let pattern =
                    Regex::new(rule.as_str().expect("a pattern")).expect("a pattern that can be read");
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    wrong(&format!("does not match {rule}"));
                }
            }
            "minLength" => {
                let least = rule.as_u64().expect("a length") as usize;
                if value.as_str().is_some_and(|text| text.chars().count() < least) {
                    wrong("is too short");
                }
            }
            "minimum" if value.as_f64().is_some_and(|n| n < number(rule)) => wrong("is too small"),
            "maximum" if value.as_f64().is_some_and(|n| n > number(rule)) => wrong("is too large"),
            "minimum" | "maximum" => {}
            "additionalProperties" => assert_eq!(rule, false, "{at}"),
            other => panic!("{at}: the checker of this test does not know the keyword {other}"),
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        match &schema["properties"][key] {
            Value::Null if schema["additionalProperties"] == false => {
                found.push(format!("{at}: unknown key"))
            }
            Value::Null => {}
            property => found.extend(mistakes(property, value, &at)),
        }
    }
    found
}

fn of_file(text: &str) -> Vec<String> {
    let value: Value = toml::from_str(text).expect("TOML");
    mistakes(&schema(), &value, "")
}

/// The schema of a knob's value.
fn of_knob(path: &str) -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema);
    let pointer: String = path.split('.').map(|key| format!("/properties/{key}")).collect();
    let found = SCHEMA.pointer(&pointer);
    found.unwrap_or_else(|| panic!("no {path} in the schema"))
}

#[test]
fn the_committed_file_and_the_command_give_what_the_table_gives() {
    let generated = format!("{:#}\n", schema());
    let committed = std::fs::read_to_string("schema/role.schema.json").expect("the committed schema");
    assert!(
        committed == generated,
        "schema/role.schema.json is not what the knob table gives: run `cargo xtask generate`"
    );
    let printed = Command::new(env!("CARGO_BIN_EXE_cgmgr")).arg("schema").output();
    let printed = printed.expect("cgmgr schema").stdout;
    assert_eq!(String::from_utf8(printed).as_ref(), Ok(&generated));
}

#[test]
fn every_knob_has_its_place_its_meaning_and_examples_that_are_right() {
    for knob in KNOBS {
        let property = of_knob(knob.path);
        let description = property["description"].as_str().expect("a description");
        assert!(description.starts_with(knob.doc), "{}: {description}", knob.path);
        let examples = property["examples"].as_array().expect("examples");
        assert!(!examples.is_empty(), "{}", knob.path);
        for example in examples.iter().chain(property.get("default")) {
            assert_eq!(mistakes(property, example, knob.path), [""; 0]);
            let fraction = example.to_string();
            let scalar = match example {
                Value::String(text) => Scalar::Text(text),
                Value::Bool(on) => Scalar::Switch(*on),
                Value::Number(number) => match number.as_i64() {
                    Some(number) => Scalar::Integer(number.into()),
                    None => Scalar::Float(&fraction),
                },
                other => panic!("{}: {other}", knob.path),
            };
            assert!(knob.declare(scalar).is_ok(), "{} = {example}", knob.path);
        }
    }
}

#[test]
fn every_example_is_taken() {
    for file in examples() {
        let text = std::fs::read_to_string(&file).expect("an example");
        let mistakes = of_file(&text);
        if text.contains("\n[isolation]\n") {
            // Of another form, whose [agent] is that program's: that is all that is underlined.
            assert!(
                !mistakes.is_empty() && mistakes.iter().all(|m| m.starts_with(".agent.")),
                "{mistakes:?}"
            );
        } else {
            assert_eq!(mistakes, [""; 0], "{}", file.display());
        }
    }
}

#[test]
fn other_programs_tables_and_variables_are_left_alone() {
    let text = "agents = 3\n[docker.grants]\nmemory = \"4GB\"\n[runtime.env]\nA = \"1\"\n\
                [runtime.limits]\nmemory_max = \"$MEM\"\npids = \"${N}\"\noom = { group = \"$G\" }\n";
    assert_eq!(of_file(text), [""; 0]);
}

#[test]
fn what_is_wrong_is_found() {
    for (text, at) in [
        ("version = \"v2\"", ".version"),
        ("version = 1", ".version"),
        ("[role]\nname = \"-x\"", ".role.name"),
        ("[role]\nname = \"\"", ".role.name"),
        ("[role]\nextends = \"\"", ".role.extends"),
        ("[role]\nnam = \"x\"", ".role.nam"),
        ("runtime = 1", ".runtime"),
        ("[runtime]\nlimits = 1", ".runtime.limits"),
        (
            "[runtime.limits]\nmemry_high = \"1G\"",
            ".runtime.limits.memry_high",
        ),
        ("[runtime.limits]\noom_group = true", ".runtime.limits.oom_group"),
        (
            "[runtime.limits]\nmemory_max = \"16 GX\"",
            ".runtime.limits.memory_max",
        ),
        (
            "[runtime.limits]\nmemory_max = \"infinity\"",
            ".runtime.limits.memory_max",
        ),
        (
            "[runtime.limits]\nmemory_max = \"0\"",
            ".runtime.limits.memory_max",
        ),
        (
            "[runtime.limits]\nmemory_max = \"101%\"",
            ".runtime.limits.memory_max",
        ),
        (
            "[runtime.limits]\nmemory_max = 4095",
            ".runtime.limits.memory_max",
        ),
        ("[runtime.limits]\nmemory_max = 1e9", ".runtime.limits.memory_max"),
        (
            "[runtime.limits]\nmemory_swap_max = -1",
            ".runtime.limits.memory_swap_max",
        ),
        ("[runtime.limits]\ncpus = 0", ".runtime.limits.cpus"),
        ("[runtime.limits]\ncpus = \"0.001\"", ".runtime.limits.cpus"),
        (
            "[runtime.limits]\ncpu_weight = 10001",
            ".runtime.limits.cpu_weight",
        ),
        ("[runtime.limits]\npids = 0", ".runtime.limits.pids"),
        ("[runtime.limits]\npids = \"80%\"", ".runtime.limits.pids"),
        ("[runtime.limits]\nnofile = \"max\"", ".runtime.limits.nofile"),
        ("[runtime.limits]\nnice = \"+40\"", ".runtime.limits.nice"),
        (
            "[runtime.limits]\noom_score_adj = 1001",
            ".runtime.limits.oom_score_adj",
        ),
        (
            "[runtime.limits.oom]\ngroup = \"yes\"",
            ".runtime.limits.oom.group",
        ),
        ("[agent]\nmemory_min = \"max\"", ".agent.memory_min"),
        ("[agent]\nnice = \"+5\"", ".agent.nice"),
        ("[workloads]\nadmission = \"perhaps\"", ".workloads.admission"),
        ("[workloads]\noom_group = true", ".workloads.oom_group"),
    ] {
        let found = of_file(text);
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with(&format!("{at}:"))),
            "{text}: {found:?}"
        );
        assert!(!is_taken(text), "cgmgr takes what this test has as wrong: {text}");
    }
}

/// Whether `cgmgr check` takes a file.
fn is_taken(text: &str) -> bool {
    let machine = Machine {
        mem_total: 32 << 30,
        swap_total: 0,
        page_size: 4096,
        cpus: 8,
        tasks: Tasks::Known(240_000),
    };
    let overrides = Overrides::default();
    let inputs = Inputs {
        machine: &machine,
        overrides: &overrides,
        env: &|_| None,
        load: &|_: &Path| {
            Err(LoadError {
                message: "there is none".into(),
                help: None,
            })
        },
    };
    let source = Source {
        path: "test.role.toml".into(),
        text: text.into(),
    };
    resolve(source, &inputs).is_ok()
}

/// Text that is a value of some knob, or nearly.
fn near_a_value() -> impl Strategy<Value = String> {
    let digits = select(vec![
        "0", "00", "1", "5", "19", "39", "40", "99", "100", "1000", "4096", "10000",
    ]);
    let fraction = select(vec![
        "",
        ".0",
        ".5",
        ".05",
        ".005",
        ".00010",
        ".1234567890",
        ".",
        ".000000000000000000000001",
    ]);
    let unit = select(vec![
        "", "%", "K", "ki", "MiB", "gb", "T", "PIB", "B", "E", "GX", "i",
    ]);
    let blank = || select(vec!["", "", " ", "\t", "\n"]);
    let number = (
        blank(),
        select(vec!["", "", "+", "-"]),
        blank(),
        digits,
        fraction,
        blank(),
        unit,
        blank(),
    )
        .prop_map(|(a, sign, b, digits, fraction, c, unit, d)| {
            format!("{a}{sign}{b}{digits}{fraction}{c}{unit}{d}")
        });
    let word = select(vec![
        "max", "MAX", " max ", "true", "false", " true", "off", "warn", "queue", "refuse", "record", "lift",
        "kill", "inf", "",
    ]);
    prop_oneof![9 => number, 1 => word.prop_map(String::from)]
}

proptest! {
    #![proptest_config(super::properties::usual())]

    #[test]
    fn text_that_is_read_is_never_underlined(text in near_a_value()) {
        for knob in KNOBS {
            let read = knob.declare(Scalar::Text(&text)).is_ok();
            let underlined = !mistakes(of_knob(knob.path), &json!(text), knob.path).is_empty();
            prop_assert!(!(read && underlined), "{} = {text:?} is read, and the schema refuses it", knob.path);
            // Where a pattern can say it all, it does.
            let exact = matches!(
                knob.kind,
                Kind::Weight | Kind::Switch | Kind::Nice { .. } | Kind::OomScoreAdj | Kind::Admission | Kind::Stall | Kind::Cpu
            );
            prop_assert!(!exact || read != underlined, "{} = {text:?} is refused, and the schema takes it", knob.path);
        }
    }

    #[test]
    fn numbers_that_are_read_are_never_underlined(number in any::<i64>(), shift in 0u32..64) {
        let number = number >> shift;
        for knob in KNOBS {
            let read = knob.declare(Scalar::Integer(number.into())).is_ok();
            let underlined = !mistakes(of_knob(knob.path), &json!(number), knob.path).is_empty();
            prop_assert_eq!(read, !underlined, "{} = {}", knob.path, number);
        }
    }
}
