//! Whole role files: what they mean on a machine, and what is said about their mistakes.

use std::collections::HashMap;
use std::path::Path;

mod dialects;
mod policies;

use super::*;
use crate::host::{Machine, Tasks};
use crate::limits::{KnobId, Origin};

const GIB: u64 = 1 << 30;

/// A machine with room and with swap, on which nothing but the role itself is worth a warning.
fn large() -> Machine {
    Machine {
        mem_total: 64 * GIB,
        swap_total: 8 * GIB,
        page_size: 4096,
        cpus: 16,
        tasks: Tasks::Known(500_000),
    }
}

/// A machine without either.
fn small() -> Machine {
    Machine {
        mem_total: 2 * GIB,
        swap_total: 0,
        cpus: 2,
        tasks: Tasks::Known(15_000),
        ..large()
    }
}

/// Resolves `rust.role.toml` with this text, beside other files, in an environment with MEM and EMPTY, under flags.
fn resolve_with(
    text: &str,
    files: &[(&str, &str)],
    flags: &[(KnobId, &str, &str)],
    machine: &Machine,
) -> Resolved {
    let files: HashMap<_, _> = files.iter().copied().collect();
    let load = |path: &Path| match path.to_str().and_then(|path| files.get(path)) {
        Some(text) => Ok(text.to_string()),
        None => Err(LoadError {
            message: "there is no such file".into(),
            help: Some("check the path".into()),
        }),
    };
    let env = |name: &str| match name {
        "MEM" => Some("8".to_string()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let mut overrides = Overrides::default();
    for (id, text, flag) in flags {
        overrides.push(*id, *text, *flag);
    }
    let source = Source {
        path: "rust.role.toml".into(),
        text: text.into(),
    };
    resolve(
        source,
        &Inputs {
            machine,
            env: &env,
            load: &load,
            overrides: &overrides,
        },
    )
}

fn good(text: &str) -> (Role, Vec<Diagnostic>) {
    resolve_with(text, &[], &[], &large()).unwrap_or_else(|errors| panic!("{}", shown(&errors)))
}

fn errors(text: &str) -> Vec<Diagnostic> {
    resolve_with(text, &[], &[], &large()).expect_err(text)
}

fn shown(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .map(|diagnostic| format!("{diagnostic}\n\n"))
        .collect()
}

fn text_of(role: &Role, id: KnobId) -> Option<String> {
    role.settings.get(id).text()
}

const FULL: &str = r#"
version = "v1"

[role]
name = "rust"

[runtime.limits]
memory_high = "12 GiB"
memory_max  = "16 GiB"
memory_swap_max = "0"
cpus        = "3.0"
cpu_weight  = 100
io_weight   = 100
pids        = 4096
nofile      = 16384
nice        = "+5"
oom_score_adj = 998
stall = "lift"

[runtime.limits.oom]
group = true
preserve_state = true
notify = true

[agent]
memory_min = "256 MiB"
memory_low = "512 MiB"
cpu_weight = 1000
io_weight  = 1000
oom_score_adj = -900
nice = 0

[workloads]
memory_high = "80%"
memory_max  = "90%"
cpus = "7.5"
pids = "80%"
admission = "queue"
"#;

#[test]
fn every_knob_has_its_text_for_the_kernel() {
    let (role, _) = good(FULL);
    let found: Vec<_> = role
        .settings
        .iter()
        .map(|one| (one.knob.key, one.text().expect(one.knob.key)))
        .collect();
    let expected = [
        ("memory_high", "12884901888"),
        ("memory_max", "17179869184"),
        ("memory_swap_max", "0"),
        ("cpus", "300000 100000"),
        ("cpu_weight", "100"),
        ("io_weight", "default 100"),
        ("pids", "4096"),
        ("nofile", "16384"),
        ("nice", "+5"),
        ("oom_score_adj", "998"),
        ("oom_group", "1"),
        ("oom_preserve_state", "true"),
        ("oom_notify", "true"),
        ("stall", "lift"),
        ("agent.memory_min", "268435456"),
        ("agent.memory_low", "536870912"),
        ("agent.cpu_weight", "1000"),
        ("agent.io_weight", "default 1000"),
        ("agent.oom_score_adj", "-900"),
        ("agent.nice", "0"),
        ("workloads.memory_high", "54975581388"),
        ("workloads.memory_max", "61847529062"),
        ("workloads.cpus", "750000 100000"),
        ("workloads.pids", "400000"),
        ("workloads.admission", "queue"),
    ];
    assert_eq!(found, expected.map(|(key, text)| (key, text.to_string())));
    assert_eq!((role.name.as_str(), role.declared()), ("rust", 25));
    let note = |id| role.settings.get(id).note.clone().unwrap_or_default();
    assert_eq!(note(KnobId::WorkloadsMemoryMax), "\"90%\" of 64 GiB");
    assert_eq!(note(KnobId::WorkloadsAdmission), "not in this version");
}

#[test]
fn swap_is_zero_where_memory_is_limited() {
    for (text, swap, label) in [
        ("memory_max = \"1 GiB\"", "0", "derived"),
        (
            "memory_max = \"1 GiB\"\nmemory_swap_max = \"2 GiB\"",
            "2147483648",
            "role",
        ),
        ("memory_max = \"1 GiB\"\nmemory_swap_max = \"max\"", "max", "role"),
        ("memory_max = \"max\"", "max", "default"),
        ("memory_high = \"1 GiB\"", "max", "default"),
    ] {
        let (role, _) = good(&format!("[runtime.limits]\n{text}\n"));
        let setting = role.settings.get(KnobId::MemorySwapMax);
        assert_eq!(
            (setting.text().as_deref(), setting.origin.label()),
            (Some(swap), label),
            "{text}"
        );
    }
}

#[test]
fn absent_oom_group_is_false_by_default() {
    let (role, _) = good("[runtime.limits]\npids = 100\n");
    let group = role.settings.get(KnobId::OomGroup);
    assert_eq!((&group.value, group.human().as_str()), (&None, "false (default)"));
    assert_eq!(role.settings.get(KnobId::Nice).origin.label(), "derived");
}

#[test]
fn all_mistakes_at_once() {
    let text = r#"version = "v2"
[role]
name = "a b"
[runtime.limits]
memory_max = "16 GX"   # no such unit
memory-high = "1 GiB"
cpus = "$CPUS"
pids = 0
[agent]
oom_group = true
[workload]
memory_max = "90%"
"#;
    let expected = r#"error: version = "v2": not a version that cgmgr knows
 --> rust.role.toml:1:11
  |
1 | version = "v2"
  |           ^^^^
  |
  = help: write version = "v1", or leave it out

error: role.name = "a b": ' ' cannot be in a name, which has only A-Z a-z 0-9 : _ . -
 --> rust.role.toml:3:8
  |
3 | name = "a b"
  |        ^^^^^
  |
  = help: sessions and their groups are named after it

error: runtime.limits.memory_max = "16 GX": unknown unit "GX"
 --> rust.role.toml:5:14
  |
5 | memory_max = "16 GX"   # no such unit
  |              ^^^^^^^
  |
  = help: use KiB, MiB, GiB, TiB or PiB (K, M, G, T and P are the same), KB, MB, GB, TB or PB (decimal), or %

error: unknown key `memory-high` in [runtime.limits]
 --> rust.role.toml:6:1
  |
6 | memory-high = "1 GiB"
  | ^^^^^^^^^^^
  |
  = help: did you mean `memory_high`?

error: runtime.limits.cpus = "$CPUS": the environment variable CPUS is not set
 --> rust.role.toml:7:8
  |
7 | cpus = "$CPUS"
  |        ^^^^^^^
  |
  = help: set it, or write the value itself

error: runtime.limits.pids = 0: with 0 the session could not start a single process
 --> rust.role.toml:8:8
  |
8 | pids = 0
  |        ^
  |
  = help: write 1 to 4194304, or "max" for no limit

error: agent.oom_group: a group OOM kill here would kill everything in the agent's part at once
  --> rust.role.toml:10:1
   |
10 | oom_group = true
   | ^^^^^^^^^
   |
   = help: set `group` in [runtime.limits.oom]: it acts on each session alone

error: unknown table `workload`
  --> rust.role.toml:11:2
   |
11 | [workload]
   |  ^^^^^^^^
   |
   = help: did you mean `workloads`?

"#;
    assert_eq!(shown(&errors(text)), expected);
}

#[test]
fn syntax_errors_do_not_hide_the_others() {
    let found = errors("[runtime.limits]\nmemory_max = 16 GiB\ncpus = 300%\npids = 0\npids = 1\n");
    let lines: Vec<_> = found
        .iter()
        .map(|one| (one.line.unwrap_or(0), one.message.as_str()))
        .collect();
    assert_eq!(
        lines,
        [
            (
                2,
                "not TOML: string values must be quoted, expected literal string"
            ),
            (
                3,
                "not TOML: string values must be quoted, expected literal string"
            ),
            (
                4,
                "runtime.limits.pids = 0: with 0 the session could not start a single process"
            ),
            (5, "not TOML: duplicate key"),
        ]
    );
}

#[test]
fn two_places_are_shown_for_two_values() {
    let found = errors(
        "[runtime.limits]\nmemory_high = \"17 GiB\"\nmemory_swap_max = \"max\"\nmemory_max = \"16 GiB\"\n",
    );
    let expected = r#"error: memory_high = "17 GiB" is above memory_max = "16 GiB"
 --> rust.role.toml:2:15
  |
2 | memory_high = "17 GiB"
  |               ^^^^^^^^ never reached
3 | memory_swap_max = "max"
4 | memory_max = "16 GiB"
  |              -------- the session is killed here
  |
  = help: lower memory_high, or raise memory_max

"#;
    assert_eq!(shown(&found), expected);
}

#[test]
fn one_message_for_each_mistake() {
    for (text, message) in [
        ("version = 1", "version = 1: not a version that cgmgr knows"),
        (
            "version = \"v1alpha\"",
            "version = \"v1alpha\": not a version that cgmgr knows",
        ),
        ("verison = \"v1\"", "unknown key `verison`"),
        ("[agnet]", "unknown table `agnet`"),
        ("[Agent]", "unknown table `Agent`"),
        ("[runtime.limit]", "unknown table `limit` in [runtime]"),
        ("[role]\nnmae = \"x\"", "unknown key `nmae` in [role]"),
        (
            "[role]\nname = 3",
            "role.name = 3: expected text, found a whole number",
        ),
        ("[role]\nname = \"\"", "role.name = \"\": a name cannot be empty"),
        ("[role]\nextends = \"\"", "role.extends = \"\": an empty path"),
        (
            "runtime = 3",
            "runtime = 3: expected a table, found a whole number",
        ),
        ("[[agent]]", "agent = [[agent]]: expected a table, found an array"),
        (
            "[runtime.limits]\noom = true",
            "runtime.limits.oom = true: expected a table, found true or false",
        ),
        (
            "[runtime.limits]\nnice = +5",
            "runtime.limits.nice = +5: without quotes the sign is lost",
        ),
        (
            "[runtime.limits]\ncpus = \"$\"",
            "runtime.limits.cpus = \"$\": a `$` without the name of a variable",
        ),
        (
            "[runtime.limits]\ncpus = \"${X\"",
            "runtime.limits.cpus = \"${X\": a `${` without its `}`",
        ),
        (
            "[runtime.limits]\nmemory_max = \"${EMPTY}\"",
            "runtime.limits.memory_max = \"${EMPTY}\" (which is \"\"): the value is empty",
        ),
        (
            "[runtime.limits]\nmemory_max = \"512 KiB\"",
            "runtime.limits.memory_max = \"512 KiB\": 524288 bytes is below 1 MiB, and the kernel rounds down to whole pages",
        ),
        (
            "[workloads]\noom = { group = true }",
            "workloads.oom: a group OOM kill here would kill every session at once",
        ),
        (
            "[workloads]\nmemory_high = \"90%\"\nmemory_max = \"80%\"",
            "workloads.memory_high = \"90%\" is above workloads.memory_max = \"80%\"",
        ),
        (
            "[runtime.limits]\nmemory_max = \"8 GiB\"\n[workloads]\nmemory_max = \"4 GiB\"",
            "memory_max = \"8 GiB\" is above workloads.memory_max = \"4 GiB\", the ceiling over all sessions",
        ),
    ] {
        let found = errors(text);
        assert_eq!(
            found.iter().map(|one| one.message.as_str()).collect::<Vec<_>>(),
            [message],
            "{text}"
        );
    }
}

#[test]
fn remedies_of_unknown_keys() {
    for (text, help) in [
        ("[runtime.limits]\nmemory = 1", "did you mean `memory_max`?"),
        ("[runtime.limits]\ncpu = 1", "did you mean `cpus`?"),
        (
            "[runtime.limits]\nmemory-swap-max = 1",
            "did you mean `memory_swap_max`?",
        ),
        (
            "[runtime.limits]\noom_group = true",
            "write `group` in [runtime.limits.oom]",
        ),
        (
            "[runtime.limits]\nmemory_min = 1",
            "`memory_min` belongs into [agent]",
        ),
        (
            "[agent]\nmemory_max = 1",
            "`memory_max` belongs into [runtime.limits] or [workloads]",
        ),
        (
            "[runtime.limits.oom]\nbanana = 1",
            "[runtime.limits.oom] has group, preserve_state, notify",
        ),
    ] {
        assert_eq!(errors(text)[0].help.as_deref(), Some(help), "{text}");
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let (role, warnings) = good(
        "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\n[docker]\ndind = true\n[runtime]\nshell = \"zsh\"\n\
         [runtime.limits]\npids = 64\n[hooks]\nx = [1]\n",
    );
    assert_eq!(
        (role.name.as_str(), role.declared(), warnings.len()),
        ("rust", 1, 0)
    );
}

#[test]
fn a_file_without_limits_is_told_so() {
    for text in [
        "",
        "[isolation]\nreadable = []",
        "dockerfile = \"Dockerfile\"\n[docker]\nmin_profile = \"locked\"\n",
    ] {
        let (_, warnings) = good(text);
        let messages: Vec<_> = warnings.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(messages, ["no limits were found in this file"], "{text}");
    }
}

#[test]
fn warnings_about_the_machine() {
    let limits = |text: &str| format!("[runtime.limits]\n{text}\n");
    for (text, message) in [
        (
            limits("memory_high = \"1 GiB\"\nmemory_max = \"2 GiB\""),
            "memory_high = \"1 GiB\" with memory_swap_max = 0",
        ),
        (
            limits("memory_high = \"1 GiB\""),
            "memory_high = \"1 GiB\" on this machine, which has no swap",
        ),
        (
            limits("memory_max = \"3 GiB\""),
            "memory_max = \"3 GiB\" is more than this machine has: effectively it is 2 GiB",
        ),
        (limits("cpus = 3"), "cpus = 3 is more than this machine's 2 CPUs"),
        (limits("pids = 15"), "pids = 15 leaves little room"),
        (
            limits("memory_max = \"1 GiB\"\n[workloads]\nmemory_max = \"25%\""),
            "memory_max = \"1 GiB\" is above workloads.memory_max = \"25%\": effectively it is 512 MiB",
        ),
        (
            limits("cpus = 2\n[workloads]\ncpus = \"1.5\""),
            "cpus = 2 is above workloads.cpus = \"1.5\": effectively it is 1.5 CPUs",
        ),
        (
            "[agent]\nmemory_min = \"512 MiB\"\n[workloads]\nmemory_max = \"90%\"".into(),
            "agent.memory_min = \"512 MiB\" and workloads.memory_max = \"90%\" (1.8 GiB) together are more than",
        ),
        (
            "[agent]\nmemory_min = \"512 MiB\"\nmemory_low = \"256 MiB\"".into(),
            "agent.memory_low = \"256 MiB\" is below agent.memory_min = \"512 MiB\": it has no effect",
        ),
        (
            "[workloads]\nmemory_high = \"80%\"\nmemory_max = \"1 GiB\"".into(),
            "workloads.memory_high = \"80%\" is above workloads.memory_max = \"1 GiB\" on this machine (1.6 GiB and 1 GiB)",
        ),
    ] {
        let (_, warnings) =
            resolve_with(&text, &[], &[], &small()).unwrap_or_else(|errors| panic!("{}", shown(&errors)));
        assert_eq!(warnings.len(), 1, "{text}\n{}", shown(&warnings));
        assert!(
            warnings[0].message.starts_with(message),
            "{}",
            warnings[0].message
        );
        assert!(warnings[0].help.is_some() && !warnings[0].is_error());
    }
}

#[test]
fn three_hundred_cpus_are_three_hundred_percent() {
    let (_, warnings) = good("[runtime.limits]\ncpus = 300\n");
    assert_eq!(
        warnings[0].help.as_deref(),
        Some("did you mean \"300%\", a percentage of one CPU?")
    );
}

#[test]
fn variables_are_expanded() {
    let (role, _) = good("[runtime.limits]\nmemory_max = \"$MEM GiB\"\ncpus = \"${MEM}\"\n");
    assert_eq!(text_of(&role, KnobId::MemoryMax).as_deref(), Some("8589934592"));
    assert_eq!(text_of(&role, KnobId::Cpus).as_deref(), Some("800000 100000"));
}

#[test]
fn a_role_goes_before_what_it_extends() {
    let files = [
        (
            "base.toml",
            "[role]\nname = \"base\"\nextends = \"lib/root.toml\"\n[runtime.limits]\npids = 64\ncpus = 2\n",
        ),
        (
            "lib/root.toml",
            "[runtime.limits]\npids = 32\nnofile = 99\n[workloads]\ncpus = 9\n",
        ),
    ];
    let text = "[role]\nextends = \"base.toml\"\n[runtime.limits]\ncpus = 3\n";
    let (role, warnings) = resolve_with(text, &files, &[], &large()).expect("a good role");
    assert_eq!(
        (role.name.as_str(), role.declared(), warnings.len()),
        ("rust", 4, 0)
    );
    assert_eq!(
        role.inherits,
        [Path::new("base.toml"), Path::new("lib/root.toml")]
    );
    let origin = |id| role.settings.get(id).origin.to_string();
    assert_eq!(origin(KnobId::Cpus), "role (rust.role.toml:4)");
    assert_eq!(origin(KnobId::Pids), "inherited (base.toml:5)");
    assert_eq!(origin(KnobId::Nofile), "inherited (lib/root.toml:3)");
    assert_eq!(
        role.settings.get(KnobId::Cpus).note.as_deref(),
        Some("instead of 2 of base.toml:6")
    );
    assert_eq!(text_of(&role, KnobId::Pids).as_deref(), Some("64"));
}

#[test]
fn circles_and_missing_files_are_refused() {
    let extends = |path: &str| format!("[role]\nextends = \"{path}\"\n[runtime.limits]\npids = 64\n");
    let mistakes = |text: &str, files: &[(&str, &str)]| {
        let found = resolve_with(text, files, &[], &large()).expect_err("a circle");
        found
            .into_iter()
            .map(|one| (one.path.unwrap_or_default(), one.message))
            .collect::<Vec<_>>()
    };
    let expected = "role.extends = \"./x/../rust.role.toml\": roles extend each other in a circle \
                    (rust.role.toml -> ./x/../rust.role.toml)";
    assert_eq!(
        mistakes(&extends("./x/../rust.role.toml"), &[]),
        [("rust.role.toml".into(), expected.into())]
    );
    let two = mistakes(&extends("b.toml"), &[("b.toml", &extends("rust.role.toml"))]);
    assert_eq!(two.len(), 1);
    assert_eq!(two[0].0, Path::new("b.toml"));
    let missing = mistakes(&extends("gone.toml"), &[]);
    assert_eq!(
        missing[0].1,
        "role.extends = \"gone.toml\": gone.toml: there is no such file"
    );
    let chain: Vec<(String, String)> = (0..40)
        .map(|n| (format!("{n}.toml"), extends(&format!("{}.toml", n + 1))))
        .collect();
    let chain: Vec<_> = chain
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    assert!(
        mistakes(&extends("0.toml"), &chain)[0]
            .1
            .contains("more than 16 roles")
    );
}

#[test]
fn mistakes_of_every_file_are_reported_in_their_own_place() {
    let files = [("base.toml", "\n[runtime.limits]\npids = 0\n")];
    let text = "[role]\nextends = \"base.toml\"\n[runtime.limits]\ncpus = 0\n";
    let found = resolve_with(text, &files, &[], &large()).expect_err("two mistakes");
    let places: Vec<_> = found
        .iter()
        .map(|one| (one.path.clone().unwrap_or_default(), one.line))
        .collect();
    assert_eq!(
        places,
        [("rust.role.toml".into(), Some(4)), ("base.toml".into(), Some(3))]
    );
}

#[test]
fn values_of_two_files_are_compared_with_both_places() {
    let files = [(
        "base.toml",
        "[runtime.limits]\nmemory_high = \"12 GiB\"\nmemory_max = \"16 GiB\"\n",
    )];
    let text = "[role]\nextends = \"base.toml\"\n[runtime.limits]\nmemory_max = \"8 GiB\"\n";
    let found = resolve_with(text, &files, &[], &large()).expect_err("high above max");
    let error = found.iter().find(|one| one.is_error()).expect("an error");
    assert_eq!(
        error.message,
        "memory_high = \"12 GiB\" is above memory_max = \"8 GiB\""
    );
    assert_eq!(
        (error.path.as_deref(), error.line),
        (Some(Path::new("base.toml")), Some(2))
    );
    assert_eq!(
        (error.related[0].path.as_path(), error.related[0].line),
        (Path::new("rust.role.toml"), 4)
    );
    assert!(error.render(false).contains("rust.role.toml:4:14"), "{error}");
}

#[test]
fn flags_go_before_the_role() {
    let text = "[runtime.limits]\nmemory_high = \"12 GiB\"\nmemory_max = \"16 GiB\"\ncpus = 2\n";
    let flags = [
        (KnobId::MemoryMax, "8GiB", "--memory-max"),
        (KnobId::Nice, "+3", "--nice"),
    ];
    let (role, warnings) = resolve_with(text, &[], &flags, &large()).expect("a good role");
    let max = role.settings.get(KnobId::MemoryMax);
    assert_eq!(
        (max.text().as_deref(), &max.origin),
        (Some("8589934592"), &Origin::Flag("--memory-max".into()))
    );
    assert_eq!(
        max.note.as_deref(),
        Some("instead of \"16 GiB\" of rust.role.toml:3")
    );
    assert_eq!(text_of(&role, KnobId::Nice).as_deref(), Some("+3"));
    // The soft limit of the role is above the flag's hard one: it is lifted, and that is said.
    assert_eq!(text_of(&role, KnobId::MemoryHigh).as_deref(), Some("max"));
    assert_eq!(
        warnings
            .iter()
            .map(|one| one.message.as_str())
            .collect::<Vec<_>>(),
        ["memory_high = \"12 GiB\" is above --memory-max 8GiB: it has no effect"]
    );
}

#[test]
fn mistakes_in_flags_name_the_flag() {
    let flags = [
        (KnobId::MemoryMax, "8GX", "--memory-max"),
        (KnobId::Pids, "0", "--pids"),
    ];
    let found =
        resolve_with("[runtime.limits]\ncpus = 0\n", &[], &flags, &large()).expect_err("three mistakes");
    let messages: Vec<_> = found.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "--memory-max \"8GX\": unknown unit \"GX\"",
            "--pids \"0\": with 0 the session could not start a single process",
            "runtime.limits.cpus = 0: no CPU time at all would stop every process",
        ]
    );
    assert_eq!(
        found[0].render(false),
        "error: --memory-max \"8GX\": unknown unit \"GX\"\n |\n = help: use KiB, MiB, GiB, TiB or PiB (K, M, G, T and P \
         are the same), KB, MB, GB, TB or PB (decimal), or %"
    );
}

#[test]
fn flags_alone_make_a_role() {
    let mut flags = Overrides::default();
    flags.push(KnobId::MemoryMax, "1GiB", "--memory-max");
    let (role, warnings) = Role::without_file(&flags, &large()).expect("a good role");
    assert_eq!(
        (role.name.as_str(), role.file, warnings.len()),
        (Role::ADHOC, None, 0)
    );
    assert_eq!(
        role.settings.get(KnobId::MemorySwapMax).text().as_deref(),
        Some("0")
    );
    flags.push(KnobId::MemoryHigh, "2GiB", "--memory-high");
    let found = Role::without_file(&flags, &large()).expect_err("high above max");
    assert_eq!(found[0].message, "--memory-high 2GiB is above --memory-max 1GiB");
    let (none, warnings) = Role::without_file(&Overrides::default(), &large()).expect("no limits");
    assert_eq!((none.declared(), warnings.len()), (0, 0));
}

#[test]
fn a_percentage_that_is_too_little_is_an_error_unless_a_flag_replaces_it() {
    let text = "[runtime.limits]\nmemory_max = \"0.01%\"\n";
    let found = resolve_with(text, &[], &[], &small()).expect_err("214748 bytes");
    assert!(
        found[0]
            .message
            .starts_with("runtime.limits.memory_max = \"0.01%\": 214748 bytes is below 1 MiB")
    );
    let flags = [(KnobId::MemoryMax, "1G", "--memory-max")];
    assert!(resolve_with(text, &[], &flags, &small()).is_ok());
}

#[test]
fn the_default_name_is_checked_too() {
    let overrides = Overrides::default();
    let load = |_: &Path| -> Result<String, LoadError> { unreachable!("nothing is extended") };
    let inputs = Inputs {
        machine: &large(),
        env: &|_| None,
        load: &load,
        overrides: &overrides,
    };
    let source = Source {
        path: "my role\n.toml".into(),
        text: "[runtime.limits]\npids = 64\n".into(),
    };
    let found = resolve(source, &inputs).expect_err("a space");
    assert!(
        found[0]
            .message
            .starts_with("the file's name \"my role\\n\" cannot be the role's: ' '")
    );
    assert!(!found[0].render(false).contains("role\n."), "{}", found[0]);
}

#[test]
fn positions_survive_crlf_bom_and_wide_characters() {
    let found = errors("\u{feff}[runtime.limits]\r\n\"pids\"=0 # ä\r\n'ä' = 1\r\n");
    let places: Vec<_> = found.iter().map(|one| (one.line, one.column)).collect();
    assert_eq!(places, [(Some(2), Some(8)), (Some(3), Some(1))]);
}

#[test]
fn json_has_the_places() {
    let found = errors("[runtime.limits]\npids = 0\n");
    let json = serde_json::to_value(&found[0]).expect("JSON");
    let expected = serde_json::json!({
        "severity": "error",
        "path": "rust.role.toml",
        "span": { "start": 24, "end": 25 },
        "line": 2,
        "column": 8,
        "message": "runtime.limits.pids = 0: with 0 the session could not start a single process",
        "label": null,
        "help": "write 1 to 4194304, or \"max\" for no limit",
        "related": [],
    });
    assert_eq!(json, expected);
}

#[test]
fn too_many_mistakes_are_counted() {
    let keys: String = (0..5000).map(|n| format!("banana{n} = 1\n")).collect();
    let found = errors(&format!("[agent]\n{keys}"));
    assert_eq!(found.len(), 101);
    assert_eq!(found[100].message, "4900 more mistakes");
    assert!(found[100].is_error());
    // A hostile file of the largest size takes no time to speak of.
    let keys: String = (0..30_000).map(|n| format!("b{n}=1\n")).collect();
    assert_eq!(errors(&format!("[agent]\n{keys}")).len(), 101);
    assert_eq!(good(&keys).1.len(), 1);
}

/// Every prefix of a file, every file with one byte replaced or a piece taken out: a role or mistakes that can be
/// shown, with places that are in the file.
#[test]
fn never_panics() {
    let try_it = |text: &str| {
        let diagnostics = match resolve_with(text, &[], &[], &small()) {
            Ok((_, warnings)) => warnings,
            Err(errors) => {
                assert!(errors.iter().any(Diagnostic::is_error), "{text}");
                errors
            }
        };
        for one in diagnostics {
            assert!(!one.message.is_empty());
            assert!(
                one.span.as_ref().is_none_or(|span| span.end <= text.len()),
                "{text}"
            );
            let shown = one.render(true);
            assert!(one.path.is_none() || shown.contains("rust.role.toml"), "{shown}");
        }
    };
    for end in (0..FULL.len()).step_by(3) {
        try_it(&FULL[..end]);
        try_it(&FULL[end..]);
    }
    for at in (0..FULL.len()).step_by(2) {
        for replacement in ["\"", "[", "\u{0}", "ä", "9", "=", "\n", "{", "-"] {
            try_it(&format!("{}{replacement}{}", &FULL[..at], &FULL[at + 1..]));
        }
        try_it(&format!("{}{}", &FULL[..at], &FULL[(at + 7).min(FULL.len())..]));
    }
    try_it(&"[".repeat(10_000));
    try_it(&"a = [".repeat(5_000));
    try_it(&"a.".repeat(5_000));
    try_it(&format!(
        "[runtime.limits]\nmemory_max = \"{}\"\n",
        "9".repeat(500_000)
    ));
    try_it(&format!(
        "[runtime.limits]\nmemory_max = {}\n",
        "9".repeat(500_000)
    ));
    try_it(&format!("[agent]\n{} = 1\n", "x".repeat(500_000)));
}

#[test]
fn nothing_in_a_file_moves_the_terminal() {
    let text = "[agent]\n\"\\u001b[31m\\u202e\" = 1\n[runtime.limits]\nmemory_max = \"\\u001b[2J\u{202e}\"\n";
    for one in errors(text) {
        let shown = one.render(false);
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
    }
    // U+009B is what ESC [ is in one character. The caret stays below what it is about.
    let shown = errors("[agent]\n\"\u{9b}31m\" = 1\n")[0].render(true);
    assert!(!shown.contains('\u{9b}'), "{shown:?}");
    let shown = errors("[agent]\n\"\u{9b}31m\" = 1\n")[0].render(false);
    assert!(shown.contains("2 | \"·31m\" = 1\n  | ^^^^^^"), "{shown}");
}
