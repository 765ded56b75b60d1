"""Functions that run on workers beside the trials, and their submission to Ray.

Their arguments and results are plain data.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray

from search.plan import BucketError, Memory, Resources, SearchFailed
from search.records import BEST_FILE
from search.remote import downloaded, filesystem_of, probe_file, uploaded
from trainer.config import EvaluationConfig, TrainConfig
from trainer.failure import Diverged
from trainer.intervals import Interval
from trainer.own_trainer import OwnTrainer
from trainer.provenance import versions
from trainer.user_code import give_texts

from .memory import free_memory, limit_gpu_memory, memory_limit, peak_memory, require_gpu
from .trainable import load_trainer, take_start

Tables = dict[str, list[dict[str, Any]]]
"""Rows by the name of their table."""


def submit(
    resources: Resources,
    function: Callable[..., Any],
    *arguments: Any,
    gpu_kind: str | None = None,
) -> Any:
    """Let some worker, with that kind of GPU if given, call a function with what a trial takes;
    return Ray's reference to it."""
    options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "name": function.__name__}
    options |= {"accelerator_type": gpu_kind} if gpu_kind else {}
    return _call.options(**options).remote(resources, function, arguments)


@ray.remote
def _call(resources: Resources, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    give_texts(resources.code_texts)
    load_trainer(resources.threads)
    if function is not import_own:  # which may compute without PyTorch
        require_gpu(resources.gpus)
    if function is not take_step:  # which measures what it takes
        limit_gpu_memory(resources.gpus)
    take_start(resources.start)
    return function(*arguments)


def as_completed(running: dict[Any, str]) -> Iterator[tuple[str, Any]]:
    """Yield name and reference of the submitted functions as they end; remove them."""
    while running:
        (done,), _ = ray.wait(list(running))
        yield running.pop(done), done


def result_of(reference: Any, name: str) -> Any:
    """Return the result of a submitted function; if it fails, raise SearchFailed with its name."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        raise SearchFailed(f"{name} failed on its worker: {error}") from error


def measure_backends(configs: list[TrainConfig]) -> tuple[str, list[str]]:
    """Return what is wrong with the eigendecompositions here, or "", and what was measured."""
    from trainer.spectral import check_spectral, problem_size
    from trainer.training import resolve_device

    check = check_spectral(
        {config.spectral.backend for config in configs},
        sizes=list(dict.fromkeys(problem_size(config) for config in configs)),
        device=str(resolve_device(configs[0].device)),
    )
    return check.reason, check.lines()


def probe_node(probe: str) -> tuple[bool, dict[str, str | None]]:
    """Return if this node sees the driver's probe and can write beside it, and its versions."""
    try:
        filesystem, path = filesystem_of(probe)
        with probe_file(filesystem, f"{path}.{platform.node()}.{os.getpid()}"):
            sees = filesystem.get_file_info(path).is_file
    except (OSError, BucketError):
        sees = False
    return sees, versions()


def import_own(own: OwnTrainer) -> None:
    """Import the user's trainer; raise CodeError if that fails."""
    own.check()


def take_step(params: dict[str, Any], largest: float) -> tuple[str, Memory]:
    """Run a training of one step; return the time and memory it took, or that it diverged, which
    is a trial's own affair, for a person; and the memory.

    Args:
        largest: memory of the largest machine [bytes]; it fails if it takes more.
    """
    from trainer.evaluation import CHUNK
    from trainer.training import train

    name = "evaluation.num_scenes"
    params = params | {name: min(params[name], CHUNK)}  # as many at once as a trial has
    free_memory()  # of the task before
    began = time.perf_counter()
    diverges = ""
    try:
        with memory_limit(largest):
            for _ in train(TrainConfig.from_params(params)):
                pass
    except Diverged as error:
        diverges = f"one step diverges ({error.failure.cause}); trials that do so end alone"
    seconds, memory = time.perf_counter() - began, peak_memory()
    peak = (memory.gpu or memory.host) / 2**20
    took = f"one step and its evaluation in {seconds:.1f} s, {peak:.0f} MiB at the peak"
    return diverges or took, memory


def score_baselines(config: TrainConfig, names: Sequence[str] | None = None) -> Tables:
    """Score the bound and the classical methods on the held-out scenes, or the `names` of them."""
    from trainer.evaluation import evaluate_baselines
    from trainer.training import resolve_device

    return _tables(evaluate_baselines(config, names, str(resolve_device(config.device))))


def score_state(state_path: str, evaluation: EvaluationConfig | None = None) -> Tables:
    """Score the trained network of a checkpoint on the scenes of `evaluation`.

    Without it, score it on those held out from its own training, and return also `spectra` and
    `pseudospectra`, which show what the training did.
    """
    from trainer.evaluation import eigenvalue_rows, evaluate_network, pseudospectrum_rows
    from trainer.training import initial_network

    config, network = _restored(state_path)
    if evaluation is not None:
        config = replace(config, evaluation=evaluation)
    tables = _tables([evaluate_network(network, config)])
    if evaluation is None:
        network = network.cpu()  # few scenes
        tables["spectra"] = eigenvalue_rows(network, initial_network(config), config)
        tables["pseudospectra"] = pseudospectrum_rows(network, config)
    return tables


def score_counts(state_path: str, evaluations: Sequence[EvaluationConfig]) -> list[Any]:
    """Return, for the scenes of each of `evaluations`, their seed and the rows of the trained
    network of a checkpoint, K told and K by rules on the eigenvalues."""
    from trainer.evaluation import evaluate_counting

    config, network = _restored(state_path)
    return [
        (one.test_seed, evaluate_counting(network, replace(config, evaluation=one)))
        for one in evaluations
    ]


def score_hinges(
    state_path: str, params: dict[str, Any], num_scenes: int
) -> list[dict[str, float]]:
    """Return rows of the eigengap term that `params` weigh, on a trained network."""
    from trainer.training import hinge_rows

    _, network = _restored(state_path)
    return hinge_rows(network, TrainConfig.from_params(params), num_scenes)


def measure_best(checkpoint: str) -> dict[str, Any]:
    """Evaluate the best epoch of a trial's checkpoint, as a model folder describes it."""
    from trainer.training import evaluate_model

    with downloaded(checkpoint) as folder:
        return asdict(evaluate_model(folder / BEST_FILE))


def export_best(
    checkpoint: str,
    folder: str,
    measured: dict[str, Any],
    about: dict[str, Any],
    others: dict[str, Interval],
) -> None:
    """Export the best epoch of a trial's checkpoint to a path or URI; see `export_model`.

    `measured` is what `measure_best` has returned, `others` are mean errors of other estimators.
    """
    from trainer.training import ModelEvaluation, export_model

    evaluation = ModelEvaluation.of(measured)
    with downloaded(checkpoint) as state, uploaded(folder) as model:
        export_model(state / BEST_FILE, model, about=about, others=others, evaluation=evaluation)


def _restored(state_path: str) -> tuple[TrainConfig, Any]:
    from trainer.training import resolve_device, restore_network

    with downloaded(state_path) as path:
        return restore_network(path, resolve_device("auto"))


def _tables(scored: list[Any]) -> Tables:
    return {
        "evaluations": [asdict(row) for one in scored for row in one.rows],
        "scenes": [row for one in scored for row in one.scenes.rows()],
    }
