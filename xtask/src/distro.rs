//! The two machines a guest can be.

use clap::ValueEnum;

/// A release of Debian that guests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distro {
    /// Linux 6.1 and systemd 252.
    #[value(name = "12")]
    Debian12,
    /// Linux 6.12 and systemd 257.
    #[value(name = "13")]
    Debian13,
}

impl Distro {
    /// Both of them.
    pub const ALL: [Distro; 2] = [Distro::Debian12, Distro::Debian13];

    /// `12` or `13`.
    pub fn number(self) -> &'static str {
        match self {
            Distro::Debian12 => "12",
            Distro::Debian13 => "13",
        }
    }

    /// What the mirror calls it.
    pub fn codename(self) -> &'static str {
        match self {
            Distro::Debian12 => "bookworm",
            Distro::Debian13 => "trixie",
        }
    }

    /// The version of its kernel.
    pub fn kernel(self) -> &'static str {
        match self {
            Distro::Debian12 => "6.1",
            Distro::Debian13 => "6.12",
        }
    }

    /// The version of its C library.
    pub fn glibc(self) -> (u32, u32) {
        match self {
            Distro::Debian12 => (2, 36),
            Distro::Debian13 => (2, 41),
        }
    }

    /// The version of its systemd.
    pub fn systemd(self) -> &'static str {
        match self {
            Distro::Debian12 => "252",
            Distro::Debian13 => "257",
        }
    }
}

/// What runs as PID 1 and how the cgroups are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The distribution as it ships, with systemd.
    Systemd,
    /// No systemd: a shell as PID 1 in the root of cgroup v2.
    Bare,
    /// No systemd, and the controllers are bound to cgroup v1.
    Hybrid,
    /// As `Systemd`, with other programs on it that run something under limits: docker, podman, Slurm.
    Engines,
}

impl Mode {
    /// All four of them.
    pub const ALL: [Mode; 4] = [Mode::Systemd, Mode::Bare, Mode::Hybrid, Mode::Engines];

    /// Its name on the command line, which is also the module of the tests that are for it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Systemd => "systemd",
            Mode::Bare => "bare",
            Mode::Hybrid => "hybrid",
            Mode::Engines => "engines",
        }
    }

    /// What its boot is told: how PID 1 and the cgroups are to be.
    pub fn layout(self) -> &'static str {
        match self {
            Mode::Engines => Mode::Systemd.name(),
            mode => mode.name(),
        }
    }

    /// What its kernel is told beside that, after a space.
    pub fn words(self) -> &'static str {
        match self {
            // Debian 12's docker starts nothing where the kernel has AppArmor and nobody can load its profile.
            Mode::Engines => " apparmor=0",
            _ => "",
        }
    }

    /// What is on its disk.
    pub fn disk(self) -> Disk {
        match self {
            Mode::Engines => Disk::Engines,
            _ => Disk::Plain,
        }
    }

    /// How many processors it has: for engines more than any of the example roles is given, for docker refuses more than there
    /// are.
    pub fn cpus(self) -> u32 {
        match self {
            Mode::Engines => 8,
            _ => 2,
        }
    }
}

/// What can be on a guest's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// A small Debian, and what most tests need.
    Plain,
    /// The same with docker, podman and Slurm, which take their time to install.
    Engines,
}

impl Disk {
    /// Both of them.
    pub const ALL: [Disk; 2] = [Disk::Plain, Disk::Engines];
}
