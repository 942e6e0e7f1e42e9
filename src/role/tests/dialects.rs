//! Files of jackin and multicode. The names begin with the row of the table of their behaviours that they keep.

use super::*;

fn values(role: &Role) -> [Option<String>; 6] {
    [
        KnobId::MemoryMax,
        KnobId::MemoryHigh,
        KnobId::Cpus,
        KnobId::Pids,
        KnobId::Nofile,
        KnobId::MemorySwapMax,
    ]
    .map(|id| role.settings.value(id).map(|value| value.human()))
}

fn some<const N: usize>(texts: [&str; N]) -> [Option<String>; N] {
    texts.map(|text| (!text.is_empty()).then(|| text.to_owned()))
}

fn messages(diagnostics: &[Diagnostic]) -> Vec<&str> {
    diagnostics.iter().map(|one| one.message.as_str()).collect()
}

/// The errors among them.
fn wrong(diagnostics: &[Diagnostic]) -> Vec<&str> {
    let errors = diagnostics.iter().filter(|one| one.is_error());
    errors.map(|one| one.message.as_str()).collect()
}

fn help(diagnostic: &Diagnostic) -> &str {
    diagnostic.help.as_deref().unwrap_or_default()
}

fn note(role: &Role, id: KnobId) -> &str {
    role.settings.get(id).note.as_deref().unwrap_or_default()
}

const HARDENED: [&str; 6] = ["16 GiB", "12 GiB", "4 CPUs", "2048", "8192", "0"];

#[test]
fn j1_limits_are_in_a_configuration_or_a_workspace_file() {
    for text in [
        "version = \"v1alpha9\"\n[roles.a]\ngit = \"x\"\n[docker.grants]\nmemory = \"32G\"\n",
        "version = \"v1alpha8\"\nworkdir = \"/w\"\n[[mounts]]\nsrc = \"a\"\n[docker.grants]\nmemory = \"32G\"\n\
         [roles.\"org/agent\".env]\nA = \"x\"\n",
    ] {
        let (role, _) = good(text);
        assert_eq!(
            values(&role),
            some(["32 GiB", "12 GiB", "4 CPUs", "2048", "8192", "0"])
        );
        assert_eq!(role.dialects[0].1, Dialect::JackinGrants);
    }
}

#[test]
fn j2_all_keys_of_the_grants() {
    let (role, _) = good(
        "[docker]\nprofile = \"compat\"\n[docker.grants]\nmemory = \"32G\"\nmemory_reservation = \"24G\"\ncpus = 8.0\n\
         pids = 4096\nnofile = 16384\n",
    );
    assert_eq!(
        values(&role),
        some(["32 GiB", "24 GiB", "8 CPUs", "4096", "16384", "0"])
    );
    let (role, _) = good("[docker]\nprofile = \"compat\"\n[docker.grants]\ncpus = 8\n");
    assert_eq!(text_of(&role, KnobId::Cpus).as_deref(), Some("800000 100000"));
}

