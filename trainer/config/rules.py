"""Checks of configurations: each refusal names the rule, the value that broke it, and a remedy."""

import difflib
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any


def is_reference(name: object) -> bool:
    """Return whether a name is that of a user's code, `file.py:name` or `module:name`."""
    return isinstance(name, str) and ":" in name


class ConfigError(ValueError):
    """A configuration that breaks a rule; the message has the rule, the value and the remedy."""


def require(holds: bool, rule: str, got: str, remedy: str) -> None:
    """Raise ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(f"`{rule}` must hold, but got {got}. {remedy}")


def require_fields(
    config: object, names: Iterable[str], holds: Callable[[Any], bool], rule: str, remedy: str
) -> None:
    """Raise ConfigError unless every named field passes `holds`; `{}` in `rule` is its name."""
    for name in names:
        value = getattr(config, name)
        require(holds(value), rule.format(name), f"{name}={value}", remedy)


def require_counts(config: object, *names: str) -> None:
    """Raise ConfigError unless the named fields are 1 or more."""
    require_fields(config, names, lambda n: n >= 1, "{} >= 1", "Use a positive count.")


def require_finite(config: object) -> None:
    """Raise ConfigError unless every float of a configuration, alone or in a tuple, is finite."""
    for name, value in vars(config).items():
        for each in value if isinstance(value, tuple) else (value,):
            finite = not isinstance(each, float) or math.isfinite(each)
            require(finite, f"{name} is finite", f"{each}", "Give a number.")


def require_reference(
    group: str, name: str | None, sha256: str | None, args: Collection[object]
) -> None:
    """Raise ConfigError for a hash or arguments of code that is not the user's."""
    require(
        is_reference(name) or (sha256 is None and not args),
        f"{group}.sha256 and {group}.args are given for code of yours only",
        f"{name}",
        "Drop them, or name code as file.py:name or package.module:name.",
    )


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError, with a suggestion, unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(
            f"`{name}` must be one of {', '.join(choices)}, but got {value!r}."
            + did_you_mean(str(value), choices)
        )


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ' Did you mean `x`?' for the nearest choice x, or an empty string if none is near."""
    choices = list(choices)
    by_lower_case = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word, choices, n=1) or [
        by_lower_case[x] for x in difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    ]
    return f" Did you mean `{near[0]}`?" if near else ""
