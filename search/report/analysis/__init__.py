"""Statistics of a run: leaderboard, confirmation, ablation, importances, warnings."""

from .ablation import MEASURES, Effect, incomplete, verdict
from .estimators import BOUND, REFERENCE, ROW_ORDER
from .importance import Importance, importances, same_fidelity
from .leaderboard import (
    CONFIRMED,
    ENDS,
    SCENE,
    SUCCESS_SNR_DB,
    compares,
    paired_with,
    rungs,
    success_column,
    table,
    tally,
    verdict_on_best,
)
from .statistics import mean_interval, paired_difference

__all__ = [
    "BOUND",
    "CONFIRMED",
    "ENDS",
    "MEASURES",
    "REFERENCE",
    "ROW_ORDER",
    "SCENE",
    "SUCCESS_SNR_DB",
    "Effect",
    "Importance",
    "compares",
    "importances",
    "incomplete",
    "mean_interval",
    "paired_difference",
    "paired_with",
    "rungs",
    "same_fidelity",
    "success_column",
    "table",
    "tally",
    "verdict",
    "verdict_on_best",
]
