"""What a search space is: a define-by-run function over an Optuna-like trial, and known-good
starting points.

`Space.suggest(trial)` asks the trial for values and returns a flat dict of dotted names, the
configuration fields they set. The names it asks under are those of the sampler; they differ from
the names it returns in two places only: `eigengap.term` (on | off) decides whether
`eigengap.weight` is drawn or 0, and a name with `@` carries the branch that fixes its choices
(`spectral.backend@factor.subspace`), because a sampler's categorical must always have the same
choices. What does not apply to a draw is absent from it.

Standard library only: a space can be read, drawn from and compared anywhere.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Choice = str | int | float | bool | None


class Trial(Protocol):
    """The part of `optuna.trial.Trial` that a space uses."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Parameter:
    """What a searched configuration field means.

    Attributes:
        kind: `float`, `int` or `str`.
        unit: as printed in tables; `1` for a pure number.
        about: one phrase.
        no_effect: where theory says it cannot change the result; empty if nowhere.
    """

    kind: str
    unit: str
    about: str
    no_effect: str = ""


@dataclass(frozen=True)
class Space:
    """A named search space with its budget.

    Attributes:
        name, about: what it is called and what it is for.
        suggest: draws one configuration as a flat dict of dotted names.
        anchors: sampler values of known-good configurations, tried first.
        fixed: configuration fields that every trial shares (scene, budget).
        trials: how many trials the preset asks for.
        minutes: what it takes on two cores, or on one GPU where `fixed` asks for one.
    """

    name: str
    about: str
    suggest: Callable[[Trial], dict[str, Any]]
    anchors: tuple[Mapping[str, Choice], ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 12
    minutes: float = 5.0

    def describe(self) -> dict[str, str]:
        """Every name the sampler can be asked for, with its range, over all branches.

        Two spaces are the same search exactly if their descriptions (and `fixed`) are equal.
        """
        found: dict[str, str] = {}
        for trial in self._branches():
            for name, text in trial.asked.items():
                if found.setdefault(name, text) != text:
                    raise ValueError(
                        f"`{name}` must always have one range, but got {found[name]} and {text}. "
                        "Add the branch to its name, after an `@`."
                    )
        return found

    def parameters(self) -> list[str]:
        """Configuration fields that a draw can set, sorted."""
        return sorted({name for trial in self._branches() for name in trial.drawn})

    def branches(self) -> list[dict[str, Any]]:
        """One draw for every combination of choices, its numbers at their lower ends."""
        return [trial.drawn for trial in self._branches()]

    def draw(self, values: Mapping[str, Choice]) -> dict[str, Any]:
        """The configuration that given sampler values stand for.

        Raises:
            ValueError: if a value is missing, out of its range, or never asked for.
        """
        trial = _GivenTrial(values)
        drawn = self.suggest(trial)
        unused = sorted(set(values) - trial.used)
        if unused:
            raise ValueError(
                f"every value of an anchor must be asked for, but {self.name!r} never asked for "
                f"{', '.join(unused)}. Drop them, or choose the branch they belong to."
            )
        return drawn

    def _branches(self) -> Iterator["_ExploringTrial"]:
        """One trial per combination of categorical choices that the space can reach."""
        pending: list[tuple[int, ...]] = [()]
        while pending:
            path = pending.pop()
            trial = _ExploringTrial(path)
            trial.drawn = self.suggest(trial)
            for depth in range(len(path), len(trial.widths)):
                stem = path + (0,) * (depth - len(path))
                pending += [(*stem, i) for i in range(1, trial.widths[depth])]
            yield trial


class _GivenTrial:
    """Answers with given values, each checked against the range it is asked with."""

    def __init__(self, values: Mapping[str, Choice]) -> None:
        self._values = values
        self.used: set[str] = set()

    def _take(self, name: str, allowed: Callable[[Any], bool], range_text: str) -> Any:
        if name not in self._values:
            raise ValueError(f"an anchor must give `{name}` {range_text}, but has no such value.")
        value = self._values[name]
        if not allowed(value):
            raise ValueError(f"`{name}` must lie {range_text}, but got {value!r}.")
        self.used.add(name)
        return value

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value: float = self._take(name, lambda v: low <= v <= high, f"in [{low}, {high}]")
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        def on_grid(v: int) -> bool:
            return low <= v <= high and (v - low) % step == 0

        value: int = self._take(name, on_grid, f"in {low}, {low + step}, ... {high}")
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, lambda v: v in choices, f"in {tuple(choices)}")


class _ExploringTrial:
    """Follows one path of categorical choices and records what it is asked."""

    def __init__(self, path: tuple[int, ...]) -> None:
        self._path = path
        self.widths: list[int] = []
        self.asked: dict[str, str] = {}
        self.drawn: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked[name] = f"float [{low}, {high}]{' log' if log else ''}"
        return low

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        self.asked[name] = f"int [{low}, {high}] step {step}"
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked[name] = f"one of {', '.join(map(str, choices))}"
        depth = len(self.widths)
        self.widths.append(len(choices))
        return choices[self._path[depth] if depth < len(self._path) else 0]


def nearest(word: str, choices: Sequence[str]) -> str:
    """' Did you mean `x`?' for the nearest choice, or an empty string."""
    near = difflib.get_close_matches(word, choices, n=1)
    return f" Did you mean `{near[0]}`?" if near else ""
