"""Outcomes of trials: the table of their rules, and their classification.

Every place that treats trials differently (the state that Optuna is told, failures, the best
trial, the end of the search) reads `RULES`. A trial is classified from plain data, its last
reported metrics and its error, if any: without Ray, and for a recorded trial again later.

A training reports its own end: its last report has `outcome`, a word of `Outcome`, and no other
report has. A trial without an outcome and without an error was stopped by the scheduler at a rung.
Errors of Ray itself, mostly the loss of a worker, arrive here only after its retries.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from trainer.config import require_choice

WORST_OBJECTIVE = 1.0
"""The objective of a trial that has none: the capped error of a guess that never hits."""


class Outcome(StrEnum):
    """The values of the `outcome` columns."""

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
    """The treatment of one outcome.

    Attributes:
        optuna_state: name of the `optuna.trial.TrialState` that Optuna is told.
        about: one sentence to print.
        constraint: Optuna is told that the parameters are infeasible.
        ends_search_at: number of such trials with one signature that ends the search.
    """

    optuna_state: str
    about: str
    constraint: bool = False
    ends_search_at: int | None = None

    @property
    def failed(self) -> bool:
        """True if a trial has a row in `failures` and no objective."""
        return self.constraint or self.optuna_state == "FAIL"


RULES: dict[Outcome, Rule] = {
    Outcome.COMPLETED: Rule("COMPLETE", "All epochs are trained; its objective counts."),
    Outcome.STOPPED: Rule(
        "PRUNED", "Others were better at the same rung; its objective is of that rung's fidelity."
    ),
    # FAIL would teach the sampler nothing and let it drill into the unstable region; PRUNED with
    # a constraint makes it leave.
    Outcome.DIVERGED: Rule(
        "PRUNED",
        "Its parameters led to a number that is not finite; the cause is in `failures`.",
        constraint=True,
    ),
    Outcome.OUT_OF_MEMORY: Rule(
        "PRUNED", "It did not fit; peak bytes are in `failures`.", constraint=True
    ),
    Outcome.LOST: Rule(
        "FAIL", "Its worker vanished; Optuna is told nothing until retries have run out."
    ),
    Outcome.TIMED_OUT: Rule(
        "FAIL", "It hung and was ended; run again, it would most likely hang again."
    ),
    Outcome.CRASHED: Rule(
        "FAIL",
        "A bug, not a trial: the same signature three times ends the search.",
        ends_search_at=3,
    ),
    Outcome.INVALID: Rule(
        "FAIL",
        "The space drew a configuration that breaks a rule; the search ends.",
        ends_search_at=1,
    ),
}

LOST_TYPES = (
    "ActorDiedError|ActorUnavailableError|LocalRayletDiedError|NodeDiedError|ObjectLostError"
    "|OwnerDiedError|RayActorError|RpcError|WorkerCrashedError"
)
"""Pattern of the exceptions of Ray that the machine causes."""

_OUR_FAULT = ("raised in its creation task", "failed to import on the worker")
"""Phrases of Ray for the death of an actor that our code caused."""

# Messages, not types: torch raises RuntimeError for host memory and several types for CUDA, whose
# libraries say ALLOC_FAILED, and Ray's memory monitor kills the worker, which arrives as the death
# of an actor.
_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|\b_?(Array)?MemoryError\b|can't allocate memory"
    r"|running low on memory|exceeds the memory usage threshold"
    r"|\bCU\w+_ALLOC_FAILED\b",
    re.IGNORECASE,
)
_LOST = re.compile(
    r"^(The actor (died unexpectedly|\S+ is unavailable)|The worker died unexpectedly"
    rf"|The task's local raylet died|\S*({LOST_TYPES})\b)",
    re.MULTILINE,
)
_FRAME = re.compile(r'^\s+File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def classify(
    metrics: Mapping[str, Any] | None, error: str | None = None, error_type: str | None = None
) -> Outcome:
    """Return the outcome of a trial that has ended, from its last report and from the text or
    traceback of its error, if any; `error_type` is read from that text if None."""
    last = metrics or {}
    # The training's own report wins: a worker that dies while it is torn down has finished.
    if word := last.get("outcome"):
        require_choice("outcome", word, tuple(Outcome))
        return Outcome(word)
    if error or error_type:
        return classify_error(error or "", error_type)
    # no outcome, error or report: it never ran, which says nothing about its parameters
    return Outcome.STOPPED if last else Outcome.LOST


def classify_error(error: str, error_type: str | None = None) -> Outcome:
    """Return the outcome of a trial from the text or traceback of its error."""
    messages = _messages(error)
    kind = _bare_type(error_type) or exception_type(error)
    if kind in ("ConfigError", "CodeError"):
        return Outcome.INVALID
    if kind == "Diverged":
        return Outcome.DIVERGED
    if _MEMORY.search(f"{kind}\n{messages}"):
        return Outcome.OUT_OF_MEMORY
    if any(words in messages for words in _OUR_FAULT):
        return Outcome.CRASHED
    if re.fullmatch(LOST_TYPES, kind) or _LOST.search(messages):
        return Outcome.LOST
    return Outcome.CRASHED


def exception_type(error: str) -> str:
    """Return the class name in the last `Name: message` line of a traceback, or ""."""
    for line in reversed(_messages(error).splitlines()):
        if match := re.match(r"(?:[\w.]*\.)?([A-Z]\w*)(?::|$)", line):
            return match.group(1)
    return ""


def crash_signature(error: str) -> str:
    """Return the exception's type and its place in the code: the same text for every crash by one
    bug, whose messages differ (they carry numbers of the trial)."""
    kind = exception_type(error) or "error"
    if frames := _FRAME.findall(_COLOUR.sub("", error)):
        file, line, function = frames[-1]
        name = PurePath(file.replace("\\", "/")).name
        return f"{kind} at {name}:{line} in {function}"
    first = next((line for line in _messages(error).splitlines() if line.strip()), "")
    return f"{kind}: {re.sub(r'[0-9]+', '#', first)[:120]}" if first else kind


def _messages(error: str) -> str:
    """Return the unindented lines: the messages, without the quoted source of a traceback."""
    lines = _COLOUR.sub("", error).splitlines()
    return "\n".join(line for line in lines if line[:1] not in (" ", "\t"))


def _bare_type(error_type: str | None) -> str:
    """Return `ValueError` of `RayTaskError(ValueError)`; empty for a type of Ray's alone."""
    if not error_type:
        return ""
    inner = re.search(r"\((\w+)\)", error_type)
    name = inner.group(1) if inner else error_type.rpartition(".")[2]
    return "" if name in ("RayTaskError", "TuneError") else name
