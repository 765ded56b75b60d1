"""What runs on Ray's workers: one trial, the classical baselines, the best network's last test.

A trial never raises into Ray: a failure is reported as a last result with its outcome and the
function returns, so that the driver hears of it in milliseconds, the worker lives on for the next
trial, and Ray's retries stay reserved for lost nodes. Every number reported is finite.
"""

import gc
import json
import math
import os
import platform
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import ray
from ray import tune

from trainer.config import EvaluationConfig, TrainConfig
from trainer.failure import Diverged
from trainer.provenance import versions

from .bucket import BucketError, brought, handed, opened
from .config import judged_epochs
from .outcome import Outcome, classify_error, signature
from .preflight import other_versions
from .recall import BEST_FILE, REPORTS_FILE, STATE_FILE, read_reports
from .study import WORST

Train = Callable[..., Iterator[Any]]
"""`trainer.loop.train`, or what else takes `(config, *, resume)` and yields `EpochReport`s."""


def make_trainable(
    train: Train | None, threads: int, name: str, own: Mapping[str, str | None]
) -> Callable[[dict[str, Any]], None]:
    """A Ray trainable around `train`; None is the trainer's own, imported on the worker.

    Args:
        name: of the run, which the dashboard shows with every worker.
        own: versions of the driver, which a machine that came after its checks must have too.
    """

    def trainable(settings: dict[str, Any]) -> None:
        # the worker's log, which the dashboard shows: what runs where
        print(f"{settings['trial_id']} of {name} on {platform.node()}", flush=True)
        if wrong := other_versions(own, {platform.node(): _own_versions()}):
            _report({"epoch": 0, "objective": WORST, "refused": wrong})
            return
        run_trial(settings, train or _own_train(threads))

    trainable.__name__ = f"trials of {name}"
    return trainable


def run_trial(settings: Mapping[str, Any], train: Train) -> None:
    """Trains one configuration, reports every epoch, and says with the last one how it ended.

    A trial that an earlier driver began goes on from its checkpoint: its last report is made
    again, since nobody may have heard it, and the epochs after it follow.
    """
    began = time.time()
    try:
        state, kept = _last_state(settings)
    except StorageLost as error:
        _report({"epoch": 0, "objective": WORST, "storage_lost": str(error)})
        return
    reports = kept.reports
    last: dict[str, Any] = reports[-1] if reports else {"epoch": 0, "objective": WORST}
    trained = last.get("seconds_total", 0.0)
    about = {
        "host": platform.node(),
        "started": last.get("started", began),
        "device": _device(),
    }

    def used() -> dict[str, Any]:
        return {"seconds_total": trained + time.time() - began, "peak_bytes": _peak_bytes()}

    def end(**how: Any) -> None:
        _report(last | about | how | used())

    try:
        config = TrainConfig.from_params(settings["params"])
        if reports and tune.get_checkpoint() is None:
            kept.report(state)
            if last.get("outcome"):
                return
        for report in train(config, resume=state):
            row = report.row()
            errors = [r["validation_capped_error"] for r in (*reports, row)]
            row["objective"] = fmean(errors[-judged_epochs(config.epochs) :])
            last = row | about | used()
            if report.epoch == config.epochs:
                last["outcome"] = Outcome.COMPLETED.value
                last["evaluations"] = [asdict(row) for row in report.evaluation]
            reports.append(last)
            kept.report(report.state)
        if not last.get("outcome"):
            raise RuntimeError(f"a training must report {config.epochs} epochs, but ended earlier")
    except StorageLost as error:
        end(outcome=None, storage_lost=str(error))
    except Diverged as diverged:
        failure = {f"failure_{k}": v for k, v in diverged.failure.as_dict().items()}
        failure["failure_remedy"] = diverged.failure.remedy
        end(outcome=Outcome.DIVERGED.value, cause=diverged.failure.cause.value, **failure)
    except Exception as error:  # noqa: BLE001 - whatever it is, the table of outcomes has a row
        text = traceback.format_exc()
        outcome = classify_error(text, type(error).__name__)
        crashed = outcome is Outcome.CRASHED
        end(
            outcome=outcome.value,
            cause=signature(text) if crashed else type(error).__name__,
            failure_message=str(error),
            failure_traceback=text,
        )
    finally:
        _free_memory()


class StorageLost(Exception):
    """The results folder takes no writes; the machine's fault, not the trial's."""


@dataclass
class Kept:
    """What a checkpoint of a trial holds besides the state to go on from.

    Attributes:
        reports: everything the trial has reported.
        best: the file of the state of the epoch with the least objective.
    """

    reports: list[dict[str, Any]]
    best: bytes

    def report(self, state: Any) -> None:
        """Reports the last of `reports` with a checkpoint."""
        objectives = [row["objective"] for row in self.reports]
        try:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                state.save(folder / STATE_FILE)
                if objectives[-1] < min(objectives[:-1], default=math.inf):
                    self.best = (folder / STATE_FILE).read_bytes()
                (folder / BEST_FILE).write_bytes(self.best)
                (folder / REPORTS_FILE).write_text(json.dumps(self.reports, allow_nan=False))
                _report(self.reports[-1], tune.Checkpoint.from_directory(folder))
        except OSError as error:
            raise StorageLost(f"{type(error).__name__}: {error}") from error


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


