"""A run as a report sees it: every table as a DataFrame, and sentences about what is missing.

A damaged run still gives a report, so nothing here raises for one: a part that cannot be read is
left out and named in `notes`; a table that is missing is empty, with its columns.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from search.plan import CorruptRun, Outcome, RunNotFound
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
from trainer.own_trainer import split_objective

OBJECTIVE_SNR_DB = (-5.0, 0.0)
"""SNRs that the objective averages over, unless the run says otherwise."""
DAMAGE = (pa.ArrowException, OSError, ValueError)
"""Exceptions of reading a damaged part."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run's plan and tables. Compared and hashed by identity, so that results can be cached.

    Attributes:
        plan: `run.json`; empty if it cannot be read.
        tables: every table by name, also the missing ones.
        notes: one sentence for each thing that is missing or damaged.
        lacking: tables that are missing, or some of which is.
        reruns: trainings of confirmations and ablations, a run of its own.
    """

    path: Path
    plan: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lacking: frozenset[str] = frozenset()
    reruns: "Run | None" = None

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def trials(self) -> pd.DataFrame:
        """One row per ended trial."""
        return self.tables["trials"]

    @property
    def completed(self) -> pd.DataFrame:
        """Rows of the trials that trained every epoch."""
        return self.trials[self.trials["outcome"] == Outcome.COMPLETED]

    @property
    def best(self) -> str | None:
        """Id of the best trial; None if no trial completed."""
        return best_trial(self.trials)

    @property
    def objective_snr_db(self) -> tuple[float, ...]:
        """SNRs that the objective averages over [dB]."""
        given = self.planned("fixed").get("evaluation.objective_snr_db")
        return tuple(float(snr) for snr in given) if given else OBJECTIVE_SNR_DB

    @property
    def objective_snrs(self) -> str:
        """The same for a reader."""
        return ", ".join(f"{snr:g}" for snr in self.objective_snr_db)

    @property
    def own_trainer(self) -> bool:
        """True if its trials were trained by a user's trainer, which scores no scenes."""
        return self.planned("search").get("trainable") is not None

    @property
    def objective_label(self) -> str:
        """Name of what the trials minimise, for a reader."""
        if not self.own_trainer:
            return "objective (validation capped error)"
        name, sign = self.own_objective
        return f"objective ({name})" if sign > 0 else f"objective (minus {name})"

    @property
    def own_objective(self) -> tuple[str, float]:
        """Name of the number that a user's trainer reports, and the sign that it is minimised
        with."""
        return split_objective(self.planned("search").get("objective") or "capped_error")

    @property
    def own_objective_about(self) -> str:
        """The same for a reader."""
        name, sign = self.own_objective
        way = "lower" if sign > 0 else "higher"
        return f"{name}, mean over the last epochs; {way} is better"

    def planned(self, part: str) -> dict[str, Any]:
        """Return a part of `run.json` (`search`, `fixed`, ...); empty where it cannot be read."""
        found = self.plan.get(part)
        return found if isinstance(found, dict) else {}

    def empty(self, table: str, says: str) -> str:
        """Return `says`, or that nothing is known if the table is missing or damaged."""
        if table in self.lacking:
            return f"Not known, since the table `{table}` is missing or damaged."
        return says


def load(path: str | Path) -> Run:
    """Read whatever can be read of a run.

    Raises:
        RunNotFound: if `path` is no folder.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunNotFound(f"a run is a folder, but {path} is none. Check `--out` and the name.")
    plan: dict[str, Any] = {}
    notes: list[str] = []
    parameters: Parameters = {}
    metrics: tuple[str, ...] = ()
    try:
        plan = read_run(path)
        parameters = {k: tuple(v) for k, v in plan["parameters"].items()}
        metrics = tuple(plan.get("metrics", ()))
    except CorruptRun as error:
        notes.append(f"The plan is unknown: {error}")
    tables, lacking = {}, set[str]()
    for table in TABLES:
        found, damaged = _read(path / table, arrow_schema(table, parameters, metrics))
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
        pass  # some part is damaged: read each one to find out which
    return _read_each(folder, parts, schema)


def _read_each(
    folder: Path, parts: list[Path], schema: pa.Schema
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of the parts that can be read, and notes on the others."""
    good, notes, merged = [schema.empty_table()], [], schema
    for part in parts:
        try:
            read = pq.ParquetFile(part).read()
            read.to_pandas()  # bytes that are no text are found only here
            merged = pa.unify_schemas([merged, read.schema], promote_options="permissive")
            good.append(read)
        except pa.ArrowTypeError:
            notes.append(f"{folder.name}/{part.name} is of another run and left out.")
        except DAMAGE:
            notes.append(f"{folder.name}/{part.name} is damaged and left out.")
    return pa.concat_tables(good, promote_options="permissive").to_pandas(), notes


def _sound(table: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows without incomplete and repeated ones, and notes on those."""
    notes = []
    needed = [column.name for column in TABLES[table] if column.required]
    known = rows.dropna(subset=needed)
    if lacking := len(rows) - len(known):
        notes.append(f"{lacking} rows of `{table}` lack {' or '.join(needed)} and are left out.")
    single = known.drop_duplicates(list(KEYS[table]))
    if twice := len(known) - len(single):
        notes.append(f"{twice} rows of `{table}` are there twice and count once.")
    return (single if notes else rows), notes
