"""Rows of the tables, made of a trial's reports; plain data in, plain data out.

A report's keys are names of columns, except `failure_<name>`, which is `<name>` in `failures`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from search.plan import RULES, Outcome
from trainer.own_trainer import PREFIX

from .schema import GUARD_COLUMNS, TABLES, Row

COMPARED = ("epoch", "loss_total", "gradient_norm", "min_eigengap", "validation_capped_error")
VALIDATED = tuple(f"validation_capped_error{end}" for end in ("", "_low", "_high"))
"""Columns whose means are those of `OBJECTIVE_INTERVAL`."""
OBJECTIVE_INTERVAL = ("objective", "objective_low", "objective_high")
BY_SCENE = "validation_scenes"
"""Key of a report's errors by scene, for `mean_by_scene` alone."""


def mean_objective(
    reports: Sequence[Mapping[str, Any]],
    values: Sequence[str] = VALIDATED,
    sign: float = 1.0,
) -> Row:
    """Return the objective and, if `values` names its ends, its interval: means over these epochs.

    Epochs share the validation scenes, so the mean ends are never too close to each other.
    """
    return {
        name: sign * fmean(report[value] for report in reports)
        for name, value in zip(OBJECTIVE_INTERVAL, values, strict=False)
    }


def mean_by_scene(reports: Sequence[Mapping[str, Any]]) -> Row:
    """Return the objective by validation scene, the mean over these epochs; nothing of a trainer
    that reports no scenes."""
    if not all(BY_SCENE in report for report in reports):
        return {}
    scenes = zip(*(report[BY_SCENE] for report in reports), strict=True)
    return {"objective_scenes": [round(fmean(errors), 4) for errors in scenes]}


def pick(table: str, report: Mapping[str, Any], **more: Any) -> Row:
    """Return the entries of a report that `table` has columns for, and `more`."""
    known = [c.name for c in TABLES[table] if c.name in report]
    if table == "epochs":
        known += [name for name in report if name.startswith(PREFIX)]
    return {name: report[name] for name in known} | more


def trial_row(
    record: Mapping[str, Any],
    last: Mapping[str, Any],
    outcome: Outcome,
    *,
    epochs: Mapping[int, Row],
    gpus: float,
    checkpoint: str | None,
    error: str | None,
) -> Row:
    """Return the row in `trials` of a trial that has ended.

    Args:
        record: its configuration, as in `configs/<trial_id>.json`.
        last: its last report; empty if there was none.
        epochs: its rows in `epochs`, by epoch.
        gpus: share of a GPU it had reserved.
        checkpoint: of its last epoch, relative to the run.
        error: of a worker that was lost.
    """
    trained = int(last.get("epoch", 0))
    each = [row["seconds"] for row in epochs.values()]
    seconds = float(last.get("seconds_total", 0.0))
    drawn = {f"params.{name}": value for name, value in record["drawn"].items()}
    return drawn | {
        "trial_id": record["trial_id"],
        "number": record["number"],
        "outcome": outcome.value,
        "cause": last.get("cause"),
        **{name: None if RULES[outcome].failed else last.get(name) for name in OBJECTIVE_INTERVAL},
        **{name: last.get(name) for name in GUARD_COLUMNS},
        "seed": record["params"]["seed"],
        "evaluation_seed": record["params"].get("evaluation.seed"),
        "epochs": trained,
        "rung": trained if outcome is Outcome.STOPPED else None,
        "seconds": seconds,
        "seconds_per_epoch": sum(each) / len(each) if each else None,
        "gpu_seconds": seconds * gpus,
        "host": last.get("host"),
        "device": last.get("device"),
        "config_hash": record["config_hash"],
        "checkpoint": checkpoint,
        **{n: datetime.fromtimestamp(last[n], UTC) for n in ("started", "ended") if n in last},
        "error": last.get("failure_traceback") or error,
    }


def failure_row(
    record: Mapping[str, Any],
    last: Mapping[str, Any],
    outcome: Outcome,
    *,
    run: str,
    attempt: int,
    error: str | None,
) -> Row:
    """Return the row in `failures` of a failed trial, with the command that replays it."""
    found = {k.removeprefix("failure_"): v for k, v in last.items() if k.startswith("failure_")}
    # a worker killed for its memory reported the peak until then
    peak = last.get("peak_bytes") if outcome is Outcome.OUT_OF_MEMORY else None
    return pick("failures", {**last, "epoch": None, "step": None, **found}) | {
        "peak_bytes": peak,
        "trial_id": record["trial_id"],
        "attempt": attempt,
        "outcome": outcome.value,
        "cause": last.get("cause"),
        "replay": f"python -m trainer replay {run} {record['trial_id']}",
        "traceback": last.get("failure_traceback") or error,
    }


def reached(epochs: Mapping[int, Row]) -> Row | None:
    """Return the numbers of the last epoch that a replay compares bit for bit; None before any."""
    if not epochs:
        return None
    last = epochs[max(epochs)]
    return {n: value for n, value in last.items() if n in COMPARED or n.startswith(PREFIX)}


def scored_rows(
    rows: list[Mapping[str, Any]], table: str, record: Mapping[str, Any] | None, seed: int
) -> list[Row]:
    """Return rows of `evaluations` or `scenes` of a trial, or of baselines if `record` is None;
    `seed` is that of the scenes."""
    trial_id = record["trial_id"] if record else None
    trained = record["params"]["seed"] if record else None
    return [
        pick(table, row, trial_id=trial_id, seed=trained, evaluation_seed=seed) for row in rows
    ]
