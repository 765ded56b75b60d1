"""The driver of a search: runs the plan, records what happens, scores the best."""

from .callback import SearchCallback
from .driver import rerun, search
from .score_best import Classical, finish
from .searcher import OptunaSearcher, Scheduler

__all__ = [
    "Classical",
    "OptunaSearcher",
    "Scheduler",
    "SearchCallback",
    "finish",
    "rerun",
    "search",
]
