"""Statistics of a run: leaderboard, confirmation, ablation, importances, warnings."""

from .ablation import MEASURES, Effect, incomplete, verdict
from .estimators import BOUND, LABELS, REFERENCE, in_order, short_label
from .importance import importances, same_fidelity
from .leaderboard import (
    CONFIRMED,
    ENDS,
    WELL,
    compares,
    held_out,
    paired_by_scene,
    rungs,
)
from .statistics import mean_interval

__all__ = [
    "BOUND",
    "CONFIRMED",
    "ENDS",
    "LABELS",
    "MEASURES",
    "REFERENCE",
    "WELL",
    "Effect",
    "compares",
    "held_out",
    "importances",
    "in_order",
    "incomplete",
    "mean_interval",
    "paired_by_scene",
    "rungs",
    "same_fidelity",
    "short_label",
    "verdict",
]
