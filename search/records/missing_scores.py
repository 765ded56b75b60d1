"""What a search scores beside its trials, and what of that a run lacks: read from its tables, so
that whatever was lost or damaged is made again by whoever resumes it."""

from collections.abc import Mapping
from typing import Any

from trainer.config import EvaluationConfig

from .rows import scored_rows
from .schema import BASELINE_PART
from .store import RunStore

LEADING = ("sml", "crb", "lmmse_music")
"""What every leaderboard begins with, whatever else a network is held against; what takes longest
comes first."""

BASELINE_TABLES = ("evaluations", "scenes")
BEST_TABLES = ("spectra", "pseudospectra", "scenes")
"""Where the best trial's network has rows beside those that its training has left."""


def unscored(store: RunStore, evaluation: EvaluationConfig) -> list[str]:
    """The bound and the classical methods that a run has no scores of, on its held-out scenes."""
    wanted = dict.fromkeys((*LEADING, *evaluation.baselines))
    known = [_estimators(store, table) for table in BASELINE_TABLES]
    return [name for name in wanted if not all(name in names for names in known)]


def lacks_scores(store: RunStore, best: str) -> bool:
    """Whether the network of that trial has not been scored, scene by scene."""
    return not all(store.has_rows(table, best) for table in BEST_TABLES)


def add_baseline(
    store: RunStore, name: str, tables: Mapping[str, list[Mapping[str, Any]]], seed: int
) -> None:
    """Adds one method's scores to those of the others, in place of what there is of them."""
    for table in BASELINE_TABLES:
        new = scored_rows(tables[table], table, None, seed)
        old = store.rows(table, BASELINE_PART) if store.has_part(table, BASELINE_PART) else []
        others = [row for row in old if row["estimator"] != name]
        store.write_part(table, BASELINE_PART, others + new)


def _estimators(store: RunStore, table: str) -> set[str]:
    if not store.has_part(table, BASELINE_PART):
        return set()
    return set(store.read(table, BASELINE_PART, columns=["estimator"])["estimator"])
