"""What a run says: leaderboard, statistics, pictures; reads Parquet and JSON, no Ray, no torch."""

from . import leaderboard, plots, runs, statistics
from .runs import Run, load
from .statistics import Interval, mean_interval, paired_difference

__all__ = [
    "Interval",
    "Run",
    "leaderboard",
    "load",
    "mean_interval",
    "paired_difference",
    "plots",
    "runs",
    "statistics",
]
