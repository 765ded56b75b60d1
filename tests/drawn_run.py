"""A run without a search: configurations drawn from a preset's space, results made up by a rule.

For tests of reports that need many trials of every outcome; nothing is trained. Errors follow from
the parameters (a learning rate of 1e-2 is best, strong eigengap terms hurt, large weights of the
native backends diverge), so that a report has something to find.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from search.plan.config import SearchConfig, objective_window
from search.plan.early_stopping import early_stopper
from search.records.run_plan import declared
from search.records.store import RunStore
from tests.stored import ended_trial

SNRS_DB = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0)
SEED = 2_000_003
FRESH = 3_000_003
SCENES = 48
ELEMENTS = 36


def make(
    path: Path,
    *,
    trials: int = 40,
    preset: str = "local",
    seed: int = 0,
    confirmed: bool = False,
) -> RunStore:
    """Writes the run; equal arguments write equal rows.

    Args:
        confirmed: whether the four best trials are rerun, and the eigengap term ablated.
    """
    random = np.random.default_rng(seed)
    plan = SearchConfig(preset, trials, path.name, out=str(path.parent))
    about = {"search": plan.as_dict(), **plan.space_json, "provenance": {"command": ["made up"]}}
    store = RunStore.create(path, parameters=declared(plan), plan=about)
    stopper = early_stopper("asha", plan.template.epochs)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    finished = {}
    for number in range(trials):
        drawn = plan.space.suggest(study.ask())
        name = f"t{number:04d}"
        store.write_config(
            name, {"trial_id": name, "params": plan.train_config(drawn).to_params()}
        )
        objective = _trial(store, name, number, drawn, stopper, plan.template.epochs, random)
        if objective is not None:
            finished[name] = objective
    _baselines(store, random)
    if finished:
        best = min(finished, key=finished.__getitem__)
        store.write_part("scenes", best, _scenes(best, "network", finished[best] - 0.5, random))
        store.write_part("spectra", best, _spectra(best))
        store.write_part("pseudospectra", best, _pseudospectra(best))
    if confirmed:
        _rerun(store, sorted(finished, key=finished.__getitem__)[:4], random)
    return store


def _trial(
    store: RunStore,
    name: str,
    number: int,
    drawn: dict[str, Any],
    stopper: Any,
    budget: int,
    random: np.random.Generator,
) -> float | None:
    """Writes one trial's rows; its objective, if it completed."""
    weight = drawn.get("eigengap.weight", 0.0)
    backend = drawn.get("spectral.backend")
    rate = math.log10(drawn.get("optimizer.learning_rate", 1e-2))
    reached = 0.42 + 0.12 * (rate + 2) ** 2 + 0.1 * weight + random.normal(0, 0.01)
    risky = backend in ("eigh", "svd") and weight > 0.03
    row = {
        "trial_id": name,
        "number": number,
        "seed": 0,
        "evaluation_seed": 1_000_003,
        "host": "here",
        "device": "cpu",
        "config_hash": f"{number:08x}",
        **{f"params.{key}": value for key, value in drawn.items()},
    }
    ends = int(random.integers(1, 4)) if risky and random.random() < 0.8 else None
    epochs, errors = [], []
    outcome = "completed"
    for epoch in range(1, budget + 1):
        if epoch == ends:
            outcome = "diverged"
            break
        errors.append(reached + 0.35 * math.exp(-epoch / 3) + random.normal(0, 0.012))
        objective = float(np.mean(errors[-objective_window(budget) :]))
        epochs.append(
            {
                "trial_id": name,
                "epoch": epoch,
                "step": 20 * epoch,
                "loss_total": errors[-1],
                "objective": objective,
                "validation_capped_error": errors[-1],
                "gradient_norm": 1.0 + random.exponential(),
                "min_eigengap": 1e-3,
                "median_eigengap": 0.05,
                "skipped_samples": 0,
                "seconds": 1.2,
            }
        )
        if stopper.should_stop(name, number, epoch, objective):
            outcome = "stopped"
            break
    seconds = 1.2 * len(epochs) * (2.0 if backend == "svd" else 1.0) * random.uniform(0.8, 1.2)
    row |= {"outcome": outcome, "epochs": len(epochs), "seconds": seconds}
    row["seconds_per_epoch"] = seconds / len(epochs) if epochs else None
    if outcome == "stopped":
        row["rung"] = len(epochs)
    if outcome == "diverged":
        cause = ("nonfinite_gradient", "spectral_breakdown")[number % 2]
        row["cause"] = cause
        failure = {
            "trial_id": name,
            "attempt": 1,
            "outcome": outcome,
            "cause": cause,
            "term": "eigengap",
            "step": 20 * len(epochs) + 7,
            "epoch": len(epochs) + 1,
            "min_eigengap": 1e-9,
            "message": "the gradient was not finite",
        }
        ended_trial(store, row, epochs=epochs, failures=[failure])
        return None
    row |= {"objective_low": objective - 0.02, "objective_high": objective + 0.02}
    row["objective"] = objective
    rows = [*_evaluations(name, "network", objective - 0.5)] if outcome == "completed" else []
    ended_trial(store, row, epochs=epochs, evaluations=rows)
    return objective if outcome == "completed" else None


def _baselines(store: RunStore, random: np.random.Generator) -> None:
    shifts = {"crb": -0.2, "lmmse_music": 0.15, "pinv_music": 0.28, "lmmse_beamformer": 0.06}
    rows = [row for name, shift in shifts.items() for row in _evaluations(None, name, shift)]
    store.write_part("evaluations", "baselines", rows)
    scenes = [row for name in shifts for row in _scenes(None, name, shifts[name], random)]
    store.write_part("scenes", "baselines", scenes)


