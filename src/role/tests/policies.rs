//! The host's policy over roles and flags.

use super::*;
use crate::limits::Value;

fn parse(text: &str) -> Result<HostPolicy, Vec<Diagnostic>> {
    let source = Source {
        path: "host.toml".into(),
        text: text.into(),
    };
    HostPolicy::parse(source, &large())
}

fn policy(text: &str) -> HostPolicy {
    parse(text).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)))
}

/// A role under a policy and flags: the role, and what the policy says.
fn capped(host: &str, text: &str, flags: &[(KnobId, &str, &str)]) -> (Role, Vec<Diagnostic>) {
    let (mut role, _) =
        resolve_with(text, &[], flags, &large()).unwrap_or_else(|errors| panic!("{}", shown(&errors)));
    let warnings = policy(host).cap(&mut role.settings);
    // Twice is as good as once.
    let mut again = role.clone();
    assert_eq!(policy(host).cap(&mut again.settings).len(), 0);
    assert_eq!(again, role);
    (role, warnings)
}

fn human(role: &Role, id: KnobId) -> Option<String> {
    role.settings.value(id).map(Value::human)
}

fn origin(role: &Role, id: KnobId) -> String {
    role.settings.get(id).origin.to_string()
}

#[test]
fn what_is_above_is_lowered_and_both_places_are_named() {
    let role = "[runtime.limits]\nmemory_max = \"16 GiB\"\ncpus = 3\npids = \"max\"\nnofile = 99999\ncpu_weight = 500\n";
    let host =
        "[limits]\nmemory_max = \"8 GiB\"\ncpus = \"150%\"\npids = 4096\nnofile = 1024\ncpu_weight = 200\n";
    let (role, warnings) = capped(host, role, &[]);
    for (id, value, line) in [
        (KnobId::MemoryMax, "8 GiB", 2),
        (KnobId::Cpus, "1.5 CPUs", 3),
        (KnobId::Pids, "4096", 4),
        (KnobId::Nofile, "1024", 5),
        (KnobId::CpuWeight, "200", 6),
    ] {
        assert_eq!(human(&role, id).as_deref(), Some(value));
        assert_eq!(origin(&role, id), format!("host policy (host.toml:{line})"));
    }
    assert_eq!(warnings.len(), 5, "{}", shown(&warnings));
    assert_eq!(
        warnings[0].message,
        "memory_max = 16 GiB (rust.role.toml:2) is above the host's 8 GiB (host.toml:2): here it is 8 GiB"
    );
    assert!(warnings.iter().all(|one| one.of_host && !one.is_error()));
    assert_eq!(
        role.where_to_change(KnobId::MemoryMax),
        "limits.memory_max in host.toml"
    );
}

#[test]
fn what_is_within_stays_with_its_origin() {
    let host = "[limits]\nmemory_max = \"8 GiB\"\ncpus = 2\nnice = 3\noom_score_adj = 500\n[workloads]\nmemory_max = \"90%\"\n";
    let role = "[runtime.limits]\nmemory_max = \"8 GiB\"\ncpus = 1\nnice = 5\noom_score_adj = 998\n[workloads]\nmemory_max = \"10 GiB\"\n";
    let (role, warnings) = capped(host, role, &[]);
    assert_eq!(warnings.len(), 0, "{}", shown(&warnings));
    for (id, line) in [
        (KnobId::MemoryMax, 2),
        (KnobId::Cpus, 3),
        (KnobId::Nice, 4),
        (KnobId::WorkloadsMemoryMax, 7),
    ] {
        assert_eq!(origin(&role, id), format!("role (rust.role.toml:{line})"));
    }
}

/// Host policy, flag, role, inherited, default: the first that has a word on a knob counts, and the origin tells which.
#[test]
fn precedence_as_the_origin_tells_it() {
    let files = [(
        "base.toml",
        "[runtime.limits]\nmemory_max = \"1 GiB\"\ncpus = 1\npids = 64\nnofile = 99\n",
    )];
    let text =
        "[role]\nextends = \"base.toml\"\n[runtime.limits]\nmemory_max = \"2 GiB\"\ncpus = 2\npids = 65\n";
    let flags = [
        (KnobId::MemoryMax, "3 GiB", "--memory-max"),
        (KnobId::Cpus, "3", "--cpus"),
    ];
    let (mut role, _) = resolve_with(text, &files, &flags, &large()).expect("a good role");
    policy("[limits]\nmemory_max = \"2560 MiB\"\n").cap(&mut role.settings);
    for (id, value, from) in [
        (KnobId::MemoryMax, Some("2.5 GiB"), "host policy (host.toml:2)"),
        (KnobId::Cpus, Some("3 CPUs"), "flag (--cpus)"),
        (KnobId::Pids, Some("65"), "role (rust.role.toml:6)"),
        (KnobId::Nofile, Some("99"), "inherited (base.toml:5)"),
        (KnobId::CpuWeight, None, "default"),
    ] {
        assert_eq!(
            (human(&role, id).as_deref(), origin(&role, id).as_str()),
            (value, from)
        );
    }
    let note = role.settings.get(KnobId::MemoryMax).note.clone();
    assert_eq!(note.as_deref(), Some("instead of 3 GiB of --memory-max"));
}

