"""A run as a report sees it: every table as a DataFrame, and sentences about what is missing.

A report is wanted most when something went wrong, so nothing here raises for a damaged run: a
part that cannot be read is left out and named in `notes`; a table that is missing is empty, with
its columns.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from search.plan import CorruptRun, RunNotFound
from search.records import (
    KEYS,
    RERUNS,
    TABLES,
    Parameters,
    arrow_schema,
    best_trial,
    part_files,
    read_run,
)

Finder = TypeVar("Finder", bound=Callable[..., Any])

OBJECTIVE_SNR_DB = (-5.0, 0.0)
"""SNRs that the objective averages over, unless the run says otherwise."""


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        path: its folder.
        plan: `run.json`; empty if it cannot be read.
        tables: every table by name, also the missing ones.
        notes: one sentence for each thing that is missing or damaged.
        lacking: tables that are missing, or some of which is.
        reruns: what was trained again, a run of its own; None where there is none.
        known: what `once_per_run` has found of it.
    """

    path: Path
    plan: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lacking: frozenset[str] = frozenset()
    reruns: "Run | None" = None
    known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def trials(self) -> pd.DataFrame:
        """One row per ended trial."""
        return self.tables["trials"]

    def empty(self, table: str, says: str) -> str:
        """What an empty table says; nothing, where it is missing or some of it damaged."""
        if table in self.lacking:
            return f"Not known, since the table `{table}` is missing or damaged."
        return says

    @property
    def best(self) -> str | None:
        """Id of the best trial; None if no trial completed."""
        return best_trial(self.trials)

    @property
    def objective_snr_db(self) -> tuple[float, ...]:
        """SNRs that the objective averages over [dB]."""
        fixed = self.plan.get("fixed")
        given = fixed.get("evaluation.objective_snr_db") if isinstance(fixed, dict) else None
        return tuple(float(snr) for snr in given) if given else OBJECTIVE_SNR_DB


DAMAGE = (pa.ArrowException, OSError, ValueError)
"""What reading a damaged part may raise."""


def load(path: str | Path) -> Run:
    """Reads whatever can be read of a run.

    Raises:
        RunNotFound: if `path` is no folder.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunNotFound(f"a run is a folder, but {path} is none. Check `--out` and the name.")
    plan: dict[str, Any] = {}
    notes: list[str] = []
    parameters: Parameters = {}
    try:
        plan = read_run(path)
        parameters = {k: tuple(v) for k, v in plan["parameters"].items()}
    except CorruptRun as error:
        notes.append(f"The plan is unknown: {error}")
    tables, lacking = {}, set[str]()
    for table in TABLES:
        found, damaged = _read(path / table, arrow_schema(table, parameters))
        tables[table], unsound = _sound(table, found)
        notes += damaged + unsound
        lacking |= {table} if damaged else set()
    rerun = {*tables["confirmations"]["trial_id"].dropna(), *tables["ablations"]["trial_id"]}
    if lost := len(rerun - set(tables["trials"]["trial_id"])):
        notes.append(f"{lost} trials that were trained again have no row in `trials`.")
        lacking.add("trials")
    reruns = load(path / RERUNS) if (path / RERUNS).is_dir() else None
    if reruns is not None and reruns.notes:
        also = f", and {len(reruns.notes) - 1} more of that kind" if reruns.notes[1:] else ""
        notes.append(f"In {RERUNS}: {reruns.notes[0].rstrip('.')}{also}.")
    return Run(path, plan, tables, tuple(notes), frozenset(lacking), reruns)


def as_run(run: Run | str | Path) -> Run:
    """A loaded run as it is, a folder loaded."""
    return run if isinstance(run, Run) else load(run)


def once_per_run(find: Finder) -> Finder:
    """Remembers in a loaded run what `find(run, ...)` found of it: several sections and figures
    show the same. What it returns is shared, so nobody may change it."""

    @wraps(find)
    def found(run: Run | str | Path, *args: Any) -> Any:
        run = as_run(run)
        key = (find, *args)
        if key not in run.known:
            run.known[key] = find(run, *args)
        return run.known[key]

    return cast("Finder", found)


def _read(folder: Path, schema: pa.Schema) -> tuple[pd.DataFrame, list[str]]:
    if not folder.is_dir():
        return schema.empty_table().to_pandas(), [f"The table `{folder.name}` is missing."]
    parts = part_files(folder)
    try:
        if all(pq.read_schema(part).equals(schema) for part in parts):
            files = [str(part) for part in parts]
            whole = ds.dataset(files, schema=schema, format="parquet").to_table()
            return whole.to_pandas(), []
    except DAMAGE:
        pass  # some part is damaged: find out which
    return _read_each(folder, parts, schema)


def _read_each(
    folder: Path, parts: list[Path], schema: pa.Schema
) -> tuple[pd.DataFrame, list[str]]:
    """Part by part: what is readable, with whatever columns it has, and what is not."""
    good, notes, merged = [schema.empty_table()], [], schema
    for part in parts:
        try:
            read = pq.ParquetFile(part).read()
            read.to_pandas()  # text that is none shows only here
            merged = pa.unify_schemas([merged, read.schema], promote_options="permissive")
            good.append(read)
        except pa.ArrowTypeError:
            notes.append(f"{folder.name}/{part.name} is of another run and left out.")
        except DAMAGE:
            notes.append(f"{folder.name}/{part.name} is damaged and left out.")
    return pa.concat_tables(good, promote_options="permissive").to_pandas(), notes


def _sound(table: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Without the rows that lack what every row has, and without what is there twice."""
    notes = []
    needed = [column.name for column in TABLES[table] if column.required]
    known = rows.dropna(subset=needed)
    if lacking := len(rows) - len(known):
        notes.append(f"{lacking} rows of `{table}` lack {' or '.join(needed)} and are left out.")
    single = known.drop_duplicates(list(KEYS[table]))
    if twice := len(known) - len(single):
        notes.append(f"{twice} rows of `{table}` are there twice and count once.")
    return (single if notes else rows), notes
