"""The rows of one driver session: a part per table, rewritten as a whole every few seconds.

Rows of ended trials are kept as Arrow tables, so that a flush is little more than writing files.
The parts are written children first and `trials` last: a reader never sees a trial that has ended
without all its rows, and a driver killed between two files leaves rows of trials that have not
ended, which the next session removes. Trials that ended after the last flush of a killed driver
go on from their checkpoints, which hold everything they had reported.
"""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from search.plan import CorruptRun
from trainer.own_trainer import PREFIX
from trainer.record import ENDINGS, JOURNAL, read_journal

from .json_files import read_json
from .schema import Row
from .store import RunStore, part_files

CHILDREN = ("epochs", "evaluations", "failures")
"""Tables with rows of a trial beside its row in `trials`."""

FLUSH_SECONDS = 3.0
"""Least interval between flushes."""

FLUSH_SHARE = 0.01
"""Share of the driver's time that flushes may take; their interval grows with the run."""

LONGEST_WAIT = 30.0
"""Largest interval between flushes in seconds, on a disk of any speed."""


class SessionTables:
    """The rows of one driver's trials, on their way to the run's tables in parts called `name`.

    Removes the rows that an earlier session left of trials that have not ended.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.name = _next_name(store)
        self._running: dict[str, dict[int, Row]] = {}
        self._ended = [{table: store.converted(table, []) for table in (*CHILDREN, "trials")}]
        self._endings: dict[str, Row] = {}
        self._changed = False
        self._flushed, self._seconds = -math.inf, 0.0
        _remove_unfinished(store)
        self._take_over_journal()

    def report(self, trial_id: str, epoch: Row) -> None:
        """Keep a running trial's row of `epochs`, in place of an earlier one of that epoch."""
        self._store.add_metrics(n.removeprefix(PREFIX) for n in epoch if n.startswith(PREFIX))
        self._running.setdefault(trial_id, {})[epoch["epoch"]] = epoch
        self._changed = True

    def epochs(self, trial_id: str) -> dict[int, Row]:
        """Return a running trial's rows of `epochs`, by epoch."""
        return self._running.get(trial_id, {})

    def end(
        self,
        trial: Row,
        ending: Row,
        *,
        epochs: Sequence[Row] = (),
        evaluations: Sequence[Row] = (),
        failures: Sequence[Row] = (),
    ) -> None:
        """Keep all rows of a trial that has ended, and its entry in `endings`.

        Raises:
            RowError: for a row that the schema refuses; the trial has not ended then.
        """
        rows = {"epochs": epochs, "evaluations": evaluations, "failures": failures}
        tables = {t: self._store.converted(t, r) for t, r in {**rows, "trials": [trial]}.items()}
        # in this order: an interrupt between two of these lines loses rows, but doubles none
        self._running.pop(trial["trial_id"], None)
        self._endings[trial["trial_id"]] = ending
        self._ended.append(tables)
        self._changed = True

    def flush(self, *, now: bool = False) -> None:
        """Write the parts if there is news and the last flush is long ago, or at once.

        Raises:
            OSError: if the folder takes no files; the next flush tries again.
        """
        began = time.monotonic()
        wait = min(max(FLUSH_SECONDS, self._seconds / FLUSH_SHARE), LONGEST_WAIT)
        if not self._changed or (not now and began - self._flushed < wait):
            return
        whole = {table: self._whole(table) for table in (*CHILDREN, "trials")}
        self._ended = [whole]
        running = [row for rows in self._running.values() for row in rows.values()]
        epochs = pa.concat_tables([whole["epochs"], self._store.converted("epochs", running)])
        for table, rows in (whole | {"epochs": epochs}).items():
            if table == "trials":
                self._store.write_endings(self.name, self._endings)
            self._store.write_part(table, self.name, rows.sort_by("trial_id"))
        self._changed = False
        self._flushed = time.monotonic()
        self._seconds = self._flushed - began

    def _whole(self, table: str) -> pa.Table:
        """Return the rows of ended trials in one chunk, and the columns that they have by now."""
        parts = [self._store.converted(table, []), *(tables[table] for tables in self._ended)]
        return pa.concat_tables(parts, promote_options="default").combine_chunks()

    def _take_over_journal(self) -> None:
        """Keep the trials that an earlier version's driver left in its journal when killed."""
        journal = self._store.path / JOURNAL
        left = {each["trial"]["trial_id"]: each for each in read_journal(journal)}
        for name in left.keys() - self._store.ended():
            rows = left[name]
            if started := rows["trial"].get("started"):
                rows["trial"]["started"] = datetime.fromisoformat(started)
            self.end(**rows)
        self.flush(now=True)
        journal.unlink(missing_ok=True)


def _next_name(store: RunStore) -> str:
    parts = [p for table in (*CHILDREN, "trials") for p in part_files(store.path / table)]
    names = {path.stem for path in (*parts, *store.path.glob(f"{ENDINGS}/*.json"))}
    taken = [int(n.removeprefix("session-")) for n in names if n.startswith("session-")]
    return f"session-{max(taken, default=0) + 1:04d}"


def _remove_unfinished(store: RunStore) -> None:
    """Remove rows and endings of trials that have not ended from all parts."""
    ended = store.ended()
    known = pa.array([*ended, None], pa.string())  # baselines belong to no trial
    for table in CHILDREN:
        rows = store.read_arrow(table, columns=["trial_id", "__filename"])
        left = rows.filter(pc.invert(pc.is_in(rows["trial_id"], value_set=known)))
        for file in sorted(set(left["__filename"].to_pylist())):
            part = file.rpartition("/")[2].removesuffix(".parquet")
            own = store.read_arrow(table, part)
            kept = own.filter(pc.is_in(own["trial_id"], value_set=known))
            store.write_part(table, part, kept)
    for file in store.path.glob(f"{ENDINGS}/*.json"):
        with suppress(CorruptRun):  # a replay says what is wrong with it
            endings = read_json(file)
            if endings.keys() - ended:
                kept = {name: ending for name, ending in endings.items() if name in ended}
                store.write_endings(file.stem, kept)
