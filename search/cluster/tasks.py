"""What runs once on a Ray worker beside the trials: checks, scores of networks and of classical
methods, the export of the best one. Everything goes in and comes out as plain data."""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import ray

from search.plan import BucketError
from search.records import BEST_FILE
from search.remote import downloaded, filesystem_of, probe_file, uploaded
from trainer.config import EvaluationConfig, TrainConfig
from trainer.provenance import versions

from .trainable import load_trainer, peak_bytes


def check_backends(configs: list[TrainConfig], threads: int) -> tuple[str, list[str]]:
    """What is wrong with this worker's eigendecompositions for these configurations (empty if
    nothing is), and what was measured, for a person."""
    from trainer.spectral import check_spectral, problem_size
    from trainer.training import resolve_device

    load_trainer(threads)
    check = check_spectral(
        {config.spectral.backend for config in configs},
        sizes=list(dict.fromkeys(problem_size(config) for config in configs)),
        device=str(resolve_device(configs[0].device)),
    )
    return check.reason, check.lines()


def look(probe: str) -> tuple[bool, dict[str, str | None]]:
    """Whether this node sees a file of the driver's and can write beside it; its versions."""
    return sees(probe), versions()


def sees(probe: str) -> bool:
    """Whether this node sees a file of the driver's, a path or URI, and can write beside it."""
    try:
        filesystem, path = filesystem_of(probe)
        if not filesystem.get_file_info(path).is_file:
            return False
        with probe_file(filesystem, f"{path}.{platform.node()}.{os.getpid()}"):
            pass
    except (OSError, BucketError):
        return False
    return True


def take_one_step(params: dict[str, Any], threads: int) -> str:
    """Trains as little as can be; time and memory it took, for a person."""
    train = load_trainer(threads)
    began = time.perf_counter()
    for _ in train(TrainConfig.from_params(params)):
        pass
    seconds, peak = time.perf_counter() - began, peak_bytes() / 2**20
    return f"one step and its evaluation in {seconds:.1f} s, {peak:.0f} MiB at the peak"


def score_baselines(
    config: TrainConfig, threads: int, names: Sequence[str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the bound and of the classical methods on the held-out scenes, and their errors per
    scene, as plain data: `{"evaluations": rows, "scenes": rows}`."""
    from trainer.evaluation import evaluate_baselines
    from trainer.training import resolve_device

    load_trainer(threads)
    device = str(resolve_device(config.device))
    return _tables(evaluate_baselines(config, names, device))


def score_state(
    state_path: str, threads: int, evaluation: EvaluationConfig | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The same tables for a trained network, read from its checkpoint; on the scenes of
    `evaluation`, or else those held out from its own training, and then also `spectra` and
    `pseudospectra`, which show what the training did."""
    from trainer.evaluation import eigenvalue_rows, evaluate_network, pseudospectrum_rows
    from trainer.training import initial_network, resolve_device, restore_network

    load_trainer(threads)
    with downloaded(state_path) as path:
        config, network = restore_network(path, resolve_device("auto"))
    if evaluation is not None:
        config = replace(config, evaluation=evaluation)
    scored = _tables([evaluate_network(network, config)])
    if evaluation is not None:
        return scored
    network = network.cpu()  # few scenes
    shown = {
        "spectra": eigenvalue_rows(network, initial_network(config), config),
        "pseudospectra": pseudospectrum_rows(network, config),
    }
    return shown | scored


def score_hinges(
    state_path: str, threads: int, params: dict[str, Any], num_scenes: int
) -> list[dict[str, float]]:
    """Rows of the eigengap term that `params` weigh, on a trained network."""
    from trainer.training import hinge_rows, resolve_device, restore_network

    load_trainer(threads)
    with downloaded(state_path) as path:
        _, network = restore_network(path, resolve_device("auto"))
    return hinge_rows(network, TrainConfig.from_params(params), num_scenes)


def measure_best(checkpoint: str, threads: int) -> dict[str, Any]:
    """What a model folder says of the best epoch in a trial's checkpoint, as plain data."""
    from trainer.training import evaluate_model

    load_trainer(threads)
    with downloaded(checkpoint) as there:
        return asdict(evaluate_model(there / BEST_FILE))


def export_best(
    checkpoint: str,
    folder: str,
    measured: dict[str, Any],
    about: dict[str, Any],
    others: list[dict[str, Any]],
    threads: int,
) -> None:
    """Makes a model folder of the best epoch in a trial's checkpoint; see `trainer.training`.

    Args:
        measured: of it, by `measure_best`.
        about: where it comes from, for the model card.
        others: rows of the bound and of the classical methods on the same scenes.
    """
    from trainer.training import ModelEvaluation, export_model

    load_trainer(threads)
    with downloaded(checkpoint) as there, uploaded(folder) as model:
        known = ModelEvaluation.of(measured)
        export_model(there / BEST_FILE, model, about=about, others=others, evaluation=known)


def _tables(scored: list[Any]) -> dict[str, list[dict[str, Any]]]:
    return {
        "evaluations": [asdict(row) for one in scored for row in one.rows],
        "scenes": [row for one in scored for row in one.scenes.rows()],
    }


backends_task = ray.remote(check_backends)
baselines_task = ray.remote(score_baselines)
state_task = ray.remote(score_state)
hinges_task = ray.remote(score_hinges)
measure_task = ray.remote(measure_best)
export_task = ray.remote(export_best)
node_task = ray.remote(look)
smoke_task = ray.remote(take_one_step)
