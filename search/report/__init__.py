"""Reports of runs: leaderboard, statistics, figures; reads Parquet and JSON, no Ray, no torch."""

from search.report.analysis import leaderboard, mean_interval, statistics
from search.report.data import Run, load, runs
from trainer.intervals import Interval
