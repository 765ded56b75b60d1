"""The search from Python and notebooks: start or resume one, and read what it left.

`run_search` goes the way of `python -m search.run`; where the command prints an error and exits,
it raises one of the exceptions of `search.plan`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cli import UsageError
from trainer.own_trainer import OwnState, OwnTrainer
from trainer.user_code import CodeError, is_reference

if TYPE_CHECKING:
    import pandas as pd

COMMAND_ONLY = ("attach", "dry_run", "help", "preset")
"""Flags of the command that `run_search` has no use for."""


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a run: the values drawn for it, by the names of their fields, and the
    folder of its network, None before it is kept.

    Attributes:
        checkpoint: path or URI of its last checkpoint.
        trainer: the user's, if it was not ours.
    """

    id: str
    objective: float
    params: dict[str, Any]
    model: Path | None
    checkpoint: str = field(repr=False)
    trainer: OwnTrainer | None = field(repr=False)

    def state(self) -> Any:
        """Return the `state` that a trainer of your own reported in the best epoch; it is
        unpickled, which runs code.

        Raises:
            UsageError: for a trial of our trainer.
            CodeError: if it is made of code of yours that is not as it was.
        """
        from search.records import BEST_FILE
        from search.remote import downloaded

        if self.trainer is None:
            raise UsageError("a trial of our trainer has no state, but a network: use `model`.")
        with downloaded(self.checkpoint) as folder:
            try:
                return OwnState.load(folder / BEST_FILE).value
            except CodeError:  # its classes may be those of the trainer's file
                self.trainer.check()
                return OwnState.load(folder / BEST_FILE).value


@dataclass(frozen=True)
class Run:
    """A run at `path` (of one on a bucket, the working copy); its methods read what is there now,
    also while it is searched, and raise CorruptRun for a damaged file."""

    path: Path

    def __fspath__(self) -> str:
        """Return the path, so that a run can be given where its path can."""
        return os.fspath(self.path)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by its name; docs/results.md has them all, column by column."""
        from search.records import TABLES, RunStore
        from trainer.config import require_choice

        require_choice("table", name, tuple(TABLES))
        return RunStore.open(self.path).read(name)

    def trials(self) -> pd.DataFrame:
        """Return a row per ended trial."""
        return self.table("trials")

    def epochs(self) -> pd.DataFrame:
        """Return a row per trial and epoch, also of running trials."""
        return self.table("epochs")

    def best(self) -> BestTrial | None:
        """Return the best trial, or None if none has completed."""
        from search.records import RunStore, best_trial, lacks_scores
        from search.remote import uri_of

        store = RunStore.open(self.path)
        rows = store.read_arrow("trials")
        best = best_trial(rows.to_pandas())
        if best is None:
            return None
        row = next(row for row in rows.to_pylist() if row["trial_id"] == best)
        drawn = {name: value for name, value in row.items() if value is not None}
        names = [name for name in drawn if name.startswith("params.")]
        params = {name.removeprefix("params."): drawn[name] for name in names}
        kept = (self.path / "best").is_dir() and not lacks_scores(store, best)
        model = self.path / "best" if kept else None
        checkpoint = uri_of(self.path / row["checkpoint"])
        plan = store.plan["search"]
        own = None
        if (reference := plan.get("trainable")) is not None:
            own = OwnTrainer(reference, plan["code"].get(reference), plan["objective"])
        return BestTrial(best, row["objective"], params, model, checkpoint, own)

    def report(self) -> Path:
        """Write the report to the folder `report` of the run; return the path of its page."""
        from search.remote import push
        from search.report.data import load
        from search.report.page import write_report

        page = write_report(load(self.path))
        push(page.parent)
        return page


def open_run(run: str | Path, out: str | Path | None = None) -> Run:
    """Return a run by its path, its URI, or its name in the folder `out` (default: `runs`).

    Raises:
        RunNotFound: if there is none.
        CorruptRun: if a file is damaged; it is named.
    """
    from search.records import RunStore
    from search.remote import resolve_run

    return Run(RunStore.open(resolve_run(run, out)).path)


def run_search(
    space: str | None = None,
    *,
    trials: int | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    set: Mapping[str, Any] | None = None,
    range: Mapping[str, Sequence[Any]] | None = None,
    choices: Mapping[str, Sequence[Any]] | None = None,
    resume: str | Path | Run | None = None,
    **flags: Any,
) -> Run:
    """Run a search, or the rest of one, print its progress and results, and return its run.

    Args:
        space: a preset (default: `local`), or your own by reference, `my_space.py:space`.
        trials: how many in all; by default as many as the space has.
        name, out: of the run, and of the folder it lies in, which may be on a bucket.
        seed: of the sampler and of every training.
        epochs: budget of a trial.
        set, range, choices: fields to fix, `{"scene.num_antennas": 8}`; numbers to search,
            `{"eps_psd": (1e-5, 1e-2, "log")}`; values to search, `{"network.kind": ("unrolled",
            "factor")}`.
        resume: a run, or its path or name, to continue, or to extend with `trials`; it has its
            plan.
        flags: any other flag of `python -m search.run`, as `sampler="random"`,
            `max_concurrent=4` or `no_preflight=True`.

    Raises:
        ConfigError, Refused, RunError: if the request is impossible; nothing was touched.
        SearchFailed: if the search ended itself or no trial completed.
        KeyboardInterrupt: if it was interrupted; `resume` continues it.
    """
    from search.plan import parsed, with_config_file

    from .run import start_or_resume

    if space is not None and not isinstance(space, str):
        raise UsageError(
            f"`space` is a preset or a reference `file.py:name`, but got {space!r}. Put your own "
            "space into a file, from which workers and a resumed search read it."
        )
    if unused := [flag for flag in COMMAND_ONLY if flag in flags]:
        raise UsageError(
            f"run_search takes no {unused[0]!r}. Use `space` for a preset, `open_run` for a run "
            "that another process drives, and the command `python -m search.run` otherwise."
        )
    # a file without a name is no preset either: it is told how code is named
    own = space is not None and (is_reference(space) or space.endswith(".py"))
    kind = "space" if own else "preset"
    flags |= {kind: space, "trials": trials, "name": name, "out": out, "seed": seed}
    flags |= {"epochs": epochs, "set": set, "range": range, "choices": choices, "resume": resume}
    given = {
        flag: os.fspath(value) if isinstance(value, os.PathLike) else value
        for flag, value in flags.items()
        if value is not None
    }
    with _handlers_kept():
        return Run(start_or_resume(with_config_file(parsed(given))).path)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Restore the signal handlers after the context: a command ignores signals once interrupted,
    but a notebook goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
