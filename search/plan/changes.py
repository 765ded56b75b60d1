"""Spaces from the command line: a user's own, and changes by `--set`, `--range`, `--choices`."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import spaces
from trainer.cli import UsageError, split_settings
from trainer.config import (
    FIELDS,
    ConfigError,
    TrainConfig,
    did_you_mean,
    field_of,
    is_reference,
    parse_value,
    require,
    require_choice,
    why_inapplicable,
)
from trainer.user_code import CodeError, bind, place_in

SEARCHED = ("network", "covariance", "eigengap", "spectral", "loss", "optimizer", "eps_psd")
"""Groups and fields that may apply to some draws only; a value of any other is that of all."""
COMPARED = ("scene", "evaluation", "epochs", "seed", "device")
"""Groups and fields in which trials must agree to be compared."""

Own = Mapping[str, spaces.Range]
"""Ranges of the names that are the sampler's alone, such as `eigengap.term`."""
KINDS = {spaces.Float: "float", spaces.Int: "int", spaces.Choice: "choice"}


def require_space(space: Any, reference: str) -> spaces.Space:
    """Return a user's space; raise CodeError if it is none, or draws what no training takes.

    Every combination of choices is drawn, with numbers at the ends of their ranges.
    """
    if not isinstance(space, spaces.Space):
        raise CodeError(
            f"`{reference}` must be a spaces.Space, but is a {type(space).__name__}. Build one: "
            "Space(name=..., about=..., suggest=..., fixed=...)."
        )
    try:
        TrainConfig.from_params(space.fixed)
    except ConfigError as error:
        raise CodeError(
            f"`fixed` of `{reference}` must be a configuration by itself, but: {error} What goes "
            "with a drawn field only, such as a loss term with its weight, `suggest` returns."
        ) from error
    try:
        space.ranges()
        draws = [*space.branches(), *space.branches(upper=True), *map(space.draw, space.anchors)]
        for drawn in draws:
            if not isinstance(drawn, Mapping):
                raise ConfigError(
                    f"`suggest` must return a dict of fields and values, but returned {drawn!r}."
                )
            TrainConfig.from_params({**space.fixed, **drawn})
    except Exception as error:
        why = str(error) if isinstance(error, ConfigError) else place_in(error)
        raise CodeError(f"`{reference}` must draw what can be trained, but: {why}") from error
    return space


def require_code(config: TrainConfig) -> None:
    """Raise CodeError if a user's network or loss term does not take a configuration's arguments.

    The code is run: what it imports is imported here, too.
    """
    for one, name, called in (
        (config.network, config.network.kind, ("config",)),
        (config.loss, config.loss.term, ("covariance", "scenes")),
    ):
        if is_reference(name):
            bind(str(name), one.sha256, called, one.args)


def parse_changes(
    space: spaces.Space, settings: Iterable[str], ranges: Iterable[str], choices: Iterable[str]
) -> spaces.Changes:
    """Return the changes of a space that `NAME=VALUE`, `NAME=LOW:HIGH[:log]` and `NAME=a,b` say.

    Raises:
        ConfigError: for an unknown name, a value of another type, or a field that has one value
            in a search.
    """
    own = {n: one for n, one in space.ranges().items() if n not in FIELDS and "@" not in n}
    values = {n: _value(n, text, own) for n, text in split_settings("--set", settings)}
    found: dict[str, spaces.Range] = {
        name: _numbers(name, text, own) for name, text in split_settings("--range", ranges)
    }
    for name, text in split_settings("--choices", choices):
        require(name not in found, "a name is in --range or in --choices", name, "Leave one out.")
        found[name] = _choices(name, text, own)
    seeded = "seed" in (values.keys() | found.keys())
    require(not seeded, "the seed is a flag of its own", "seed", "Use --seed.")
    for name in found:
        require(name not in values, "a name is fixed or searched", name, "Leave one out.")
        require(
            name.partition(".")[0] not in COMPARED,
            f"trials have one {name}, or they would not compare",
            "several",
            f"Fix it with --set {name}=VALUE.",
        )
    return spaces.Changes(values, found)


