"""Shares of machines: the CPUs and GPUs of one trial, and the number of trials at a time.

Knows no Ray: `search.cluster` hands over the cluster's machines as plain data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .config import SearchConfig
from .errors import Refused

LOCAL_GPU_SHARE = 0.25
"""Default share of a GPU per trial: a small network leaves most of a GPU idle."""


@dataclass(frozen=True)
class Node:
    """One machine of a cluster."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Cluster:
    """The present machines that a search may use, and the URL of the Ray dashboard; to a cluster
    that `can_grow` machines may be added, and a trial waits for one that is large enough."""

    nodes: tuple[Node, ...]
    dashboard: str | None = None
    can_grow: bool = False


@dataclass(frozen=True)
class Resources:
    """The CPUs and GPUs of one trial, the number of concurrent trials, and what workers need: the
    texts of the user's files by their path, and the checkpoint whose weights trials begin with."""

    cpus: float
    gpus: float
    concurrent: int
    code_texts: Mapping[str, str] = field(default_factory=dict)
    start: bytes = b""

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return max(1, int(self.cpus))


def resolve_resources(plan: SearchConfig, cluster: Cluster) -> Resources:
    """Return each trial's share and the number of concurrent trials; raise Refused if no machine
    could ever hold one, or if there is none yet and the plan leaves GPUs open."""
    cpus, gpus = plan.cpus_per_trial, plan.gpus_per_trial
    if gpus is None:
        gpus = LOCAL_GPU_SHARE if any(node.gpus > 0 for node in cluster.nodes) else 0.0
    slots = sum(_slots(node, cpus, gpus) for node in cluster.nodes)
    if slots == 0 and not cluster.can_grow:
        largest = max(cluster.nodes, key=lambda n: (n.gpus, n.cpus), default=Node(0, 0))
        raise Refused(
            f"one machine must hold a trial of {cpus:g} CPUs and {gpus:g} GPUs, but the largest "
            f"has {largest.cpus:g} CPUs and {largest.gpus:g} GPUs. Lower --cpus-per-trial or "
            "--gpus-per-trial; for a cluster that grows, give --max-concurrent."
        )
    if slots == 0 and plan.gpus_per_trial is None:
        raise Refused(
            "where no machine holds a trial yet, it must be said whether those that come have "
            "GPUs, but --gpus-per-trial was not given. Give 0.25 for four trials on a GPU, or 0."
        )
    wanted = plan.max_concurrent or (plan.trials if cluster.can_grow else slots)
    return Resources(cpus, gpus, max(1, min(wanted, plan.trials)), plan.code_texts)


def fits(cluster: Cluster, resources: Resources) -> bool:
    """Return whether some present machine of the cluster can hold a trial."""
    return any(_slots(node, resources.cpus, resources.gpus) for node in cluster.nodes)


def _slots(node: Node, cpus: float, gpus: float) -> int:
    by_cpu = int(node.cpus / cpus + 1e-9)
    return by_cpu if gpus == 0 else min(by_cpu, int(node.gpus / gpus + 1e-9))
