"""What every table of a run holds: columns with type, unit and meaning, and what identifies a row.

All part files of one table in one run share one Arrow schema, with unit and description in each
field's metadata. Only `trials` depends on the run: it has one nullable `params.<dotted name>`
column for each parameter that the run's space can set. `docs/results.md` shows the same tables
to readers.
"""

import datetime
import difflib
import functools
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

LOSS_TERMS = ("covariance", "eigengap")
"""Loss terms with a column of their own in `epochs`, after `loss_`."""

BASELINES = "baselines"
"""The part whose rows belong to no trial."""

Parameters = Mapping[str, tuple[str, str, str]]
"""Dotted name -> (`float`, `int` or `str`; unit; description)."""

TYPES: dict[str, pa.DataType] = {
    "float": pa.float64(),
    "int": pa.int64(),
    "int32": pa.int32(),
    "str": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
}
PARAMETER_TYPES = ("float", "int", "str")


class RowError(ValueError):
    """A row that its table refuses; the message has the rule, the value and the remedy."""


@dataclass(frozen=True)
class Column:
    """One column: its name, a word of `TYPES`, its unit (`1` for a pure number), its meaning."""

    name: str
    type: str
    unit: str
    about: str
    required: bool = False


def _trial(required: bool = True) -> Column:
    about = "trial the row belongs to" + ("" if required else "; null for baselines")
    return Column("trial_id", "str", "", about, required)


TRIALS = (
    _trial(),
    Column("number", "int", "1", "order in which the trials were suggested, from 0", True),
    Column("outcome", "str", "", "what became of it: a word of search.outcome.Outcome", True),
    Column("cause", "str", "", "why, unless completed or stopped; null otherwise"),
    Column("objective", "float", "1", "that of its last epoch, if completed or stopped; or null"),
    Column("seed", "int", "", "of initial weights and training scenes"),
    Column("evaluation_seed", "int", "", "of the validation scenes behind the objective"),
    Column("epochs", "int32", "1", "epochs trained"),
    Column("rung", "int32", "epochs", "rung at which the scheduler stopped it; null otherwise"),
    Column("seconds", "float", "s", "wall-clock time in training"),
    Column("seconds_per_epoch", "float", "s", "mean wall-clock time of an epoch"),
    Column("gpu_seconds", "float", "s", "seconds times the fraction of a GPU that was reserved"),
    Column("host", "str", "", "machine it ended on"),
    Column("device", "str", "", "cpu or cuda"),
    Column("config_hash", "str", "", "equal exactly for equal configurations"),
    Column("checkpoint", "str", "", "path of its last checkpoint, relative to the run"),
    Column("started", "time", "UTC", "when it first started"),
    Column("error", "str", "", "traceback of a crashed trial"),
)

EPOCHS = (
    _trial(),
    Column("epoch", "int32", "1", "from 1", True),
    Column("step", "int", "1", "optimiser steps taken so far"),
    Column("loss_total", "float", "1", "mean training loss of the epoch, all terms weighted"),
    *(
        Column(f"loss_{term}", "float", "1", f"mean {term} term, before its weight")
        for term in LOSS_TERMS
    ),
    Column(
        "gradient_norm", "float", "1", "largest total gradient norm of the epoch, before clipping"
    ),
    Column("min_eigengap", "float", "1", "smallest l_K - l_(K+1) of the last batch, trace-1 R"),
    Column("median_eigengap", "float", "1", "median l_K - l_(K+1) of the last batch, trace-1 R"),
    Column("loading", "float", "1", "diagonal loading used, eps tr(R)/N, mean of the last batch"),
    Column("objective", "float", "1", "mean of validation_capped_error over the last epochs"),
    Column("validation_capped_error", "float", "1", "mean(min(error, 10 deg))/10 deg"),
    Column("validation_success_rate", "float", "1", "share of sources within 5 deg and 5 deg"),
    Column("skipped_samples", "int", "1", "samples whose spectral term was left out"),
    Column("replaced_samples", "int", "1", "samples whose spectral term was replaced"),
    Column("learning_rate", "float", "1", "of the last step of the epoch"),
    Column("seconds", "float", "s", "wall-clock time of the epoch, validation included"),
)

