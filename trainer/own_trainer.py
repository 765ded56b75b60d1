"""A trainer of the user's own: a generator `train(params, *, resume=None)` of reports.

Each report is a mapping with `epoch` (1, 2, 3, ...), the objective, any further numbers, and
`state`, which can be pickled: `train(params, resume=state)` goes on after that epoch. A report
that is none of this raises CodeError; a number in it that is not finite raises Diverged.
"""

import hashlib
import inspect
import json
import math
import pickle
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

from .config import did_you_mean, require
from .failure import Cause, Diverged, Failure
from .user_code import CodeError, bind, no_exit

PREFIX = "metrics."
"""Begins the names of the user's numbers in the rows of epochs."""
_CONTENT = "state.pickle"
_SIGNS = {"min": 1.0, "max": -1.0}


@dataclass(frozen=True)
class OwnConfig:
    """Parameters of the user's trainer by name: numbers, text and lists of them."""

    values: Mapping[str, Any]

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Check parameters; raise ConfigError for a value of another type, or without `epochs`."""
        for name, value in params.items():
            for one in value if isinstance(value, list | tuple) else (value,):
                require(
                    isinstance(one, str) or _is_number(one),
                    f"{name} is text, a finite number, or a list of them",
                    repr(one),
                    "For a switch use 0 and 1, for None leave it out, for a dict one name each.",
                )
        epochs = params.get("epochs")
        require(
            isinstance(epochs, int) and epochs >= 1,
            "epochs >= 1",
            repr(epochs),
            "Give the budget in the space: fixed={'epochs': 10}; --epochs changes it.",
        )
        return cls(dict(params))

    def to_params(self) -> dict[str, Any]:
        """Return the parameters, with lists as JSON has them."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in self.values.items()}

    @property
    def epochs(self) -> int:
        """The budget."""
        return int(self.values["epochs"])

    @property
    def digest(self) -> str:
        """Twelve hex digits of a hash: the same for equal parameters, and only for them."""
        text = json.dumps(self.to_params(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class OwnState:
    """The user's `state` after an epoch; it may hold what is in use, so save it at once."""

    epoch: int
    value: Any

    def save(self, path: Path) -> None:
        """Write the state as a ZIP archive, whose checksum tells a torn one; raise CodeError if it
        cannot be pickled."""
        try:
            pickled = pickle.dumps((self.epoch, self.value))
        except Exception as error:
            raise CodeError(
                f"`state` must be what pickle takes, but that of epoch {self.epoch} is not "
                f"({type(error).__name__}: {error}). Report `state_dict()`s, numbers and lists."
            ) from error
        with zipfile.ZipFile(path, "w") as archive:  # not synced: Ray copies it, and syncs nothing
            archive.writestr(_CONTENT, pickled)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a state, which runs what it was pickled with; raise CodeError if that fails."""
        with zipfile.ZipFile(path) as archive:
            pickled = archive.read(_CONTENT)
        try:
            return cls(*pickle.loads(pickled))
        except Exception as error:
            raise CodeError(
                f"the state of {path} must be readable, but is not ({type(error).__name__}: "
                f"{error}). Report `state_dict()`s, numbers and lists."
            ) from error


@dataclass(frozen=True)
class OwnReport:
    """One checked report: its numbers by name, and the seconds of its epoch."""

    epoch: int
    metrics: Mapping[str, float]
    state: OwnState
    seconds: float
    evaluation: ClassVar[tuple[Any, ...]] = ()

    def row(self) -> dict[str, Any]:
        """Return a flat row: `metrics.<name>`, `epoch` and `seconds`."""
        metrics = {f"{PREFIX}{name}": value for name, value in self.metrics.items()}
        return {"epoch": self.epoch, "seconds": self.seconds} | metrics


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that a float holds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # not so for NaN


def split_objective(text: str) -> tuple[str, float]:
    """Return the name of `NAME[:min|max]` and the sign that makes it a number to minimise; raise
    ConfigError for anything else."""
    name, _, way = text.partition(":")
    good = bool(name) and name not in ("epoch", "state") and way in ("", *_SIGNS)
    rule, way_out = "--objective is NAME, NAME:min or NAME:max", "It is a number of a report"
    require(good, rule, text, f"{way_out}, beside epoch and state.")
    return name, _SIGNS[way or "min"]


@dataclass(frozen=True)
class OwnTrainer:
    """A user's trainer.

    Attributes:
        reference, sha256: of its code, which is refused if it is another; None if it may change.
        objective: a number of its reports, `NAME`, `NAME:min` or `NAME:max`.
    """

    reference: str
    sha256: str | None
    objective: str

    def check(self) -> Callable[..., Any]:
        """Import and return the generator function; raise CodeError if there is none that can be
        called as `train(params, resume=None)`."""
        train = bind(self.reference, self.sha256, ("params",), (("resume", None),))
        found = train.func
        while isinstance(found, partial):
            found = found.func
        if not inspect.isroutine(found):
            found = type(found).__call__
        if not inspect.isgeneratorfunction(inspect.unwrap(found)):
            waits = inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)
            raise CodeError(
                f"`{self.reference}` must be a generator function, which yields its reports, but "
                f"is {'async' if waits else 'none'}. Write `yield`, or `yield from` another."
            )
        return train

    def reports(
        self, params: Mapping[str, Any], *, resume: OwnState | None = None, threads: int = 1
    ) -> Iterator[OwnReport]:
        """Train and yield a checked report after every epoch, as many as `epochs` says.

        Raises:
            CodeError: if the code cannot be imported or breaks its contract.
            Diverged: from the code, or for a report with a number that is not finite.
        """
        train, config = self.check(), OwnConfig.from_params(params)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(threads)
        last = 0 if resume is None else resume.epoch
        with no_exit():
            given = train(config.to_params(), resume=None if resume is None else resume.value)
        if not isinstance(given, Iterator):
            raise self._broken(
                "reports, as a generator does", f"it returned a {type(given).__name__}"
            )
        try:
            while last < config.epochs:
                began = time.perf_counter()
                try:
                    with no_exit():
                        report = next(given)
                except StopIteration:
                    wanted = f"{config.epochs} reports, as `epochs` says"
                    ended = f"ended after {last}" if last else "yielded none"
                    raise self._broken(wanted, f"it {ended}") from None
                except Diverged as error:  # `check_finite` knows of no epochs
                    raise Diverged(replace(error.failure, epoch=last + 1)) from error
                yield self._checked(report, last + 1, time.perf_counter() - began)
                last += 1
        finally:
            getattr(given, "close", lambda: None)()

    def _checked(self, report: Any, epoch: int, seconds: float) -> OwnReport:
        name, _ = split_objective(self.objective)
        if not isinstance(report, Mapping):
            example = f"{{'epoch': {epoch}, {name!r}: 0.5, 'state': ...}}"
            raise self._broken(f"mappings such as {example}", f"it gave a {type(report).__name__}")
        for key in ("epoch", name, "state"):
            if key not in report:
                near = did_you_mean(key, map(str, report))
                wrong = (
                    f"the report of epoch {epoch} has {', '.join(map(str, report)) or 'nothing'}"
                )
                raise self._broken(f"reports with `{key}`", wrong, near)
        found = report["epoch"]
        if not isinstance(found, Integral) or isinstance(found, bool) or found != epoch:
            hint = " Go on from `resume`." if epoch > 1 and found == 1 else ""
            raise self._broken("epochs 1, 2, 3, ...", f"{epoch} came as {found!r}", hint)
        if report["state"] is None:
            raise self._broken("a `state`", "it is None, with which training would begin anew")
        metrics = {}
        for key, value in report.items():
            if key in ("epoch", "state"):
                continue
            if isinstance(value, Integral) and abs(int(value)) > sys.float_info.max:
                wrong = f"`{key}` of epoch {epoch} has {len(str(abs(int(value))))} digits"
                raise self._broken("numbers that a float holds", wrong)
            if not isinstance(value, Real) or isinstance(value, bool):
                hint = " Call its .item()." if hasattr(value, "item") else ""
                wrong = f"`{key}` of epoch {epoch} is a {type(value).__name__}"
                raise self._broken("numbers beside `state`", wrong, hint)
            metrics[str(key)] = float(value)
        for key, number in metrics.items():
            if not math.isfinite(number):
                said = f"Epoch {epoch} was reported with {key} = {number}."
                raise Diverged(Failure(Cause.NONFINITE_LOSS, key, "", None, epoch, None, said))
        return OwnReport(epoch, metrics, OwnState(epoch, report["state"]), seconds)

    def _broken(self, rule: str, got: str, hint: str = "") -> CodeError:
        return CodeError(f"`{self.reference}` must yield {rule}, but {got}.{hint}")
