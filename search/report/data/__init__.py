"""A run read from disk, whole or broken; the parameters it searched; tables to show."""

from .ranges import PREFIX, WEIGHT, SearchedParameter, format_value, parameters
from .runs import Run, load
from .table import NOT_KNOWN, Cell, Heading, Table, TableRow, interval, number, words
