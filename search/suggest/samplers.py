"""The samplers of trials: Optuna's, each as if made anew for every trial from (seed, number).

What trial i is asked then depends on the seed, on i and on what the study has been told, never on
the number of suggestions that this process has made: a resumed search draws as an undisturbed one
would. With `random` and `qmc` it depends on (seed, i) alone.

- `tpe`: multivariate tree-structured Parzen estimator; reads rung-stopped and infeasible trials.
- `gp`: Gaussian process. `cmaes`: covariance matrix adaptation. Both draw conditional parameters
  at random and read finished values only (`study.state_and_values`).
- `qmc`: scrambled Sobol points; every parameter of the space has its own dimension.
- `random`: uniform, independent.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna import distributions, samplers

from search.plan import SearchConfig

STARTUP_TRIALS = 8
"""Trials drawn at random before the sampler models anything."""

MODELS_COMPLETE_ONLY = frozenset({"gp", "cmaes"})
"""Samplers that do not read trials told as PRUNED."""


def sampler_for(
    plan: SearchConfig, number: int, last: samplers.BaseSampler | None = None
) -> samplers.BaseSampler:
    """Return the sampler of trial `number`: `last`, that of an earlier trial of the same study, if
    it can be seeded anew."""
    if isinstance(last, Tpe):
        last.seed(trial_seed(plan.seed, number))
        return last
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[plan.sampler](plan, number)


def trial_seed(seed: int, number: int) -> int:
    """Return a seed of its own for each trial of each search."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Tpe(samplers.TPESampler):
    """Optuna's TPE sampler, which can be seeded as if made anew, in a fraction of the time.

    Its only other state, the parameters that all trials have, follows from the study.
    """

    def seed(self, seed: int) -> None:
        """Seed everything that it draws with."""
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)


class SobolSampler(samplers.RandomSampler):
    """A sampler of point `number` of a scrambled Sobol sequence, with a dimension for each name.

    Optuna's own sampler takes the first trial's parameters for the whole space and keeps its place
    in the study; here neither a branch nor a restart disturbs the sequence.
    """

    def __init__(self, plan: SearchConfig, number: int) -> None:
        from scipy.stats import qmc  # a second of every search's start

        super().__init__(plan.seed)
        names = sorted(plan.space.ranges())
        engine = qmc.Sobol(len(names), scramble=True, rng=np.random.default_rng(plan.seed))
        if number:
            engine.fast_forward(number)
        self._point = dict(zip(names, engine.random(1)[0], strict=True))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: distributions.BaseDistribution,
    ) -> Any:
        """Return the value of a parameter at its coordinate of the point."""
        return at_quantile(param_distribution, float(self._point[param_name]))


def at_quantile(distribution: distributions.BaseDistribution, u: float) -> Any:
    """Return the value at quantile `u` in [0, 1) of a parameter's uniform (or log-uniform) law."""
    if isinstance(distribution, distributions.CategoricalDistribution):
        return distribution.choices[int(u * len(distribution.choices))]
    low, high = distribution.low, distribution.high
    if isinstance(distribution, distributions.IntDistribution):
        return low + distribution.step * int(u * ((high - low) // distribution.step + 1))
    if distribution.log:
        return float(min(max(low * (high / low) ** u, low), high))
    return float(low + u * (high - low))


MODEL = {"n_startup_trials": STARTUP_TRIALS}
SAMPLERS: dict[str, Callable[[SearchConfig, int], samplers.BaseSampler]] = {
    "tpe": lambda plan, number: Tpe(
        seed=trial_seed(plan.seed, number), multivariate=True, constant_liar=True, **MODEL
    ),
    "gp": lambda plan, number: samplers.GPSampler(seed=trial_seed(plan.seed, number), **MODEL),
    "qmc": SobolSampler,
    "random": lambda plan, number: samplers.RandomSampler(trial_seed(plan.seed, number)),
    "cmaes": lambda plan, number: samplers.CmaEsSampler(
        seed=trial_seed(plan.seed, number), warn_independent_sampling=False, **MODEL
    ),
}