def _rerun(store: RunStore, names: list[str], random: np.random.Generator) -> None:
    """Confirmations of these trials over three seeds, and an ablation in which the term hurts."""
    for name, shift in {"crb": -0.2, "lmmse_music": 0.15, "sml": -0.12}.items():
        rows = [row | {"evaluation_seed": FRESH} for row in _scenes(None, name, shift, random)]
        store.write_part("scenes", f"{name}-fresh", rows)
    cells = [row | {"evaluation_seed": FRESH} for row in _evaluations(None, "sml", -0.12)]
    store.write_part("confirmations", "baselines-fresh", cells)
    ablated = []
    for name in names:
        for seed in (1, 2, 3):
            for arm, changes, harm in (("without", "", 0.0), ("with", "eigengap.weight=1", 0.1)):
                about = {"seed": seed, "evaluation_seed": FRESH, "changes": changes}
                scenes = [row | about for row in _scenes(name, "network", -0.05 + harm, random)]
                asked = about | {"confirmed": None if changes else SCENES}
                cells = [row | asked for row in _evaluations(name, "network", -0.05 + harm)]
                part = f"{name}-{arm}-{seed}"
                store.write_part("scenes", part, scenes)
                store.write_part("confirmations", part, cells)
                kept = ("trial_id", "snr_db", "num_sources", "num_scenes", "capped_error")
                ablated += [
                    {k: row[k] for k in kept} | about | {"ablation": "eigengap", "arm": arm}
                    for row in cells
                ]
    store.write_part("ablations", "eigengap", ablated)


def _error(snr_db: float, count: int, shift: float) -> float:
    return float(1 / (1 + np.exp((snr_db + 3 - 2 * count - 12 * shift) / 4)))


def _evaluations(trial_id: str | None, estimator: str, shift: float) -> list[dict[str, Any]]:
    rows = []
    for count in (1, 2):
        for snr_db in SNRS_DB:
            error = _error(snr_db, count, shift)
            rows.append(
                {
                    "trial_id": trial_id,
                    "estimator": estimator,
                    "evaluation_seed": SEED,
                    "snr_db": snr_db,
                    "num_sources": count,
                    "num_scenes": SCENES,
                    "capped_error": error,
                    "capped_error_low": max(error - 0.03, 0.0),
                    "capped_error_high": min(error + 0.03, 1.0),
                    "rmspe_deg": 0.05 + 30 * error**2,
                    "median_error_deg": 10 * error,
                    "success_rate": 1 - error,
                    "source_number_accuracy": 1 - error / 2,
                    "crb_db": 0.0 if estimator == "crb" else 3 + 20 * max(shift + 0.1, 0),
                }
            )
    return rows


def _scenes(
    trial_id: str | None, estimator: str, shift: float, random: np.random.Generator
) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": trial_id,
            "estimator": estimator,
            "evaluation_seed": SEED,
            "scene_id": scene,
            "snr_db": snr_db,
            "num_sources": count,
            "capped_error": float(
                np.clip(_error(snr_db, count, shift) + random.normal(0, 0.1), 0, 1)
            ),
        }
        for scene in range(SCENES)
        for snr_db in SNRS_DB
        for count in (1, 2)
    ]


def _spectra(trial_id: str) -> list[dict[str, Any]]:
    rows = []
    for snr_db in (-5.0, 0.0):
        for count in (1, 2):
            for stage, fall in {"measured": 6.0, "untrained": 9.0, "trained": 2.0}.items():
                values = np.exp(-np.arange(ELEMENTS) / fall)
                values[:count] += 0.5
                values /= values.sum()
                rows += [
                    {
                        "trial_id": trial_id,
                        "stage": stage,
                        "evaluation_seed": SEED,
                        "snr_db": snr_db,
                        "num_sources": count,
                        "index": i + 1,
                        "eigenvalue": float(v),
                        "eigenvalue_low": float(0.7 * v),
                        "eigenvalue_high": float(1.4 * v),
                    }
                    for i, v in enumerate(values)
                ]
    return rows


def _pseudospectra(trial_id: str) -> list[dict[str, Any]]:
    truth = ((-20.0, 5.0), (25.0, -10.0))
    about = {
        "trial_id": trial_id,
        "evaluation_seed": SEED,
        "scene_id": 0,
        "snr_db": 0.0,
        "num_sources": 2,
    }
    grid = [(float(a), float(e)) for e in range(-30, 31, 3) for a in range(-60, 61, 3)]
    rows = []
    for name, width, off in (("lmmse_music", 12.0, 4.0), ("network", 7.0, 1.0), ("truth", 0, 0.0)):
        places = [(a + off, e - off) for a, e in truth]
        kinds = [("source", place, None) for place in places]
        for a, e in grid if width else ():
            peaks = [math.exp(-math.hypot(a - x, e - y) / width) for x, y in places]
            kinds.append(("grid", (a, e), 12 * max(peaks)))
        for point, (kind, (azimuth, elevation), level) in enumerate(kinds):
            rows.append(
                about
                | {
                    "estimator": name,
                    "kind": kind,
                    "point": point,
                    "azimuth_deg": azimuth,
                    "elevation_deg": elevation,
                    "level_db": level,
                }
            )
    return rows


if __name__ == "__main__":
    import sys

    print(json.dumps(str(make(Path(sys.argv[1]), trials=int(sys.argv[2])).path)))
