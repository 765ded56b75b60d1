"""Scores that a search makes beside its trials, and those that a run lacks: read from its tables,
so that a resumed search makes again whatever was lost or damaged."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.config import EvaluationConfig

from .rows import scored_rows
from .schema import BASELINE_PART
from .store import RunStore

LEADING = ("sml", "crb", "lmmse_music")
"""Estimators at the top of every leaderboard, whatever else a network is held against; the
slowest comes first."""

BASELINE_TABLES = ("evaluations", "scenes")
BEST_TABLES = ("spectra", "pseudospectra", "scenes")
"""Tables in which the best trial's network has rows beside those of its training."""


def unscored(
    store: RunStore, evaluation: EvaluationConfig, limits: Iterable[str] = ()
) -> list[str]:
    """Return the bound, the classical methods and those `limits` that the run has no scores of."""
    wanted = dict.fromkeys((*limits, *LEADING, *evaluation.baselines))
    known = [
        set(store.read(table, BASELINE_PART, columns=["estimator"])["estimator"])
        for table in BASELINE_TABLES
    ]
    return [name for name in wanted if not all(name in names for names in known)]


def lacks_scores(store: RunStore, best: str) -> bool:
    """Return whether the network of that trial has not been scored, scene by scene."""
    return any(store.read_arrow(table, best).num_rows == 0 for table in BEST_TABLES)


def add_baseline(
    store: RunStore, name: str, tables: Mapping[str, list[Mapping[str, Any]]], seed: int
) -> None:
    """Write one method's scores beside those of the others, in place of its earlier ones."""
    for table in BASELINE_TABLES:
        old = store.read_arrow(table, BASELINE_PART)
        others = old.filter(pc.not_equal(old["estimator"], name))
        new = store.converted(table, scored_rows(tables[table], table, None, seed))
        store.write_part(table, BASELINE_PART, pa.concat_tables([others, new]))