#[test]
fn j2_what_is_not_about_limits_is_left_alone_and_a_slip_is_not() {
    let (_, warnings) = good(
        "[docker]\nprofile = \"compat\"\nmounts = {}\n[docker.grants]\nnetwork = \"open\"\nallowed_hosts = [\"a\"]\n\
         dind = \"rootless\"\nuser = \"agent\"\nsudo = true\nsystem_writes = true\ncapabilities_add = [\"NET_RAW\"]\n\
         pids = 99\n",
    );
    assert_eq!(messages(&warnings), [""; 0]);
    for (key, remedy) in [
        ("memroy = \"4G\"", "did you mean `memory`?"),
        (
            "memory-reservation = \"4G\"",
            "did you mean `memory_reservation`?",
        ),
        ("cpu = 3", "did you mean `cpus`?"),
        ("pid = 3", "did you mean `pids`?"),
        ("memory_max = \"4G\"", "write `memory`"),
        ("memory-high = \"4G\"", "write `memory_reservation`"),
        (
            "memory_swap_max = \"4G\"",
            "give it by the flag --memory-swap-max, or in a role file of cgmgr's that extends this one",
        ),
    ] {
        let found = errors(&format!("[docker.grants]\n{key}\n"));
        assert_eq!(found.len(), 1, "{}", shown(&found));
        assert!(
            found[0].message.contains("in [docker.grants]"),
            "{}",
            found[0].message
        );
        assert_eq!(help(&found[0]), remedy, "{key}");
    }
    assert_eq!(
        help(&errors("[docker]\ngrant = {}\n")[0]),
        "did you mean `grants`?"
    );
    assert_eq!(
        help(&errors("[docker]\nprofil = \"locked\"\n")[0]),
        "did you mean `profile`?"
    );
    assert_eq!(
        help(&errors("[dockr.grants]\nmemory = \"4G\"\n")[0]),
        "did you mean `docker`?"
    );
}

#[test]
fn j3_a_role_manifest_is_taken_whole_with_limits_or_without() {
    let manifest = "version = \"v1alpha6\"\ndockerfile = \"Dockerfile\"\nagents = [\"claude\", \"opencode\"]\n[identity]\n\
                    name = \"x\"\n[claude]\nmodel = \"m\"\n[docker]\nmin_profile = \"hardened\"\ndind = \"none\"\n\
                    allowed_hosts = [\"a\"]\ncapabilities_add = [\"NET_ADMIN\"]\n";
    let (role, warnings) = good(manifest);
    assert_eq!(messages(&warnings), ["no limits were found in this file"]);
    assert_eq!(role.dialects[0].1, Dialect::JackinManifest);
    let (role, warnings) = good(&format!(
        "{manifest}[runtime.limits]\nmemory_max = \"16 GiB\"\ncpus = \"300%\"\nnofile = 16384\n\
         [runtime.limits.oom]\npreserve_state = true\n"
    ));
    assert_eq!(messages(&warnings), [""; 0]);
    assert_eq!(values(&role), some(["16 GiB", "", "3 CPUs", "", "16384", "0"]));
    assert_eq!(role.dialects[0].1, Dialect::JackinManifest);
}

#[test]
fn j4_profiles_have_their_numbers() {
    for (profile, numbers) in [
        ("locked", ["4 GiB", "3 GiB", "2 CPUs", "512", "2048", "0"]),
        ("hardened", HARDENED),
        ("standard", HARDENED),
        ("compat", [""; 6]),
    ] {
        let (role, _) = good(&format!("[docker]\nprofile = \"{profile}\"\n"));
        assert_eq!(values(&role), some(numbers), "{profile}");
        assert_eq!(role.dialects[0].1, Dialect::JackinGrants);
    }
}

#[test]
fn j5_a_profile_that_does_not_exist() {
    for (profile, remedy) in [
        ("hardend", "did you mean \"hardened\"?"),
        ("Locked", "did you mean \"locked\"?"),
        ("open", "write locked, hardened, standard or compat"),
    ] {
        let found = errors(&format!(
            "[docker]\nprofile = \"{profile}\"\n[docker.grants]\npids = 0\n"
        ));
        assert_eq!(
            found[0].message,
            format!("docker.profile = \"{profile}\": unknown docker profile")
        );
        assert_eq!((help(&found[0]), found.len()), (remedy, 2));
    }
    assert!(
        errors("[docker]\nprofile = 3\n")[0]
            .message
            .contains("expected text")
    );
}

