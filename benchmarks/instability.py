"""Divergence rates by what the sampler is told of a diverged training; the optimum lies beside the
instability.

    python benchmarks/instability.py [--seeds 12] [--trials 24]

The trainer is the real one and diverges by itself: under the subspace loss, `eigh` differentiates
eigenvectors through 1 / (λ_i - λ_j), and the noise eigenvalues of a sharp, loaded R tie in single
precision. What sharpens R is a high learning rate, and the best rate is just below the one at
which trainings of this length diverge; half of the space, on the logarithmic scale, diverges.
Learning rate, loading and weight are searched in sequence with our study and sampler; only what
is told of a divergence differs:

    constraint  PRUNED and infeasible, as the search does it
    FAIL        nothing, so to say: samplers leave out failed trials
    penalty     COMPLETE with the worst value there is

Shares and best values with 95 % bootstrap intervals over seeds; differences are paired by seed.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import optuna
import torch

import spaces
from search.plan import RULES, WORST_OBJECTIVE, Outcome, SearchConfig
from search.suggest import (
    CONSTRAINT,
    STARTUP_TRIALS,
    EndedTrial,
    new_study,
    sampler_for,
    state_and_values,
)
from trainer.config import TrainConfig
from trainer.failure import Diverged
from trainer.training import train

FIXED: dict[str, Any] = {
    "epochs": 1,
    "steps_per_epoch": 16,
    "batch_size": 32,
    "network.width": 16,
    "network.depth": 2,
    "eigengap.definition": "subspace",
    "eigengap.margin_subspace": 0.0,
    "spectral.backend": "eigh",
    "evaluation.num_scenes": 32,
    "evaluation.num_test_scenes": 1,
    "evaluation.report_snr_db": (0.0,),
}
RESAMPLES = 10_000

Tell = Callable[[EndedTrial, SearchConfig], tuple[optuna.trial.TrialState, Any, float]]


def suggest(trial: spaces.Trial) -> dict[str, Any]:
    """Draw three numbers, two of which lead over the ridge."""
    return {
        "optimizer.learning_rate": trial.suggest_float(
            "optimizer.learning_rate", 1e-3, 1.0, log=True
        ),
        "eps_psd": trial.suggest_float("eps_psd", 0.1, 10.0, log=True),
        "eigengap.weight": trial.suggest_float("eigengap.weight", 0.01, 1.0, log=True),
    }


spaces.PRESETS["ridge"] = spaces.Space("ridge", "Beside a divergence.", suggest, fixed=FIXED)


def as_shipped(past: EndedTrial, plan: SearchConfig) -> tuple[optuna.trial.TrialState, Any, float]:
    """Tell the sampler a diverged trial as the search does: PRUNED, with a constraint."""
    return (*state_and_values(past, plan, to_sampler=True), float(RULES[past.outcome].constraint))


def as_failure(past: EndedTrial, plan: SearchConfig) -> tuple[optuna.trial.TrialState, Any, float]:
    """Tell the sampler a diverged trial as FAIL."""
    if RULES[past.outcome].constraint:
        return optuna.trial.TrialState.FAIL, None, 0.0
    return as_shipped(past, plan)


def as_penalty(past: EndedTrial, plan: SearchConfig) -> tuple[optuna.trial.TrialState, Any, float]:
    """Tell the sampler a diverged trial as COMPLETE with the worst value."""
    if RULES[past.outcome].constraint:
        return optuna.trial.TrialState.COMPLETE, [WORST_OBJECTIVE], 0.0
    return as_shipped(past, plan)


TELLINGS: dict[str, Tell] = {
    "constraint": as_shipped,
    "FAIL": as_failure,
    "penalty": as_penalty,
}


@functools.cache
def trained(config: TrainConfig) -> float | None:
    """Return the objective of a training, or None if it diverged."""
    try:
        *_, last = train(config)
    except Diverged:
        return None
    return last.capped_error


def searched(plan: SearchConfig, tell: Tell) -> list[float | None]:
    """Return the objectives of a whole search, in order, None where it diverged."""
    study = new_study(plan)
    values: list[float | None] = []
    for number in range(plan.trials):
        study.sampler = sampler_for(plan, number)
        trial = study.ask()
        value = trained(plan.train_config(plan.space.suggest(trial)))
        outcome = Outcome.DIVERGED if value is None else Outcome.COMPLETED
        past = EndedTrial(f"t{number:04d}", number, trial.params, outcome)
        state, result, constraint = tell(
            past if value is None else replace(past, values={1: value}), plan
        )
        trial.set_constraint(CONSTRAINT, constraint)
        study.tell(trial, result, state=state)
        values.append(value)
    return values


def interval(values: np.ndarray) -> str:
    """Return mean and 95 % bootstrap interval over seeds."""
    draws = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Search with every telling, and print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=12)
    p.add_argument("--trials", type=int, default=24)
    args = p.parse_args()
    torch.set_num_threads(1)
    runs: dict[str, list[list[float | None]]] = {name: [] for name in TELLINGS}
    for seed in range(args.seeds):
        plan = SearchConfig("ridge", args.trials, "ridge", seed=seed)
        for name, tell in TELLINGS.items():
            runs[name].append(searched(plan, tell))
            diverged = sum(value is None for value in runs[name][-1])
            print(f"seed {seed:2d}  {name:10}  {diverged} of {args.trials} diverged", flush=True)
    report(runs, args.trials)


def report(runs: dict[str, list[list[float | None]]], trials: int) -> None:
    """Print the table, and every other telling's difference from the shipped one."""
    share, late, best = {}, {}, {}
    half = (STARTUP_TRIALS + trials) // 2
    for name, searches in runs.items():
        share[name] = np.array([np.mean([v is None for v in s]) for s in searches])
        late[name] = np.array([np.mean([v is None for v in s[half:]]) for s in searches])
        best[name] = np.array([min(v for v in s if v is not None) for s in searches])
    seeds = len(best["constraint"])
    print(f"\n{seeds} seeds x {trials} trials, the first {STARTUP_TRIALS} at random")
    print(f"{'told':10}  {'diverged':23}  {f'from trial {half} on':23}  best value")
    for name in runs:
        row = (interval(share[name]), interval(late[name]), interval(best[name]))
        print(f"{name:10}  {row[0]:23}  {row[1]:23}  {row[2]}")
    for name in list(runs)[1:]:
        print(
            f"{name} - constraint, paired: diverged {interval(share[name] - share['constraint'])}"
            f", best {interval(best[name] - best['constraint'])}"
        )


if __name__ == "__main__":
    main()
