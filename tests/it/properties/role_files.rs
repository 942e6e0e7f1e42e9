//! Role files of any content: what is wrong with them is said without a panic, at a place that exists, and without a
//! character that a terminal could act on.

use cgmgr::host::Machine;
use cgmgr::limits::{KnobId, Value};
use cgmgr::role::{Diagnostic, HostPolicy, Inputs, LoadError, Overrides, Source, resolve};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{fewer, machine, odd_char, odd_text};
use crate::roles::examples;

/// One slip of whoever edits a file.
#[derive(Debug, Clone)]
enum Slip {
    Delete(Index, usize),
    Insert(Index, String),
    Double(Index),
    Move(Index, Index),
}

fn slip() -> impl Strategy<Value = Slip> {
    let piece = prop_oneof![
        odd_char().prop_map(String::from),
        select(vec![
            "[",
            "]",
            "\n",
            "\"",
            "\"\"\"",
            "'",
            "=",
            "{",
            "}",
            "#",
            "$",
            "${",
            "$ODD",
            "max",
            "%",
            "1e3",
            "0x",
            "[runtime.limits]\n",
            "[runtime.limits.oom]\n",
            "runtime.limits.pids = 0\n",
            "extends = \"x\"\n",
        ])
        .prop_map(String::from),
    ];
    prop_oneof![
        (any::<Index>(), 1usize..20).prop_map(|(at, n)| Slip::Delete(at, n)),
        (any::<Index>(), piece).prop_map(|(at, text)| Slip::Insert(at, text)),
        any::<Index>().prop_map(Slip::Double),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Slip::Move(from, to)),
    ]
}

