"""Trials that have ended, on their way to the tables: together, where several end within moments.

Two Parquet parts a trial would be half of the bookkeeping of a search of many short trials, and
thousands of parts are slow to read. A trial that ends while others have just been written waits
for company, at most five seconds, and shares their parts. A journal has it at once: what a driver
could not write any more, because it was killed or the disk was full, the next one writes.
"""

import json
import math
import time
from datetime import datetime
from typing import IO, Any

from trainer.record import JOURNAL, read_journal

from .files import part_files
from .schema import TABLES
from .store import SHARED, Ended, RunStore

WAIT_SECONDS = 5.0
"""A trial reaches the tables at most this late."""

TIMES = [column.name for column in TABLES["trials"] if column.type == "time"]


class Waiting:
    """The trials that have ended and are in no table yet.

    Args:
        store: where they go.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._journal = store.path / JOURNAL
        self._file: IO[str] | None = None
        self._ended: list[Ended] = []
        self._written = -math.inf

    def add(self, ended: Ended) -> None:
        """Keeps a trial that has no part in any table, until `write`."""
        line = json.dumps(vars(ended), default=datetime.isoformat, allow_nan=False)
        if self._file is None:
            self._file = open(self._journal, "a")  # noqa: SIM115  (until what it holds is written)
        self._file.write(line + "\n")
        self._file.flush()
        self._ended.append(ended)

    def write(self, *, now: bool = False) -> None:
        """Writes what has waited long enough, or all of it `now`."""
        if self._ended and (now or time.monotonic() - self._written > WAIT_SECONDS):
            self._store.write_together(self._ended)
            self._ended.clear()  # interrupted before: the same part is written again, with more
            if self._file is not None:
                file, self._file = self._file, None
                file.close()
            self._journal.unlink(missing_ok=True)
            self._written = time.monotonic()


def write_left(store: RunStore) -> None:
    """Writes what an earlier driver has left in its journal, and empties that."""
    journal = store.path / JOURNAL
    if not journal.exists():
        return
    known = store.ended()
    found = {each["trial"]["trial_id"]: each for each in read_journal(journal)}
    left = [each for name, each in found.items() if name not in known]
    if left:
        store.write_together([_ended(each) for each in left])
    journal.unlink()


def drop_orphans(store: RunStore) -> None:
    """Deletes parts of trials whose part of `trials` somebody has deleted: they are written anew,
    and under other names if they share a part then. An unfinished trial keeps its own."""
    ended = {part.stem for part in part_files(store.path / "trials")}
    started = set(store.started())
    for table in SHARED:
        for part in part_files(store.path / table):
            if part.stem in ended:
                continue
            trials = set(store.read(table, part.stem, columns=["trial_id"])["trial_id"])
            own = part.stem in trials  # not the classical methods'
            if own and (len(trials) > 1 or part.stem not in started):
                part.unlink()


def _ended(found: dict[str, Any]) -> Ended:
    for name in TIMES:
        if found["trial"].get(name):
            found["trial"][name] = datetime.fromisoformat(found["trial"][name])
    return Ended(**found)