#[test]
fn flags_are_capped_too() {
    let (role, warnings) = capped(
        "[limits]\nmemory_max = \"1 GiB\"\n",
        "",
        &[(KnobId::MemoryMax, "max", "--memory-max")],
    );
    assert_eq!(human(&role, KnobId::MemoryMax).as_deref(), Some("1 GiB"));
    assert_eq!(
        warnings[0].message,
        "memory_max = max (--memory-max) is above the host's 1 GiB (host.toml:2): here it is 1 GiB"
    );
    // What follows from a limit on memory follows here too.
    assert_eq!(human(&role, KnobId::MemorySwapMax).as_deref(), Some("0"));
}

#[test]
fn what_nobody_declared_is_within_as_well() {
    let host = "[limits]\nmemory_high = \"6 GiB\"\nmemory_max = \"8 GiB\"\nmemory_swap_max = \"1 GiB\"\ncpus = 2\npids = 512\n\
                cpu_weight = 50\nio_weight = 200\n[workloads]\npids = 1000\nadmission = \"refuse\"\n";
    let (role, warnings) = capped(host, "[role]\nname = \"a\"\n", &[]);
    assert_eq!(warnings.len(), 0, "{}", shown(&warnings));
    for (id, value) in [
        (KnobId::MemoryHigh, Some("6 GiB")),
        (KnobId::MemoryMax, Some("8 GiB")),
        // It follows from memory_max, and 1 GiB would be more.
        (KnobId::MemorySwapMax, Some("0")),
        (KnobId::Cpus, Some("2 CPUs")),
        (KnobId::Pids, Some("512")),
        (KnobId::CpuWeight, Some("50")),
        // The kernel's 100 is less.
        (KnobId::IoWeight, None),
        (KnobId::WorkloadsPids, Some("1000")),
        (KnobId::WorkloadsAdmission, Some("refuse")),
    ] {
        assert_eq!(human(&role, id).as_deref(), value, "{id:?}");
    }
    assert_eq!(origin(&role, KnobId::Pids), "host policy (host.toml:6)");
    let (role, _) = capped("[limits]\nmemory_swap_max = \"1 GiB\"\n", "", &[]);
    assert_eq!(human(&role, KnobId::MemorySwapMax).as_deref(), Some("1 GiB"));
}

#[test]
fn a_soft_limit_that_the_hosts_hard_one_is_below_of_has_no_effect() {
    let role = "[runtime.limits]\nmemory_high = \"12 GiB\"\nmemory_max = \"16 GiB\"\n";
    let (role, warnings) = capped("[limits]\nmemory_max = \"8 GiB\"\n", role, &[]);
    assert_eq!(human(&role, KnobId::MemoryHigh).as_deref(), Some("max"));
    assert_eq!(
        warnings[1].message,
        "memory_high = 12 GiB (rust.role.toml:2) is above the host's memory_max = 8 GiB (host.toml:2): it has no effect"
    );
    // One of the host's above a role's hard one is not worth a word.
    let host = "[limits]\nmemory_high = \"6 GiB\"\n";
    let (role, warnings) = capped(host, "[runtime.limits]\nmemory_max = \"1 GiB\"\n", &[]);
    assert_eq!((human(&role, KnobId::MemoryHigh), warnings.len()), (None, 0));
}