_WHERE = (
    Column("snr_db", "float", "dB", "signal-to-noise ratio, total over sources", True),
    Column("num_sources", "int32", "1", "K", True),
)
_SCORED = (
    _trial(required=False),
    Column("estimator", "str", "", "network, a classical method, or crb", True),
    Column("seed", "int", "", "training seed; null for baselines"),
    Column("evaluation_seed", "int", "", "of the scenes; equal seeds mean equal scenes"),
)

EVALUATIONS = (
    *_SCORED,
    *_WHERE,
    Column("num_scenes", "int", "1", "scenes behind this row"),
    Column("capped_error", "float", "1", "mean(min(error, 10 deg))/10 deg"),
    Column("capped_error_low", "float", "1", "lower end of its 95 % interval"),
    Column("capped_error_high", "float", "1", "upper end of its 95 % interval"),
    Column("rmspe_deg", "float", "deg", "root mean square error of azimuth and elevation"),
    Column("median_error_deg", "float", "deg", "median error of azimuth and elevation"),
    Column("success_rate", "float", "1", "share of sources within 5 deg and 5 deg"),
    Column("success_rate_low", "float", "1", "lower end of its 95 % interval"),
    Column("success_rate_high", "float", "1", "upper end of its 95 % interval"),
    Column("success_rate_3d", "float", "1", "share of sources also found in range"),
    Column("source_number_accuracy", "float", "1", "scenes whose K the relative gap tells"),
    Column("source_number_accuracy_gap", "float", "1", "the same by the absolute gap"),
    Column("source_number_accuracy_mdl", "float", "1", "the same by MDL"),
    Column("source_number_accuracy_aic", "float", "1", "the same by AIC"),
    Column("crb_db", "float", "dB", "rmspe above the root CRB, 20 log10"),
)

_CHANGES = Column(
    "changes",
    "str",
    "",
    "what a rerun changed of the trial's configuration, seed aside; empty if nothing; null for "
    "rows that are no rerun's",
)

SCENES = (
    *_SCORED,
    _CHANGES,
    Column("scene_id", "int", "", "equal ids and evaluation seeds mean equal scenes", True),
    *_WHERE,
    Column("capped_error", "float", "1", "mean over the scene's sources"),
    Column("success", "float", "1", "share of the scene's sources within 5 deg and 5 deg"),
    Column("source_number_found", "float", "1", "1 if K was found, else 0; null if not asked"),
)

CONFIRMATIONS = (*_SCORED, _CHANGES, *EVALUATIONS[len(_SCORED) :])

ABLATIONS = (
    Column("ablation", "str", "", "its name; also that of the part", True),
    Column("arm", "str", "", "without or with what is examined", True),
    _trial(),
    Column("seed", "int", "", "training seed", True),
    Column("evaluation_seed", "int", "", "of the scenes; equal seeds mean equal scenes", True),
    _CHANGES,
    *_WHERE,
    Column("num_scenes", "int", "1", "scenes behind this row; 0 if the training did not complete"),
    Column("capped_error", "float", "1", "mean(min(error, 10 deg))/10 deg"),
    Column("success_rate", "float", "1", "share of sources within 5 deg and 5 deg"),
    Column("source_number_accuracy", "float", "1", "share of scenes whose K was found"),
    Column("hinge", "float", "1", "mean eigengap term of the arm `with`, before its weight"),
    Column("hinge_active", "float", "1", "share of scenes where that term is above 0"),
)

