"""Spaces from the command line: a user's own, and changes by `--set`, `--range`, `--choices`; and
the meaning of names in a configuration of our trainer or of a user's."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import spaces
from trainer.cli import UsageError, split_settings
from trainer.config import (
    FIELDS,
    ConfigError,
    Field,
    TrainConfig,
    did_you_mean,
    field_of,
    from_json,
    is_reference,
    parse_value,
    require,
    require_choice,
    why_inapplicable,
)
from trainer.own_trainer import OwnConfig
from trainer.user_code import CodeError, bind, place_in

SEARCHED = ("network", "covariance", "eigengap", "spectral", "loss", "optimizer", "eps_psd")
"""Groups and fields that may apply to some draws only; a value of any other is that of all."""
COMPARED = ("scene", "evaluation", "epochs", "seed", "device")
"""Groups and fields in which trials must agree to be compared."""

Own = Mapping[str, spaces.Range]
"""Ranges of the names that are the sampler's alone, such as `eigengap.term`."""
KINDS = {spaces.Float: "float", spaces.Int: "int", spaces.Choice: "choice"}


class Config(Protocol):
    """The configuration of one trial."""

    @property
    def epochs(self) -> int:
        """The budget."""

    @property
    def digest(self) -> str:
        """The same for equal configurations, and only for them."""

    def to_params(self) -> dict[str, Any]:
        """Return its values by name, JSON-safe."""


@dataclass(frozen=True)
class Names:
    """Meaning of the names of a search's configurations; the defaults are those of our trainer.

    Attributes:
        config: returns the configuration of parameters; raises ConfigError if they break a rule.
        field_of: returns the field of a name; raises ConfigError for an unknown one.
        parse: returns the value of a name that a command line gives as text.
        why_inapplicable: returns why a field does not apply to parameters, or "".
        known: fields by their names.
        work: returns the work of a training, in any unit: of ours, scenes by elements squared.
        searched, compared: see `SEARCHED` and `COMPARED`.
    """

    config: Callable[[Mapping[str, Any]], Config] = TrainConfig.from_params
    field_of: Callable[[str], Field] = field_of
    parse: Callable[[str, str], Any] = parse_value
    why_inapplicable: Callable[[str, Mapping[str, Any]], str] = why_inapplicable
    known: Mapping[str, Field] = field(default_factory=lambda: FIELDS)
    work: Callable[[Any], int] = lambda one: (
        one.epochs * one.steps_per_epoch * one.batch_size * one.scene.num_elements**2
    )
    searched: tuple[str, ...] = SEARCHED
    compared: tuple[str, ...] = COMPARED

    @classmethod
    def of_own_trainer(cls, space: spaces.Space) -> Self:
        """Return the names of a user's trainer: those that its space fixes or draws."""
        ranges = space.ranges()
        about = "parameter of your own trainer"
        known = {
            name: Field(_kind_of(ranges.get(name, space.fixed.get(name))), "1", "any", about, None)
            for name in ("epochs", "seed", *space.fixed, *space.parameters())
        }

        def own_field(name: str) -> Field:
            if name not in known:
                raise ConfigError(
                    f"`{name}` is no name of space {space.name!r}.{did_you_mean(name, known)} If "
                    "your trainer takes it, give it a value there, in `fixed`."
                )
            return known[name]

        return cls(
            config=OwnConfig.from_params,
            field_of=own_field,
            parse=lambda name, text: _own_value(name, own_field(name).kind, text),
            why_inapplicable=lambda name, params: "",
            known=known,
            work=lambda one: one.epochs,
            searched=(),
            compared=("epochs", "seed"),
        )


OUR_NAMES = Names()
"""Of the configurations of our trainer."""


def require_space(space: Any, reference: str, *, own: bool = False) -> spaces.Space:
    """Return a user's space, perhaps one for a trainer of their own; raise CodeError if it is
    none, or draws what no training takes.

    Every combination of choices is drawn, with numbers at the ends of their ranges.
    """
    if not isinstance(space, spaces.Space):
        raise CodeError(
            f"`{reference}` must be a spaces.Space, but is a {type(space).__name__}. Build one: "
            "Space(name=..., about=..., suggest=..., fixed=...)."
        )
    if re.fullmatch(r"\w[\w.-]*", space.name) is None:
        raise CodeError(
            f"`name` of `{reference}` must be letters, digits, dots, dashes and underscores, but "
            f"is {space.name!r}. Runs are called by it."
        )
    config = OwnConfig.from_params if own else TrainConfig.from_params
    try:
        config(space.fixed)
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
            config({**space.fixed, **drawn})
    except (Exception, SystemExit) as error:
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
    space: spaces.Space,
    settings: Iterable[str],
    ranges: Iterable[str],
    choices: Iterable[str],
    names: Names = OUR_NAMES,
) -> spaces.Changes:
    """Return the changes of a space that `NAME=VALUE`, `NAME=LOW:HIGH[:log]` and `NAME=a,b` say.

    Raises:
        ConfigError: for an unknown name, a value of another type, or a field that has one value
            in a search.
    """
    own = {n: one for n, one in space.ranges().items() if n not in names.known and "@" not in n}
    values = {n: _value(n, text, own, names) for n, text in split_settings("--set", settings)}
    found: dict[str, spaces.Range] = {
        name: _numbers(name, text, own, names) for name, text in split_settings("--range", ranges)
    }
    for name, text in split_settings("--choices", choices):
        require(name not in found, "a name is in --range or in --choices", name, "Leave one out.")
        found[name] = _choices(name, text, own, names)
    seeded = "seed" in (values.keys() | found.keys())
    require(not seeded, "the seed is a flag of its own", "seed", "Use --seed.")
    for name in found:
        require(name not in values, "a name is fixed or searched", name, "Leave one out.")
        require(
            name.partition(".")[0] not in names.compared,
            f"trials have one {name}, or they would not compare",
            "several",
            f"Fix it with --set {name}=VALUE.",
        )
    return spaces.Changes(values, found)


