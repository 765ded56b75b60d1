"""A run read from disk, whole or broken, and the parameters it searched."""

from .ranges import PREFIX, WEIGHT, Parameter, parameters, shown
from .runs import Run, as_run, load, once_per_run

__all__ = [
    "PREFIX",
    "WEIGHT",
    "Parameter",
    "Run",
    "as_run",
    "load",
    "once_per_run",
    "parameters",
    "shown",
]