/// An example with slips in it. They are made in its bytes, so that characters are cut in two as well.
fn mutated() -> impl Strategy<Value = String> {
    let texts: Vec<String> = examples()
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("an example"))
        .collect();
    let slips = proptest::collection::vec(slip(), 1..8);
    (select(texts), slips).prop_map(|(text, slips)| {
        let mut text = text.into_bytes();
        for slip in slips {
            let place = |at: Index, text: &[u8]| at.index(text.len() + 1);
            match slip {
                Slip::Delete(at, n) => {
                    let at = place(at, &text);
                    text.drain(at..(at + n).min(text.len()));
                }
                Slip::Insert(at, piece) => {
                    let at = place(at, &text);
                    text.splice(at..at, piece.into_bytes());
                }
                Slip::Double(at) => {
                    let mut lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
                    if !lines.is_empty() {
                        let line = at.index(lines.len());
                        lines.insert(line, lines[line]);
                    }
                    text = lines.concat();
                }
                Slip::Move(from, to) => {
                    let mut lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
                    if !lines.is_empty() {
                        let line = lines.remove(from.index(lines.len()));
                        lines.insert(to.index(lines.len() + 1), line);
                    }
                    text = lines.concat();
                }
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// A table of knobs with values of any kind.
fn tables() -> impl Strategy<Value = String> {
    let key = select(vec![
        "memory_max",
        "memory_high",
        "cpus",
        "pids",
        "nice",
        "nofile",
        "oom",
        "group",
        "memory_min",
        "name",
        "extends",
        "memroy_max",
        "memory",
        "memory_reservation",
        "memory-max",
        "memory-high",
        "cpu",
        "profile",
    ]);
    let value = prop_oneof![
        odd_text().prop_map(|text| format!("{text:?}")),
        odd_text().prop_map(|text| format!("'''{text}'''")),
        odd_text(),
        "\"[0-9]{1,4}(\\.[0-9]{1,3})?( ?[kKMGTP%](i?B)?)?\"",
        "[-+]?[0-9]{1,40}",
        "[-+]?[0-9]{1,4}\\.[0-9]{1,9}(e[0-9])?",
        "\"\"\"\n[0-9]{1,2}%\\\\\n *\"\"\"",
        Just("[[1], {a = 2}]".to_owned()),
    ];
    let table = select(vec![
        "runtime.limits",
        "runtime.limits.oom",
        "agent",
        "workloads",
        "role",
        "docker",
        "docker.grants",
        "isolation",
        "limits",
        "limits.oom",
    ]);
    let entries = proptest::collection::vec((key, value), 0..6);
    proptest::collection::vec((table, entries), 0..4).prop_map(|tables| {
        let mut text = String::new();
        for (table, entries) in tables {
            text += &format!("[{table}]\n");
            for (key, value) in entries {
                text += &format!("{key} = {value}\n");
            }
        }
        text
    })
}

/// Without the sequences that colour the text.
fn without_colour(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('m') {
            Some((colour, rest)) if colour.bytes().all(|b| b.is_ascii_digit() || b == b';') => plain += rest,
            _ => plain = format!("{plain}\x1b[{part}"),
        }
    }
    plain
}

fn holds(text: &str, path: &str, machine: &Machine) -> Result<(), TestCaseError> {
    let inputs = Inputs {
        machine,
        // Whoever sets the environment may set odd things.
        env: &|name| (name == "ODD").then(|| "8\x1b[31m\n".to_owned()),
        load: &|path| {
            Err(LoadError {
                message: format!("no {}", path.display()),
                help: None,
            })
        },
        overrides: &Overrides::default(),
    };
    let source = Source {
        path: path.into(),
        text: text.to_owned(),
    };
    let policy = HostPolicy::parse(source.clone(), machine);
    let diagnostics = match resolve(source, &inputs) {
        Ok((mut role, mut warnings)) => {
            if let Ok(policy) = &policy {
                warnings.extend(policy.cap(&mut role.settings));
                let once = role.settings.clone();
                prop_assert!(policy.cap(&mut role.settings).is_empty());
                prop_assert_eq!(&role.settings, &once);
            }
            for setting in role.settings.iter() {
                let said = format!("{:?} {}", setting.text(), setting.human());
                prop_assert!(!said.contains(char::is_control), "{:?}", said);
            }
            prop_assert!(warnings.iter().all(|warning| !warning.is_error()));
            warnings
        }
        Err(mistakes) => {
            prop_assert!(mistakes.iter().any(Diagnostic::is_error));
            mistakes
        }
    };
    let of_policy = policy.err().unwrap_or_default();
    for diagnostic in diagnostics.iter().chain(&of_policy) {
        let (plain, coloured) = (diagnostic.render(false), diagnostic.render(true));
        let odd = |c: char| c.is_control() && c != '\n';
        prop_assert!(!plain.contains(odd), "{:?}", plain);
        prop_assert_eq!(&without_colour(&coloured), &plain);
        let spans = diagnostic.related.iter().map(|related| &related.span);
        for span in diagnostic.span.iter().chain(spans) {
            prop_assert!(text.get(span.clone()).is_some(), "{:?} of {:?}", span, text);
        }
        if let (Some(span), Some(line)) = (&diagnostic.span, diagnostic.line) {
            prop_assert_eq!(line, text[..span.start].matches('\n').count() + 1);
        }
    }
    Ok(())
}

fn paths() -> impl Strategy<Value = &'static str> {
    select(vec![
        "rust.role.toml",
        "-",
        "a\u{9b}\n\x1b[31m.role.toml",
        "",
        "ä/x y",
    ])
}

proptest! {
    #![proptest_config(fewer())]

    /// A role within a policy: no session gets more than the host allows, and twice is as good as once.
    #[test]
    fn any_role_within_any_policy(text in tables(), host in tables(), machine in machine()) {
        let source = |text: &str| Source { path: "x.toml".into(), text: text.to_owned() };
        let text = text.replace("[limits", "[runtime.limits");
        let host = host.replace("[runtime.limits", "[limits");
        let inputs = Inputs {
            machine: &machine,
            env: &|_| None,
            load: &|_| Err(LoadError { message: "no".into(), help: None }),
            overrides: &Overrides::default(),
        };
        if let (Ok((mut role, _)), Ok(policy)) = (resolve(source(&text), &inputs), HostPolicy::parse(source(&host), &machine)) {
            policy.cap(&mut role.settings);
            let once = role.settings.clone();
            prop_assert!(policy.cap(&mut role.settings).is_empty());
            prop_assert_eq!(&role.settings, &once);
            for id in [KnobId::MemoryMax, KnobId::Cpus, KnobId::Pids, KnobId::Nofile] {
                let within = match (policy.value_of(id), once.value(id)) {
                    (Some(Value::Memory(most)), Some(Value::Memory(value))) => *value <= most,
                    (Some(Value::Cpu(most)), Some(Value::Cpu(value))) => *value <= most,
                    (Some(Value::Count(most)), Some(Value::Count(value))) => *value <= most,
                    (Some(most), None) => most.human() == "max",
                    (most, _) => most.is_none(),
                };
                prop_assert!(within, "{:?} {:?}", policy.value_of(id), once.get(id));
            }
        }
    }

    #[test]
    fn any_text(text in odd_text(), path in paths(), machine in machine()) {
        holds(&text, path, &machine)?;
    }

    #[test]
    fn any_values_in_our_tables(text in tables(), path in paths(), machine in machine()) {
        holds(&text, path, &machine)?;
    }

    #[test]
    fn examples_with_slips(text in mutated(), path in paths(), machine in machine()) {
        holds(&text, path, &machine)?;
    }
}
