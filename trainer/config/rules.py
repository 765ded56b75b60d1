"""What every configuration is checked with: a rule, the value that broke it, the remedy."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A configuration that breaks a rule; the message has the rule, the value and the remedy."""


def require(holds: bool, rule: str, got: str, remedy: str) -> None:
    """Raises ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(f"`{rule}` must hold, but got {got}. {remedy}")


def require_counts(config: object, *names: str) -> None:
    """Raises ConfigError unless those attributes are 1 or more."""
    for name in names:
        value = getattr(config, name)
        require(value >= 1, f"{name} >= 1", f"{name}={value}", "Use a positive count.")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises ConfigError with a did-you-mean unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(
            f"`{name}` must be one of {', '.join(choices)}, but got {value!r}."
            + did_you_mean(str(value), choices)
        )


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """' Did you mean `x`?' for the nearest choice, or an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f" Did you mean `{near[0]}`?" if near else ""
