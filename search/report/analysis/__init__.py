"""Statistics of a run: leaderboard, confirmation, ablation, importances, warnings."""

from .ablation import MEASURES, Effect, incomplete, verdict
from .estimators import BOUND, LABELS, LIMIT, LIMIT_BLIND, in_order, short_label
from .guard import guarded
from .importance import importances, same_fidelity
from .leaderboard import CONFIRMED, ENDS, WELL, compares, held_out, paired_by_scene, rungs
from .source_numbers import confusion_table
from .statistics import (
    Values,
    combined_shares,
    crossed_interval,
    crossed_moments,
    crossed_shares,
    difference_p,
    equivalence_p,
    holm,
    mean_interval,
    moderated,
)
