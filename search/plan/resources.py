"""Shares of machines: the CPUs and GPUs of one trial, and the number of trials at a time.

Knows no Ray: `search.cluster` hands over the cluster's machines as plain data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from trainer.user_code import Source

from .config import SearchConfig
from .errors import Refused

LOCAL_GPU_SHARE = 0.25
"""Default share of a GPU per trial: a small network leaves most of a GPU idle."""
MEMORY_MARGIN = 1.1
"""Memory that a trial is given, relative to that of its first step."""
GB = 1e9


@dataclass(frozen=True)
class Memory:
    """The most memory that a step took [bytes]: of the machine, and of the GPU, which has
    `gpu_total`."""

    host: float = 0.0
    gpu: float = 0.0
    gpu_total: float = math.inf

    def at_least(self, other: "Memory") -> "Memory":
        """Return the larger of the two, each by itself."""
        host, gpu = max(self.host, other.host), max(self.gpu, other.gpu)
        return Memory(host, gpu, min(self.gpu_total, other.gpu_total))


@dataclass(frozen=True)
class Node:
    """One machine of a cluster, with the memory that its workers may use [bytes] and, if Ray knows
    it, the kind of its GPUs."""

    cpus: float
    gpus: float
    memory: float = math.inf
    gpu_kind: str | None = None


@dataclass(frozen=True)
class Cluster:
    """The present machines that a search may use, and the URL of the Ray dashboard; to a cluster
    that `can_grow` machines may be added, and a trial waits for one that is large enough."""

    nodes: tuple[Node, ...]
    dashboard: str | None = None
    can_grow: bool = False

    @property
    def largest_memory(self) -> float:
        """The memory of the machine that has most [bytes]."""
        return max((node.memory for node in self.nodes), default=math.inf)

    def gpu_kinds(self, resources: "Resources") -> list[str | None]:
        """Return the kinds of GPU that a trial may get, each once; `[None]` without a choice."""
        able = [node for node in self.nodes if _slots(node, resources.cpus, resources.gpus)]
        kinds = list(dict.fromkeys(node.gpu_kind for node in able)) if resources.gpus else []
        return kinds if len(kinds) > 1 else [None]


@dataclass(frozen=True)
class Resources:
    """The CPUs, GPUs and memory of one trial [bytes; 0 where it is not known], the number of
    concurrent trials, and what workers need: the texts of the user's files by their path, and the
    checkpoint whose weights trials begin with."""

    cpus: float
    gpus: float
    concurrent: int
    code_texts: Mapping[str, Source] = field(default_factory=dict)
    start: bytes = b""
    memory: int = 0

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return max(1, int(self.cpus))


def resolve_resources(plan: SearchConfig, cluster: Cluster) -> Resources:
    """Return each trial's share and the number of concurrent trials; raise Refused if no machine
    could ever hold one, if there is none yet and the plan leaves GPUs open, or if its device
    is not what a trial gets."""
    cpus, gpus, device = plan.cpus_per_trial, plan.gpus_per_trial, plan.fixed.get("device")
    if gpus is None:
        shared = device != "cpu" and any(node.gpus > 0 for node in cluster.nodes)
        gpus = LOCAL_GPU_SHARE if shared else 0.0
    if (device == "cpu" and gpus > 0) or (device == "cuda" and gpus == 0):
        raise Refused(
            f"trials must get the device that they compute on, but device={device} and a trial "
            f"gets {gpus:g} GPUs. Give --set device=auto, which follows --gpus-per-trial."
        )
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


def with_memory(resources: Resources, cluster: Cluster, step: Memory) -> Resources:
    """Return the resources with the memory of a trial, and no more trials at a time than that of
    the machines holds.

    Args:
        step: the most that a step took.

    Raises:
        Refused: if no machine, or no such share of a GPU, has as much.
    """
    share = min(resources.gpus, 1.0) * step.gpu_total
    if resources.gpus and step.gpu > share:
        raise Refused(
            f"a trial must fit into its share of a GPU, but one step takes {step.gpu / GB:.1f} GB "
            f"and {resources.gpus:g} of {step.gpu_total / GB:.1f} GB is {share / GB:.1f} GB. "
            "Raise --gpus-per-trial, or lower batch_size."
        )
    need = int(MEMORY_MARGIN * step.host)
    slots = sum(_slots(node, resources.cpus, resources.gpus, need) for node in cluster.nodes)
    if slots == 0:
        raise Refused(too_large(f"one takes {need / GB:.1f} GB", cluster))
    fewer = resources.concurrent if cluster.can_grow else min(resources.concurrent, slots)
    return replace(resources, memory=need, concurrent=fewer)


def too_large(found: str, cluster: Cluster, gpus: float = 0.0) -> str:
    """Return why a trial is refused of which it was found how much memory it takes, of a machine
    or, with a share of `gpus`, of a GPU."""
    if gpus:
        return (
            f"a trial must fit into the memory of a GPU, but {found} than one has. Lower "
            "batch_size, take a smaller panel or network, or a larger GPU."
        )
    return (
        f"a trial must fit into the memory of a machine, but {found}, and the largest has "
        f"{cluster.largest_memory / GB:.1f} GB for its trials. Lower batch_size, take a smaller "
        "panel or network, or a larger machine."
    )


def _slots(node: Node, cpus: float, gpus: float, memory: float = 0.0) -> int:
    slots = int(node.cpus / cpus + 1e-9)
    if gpus > 1:
        slots = min(slots, int(node.gpus // gpus))
    elif gpus:  # a share is of one GPU: two halves of different GPUs are none
        whole, rest = divmod(node.gpus, 1.0)
        slots = min(slots, int(whole) * int(1 / gpus + 1e-9) + int(rest / gpus + 1e-9))
    return min(slots, int(node.memory / memory)) if memory and node.memory < math.inf else slots
