"""A run read from disk, whole or broken; the parameters it searched; tables to show."""

from .ranges import PREFIX, WEIGHT, Parameter, parameters, shown
from .runs import Run, load
from .table import NOT_KNOWN, Cell, Column, Row, Table, interval, number, words

__all__ = [
    "NOT_KNOWN",
    "PREFIX",
    "WEIGHT",
    "Cell",
    "Column",
    "Parameter",
    "Row",
    "Run",
    "Table",
    "interval",
    "load",
    "number",
    "parameters",
    "shown",
    "words",
]
