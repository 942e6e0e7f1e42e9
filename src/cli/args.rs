//! The command line's definition: what can be typed, and nothing of what it does.

use super::commands::Command;
use super::limit_flags::{LimitArgs, Typed};
use crate::import::Form;
use crate::limits::{Engine, Size};
use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, ArgMatches, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_STATUS: &str = "\
Exit status of `run`, `enter` and `protect`: the command's own; 128+n if signal n ended it; 125 cgmgr
failed; 126 the command cannot be executed; 127 it was not found; 3 with --require-limits
where something cannot be enforced. Others: 0 done, 1 failed, 2 usage or invalid role.";

/// Give every session on a workspace machine its own limits, keep the agent alive, and say what happened.
#[derive(Debug, Parser)]
#[command(name = "cgmgr", version, about, max_term_width = 100, styles = STYLES, after_help = EXIT_STATUS)]
#[command(disable_help_subcommand = true, help_expected = true)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads what was typed, the program's name first.
    ///
    /// # Errors
    ///
    /// What was typed cannot be meant, or is a request for help or the version: clap's own error says which.
    pub fn read(typed: &[OsString]) -> Result<Self, clap::Error> {
        let name = typed.get(1).and_then(|word| word.to_str());
        let few = Typed::of(typed);
        if let Some(Ok(read)) = name.and_then(|name| Self::alone(name, typed)) {
            return Ok(read);
        }
        // Help, and what is said of a mistake, is to know of all there is.
        drop(few);
        name.and_then(|name| Self::alone(name, typed)).unwrap_or_else(|| {
            let mut matches = matches(Self::command(), typed)?;
            Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut Self::command()))
        })
    }

    /// The same where the command's name comes first; `None` where it is no command's.
    fn alone(name: &str, typed: &[OsString]) -> Option<Result<Self, clap::Error>> {
        let command = Command::alone(name)?;
        let program = Path::new(&typed[0]).file_name().unwrap_or_default();
        let command = command
            .bin_name(format!("{} {name}", program.to_string_lossy()))
            .max_term_width(100)
            .styles(STYLES);
        let read = |mut matches: ArgMatches| {
            Ok(Self {
                global: Global::from_arg_matches_mut(&mut matches)?,
                command: Command::of(name, &mut matches)?,
            })
        };
        Some(matches(command, &typed[1..]).and_then(read))
    }
}

/// What was typed, as `command` understands it.
///
/// The definition is not given back: a process has one, and to free its hundreds of strings took a tenth of a launch.
fn matches(mut command: clap::Command, typed: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let matches = command.try_get_matches_from_mut(typed);
    std::mem::forget(command);
    matches
}

/// What applies to every command.
#[derive(Debug, Args)]
pub struct Global {
    /// When to colour what is shown; with auto, NO_COLOR turns it off
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global options"
    )]
    pub color: ColorChoice,
    /// Who carries limits out: cgroupfs (files of cgroup v2), process (priorities and rlimits only), or auto
    #[arg(
        long,
        global = true,
        value_name = "BACKEND",
        default_value = "auto",
        env = "CGMGR_BACKEND"
    )]
    #[arg(help_heading = "Global options")]
    pub backend: BackendChoice,
    /// The group below which cgmgr may make its own, as a path in the hierarchy (e.g. /delegated)
    #[arg(
        long,
        global = true,
        value_name = "GROUP",
        env = "CGMGR_CGROUP_ROOT",
        help_heading = "Global options"
    )]
    pub cgroup_root: Option<String>,
    /// The operator's ceiling over every role and flag; default: /etc/cgmgr/host.toml, where there is one
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CGMGR_HOST_POLICY",
        help_heading = "Global options"
    )]
    pub host_policy: Option<PathBuf>,
}

/// Who carries limits out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// cgroupfs where this process may use it, a scope of systemd's where it may ask for one, process otherwise
    Auto,
    /// Files of cgroup v2
    Cgroupfs,
    /// A transient scope for each session: of the machine's systemd for root, of their own for others
    Scope,
    /// nice, oom_score_adj, rlimits, CPU affinity
    Process,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Role files; - is standard input; none are needed where --host-policy names a policy to check
    #[arg(value_name = "ROLE")]
    pub roles: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Role file; - is standard input
    #[arg(value_name = "ROLE")]
    pub role: PathBuf,
    /// Print JSON: an array with one object per knob
    #[arg(long)]
    pub json: bool,
    /// Limits over the role's.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// `translate`.
