"""Hyperparameter search on Ray Tune and Optuna; `run_search` and `open_run` are its Python API."""

from typing import TYPE_CHECKING

__all__ = ["BestTrial", "Run", "open_run", "run_search"]

if TYPE_CHECKING:
    from .api import BestTrial, Run, open_run, run_search
else:

    def __getattr__(name: str) -> object:
        # only when it is asked for: every command and worker imports this package
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import api

        return getattr(api, name)
