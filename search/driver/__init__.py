"""The driver of a search: runs the plan, records what happens, scores the best."""

from .driver import rerun, search
from .monitor import Monitor
from .score_best import Classical, finish
from .searcher import OptunaSearcher, Scheduler

__all__ = ["Classical", "Monitor", "OptunaSearcher", "Scheduler", "finish", "rerun", "search"]
