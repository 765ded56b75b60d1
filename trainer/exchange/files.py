"""Numeric arrays by name, read from MATLAB, HDF5, NumPy and CSV files.

    .mat         of any version, by scipy or h5py; axes in MATLAB's order; `s.Y` is field Y of a
                 struct
    .h5, .hdf5   by h5py; axes as stored; `group/Y`; what a link leads to by the link's name
    .npz, .npy   NumPy's; the array of an .npy file is named after the file
    .csv, .txt   a table named after the file; with a header, also a vector per column;
                 between semicolons or tabs `1,5` is 1.5

Complex numbers may be compounds of two fields (real and imaginary part) in HDF5, and cells such as
`1-2i` or `1-2j` in a CSV. An array that several files hold is named `FILE:ARRAY`, the file without
its ending.
"""

import csv
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from trainer.config import ConfigError, require_choice

COMMENTS = ("#", "%", "!", "BEGIN", "END")
"""Beginnings of the lines of a CSV that are no data, as network analysers write them."""

NUMERIC = re.compile(r"[^\d]*\d[^A-DF-HK-Za-df-hk-z]*")
"""A cell that has a digit, and letters as numbers may have them only (1e9, 2i, 2j)."""

Arrays = dict[str, np.ndarray]


def read_arrays(files: Iterable[Path]) -> Arrays:
    """Return the numeric arrays of all files.

    Raises:
        ConfigError: if a file is missing, of another kind or damaged.
    """
    found = {f"{file.stem}:{name}": a for file in files for name, a in _read(file).items()}
    count = Counter(name.partition(":")[2] for name in found)
    return {
        (plain if count[plain := name.partition(":")[2]] == 1 else name): array
        for name, array in found.items()
    }


def describe_arrays(arrays: Arrays) -> list[str]:
    """Return a line for every array: name, shape, type."""
    return [f"{name} {list(array.shape)} {array.dtype}" for name, array in arrays.items()]


def _read(file: Path) -> Arrays:
    ending = file.suffix.lower()
    require_choice(f"ending of {file}", ending, tuple(READERS))
    try:
        return READERS[ending](file)
    except FileNotFoundError:
        raise ConfigError(f"A file to convert must exist, but there is no {file}.") from None
    except (
        *(OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError),
        *(zipfile.BadZipFile, zlib.error, scipy.io.matlab.MatReadError, RuntimeError),
    ) as error:
        raise ConfigError(
            f"a file to convert must be readable by its ending, but {file} is not ({error}). "
            "Write it again, or rename it."
        ) from error


def _read_mat(file: Path) -> Arrays:
    file.stat()  # scipy would try the name with another ending
    if h5py.is_hdf5(file):
        return _read_hdf5(file)
    found = scipy.io.loadmat(file, chars_as_strings=False)
    return dict(_fields({n: v for n, v in found.items() if not n.startswith("__")}))


def _fields(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield numeric arrays, those in structs by the path to them."""
    for name, value in values.items():
        if hasattr(value, "toarray"):  # sparse
            value = value.toarray()
        if not isinstance(value, np.ndarray):
            continue
        if value.dtype.names and value.size == 1:  # a struct, 1x1
            inner = {field: value[field].item() for field in value.dtype.names}
            yield from _fields(inner, f"{prefix}{name}.")
        elif value.dtype.kind in "biufc":
            yield prefix + name, value


def _read_hdf5(file: Path) -> Arrays:
    with h5py.File(file) as root:
        items = dict(_items(root, {root.id}))
        matlab = any("MATLAB_class" in item.attrs for item in items.values())
        arrays: Arrays = {}
        for name, item in items.items():
            numeric = isinstance(item, h5py.Dataset) and not name.startswith("#")
            if numeric and (item.dtype.kind in "biufc" or len(item.dtype.names or ()) == 2):
                value = _joined(item[()])
                # MATLAB stores its first axis last
                arrays[name.replace("/", ".") if matlab else name] = value.T if matlab else value
        return arrays


def _items(group: h5py.Group, above: set[h5py.h5g.GroupID]) -> Iterator[tuple[str, Any]]:
    """Yield the items below a group by their paths, those that links lead to as well.

    Links that lead nowhere are left out, and so are groups that lead back to one `above`.
    """
    for name in group:
        try:
            item = group[name]
        except (KeyError, OSError):
            continue
        if item.id in above:
            continue
        yield name, item
        if isinstance(item, h5py.Group):
            for path, inner in _items(item, above | {item.id}):
                yield f"{name}/{path}", inner


def _joined(value: np.ndarray) -> np.ndarray:
    """Return real and imaginary parts in two fields as one complex array."""
    if not value.dtype.names:
        return np.asarray(value)
    real, imaginary = (value[field] for field in value.dtype.names)
    return np.asarray(real + 1j * imaginary)


def _read_npz(file: Path) -> Arrays:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {file.stem: loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except ValueError as error:
        if "allow_pickle" not in str(error):  # advises what is unsafe
            raise
        raise ValueError("it holds Python objects, or is no file of NumPy") from error


def _read_csv(file: Path) -> Arrays:
    text = file.read_text(encoding="utf-8-sig")
    lines = [line for line in text.splitlines() if line.strip() and not _is_comment(line)]
    if not lines:
        raise ValueError("no data")
    # spaces may stand beside another delimiter, and in a complex number
    delimiter = next((mark for mark in ";\t, " if mark in lines[-1].strip()), ",")
    cells = csv.reader(lines, delimiter=delimiter)
    rows = [[cell.strip() for cell in row if cell] for row in cells]
    if delimiter in ";\t":  # half the world writes 1,5 between these
        rows = [[_with_decimal_point(cell) for cell in row] for row in rows]
    header = [] if all(map(_is_number, rows[0])) else rows.pop(0)
    if header and NUMERIC.fullmatch(header[0]):
        raise ValueError(f"the first row is neither names nor numbers: {','.join(header)[:40]}")
    if not rows:
        raise ValueError("no data below the header")
    for name, count in Counter(header).items():
        if name and count > 1:
            raise ValueError(f"{count} columns are called {name}: give them names of their own")
    width = len(header or rows[0])
    for number, row in enumerate(rows, start=1):
        if len(row) != width or not all(map(_is_number, row)):
            told = f"data row {number} has not {width} numbers: {','.join(row)[:40]}"
            commas = any(re.search(r"\d,\d+ +[-+]?\d+,\d", line) for line in lines)
            remedy = "; decimal commas are read between semicolons or tabs only"
            raise ValueError(told + remedy * commas)
    table = np.array([[_number(cell) for cell in row] for row in rows], dtype=complex)
    table = table.reshape(len(rows), width)
    if not table.imag.any():
        table = table.real
    return {file.stem: table} | dict(zip(header, table.T, strict=bool(header)))


def _is_comment(line: str) -> bool:
    return line.lstrip('" ').startswith(COMMENTS)


def _with_decimal_point(cell: str) -> str:
    return re.sub(r"(\d),(\d)", r"\1.\2", cell) if "." not in cell else cell


def _number(cell: str) -> complex:
    cell = re.sub(r"\s*([+-])\s*", r"\1", cell)  # "1 2" is two numbers
    return complex(re.sub("i$", "j", cell))


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


READERS = {
    ".mat": _read_mat,
    **dict.fromkeys((".h5", ".hdf5"), _read_hdf5),
    **dict.fromkeys((".npz", ".npy"), _read_npz),
    **dict.fromkeys((".csv", ".txt"), _read_csv),
}
"""Readers by the ending of a file."""
