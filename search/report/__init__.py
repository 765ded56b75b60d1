"""What a run says: leaderboard, statistics, pictures; reads Parquet and JSON, no Ray, no torch."""

from search.report.analysis import leaderboard, statistics
from search.report.analysis.statistics import Interval, mean_interval, paired_difference
from search.report.data import runs
from search.report.data.runs import Run, load
from search.report.figures import plots

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
