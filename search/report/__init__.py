"""What a run says: leaderboard, statistics, pictures; reads Parquet and JSON, no Ray, no torch."""

from .leaderboard import leaderboard, leaderboard_text, paired_with, tally
from .plots import error_vs_snr, save_error_vs_snr
from .runs import Run, load
from .statistics import Interval, mean_interval, paired_difference

__all__ = [
    "Interval",
    "Run",
    "error_vs_snr",
    "leaderboard",
    "leaderboard_text",
    "load",
    "mean_interval",
    "paired_difference",
    "paired_with",
    "save_error_vs_snr",
    "tally",
]
