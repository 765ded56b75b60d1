"""The tables of a run: columns with type, unit and meaning, and the keys that identify a row.

Two tables depend on the run: `trials` has a nullable `params.<dotted name>` column for each
parameter that the run's space can set, and `epochs` a nullable `metrics.<name>` column for each
number that a user's trainer has reported. `docs/results.md` shows the same tables to readers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config import COUNT_RULES
from trainer.own_trainer import PREFIX

LOSS_TERMS = ("covariance", "eigengap", "own")
"""Loss terms with a column of their own in `epochs`, after `loss_`; `own` is the user's."""

BASELINE_PART = "baselines"
"""The part whose rows belong to no trial."""

RERUNS = "reruns"
"""The folder of reruns inside that of a run: a run of its own."""

Row = dict[str, Any]
"""A row of a table, by column; what it does not name is null."""

Parameters = Mapping[str, tuple[str, str, str]]
"""Dotted name -> (`float`, `int` or `str`; unit; description)."""


@dataclass(frozen=True)
class Column:
    """Name, a word of `arrow.TYPES`, unit (`1` for a pure number) and meaning of a column."""

    name: str
    type: str
    unit: str
    about: str
    required: bool = False


def _trial(required: bool = True) -> Column:
    about = "trial the row belongs to" + ("" if required else "; null for baselines")
    return Column("trial_id", "str", "", about, required)


def with_interval(name: str, about: str) -> tuple[Column, ...]:
    """Return the columns of a number without unit and of the ends of its 95 % interval."""
    ends = ("lower", "low"), ("upper", "high")
    interval = (
        Column(f"{name}_{at}", "float", "1", f"{end} end of its 95 % interval") for end, at in ends
    )
    return Column(name, "float", "1", about), *interval


TRIALS = (
    _trial(),
    Column("number", "int", "1", "order in which the trials were suggested, from 0", True),
    Column("outcome", "str", "", "what became of it: a word of search.plan.outcome.Outcome", True),
    Column("cause", "str", "", "why, unless completed or stopped; null otherwise"),
    *with_interval("objective", "that of its last epoch, if completed or stopped; or null"),
    Column(
        "guard_above", "int", "1", "points (SNR, K) where it is above LMMSE-MUSIC; null: unknown"
    ),
    Column("guard_points", "int", "1", "points compared, all reported SNRs and K"),
    Column("guard_scenes", "int", "1", "validation scenes at each point"),
    Column("guard_snr_db", "float", "dB", "SNR of the point where it is most surely above"),
    Column("guard_num_sources", "int", "1", "K of that point"),
    *with_interval(
        "guard_difference",
        "its error minus LMMSE-MUSIC's there; interval over all points together",
    ),
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
    Column("ended", "time", "UTC", "when it last reported"),
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
    Column("gradient_norm", "float", "1", "largest of the epoch, all parameters, before clipping"),
    Column("min_eigengap", "float", "1", "smallest l_K - l_(K+1) of the last batch, trace-1 R"),
    Column("median_eigengap", "float", "1", "median l_K - l_(K+1) of the last batch, trace-1 R"),
    Column("loading", "float", "1", "diagonal loading used, eps tr(R)/N, mean of the last batch"),
    Column(
        "objective",
        "float",
        "1",
        "mean of validation_capped_error over the last epochs; of a "
        "trainer of yours, of its objective, with a minus if that is maximised",
    ),
    *with_interval("validation_capped_error", "mean(min(error, 10 deg))/10 deg"),
    Column(
        "objective_scenes",
        "floats",
        "1",
        "objective by validation scene, mean over SNRs and K; after rungs and the last epoch",
    ),
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
    Column(
        "estimator",
        "str",
        "",
        "network (MUSIC alone), network+scoring or network+judged (refined), a classical method, "
        "crb, or a limit",
        True,
    ),
    Column("seed", "int", "", "training seed; null for baselines"),
    Column("evaluation_seed", "int", "", "of the scenes; equal seeds mean equal scenes"),
)

