"""Construction of dataclasses from names and values, as JSON and command lines give them."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from .rules import ConfigError, did_you_mean


def build(cls: type, tree: Mapping[str, Any], prefix: str) -> Any:
    """Return a `cls`, with the defaults of fields not in `tree`; `prefix` is the group, or empty.

    Raises:
        ConfigError: for an unknown name, or a value of the wrong type.
    """
    hints = _hints(cls)
    values = {}
    for name, value in tree.items():
        if name not in hints:
            known = [prefix + h for h in hints]
            raise ConfigError(
                f"`{prefix}{name}` is no configuration name.{did_you_mean(prefix + name, known)}"
            )
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"`{prefix}{name}` is a group, but got {value!r}. "
                    f"Use `{prefix}{name}.<field>`."
                )
            values[name] = build(typing.cast(type, hints[name]), value, f"{prefix}{name}.")
        else:
            values[name] = _coerce(hints[name], value, prefix + name)
    return cls(**values)


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield dotted name, kind (`float`, `int`, `str` or `list`) and default of every field."""
    for field in dataclasses.fields(cls):
        hint, name = _hints(cls)[field.name], prefix + field.name
        if dataclasses.is_dataclass(hint):
            yield from leaves(typing.cast(type, hint), f"{name}.")
        else:
            kind, _, item = _kind(hint)
            yield (
                name,
                "list" if item else kind.__name__ if kind in (int, float) else "str",
                (field.default),
            )


def coerce(cls: type, name: str, value: Any) -> Any:
    """Return a value as the type of the field of that dotted name; raise ConfigError if it is of
    another."""
    *groups, leaf = name.split(".")
    for group in groups:
        cls = _hints(cls)[group]
    return _coerce(_hints(cls)[leaf], value, name)


@functools.cache  # a search builds thousands of configurations
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _kind(hint: Any) -> tuple[Any, bool, Any]:
    """Return the type that a hint asks for, whether it may be None, and what a tuple holds."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(a for a in allowed if a is not types.NoneType)
    item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
    return kind, types.NoneType in allowed, item


def _coerce(hint: Any, value: Any, name: str) -> Any:
    """Return the value as the hint's type; accept what JSON makes of it, refuse all else."""
    kind, optional, item = _kind(hint)
    if value is None and optional:
        return None
    if item is not None:
        if isinstance(value, (list, tuple)):
            return tuple(_coerce(item, v, name) for v in value)
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not math.isfinite(value):
                raise ConfigError(f"`{name}` must be finite, but got {value}. Give a number.")
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, str):
        return value
    asked = getattr(hint, "__name__", hint)
    raise ConfigError(f"`{name}` must be of type {asked}, but got {value!r}. Correct its type.")