#[test]
fn how_favoured_a_session_may_be() {
    let host = "[limits]\nnice = 5\noom_score_adj = 500\n";
    let (role, warnings) = capped(host, "[runtime.limits]\nnice = -5\noom_score_adj = -900\n", &[]);
    assert_eq!(human(&role, KnobId::Nice).as_deref(), Some("5"));
    assert_eq!(human(&role, KnobId::OomScoreAdj).as_deref(), Some("500"));
    assert_eq!(
        warnings[0].message,
        "nice = -5 (rust.role.toml:2) is more favoured than the host's 5 (host.toml:2): here it is 5"
    );
    // What these amount to is known at launch, and is held to it there.
    for text in ["", "[runtime.limits]\nnice = \"+3\"\n"] {
        let (role, warnings) = capped(host, text, &[]);
        let nice = role.settings.get(KnobId::Nice);
        assert_eq!(
            (nice.least.map(|least| least.human()), warnings.len()),
            (Some("5".into()), 0)
        );
        assert_eq!(
            nice.note
                .as_deref()
                .map(|note| note.contains("at least 5 on this host (host.toml:2)")),
            Some(true)
        );
    }
    let (role, _) = capped(
        "[limits]\nnice = \"+7\"\n",
        "[runtime.limits]\nnice = \"+3\"\n",
        &[],
    );
    assert_eq!(human(&role, KnobId::Nice).as_deref(), Some("+7"));
}

#[test]
fn the_hosts_words_on_the_agent_and_on_switches_count() {
    let role =
        "[runtime.limits.oom]\ngroup = false\n[agent]\nmemory_min = \"1 GiB\"\nmemory_low = \"2 GiB\"\n";
    let host = "[limits.oom]\ngroup = true\n[agent]\nmemory_min = \"512 MiB\"\ncpu_weight = 1000\n";
    let (role, warnings) = capped(host, role, &[]);
    assert_eq!(human(&role, KnobId::OomGroup).as_deref(), Some("true"));
    assert_eq!(human(&role, KnobId::AgentMemoryMin).as_deref(), Some("512 MiB"));
    assert_eq!(human(&role, KnobId::AgentMemoryLow).as_deref(), Some("2 GiB"));
    assert_eq!(origin(&role, KnobId::AgentCpuWeight), "host policy (host.toml:5)");
    let messages: Vec<_> = warnings.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "oom_group = false (rust.role.toml:2) gives way to the host's true (host.toml:2): here it is true",
            "agent.memory_min = 1 GiB (rust.role.toml:4) gives way to the host's 512 MiB (host.toml:4): here it is 512 MiB",
        ]
    );
}

#[test]
fn the_ceiling_over_all_is_the_lower_of_the_two() {
    let host = "[workloads]\nmemory_max = \"50%\"\ncpus = 4\n";
    let (role, warnings) = capped(
        host,
        "[runtime.limits]\nmemory_max = \"40 GiB\"\n[workloads]\nmemory_max = \"80%\"\ncpus = 2\n",
        &[],
    );
    assert_eq!(
        human(&role, KnobId::WorkloadsMemoryMax).as_deref(),
        Some("32 GiB")
    );
    assert_eq!(human(&role, KnobId::WorkloadsCpus).as_deref(), Some("2 CPUs"));
    assert_eq!(warnings.len(), 1, "{}", shown(&warnings));
    let note = role.settings.get(KnobId::MemoryMax).note.clone();
    assert_eq!(
        note.as_deref(),
        Some("effectively 32 GiB: workloads.memory_max of the host")
    );
}

