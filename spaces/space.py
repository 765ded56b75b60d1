"""Search spaces: define-by-run functions over an Optuna-like trial, with known-good anchors.

`Space.suggest(trial)` asks the trial for values and returns a flat dict of dotted names, the
configuration fields that they set. The names it asks under are the sampler's; they differ from the
returned names in two places only: `eigengap.term` (on | off) decides whether `eigengap.weight` is
drawn or 0, and a name with `@` carries the branch that fixes its choices
(`spectral.backend@factor.subspace`), because a sampler's categorical must always have the same
choices. A field that does not apply to a draw is absent from it.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .ranges import Choice, Float, Int, Range, Value

MOST_BRANCHES = 1024
"""Maximum of combinations of choices by which a space is explored."""
MOST_CHOICES = 2**31
"""More than any name has."""


class Trial(Protocol):
    """The part of `optuna.trial.Trial` that a space uses."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from a range."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Return a multiple of the step from a range."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""


@dataclass(frozen=True)
class Space:
    """A named search space with its budget.

    Attributes:
        name, about: its name and its purpose.
        suggest: draws one configuration as a flat dict of dotted names.
        anchors: sampler values of known-good configurations, tried first.
        fixed: configuration fields that every trial shares (scene, budget).
        trials: the preset's number of trials.
        minutes: its duration on two cores, or on one GPU where `fixed` asks for one.
    """

    name: str
    about: str
    suggest: Callable[[Trial], dict[str, Any]]
    anchors: tuple[Mapping[str, Value], ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 12
    minutes: float = 5.0

    def ranges(self) -> dict[str, Range]:
        """Return the range of every name that the sampler can be asked for, over all branches.

        Raises:
            ValueError: if a name has two ranges.
        """
        found: dict[str, Range] = {}
        for _, asked in self._branches():
            for name, values in asked.items():
                if found.setdefault(name, values) != values:
                    raise ValueError(
                        f"`{name}` must always have one range, but got {found[name]} and {values}."
                        " Add the branch to its name, after an `@`."
                    )
        return found

    def describe(self) -> dict[str, str]:
        """Return the ranges as text; two spaces are the same search exactly if their descriptions
        and `fixed` are equal."""
        return {name: str(values) for name, values in self.ranges().items()}

    def parameters(self) -> list[str]:
        """Return the configuration fields that a draw can set, sorted."""
        return sorted({name for drawn, _ in self._branches() for name in drawn})

    def branches(self, *, upper: bool = False) -> list[dict[str, Any]]:
        """Return one draw for every combination of choices, its numbers at their lower ends, or
        their upper ones; of more than `MOST_BRANCHES`, those that differ least from the first
        choices, and so every choice that is always offered."""
        return [drawn for drawn, _ in self._branches(upper)]

    def draw(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Return the configuration that the given sampler values stand for.

        Raises:
            ValueError: if a value is missing, out of its range, or never asked for.
        """
        return self._given(values)[0]

    def ranges_of(self, values: Mapping[str, Value]) -> dict[str, Range]:
        """Return the ranges that the given sampler values are drawn from; raises as `draw`."""
        return self._given(values)[1]

    def _given(self, values: Mapping[str, Value]) -> tuple[dict[str, Any], dict[str, Range]]:
        def answer(name: str, allowed: Range) -> Any:
            if name not in values:
                raise ValueError(f"an anchor must give `{name}` ({allowed}), but has no value.")
            if values[name] not in allowed:
                raise ValueError(f"`{name}` must lie in {allowed}, but got {values[name]!r}.")
            return values[name]

        trial = AnsweringTrial(answer)
        drawn = self.suggest(trial)
        if unused := sorted(values.keys() - trial.asked.keys()):
            raise ValueError(
                f"every value of an anchor must be asked for, but {self.name!r} never asked for "
                f"{', '.join(unused)}. Drop them, or choose the branch they belong to."
            )
        return drawn, trial.asked

    def _branches(self, upper: bool = False) -> Iterator[tuple[dict[str, Any], dict[str, Range]]]:
        """Yield the draw and the ranges of each combination that `branches` has."""
        pending: deque[tuple[int, ...]] = deque([()])
        found: dict[tuple[int, ...], tuple[dict[str, Any], dict[str, Range]]] = {}
        while pending and len(found) < MOST_BRANCHES:  # breadth first
            path = pending.popleft()
            trial = AnsweringTrial(_FirstAfter(path, upper))
            found[path] = self.suggest(trial), trial.asked
            widths = [len(v.choices) for v in trial.asked.values() if isinstance(v, Choice)]
            for depth in range(len(path), len(widths)):
                stem = path + (0,) * (depth - len(path))
                pending += [(*stem, i) for i in range(1, widths[depth])]
        # neighbours differ in late choices only: first ones, then from the last to the second
        for path in sorted(found, key=lambda path: [-i % MOST_CHOICES for i in path]):
            yield found[path]


class RangeTrial(ABC):
    """A trial that asks for every value by its name and range."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from a range."""
        value: float = self._ask(name, Float(low, high, log))
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Return a multiple of the step from a range."""
        value: int = self._ask(name, Int(low, high, step))
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        return self._ask(name, Choice(tuple(choices)))

    @abstractmethod
    def _ask(self, name: str, own: Range) -> Any: ...


class AnsweringTrial(RangeTrial):
    """A trial that takes its values from a function and notes the range of every name."""

    def __init__(self, answer: Callable[[str, Range], Any]) -> None:
        self._answer = answer
        self.asked: dict[str, Range] = {}

    def _ask(self, name: str, own: Range) -> Any:
        self.asked[name] = own
        return self._answer(name, own)


class _FirstAfter:
    """Answers along a path of categorical choices, then with first choices; of numbers with the
    lower ends, or the upper ones."""

    def __init__(self, path: tuple[int, ...], upper: bool) -> None:
        self._path = iter(path)
        self._upper = upper

    def __call__(self, name: str, values: Range) -> Any:
        if isinstance(values, Choice):
            return values.choices[next(self._path, 0)]
        end = values.high if self._upper else values.low
        return float(end) if isinstance(values, Float) else end  # one may be written as 0
