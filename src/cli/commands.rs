//! The commands: what each is called and what it is for.
//!
//! clap's own derive works out the arguments of every command before it reads what was typed, which was a third of what
//! a launch cost beside the kernel's own work. Here a command's arguments are worked out when it is the one, and where
//! its name comes first, as it mostly does, nothing else is ([`Command::alone`]).

use super::args::{
    AdoptArgs, AnchorArgs, ApplyArgs, CheckArgs, DaemonArgs, DownArgs, EnterArgs, EventsArgs, ExplainArgs,
    ForgetArgs, FreezeArgs, Global, HistoryArgs, ImportArgs, InstallArgs, JsonArgs, LimitsArgs, OomArgs,
    ProtectArgs, RunArgs, SchemaArgs, SessionArgs, SetArgs, StatusArgs, TranslateArgs, UninstallArgs,
    WaitArgs,
};
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, FromArgMatches, Subcommand};

/// A command before anything is typed.
struct Entry {
    name: &'static str,
    about: &'static str,
    hidden: bool,
    /// Works out its arguments.
    augment: fn(clap::Command) -> clap::Command,
}

impl Entry {
    fn of(name: &str) -> Option<&'static Self> {
        Command::ALL.iter().find(|entry| entry.name == name)
    }
}

macro_rules! commands {
    ($(#[doc = $about:literal] $(#[hidden = $hidden:literal])? $name:literal => $variant:ident($args:ty),)+) => {
        /// The commands.
        #[derive(Debug)]
        pub enum Command {
            $(#[doc = $about] $variant($args),)+
        }

        impl Command {
            // Arguments by pointer: a definition per command in one function would take pages of stack.
            const ALL: &[Entry] = &[$(Entry {
                name: $name,
                about: $about.trim_ascii(),
                hidden: false $(|| $hidden)?,
                // The about is said again, in place of what the arguments' type says.
                augment: |command| <$args as Args>::augment_args(command).about($about.trim_ascii()),
            },)+];

            /// What the command of this name takes, with what applies to every command, and nothing of the others.
            pub fn alone(name: &str) -> Option<clap::Command> {
                let entry = Entry::of(name)?;
                let command = (entry.augment)(clap::Command::new(entry.name));
                Some(Global::augment_args(command).about(entry.about))
            }

            /// The command of this name, from what was typed for it.
            pub fn of(name: &str, matches: &mut ArgMatches) -> Result<Self, clap::Error> {
                match name {
                    $($name => Ok(Self::$variant(FromArgMatches::from_arg_matches_mut(matches)?)),)+
                    _ => Err(clap::Error::raw(ErrorKind::InvalidSubcommand, "there is no such command")),
                }
            }
        }

        impl Subcommand for Command {
            fn augment_subcommands(command: clap::Command) -> clap::Command {
                Self::ALL.iter().fold(command, |command, entry| {
                    let alone = clap::Command::new(entry.name).about(entry.about);
                    command.subcommand(alone.hide(entry.hidden).defer(entry.augment))
                })
            }

            fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
                Self::augment_subcommands(command)
            }

            fn has_subcommand(name: &str) -> bool {
                Entry::of(name).is_some()
            }
        }

        impl FromArgMatches for Command {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Self::from_arg_matches_mut(&mut matches.clone())
            }

            fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
                match matches.remove_subcommand() {
                    Some((name, mut matches)) => Self::of(&name, &mut matches),
                    None => Err(clap::Error::raw(ErrorKind::MissingSubcommand, "a command is missing")),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

commands! {
    /// Validate role files and print every mistake; needs no rights
    "check" => Check(CheckArgs),
    /// Show each knob of a role: value, origin, kernel file, systemd property, what this host does with it
    "explain" => Explain(Box<ExplainArgs>),
    /// Print the exact steps that `apply` would take, and their undo
    "plan" => Plan(ApplyArgs),
    /// Make the machine as a role declares it: the two parts, ceilings, protection, its live sessions
    "apply" => Apply(ApplyArgs),
    /// Run a command in a session of its own, under limits
    "run" => Run(Box<RunArgs>),
    /// Show the sessions and their parts, use against limit
    "status" => Status(StatusArgs),
    /// End a session: SIGTERM, ten seconds, then kill
    "stop" => Stop(SessionArgs),
    /// Kill a session's whole tree at once, and wait until it is empty
    "kill" => Kill(SessionArgs),
    /// Wait for a session to end; for a detached one return its exit status
    "wait" => Wait(WaitArgs),
    /// Undo exactly what cgmgr made, nothing else
    "down" => Down(DownArgs),
    /// Say what this host can enforce, with one line of remedy per finding
    "doctor" => Doctor(JsonArgs),
    /// Put cgmgr's units in place on a systemd machine
    "install" => Install(InstallArgs),
    /// Take away what `install` put in place
    "uninstall" => Uninstall(UninstallArgs),
    /// Print the JSON Schema of role files, for editors
    "schema" => Schema(SchemaArgs),
    /// Make the place of sessions, and what holds it (started by cgmgr-sessions.service)
    #[hidden = true]
    "anchor" => Anchor(AnchorArgs),
    /// Change the limits of a session while it runs
    "set" => Set(SetArgs),
    /// Freeze a session's whole tree, until `thaw`
    "freeze" => Freeze(FreezeArgs),
    /// Let a frozen session go on
    "thaw" => Thaw(FreezeArgs),
    /// Inside a session: what it may use, what it uses, and how many jobs fit
    "limits" => Limits(LimitsArgs),
    /// Run a further command, or a shell, inside a live session
    "enter" => Enter(EnterArgs),
    /// Move running processes, or what descends from one, into a session of their own
    "adopt" => Adopt(Box<AdoptArgs>),
    /// Run an agent, or put a running one, where it is protected from what sessions do
    "protect" => Protect(ProtectArgs),
    /// Watch the sessions: record limits that are reached, stalls, drift, and OOM kills nobody else sees (cgmgr.service)
    "daemon" => Daemon(DaemonArgs),
    /// Print what was observed, record by record; with --follow what is observed from now on
    "events" => Events(EventsArgs),
    /// List the OOM kills on record, or tell the whole story of one
    "oom" => Oom(OomArgs),
    /// List sessions that are over: how they ended and what they used
    "history" => History(HistoryArgs),
    /// Give the name of an OOM-killed session free, and let go of what was kept of it
    "forget" => Forget(ForgetArgs),
    /// Say a role in the words of docker, podman, systemd, Kubernetes and others, and what is lost there
    "translate" => Translate(Box<TranslateArgs>),
    /// Make a role file of a Compose file, a systemd unit, an OCI config.json, a file of jackin's or multicode's
    "import" => Import(ImportArgs),
}
