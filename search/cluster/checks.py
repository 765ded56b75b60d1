"""Checks of a cluster's machines before anything is spent.

Do they see the run's folder, have they the driver's versions, are their eigendecompositions right,
does each network survive a step? Checks that need no cluster are in `search.plan`.
"""

import itertools
import os
from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.plan import (
    GB,
    Cluster,
    Memory,
    Outcome,
    Refused,
    Resources,
    SearchConfig,
    classify_error,
    fits,
    resolve_resources,
    too_large,
    version_mismatch,
    with_memory,
)
from search.records import RunStore
from search.remote import filesystem_of, probe_file, uri_of
from trainer.config import is_reference
from trainer.own_trainer import OwnTrainer
from trainer.provenance import versions

from .tasks import import_own, measure_backends, probe_node, submit, take_step

MESSAGE_SECONDS = 30.0
"""Interval of the message that a search still waits for a machine."""

LONG_MINUTES = 10.0
"""Plans that take longer try one step of each network first."""

ONE_STEP = {
    "epochs": 1,
    "steps_per_epoch": 1,
    "evaluation.num_test_scenes": 4,
    "evaluation.objective_snr_db": (0.0,),
    "evaluation.report_snr_db": (0.0,),
}
"""Parameters of the shortest training, which has the full batch size."""


def preflight_checks(
    plan: SearchConfig, store: RunStore, resources: Resources, cluster: Cluster
) -> Resources:
    """Check the machines that will do the work; print what was found, and return the resources
    with the memory of a trial, where it was measured, and as many trials at a time as that allows.

    Raise Refused if trials could not keep their checkpoints there, not train as here, or have not
    enough memory.
    """
    check_nodes(store)
    if plan.own_trainer is not None:
        check_own_trainer(plan.own_trainer, resources)
        return resources
    left = replace(plan, trials=max(1, plan.trials - len(store.ended())))
    for line in check_backends(left, resources, cluster):
        print(line, flush=True)
    lines, measured = try_networks(left, resources, cluster)
    if measured.concurrent < resources.concurrent:
        lines.append(
            f"{measured.concurrent} trials at a time, not {resources.concurrent}: one is given "
            f"{measured.memory / GB:.1f} GB of memory"
        )
    print(*lines, sep="\n", end="\n" if lines else "", flush=True)
    return measured


def wait_for_resources(plan: SearchConfig, cluster: Cluster) -> Resources:
    """Return what one trial gets and how many run at a time.

    Where no machine holds a trial and the cluster may grow, wait for the first that does, and
    raise Refused if none has come within `--trial-timeout`.
    """
    resources = resolve_resources(plan, cluster)
    if fits(cluster, resources):
        return resources
    trial = f"a trial of {resources.cpus:g} CPUs and {resources.gpus:g} GPUs"
    needs = {"CPU": resources.cpus, "GPU": resources.gpus}
    group = placement_group([{name: amount for name, amount in needs.items() if amount}])
    left = plan.trial_timeout_s
    try:
        while not group.wait(min(left, MESSAGE_SECONDS)):
            left -= MESSAGE_SECONDS
            if left <= 0:
                raise Refused(
                    f"one machine must hold {trial}, but none does and none has come within "
                    f"{plan.trial_timeout_s:g} s. Lower --cpus-per-trial or --gpus-per-trial; or, "
                    "if `ray status` says that one is on its way, raise --trial-timeout."
                )
            print(f"no machine holds {trial} yet: waiting for the cluster to grow", flush=True)
    finally:
        remove_placement_group(group)
    return resources


def check_nodes(store: RunStore) -> None:
    """Raise Refused if a node with CPUs does not see the run's folder or has other versions."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if len(nodes) == 1 and ray.get_runtime_context().get_node_id() == nodes[0]["NodeID"]:
        return  # this one has just made the folder
    probe = uri_of(store.path / f".probe-{os.getpid()}")
    with probe_file(*filesystem_of(probe)):
        where = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        task = ray.remote(num_cpus=0)(probe_node)
        found = ray.get([task.options(scheduling_strategy=at).remote(probe) for at in where])
    names = [f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]})" for node in nodes]
    answers = dict(zip(names, found, strict=True))
    if wrong := version_mismatch(versions(), {name: own for name, (_, own) in answers.items()}):
        raise Refused(wrong)
    if blind := [name for name, (sees, _) in answers.items() if not sees]:
        raise Refused(
            f"all nodes must see and write the run's folder, but {', '.join(blind)} cannot use "
            f"{uri_of(store.path)}. Put --out on storage that they share, such as NFS or "
            "s3://bucket/prefix."
        )


def check_backends(plan: SearchConfig, resources: Resources, cluster: Cluster) -> list[str]:
    """Let a worker with each kind of GPU check the eigendecompositions that the space's backends
    rest on.

    Return what was measured, for a person, or raise Refused if one is wrong on that machine.
    """
    branches = (plan.train_config(drawn) for drawn in plan.space.branches())
    configs = [config for config in branches if config.eigengap.weight > 0]
    if not configs:
        return []
    found: list[str] = []
    for kind in cluster.gpu_kinds(resources):
        reason, lines = _answer(submit(resources, measure_backends, configs, gpu_kind=kind))
        if reason:
            raise Refused(reason)
        found += lines
    return found


def _answer(task: Any) -> Any:
    """Return what a worker found; raise Refused if it refuses."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Refused):
            raise error.cause from error
        raise


def check_own_trainer(own: OwnTrainer, resources: Resources) -> None:
    """Let a worker import the user's trainer; raise Refused if it cannot."""
    try:
        ray.get(submit(resources, import_own, own))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise Refused(
            f"a worker must be able to import `{own.reference}`, but: {reason} Install what it "
            "needs on all machines, or skip this check with --no-preflight."
        ) from error


def try_networks(
    plan: SearchConfig, resources: Resources, cluster: Cluster
) -> tuple[list[str], Resources]:
    """Let a worker with each kind of GPU take one step with the largest network of each kind, if
    the plan is a long one, or with the user's code in any, and validate it.

    Return time and memory of each, for a person, and the resources with that memory, or raise
    Refused if one fails or does not fit.
    """
    configs = (plan.train_config(drawn) for drawn in plan.space.branches(upper=True))
    if plan.minutes <= LONG_MINUTES:
        own = (c for c in configs if is_reference(c.network.kind) or is_reference(c.loss.term))
        configs = own
    last = {config.network.kind: config for config in configs}  # the largest of each
    lines, most, largest = [], Memory(), cluster.largest_memory
    for (kind, config), gpu in itertools.product(last.items(), cluster.gpu_kinds(resources)):
        params = config.to_params() | ONE_STEP
        try:
            task = submit(resources, take_step, params, largest, gpu_kind=gpu)
            step, memory = _answer(task)
        except ray.exceptions.RayError as error:
            if classify_error(str(error)) is Outcome.OUT_OF_MEMORY:
                found = f"a step of a network of kind `{kind}` takes more"
                gpus = resources.gpus if "CUDA" in str(error) else 0.0
                raise Refused(too_large(found, cluster, gpus)) from error
            reason = str(error).strip().splitlines()[-1]
            reason = reason.removeprefix("trainer.user_code.CodeError: ").rstrip(".")
            raise Refused(
                f"a network of kind `{kind}` must survive one step, but: {reason}. Try it alone "
                "with `python -m trainer train`, or skip this check with --no-preflight."
            ) from error
        lines.append(f"{kind} network{f' on {gpu}' if gpu else ''}: {step}")
        most = most.at_least(memory)
    return lines, with_memory(resources, cluster, most) if last else resources
