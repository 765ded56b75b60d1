"""A space with some of its values fixed, and other ranges than its own.

Names are those of the configuration (`spectral.backend`), whichever branch asks for them, or the
sampler's (`eigengap.term`). A fixed value holds wherever the space draws the field, and, if it
never does, in every draw that the field applies to; so does a new range. Choices that lead to no
valid configuration then are not drawn any more: under `eigengap.weight = 0`, say, `eigengap.term`
is off.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .ranges import Choice, Float, Int, Range, Value
from .space import AnsweringTrial, RangeTrial, Space, Trial

Path = tuple[Value, ...]
"""Choices, in the order in which a draw asks for them."""
Fault = Callable[[Mapping[str, Any]], str]
"""Returns why a configuration is not valid, or ""."""
Inapplicable = Callable[[str, Mapping[str, Any]], str]
"""Returns why a field does not apply to a configuration, or ""."""


@dataclass(frozen=True)
class Changes:
    """Fixed values by name, and ranges by name."""

    values: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def parts(self) -> set[tuple[str, Any]]:
        """Every name with its value or each of its choices, or None for a range of numbers."""
        found = set(self.values.items())
        for name, one in self.ranges.items():
            found |= {(name, c) for c in (one.choices if isinstance(one, Choice) else (None,))}
        return found


def changed(
    space: Space,
    changes: Changes,
    fault: Fault,
    inapplicable: Inapplicable,
    defaults: Mapping[str, Any],
) -> Space:
    """Return the space under some changes.

    An anchor has another value where its own is fixed, and where a field is searched now, that of
    the space's fixed fields, or else of `defaults`, or else the middle of the range; one that
    cannot be drawn is left out.

    Raises:
        ValueError: if a change is in no valid draw, or a number at an end of its range is not
            valid.
    """
    tried: list[tuple[_ChangedTrial, str]] = []
    asked, drawn_names = frozenset(space.ranges()), frozenset(space.parameters())

    def absent(name: str, drawn: Mapping[str, Any]) -> str:
        return inapplicable(name, {**defaults, **space.fixed, **drawn})

    def view_of(trial: Trial, may: Callable[[Path], bool]) -> _ChangedTrial:
        return _ChangedTrial(changes, asked, drawn_names, trial, may)

    def explore(trial: Trial) -> dict[str, Any]:
        view = view_of(trial, lambda path: True)
        drawn = view.draw(space, absent)
        tried.append((view, fault({**space.fixed, **drawn})))
        return drawn

    replace(space, suggest=explore).branches()
    valid = [view for view, why in tried if not why]
    for part in sorted(changes.parts - {p for view in valid for p in view.parts}, key=str):
        reasons = [why for view, why in tried if why and part in view.parts]
        reasons += [view.absent[part[0]] for view, _ in tried if part[0] in view.absent]
        value = "" if part[1] is None else f" = {part[1]}"
        raise ValueError(
            f"`{part[0]}`{value} must be in some draw of {space.name!r}, but is in none. "
            f"{next(iter(reasons), 'It goes with none of the other changes: drop it.')}"
        )
    # of a space with too many combinations, what was not tried may be drawn
    barred = _prefixes(view for view, _ in tried) - _prefixes(valid)

    def suggest(trial: Trial) -> dict[str, Any]:
        return view_of(trial, lambda path: path not in barred).draw(space, absent)

    new = replace(space, suggest=suggest)
    for drawn in (*new.branches(), *new.branches(upper=True)):
        if why := fault({**space.fixed, **drawn}):
            raise ValueError(why)
    kept = [_adapted(space, new, anchor, defaults, changes.ranges) for anchor in space.anchors]
    once = [one for i, one in enumerate(kept) if one is not None and one not in kept[:i]]
    return replace(new, anchors=tuple(once))


def _prefixes(views: Iterable["_ChangedTrial"]) -> set[Path]:
    return {view.path[:size] for view in views for size in range(len(view.path) + 1)}


def _adapted(
    space: Space,
    new: Space,
    anchor: Mapping[str, Value],
    defaults: Mapping[str, Any],
    ranges: Mapping[str, Range],
) -> dict[str, Value] | None:
    """Return an anchor as the changed space draws it; None if it cannot."""
    known = {**defaults, **space.fixed, **space.draw(anchor), **anchor}

    def answer(name: str, allowed: Range) -> Any:
        value = known.get(name, known.get(name.partition("@")[0]))
        if value is None and name in ranges:
            value = allowed.middle
        if value is None or value not in allowed:
            raise LookupError(name)
        found[name] = value
        return value

    found: dict[str, Value] = {}
    try:
        new.suggest(AnsweringTrial(answer))
    except LookupError:
        return None
    return found


class _ChangedTrial(RangeTrial):
    """A trial that a space is drawn from under some changes.

    Attributes:
        path: the choices made so far, also those that had no alternative.
        parts: of the changes, those that the draw has used.
        absent: names of added fields that do not apply to the draw, with the reason.
    """

    def __init__(
        self,
        changes: Changes,
        asked: frozenset[str],
        drawn: frozenset[str],
        trial: Trial,
        may: Callable[[Path], bool],
    ) -> None:
        self._changes = changes
        self._drawn = drawn
        self._asked = asked | {name.partition("@")[0] for name in asked}
        self._trial = trial
        self._may = may
        self.path: Path = ()
        self.parts: set[tuple[str, Any]] = set()
        self.absent: dict[str, str] = {}

    def draw(self, space: Space, absent: Inapplicable) -> dict[str, Any]:
        """Draw from the space; fix what the changes fix, and add what they add, those fields last
        that apply because of others."""
        drawn = space.suggest(self)
        values, ranges = self._changes.values, self._changes.ranges
        for name in (values.keys() & self._drawn) & drawn.keys():
            self._put(drawn, name)
        added = [name for name in (*values, *ranges) if name not in self._asked | self._drawn]
        added += [name for name in ranges if name in drawn and name not in self._asked]
        for _ in range(2):
            for name in [name for name in added if not absent(name, drawn)]:
                self._put(drawn, name)
                added.remove(name)
        self.absent = {name: absent(name, drawn) for name in added}
        return drawn

    def _put(self, drawn: dict[str, Any], name: str) -> None:
        if name in self._changes.values:
            drawn[name] = self._changes.values[name]
            self.parts.add((name, drawn[name]))
        else:
            drawn[name] = self._ask(name, self._changes.ranges[name])

    def _ask(self, name: str, own: Range) -> Any:
        values, ranges = self._changes.values, self._changes.ranges
        for key in (name, name.partition("@")[0]):
            if key in values:
                self.parts.add((key, values[key]))
                return values[key]
        key = name if name in ranges else name.partition("@")[0]
        match ranges.get(key, own):
            case Float(low, high, log):
                value: Any = self._trial.suggest_float(name, low, high, log=log)
            case Int(low, high, step):
                value = self._trial.suggest_int(name, low, high, step=step)
            case Choice(choices):
                left = [c for c in choices if self._may((*self.path, c))]
                value = left[0] if len(left) == 1 else self._trial.suggest_categorical(name, left)
                self.path += (value,)
        if key in ranges:
            self.parts.add((key, value if isinstance(ranges[key], Choice) else None))
        return value