def look(probe: str) -> tuple[bool, dict[str, str | None]]:
    """Whether this node sees a file of the driver's and can write beside it; its versions."""
    return sees(probe), versions()


def sees(probe: str) -> bool:
    """Whether this node sees a file of the driver's, a path or URI, and can write beside it."""
    try:
        where, path = opened(probe)
        if not where.get_file_info(path).is_file:
            return False
        own = f"{path}.{platform.node()}.{os.getpid()}"
        with where.open_output_stream(own) as file:
            file.write(b"0")
        where.delete_file(own)
    except (OSError, BucketError):
        return False
    return True


def take_one_step(params: dict[str, Any], threads: int) -> str:
    """Trains as little as can be; time and memory it took, for a person."""
    train = _own_train(threads)
    began = time.perf_counter()
    for _ in train(TrainConfig.from_params(params)):
        pass
    seconds, peak = time.perf_counter() - began, _peak_bytes() / 2**20
    return f"one step and its evaluation in {seconds:.1f} s, {peak:.0f} MiB at the peak"


def score_baselines(
    config: TrainConfig, threads: int, names: Sequence[str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the bound and of the classical methods on the held-out scenes, and their errors per
    scene, as plain data: `{"evaluations": rows, "scenes": rows}`."""
    from trainer.evaluation import baselines
    from trainer.loop import resolve_device

    _own_train(threads)
    device = str(resolve_device(config.device))
    return _tables(baselines(config, names, device))


def score_state(
    state_path: str, threads: int, evaluation: EvaluationConfig | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The same tables for a trained network, read from its checkpoint; on the scenes of
    `evaluation`, or else those held out from its own training, and then also `spectra` and
    `pseudospectra`, which show what the training did."""
    from trainer.evaluation import score_network
    from trainer.loop import initial_network, resolve_device, restore_network
    from trainer.spectra import eigenvalue_rows, pseudospectrum_rows

    _own_train(threads)
    with brought(state_path) as path:
        config, network = restore_network(path, resolve_device("auto"))
    if evaluation is not None:
        config = replace(config, evaluation=evaluation)
    scored = _tables([score_network(network, config)])
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
    from trainer.evaluation import hinges
    from trainer.loop import resolve_device, restore_network

    _own_train(threads)
    with brought(state_path) as path:
        _, network = restore_network(path, resolve_device("auto"))
    return hinges(network, TrainConfig.from_params(params), num_scenes)


def export_best(
    checkpoint: str, folder: str, about: dict[str, Any], others: list[dict[str, Any]], threads: int
) -> None:
    """Makes a model folder of the best epoch in a trial's checkpoint; see `trainer.model`.

    Args:
        about: where it comes from, for the model card.
        others: rows of the bound and of the classical methods on the same scenes.
    """
    from trainer.model import export

    _own_train(threads)
    with brought(checkpoint) as there, handed(folder) as model:
        export(there / BEST_FILE, model, about=about, others=others)


@cache
def _own_versions() -> dict[str, str | None]:
    return versions()


def _own_train(threads: int) -> Train:
    import torch

    from trainer.loop import train

    torch.set_num_threads(threads)
    return train


def _last_state(settings: Mapping[str, Any]) -> tuple[Any, Kept]:
    """The state that the trial had reached, and what else its checkpoint held.

    From the checkpoint that Ray gives a trial whose worker was lost, or else from the one that an
    earlier driver left; None and nothing at a first start.
    """
    checkpoint = tune.get_checkpoint()
    place = settings["checkpoint"] if checkpoint is None else checkpoint.path
    if place is None:
        return None, Kept([], b"")
    from trainer.checkpoint import TrainState

    try:
        with brought(place) if checkpoint is None else checkpoint.as_directory() as folder:
            reports = read_reports(Path(folder))
            if not reports:
                raise StorageLost(f"the checkpoint {place} has gone or is not whole")
            best = (Path(folder) / BEST_FILE).read_bytes()
            return TrainState.load(Path(folder) / STATE_FILE), Kept(reports, best)
    except OSError as error:
        raise StorageLost(f"the checkpoint {place}: {error}") from error


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
    return "cuda" if _cuda() is not None else "cpu"


def _cuda() -> Any:
    """`torch.cuda` where it can be used; a trainer without torch costs no import of it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _peak_bytes() -> int:
    """Memory at its peak: the GPU's, where there is one, or else this process's."""
    cuda = _cuda()
    if cuda is not None:
        return int(cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _free_memory() -> None:
    """A reused worker keeps its CUDA cache, and trials that share a GPU would starve; the peak of
    its memory is to be the next trial's own."""
    gc.collect()
    cuda = _cuda()
    if cuda is not None:
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux only, and not in every container
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is held now


backends_task = ray.remote(check_backends)
baselines_task = ray.remote(score_baselines)
state_task = ray.remote(score_state)
hinges_task = ray.remote(score_hinges)
export_task = ray.remote(export_best)
node_task = ray.remote(look)
smoke_task = ray.remote(take_one_step)
