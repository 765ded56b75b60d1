"""What runs on Ray's workers: one trial, the classical baselines, the best network's last test.

A trial never raises into Ray: a failure is reported as a last result with its outcome and the
function returns, so that the driver hears of it in milliseconds, the worker lives on for the next
trial, and Ray's retries stay reserved for lost nodes. Every number reported is finite.
"""

import gc
import math
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune

from trainer.config import TrainConfig
from trainer.failure import Diverged

from .outcome import Outcome, classify_error, signature

Train = Callable[..., Iterator[Any]]
"""`trainer.loop.train`, or what else takes `(config, *, resume)` and yields `EpochReport`s."""

STATE_FILE = "state.pt"
WORST = 1.0
"""The capped error of a guess that never hits; what a trial without any epoch is told with."""


def make_trainable(train: Train | None, threads: int) -> Callable[[dict[str, Any]], None]:
    """A Ray trainable around `train`; None is the trainer's own, imported on the worker."""

    def trainable(settings: dict[str, Any]) -> None:
        run_trial(settings, train or _own_train(threads))

    return trainable


def run_trial(settings: Mapping[str, Any], train: Train) -> None:
    """Trains one configuration, reports every epoch, and says with the last one how it ended."""
    started = time.time()
    last: dict[str, Any] = {"epoch": 0, "objective": WORST}
    about = {"host": platform.node(), "started": started, "device": _device()}
    try:
        config = TrainConfig.from_params(settings["params"])
        for report in train(config, resume=_last_state()):
            last = report.row() | about | {"seconds_total": time.time() - started}
            if report.epoch == config.epochs:
                last["outcome"] = Outcome.COMPLETED.value
                last["evaluations"] = [asdict(row) for row in report.evaluation]
            with tempfile.TemporaryDirectory() as folder:
                report.state.save(Path(folder) / STATE_FILE)
                _report(last, tune.Checkpoint.from_directory(folder))
    except Diverged as diverged:
        failure = {f"failure_{k}": v for k, v in diverged.failure.as_dict().items()}
        failure["failure_remedy"] = diverged.failure.remedy
        failure |= {"outcome": Outcome.DIVERGED.value, "cause": diverged.failure.cause.value}
        _report(last | about | failure | {"seconds_total": time.time() - started})
    except Exception as error:  # noqa: BLE001 - whatever it is, the table of outcomes has a row
        text = traceback.format_exc()
        outcome = classify_error(text, type(error).__name__)
        crashed = outcome is Outcome.CRASHED
        end: dict[str, Any] = {
            "outcome": outcome.value,
            "cause": signature(text) if crashed else type(error).__name__,
            "failure_message": str(error),
            "failure_traceback": text,
            "peak_bytes": _peak_bytes(),
        }
        _report(last | about | end | {"seconds_total": time.time() - started})
    finally:
        _free_memory()


def check_backends(configs: list[TrainConfig], threads: int) -> tuple[str, list[str]]:
    """What is wrong with this worker's eigendecompositions for these configurations (empty if
    nothing is), and what was measured, for a person."""
    from trainer.loop import resolve_device
    from trainer.preflight import check_spectral, problem_size

    _own_train(threads)
    check = check_spectral(
        {config.spectral.backend for config in configs},
        sizes=list(dict.fromkeys(problem_size(config) for config in configs)),
        device=str(resolve_device(configs[0].device)),
    )
    return check.reason, check.lines()


def score_baselines(config: TrainConfig, threads: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of the bound and of the classical methods on the held-out scenes, and their errors per
    scene, as plain data: `{"evaluations": rows, "scenes": rows}`."""
    from trainer.evaluation import baselines
    from trainer.loop import resolve_device

    _own_train(threads)
    return _tables(baselines(config, device=str(resolve_device(config.device))))


def score_state(state_path: str, threads: int) -> dict[str, list[dict[str, Any]]]:
    """The same tables for a trained network, read from its checkpoint."""
    from trainer.evaluation import score_network
    from trainer.loop import resolve_device, restore_network

    _own_train(threads)
    config, network = restore_network(Path(state_path), resolve_device("auto"))
    return _tables([score_network(network, config)])


def _own_train(threads: int) -> Train:
    import torch

    from trainer.loop import train

    torch.set_num_threads(threads)
    return train


def _last_state() -> Any:
    """The state a lost trial had reached, or None at its first start."""
    from trainer.checkpoint import TrainState

    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return TrainState.load(Path(folder) / STATE_FILE)


def _tables(scored: list[Any]) -> dict[str, list[dict[str, Any]]]:
    return {
        "evaluations": [asdict(row) for one in scored for row in one.rows],
        "scenes": [row for one in scored for row in one.scenes.rows()],
    }


def _report(row: dict[str, Any], checkpoint: tune.Checkpoint | None = None) -> None:
    bad = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    if bad:
        raise ValueError(
            f"a reported number must be finite, but {', '.join(f'{k}={row[k]}' for k in bad)}. "
            "The trainer must raise Diverged before it reports."
        )
    tune.report(row, checkpoint=checkpoint)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _peak_bytes() -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _free_memory() -> None:
    """A reused worker keeps its CUDA cache, and trials that share a GPU would starve."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


backends_task = ray.remote(check_backends)
baselines_task = ray.remote(score_baselines)
state_task = ray.remote(score_state)
