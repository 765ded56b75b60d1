"""Recordings made by other software: files read, and arrays put into a recording's layout.

`convert(files, mapping)` reads MATLAB, HDF5, NumPy and CSV files and returns scenes, as a small
TOML file says (`mapping`). docs/data.md has examples.
"""

from .conversion import convert
from .files import describe_arrays, read_arrays
