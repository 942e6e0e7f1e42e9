//! Files of other programs with any content, read in each form: what is made of them is a role with as many limits as are
//! said, and moves no terminal.
#![no_main]

use cgmgr::host::{Machine, Tasks};
use cgmgr::import::{Form, Refused, import};
use cgmgr::role::{Diagnostic, Inputs, LoadError, Overrides, Source, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let inputs = Inputs {
        machine: &Machine {
            mem_total: 8 << 30,
            swap_total: 0,
            page_size: 4096,
            cpus: 4,
            tasks: Tasks::Known(32_768),
        },
        env: &|_| None,
        load: &|path| {
            Err(LoadError {
                message: format!("no {}", path.display()),
                help: None,
            })
        },
        overrides: &Overrides::default(),
    };
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.to_owned(),
    };
    Form::of(text);
    for form in Form::ALL {
        // Of several services it is the first, and the one that is named.
        for service in [None, Some("web")] {
            if service.is_some() && form != Form::Compose {
                continue;
            }
            match import(source("fuzz.service", text), form, service, &inputs) {
                Ok(made) => {
                    for left in &made.left {
                        shown(&left.what);
                        shown(&left.why);
                    }
                    shown_lines(&made.text);
                    assert!(made.text.ends_with('\n'));
                    is_role(source("made.role.toml", &made.text), made.limits, &inputs);
                }
                Err(Refused::Because(message, help)) => assert!(!message.is_empty() && !help.is_empty()),
                Err(Refused::Mistakes(mistakes)) => assert!(mistakes.iter().any(Diagnostic::is_error)),
            }
        }
    }
});

/// Each text is a role by itself; that two of its values do not go together is the file's own mistake, and is told.
fn is_role(source: Source, limits: usize, inputs: &Inputs<'_>) {
    let text = source.text.clone();
    match resolve(source, inputs) {
        Ok((role, _)) => assert_eq!(role.declared(), limits, "{text}"),
        Err(mistakes) => {
            let told: Vec<String> = mistakes.iter().map(|mistake| mistake.render(false)).collect();
            let of_two = |mistake: &Diagnostic| !mistake.is_error() || !mistake.related.is_empty();
            assert!(mistakes.iter().all(of_two), "{text}\n{}", told.join("\n"));
        }
    }
}

/// What people see moves no terminal.
fn shown(said: &str) {
    assert!(!said.contains(char::is_control), "{said:?}");
}

fn shown_lines(text: &str) {
    text.split('\n').for_each(shown);
}
