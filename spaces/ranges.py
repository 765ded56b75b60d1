"""The ranges that a space draws from, as data: read by samplers, written to `run.json`, drawn by
reports. `str()` gives the text that people read."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Float:
    """Real numbers from `low` to `high`, drawn uniformly or, with `log`, log-uniformly."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    @property
    def middle(self) -> float:
        """The median of what is drawn."""
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2

    def __str__(self) -> str:
        return f"float [{self.low}, {self.high}]{' log' if self.log else ''}"


@dataclass(frozen=True)
class Int:
    """Integers low, low + step, ... up to `high`, drawn uniformly."""

    low: int
    high: int
    step: int = 1

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high and (value - self.low) % self.step == 0)

    @property
    def middle(self) -> int:
        """A median of what is drawn."""
        return self.low + (self.high - self.low) // self.step // 2 * self.step

    def __str__(self) -> str:
        return f"int [{self.low}, {self.high}] step {self.step}"


@dataclass(frozen=True)
class Choice:
    """One of a few values, in no order."""

    choices: tuple[Value, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.choices

    @property
    def middle(self) -> Value:
        """The first choice: there is no order."""
        return self.choices[0]

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.choices))}"


Range = Float | Int | Choice

_KINDS: dict[str, type[Float] | type[Int] | type[Choice]] = {
    "float": Float,
    "int": Int,
    "choice": Choice,
}


def range_to_json(values: Range) -> dict[str, Any]:
    """Return a range as plain data with its `kind`: `float`, `int` or `choice`."""
    return {"kind": type(values).__name__.lower(), **asdict(values)}


def range_from_json(data: Mapping[str, Any]) -> Range:
    """Return the range that `range_to_json` made `data` from, also after a trip through JSON."""
    fields = {name: value for name, value in data.items() if name != "kind"}
    if "choices" in fields:
        fields["choices"] = tuple(fields["choices"])  # JSON has lists only
    return _KINDS[data["kind"]](**fields)