#[derive(Debug, Args)]
pub struct TranslateArgs {
    /// The program to translate for
    #[arg(long, value_name = "PROGRAM")]
    pub to: Engine,
    /// Role file; - is standard input
    #[arg(value_name = "ROLE")]
    pub role: PathBuf,
    /// Percentages are of this much memory instead of this machine's (e.g. 64GiB)
    #[arg(long, value_name = "SIZE")]
    pub memory_total: Option<String>,
    /// The container's image, where the form names one; default: localhost/NAME:latest
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Put the limits into this config.json and print the whole of it (with --to oci)
    #[arg(long, value_name = "FILE")]
    pub merge: Option<PathBuf>,
    /// Print nothing where something declared is lost (exit status 3)
    #[arg(long)]
    pub require_limits: bool,
    /// Print JSON: the text, what is lost, and notes
    #[arg(long)]
    pub json: bool,
    /// Limits over the role's.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File of another program; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What the file is; default: what it looks like
    #[arg(long, value_name = "FORM")]
    pub from: Option<Form>,
    /// The service of a Compose file with several
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Print JSON: the role file as text, and what is not in it
    #[arg(long)]
    pub json: bool,
}

/// By the name of the form.
impl ValueEnum for Form {
    fn value_variants<'a>() -> &'a [Self] {
        &Form::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

/// By the name of the engine.
impl ValueEnum for Engine {
    fn value_variants<'a>() -> &'a [Self] {
        &Engine::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

/// `plan` and `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Role file; - is standard input
    #[arg(value_name = "ROLE")]
    pub role: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Only print the steps (what `plan` does)
    #[arg(long)]
    pub dry_run: bool,
    /// Lower a memory_max even below what is in use (the kernel then kills at once), and overrule `systemctl set-property`
    #[arg(long)]
    pub force: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Role file with the limits
    #[arg(long, short, value_name = "ROLE")]
    pub role: Option<PathBuf>,
    /// The session's name; default: the role's name, or the command's, with the first free number
    #[arg(long, short, value_name = "NAME", allow_hyphen_values = true)]
    pub name: Option<OsString>,
    /// Leave the session running, print its name and return
    #[arg(long, short, conflicts_with = "exec")]
    pub detach: bool,
    /// Where a detached session's output goes (appended); default: /dev/null
    #[arg(long, value_name = "FILE", requires = "detach")]
    pub log: Option<PathBuf>,
    /// Become the command instead of staying beside it: no verdict, and the next command removes the group
    #[arg(long)]
    pub exec: bool,
    /// Run the command as this user (name or number; needs root)
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// Say on standard error what the session used
    #[arg(long)]
    pub summary: bool,
    /// Write everything about the session as JSON to this file when it has ended
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Start nothing where something declared cannot be enforced (exit status 3)
    #[arg(long)]
    pub require_limits: bool,
    /// When the command has ended, end what it left behind: SIGTERM, ten seconds, then kill
    #[arg(long)]
    pub kill_leftover: bool,
    /// Close every inherited descriptor above 2; reset CPU affinity and scheduling policy
    #[arg(long)]
    pub close_fds: bool,
    /// Say nothing but errors and OOM kills
    #[arg(long, short)]
    pub quiet: bool,
    /// Limits over the role's.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this session
    #[arg(value_name = "SESSION")]
    pub session: Option<OsString>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `stop` and `kill`.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// The sessions
    #[arg(required = true, value_name = "SESSION", action = ArgAction::Append)]
    pub sessions: Vec<OsString>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: OsString,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `daemon`: no arguments beside the global ones.
#[derive(Debug, Args)]
pub struct DaemonArgs {}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with what is observed from now on; with --since what was before comes first
    #[arg(long, short)]
    pub follow: bool,
    /// Print each record as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Only of the session of this name
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// Only from then on: 90s, 10m, 2h, 7d ago, 2026-11-23, "2026-11-23 05:33" (UTC), @SECONDS
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only these, e.g. oom_kill,stalled
    #[arg(long, value_name = "EVENT", value_delimiter = ',')]
    pub event: Vec<String>,
}

/// `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only of this role
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// Only those that ended since: 90s, 10m, 2h, 7d ago, 2026-11-23, "2026-11-23 05:33" (UTC), @SECONDS
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only the last so many
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub last: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `oom`.
#[derive(Debug, Args)]
pub struct OomArgs {
    /// Tell the whole story of this session, the last one of the name; without it all OOM kills are listed
    #[arg(value_name = "SESSION")]
    pub session: Option<OsString>,
    /// List only those since: 90s, 10m, 2h, 7d ago, 2026-11-23, "2026-11-23 05:33" (UTC), @SECONDS
    #[arg(long, value_name = "TIME", conflicts_with = "session")]
    pub since: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `forget`.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The sessions
    #[arg(
        value_name = "SESSION",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub sessions: Vec<OsString>,
    /// All that are kept
    #[arg(long)]
    pub all: bool,
}

/// `down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// End sessions that still run
    #[arg(long)]
    pub kill: bool,
    /// Only print the steps
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Commands that take nothing else.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The place for sessions and the two slices, and nothing else
    #[arg(long, conflicts_with_all = ["role", "protect"])]
    pub minimal: bool,
    /// Without the daemon that records what happens to sessions; one that is installed stays
    #[arg(long)]
    pub no_daemon: bool,
    /// For the user's own manager (`systemctl --user`) instead of the machine's
    #[arg(long, conflicts_with_all = ["root", "protect"])]
    pub user: bool,
    /// The role's ceiling over all sessions, and its protection of the agent, hold from boot on
    #[arg(long, value_name = "ROLE")]
    pub role: Option<PathBuf>,
    /// A service that is there already, e.g. the agent's, gets into agent.slice with its next start; may be repeated
    #[arg(long, value_name = "UNIT")]
    pub protect: Vec<String>,
    /// Only print what would be written
    #[arg(long)]
    pub dry_run: bool,
    /// Put the files in place without starting anything (for images); below this directory if given
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "/")]
    pub root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// From the user's own manager (`systemctl --user`) instead of the machine's
    #[arg(long)]
    pub user: bool,
    /// Only print what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {}

/// `anchor`.
#[derive(Debug, Args)]
pub struct AnchorArgs {
    /// In the user's own manager
    #[arg(long)]
    pub user: bool,
}

/// `set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: OsString,
    /// What to set, as in a role file, e.g. memory_max=8GiB cpus=1.5 oom_group=true; max is no limit, and default what a
    /// knob is where nobody declares it
    #[arg(required = true, value_name = "KNOB=VALUE")]
    pub knobs: Vec<OsString>,
    /// Lower memory_max even below what is in use: what the kernel cannot take back it then kills for
    #[arg(long)]
    pub force: bool,
    /// Give up after so many seconds where the kernel takes long to take memory back
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// Only print the writes
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `protect`.
#[derive(Debug, Args)]
pub struct ProtectArgs {
    /// Protect this running process instead of starting one
    #[arg(long, value_name = "PID", conflicts_with_all = ["command", "report"])]
    pub pid: Option<String>,
    /// Role file whose `[agent]` says how the agent is protected; agent.slice is made from it where it is missing
    #[arg(long, short, value_name = "ROLE")]
    pub role: Option<PathBuf>,
    /// What its scope is called, where systemd makes one (cgmgr-agent-NAME.scope); default: the command's name with a number
    #[arg(long, short, value_name = "NAME", allow_hyphen_values = true)]
    pub name: Option<OsString>,
    /// Write what is in force as JSON to this file before the agent starts
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Start nothing where something that `[agent]` declares cannot be enforced (exit status 3)
    #[arg(long, conflicts_with = "pid")]
    pub require_limits: bool,
    /// Say nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
    /// Print JSON (with --pid)
    #[arg(long, requires = "pid")]
    pub json: bool,
    /// The agent and its arguments
    #[arg(required_unless_present = "pid", trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `freeze` and `thaw`.
#[derive(Debug, Args)]
pub struct FreezeArgs {
    /// The sessions
    #[arg(required = true, value_name = "SESSION", action = ArgAction::Append)]
    pub sessions: Vec<OsString>,
    /// How many seconds to wait until every process is so
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `limits`.
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print only how many jobs fit, as for make -j$(cgmgr limits --jobs)
    #[arg(long, conflicts_with = "json")]
    pub jobs: bool,
    /// The memory that one job is taken to need
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = amount)]
    pub memory_per_job: u64,
}

