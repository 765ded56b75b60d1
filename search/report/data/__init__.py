"""A run read from disk, whole or broken; the parameters it searched; tables to show."""

from .ranges import PREFIX, WEIGHT, Parameter, format_value, parameters
from .runs import Run, load
from .table import NOT_KNOWN, Cell, Column, Row, Table, interval, number, words
