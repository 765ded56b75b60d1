"""Clients of TensorBoard, MLflow and Weights & Biases, through the library of each.

Libraries are imported when a client is made, since none is needed otherwise. Every call may raise
whatever its library raises; `loggers` handles it.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from search.plan import RULES, Outcome
from search.records import RunStore

PROJECT = "ris-eigengap-search"
"""MLflow's experiment and W&B's project, unless their own variables name another."""
MLFLOW_RETRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
"""Bridges an outage of half a minute; MLflow's own default takes minutes to say that it failed."""

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Ending:
    """Outcome of a trial, the cause if it failed, and the objective if it has one."""

    outcome: str
    cause: str | None
    objective: float | None

    @property
    def failed(self) -> bool:
        """Tell whether the outcome is a failure."""
        return RULES[Outcome(self.outcome)].failed


class LogClient(Protocol):
    """A place that takes the logs of trials; calls for one trial come in order."""

    def begin(self, trial: str, drawn: dict[str, Any], earlier: Mapping[int, Numbers]) -> None:
        """Begin the log of a trial, or go on with it: `earlier` are the epochs that earlier
        drivers had recorded, which it may lack."""

    def epoch(self, trial: str, epoch: int, row: Numbers) -> None:
        """Log an epoch."""

    def end(self, trial: str, drawn: dict[str, Any], ending: Ending) -> None:
        """Log how the trial ended, and its values again where they belong together."""

    def close(self) -> None:
        """Leave trials that have not ended such that a resumed search can go on with them."""


class TensorBoard:
    """Event files of each trial in the run's folder `tensorboard`.

    Written by tensorboardX's synchronous writer: its `SummaryWriter` writes in a thread that dies
    of a full disk, and then waits for it for ever.
    """

    def __init__(self, store: RunStore) -> None:
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._folder = store.path / "tensorboard"
        self._make, self._summary, self._proto = event_file_writer.EventsWriter, summary, event_pb2
        self._writers: dict[str, Any] = {}

    def begin(self, trial: str, drawn: dict[str, Any], earlier: Mapping[int, Numbers]) -> None:
        """Open a new event file; readers forget the epochs of earlier ones, which it repeats."""
        folder = self._folder / trial
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))  # files are read in the order of their names
        writer = self._make(str(folder / "events"), f".{number:04d}")
        self._writers[trial] = writer
        start = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._write(trial, 1, session_log=start)
        for epoch, row in earlier.items():
            self._scalars(trial, epoch, row)
        writer.flush()

    def epoch(self, trial: str, epoch: int, row: Numbers) -> None:
        """Write a scalar for each number."""
        self._scalars(trial, epoch, row)
        self._writers[trial].flush()

    def end(self, trial: str, drawn: dict[str, Any], ending: Ending) -> None:
        """Write the drawn values with the objective, as the tab HPARAMS shows them."""
        result = {} if ending.objective is None else {"objective": ending.objective}
        for summary in self._summary.hparams(drawn | {"outcome": ending.outcome}, result):
            self._write(trial, 0, summary=summary)
        self._writers.pop(trial).close()

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()

    def _scalars(self, trial: str, epoch: int, row: Numbers) -> None:
        for name, value in row.items():
            self._write(trial, epoch, summary=self._summary.scalar(name, value))

    def _write(self, trial: str, step: int, **content: Any) -> None:
        event = self._proto.Event(wall_time=time.time(), step=step, **content)
        self._writers[trial].write_event(event)


