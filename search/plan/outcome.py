"""What can become of a trial: one table, and the one function that reads it off the evidence.

Every place that must treat trials differently (what Optuna is told, whether a trial has failed or
may be best, when the search itself must end) asks `RULES`. The evidence is plain data: the last
metrics that were reported and the error, if any; so a trial can be judged without Ray, and a
recorded one again later.

A training tells its own end: its last report has `outcome`, a word of `Outcome`, and no other
report has. Silence without an error is a trial that the scheduler ended at a rung. What Ray
reports itself, mostly the loss of a worker, it tries again from the last checkpoint first.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from trainer.config import did_you_mean

WORST_OBJECTIVE = 1.0
"""The objective of a trial that has none: the capped error of a guess that never hits."""


class Outcome(StrEnum):
    """The word that the `outcome` columns hold."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    INVALID = "invalid"


@dataclass(frozen=True)
class Rule:
    """How one outcome is treated.

    Attributes:
        optuna_state: name of the `optuna.trial.TrialState` it is told as.
        constraint: whether Optuna is told that the parameters are infeasible; such a trial is
            never best.
        about: one sentence for a person.
        ends_search_at: how many such trials with one signature end the search; None is never.
    """

    optuna_state: str
    constraint: bool
    about: str
    ends_search_at: int | None = None

    @property
    def failed(self) -> bool:
        """Whether it has a row in `failures` and no objective."""
        return self.constraint or self.optuna_state == "FAIL"


RULES: dict[Outcome, Rule] = {
    Outcome.COMPLETED: Rule(
        optuna_state="COMPLETE",
        constraint=False,
        about="All epochs are trained; its objective counts.",
    ),
    Outcome.STOPPED: Rule(
        optuna_state="PRUNED",
        constraint=False,
        about="Others were better at the same rung; its objective is of that rung's fidelity.",
    ),
    # FAIL would teach the sampler nothing and let it drill into the unstable region; PRUNED with
    # a constraint makes it leave.
    Outcome.DIVERGED: Rule(
        optuna_state="PRUNED",
        constraint=True,
        about="Its parameters led to a number that is not finite; the cause is in `failures`.",
    ),
    Outcome.OUT_OF_MEMORY: Rule(
        optuna_state="PRUNED",
        constraint=True,
        about="It did not fit; peak bytes are in `failures`.",
    ),
    Outcome.LOST: Rule(
        optuna_state="FAIL",
        constraint=False,
        about="Its worker vanished; Optuna is told nothing until retries have run out.",
    ),
    Outcome.TIMED_OUT: Rule(
        optuna_state="FAIL",
        constraint=False,
        about="It hung and was ended; run again, it would most likely hang again.",
    ),
    Outcome.CRASHED: Rule(
        optuna_state="FAIL",
        constraint=False,
        about="A bug, not a trial: the same signature three times ends the search.",
        ends_search_at=3,
    ),
    Outcome.INVALID: Rule(
        optuna_state="FAIL",
        constraint=False,
        about="The space drew a configuration that breaks a rule; the search ends.",
        ends_search_at=1,
    ),
}

LOST_TYPES = frozenset(
    {
        "ActorDiedError",
        "ActorUnavailableError",
        "LocalRayletDiedError",
        "NodeDiedError",
        "ObjectLostError",
        "OwnerDiedError",
        "RayActorError",
        "RpcError",
        "WorkerCrashedError",
    }
)
"""Exceptions of Ray that speak of the machine, not of our code."""

_OUR_OWN = ("raised in its creation task", "failed to import on the worker")
"""What Ray says of the death of an actor that our code caused."""