def changed_space(
    space: spaces.Space, changes: spaces.Changes, names: Names = OUR_NAMES
) -> spaces.Space:
    """Return the space with the changes; raise ConfigError for what no training takes."""
    drawn = {*space.parameters(), *space.ranges()}
    shared = {
        name: value
        for name, value in changes.values.items()
        if name.partition(".")[0] not in names.searched and name not in drawn
    }
    space = replace(space, fixed={**space.fixed, **shared})
    left = {name: value for name, value in changes.values.items() if name not in shared}
    names.config(space.fixed)
    if not (left or changes.ranges):
        return space
    defaults = {name: field.default for name, field in names.known.items()}

    def fault(params: Mapping[str, Any]) -> str:
        try:
            names.config(params)
        except ConfigError as error:
            return str(error)
        return ""

    left_over = replace(changes, values=left)
    try:
        return spaces.changed(space, left_over, fault, names.why_inapplicable, defaults)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _kind_of(known: Any) -> str:
    """Return the kind of a user's range, or fixed value: that of a field, or `number`, of either
    type; empty for None, which may be anything."""
    match known:
        case spaces.Float():
            return "float"
        case spaces.Int():
            return "int"
        case list() | tuple():
            return "list"
    values = known.choices if isinstance(known, spaces.Choice) else (known,)
    kinds = {"str" if isinstance(v, str) else "number" for v in values if v is not None}
    return kinds.pop() if len(kinds) == 1 else ""


def _own_value(name: str, kind: str, text: str) -> Any:
    """Return the value of such a kind that a text stands for: a number, where it can be one."""
    if kind == "str":
        return text
    if kind == "list":
        found = from_json(text) if text[:1] == "[" else text.split(",")
        require(isinstance(found, list), f"{name} is a list", repr(text), "Write it as 8,16.")
        return [_own_value(name, "", one) if isinstance(one, str) else one for one in found]
    for convert in {"int": (int,), "float": (float,)}.get(kind, (int, float)):
        with suppress(ValueError):
            return convert(text)
    rule = "a whole number" if kind == "int" else "a number"
    require(not kind, f"{name} is {rule}, as in the space", repr(text), "Change it there.")
    return text


def _value(name: str, text: str, own: Own, names: Names) -> Any:
    if name in own:
        found = _answers(own[name], text)
        require(bool(found), f"{name} is {own[name]}", repr(text), "Choose one of them.")
        return found[0]
    _require_known(name, names, own)
    value = names.parse(name, text)
    allowed = tuple(names.field_of(name).values.split(" | "))
    if len(allowed) > 1 and value is not None and not is_reference(value):
        require_choice(name, value, allowed)
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


def _numbers(name: str, text: str, own: Own, names: Names) -> spaces.Range:
    if name not in own:
        _require_known(name, names, own)
    kind = KINDS[type(own[name])] if name in own else names.field_of(name).kind
    low, *more = text.split(":")
    if kind not in ("float", "int", "number", ""):
        raise UsageError(f"--range is of numbers, but {name} is a {kind}. Use --choices.")
    if len(more) not in (1, 2) or more[1:] not in ([], ["log"]):
        raise UsageError(f"--range takes NAME=LOW:HIGH or NAME=LOW:HIGH:log, not {name}={text}.")
    ends = [
        _end(name, kind, end) if name in own else names.parse(name, end) for end in (low, more[0])
    ]
    ordered = not {str, type(None)} & {*map(type, ends)} and ends[0] < ends[1]
    require(ordered, f"LOW < HIGH in --range {name}=LOW:HIGH", text, "Swap or widen them.")
    if kind in ("number", ""):
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


def _choices(name: str, text: str, own: Own, names: Names) -> spaces.Range:
    if name in names.known and names.known[name].kind == "list":
        raise UsageError(f"--choices has single values, but {name} is a list. Fix it with --set.")
    values = tuple(_value(name, word, own, names) for word in text.split(","))
    once = len(set(values)) == len(values)
    require(once, f"--choices {name} has each value once", text, "Leave the others out.")
    require(None not in values, f"--choices {name} has values", text, "Leave `none` out.")
    return spaces.Choice(values)


def _require_known(name: str, names: Names, own: Collection[str] = ()) -> None:
    try:
        names.field_of(name)
    except ConfigError:
        if near := did_you_mean(name, {*names.known, *own}):
            raise ConfigError(f"`{name}` is no configuration name.{near}") from None
        raise