#[test]
fn j6_without_a_profile_it_is_standard_and_each_value_says_where_it_is_from() {
    let (role, _) = good("[docker.grants]\nnetwork = \"open\"\npids = 4096\n");
    assert_eq!(
        values(&role),
        some(["16 GiB", "12 GiB", "4 CPUs", "4096", "8192", "0"])
    );
    assert_eq!(
        note(&role, KnobId::MemoryMax),
        "jackin's default, docker.profile = standard"
    );
    assert_eq!(note(&role, KnobId::Pids), "");
    let (role, _) = good("[docker]\nprofile = \"hardened\"\n");
    assert_eq!(note(&role, KnobId::Cpus), "docker.profile = hardened");
    let origin = &role.settings.get(KnobId::Cpus).origin;
    assert_eq!(origin.source().as_deref(), Some("rust.role.toml:2"));
    assert_eq!(role.dialect_of(origin), Some(Dialect::JackinGrants));
}

#[test]
fn j7_grants_only_widen_and_what_does_nothing_is_said() {
    let text = "[docker]\nprofile = \"standard\"\n[docker.grants]\nmemory = \"32G\"\ncpus = 2.0\npids = 64\n";
    let (role, warnings) = good(text);
    assert_eq!(
        values(&role),
        some(["32 GiB", "12 GiB", "4 CPUs", "2048", "8192", "0"])
    );
    let said: Vec<_> = warnings
        .iter()
        .filter(|one| one.message.contains("grants only widen"))
        .collect();
    assert_eq!(said.len(), 2, "{}", shown(&warnings));
    assert_eq!(
        said[0].message,
        "docker.grants.cpus = 2.0 is below the 4 of profile standard: grants only widen a profile, so it is 4"
    );
    assert_eq!(said[0].line, Some(5));
    assert!(
        help(said[0]).starts_with("choose profile = \"locked\" (2), or give"),
        "{}",
        help(said[0])
    );
    // Where the profile has no number, the grant is the only one there is.
    let (role, warnings) = good(&text.replace("standard", "compat"));
    assert_eq!(values(&role), some(["32 GiB", "", "2 CPUs", "64", "", "0"]));
    assert_eq!(messages(&warnings), [""; 0]);
}

#[test]
fn j8_a_reservation_stays_where_it_was_and_is_a_soft_limit() {
    let (role, _) = good("[docker.grants]\nmemory = \"32G\"\n");
    assert_eq!(text_of(&role, KnobId::MemoryHigh).as_deref(), Some("12884901888"));
    let (role, _) = good("[docker.grants]\nmemory = \"32G\"\nmemory_reservation = \"24G\"\n");
    assert_eq!(text_of(&role, KnobId::MemoryHigh).as_deref(), Some("25769803776"));
    assert!(note(&role, KnobId::MemoryHigh).contains("docker's own flag sets memory.low on cgroup v2"));
}

#[test]
fn j9_all_mistakes_at_once_each_with_its_place() {
    let found = errors(
        "[docker]\nprofile = \"loked\"\n[docker.grants]\nmemory = \"16 gigabytes\"\nmemory_reservation = \"12 GiB\"\n\
         cpus = -1.0\npids = -1\nnofile = 0\n",
    );
    let lines: Vec<_> = found.iter().map(|one| one.line).collect();
    assert_eq!(lines, [2, 4, 5, 6, 7, 8].map(Some), "{}", shown(&found));
}

#[test]
fn j10_a_reservation_above_the_memory() {
    let found = errors("[docker.grants]\nmemory = \"32G\"\nmemory_reservation = \"33G\"\n");
    assert_eq!(
        wrong(&found),
        ["docker.grants.memory_reservation = \"33G\" is above docker.grants.memory = \"32G\""]
    );
    assert_eq!(found[0].related.len(), 1);
    // With the profile's numbers in it, as jackin checks what it merged.
    let found = errors("[docker.grants]\nmemory_reservation = \"20G\"\n");
    assert_eq!(
        wrong(&found),
        ["docker.grants.memory_reservation = \"20G\" is above docker.grants.memory = 16G (profile standard)"]
    );
}

