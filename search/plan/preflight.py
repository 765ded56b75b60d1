"""Seconds of checks before hours are spent; each refusal has rule, value and remedy.

Knows no Ray: the driver hands over what the cluster has as plain data.
"""

import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.config import TrainConfig

from .config import SearchConfig
from .errors import Refused

LOCAL_GPU_SHARE = 0.25
"""Of one GPU, per trial, unless asked otherwise: a small network leaves most of it idle."""


LONG_MINUTES = 10.0
"""A plan that takes longer is worth a smoke trial of each network first."""


MUST_AGREE = ("python", "ray", "torch", "numpy")
"""Versions that driver and workers must share; the project's own code is sent along."""


@dataclass(frozen=True)
class Node:
    """One machine of a cluster."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Cluster:
    """What a search may use, as plain data.

    Attributes:
        nodes: the machines there are now.
        can_grow: whether machines may be added; then a trial waits for one that holds it.
        dashboard: URL of the Ray dashboard, or None.
    """

    nodes: tuple[Node, ...]
    dashboard: str | None = None
    can_grow: bool = False


@dataclass(frozen=True)
class Resources:
    """What one trial takes, and how many run at a time."""

    cpus: float
    gpus: float
    concurrent: int

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return max(1, int(self.cpus))


def check_out(out: Path, remedy: str = "Choose another with --out.") -> None:
    """Refuses a results folder that cannot be written to, by writing to it.

    Args:
        remedy: what a person can do about it.

    Raises:
        Refused: naming the first existing folder on the way.
    """
    existing = out
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"0" * 4096)
    except OSError as error:
        raise Refused(
            f"--out must be a folder that can be written to, but {existing} is not "
            f"({error.strerror}). {remedy}"
        ) from None


def check_versions(
    own: Mapping[str, str | None], theirs: Mapping[str, Mapping[str, str | None]]
) -> None:
    """Raises Refused as `version_mismatch` says."""
    if said := version_mismatch(own, theirs):
        raise Refused(said)


def version_mismatch(
    own: Mapping[str, str | None], theirs: Mapping[str, Mapping[str, str | None]]
) -> str:
    """Why workers whose versions are not the driver's must not train: rows would depend on where
    they ran. Empty if all agree.

    Args:
        own: the driver's, by package.
        theirs: the same of every node.
    """
    differing = [
        f"{name} is {own[name]} here and {found.get(name)} on {host}"
        for host, found in theirs.items()
        for name in MUST_AGREE
        if _same_build(own[name]) != _same_build(found.get(name))
    ]
    if not differing:
        return ""
    return (
        f"workers must have the driver's versions, but {'; '.join(differing)}. Use one image "
        "on all machines, or install the same version on them."
    )


def _same_build(version: str | None) -> str | None:
    return None if version is None else version.partition("+")[0]  # +cpu and +cu128 agree


def smallest_config(config: TrainConfig) -> TrainConfig:
    """One step at full batch size, judged on a handful of scenes."""
    little = {
        "epochs": 1,
        "steps_per_epoch": 1,
        "evaluation.num_scenes": 4,
        "evaluation.num_test_scenes": 4,
    }
    return TrainConfig.from_params(config.to_params() | little)


def check_address(address: str | None, timeout: float = 5.0) -> None:
    """Refuses `host:port` where nobody listens, in seconds instead of Ray's minutes.

    Raises:
        Refused: if the connection cannot be made, or is one of Ray's client.
    """
    if address is None:
        return
    if address.startswith("ray://"):
        raise Refused(
            f"the driver of a search runs on a machine of the cluster, but {address!r} is one for "
            "Ray's client. Submit the search as a job, or run it there with `--address auto`."
        )
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # `auto` and names are Ray's to resolve
    try:
        socket.create_connection((host or "127.0.0.1", int(port)), timeout).close()
    except OSError as error:
        raise Refused(
            f"--address must name a running Ray cluster, but nothing listens at {address!r} "
            f"({error}). Start one with `ray start --head`, or leave --address out."
        ) from error


def resolve_resources(plan: SearchConfig, cluster: Cluster) -> Resources:
    """What one trial gets and how many run at a time.

    Raises:
        Refused: if no machine of the cluster could ever hold one trial, or none does yet and it
            is not known what a trial takes of those that come.
    """
    cpus = plan.cpus_per_trial
    gpus = plan.gpus_per_trial
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
    return Resources(cpus, gpus, max(1, min(wanted, plan.trials)))


def fits(cluster: Cluster, resources: Resources) -> bool:
    """Whether some machine of the cluster, as it is now, could hold a trial."""
    return any(_slots(node, resources.cpus, resources.gpus) for node in cluster.nodes)


def _slots(node: Node, cpus: float, gpus: float) -> int:
    by_cpu = int(node.cpus / cpus + 1e-9)
    return by_cpu if gpus == 0 else min(by_cpu, int(node.gpus / gpus + 1e-9))