/// A number of seconds, with fractions.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds from 0 on".to_owned())
}

/// An amount of memory in bytes.
fn amount(text: &str) -> Result<u64, String> {
    match text.parse::<Size>() {
        Ok(Size::Bytes(bytes)) if bytes.0 > 0 => Ok(bytes.0),
        Ok(_) => Err("an amount of memory such as 512MiB is needed".to_owned()),
        Err(error) => Err(format!("{error} ({})", error.help())),
    }
}

/// `enter`.
#[derive(Debug, Args)]
pub struct EnterArgs {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: OsString,
    /// Run the command as this user (name or number; needs root); default: the user of the session
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// Close every inherited descriptor above 2; reset CPU affinity and scheduling policy
    #[arg(long)]
    pub close_fds: bool,
    /// Say nothing but errors and OOM kills
    #[arg(long, short)]
    pub quiet: bool,
    /// The command and its arguments; default: an interactive shell
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `adopt`.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The processes; their children are moved only where they are named too
    #[arg(value_name = "PID", required_unless_present = "children_of")]
    pub processes: Vec<String>,
    /// Everything that descends from this process, without the process itself
    #[arg(long, value_name = "PID")]
    pub children_of: Option<String>,
    /// Role file with the limits
    #[arg(long, short, value_name = "ROLE")]
    pub role: Option<PathBuf>,
    /// The session's name; default: the role's name, or the first process's, with the first free number
    #[arg(long, short, value_name = "NAME", allow_hyphen_values = true)]
    pub name: Option<OsString>,
    /// Also move what is part of the agent, or the main process of a systemd service
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Limits over the role's.
    #[command(flatten)]
    pub limits: LimitArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::KnobId;