# Messages, not types: torch raises RuntimeError for host memory and several types for CUDA, and
# Ray's memory monitor kills the worker, which arrives as the death of an actor.
_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|\b_?(Array)?MemoryError\b|can't allocate memory"
    r"|running low on memory|exceeds the memory usage threshold",
    re.IGNORECASE,
)
_LOST = re.compile(
    r"^(The actor (died unexpectedly|\S+ is unavailable)|The worker died unexpectedly"
    r"|The task's local raylet died|\S*(" + "|".join(sorted(LOST_TYPES)) + r")\b)",
    re.MULTILINE,
)
_FRAME = re.compile(r'^\s+File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def classify(
    metrics: Mapping[str, Any] | None, error: str | None = None, error_type: str | None = None
) -> Outcome:
    """What became of a trial that has ended.

    Args:
        metrics: the last report, or None if there was none.
        error: text of the error or traceback the trial ended with; None or empty if none.
        error_type: class name of that error, as `type(e).__name__`; read from the text if None.

    Raises:
        ValueError: if `metrics["outcome"]` is no word of `Outcome`.
    """
    last = metrics or {}
    # The training's own last word wins: a worker that dies while it is torn down has finished.
    if word := last.get("outcome"):
        return _parse(str(word))
    if error or error_type:
        return classify_error(error or "", error_type)
    # Neither word nor error nor report: it never ran, which says nothing about its parameters.
    return Outcome.STOPPED if last else Outcome.LOST


def classify_error(error: str, error_type: str | None = None) -> Outcome:
    """What an error makes of a trial; `error` is its text or traceback."""
    said = _said(error)
    kind = _bare_type(error_type) or exception_type(error)
    if kind == "ConfigError":
        return Outcome.INVALID
    if kind == "Diverged":
        return Outcome.DIVERGED
    if _MEMORY.search(f"{kind}\n{said}"):
        return Outcome.OUT_OF_MEMORY
    if any(words in said for words in _OUR_OWN):
        return Outcome.CRASHED
    if kind in LOST_TYPES or _LOST.search(said):
        return Outcome.LOST
    return Outcome.CRASHED


def exception_type(error: str) -> str:
    """Class name in the last `Name: message` line of a traceback; empty if there is none."""
    for line in reversed(_said(error).splitlines()):
        if match := re.match(r"(?:[\w.]*\.)?([A-Z]\w*)(?::|$)", line):
            return match.group(1)
    return ""


def crash_signature(error: str) -> str:
    """What two crashes share if they are one bug: the exception's type and where it was raised.

    Messages are left out: they carry numbers that differ from trial to trial.
    """
    kind = exception_type(error) or "error"
    if frames := _FRAME.findall(_COLOUR.sub("", error)):
        file, line, function = frames[-1]
        name = PurePath(file.replace("\\", "/")).name
        return f"{kind} at {name}:{line} in {function}"
    first = next((line for line in _said(error).splitlines() if line.strip()), "")
    return f"{kind}: {re.sub(r'[0-9]+', '#', first)[:120]}" if first else kind


def constraint_value(outcome: Outcome) -> float:
    """Optuna's constraint: feasible at or below 0."""
    return 1.0 if RULES[outcome].constraint else 0.0


def may_be_best(outcome: Outcome) -> bool:
    """Only a trial of full fidelity and feasible parameters can be the best one."""
    return outcome is Outcome.COMPLETED


def _parse(word: str) -> Outcome:
    try:
        return Outcome(word)
    except ValueError:
        names = [o.value for o in Outcome]
        raise ValueError(
            f"`outcome` must be one of {', '.join(names)}, but got {word!r}."
            + did_you_mean(word, names)
        ) from None


def _said(error: str) -> str:
    """The unindented lines: what was said, without the quoted source of a traceback."""
    lines = _COLOUR.sub("", error).splitlines()
    return "\n".join(line for line in lines if line[:1] not in (" ", "\t"))


def _bare_type(error_type: str | None) -> str:
    """`ValueError` from `RayTaskError(ValueError)`; empty where the type says nothing itself."""
    if not error_type:
        return ""
    inner = re.search(r"\((\w+)\)", error_type)
    name = inner.group(1) if inner else error_type.rpartition(".")[2]
    return "" if name in ("RayTaskError", "TuneError") else name
