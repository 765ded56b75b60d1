"""Checks on the machines that will do the work, before anything is spent: do they see the run's
folder, have they the driver's versions, are their eigendecompositions right, do the networks
survive a step. Checks that need no cluster are in `search.plan`."""

import os
from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.plan import (
    Cluster,
    Refused,
    Resources,
    SearchConfig,
    fits,
    resolve_resources,
    version_mismatch,
)
from search.records import RunStore
from search.remote import filesystem_of, probe_file, uri_of
from trainer.config import TrainConfig
from trainer.provenance import versions

from .connection import on_worker
from .tasks import backends_task, node_task, smoke_task

SAID_EVERY_SECONDS = 30.0
"""How often it is said that a search still waits for a machine."""

LONG_MINUTES = 10.0
"""Plans that take longer try one step of each network first."""


def preflight_checks(plan: SearchConfig, store: RunStore, resources: Resources) -> None:
    """Seconds of checks on the machines that will do the work; prints what they found.

    Raises:
        Refused: if trials could not keep their checkpoints, or not train, or not as here.
    """
    check_nodes(store)
    left = replace(plan, trials=max(1, plan.trials - len(store.ended())))
    for line in (*check_backends(left, resources), *try_networks(left, resources)):
        print(line, flush=True)


def room_for(plan: SearchConfig, cluster: Cluster) -> Resources:
    """What one trial gets and how many run at a time; waits for the first machine that holds one,
    where none does and the cluster may grow.

    Raises:
        Refused: if no machine could ever hold one, or none has come within `--trial-timeout`.
    """
    resources = resolve_resources(plan, cluster)
    if fits(cluster, resources):
        return resources
    trial = f"a trial of {resources.cpus:g} CPUs and {resources.gpus:g} GPUs"
    needs = {"CPU": resources.cpus, "GPU": resources.gpus}
    asked = placement_group([{name: amount for name, amount in needs.items() if amount}])
    left = plan.trial_timeout_s
    try:
        while not asked.wait(min(left, SAID_EVERY_SECONDS)):
            left -= SAID_EVERY_SECONDS
            if left <= 0:
                raise Refused(
                    f"one machine must hold {trial}, but none does and none has come within "
                    f"{plan.trial_timeout_s:g} s. Lower --cpus-per-trial or --gpus-per-trial; or, "
                    "if `ray status` says that one is on its way, raise --trial-timeout."
                )
            print(f"no machine holds {trial} yet: waiting for the cluster to grow", flush=True)
    finally:
        remove_placement_group(asked)
    return resources


def check_nodes(store: RunStore) -> None:
    """Lets every node of the cluster look for a file in the run's folder, and say its versions.

    Raises:
        Refused: if one of them does not see it, or has other versions than the driver.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if len(nodes) == 1 and ray.get_runtime_context().get_node_id() == nodes[0]["NodeID"]:
        return  # this one has just made the folder
    probe = uri_of(store.path / f".probe-{os.getpid()}")
    with probe_file(*filesystem_of(probe)):
        asked = {_host(node): _look(node["NodeID"], probe) for node in nodes}
        answers = {host: ray.get(answer) for host, answer in asked.items()}
    if wrong := version_mismatch(versions(), {host: own for host, (_, own) in answers.items()}):
        raise Refused(wrong)
    if blind := [host for host, (sees, _) in answers.items() if not sees]:
        raise Refused(
            f"all nodes must see and write the run's folder, but {', '.join(blind)} cannot use "
            f"{uri_of(store.path)}. Put --out on storage that they share, such as NFS or s3://bucket/prefix."
        )


def _host(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]})"


def _look(node_id: str, probe: str) -> Any:
    """A future: whether that node sees a file and can write beside it, and its versions."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = node_task.options(num_cpus=0, scheduling_strategy=there)
    return task.remote(probe)


def check_backends(plan: SearchConfig, resources: Resources) -> list[str]:
    """Lets a worker check the eigendecompositions that the space's backends rest on.

    Returns:
        What was measured, for a person; empty if the space has no eigengap term.

    Raises:
        Refused: if one of them is wrong on that machine.
    """
    branches = (plan.train_config(drawn) for drawn in plan.space.branches())
    configs = [config for config in branches if config.eigengap.weight > 0]
    if not configs:
        return []
    reason, lines = ray.get(on_worker(backends_task, resources).remote(configs, resources.threads))
    if reason:
        raise Refused(reason)
    return list(lines)


def try_networks(plan: SearchConfig, resources: Resources) -> list[str]:
    """Lets a worker take one step with each kind of network, if the plan is a long one.

    Raises:
        Refused: if one of them fails.
    """
    if plan.minutes <= LONG_MINUTES:
        return []
    kinds = {}
    for drawn in plan.space.branches():
        config = plan.train_config(drawn)
        kinds[config.network.kind] = _one_step(config)  # the last: most of it drawn
    said = []
    for kind, config in kinds.items():
        task = on_worker(smoke_task, resources).remote(config.to_params(), resources.threads)
        try:
            said.append(f"{kind} network: {ray.get(task)}")
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise Refused(
                f"a network of kind `{kind}` must survive one step, but: {reason}. Try it alone "
                "with `python -m trainer train`, or skip this check with --no-preflight."
            ) from error
    return said


def _one_step(config: TrainConfig) -> TrainConfig:
    """Return the configuration with one step at full batch size and a handful of scenes."""
    little = {
        "epochs": 1,
        "steps_per_epoch": 1,
        "evaluation.num_scenes": 4,
        "evaluation.num_test_scenes": 4,
    }
    return TrainConfig.from_params(config.to_params() | little)