class MLflow:
    """A run of MLflow's for the search, and one below it for each trial, at MLFLOW_TRACKING_URI;
    a resumed search finds them by their tags."""

    def __init__(self, store: RunStore) -> None:
        os.environ.setdefault(*MLFLOW_RETRIES)
        # each retry would be a warning on the console, where a failure is said once
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric, self._param = MlflowClient(), Metric, Param
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        self._experiment = (
            self._client.create_experiment(name) if found is None else found.experiment_id
        )
        self._search = search_id(store)
        self._parent, _ = self._run("", store.path.name)
        self._runs: dict[str, str] = {}

    def begin(self, trial: str, drawn: dict[str, Any], earlier: Mapping[int, Numbers]) -> None:
        """Make the trial's run, or go on with it, and log the earlier epochs that it lacks."""
        run, known = self._run(trial, trial, {"mlflow.parentRunId": self._parent})
        self._runs[trial] = run
        if not known:
            params = [self._param(name, str(value)) for name, value in drawn.items()]
            self._client.log_batch(run, params=params)
        history = self._client.get_metric_history(run, "objective") if known and earlier else []
        last = max((each.step for each in history), default=0)
        for epoch, row in earlier.items():
            if epoch > last:
                self.epoch(trial, epoch, row)

    def epoch(self, trial: str, epoch: int, row: Numbers) -> None:
        """Log a metric for each number."""
        now = int(time.time() * 1000)
        metrics = [self._metric(name, value, now, epoch) for name, value in row.items()]
        self._client.log_batch(self._runs[trial], metrics=metrics)

    def end(self, trial: str, drawn: dict[str, Any], ending: Ending) -> None:
        """End the trial's run; its outcome and cause are tags."""
        run = self._runs.pop(trial)
        self._client.set_tag(run, "outcome", ending.outcome)
        if ending.cause is not None:
            self._client.set_tag(run, "cause", ending.cause)
        self._client.set_terminated(run, "FAILED" if ending.failed else "FINISHED")

    def close(self) -> None:
        """End the search's run, and mark trials that have not ended as killed."""
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")
        self._client.set_terminated(self._parent, "KILLED" if self._runs else "FINISHED")

    def _run(
        self, trial: str, name: str, tags: Mapping[str, str] | None = None
    ) -> tuple[str, bool]:
        """Return the id of a run, and whether there was one; `trial` is empty for the search's."""
        own = {"search": self._search, "trial": trial}
        query = " and ".join(f"tags.{tag} = '{value}'" for tag, value in own.items())
        found = self._client.search_runs([self._experiment], query, max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, "RUNNING")
            return found[0].info.run_id, True
        made = self._client.create_run(
            self._experiment, tags=own | dict(tags or {}), run_name=name
        )
        return made.info.run_id, False


class WandB:
    """A run of W&B's for each trial, grouped by search; below the folder `wandb` of the run, and
    there only if this machine has no key, until `wandb sync` sends it."""

    def __init__(self, store: RunStore) -> None:
        import wandb

        self._wandb, self._store = wandb, store
        self._search = search_id(store)
        self._runs: dict[str, Any] = {}
        known = os.environ.get("WANDB_MODE") or wandb.login(prompt=False)
        self._mode = None if known else "offline"

    def begin(self, trial: str, drawn: dict[str, Any], earlier: Mapping[int, Numbers]) -> None:
        """Make the trial's run, or go on with it, and log the earlier epochs that it lacks."""
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self._store.path.name,
            id=f"{self._search}-{trial}",
            name=f"{self._store.path.name} {trial}",
            config=drawn,
            dir=str(self._store.path),
            mode=self._mode,
            resume="allow",
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        self._runs[trial] = run
        for epoch, row in earlier.items():
            if epoch >= run.step:
                run.log(dict(row), step=epoch)

    def epoch(self, trial: str, epoch: int, row: Numbers) -> None:
        """Log all numbers."""
        self._runs[trial].log(dict(row), step=epoch)

    def end(self, trial: str, drawn: dict[str, Any], ending: Ending) -> None:
        """Finish the trial's run."""
        run = self._runs.pop(trial)
        run.summary.update({"outcome": ending.outcome, "cause": ending.cause})
        run.finish(exit_code=int(ending.failed))

    def close(self) -> None:
        """Finish the runs of trials that have not ended."""
        for run in self._runs.values():
            run.finish(exit_code=1)


def search_id(store: RunStore) -> str:
    """Return a name for the search that no other has, the same on every machine and when it is
    resumed."""
    told = [store.path.name, store.plan.get("provenance")]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


CLIENTS: dict[str, Callable[[RunStore], LogClient]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
"""Clients by the values of `--log`."""