#[test]
fn j10_j11_values_that_cannot_be() {
    for (grant, message, remedy) in [
        (
            "memory = \"16 gigabytes\"",
            "unknown unit \"gigabytes\"",
            "use K, M, G or T",
        ),
        (
            "memory = \"12 GiB\"",
            "\"GiB\" is no unit of [docker.grants]",
            "write \"12G\"",
        ),
        (
            "memory = \"9999999999999G\"",
            "larger than any machine",
            "write less than 8 EiB",
        ),
        (
            "memory = 16",
            "expected text, found a whole number",
            "write a size in quotes",
        ),
        (
            "memory_reservation = \"0\"",
            "no process could run in less than 1 MiB",
            "write at least \"1M\"",
        ),
        (
            "pids = 0",
            "with 0 the session could not start",
            "write a number above 0",
        ),
        (
            "pids = -1",
            "a limit cannot be negative",
            "write a number above 0",
        ),
        (
            "pids = \"64\"",
            "expected a whole number, found text",
            "write a plain whole number",
        ),
        ("cpus = 0.0", "no CPU time at all", "write a number above 0"),
        ("cpus = inf", "there is no such amount", "write a number above 0"),
        ("cpus = nan", "there is no such amount", "write a number above 0"),
        (
            "cpus = \"300%\"",
            "expected a number, found text",
            "write a number of CPUs without quotes",
        ),
        (
            "nofile = 0",
            "with 0 a process could not open anything",
            "write a number above 0",
        ),
        (
            "nofile = true",
            "expected a whole number, found true or false",
            "write a plain whole number",
        ),
    ] {
        let found = errors(&format!("[docker.grants]\n{grant}\n"));
        assert_eq!(found.len(), 1, "{}", shown(&found));
        let key = grant.split(' ').next().unwrap_or_default();
        assert!(
            found[0].message.starts_with(&format!("docker.grants.{key} = ")),
            "{}",
            found[0].message
        );
        assert!(found[0].message.contains(message), "{}", found[0].message);
        assert!(
            help(&found[0]).starts_with(remedy),
            "{grant}: {}",
            help(&found[0])
        );
    }
}

#[test]
fn j14_swap_does_not_double_the_cap() {
    let (role, _) = good("[docker]\nprofile = \"locked\"\n");
    assert_eq!(text_of(&role, KnobId::MemorySwapMax).as_deref(), Some("0"));
}

#[test]
fn u1_both_spellings_and_the_nofile_of_the_seed() {
    for text in [
        "[isolation]\nmemory-high = \"12 GiB\"\nmemory-max = \"16 GiB\"\ncpu = \"300%\"\nnofile = 16384\n",
        "[isolation]\nmemory_high = \"12 GiB\"\nmemory_max = \"16 GiB\"\ncpu = \"3.0\"\nnofile = \"16384\"\n",
    ] {
        let (role, _) = good(text);
        assert_eq!(
            values(&role),
            some(["16 GiB", "12 GiB", "3 CPUs", "", "16384", "0"])
        );
        assert_eq!(role.dialects[0].1, Dialect::Multicode);
    }
    let found = errors("[isolation]\nmemory-max = \"1 GiB\"\nmemory_max = \"2 GiB\"\n");
    assert!(
        found[0].message.contains("the same limit is written twice"),
        "{}",
        shown(&found)
    );
    assert_eq!(found[0].related.len(), 1);
}