    #[test]
    fn the_definition_is_sound() {
        let mut cli = Cli::command();
        // Deferred definitions too.
        cli.build();
        cli.debug_assert();
    }

    #[test]
    fn every_limit_of_a_session_has_its_flag() {
        let mut cli = Cli::command();
        cli.build();
        let run = cli.find_subcommand("run").unwrap();
        let session = crate::limits::KNOBS
            .iter()
            .filter(|k| k.part == crate::limits::Part::Session);
        for knob in session.filter(|k| k.in_this_version) {
            let flag = knob.key.replace('_', "-");
            assert!(
                run.get_arguments().any(|a| a.get_long() == Some(&flag)),
                "--{flag}"
            );
        }
    }

    #[test]
    fn a_command_alone_reads_as_it_does_among_the_others() {
        let lines = [
            "run --cpus 2 --color never -- make -j8",
            "run --backend process --oom-group=false true",
            "run",
            "run --cpus",
            "run --detach --exec true",
            "run --no-such-flag true",
            "run --version",
            "status --json a",
            "check --host-policy /a.toml",
            "status --backend nothing",
            "kill",
            "kill a b --json",
            "install --minimal --root",
            "install --role a.toml --protect ssh.service --protect agent",
            "install --minimal --role a.toml",
            "install --user --dry-run",
            "uninstall --user",
            "anchor",
            "anchor --cgroup-root /a",
            "set a memory_max=1G --force --timeout 0.5",
            "set a",
            "freeze a b --timeout 1",
            "thaw",
            "limits --jobs --memory-per-job 512MiB",
            "limits --memory-per-job 50%",
            "enter dev",
            "enter --user coder dev -- ls -l",
            "enter dev ls -l",
            "adopt 12 13 --json",
            "adopt --children-of 12 --memory-max 1GiB",
            "adopt",
            "check --help",
            "explain -h",
            "translate --to docker a.toml --image x --cpus 2",
            "translate --to nothing a.toml",
            "translate a.toml",
            "import --from oci a.json --service x",
            "import",
            "no-such-command",
            "--color never status",
            "--help",
            "",
        ];
        for line in lines {
            let typed: Vec<OsString> = ["/usr/bin/cgmgr"]
                .into_iter()
                .chain(line.split_whitespace())
                .map(OsString::from)
                .collect();
            match (Cli::read(&typed), Cli::try_parse_from(&typed)) {
                (Ok(alone), Ok(among)) => assert_eq!(format!("{alone:?}"), format!("{among:?}"), "{line}"),
                (Err(alone), Err(among)) => {
                    assert_eq!(alone.kind(), among.kind(), "{line}");
                    // In help the order of the headings differs.
                    let sorted = |error: clap::Error| {
                        let text = error.to_string();
                        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                        lines.sort();
                        lines
                    };
                    assert_eq!(sorted(alone), sorted(among), "{line}");
                }
                (alone, among) => panic!("{line}: {alone:?} {among:?}"),
            }
        }
    }

    #[test]
    fn everything_behind_the_command_is_the_commands() {
        let cli = Cli::parse_from(["cgmgr", "run", "--cpus", "2", "make", "-j8", "--help"]);
        let Command::Run(run) = cli.command else {
            panic!("not run")
        };
        assert_eq!(run.command, ["make", "-j8", "--help"]);
        assert_eq!(run.limits.given(), [(KnobId::Cpus, "2", "--cpus")]);
    }
}