EVALUATIONS = (
    *_SCORED,
    *_WHERE,
    Column("num_scenes", "int", "1", "scenes behind this row"),
    *with_interval("capped_error", "mean(min(error, 10 deg))/10 deg"),
    Column("rmspe_deg", "float", "deg", "root mean square error of azimuth and elevation"),
    Column("median_error_deg", "float", "deg", "median error of azimuth and elevation"),
    *with_interval("success_rate", "share of sources within 5 deg and 5 deg"),
    Column("success_rate_3d", "float", "1", "share of sources also found in range"),
    Column("source_number_accuracy", "float", "1", "scenes whose K the method's own rule tells"),
    Column("source_number_accuracy_gap", "float", "1", "the same by the absolute gap"),
    Column("source_number_accuracy_mdl", "float", "1", "the same by MDL"),
    Column("source_number_accuracy_aic", "float", "1", "the same by AIC"),
    Column("crb_db", "float", "dB", "rmspe above the root CRB, 20 log10"),
)

_CHANGES = Column(
    "changes", "str", "", "changed by a rerun; empty if only the seed, null elsewhere"
)

SCENES = (
    *_SCORED,
    _CHANGES,
    Column("scene_id", "int", "", "equal ids and evaluation seeds mean equal scenes", True),
    *_WHERE,
    Column("capped_error", "float", "1", "mean over the scene's sources"),
    Column("success", "float", "1", "share of the scene's sources within 5 deg and 5 deg"),
    Column("source_number_found", "float", "1", "1 if K was found, else 0; null if not asked"),
    Column("source_number", "int32", "1", "K by the method's own rule; null if not asked"),
    *(
        column
        for rule in COUNT_RULES
        for column in (
            Column(f"source_number_{rule}", "int32", "1", f"K by {rule} on R; of designs only"),
            Column(f"gospa_{rule}", "float", "1", "GOSPA with that K, in caps of 10 deg"),
        )
    ),
)

CONFIRMATIONS = (
    *_SCORED,
    _CHANGES,
    *EVALUATIONS[len(_SCORED) :],
    Column("confirmed", "int", "1", "scenes that a confirmation asked for; null if none did"),
)

ABLATIONS = (
    Column("ablation", "str", "", "its name; also that of the part", True),
    Column("arm", "str", "", "without or with what is examined; of a design, its term", True),
    Column("network", "str", "", "a network of a design; null otherwise"),
    Column("regime", "str", "", "a regime of a design; null otherwise"),
    _trial(),
    Column("seed", "int", "", "training seed", True),
    Column("evaluation_seed", "int", "", "of the scenes; equal seeds mean equal scenes", True),
    _CHANGES,
    *_WHERE,
    Column("rule", "str", "", "of a design: rule for K on the eigenvalues; null: K told"),
    Column("num_scenes", "int", "1", "scenes behind this row; 0 if the training did not complete"),
    Column("capped_error", "float", "1", "mean(min(error, 10 deg))/10 deg"),
    Column("success_rate", "float", "1", "share of sources within 5 deg and 5 deg"),
    Column("source_number_accuracy", "float", "1", "share of scenes whose K was found"),
    Column("gospa", "float", "1", "mean GOSPA with K by that rule, in caps of 10 deg"),
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
    Column("tensor", "str", "", "parameter, input, or matrix or factor of R that was not finite"),
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

GUARD_COLUMNS = tuple(c.name for c in TRIALS if c.name.startswith("guard_"))
"""Columns of a completed trial's margin over LMMSE-MUSIC (`trainer.evaluation.Margin`)."""

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
        *("ablation", "arm", "trial_id", "seed", "evaluation_seed"),
        *("snr_db", "num_sources", "rule"),
    ),
}
"""Columns that together identify a row."""

PARAMETERS_AFTER = "objective_high"
"""Where `params.*` stand in `trials`."""


def columns(
    table: str, parameters: Parameters, metrics: tuple[str, ...] = ()
) -> tuple[Column, ...]:
    """Return all columns of a table in a run whose space can set `parameters`, and whose trainer,
    a user's, has reported `metrics`."""
    fixed = TABLES[table]
    if table == "epochs":
        about = "reported by your own trainer"
        return (*fixed, *(Column(f"{PREFIX}{name}", "float", "1", about) for name in metrics))
    if table != "trials":
        return fixed
    drawn = tuple(
        Column(f"params.{name}", kind, unit, about)
        for name, (kind, unit, about) in sorted(parameters.items())
    )
    cut = [c.name for c in fixed].index(PARAMETERS_AFTER) + 1
    return fixed[:cut] + drawn + fixed[cut:]
