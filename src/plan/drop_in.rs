//! The text of drop-ins that `install` writes: what holds from boot on, and for units that are somebody else's.

use crate::limits::Setting;

/// Begins the first line of every file of units that is cgmgr's.
pub const INSTALLED: &str = "# Installed by `cgmgr install`";
/// Its name in the directory of a unit's drop-ins: before that of what `apply` declares until the next boot, which a file of
/// the same name in /etc would hide (systemd.unit(5)).
pub const FILE: &str = "40-cgmgr.conf";

fn with_head(section: &str, lines: &str) -> String {
    format!("{INSTALLED}, removed by `cgmgr uninstall`.\n[{section}]\n{lines}")
}

/// For a slice, what is declared of these settings; `None` where nothing is that a slice can have.
pub fn of_slice(settings: &[&Setting]) -> Option<String> {
    Some(with_head("Slice", &slice_lines(settings)?))
}

/// The same, as lines of the section `[Slice]`.
pub fn slice_lines(settings: &[&Setting]) -> Option<String> {
    let lines: String = settings
        .iter()
        .filter(|s| s.value.is_some() && s.knob.file.is_some())
        .filter_map(|s| Some(format!("{}={}\n", s.knob.systemd?, unit_text(s)?)))
        .collect();
    (!lines.is_empty()).then_some(lines)
}

/// For the service of the agent: its place, and that it is the last to go; its nice value where one is declared.
///
/// Not both of these for sshd: it gives what it was started with to whoever logs in, and sets its own score while it
/// listens, -1000 (OpenSSH's openbsd-compat/port-linux.c, oom_adjust_setup).
pub fn of_protected(unit: &str, oom_score_adj: i32, nice: Option<i32>) -> String {
    let score = format!("OOMScoreAdjust={oom_score_adj}\n");
    let nice = nice.map_or(String::new(), |nice| format!("Nice={nice}\n"));
    let own = match unit.split(['@', '.']).next() {
        Some("ssh" | "sshd") => String::new(),
        _ => score + &nice,
    };
    let lines = format!("Slice=agent.slice\n{own}OOMPolicy=continue\nManagedOOMPreference=omit\n");
    with_head("Service", &lines)
}

/// The kernel's text as unit files have it (systemd.resource-control(5)).
pub fn unit_text(setting: &Setting) -> Option<String> {
    let text = setting.text()?;
    if setting.knob.file == Some("cpu.max") {
        let (quota, _period) = text.split_once(' ')?;
        // Percent of one CPU with two decimals: exactly the 10 µs of quota that a role can say.
        return Some(match quota.parse::<u64>() {
            Ok(us) if us % 1000 == 0 => format!("{}%", us / 1000),
            Ok(us) => format!("{}.{:02}%", us / 1000, us % 1000 / 10),
            Err(_) => String::new(),
        });
    }
    let value = text.strip_prefix("default ").unwrap_or(&text);
    Some(match value {
        "max" => "infinity".into(),
        value => value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Machine;
    use crate::limits::{KnobId, Origin, Part, Settings};

    #[test]
    fn sshd_is_given_nothing_that_a_login_would_inherit() {
        let of = |unit: &str| of_protected(unit, -900, Some(-5));
        let all = "[Service]\nSlice=agent.slice\nOOMScoreAdjust=-900\nNice=-5\nOOMPolicy=continue\n";
        assert!(of("agent.service").contains(all), "{}", of("agent.service"));
        for unit in ["ssh.service", "sshd.service", "ssh@7.service"] {
            let text = of(unit);
            assert!(
                text.contains("[Service]\nSlice=agent.slice\nOOMPolicy=continue\n"),
                "{text}"
            );
        }
        assert!(of("sshfs-agent.service").contains("Nice=-5\n"));
    }

    #[test]
    fn a_slice_gets_what_is_declared_and_nothing_else() {
        let mut settings = Settings::none();
        assert_eq!(
            of_slice(&settings.part(Part::Workloads).collect::<Vec<_>>()),
            None
        );
        let machine = Machine::plain(1 << 30);
        for (id, text) in [
            (KnobId::WorkloadsMemoryMax, "512 MiB"),
            (KnobId::WorkloadsCpus, "1.2345"),
            (KnobId::WorkloadsPids, "max"),
            (KnobId::AgentOomScoreAdj, "-900"),
        ] {
            let value = id.knob().parse(text, &machine).unwrap();
            settings.set(id, value, Origin::Default);
        }
        assert_eq!(
            of_slice(&settings.part(Part::Workloads).collect::<Vec<_>>()).unwrap(),
            "# Installed by `cgmgr install`, removed by `cgmgr uninstall`.\n[Slice]\nMemoryMax=536870912\n\
             CPUQuota=123.45%\nTasksMax=infinity\n"
        );
        // Set on processes: no slice has it.
        assert_eq!(of_slice(&settings.part(Part::Agent).collect::<Vec<_>>()), None);
    }
}
