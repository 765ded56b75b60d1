"""Rows of a table as Arrow tables: checked one by one, in the schema that `schema` declares.

All part files of one table in one run share one Arrow schema, with unit and description in each
field's metadata. Arrow's own conversion is no check: it truncates 1.5 to an integer, and takes
True for 1.0 and a time without a zone for UTC.
"""

import datetime
import functools
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from trainer.config import did_you_mean

from .schema import KEYS, Column, Parameters, columns

TYPES: dict[str, pa.DataType] = {
    "float": pa.float64(),
    "floats": pa.list_(pa.float64()),
    "int": pa.int64(),
    "int32": pa.int32(),
    "str": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
}
PLAIN: dict[str, type] = {"float": float, "int": int, "int32": int, "str": str}
ACCEPTED: dict[str, type] = {
    "float": numbers.Real,
    "int": numbers.Integral,
    "int32": numbers.Integral,
    "str": str,
}
"""Types of values that are converted to the plain one; booleans are no numbers."""
PARAMETER_TYPES = ("float", "int", "str")


class RowError(ValueError):
    """A row that its table refuses; the message has the rule, the value and the remedy."""


def arrow_schema(table: str, parameters: Parameters, metrics: tuple[str, ...] = ()) -> pa.Schema:
    """Return the schema of every part file of that table."""
    return _layout(table, tuple(parameters.items()), metrics)[1]


@functools.cache  # a search converts rows of four tables for every trial
def _layout(
    table: str, parameters: tuple[tuple[str, tuple[str, str, str]], ...], metrics: tuple[str, ...]
) -> tuple[dict[str, Column], pa.Schema]:
    """Return the columns by name, and the Arrow schema."""
    known = {c.name: c for c in columns(table, dict(parameters), metrics)}
    fields = [
        pa.field(
            c.name,
            TYPES[c.type],
            nullable=not c.required,
            metadata={"unit": c.unit, "description": c.about},
        )
        for c in known.values()
    ]
    return known, pa.schema(fields)


def check_parameters(parameters: Parameters) -> None:
    """Raise RowError unless every parameter has a type that a column can have."""
    for name, declared in parameters.items():
        if len(declared) != 3 or declared[0] not in PARAMETER_TYPES:
            raise RowError(
                f"a parameter is (type, unit, description) with type in "
                f"{', '.join(PARAMETER_TYPES)}, but `{name}` is {declared!r}. Correct its space."
            )


def arrow_table(
    table: str,
    parameters: Parameters,
    rows: Iterable[Mapping[str, Any]],
    metrics: tuple[str, ...] = (),
) -> pa.Table:
    """Check rows and return them as an Arrow table; what a row does not name is null.

    Raises:
        RowError: for an unknown column, a wrong type, a number that is not finite, a missing
            required value, or two rows with one key.
    """
    known, schema = _layout(table, tuple(parameters.items()), metrics)
    checked = [_checked_row(table, known, row) for row in rows]
    seen = set()
    for row in checked:
        key = tuple(row[name] for name in KEYS[table])
        if key in seen:
            named = ", ".join(f"{k}={v!r}" for k, v in zip(KEYS[table], key, strict=True))
            raise RowError(
                f"a row of `{table}` is written once, but two rows have {named}. Drop one of them."
            )
        seen.add(key)
    # as one array of structs: far faster than column by column, for a row or two
    structs = pa.array(checked, type=pa.struct(list(schema)))
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(structs)])


def _checked_row(
    table: str, known: Mapping[str, Column], row: Mapping[str, Any]
) -> dict[str, Any]:
    for name in row:
        if name not in known:
            raise RowError(f"`{table}` has no column `{name}`.{did_you_mean(name, known)}")
    checked: dict[str, Any] = {}
    for name, column in known.items():
        value: Any = row.get(name)
        plain = type(value) is PLAIN.get(column.type)
        if not plain or (column.type == "float" and not math.isfinite(value)):
            value = _checked_value(table, column, row)  # rare: abstract types take far longer
        checked[name] = value
    return checked


def _checked_value(table: str, column: Column, row: Mapping[str, Any]) -> Any:
    """Return the row's value in that column as plain Python, or raise RowError."""
    value = row.get(column.name)
    if value is None and not column.required:
        return None
    where = f"`{table}.{column.name}`"
    if value is None:
        raise RowError(f"{where} must have a value in every row, but got none. Name it.")
    if column.type == "time":
        if isinstance(value, datetime.datetime) and value.tzinfo:
            return value
        expected = "a datetime with a time zone"
    elif column.type == "floats":
        floats = isinstance(value, list) and all(type(each) is float for each in value)
        if floats and all(map(math.isfinite, value)):
            return value
        expected = "a list of finite floats"
    else:
        if isinstance(value, ACCEPTED[column.type]) and not isinstance(value, bool):
            value = PLAIN[column.type](value)
            if column.type != "float" or math.isfinite(value):
                return value
            named = f" of trial {row['trial_id']}" if row.get("trial_id") else ""
            raise RowError(
                f"{where} must be finite or null, but got {value}{named}. "
                "Record the cause in `failures` instead."
            )
        expected = f"a {column.type}"
    raise RowError(f"{where} must be {expected}, but got {value!r}. Convert it.")


def is_earlier(own: pa.Schema, whole: pa.Schema, needed: set[str]) -> bool:
    """Return whether a part has the columns `needed`, and lacks only columns that may be null."""
    lacking = set(whole.names) - set(own.names)
    known = pa.schema([whole.field(name) for name in own.names if name in whole.names])
    nullable = all(whole.field(name).nullable for name in lacking)
    return own == known and nullable and not lacking & needed
