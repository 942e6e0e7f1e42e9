//! Other programs that run something under limits, and can be told them in words of their own.

/// A program, or a form of telling it, that a role is translated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// Options of `docker run`.
    Docker,
    /// Options of `podman run`.
    Podman,
    /// A file of the Compose specification.
    Compose,
    /// A `.container` file of podman-systemd.unit(5).
    Quadlet,
    /// Options of systemd-run(1), for a transient service.
    SystemdRun,
    /// Files of units: a service's drop-in, and the slices.
    SystemdUnit,
    /// The config.json of the OCI runtime specification, for runc and crun.
    Oci,
    /// Objects of Kubernetes.
    Kubernetes,
    /// A job of Nomad's, with its docker driver.
    Nomad,
    /// `#SBATCH` lines of Slurm.
    Slurm,
    /// Options of `container run` on macOS.
    AppleContainer,
}

impl Engine {
    /// All of them.
    pub const ALL: [Engine; 11] = [
        Engine::Docker,
        Engine::Podman,
        Engine::Compose,
        Engine::Quadlet,
        Engine::SystemdRun,
        Engine::SystemdUnit,
        Engine::Oci,
        Engine::Kubernetes,
        Engine::Nomad,
        Engine::Slurm,
        Engine::AppleContainer,
    ];

    /// Its name on the command line, e.g. `systemd-run`.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Docker => "docker",
            Engine::Podman => "podman",
            Engine::Compose => "compose",
            Engine::Quadlet => "quadlet",
            Engine::SystemdRun => "systemd-run",
            Engine::SystemdUnit => "systemd-unit",
            Engine::Oci => "oci",
            Engine::Kubernetes => "kubernetes",
            Engine::Nomad => "nomad",
            Engine::Slurm => "slurm",
            Engine::AppleContainer => "apple-container",
        }
    }
}
