"""What a run says: leaderboard, statistics, pictures; reads Parquet and JSON, no Ray, no torch."""

from search.report.analysis import leaderboard, mean_interval, paired_difference, statistics
from search.report.data import Run, load, runs
from search.report.figures import plots
from trainer.intervals import Interval

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
