"""A run on disk: Parquet tables, JSON configurations, and the rules that keep them readable.

    runs/<name>/run.json                 plan and provenance, written first
    runs/<name>/configs/<trial_id>.json  configuration of a trial, written before it starts
    runs/<name>/endings/<part>.json      how trials ended, for replays, which read no Parquet
    runs/<name>/<table>/<part>.parquet   rows: a part for each driver session (`session`), one for
                                         the baselines, and parts of their own for the best trial,
                                         reruns and ablations

Every file appears under its name by an atomic rename, complete or not at all (a new run as a
whole), so a reader sees consistent tables at any moment. Writing a part again replaces it. A
trial has ended exactly if `trials` has its row, which is written after its rows in other tables;
its part of `epochs` has the same name. Files are not synced to the disk: `open` finds what a
power cut damaged, and `--resume` repairs it.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from search.plan import CorruptRun, Outcome, RunExists, RunNotFound, RunNotWritable
from trainer.atomic import write_atomically
from trainer.config import did_you_mean
from trainer.record import CONFIGS, ENDINGS

from .arrow import arrow_schema, arrow_table, check_parameters, is_earlier
from .checkpoints import RAY_FOLDER
from .json_files import checked_name, read_json, to_json
from .run_plan import FORMAT, metrics_of, missing, parameters_of, read_run
from .schema import TABLES, Parameters, Row

EMPTY = "empty"
"""The part without rows that gives every table its schema from the start."""

_RESERVED = ("format", "parameters", "metrics")


class RunStore:
    """The records of one run; `create` a new one or `open` an existing one.

    Attributes:
        path: folder of the run.
        parameters: parameters that the space of the run can set.
        plan: `run.json` without the store's own entries.
        metrics: names of the numbers that a user's trainer has reported.
    """

    def __init__(
        self,
        path: Path,
        parameters: Parameters,
        plan: Mapping[str, Any],
        metrics: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.parameters = dict(parameters)
        self.metrics = metrics
        self.plan = dict(plan)
        self._lacking_columns: set[str] = set()

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        parameters: Parameters,
        plan: Mapping[str, Any],
        files: Mapping[str, str | bytes] | None = None,
    ) -> Self:
        """Make a run with its `run.json`, an empty part in every table, and further `files` (their
        content by name), all in one step.

        Raises:
            RunExists: if there is anything under `path` already; nothing is changed.
            RunNotWritable: if the folder cannot be made.
        """
        check_parameters(parameters)
        path = Path(path)
        _refuse_existing(path)
        hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            hidden.mkdir(parents=True)
            store = cls(hidden, parameters, {})
            store.write_run(plan)
            hidden.joinpath(CONFIGS).mkdir()
            for table in TABLES:
                hidden.joinpath(table).mkdir()
                store._write(table, EMPTY, store.converted(table, []))
            for name, content in (files or {}).items():
                hidden.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
                plain = content if isinstance(content, bytes) else content.encode()
                hidden.joinpath(name).write_bytes(plain)
            hidden.rename(path)
        except OSError as error:
            _refuse_existing(path)  # another search may have made it meanwhile
            raise RunNotWritable(
                f"the run's folder must be writable, but {path} is not ({error.strerror}). "
                "Choose another `--out`."
            ) from None
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        return cls(path, parameters, plan)

    @classmethod
    def open(cls, path: str | Path, *, more: Parameters | None = None) -> Self:
        """Read and check a run: `run.json`, every table, the footer of every part.

        A table that lacks columns, written by an earlier version, reads as if they were null. It
        gets them before anything is written to it, so that its parts stay alike.

        Args:
            more: parameters to add; `trials` gets their columns, and `run.json` their names, with
                the next `write_run`.

        Raises:
            RunNotFound: if `path` is no folder.
            CorruptRun: if a file is missing, damaged or of another layout; it is named.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunNotFound(
                f"a run is a folder, but {path} is none. Check `--out` and the name."
            )
        content = read_run(path)
        known = parameters_of(content)
        plan = {name: value for name, value in content.items() if name not in _RESERVED}
        store = cls(path, {**(more or {}), **known}, plan, metrics_of(content))
        if not path.joinpath(CONFIGS).is_dir():
            raise missing(path / CONFIGS)
        drawn = {f"params.{name}" for name in known}
        store._lacking_columns = {t for t in TABLES if store._lacks_columns(t, drawn)}
        store._check_ended()
        return store

    def write_run(self, plan: Mapping[str, Any]) -> None:
        """Replace the plan and provenance in `run.json`."""
        if taken := [name for name in _RESERVED if name in plan]:
            raise ValueError(
                f"a plan must not name {', '.join(_RESERVED)}, but has {taken}. Rename them."
            )
        for table in sorted(self._lacking_columns):
            self._add_columns(table)  # then run.json: killed between, it can be done again
        content = {"format": FORMAT, **plan, "parameters": self.parameters}
        if self.metrics:
            content["metrics"] = self.metrics
        write_atomically(self.path / "run.json", to_json(content), sync=True)
        self.plan = dict(plan)

    def add_metrics(self, names: Iterable[str]) -> None:
        """Give the table `epochs` a column for each of these numbers that it has none of."""
        new = sorted(set(names) - set(self.metrics))
        if new:
            self.metrics += tuple(new)
            self.write_run(self.plan)  # first: killed between, parts lack columns, which is sound
            self._lacking_columns.add("epochs")

    def converted(self, table: str, rows: Iterable[Row]) -> pa.Table:
        """Return rows as an Arrow table; raise RowError for one that the schema refuses."""
        return arrow_table(table, self.parameters, rows, self.metrics)

    def write_part(self, table: str, part: str, rows: Iterable[Row] | pa.Table) -> None:
        """Write all rows of one part of a table, perhaps `converted`, in place of earlier ones.

        Raises:
            RowError: for a row that the schema refuses; nothing is written then.
        """
        if part == EMPTY:
            raise ValueError(f"`{EMPTY}` is kept for the part without rows. Rename the part.")
        self._part(table, part)  # refuses a bad name before the rows are converted
        if not isinstance(rows, pa.Table):
            rows = self.converted(table, rows)
        if table in self._lacking_columns:
            self._add_columns(table)
        self._write(table, part, rows)

    def read(
        self, table: str, part: str | None = None, *, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Return all rows of a table, ordered by part name, or those of one part; see
        `read_arrow`."""
        return self.read_arrow(table, part, columns=columns).to_pandas()

    def read_arrow(
        self, table: str, part: str | None = None, *, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return the same as an Arrow table; without rows if there is no such part.

        Args:
            columns: names of the columns; `__filename` is the path of a row's part.

        Raises:
            CorruptRun: if a part cannot be read.
        """
        folder = self.path / table
        file = self._part(table, EMPTY if part is None else part)
        files = str(folder) if part is None else [str(file)] if file.exists() else []
        schema = arrow_schema(table, self.parameters, self.metrics)
        if not files:
            return schema.empty_table().select(schema.names if columns is None else columns)
        try:
            return ds.dataset(files, schema=schema, format="parquet").to_table(columns=columns)
        except (pa.ArrowException, OSError) as error:
            for part_file in part_files(folder):
                _checked(part_file, lambda path: pq.ParquetFile(path).read())
            raise CorruptRun(f"{folder} must be readable, but is not ({error}).") from None

    def ended(self) -> set[str]:
        """Return the ids of the trials that have a row in `trials`."""
        return set(self.read_arrow("trials", columns=["trial_id"])[0].to_pylist())

    def started(self) -> list[str]:
        """Return the sorted ids of the trials that have a configuration, ended or not."""
        return sorted(p.stem for p in self.path.joinpath(CONFIGS).glob("[!._]*.json"))

    def write_endings(self, part: str, endings: Mapping[str, Row]) -> None:
        """Write how trials ended, by their ids, before their rows in that part of `trials`."""
        folder = self.path / ENDINGS
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{checked_name(part)}.json", to_json(endings))

    def write_config(self, trial_id: str, config: Mapping[str, Any]) -> None:
        """Write the configuration of a trial."""
        write_atomically(self._config(trial_id), to_json(config))

    def read_config(self, trial_id: str) -> dict[str, Any]:
        """Return the configuration of a trial.

        Raises:
            RunNotFound: if the run has no such trial.
            CorruptRun: if the file is damaged.
        """
        path = self._config(trial_id)
        if not path.exists():
            near = did_you_mean(trial_id, self.started())
            raise RunNotFound(f"{self.path} has no trial `{trial_id}`.{near}")
        return read_json(path, redrawn(trial_id))

    def _write(self, table: str, part: str, rows: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        # nearly all parts are small: dictionaries and statistics would only cost time and space
        pq.write_table(rows, sink, use_dictionary=False, write_statistics=False)
        write_atomically(self._part(table, part), sink.getvalue().to_pybytes())

    def _add_columns(self, table: str) -> None:
        """Give every part of a table all its columns, null where they are new."""
        for part in part_files(self.path / table):
            self._write(table, part.stem, self.read_arrow(table, part.stem))
        self._lacking_columns.discard(table)

    def _part(self, table: str, part: str) -> Path:
        if table not in TABLES:
            raise ValueError(
                f"a table is one of {', '.join(TABLES)}, but got {table!r}."
                + did_you_mean(table, TABLES)
            )
        return self.path / table / f"{checked_name(part)}.parquet"

    def _config(self, trial_id: str) -> Path:
        return self.path / CONFIGS / f"{checked_name(trial_id)}.json"

    def _lacks_columns(self, table: str, drawn: set[str]) -> bool:
        """Return whether some part has fewer columns than the table; refuse one with others, or
        one of `trials` without the columns `drawn`."""
        folder = self.path / table
        if not folder.is_dir():
            raise missing(folder)
        whole = arrow_schema(table, self.parameters, self.metrics)
        others = [
            (p, s) for p in part_files(folder) if (s := _checked(p, pq.read_schema)) != whole
        ]
        for part, own in others:
            if not is_earlier(own, whole, drawn & set(whole.names)):
                raise CorruptRun(
                    f"all parts of a table have the schema of run.json, but {part} has another. "
                    "Was it copied from another run? Move it away and `--resume` the run."
                )
        return bool(others)

    def _check_ended(self) -> None:
        """Refuse a run in which an ended trial lacks its configuration or its part of `epochs`."""
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


def part_files(folder: Path) -> list[Path]:
    """Return the part files of a table, without the hidden ones of a writer at work."""
    return sorted(folder.glob("[!._]*.parquet"))


def redrawn(trial_id: str) -> str:
    """Return the remedy for a trial whose configuration is lost."""
    return (
        f"delete {CONFIGS}/{trial_id}.json and {RAY_FOLDER}/{trial_id}* in the run's folder (and "
        "what holds its row in trials, if it has one): `--resume` gives it another configuration"
    )


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise RunExists(
            f"a new run needs a new folder, but {path} exists. Continue it with "
            f"`--resume {path}`, or choose another `--name`."
        )


def _checked(part: Path, read: Callable[[Path], Any]) -> Any:
    """Return what is read of a part; raise CorruptRun if it is no complete Parquet file."""
    try:
        return read(part)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        ended = part.parent.parent / "trials" / part.name
        both = f" and {ended}" if ended.exists() and ended != part else ""
        raise CorruptRun(
            f"{part} must be a complete Parquet file, but is not ({reason}). Delete it{both}, "
            "then `--resume` the run: what they held is computed again."
        ) from None
