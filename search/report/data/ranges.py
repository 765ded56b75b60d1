"""Searched parameters, read back from `run.json` and `trials`: ranges, choices and values.

Names are those of the configuration (`spectral.backend`), not of the sampler
(`spectral.backend@factor.values`): a report asks what a value did, whichever branch it was drawn
in. A weight of 0 is no point of its logarithmic range but the term switched off, so it is split in
two, as in the space: `eigengap.term` (on, off) and the weight where it is on.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaces import Choice, Float, Range, range_from_json

from .runs import Run

PREFIX = "params."
WEIGHT, TERM = "eigengap.weight", "eigengap.term"

_NUMBERS = re.compile(r"(?:float|int) \[(?P<low>[^,]+), (?P<high>[^\]]+)\](?P<more>.*)")


@dataclass(frozen=True)
class SearchedParameter:
    """One searched parameter of a run: its values, one per row of `trials` (null where the trial
    had none), and its range, or its choices as strings."""

    name: str
    values: "pd.Series[Any]"
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    unit: str = ""

    @property
    def numeric(self) -> bool:
        """True if it has a range of numbers."""
        return not self.choices

    @property
    def varies(self) -> bool:
        """True if trials differ in it, absence included."""
        return len({str(v) for v in self.values}) > 1

    def places(self) -> NDArray[np.float64]:
        """Values as positions in [0, 1]: along the range, or choice by choice; NaN if absent."""
        if not self.numeric:
            steps = max(len(self.choices) - 1, 1)
            order = {choice: i / steps for i, choice in enumerate(self.choices)}
            return np.asarray(self.values.map(order), dtype=np.float64)
        x = self.values.to_numpy(dtype=float, na_value=np.nan)
        ends = np.array([self.low, self.high], dtype=np.float64)
        x, (low, high) = (np.log10(x), np.log10(ends)) if self.log else (x, ends)
        return np.asarray((x - low) / ((high - low) or 1.0))


def parameters(run: Run) -> list[SearchedParameter]:
    """Every parameter that some trial of the run has a value of, in order of the columns.

    Where the plan says nothing of a parameter's range, the values seen stand in for it.
    """
    ranges = _ranges(run)
    units = {name: about[1] for name, about in run.planned("parameters").items()}
    found = []
    for column in run.trials.columns:
        name = column.removeprefix(PREFIX)
        values = run.trials[column]
        if name == column or values.isna().all():
            continue
        if name == WEIGHT and (values == 0).any():
            term = values.map(lambda w: None if pd.isna(w) else "on" if w > 0 else "off")
            found.append(SearchedParameter(TERM, term.astype(object), choices=("off", "on")))
            values = values.where(values > 0)
            if values.isna().all():
                continue
        found.append(_parameter(name, values, ranges.get(name, []), units.get(name, "")))
    return found


def _parameter(
    name: str, values: "pd.Series[Any]", ranges: list[Range], unit: str
) -> SearchedParameter:
    unit = "" if unit == "1" else unit
    numbers = [one for one in ranges if not isinstance(one, Choice)]
    if numbers:
        low = float(min(one.low for one in numbers))
        high = float(max(one.high for one in numbers))
        log = any(isinstance(one, Float) and one.log for one in numbers)
        return SearchedParameter(name, values, low, high, log, unit=unit)
    if pd.api.types.is_numeric_dtype(values):
        return SearchedParameter(name, values, float(values.min()), float(values.max()), unit=unit)
    chosen = [str(c) for one in ranges if isinstance(one, Choice) for c in one.choices]
    chosen += sorted(str(v) for v in values.dropna())
    values = values.map(lambda v: None if pd.isna(v) else str(v)).astype(object)
    return SearchedParameter(name, values, choices=tuple(dict.fromkeys(chosen)), unit=unit)


def _ranges(run: Run) -> dict[str, list[Range]]:
    """Return the ranges by configuration name, of all branches."""
    known = {name: range_from_json(data) for name, data in run.planned("ranges").items()}
    if not isinstance(run.plan.get("ranges"), dict):
        known = {name: _from_text(str(text)) for name, text in run.planned("space").items()}
    found: dict[str, list[Range]] = {}
    for name, one in known.items():
        found.setdefault(name.partition("@")[0], []).append(one)
    return found


def _from_text(text: str) -> Range:
    """Parse a range of a run whose `run.json` holds text alone: one from before `ranges`."""
    if match := _NUMBERS.fullmatch(text):
        return Float(float(match["low"]), float(match["high"]), "log" in match["more"])
    return Choice(tuple(text.removeprefix("one of ").split(", ")))


def format_value(value: Any) -> str:
    """Format a parameter's value; empty where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
