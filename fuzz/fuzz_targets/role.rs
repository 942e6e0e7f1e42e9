//! Role files of any content: each mistake is shown at a place that exists, and moves no terminal.
#![no_main]

use cgmgr::host::{Machine, Tasks};
use cgmgr::role::{HostPolicy, Inputs, LoadError, Overrides, Source, resolve};
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
        env: &|name| (name == "A").then(|| "8\u{1b}[31m".to_owned()),
        load: &|path| {
            Err(LoadError {
                message: format!("no {}", path.display()),
                help: None,
            })
        },
        overrides: &Overrides::default(),
    };
    let source = Source {
        path: "fuzz.role.toml".into(),
        text: text.to_owned(),
    };
    let policy = HostPolicy::parse(source.clone(), inputs.machine);
    let diagnostics = match resolve(source, &inputs) {
        Ok((mut role, mut warnings)) => {
            if let Ok(policy) = &policy {
                warnings.extend(policy.cap(&mut role.settings));
            }
            for setting in role.settings.iter() {
                let said = format!("{:?} {}", setting.text(), setting.human());
                assert!(!said.contains(char::is_control), "{said:?}");
            }
            warnings
        }
        Err(mistakes) => {
            assert!(mistakes.iter().any(|mistake| mistake.is_error()));
            mistakes
        }
    };
    let of_policy = policy.err().unwrap_or_default();
    for diagnostic in diagnostics.iter().chain(&of_policy) {
        let plain = diagnostic.render(false);
        assert!(
            !plain.contains(|c: char| c.is_control() && c != '\n'),
            "{plain:?}"
        );
        assert!(diagnostic.render(true).len() >= plain.len());
        let spans = diagnostic.related.iter().map(|related| &related.span);
        for span in diagnostic.span.iter().chain(spans) {
            assert!(text.get(span.clone()).is_some(), "{span:?}");
        }
    }
});
