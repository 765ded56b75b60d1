"""One trial on a Ray worker.

A trial never raises into Ray: a failure is reported as a last result with its outcome and the
function returns, so that the driver hears of it in milliseconds, the worker lives on for the next
trial, and Ray's retries stay reserved for lost nodes. Every number reported is finite.
"""

import gc
import json
import math
import platform
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ray import tune

from search.plan import (
    WORST_OBJECTIVE,
    Outcome,
    StorageLost,
    classify_error,
    crash_signature,
    freeze_loaded_objects,
    objective_window,
    version_mismatch,
)
from search.records import BEST_FILE, REPORTS_FILE, STATE_FILE, judged, read_reports
from search.remote import downloaded
from trainer.config import TrainConfig
from trainer.failure import Diverged
from trainer.provenance import versions

Train = Callable[..., Iterator[Any]]
"""`trainer.training.train`, or what else takes `(config, *, resume)` and yields `EpochReport`s."""


def make_trainable(
    train: Train | None, name: str, driver: Mapping[str, str | None]
) -> Callable[[dict[str, Any]], None]:
    """A Ray trainable around `train`; None is the trainer's own, imported on the worker.

    Args:
        name: of the run, which the dashboard shows with every worker.
        driver: versions of the driver, which a machine that came after its checks must have too.
    """

    def trainable(settings: dict[str, Any]) -> None:
        def own(config: TrainConfig, *, resume: Any = None) -> Any:
            # imported within the trial, which then ends with what is wrong with a machine's torch
            return own_train(settings["threads"])(config, resume=resume)

        # the worker's log, which the dashboard shows: what runs where
        print(f"{settings['trial_id']} of {name} on {platform.node()}", flush=True)
        if wrong := version_mismatch(driver, {platform.node(): _own_versions()}):
            _report({"epoch": 0, "objective": WORST_OBJECTIVE, "refused": wrong})
            return
        run_trial(settings, train or own)

    trainable.__name__ = f"trials of {name}"
    return trainable


def run_trial(settings: Mapping[str, Any], train: Train) -> None:
    """Trains one configuration, reports every epoch, and says with the last one how it ended.

    A trial that an earlier driver began goes on from its checkpoint: its last report is made
    again, since nobody may have heard it, and the epochs after it follow.
    """
    began, trained = time.time(), 0.0
    about = {"host": platform.node(), "started": began, "device": _device()}
    last: dict[str, Any] = {"epoch": 0, "objective": WORST_OBJECTIVE}

    def used() -> dict[str, Any]:
        return {"seconds_total": trained + time.time() - began, "peak_bytes": peak_bytes()}

    def end(**how: Any) -> None:
        _report(last | about | how | used())

    lost = tune.get_checkpoint()  # by a worker of this driver's; else it is an earlier driver's
    place = settings["checkpoint"] if lost is None else lost.path
    try:
        state, kept = _last_state(place, lost)
        if reports := kept.reports:
            last, trained = reports[-1], reports[-1].get("seconds_total", 0.0)
            about["started"] = last.get("started", began)
        config = TrainConfig.from_params(settings["params"])
        if reports and lost is None:
            kept.report(state)
            if last.get("outcome"):
                return
        reported = train(config, resume=state)
        freeze_loaded_objects()  # torch too, which `own_train` has imported by now
        for report in reported:
            row = report.row()
            row |= judged([*reports, row][-objective_window(config.epochs) :])
            row |= about | used()
            if report.epoch == config.epochs:
                row["outcome"] = Outcome.COMPLETED.value
                row["evaluations"] = [asdict(row) for row in report.evaluation]
            reports.append(row)
            kept.report(report.state)
            last = row
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
        if outcome is Outcome.INVALID and place is not None:  # it was valid when it began
            end(outcome=None, refused=_stranded(settings["trial_id"], place, error))
            return
        crashed = outcome is Outcome.CRASHED
        end(
            outcome=outcome.value,
            cause=crash_signature(text) if crashed else type(error).__name__,
            failure_message=str(error),
            failure_traceback=text,
        )
    finally:
        _free_memory()


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


@cache
def _own_versions() -> dict[str, str | None]:
    return versions()


def own_train(threads: int) -> Train:
    """The trainer's own `train`, imported on the worker, which computes on so many threads."""
    import torch

    from trainer.training import train

    torch.set_num_threads(threads)
    return train


def _last_state(place: str | None, lost: tune.Checkpoint | None) -> tuple[Any, Kept]:
    """The state that the trial had reached, and what else its checkpoint held; None and nothing
    at a first start.

    Args:
        place: where the checkpoint is.
        lost: itself, where Ray gives it to a trial whose worker was lost.
    """
    if place is None:
        return None, Kept([], b"")
    from trainer.training import TrainState

    try:
        with downloaded(place) if lost is None else lost.as_directory() as folder:
            reports = read_reports(Path(folder))
            if not reports:
                raise StorageLost(f"the checkpoint {place} has gone or is not whole")
            best = (Path(folder) / BEST_FILE).read_bytes()
            return TrainState.load(Path(folder) / STATE_FILE), Kept(reports, best)
    except OSError as error:
        raise StorageLost(f"the checkpoint {place}: {error}") from error


def _stranded(trial_id: str, place: str, error: Exception) -> str:
    return (
        f"{trial_id} cannot go on from its checkpoint {place}: {error} It is left as it is. Go on "
        f"with the code that wrote it (run.json has its commit), or delete ray/{trial_id} and "
        f"ray/{trial_id}.* in the run's folder, and it begins anew."
    )


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


def peak_bytes() -> int:
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
