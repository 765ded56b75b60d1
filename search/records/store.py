"""A run on disk: Parquet tables, JSON configurations, and the rules that keep them readable.

    runs/<name>/run.json                 plan and provenance, written first
    runs/<name>/configs/<trial_id>.json  what a trial is to be, written before it starts
    runs/<name>/endings/<part>.json      how trials ended, for replays, which read no Parquet
    runs/<name>/<table>/<part>.parquet   one part per trial and table, `baselines` for no trial;
                                         reruns and ablations have parts of their own, and short
                                         trials that end together share one (`waiting`)

Every file appears under its name by an atomic rename, complete or not at all (a new run as a
whole), so that a reader sees a consistent table at any moment and a killed writer leaves nothing
behind that counts. Part names follow from the trial, so that writing again replaces and never
doubles. The row in `trials` is written last: a trial has ended exactly if it is there. The part
of `epochs` that it rests on has the same name.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from search.plan import CorruptRun, Outcome, RunNotFound, RunNotWritable
from trainer.atomic import write_atomically
from trainer.config import did_you_mean
from trainer.record import CONFIGS, ENDINGS

from .arrow import arrow_schema, arrow_table, check_parameters, is_earlier
from .checkpoints import RAY_FOLDER
from .files import (
    FORMAT,
    checked_name,
    is_readable,
    missing,
    part_files,
    read_json,
    read_part_schema,
    read_run,
    refuse_existing,
    to_json,
)
from .schema import BASELINE_PART, TABLES, Parameters

EMPTY = "empty"
"""The part without rows that gives every table its schema from the start."""

SHARED = ("epochs", "evaluations", "failures")
"""Tables in which trials that ended together have one part, named as theirs of `trials` is."""

_RESERVED = ("format", "parameters")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """All that is kept of a trial that has ended.

    Attributes:
        ending: its entry in `endings`.
        trial: its row in `trials`.
        epochs, evaluations, failures: its rows there.
    """

    ending: Row
    trial: Row
    epochs: Sequence[Row] = ()
    evaluations: Sequence[Row] = ()
    failures: Sequence[Row] = ()


class RunStore:
    """The records of one run; `create` a new one or `open` an existing one.

    Attributes:
        path: the run's folder.
        parameters: what the run's space can set.
        plan: `run.json` without the store's own entries.
    """

    def __init__(self, path: Path, parameters: Parameters, plan: Mapping[str, Any]) -> None:
        self.path = path
        self.parameters = dict(parameters)
        self._written = self.parameters
        self._older: set[str] = set()
        self.plan = dict(plan)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        parameters: Parameters,
        plan: Mapping[str, Any],
        files: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a run with its `run.json` and an empty part in every table, all in one step.

        Args:
            files: what else it has from the start, by name.

        Raises:
            RunExists: if there is anything under `path` already; nothing is changed.
            RunNotWritable: if the folder cannot be made.
        """
        check_parameters(parameters)
        path = Path(path)
        refuse_existing(path)
        hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            hidden.mkdir(parents=True)
            store = cls(hidden, parameters, {})
            store.write_run(plan)
            hidden.joinpath(CONFIGS).mkdir()
            for table in TABLES:
                hidden.joinpath(table).mkdir()
                store._write(table, EMPTY, [])
            for name, text in (files or {}).items():
                hidden.joinpath(name).write_text(text)
            hidden.rename(path)
        except OSError as error:
            refuse_existing(path)  # another search may have made it meanwhile
            raise RunNotWritable(
                f"the run's folder must be writable, but {path} is not ({error.strerror}). "
                "Choose another `--out`."
            ) from None
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        return cls(path, parameters, plan)

    @classmethod
    def open(cls, path: str | Path, *, more: Parameters | None = None) -> Self:
        """Reads and checks a run: `run.json`, every table, the footer of every part.

        A table of an earlier version, which lacks columns, reads as if they were null, and gets
        them before anything is written to it, so that its parts stay alike.

        Args:
            more: parameters that the run is to have too; its `trials` get their columns, and
                `run.json` their names, with the next `write_run`.

        Raises:
            RunNotFound: if `path` is no folder.
            CorruptRun: if a file is missing, damaged or of another layout; it is named.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunNotFound(
                f"a run is a folder, but {path} is none. Check `--out` and the name."
            )
        content = dict(read_run(path))
        parameters = {k: tuple(v) for k, v in content.pop("parameters").items()}
        content.pop("format")
        store = cls(path, {**(more or {}), **parameters}, content)
        store._written = parameters
        if not path.joinpath(CONFIGS).is_dir():
            raise CorruptRun(missing(path / CONFIGS))
        store._older = {table for table in TABLES if store._lacks_columns(table)}
        store._check_ended()
        return store

    def write_run(self, plan: Mapping[str, Any]) -> None:
        """Replaces the plan and provenance in `run.json`."""
        if taken := [name for name in _RESERVED if name in plan]:
            raise ValueError(
                f"a plan must not name {', '.join(_RESERVED)}, but has {taken}. Rename them."
            )
        for table in sorted(self._older):
            self._complete(table)  # then run.json: killed between, it can be done again
        self._written = self.parameters
        content = {"format": FORMAT, **plan, "parameters": self.parameters}
        write_atomically(self.path / "run.json", to_json(content), sync=True)
        self.plan = dict(plan)

    def write_part(
        self, table: str, part: str, rows: Iterable[Row], *, owner: str | None = None
    ) -> Path:
        """Writes all rows of one part of a table, replacing earlier ones.

        Args:
            part: its name; that of the owner, unless the owner has several.
            owner: the trial's id, which every row must carry; or `baselines`, where none does. In
                `ablations` it is the ablation's name.

        Raises:
            RowError: for a row that the schema refuses; nothing is written then.
        """
        rows = list(rows)
        column = "ablation" if table == "ablations" else "trial_id"
        expected = None if (owner or part) == BASELINE_PART else owner or part
        for row in rows:
            if row.get(column) != expected:
                raise ValueError(
                    f"a part holds the rows of one owner, but {table}/{part} was given one with "
                    f"{column}={row.get(column)!r}. Write it to its own part."
                )
        if part == EMPTY:
            raise ValueError(f"`{EMPTY}` is kept for the part without rows. Rename the trial.")
        return self._write(table, part, rows)

    def write_trial(
        self,
        trial: Row,
        *,
        epochs: Iterable[Row] = (),
        evaluations: Iterable[Row] = (),
        scenes: Iterable[Row] = (),
        failures: Iterable[Row] = (),
    ) -> None:
        """Records an ended trial in every table; its row in `trials` last, which makes it ended.

        The rows given are all there are of this trial: earlier ones, of a try that was lost on
        the way, are replaced, also by nothing.
        """
        trial_id = trial["trial_id"]
        children = {
            "epochs": epochs,
            "evaluations": evaluations,
            "scenes": scenes,
            "failures": failures,
        }
        for table, rows in children.items():
            rows = list(rows)
            # Emptied, not deleted: a reader may have listed the file already.
            if rows or self._part(table, trial_id).exists():
                self.write_part(table, trial_id, rows)
        self.write_part("trials", trial_id, [trial])

    def write_together(self, ended: Sequence[Ended]) -> None:
        """Records trials that have no parts so far: in one part, named after the first of them.

        Most of what a part takes, to be written and to be read, does not depend on its rows.
        """
        part = ended[0].trial["trial_id"]
        self.write_endings(part, {one.trial["trial_id"]: one.ending for one in ended})
        for table in SHARED:
            rows = [row for one in ended for row in getattr(one, table)]
            if rows:
                self._write(table, part, rows)
        self._write("trials", part, [one.trial for one in ended])

    def read(
        self, table: str, part: str | None = None, *, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """All rows of a table, ordered by part name; or those of one part.

        Args:
            columns: these alone; of all rows, `__filename` is the path of a row's part.

        Raises:
            CorruptRun: if a part cannot be read.
        """
        try:
            if part is not None:
                own = pq.ParquetFile(self._part(table, part))
                return own.read(columns=columns).to_pandas()
            return self._dataset(table).to_table(columns=columns).to_pandas()
        except (pa.ArrowException, OSError) as error:
            damaged = [f.name for f in part_files(self.path / table) if not is_readable(f)]
            named = ", ".join(damaged) or "one"
            raise CorruptRun(
                f"every part of {self.path / table} must be readable, but {named} is not "
                f"({str(error).splitlines()[0]}). Delete it and the part of that name in trials/, "
                "then `--resume` the run: what they held is computed again."
            ) from None

    def rows(self, table: str, part: str) -> list[dict[str, Any]]:
        """The rows of one part as they are written, None where there is nothing."""
        found: list[dict[str, Any]] = pq.ParquetFile(self._part(table, part)).read().to_pylist()
        return found

    def ended(self) -> set[str]:
        """Ids of the trials that have a row in `trials`."""
        return set(self._dataset("trials").to_table(columns=["trial_id"])[0].to_pylist())

    def has_part(self, table: str, part: str) -> bool:
        """Whether that trial (or `baselines`) has a part of its own in `table`."""
        return self._part(table, part).exists()

    def has_rows(self, table: str, part: str) -> bool:
        """Whether that trial (or `baselines`) has a part in `table` that is not empty."""
        path = self._part(table, part)
        return path.exists() and pq.read_metadata(path).num_rows > 0

    def started(self) -> list[str]:
        """Ids of the trials that have a configuration, ended or not, in order of their names."""
        return sorted(p.stem for p in self.path.joinpath(CONFIGS).glob("[!._]*.json"))

    def write_endings(self, part: str, endings: Mapping[str, Row]) -> None:
        """Writes how trials ended, by their ids, before their rows in that part of `trials`."""
        folder = self.path / ENDINGS
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{checked_name(part)}.json", to_json(endings))

    def write_config(self, trial_id: str, config: Mapping[str, Any]) -> Path:
        """Writes what the trial is to be."""
        path = self._config(trial_id)
        write_atomically(path, to_json(config))
        return path

    def read_config(self, trial_id: str) -> dict[str, Any]:
        """What `write_config` wrote.

        Raises:
            RunNotFound: if the run has no such trial.
            CorruptRun: if the file is damaged.
        """
        path = self._config(trial_id)
        if not path.exists():
            near = did_you_mean(trial_id, self.started())
            raise RunNotFound(f"{self.path} has no trial `{trial_id}`.{near}")
        return read_json(path, redrawn(trial_id))

    def _write(self, table: str, part: str, rows: list[Row]) -> Path:
        if table in self._older:
            self._complete(table)
        path = self._part(table, part)
        sink = pa.BufferOutputStream()
        # parts are a few rows long: dictionaries and statistics would only cost time and space
        pq.write_table(
            arrow_table(table, self.parameters, rows),
            sink,
            use_dictionary=False,
            write_statistics=False,
        )
        write_atomically(path, sink.getvalue().to_pybytes())
        return path

    def _complete(self, table: str) -> None:
        """Gives every part of a table all its columns."""
        self._older.discard(table)
        for part in part_files(self.path / table):
            rows = pq.read_table(part).to_pylist()
            self._write(table, part.stem, rows)

    def _part(self, table: str, part: str) -> Path:
        if table not in TABLES:
            raise ValueError(
                f"a table is one of {', '.join(TABLES)}, but got {table!r}."
                + did_you_mean(table, TABLES)
            )
        return self.path / table / f"{checked_name(part)}.parquet"

    def _config(self, trial_id: str) -> Path:
        return self.path / CONFIGS / f"{checked_name(trial_id)}.json"

    def _dataset(self, table: str) -> ds.Dataset:
        self._part(table, EMPTY)  # refuses an unknown table
        schema = arrow_schema(table, self.parameters)
        return ds.dataset(str(self.path / table), schema=schema, format="parquet")

    def _lacks_columns(self, table: str) -> bool:
        """Whether some part has fewer columns than the table; refuses one with others."""
        folder = self.path / table
        if not folder.is_dir():
            raise CorruptRun(missing(folder))
        whole = arrow_schema(table, self.parameters)
        drawn = {f"params.{name}" for name in self._written}
        found = False
        for part in part_files(folder):
            own = read_part_schema(part)
            if own == whole:
                continue
            found = True
            if not is_earlier(own, whole, drawn & set(whole.names)):
                raise CorruptRun(
                    f"all parts of a table have the schema of run.json, but {part} has another. "
                    "Was it copied from another run? Move it away and `--resume` the run."
                )
        return found

    def _check_ended(self) -> None:
        """Refuses a run in which an ended trial lacks what was written before its last row."""
        columns = ["trial_id", "outcome", "epochs", "__filename"]
        trials = self.read("trials", columns=columns)
        for name, outcome, epochs, file in trials.itertuples(index=False, name=None):
            part = Path(file)
            needed = [self._config(name)]
            if outcome == Outcome.COMPLETED or epochs > 0:
                needed.append(self._part("epochs", part.stem))
            for file in needed:
                if not file.exists():
                    redraw = f", and {redrawn(name)}" if file == needed[0] else ""
                    raise CorruptRun(
                        f"an ended trial has all its files, but {file} is missing. Restore it, or "
                        f"delete {part} and `--resume`: what it held is computed again{redraw}."
                    )


def redrawn(trial_id: str) -> str:
    """What to do about a trial whose configuration is lost."""
    return (
        f"delete {CONFIGS}/{trial_id}.json and {RAY_FOLDER}/{trial_id}* in the run's folder (and "
        "what holds its row in trials, if it has one): `--resume` gives it another configuration"
    )