#[test]
fn every_mistake_of_a_policy_at_once() {
    let mistakes = parse(
        "[limits]\nmemry_max = 1\nmemory_max = \"16 GX\"\ncpus = \"$CPUS\"\npids = 0\n[limits.oom]\nbanana = 1\n\
         [runtime.limits]\npids = 1\n[workload]\ncpus = 1\n[role]\nname = \"x\"\n",
    )
    .expect_err("mistakes");
    let said: Vec<_> = mistakes
        .iter()
        .map(|one| {
            (
                one.line.unwrap_or_default(),
                one.message.as_str(),
                one.help.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    let expected = [
        (
            2,
            "unknown key `memry_max` in [limits]",
            "did you mean `memory_max`?",
        ),
        (3, "limits.memory_max = \"16 GX\": unknown unit \"GX\"", "use KiB"),
        (
            4,
            "limits.cpus = \"$CPUS\": variables have no meaning here",
            "write the value itself",
        ),
        (
            5,
            "limits.pids = 0: with 0 the session could not start a single process",
            "write 1",
        ),
        (
            7,
            "unknown key `banana` in [limits.oom]",
            "[limits.oom] has group",
        ),
        (
            8,
            "unknown `runtime`",
            "write [limits] instead of [runtime.limits]",
        ),
        (10, "unknown `workload`", "did you mean `workloads`?"),
        (
            12,
            "unknown `role`",
            "a host policy has [limits], [agent], [workloads] and [events]",
        ),
    ];
    assert_eq!(said.len(), expected.len(), "{}", shown(&mistakes));
    for (said, expected) in said.iter().zip(expected) {
        assert_eq!((said.0, said.1), (expected.0, expected.1));
        assert!(said.2.starts_with(expected.2), "{said:?}");
    }
    assert!(
        parse("[limits\n").expect_err("no TOML")[0]
            .message
            .starts_with("not TOML")
    );
    assert!(parse("").is_ok_and(|policy| policy.is_empty()));
    let least = parse("[limits]\nmemory_max = \"0.0001%\"\n").expect_err("too little");
    assert!(
        least[0].message.starts_with("limits.memory_max = \"0.0001%\": "),
        "{}",
        least[0].message
    );
}

#[test]
fn what_people_are_told_of_is_in_events() {
    let without = policy("").events().clone();
    assert_eq!(without, Events::default());
    assert!(without.tells_of("oom_kill") && without.tells_of("stalled") && without.tells_of("drifted"));
    assert!(!without.tells_of("exited") && without.on_event.is_empty());
    let said = "[events]\non_event = [\"/bin/tell\", \"a b\"]\nevents = [\"exited\"]\ndrift = \"repair\"\n";
    let said = policy(said);
    assert!(said.is_empty(), "it is no limit");
    assert_eq!(said.events().on_event, ["/bin/tell", "a b"]);
    assert_eq!(said.events().events, ["exited"]);
    assert_eq!(said.events().drift, DriftAction::Repair);
    assert_eq!(policy("[events]\nevents = []\n").events().events.len(), 0);
}

#[test]
fn mistakes_in_events_are_told_at_once() {
    let text = "[events]\non_event = [\"tell\", \"/$HOME\"]\nevents = [\"oom_kil\", 5]\ndrift = \"undo\"\non_evnt = []\n\
                banana = 1\n";
    let mistakes = parse(text).expect_err("five lines of mistakes");
    let said: Vec<_> = mistakes
        .iter()
        .map(|one| {
            (
                one.line.unwrap_or_default(),
                one.message.as_str(),
                one.help.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    let expected = [
        (
            2,
            "events.on_event: \"tell\" is not an absolute path",
            "write the program's whole path",
        ),
        (
            2,
            "events.on_event = \"/$HOME\": variables have no meaning here",
            "write the value itself",
        ),
        (
            3,
            "events.events: \"oom_kil\": there is no such event",
            "did you mean `oom_kill`?",
        ),
        (
            3,
            "events.events = 5: expected text, found a whole number",
            "put it in quotes",
        ),
        (
            4,
            "events.drift = \"undo\": no such policy",
            "write \"record\" or \"repair\"",
        ),
        (5, "unknown key `on_evnt` in [events]", "did you mean `on_event`?"),
        (
            6,
            "unknown key `banana` in [events]",
            "[events] has on_event, events, drift",
        ),
    ];
    assert_eq!(said.len(), expected.len(), "{}", shown(&mistakes));
    for (said, expected) in said.iter().zip(expected) {
        assert_eq!((said.0, said.1), (expected.0, expected.1));
        assert!(said.2.starts_with(expected.2), "{said:?}");
    }
    for (text, message) in [
        ("on_event = [\"tell\"]", "\"tell\" is not an absolute path"),
        ("on_event = [5, \"--now\"]", "expected text, found a whole number"),
        ("on_event = []", "there is no program in it"),
        (
            "on_event = \"/bin/tell\"",
            "expected an array of texts, found text",
        ),
        ("on_event = [\"/a\\u0000\"]", "has a NUL in it"),
        ("events = [\"oom_kil\"]", "there is no such event"),
        ("events = [\"banana\"]", "there is no such event"),
        ("drift = true", "expected text, found true or false"),
    ] {
        let mistakes = parse(&format!("[events]\n{text}\n")).expect_err(text);
        assert_eq!(mistakes.len(), 1, "{}", shown(&mistakes));
        assert!(
            mistakes[0].message.contains(message),
            "{text}: {}",
            mistakes[0].message
        );
        assert!(mistakes[0].help.is_some(), "{text}");
    }
    assert!(
        parse("events = 3\n").expect_err("no table")[0]
            .message
            .contains("expected a table")
    );
}