#[test]
fn u1_what_is_not_about_limits_is_left_alone_and_a_slip_is_not() {
    let (role, warnings) = good(
        "opencode = [\"a\"]\n[agent]\nprovider = \"codex\"\n[agent.codex]\ncommands = [\"codex\"]\n[runtime]\n\
         backend = \"apple-container\"\n[isolation]\nreadable = [\"a\"]\nadd-skills-from = [\"b\"]\ninherit-env = [\"HOME\"]\n\
         writable = [\"$XDG_RUNTIME_DIR\"]\ncpu = \"50%\"\n[[tool]]\nname = \"bash\"\n",
    );
    assert_eq!((role.declared(), messages(&warnings).len()), (1, 0));
    for (text, remedy) in [
        (
            "[isolation]\nmemory-hihg = \"1 GiB\"\n",
            "did you mean `memory-high`?",
        ),
        ("[isolation]\ncpus = \"300%\"\n", "did you mean `cpu`?"),
        ("[isolation]\nmemory = \"1 GiB\"\n", "write `memory-max`"),
        (
            "[isolation]\npids = 9\n",
            "give it by the flag --pids, or in a role file of cgmgr's that extends this one",
        ),
        ("[isolatoin]\ncpu = \"300%\"\n", "did you mean `isolation`?"),
        (
            "[isolation]\n[agent]\nmemory_mn = \"1 MiB\"\n",
            "did you mean `memory_min`?",
        ),
        ("[agent]\nprovider = \"codex\"\n", "[agent] has memory_min"),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{}", shown(&found));
        assert!(help(&found[0]).starts_with(remedy), "{text}: {}", help(&found[0]));
    }
    // What is ours in such a file is ours still.
    let (role, _) = good("[isolation]\ncpu = \"50%\"\n[agent]\nprovider = \"x\"\nmemory_min = \"1 MiB\"\n");
    assert_eq!(text_of(&role, KnobId::AgentMemoryMin).as_deref(), Some("1048576"));
}

#[test]
fn u2_blank_is_no_limit() {
    let (role, _) = good("[isolation]\nmemory-high = \"\"\nmemory-max = \"  \"\ncpu = \"\"\nnofile = \"\"\n");
    assert_eq!(values(&role), some([""; 6]));
    assert_eq!(role.dialects[0].1, Dialect::Multicode);
}

#[test]
fn u3_u4_sizes_that_cannot_be_are_named_with_key_and_value() {
    for (value, message) in [
        (
            "\"-5 GiB\"",
            "isolation.memory-max = \"-5 GiB\": a limit cannot be negative",
        ),
        (
            "\"5 GiBä\"",
            "isolation.memory-max = \"5 GiBä\": 'ä' is not an ASCII character",
        ),
        (
            "\"12 XB\"",
            "isolation.memory-max = \"12 XB\": unknown unit \"XB\"",
        ),
        (
            "\"4095\"",
            "isolation.memory-max = \"4095\": 4095 bytes is below 1 MiB",
        ),
        (
            "16",
            "isolation.memory-max = 16: expected text, found a whole number",
        ),
    ] {
        let found = errors(&format!("[isolation]\nmemory-max = {value}\n"));
        assert_eq!(found.len(), 1, "{}", shown(&found));
        assert!(found[0].message.starts_with(message), "{}", found[0].message);
    }
}

#[test]
fn u5_the_seeds_variables_are_expanded_in_limits() {
    let (role, _) = good("[isolation]\nmemory-max = \"$MEM GiB\"\nwritable = [\"$NOPE\"]\n");
    assert_eq!(values(&role)[0].as_deref(), Some("8 GiB"));
    assert!(
        errors("[isolation]\nmemory-max = \"$NOPE\"\n")[0]
            .message
            .contains("NOPE is not set")
    );
}

#[test]
fn u6_a_soft_limit_above_the_hard_one_is_a_mistake_here() {
    let found = errors("[isolation]\nmemory-high = \"16 GiB\"\nmemory-max = \"12 GiB\"\n");
    assert_eq!(
        wrong(&found),
        ["isolation.memory-high = \"16 GiB\" is above isolation.memory-max = \"12 GiB\""]
    );
}

