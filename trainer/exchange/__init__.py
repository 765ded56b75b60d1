"""Recordings made by other software: files read, arrays put in order, contents told in words.

`convert(files, mapping)` reads MATLAB, HDF5, NumPy and CSV files and returns scenes, as a small
TOML file says (`mapping`). docs/data.md has examples.
"""

from .contents import describe_scenes
from .conversion import convert
from .files import describe_arrays, read_arrays
