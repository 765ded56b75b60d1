"""Importances of parameters: PED-ANOVA at one fidelity, its scatter, and its values by chance.

All values compared are objectives at the *same* epoch: a trial that was stopped at a rung says
something about that rung and nothing about the end. The epoch is the latest that enough trials
have reached. Importances are Optuna's PED-ANOVA for conditional spaces (Watanabe et al. 2023,
"PED-ANOVA"; 2026, "Conditional PED-ANOVA"), as shares of their sum. Their scatter is that over
random halves of the trials, whose spread estimates that of all (delete-half jackknife, Shao and Wu
1989). Shuffling the objectives among the trials gives the share of a parameter without any effect;
one below the shuffled 95 % quantile has not been shown to matter.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.report.data import Run, SearchedParameter, parameters

LEAST_TRIALS = 10
"""Trials at one epoch from which importances are given."""
LEAST_SHARE = 0.5
"""Share of the trials that must have reached that epoch."""
TOP_SHARE, TOP_TRIALS = 0.25, 5
"""The best quarter is explained, or as many as PED-ANOVA's authors ask for, if that is more."""
HALVES, SHUFFLES = 60, 400  # of 60 shuffles, three would make the quantile


@dataclass(frozen=True)
class Importance:
    """Importances at the epoch that `num_trials` had reached; one row of `shares` per parameter,
    the largest first: name, share, low, high (95 % over halves of the trials), chance (95 %
    quantile over shuffled objectives), beyond_chance."""

    epoch: int
    num_trials: int
    shares: pd.DataFrame


@lru_cache(maxsize=8)
def importances(run: Run, *, seed: int = 0) -> Importance | str:
    """Return the importances of a run's parameters; or a sentence that says why there are none."""
    reached = same_fidelity(run)
    if isinstance(reached, str):
        return reached
    epoch, values = reached
    at = run.trials["trial_id"].isin(values.index).to_numpy()
    named = run.trials["trial_id"][at]
    objective = np.asarray(values.loc[named], dtype=np.float64)
    known = [p for p in parameters(run) if len({str(v) for v in p.values[at]}) > 1]
    if len(known) < 2:
        return "No importances: fewer than two parameters differ between the trials."
    if np.ptp(objective) == 0:
        return "No importances: all trials have the same objective."
    study = _study(known, np.flatnonzero(at))
    names = [p.name for p in known]
    random = np.random.default_rng(seed)
    share = _shares(study, objective, names)
    halves = [_shares(study, _half(objective, random), names) for _ in range(HALVES)]
    shuffled = [_shares(study, random.permutation(objective), names) for _ in range(SHUFFLES)]
    low, high = np.quantile(halves, [0.025, 0.975], axis=0)
    table = pd.DataFrame({"name": names, "share": share})
    table = table.assign(
        low=np.minimum(low, share),
        high=np.maximum(high, share),
        chance=np.quantile(shuffled, 0.95, axis=0),
        beyond_chance=lambda rows: rows["share"] > rows["chance"],
    )
    ranked = table.sort_values("share", ascending=False, kind="stable", ignore_index=True)
    return Importance(epoch, len(objective), ranked)


def same_fidelity(run: Run) -> tuple[int, "pd.Series[float]"] | str:
    """The latest epoch that half of the trials reached, and their objectives at it, by trial."""
    epochs = run.tables["epochs"].dropna(subset=["objective"])
    epochs = epochs[epochs["trial_id"].isin(run.trials["trial_id"])]
    counts = epochs.groupby("epoch")["trial_id"].nunique()
    least = max(LEAST_TRIALS, LEAST_SHARE * epochs["trial_id"].nunique())
    enough = counts.index[counts >= least]
    if not len(enough):
        most = int(counts.max()) if len(counts) else 0
        return (
            f"No importances: they need {LEAST_TRIALS} ended trials at one epoch, but at most "
            f"{most} reached the same. Run more trials with `--resume`."
        )
    epoch = int(enough.max())
    return epoch, epochs[epochs["epoch"] == epoch].set_index("trial_id")["objective"]


def _study(known: list[SearchedParameter], rows: NDArray[np.intp]) -> Any:
    """Return a study in memory of the trials in these rows, without their values."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {p.name: _distribution(p) for p in known}
    study = optuna.create_study()
    for row in rows:
        found = {p.name: p.values.iloc[row] for p in known}
        values = {name: value for name, value in found.items() if not pd.isna(value)}
        own = {name: distributions[name] for name in values}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=own, value=0.0))
    return study


def _half(objective: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return the objectives of a random half of the trials, NaN for the others."""
    kept = random.permutation(len(objective)) < (len(objective) + 1) // 2
    return np.where(kept, objective, np.nan)


def _shares(study: Any, objective: NDArray[np.float64], names: list[str]) -> NDArray[np.float64]:
    """Return importances as shares of their sum, in the order of `names`."""
    import optuna

    count = int(np.isfinite(objective).sum())
    top = min(max(TOP_SHARE, TOP_TRIALS / count), 0.5)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small regimes: the intervals say it better
        found = evaluator.evaluate(study, target=lambda trial: float(objective[trial.number]))
    total = sum(found.values()) or 1.0
    return np.array([found.get(name, 0.0) / total for name in names])


def _distribution(parameter: SearchedParameter) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not parameter.numeric:
        return CategoricalDistribution(parameter.choices)
    seen = parameter.values.dropna().astype(float)
    ends = np.array([parameter.low, parameter.high, *seen], dtype=np.float64)
    return FloatDistribution(float(ends.min()), float(ends.max()), log=parameter.log)
