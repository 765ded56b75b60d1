"""Rows of `evaluations` and `scenes` with known means, for runs without a search."""

import numpy as np

from search.plan.outcome import Outcome
from tests.stored import ended_trial

SNRS_DB = (-10.0, -5.0, 0.0, 10.0)
SEED = 2_000_003
SCENES = 24
REFINED = "network+judged"


def capped(snr_db, num_sources, shift):
    return 1 / (1 + np.exp((snr_db + shift - 3 * num_sources) / 4))


def evaluation_rows(trial_id, estimator, shift, snrs=SNRS_DB):
    for num_sources in (1, 2):
        for snr_db in snrs:
            error = capped(snr_db, num_sources, shift)
            yield {
                "trial_id": trial_id,
                "estimator": estimator,
                "evaluation_seed": SEED,
                "snr_db": snr_db,
                "num_sources": num_sources,
                "num_scenes": SCENES,
                "capped_error": error,
                "capped_error_low": error - 0.04,
                "capped_error_high": error + 0.02,
                "rmspe_deg": 20 * error,
                "success_rate": 1 - error,
            }


def scene_rows(trial_id, estimator, shift, noise=0.0, scenes=range(SCENES)):
    hard = np.random.default_rng(1).uniform(0.3, 0.8, size=SCENES)
    jitter = np.random.default_rng(2).normal(0, noise, size=(SCENES, 2, len(SNRS_DB)))
    for scene in scenes:
        for i, num_sources in enumerate((1, 2)):
            for j, snr_db in enumerate(SNRS_DB):
                yield {
                    "trial_id": trial_id,
                    "estimator": estimator,
                    "evaluation_seed": SEED,
                    "scene_id": scene,
                    "snr_db": snr_db,
                    "num_sources": num_sources,
                    "capped_error": hard[scene] + shift + jitter[scene, i, j],
                }


def add_trial(store, number, outcome=Outcome.COMPLETED, objective=None, **more):
    name = f"t{number:03d}"
    row = {"trial_id": name, "number": number, "outcome": outcome, "objective": objective}
    ended_trial(store, row | {"epochs": 9} | more.pop("row", {}), **more)
    return name
