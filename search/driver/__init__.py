"""The driver of a search: runs the plan, records what happens, scores the best."""

from .callback import SearchCallback
from .driver import rerun, search
from .scores import Baselines, score_best
from .tune_adapters import Scheduler, TrialSearcher
