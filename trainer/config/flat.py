"""Construction of dataclasses from names and values, as JSON and command lines give them."""

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from .rules import ConfigError, did_you_mean

Value = str | int | float


ABSTRACT: dict[type, type] = {int: numbers.Integral, float: numbers.Real}
CALLED: dict[type, str] = {int: "a whole number", float: "a number", str: "text"}


class Arguments(tuple[tuple[str, Value], ...]):
    """Keyword arguments of a user's code, in the order of their names: hashable, unlike a dict."""

    __slots__ = ()


def build(cls: type, tree: Mapping[str, Any], prefix: str) -> Any:
    """Return a `cls`, with the defaults of fields not in `tree`; `prefix` is the group, or empty.

    Raises:
        ConfigError: for an unknown name, or a value of the wrong type.
    """
    hints = _hints(cls)
    values = {}
    more: dict[str, dict[str, Value]] = {}
    for name, value in tree.items():
        group, _, argument = name.partition(".")
        if argument and hints.get(group) is Arguments:
            more.setdefault(group, {})[argument] = _argument(value, prefix + name)
            continue
        if name not in hints or hints[name] is Arguments:
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
    given = {group: Arguments(sorted(arguments.items())) for group, arguments in more.items()}
    return cls(**values, **given)


def require_types(config: Any) -> None:
    """Raise ConfigError unless every field of a configuration has the type that it is declared
    with; a whole number is a number, and NumPy's are like Python's."""
    cls: type = type(config)
    for name, hint in _hints(cls).items():
        kind, optional, _ = _kind(hint)
        value = getattr(config, name)
        asked = ABSTRACT.get(kind, typing.get_origin(kind) or kind)
        if (value is None and optional) or asked is typing.Literal:
            continue
        if isinstance(value, bool) or not isinstance(value, asked):
            called = CALLED.get(kind, f"a {asked.__name__}")
            got = f"{value!r:.40} of type {type(value).__name__}"
            raise ConfigError(f"`{name} is {called}` must hold, but got {got}. Give {called}.")


def _argument(value: Any, name: str) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"`{name}` must be finite, but got {value}. Give a number.")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"`{name}` must be a number or a str, but got {value!r}. 0 is off.")
    return value


def flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the entries of `to_params` that a field stands for; none for None."""
    if isinstance(value, Arguments):
        yield from ((f"{name}.{argument}", one) for argument, one in value)
    elif dataclasses.is_dataclass(value):
        for field, one in vars(value).items():
            yield from flatten(f"{name}.{field}", one)
    elif value is not None:
        yield name, list(value) if isinstance(value, tuple) else value


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield dotted name, kind (`float`, `int`, `str` or `list`) and default of every field."""
    for field in dataclasses.fields(cls):
        hint, name = _hints(cls)[field.name], prefix + field.name
        if dataclasses.is_dataclass(hint):
            yield from leaves(typing.cast(type, hint), f"{name}.")
        elif hint is not Arguments:
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
    if kind is float and str(value).lower() in ("nan", "inf", "-inf"):  # JSON has none of them
        raise ConfigError(f"`{name}` must be finite, but got {value}. Give a number.")
    asked = getattr(hint, "__name__", hint)
    raise ConfigError(f"`{name}` must be of type {asked}, but got {value!r}. Correct its type.")