def changed_space(space: spaces.Space, changes: spaces.Changes) -> spaces.Space:
    """Return the space with the changes; raise ConfigError for what no training takes."""
    drawn = {*space.parameters(), *space.ranges()}
    shared = {
        name: value
        for name, value in changes.values.items()
        if name.partition(".")[0] not in SEARCHED and name not in drawn
    }
    space = replace(space, fixed={**space.fixed, **shared})
    left = {name: value for name, value in changes.values.items() if name not in shared}
    TrainConfig.from_params(space.fixed)
    if not (left or changes.ranges):
        return space
    defaults = {name: field.default for name, field in FIELDS.items()}
    try:
        return spaces.changed(
            space, replace(changes, values=left), _fault, why_inapplicable, defaults
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _fault(params: Mapping[str, Any]) -> str:
    try:
        TrainConfig.from_params(params)
    except ConfigError as error:
        return str(error)
    return ""


def _value(name: str, text: str, own: Own) -> Any:
    if name in own:
        found = _answers(own[name], text)
        require(bool(found), f"{name} is {own[name]}", repr(text), "Choose one of them.")
        return found[0]
    _require_known(name, own)
    value = parse_value(name, text)
    names = tuple(field_of(name).values.split(" | "))
    if len(names) > 1 and value is not None and not is_reference(value):
        require_choice(name, value, names)
    return value


def _answers(own: spaces.Range, text: str) -> list[Any]:
    """Return the values of a range that a text stands for: one, or none."""
    if isinstance(own, spaces.Choice):
        return [choice for choice in own.choices if str(choice) == text]
    try:
        number = float(text) if isinstance(own, spaces.Float) else int(text)
    except ValueError:
        return []
    return [number] if number in own else []


def _numbers(name: str, text: str, own: Own) -> spaces.Range:
    if name not in own:
        _require_known(name, own)
    kind = KINDS[type(own[name])] if name in own else field_of(name).kind
    low, *more = text.split(":")
    if kind not in ("float", "int", ""):
        raise UsageError(f"--range is of numbers, but {name} is a {kind}. Use --choices.")
    if len(more) not in (1, 2) or more[1:] not in ([], ["log"]):
        raise UsageError(f"--range takes NAME=LOW:HIGH or NAME=LOW:HIGH:log, not {name}={text}.")
    ends = [
        _end(name, kind, end) if name in own else parse_value(name, end) for end in (low, more[0])
    ]
    ordered = None not in ends and ends[0] < ends[1]
    require(ordered, f"LOW < HIGH in --range {name}=LOW:HIGH", text, "Swap or widen them.")
    if not kind:
        kind = "int" if all(isinstance(end, int) for end in ends) else "float"
    if kind == "int":
        require(len(more) == 1, f"--range {name} is drawn evenly", text, "Leave :log out.")
        return spaces.Int(*ends)
    log = len(more) == 2
    require(not log or ends[0] > 0, f"LOW > 0 in --range {name}=LOW:HIGH:log", text, "Raise it.")
    return spaces.Float(ends[0], ends[1], log)


def _end(name: str, kind: str, text: str) -> Any:
    """Return an end of the range of a name that is the sampler's alone."""
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError:
        raise UsageError(f"--range {name} is of {kind}s, but got {text!r}.") from None


def _choices(name: str, text: str, own: Own) -> spaces.Range:
    if name in FIELDS and FIELDS[name].kind == "list":
        raise UsageError(f"--choices has single values, but {name} is a list. Fix it with --set.")
    values = tuple(dict.fromkeys(_value(name, word, own) for word in text.split(",")))
    require(None not in values, f"--choices {name} has values", text, "Leave `none` out.")
    return spaces.Choice(values)


def _require_known(name: str, own: Collection[str] = ()) -> None:
    try:
        field_of(name)
    except ConfigError:
        if near := did_you_mean(name, {*FIELDS, *own}):
            raise ConfigError(f"`{name}` is no configuration name.{near}") from None
        raise