SPECTRA = (
    _trial(),
    Column("stage", "str", "", "measured, untrained or trained", True),
    Column("seed", "int", "", "training seed"),
    Column("evaluation_seed", "int", "", "of the scenes; equal seeds mean equal scenes"),
    *_WHERE,
    Column("index", "int32", "1", "1 is the largest eigenvalue; the gap follows index K", True),
    Column("eigenvalue", "float", "tr(R)", "median over scenes, loading excluded"),
    Column("eigenvalue_low", "float", "tr(R)", "10 % quantile over scenes"),
    Column("eigenvalue_high", "float", "tr(R)", "90 % quantile over scenes"),
)

PSEUDOSPECTRA = (
    _trial(),
    Column("estimator", "str", "", "network, lmmse_music, or truth", True),
    Column("kind", "str", "", "grid: a point of the pseudospectrum; source: a place", True),
    Column("point", "int", "1", "number of the row among its kind, from 0", True),
    Column("seed", "int", "", "training seed"),
    Column("evaluation_seed", "int", "", "of the scenes; equal seeds mean equal scenes"),
    Column("scene_id", "int", "", "equal ids and evaluation seeds mean equal scenes", True),
    *_WHERE,
    Column("azimuth_deg", "float", "deg", "from the panel's normal, horizontally"),
    Column("elevation_deg", "float", "deg", "from the panel's normal, vertically"),
    Column("level_db", "float", "dB", "MUSIC pseudospectrum, highest of all ranges; grid only"),
)

FAILURES = (
    _trial(),
    Column("attempt", "int32", "1", "which try of the trial it was, from 1; a lost one has more"),
    Column("outcome", "str", "", "what became of the trial here", True),
    Column("cause", "str", "", "a word of trainer.failure.Cause, or an exception's type"),
    Column("term", "str", "", "loss term that was not finite; total if no single one"),
    Column("tensor", "str", "", "parameter or input that was not finite"),
    Column("step", "int", "1", "optimiser steps taken before the failure"),
    Column("epoch", "int32", "1", "in which it happened, from 1"),
    Column("min_eigengap", "float", "1", "smallest finite l_K - l_(K+1) of the failing batch"),
    Column("peak_bytes", "int", "B", "memory in use at its peak, if it ran out of memory"),
    Column("message", "str", "", "one sentence for a person"),
    Column("remedy", "str", "", "what to try"),
    Column("replay", "str", "", "command that reproduces it"),
    Column("host", "str", "", "machine it happened on"),
    Column("traceback", "str", "", "of an exception; null for a divergence"),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "trials": TRIALS,
    "epochs": EPOCHS,
    "evaluations": EVALUATIONS,
    "scenes": SCENES,
    "spectra": SPECTRA,
    "pseudospectra": PSEUDOSPECTRA,
    "failures": FAILURES,
    "confirmations": CONFIRMATIONS,
    "ablations": ABLATIONS,
}

KEYS: dict[str, tuple[str, ...]] = {
    "trials": ("trial_id",),
    "epochs": ("trial_id", "epoch"),
    "evaluations": (*(c.name for c in (*_SCORED, *_WHERE)),),
    "scenes": (*(c.name for c in _SCORED), "changes", "scene_id", "snr_db", "num_sources"),
    "spectra": ("trial_id", "stage", "evaluation_seed", "snr_db", "num_sources", "index"),
    "pseudospectra": ("trial_id", "estimator", "kind", "point"),
    "failures": ("trial_id", "attempt"),
    "confirmations": (*(c.name for c in (*_SCORED, _CHANGES, *_WHERE)),),
    "ablations": (
        *("ablation", "arm", "trial_id", "seed", "evaluation_seed", "snr_db", "num_sources"),
    ),
}
"""Columns that together identify a row."""

PARAMETERS_AFTER = "objective"
"""Where `params.*` stand in `trials`."""


def columns(table: str, parameters: Parameters) -> tuple[Column, ...]:
    """All columns of a table in a run whose space can set `parameters`."""
    fixed = TABLES[table]
    if table != "trials":
        return fixed
    drawn = tuple(
        Column(f"params.{name}", kind, unit, about)
        for name, (kind, unit, about) in sorted(parameters.items())
    )
    cut = [c.name for c in fixed].index(PARAMETERS_AFTER) + 1
    return fixed[:cut] + drawn + fixed[cut:]