#[test]
fn u8_no_swap_beside_a_hard_limit_and_cpu_time_in_percent() {
    let (role, _) = good("[isolation]\nmemory-max = \"1 GiB\"\ncpu = \"150%\"\n");
    assert_eq!(text_of(&role, KnobId::MemorySwapMax).as_deref(), Some("0"));
    assert_eq!(text_of(&role, KnobId::Cpus).as_deref(), Some("150000 100000"));
    let (role, _) = good("[isolation]\nmemory-high = \"1 GiB\"\n");
    assert_eq!(role.settings.value(KnobId::MemorySwapMax), None);
}

#[test]
fn u15_cpu_time_that_cannot_be_is_no_silent_no_limit() {
    for cpu in ["0", "-1", "inf", "nan", "three", "0%"] {
        assert_eq!(
            errors(&format!("[isolation]\ncpu = \"{cpu}\"\n")).len(),
            1,
            "{cpu}"
        );
    }
}

#[test]
fn one_file_has_one_dialect() {
    let grants = "[docker.grants]\nnetwork = \"open\"\n";
    let profile = "[docker]\nprofile = \"locked\"\n";
    let isolation = "[isolation]\ncpu = \"\"\n";
    let own = "[runtime.limits]\npids = 64\n";
    for (a, b, what) in [
        (own, grants, "[runtime.limits] beside"),
        (own, profile, "[runtime.limits] beside `profile` in [docker]"),
        (own, isolation, "[runtime.limits] beside [isolation]"),
        (grants, isolation, "[isolation] beside [docker.grants]"),
    ] {
        for text in [format!("{a}{b}"), format!("{b}{a}")] {
            let found = errors(&text);
            let two: Vec<_> = found
                .iter()
                .filter(|one| one.message.contains("in two forms"))
                .collect();
            assert_eq!(two.len(), 1, "{}", shown(&found));
            assert!(two[0].message.starts_with(what), "{}", two[0].message);
            // Both places.
            let lines = [two[0].line, two[0].related.first().map(|other| other.line)];
            let mut lines: Vec<_> = lines.into_iter().flatten().collect();
            lines.sort_unstable();
            let expected: Vec<_> = (1..=text.lines().count()).filter(|n| lines.contains(n)).collect();
            assert_eq!((lines.len(), &lines), (2, &expected), "{text}");
        }
    }
    // Tables that declare no limits are no second form.
    for text in [
        format!("{own}[isolation]\nreadable = []\n"),
        format!("{own}[docker]\nmin_profile = \"locked\"\n"),
        format!("{isolation}[runtime]\nbackend = \"x\"\n"),
    ] {
        let (role, _) = good(&text);
        assert_eq!(role.dialects.len(), 1);
    }
}

#[test]
fn a_role_extends_a_file_of_another_program() {
    let files = [("config.toml", "[docker]\nprofile = \"locked\"\n")];
    let text = "[role]\nextends = \"config.toml\"\n[runtime.limits]\nmemory_max = \"3 GiB\"\nmemory_high = \"2 GiB\"\n";
    let (role, _) = resolve_with(text, &files, &[], &large()).expect("a good role");
    assert_eq!(
        values(&role),
        some(["3 GiB", "2 GiB", "2 CPUs", "512", "2048", "0"])
    );
    let dialects: Vec<_> = role.dialects.iter().map(|(_, dialect)| *dialect).collect();
    assert_eq!(dialects, [Dialect::Cgmgr, Dialect::JackinGrants]);
    assert_eq!(
        note(&role, KnobId::MemoryMax),
        "instead of 4G (profile locked) of config.toml:2"
    );
    let of = |id| role.dialect_of(&role.settings.get(id).origin);
    assert_eq!(
        (of(KnobId::MemoryMax), of(KnobId::Cpus)),
        (Some(Dialect::Cgmgr), Some(Dialect::JackinGrants))
    );
    assert_eq!(
        role.where_to_change(KnobId::Pids),
        "docker.grants.pids in config.toml"
    );
    assert_eq!(
        role.where_to_change(KnobId::MemoryMax),
        "runtime.limits.memory_max in rust.role.toml"
    );
}
