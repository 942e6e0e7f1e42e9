//! Why a knob has no place in another program, and what comes nearest to it there.

use crate::limits::{Engine, KnobId};

/// The reason and the way out for a knob that the table has no name for.
pub(super) fn no_place(engine: Engine, id: KnobId) -> (&'static str, &'static str) {
    use Engine::{AppleContainer, Docker, Kubernetes, Nomad, Slurm, SystemdUnit};
    match (id, engine) {
        (KnobId::OomPreserveState | KnobId::OomNotify, _) => (
            "it is no limit: it says what cgmgr does about an OOM kill",
            "what that program itself tells of one",
        ),
        (KnobId::Stall, _) => (
            "it is no limit: it says what cgmgr does about a session that makes no progress",
            "watch memory.pressure there",
        ),
        (KnobId::WorkloadsAdmission, _) => (
            "it is no limit: it says what cgmgr does when the machine is full",
            "let something else decide what is started",
        ),
        (KnobId::AgentNice | KnobId::AgentOomScoreAdj, SystemdUnit) => (
            "a slice has none, and what the agent's unit is called is not in a role",
            "`cgmgr install --protect UNIT`, or Nice= and OOMScoreAdjust= in the agent's own unit",
        ),
        (KnobId::MemoryHigh, Kubernetes) => (
            "a container has no soft limit: with the feature gate MemoryQoS the kubelet makes one of request and limit",
            "MemoryQoS and memoryThrottlingFactor in the kubelet's configuration",
        ),
        (KnobId::MemorySwapMax, Kubernetes) => (
            "swap is the node's: the kubelet gives none (NoSwap), or a share by the request (LimitedSwap)",
            "memorySwap.swapBehavior in the kubelet's configuration",
        ),
        (KnobId::Pids, Kubernetes) => (
            "the number of tasks is limited for the pods of a node, not for one",
            "podPidsLimit in the kubelet's configuration",
        ),
        (KnobId::CpuWeight, Kubernetes) => (
            "a request of CPU time gives a weight, but reserves the time too and may not be above the limit",
            "resources.requests.cpu: a weight of 100 is about one CPU",
        ),
        (KnobId::OomScoreAdj, Kubernetes) => (
            "the kubelet makes it of the pod's quality of service",
            "requests below the limits (Burstable) for what is to go first",
        ),
        (KnobId::OomGroup, Kubernetes) => (
            "the kubelet decides for the node: since 1.28 an OOM kill takes the whole container",
            "singleProcessOOMKill in the kubelet's configuration",
        ),
        (KnobId::WorkloadsMemoryHigh | KnobId::WorkloadsPids, Kubernetes) => (
            "a namespace has no such quota",
            "kubeReserved and systemReserved, and podPidsLimit, in the kubelet's configuration",
        ),
        (KnobId::MemoryHigh, Slurm) => (
            "a job has one memory limit",
            "AllowedRAMSpace in cgroup.conf, for the whole cluster",
        ),
        (KnobId::MemorySwapMax, Slurm) => (
            "swap is the cluster's",
            "ConstrainSwapSpace and AllowedSwapSpace in cgroup.conf; with yes and 0 a job has none, and in Slurm 22.05 as much as memory",
        ),
        (KnobId::Nofile, Slurm) => (
            "a job inherits it from where it is submitted (--propagate)",
            "`ulimit -n` in the script",
        ),
        (KnobId::Nice, Slurm) => (
            "--nice of sbatch is about the queue, not about the process",
            "`renice` in the script",
        ),
        (KnobId::MemorySwapMax, Nomad) => (
            "the docker driver allows no swap",
            "declare memory_swap_max = 0, which is what holds there",
        ),
        (KnobId::MemoryHigh, Nomad) => (
            "the driver has none: memory_max above memory makes memory a reservation, which is memory.low",
            "another way to run it, e.g. podman",
        ),
        (KnobId::CpuWeight, Nomad) => (
            "the weight is made of the CPU time that is asked for",
            "resources.cpu, in MHz",
        ),
        (_, AppleContainer) => (
            "a container is a virtual machine there, with memory and CPUs and nothing else to say of them",
            "cgmgr inside of it",
        ),
        (KnobId::Nice, _) => (
            "a container cannot be given a nice value",
            "`nice -n N` before the command in the container",
        ),
        (KnobId::OomGroup, Docker | Engine::Compose) => (
            "docker cannot set memory.oom.group: one process is killed, and the container ends if it was its first",
            "podman with --cgroup-conf memory.oom.group=1",
        ),
        _ => (
            "there is nothing like it",
            "another way to run it, e.g. podman or systemd-run",
        ),
    }
}