def arrow_schema(table: str, parameters: Parameters) -> pa.Schema:
    """The schema of every part file of that table."""
    return _layout(table, parameters)[1]


def _layout(table: str, parameters: Parameters) -> tuple[dict[str, Column], pa.Schema]:
    """Columns by name, and the same for Arrow."""
    return _cached_layout(table, tuple((name, *about) for name, about in parameters.items()))


@functools.cache  # a search writes thousands of parts of five tables
def _cached_layout(
    table: str, parameters: tuple[tuple[str, str, str, str], ...]
) -> tuple[dict[str, Column], pa.Schema]:
    declared = {name: (kind, unit, about) for name, kind, unit, about in parameters}
    known = {c.name: c for c in columns(table, declared)}
    fields = [
        pa.field(
            c.name,
            TYPES[c.type],
            nullable=not c.required,
            metadata={"unit": c.unit, "description": c.about},
        )
        for c in known.values()
    ]
    return known, pa.schema(fields)


def check_parameters(parameters: Parameters) -> None:
    """Raises RowError unless every parameter has a type that a column can have."""
    for name, declared in parameters.items():
        if len(declared) != 3 or declared[0] not in PARAMETER_TYPES:
            raise RowError(
                f"a parameter is (type, unit, description) with type in "
                f"{', '.join(PARAMETER_TYPES)}, but `{name}` is {declared!r}. Correct its space."
            )


def arrow_table(table: str, parameters: Parameters, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Checked rows as an Arrow table; what a row does not name is null.

    Raises:
        RowError: for an unknown column, a wrong type, a number that is not finite, a missing
            required value, or two rows with one key.
    """
    known, schema = _layout(table, parameters)
    checked = [_check_row(table, known, row) for row in rows]
    seen = set()
    for row in checked:
        key = tuple(row[name] for name in KEYS[table])
        if key in seen:
            named = ", ".join(f"{k}={v!r}" for k, v in zip(KEYS[table], key, strict=True))
            raise RowError(
                f"a row of `{table}` is written once, but two rows have {named}. Drop one of them."
            )
        seen.add(key)
    # as one array of structs: far faster than column by column, for a row or two
    structs = pa.array(checked, type=pa.struct(list(schema)))
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(structs)])


def _check_row(table: str, known: Mapping[str, Column], row: Mapping[str, Any]) -> dict[str, Any]:
    for name in row:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise RowError(f"`{table}` has no column `{name}`.{hint}")
    return {name: _check_value(table, column, row) for name, column in known.items()}


def _check_value(table: str, column: Column, row: Mapping[str, Any]) -> Any:
    """The value as plain Python; booleans are no numbers, and numbers are finite."""
    value = row.get(column.name)
    where = f"`{table}.{column.name}`"
    if value is None:
        if column.required:
            raise RowError(f"{where} must have a value in every row, but got none. Name it.")
        return None
    number = not isinstance(value, bool)
    if column.type == "float" and isinstance(value, numbers.Real) and number:
        if not math.isfinite(value):
            named = f" of trial {row['trial_id']}" if row.get("trial_id") else ""
            raise RowError(
                f"{where} must be finite or null, but got {float(value)}{named}. "
                "Record the cause in `failures` instead."
            )
        return float(value)
    if column.type in ("int", "int32") and isinstance(value, numbers.Integral) and number:
        return int(value)
    if column.type == "str" and isinstance(value, str):
        return str(value)
    if column.type == "time" and isinstance(value, datetime.datetime) and value.tzinfo:
        return value
    expected = "a datetime with a time zone" if column.type == "time" else f"a {column.type}"
    raise RowError(f"{where} must be {expected}, but got {value!r}. Convert it.")
